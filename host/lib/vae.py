"""Variational autoencoders: libvae, from Python, with ctypes and NumPy alone.

    import vae
    model = vae.fit(x, hidden=[400], latent=20, epochs=10)      # x: (n,D), (n,h,w) or (n,h,w,c)
    mu, logvar, z = model.encode(x)
    pictures = model.sample(16)
    model.save("model.safetensors")
    model = vae.load("runs/first")                              # what `vae train` left

Arrays are one row an example. Bytes (uint8) mean byte/255; booleans are black and white; anything
else becomes float32, within [0,1] under the default likelihood. uint8 and float32 arrays in C order
are read where they lie, without a copy. Other threads of Python run meanwhile.

The library is the one that LIBVAE names, or the one installed with this file, or the loader's.
"""

import ctypes
import logging
import os
import queue
import tempfile
import threading
from collections import namedtuple

import numpy as np

__all__ = ["fit", "load", "Model", "Transformer", "Encoded", "Score", "Epoch", "version",
           "VaeError", "RuntimeFailure", "UsageError", "DataError", "FileError", "DivergedError",
           "NoDeviceError"]

log = logging.getLogger("vae")  # what training has to say

Encoded = namedtuple("Encoded", "mu logvar z")             # (n,Z) each; z is drawn
Score = namedtuple("Score", "negative_elbo recon kl")      # (n) each, nats
Epoch = namedtuple("Epoch", "number of elbo recon kl bound")  # means over the training rows, nats


# ---- errors: the texts are the library's ----

class VaeError(Exception):
    """A call failed; `result` is the program's exit code for it (enum vae_result of vae.h)."""
    result = 1


class RuntimeFailure(VaeError, RuntimeError):
    """Out of memory, or a library failed."""
    result = 1


class UsageError(VaeError, ValueError):
    """An unknown option, a bad value, no such model."""
    result = 2


class DataError(VaeError, ValueError):
    """Data or a file that is not what it should be."""
    result = 3


class FileError(VaeError, OSError):
    """Cannot open, read or write."""
    result = 4


class DivergedError(VaeError, ArithmeticError):
    """Training met NaN or Inf."""
    result = 5


class NoDeviceError(VaeError, RuntimeError):
    """The GPU asked for is not there."""
    result = 6


_ERRORS = {e.result: e for e in (RuntimeFailure, UsageError, DataError, FileError, DivergedError,
                                 NoDeviceError)}
_INTERRUPTED = 7


# ---- the library ----

_NAME = "libvae.so.2"
_INSTALLED = "@LIBDIR@/" + _NAME  # `make install` fills it in
_BYTES, _FLOATS, _PACKED_BITS = 0, 1, 2


class _Shape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                ("rows_of", "height", "width", "channels", "latent", "parameters", "classes")] + \
               [("conditional", ctypes.c_int), ("classifies", ctypes.c_int)]


class _Epoch(ctypes.Structure):
    _fields_ = [("number", ctypes.c_ulong), ("of", ctypes.c_ulong)] + \
               [(name, ctypes.c_double) for name in ("elbo", "recon", "kl", "bound")]


_OnLog = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)
_OnEpoch = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Epoch))


def _signatures():
    ptr, num, size, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
    rows = [ptr, ptr, num, size]  # handle, x, type, n
    return {
        "vae_version": (text, []),
        "vae_new": (ptr, []),
        "vae_free": (None, [ptr]),
        "vae_message": (text, [ptr]),
        "vae_set_option": (num, [ptr, text, text]),
        "vae_on_log": (None, [ptr, _OnLog, ptr]),
        "vae_on_epoch": (None, [ptr, _OnEpoch, ptr]),
        "vae_load": (num, [ptr, text]),
        "vae_save": (num, [ptr, text]),
        "vae_get_shape": (num, [ptr, ctypes.POINTER(_Shape), size]),
        "vae_class": (text, [ptr, size]),
        "vae_set_labels": (num, [ptr, ctypes.POINTER(text), size]),
        "vae_encode": (num, rows + [ptr, ptr, ptr]),
        "vae_decode": (num, [ptr, ptr, size, ptr]),
        "vae_reconstruct": (num, rows + [ptr]),
        "vae_sample": (num, [ptr, size, ptr, ptr]),
        "vae_score": (num, rows + [ptr, ptr, ptr]),
        "vae_classify": (num, rows + [ptr]),
        "vae_fit": (num, rows + [size, size, size]),
        "vae_stop": (None, [ptr]),
    }


def _open():
    here = os.path.dirname(os.path.abspath(__file__))
    places = [os.environ.get("LIBVAE"), _INSTALLED,
              os.path.join(here, "..", "..", "build", "lib", _NAME)]
    path = next((p for p in places if p and (p == places[0] or os.path.exists(p))), _NAME)
    lib = ctypes.CDLL(path)
    for name, (result, arguments) in _signatures().items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


_lib = _open()


def version():
    """The library's version, such as "0.1.0"."""
    return _lib.vae_version().decode()


# ---- arrays ----

def _rows(x):
    """x as the library takes it, its type's number, and how its rows are shaped (h,w,c)."""
    x = np.asarray(x)
    if not 2 <= x.ndim <= 4:
        raise UsageError(f"x: expected (n,D), (n,h,w) or (n,h,w,c), found shape {x.shape}")
    if x.dtype.kind not in "buif":
        raise UsageError(f"x: expected numbers, found {x.dtype}")
    shape = (1, x.shape[1], 1) if x.ndim == 2 else (x.shape[1:] + (1,))[:3]
    n = len(x)
    if x.dtype == np.bool_:
        return np.packbits(x.reshape(n, -1), axis=1, bitorder="little"), _PACKED_BITS, shape
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x), _BYTES, shape
    return np.ascontiguousarray(x, np.float32), _FLOATS, shape


def _texts(labels):
    """Labels as C strings, NULL where there is none: None, NaN, or a negative number."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise UsageError(f"labels: expected (n), found shape {labels.shape}")
    out = (ctypes.c_char_p * len(labels))()
    if labels.dtype.kind in "biuf":
        missing = np.isnan(labels) if labels.dtype.kind == "f" else np.zeros(len(labels), bool)
        if labels.dtype.kind in "if":
            missing = missing | (labels < 0)
        kinds, which = np.unique(labels, return_inverse=True)
        kinds = [repr(k.item()) if k.dtype.kind != "b" else str(int(k)) for k in kinds]
    else:
        missing = np.array([y is None or y != y for y in labels.tolist()], bool)
        kinds, which = np.unique([str(y) for y in labels.tolist()], return_inverse=True)
    kinds = [str(k).encode() for k in kinds]
    for i, k in enumerate(which.reshape(-1)):
        out[i] = None if missing[i] else kinds[k]
    return out


def _option(value):
    """As it is written on the command line."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (list, tuple, np.ndarray)):
        return ",".join(_option(v) for v in value) or "none"
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


# ---- models ----

class Model:
    """A trained model. Made by `fit` and `load`; safe to use from several threads, one at a time."""

    def __init__(self, **options):
        self._handle = None
        self._busy = threading.RLock()
        self._handle = _lib.vae_new()
        if not self._handle:
            raise MemoryError("no memory for a model")
        # what the library has to say goes to logging; kept here, or it would be collected
        self._on_log = _OnLog(lambda _, line: log.info("%s", line.decode(errors="replace")))
        _lib.vae_on_log(self._handle, self._on_log, None)
        for name, value in options.items():
            if value is not None:
                self.set_option(name, value)

    def __del__(self):
        if self._handle:
            _lib.vae_free(self._handle)
            self._handle = None

    def _check(self, result):
        if result:
            raise _ERRORS.get(result, VaeError)(_lib.vae_message(self._handle).decode())

    def __repr__(self):
        s = self._shape()
        picture = f"{s.height}x{s.width}x{s.channels}" if s.height > 1 else f"{s.rows_of} columns"
        classes = f", {s.classes} classes" if s.classes else ""
        return f"<vae.Model {picture}, {s.latent} latents{classes}, {s.parameters} parameters>"

    # a model that is pickled is its checkpoint: joblib and multiprocessing pass models about

    def __reduce__(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.vae")
            self.save(path)
            with open(path, "rb") as file:
                return _from_bytes, (file.read(),)

    def _shape(self):
        shape = _Shape()
        self._check(_lib.vae_get_shape(self._handle, ctypes.byref(shape), ctypes.sizeof(shape)))
        return shape

    @property
    def latent(self):
        """Z, the number of latents."""
        return self._shape().latent

    @property
    def shape(self):
        """Of a row: (D,), (h,w) or (h,w,c)."""
        return self._row_shape(self._shape())

    @property
    def parameters(self):
        """How many there are."""
        return self._shape().parameters

    @property
    def classes(self):
        """Names of the model's classes; empty if it knows none."""
        count = self._shape().classes
        return [_lib.vae_class(self._handle, k).decode() for k in range(count)]

    @staticmethod
    def _row_shape(s):
        if s.height == 1 and s.channels == 1:
            return (s.rows_of,)
        return (s.height, s.width) if s.channels == 1 else (s.height, s.width, s.channels)

    def set_option(self, name, value):
        """An option of `vae train --help` that says where and how to compute: device, threads,
        seed. Holds for every later call."""
        with self._busy:
            self._check(_lib.vae_set_option(self._handle, name.replace("_", "-").encode(),
                                            os.fsencode(_option(value))))

    def _set_labels(self, y):
        texts = None if y is None else _texts(y)
        self._check(_lib.vae_set_labels(self._handle, texts, 0 if y is None else len(texts)))

    def _take(self, x):
        """Checks that rows are the model's; the library takes the caller's word for it."""
        s = self._shape()
        x, kind, shape = _rows(x)
        if int(np.prod(shape)) != s.rows_of:
            raise UsageError(f"x: rows of {int(np.prod(shape))} values; the model takes "
                             f"{s.rows_of}, {'x'.join(map(str, self._row_shape(s)))}")
        return s, x, kind

    def _latents(self, z):
        s = self._shape()
        z = np.ascontiguousarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != s.latent:
            raise UsageError(f"z: expected (n,{s.latent}), found shape {z.shape}")
        return s, z

    def encode(self, x, y=None):
        """mu, logvar (of sigma^2) and z, a draw: (n,Z) each. y: the rows' classes, which a
        conditional model needs."""
        with self._busy:
            s, x, kind = self._take(x)
            self._set_labels(y)
            out = Encoded(*(np.empty((len(x), s.latent), np.float32) for _ in range(3)))
            self._check(_lib.vae_encode(self._handle, x.ctypes.data, kind, len(x),
                                        *(a.ctypes.data for a in out)))
            return out

    def decode(self, z, y=None):
        """Means of p(x|z), of z: (n,Z). y: classes, which any model with classes needs."""
        with self._busy:
            s, z = self._latents(z)
            self._set_labels(y)
            x_hat = np.empty((len(z),) + self._row_shape(s), np.float32)
            self._check(_lib.vae_decode(self._handle, z.ctypes.data, len(z), x_hat.ctypes.data))
            return x_hat

    def reconstruct(self, x, y=None):
        """x, by way of mu: nothing is drawn. y: as in encode."""
        with self._busy:
            s, x, kind = self._take(x)
            self._set_labels(y)
            x_hat = np.empty((len(x),) + self._row_shape(s), np.float32)
            self._check(_lib.vae_reconstruct(self._handle, x.ctypes.data, kind, len(x),
                                             x_hat.ctypes.data))
            return x_hat

    def sample(self, n, y=None, seed=None):
        """n draws from the prior, decoded. y: as in decode. The same seed gives the same."""
        with self._busy:
            s = self._shape()
            if seed is not None:
                self.set_option("seed", seed)
            self._set_labels(y)
            x_hat = np.empty((n,) + self._row_shape(s), np.float32)
            self._check(_lib.vae_sample(self._handle, n, x_hat.ctypes.data, None))
            return x_hat

    def score(self, x, y=None):
        """negative_elbo = recon + kl, nats, of each row; higher is more abnormal. y: as in
        encode."""
        with self._busy:
            _, x, kind = self._take(x)
            self._set_labels(y)
            out = Score(*np.empty((3, len(x)), np.float32))
            self._check(_lib.vae_score(self._handle, x.ctypes.data, kind, len(x),
                                       *(a.ctypes.data for a in out)))
            return out

    def classify(self, x):
        """q(y|x) of a semi-supervised model: (n,C), columns as in `classes`."""
        with self._busy:
            s, x, kind = self._take(x)
            self._set_labels(None)
            p = np.empty((len(x), s.classes), np.float32)
            self._check(_lib.vae_classify(self._handle, x.ctypes.data, kind, len(x),
                                          p.ctypes.data))
            return p

    def save(self, path):
        """.safetensors, .npz, or a checkpoint by any other name."""
        with self._busy:
            self._check(_lib.vae_save(self._handle, os.fsencode(path)))

    def _fit(self, x, y, on_epoch):
        """Trains in a thread of its own, so that Ctrl-C is heard; on_epoch is called in this one."""
        x, kind, (h, w, c) = _rows(x)
        if kind == _BYTES and x.size and x.max() <= 1:
            raise DataError("x: bytes of 0 and 1, which mean 0/255 and 1/255: black and white is "
                            "x.astype(bool)")
        self._set_labels(y)
        events, answer, result = queue.Queue(), queue.Queue(), []

        def told(_, epoch):
            e = epoch.contents
            events.put(Epoch(*(getattr(e, name) for name in Epoch._fields)))
            return answer.get()

        def work():
            result.append(_lib.vae_fit(self._handle, x.ctypes.data, kind, len(x), h, w, c))
            events.put(None)

        tell = _OnEpoch(told if on_epoch is not None else 0)
        _lib.vae_on_epoch(self._handle, tell, None)
        worker = threading.Thread(target=work, name="vae.fit", daemon=True)
        failure = None
        worker.start()
        while True:
            try:
                event = events.get()
                if event is None:
                    break
                stop = 1
                try:
                    stop = int(bool(on_epoch(event))) if failure is None else 1
                finally:
                    answer.put(stop)
            except BaseException as e:  # Ctrl-C, or what on_epoch raised: the training ends first
                failure = e
                _lib.vae_stop(self._handle)
        worker.join()
        _lib.vae_on_epoch(self._handle, _OnEpoch(0), None)
        if failure is not None:
            raise failure
        if result[0] != _INTERRUPTED:  # on_epoch wanted no more: the model is as far as it got
            self._check(result[0])
        return self


def fit(x, y=None, *, on_epoch=None, **options):
    """Trains a new model on x: (n,D), (n,h,w) or (n,h,w,c).

    Options are those of `vae train --help`, with _ for -: hidden=[400, 200], latent=20, epochs=10,
    batch_size=128, likelihood="gaussian", standardize="columns", device="cuda", seed=3 ...; out=
    names a run folder to write as the program does.
    y: the rows' classes, numbers or texts, for condition="labels" and semi_supervised=True (where
    None, NaN and negative numbers stand for rows whose class is not known).
    on_epoch(epoch) is called after each epoch, with an Epoch; a true value ends the training there.
    Ctrl-C ends it, too, and is raised as ever.
    """
    return Model(**options)._fit(x, y, on_epoch)


def load(path, **options):
    """A run folder, a checkpoint, or weights from .safetensors or .npz. Options: device, threads,
    seed."""
    model = Model(**options)
    model._check(_lib.vae_load(model._handle, os.fsencode(path)))
    return model


def _from_bytes(checkpoint):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.vae")
        with open(path, "wb") as file:
            file.write(checkpoint)
        return load(path)


# ---- scikit-learn ----

def _transformer():
    """The class needs scikit-learn's base classes, which this module does not: it is made when it
    is first asked for."""
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted

    class Transformer(TransformerMixin, BaseEstimator):
        """A scikit-learn estimator: transform is mu, inverse_transform the decoder's means,
        score_samples the ELBO in nats (higher is more normal). `options`: a dict of further
        options of `fit`."""

        def __init__(self, latent=20, hidden=(400,), likelihood="bernoulli", epochs=10,
                     batch_size=128, lr=0.001, seed=1, standardize="auto", device="auto",
                     threads=0, options=None):
            self.latent = latent
            self.hidden = hidden
            self.likelihood = likelihood
            self.epochs = epochs
            self.batch_size = batch_size
            self.lr = lr
            self.seed = seed
            self.standardize = standardize
            self.device = device
            self.threads = threads
            self.options = options

        def fit(self, X, y=None):
            """y is not looked at."""
            given = {**self.get_params(), **(self.options or {})}
            del given["options"]
            self.model_ = fit(X, **given)
            self.n_features_in_ = np.asarray(X).shape[1]
            return self

        def transform(self, X):
            check_is_fitted(self)
            return self.model_.encode(X).mu

        def inverse_transform(self, Z):
            check_is_fitted(self)
            x_hat = self.model_.decode(Z)
            return x_hat.reshape(len(x_hat), -1)

        def score_samples(self, X):
            check_is_fitted(self)
            return -self.model_.score(X).negative_elbo

        def score(self, X, y=None):
            """Mean ELBO of the rows, nats."""
            return float(self.score_samples(X).mean())

    Transformer.__module__ = __name__
    Transformer.__qualname__ = "Transformer"
    return Transformer


def __getattr__(name):
    if name == "Transformer":
        globals()[name] = _transformer()
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""libvae from Python, with ctypes and NumPy alone.

    LIBVAE=/usr/local/lib/libvae.so python3 example.py [RUN|model.safetensors]

Without an argument it trains a small model on drawn pictures first."""

import ctypes
import os
import sys

import numpy as np

BYTES, FLOATS = 0, 1
c_void, c_int, c_size, c_text = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p


class Shape(ctypes.Structure):
    _fields_ = [(name, c_size) for name in
                ("rows_of", "height", "width", "channels", "latent", "parameters")]


def load_library(path):
    lib = ctypes.CDLL(path)
    signatures = {
        "vae_new": (c_void, []),
        "vae_free": (None, [c_void]),
        "vae_version": (c_text, []),
        "vae_message": (c_text, [c_void]),
        "vae_set_option": (c_int, [c_void, c_text, c_text]),
        "vae_load": (c_int, [c_void, c_text]),
        "vae_save": (c_int, [c_void, c_text]),
        "vae_get_shape": (c_int, [c_void, ctypes.POINTER(Shape), c_size]),
        "vae_encode": (c_int, [c_void, c_void, c_int, c_size, c_void, c_void, c_void]),
        "vae_decode": (c_int, [c_void, c_void, c_size, c_void]),
        "vae_reconstruct": (c_int, [c_void, c_void, c_int, c_size, c_void]),
        "vae_sample": (c_int, [c_void, c_size, c_void, c_void]),
        "vae_score": (c_int, [c_void, c_void, c_int, c_size, c_void, c_void, c_void]),
        "vae_fit": (c_int, [c_void, c_void, c_int, c_size, c_size, c_size, c_size]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class Vae:
    """A model; arrays go in and out as NumPy arrays, one row an example."""

    handle = None

    def __init__(self, path=None, library=None):
        self.lib = load_library(library or os.environ.get("LIBVAE", "libvae.so.2"))
        self.handle = self.lib.vae_new()
        if path is not None:
            self.check(self.lib.vae_load(self.handle, os.fsencode(path)))

    def __del__(self):
        if self.handle:
            self.lib.vae_free(self.handle)

    def check(self, result):
        if result:
            raise RuntimeError(self.lib.vae_message(self.handle).decode())

    @property
    def shape(self):
        shape = Shape()
        self.check(self.lib.vae_get_shape(self.handle, ctypes.byref(shape), ctypes.sizeof(shape)))
        return shape

    @staticmethod
    def rows(x):
        x = np.ascontiguousarray(x, np.uint8 if x.dtype == np.uint8 else np.float32)
        return x, BYTES if x.dtype == np.uint8 else FLOATS

    def width(self, array, expected):
        """The library takes the caller's word for sizes: check them here."""
        if array[0].size != expected:
            raise ValueError(f"rows of {array[0].size} values; expected {expected}")

    def set_option(self, name, value):
        self.check(self.lib.vae_set_option(self.handle, name.encode(), str(value).encode()))

    def fit(self, x, **options):
        """Trains by the options of `vae train --help`: latent=10, hidden="400,200", epochs=5."""
        for name, value in options.items():
            self.set_option(name, value)
        x, kind = self.rows(x)
        n, h, w, c = (x.shape + (1, 1))[:4] if x.ndim > 2 else (len(x), 1, x.shape[1], 1)
        self.check(self.lib.vae_fit(self.handle, x.ctypes.data, kind, n, h, w, c))
        return self

    def save(self, path):
        self.check(self.lib.vae_save(self.handle, os.fsencode(path)))

    def encode(self, x):
        x, kind = self.rows(x)
        self.width(x, self.shape.rows_of)
        mu, logvar, z = (np.empty((len(x), self.shape.latent), np.float32) for _ in range(3))
        self.check(self.lib.vae_encode(self.handle, x.ctypes.data, kind, len(x), mu.ctypes.data,
                                       logvar.ctypes.data, z.ctypes.data))
        return mu, logvar, z

    def decode(self, z):
        z = np.ascontiguousarray(z, np.float32)
        self.width(z, self.shape.latent)
        x_hat = np.empty((len(z), self.shape.rows_of), np.float32)
        self.check(self.lib.vae_decode(self.handle, z.ctypes.data, len(z), x_hat.ctypes.data))
        return x_hat

    def sample(self, n):
        x_hat = np.empty((n, self.shape.rows_of), np.float32)
        self.check(self.lib.vae_sample(self.handle, n, x_hat.ctypes.data, None))
        return x_hat

    def score(self, x):
        """-ELBO, recon and kl of each row, nats."""
        x, kind = self.rows(x)
        self.width(x, self.shape.rows_of)
        out = np.empty((3, len(x)), np.float32)
        self.check(self.lib.vae_score(self.handle, x.ctypes.data, kind, len(x),
                                      *(row.ctypes.data for row in out)))
        return out


def main():
    if len(sys.argv) > 1:
        model = Vae(sys.argv[1])
        x = np.random.default_rng(1).random((8, model.shape.rows_of), np.float32)
    else:
        x = np.zeros((512, 8, 8), np.uint8)
        x[np.arange(512), :, np.arange(512) % 8] = 255
        model = Vae().fit(x, hidden=64, latent=2, epochs=10, lr=0.005)
    mu, logvar, z = model.encode(x)
    score, recon, kl = model.score(x)
    print(f"libvae {model.lib.vae_version().decode()}: D {model.shape.rows_of}, "
          f"Z {model.shape.latent}, {model.shape.parameters} parameters")
    print(f"elbo {-score.mean():.3f}  recon {recon.mean():.3f}  kl {kl.mean():.3f} nats a row")
    print("sample", model.sample(4).shape, " mu", mu.shape, " decoded", model.decode(mu).shape)


if __name__ == "__main__":
    main()

"""The Python module that `make install` put there, as a stranger uses it: NumPy in, NumPy out, the
errors, the threads, and a scikit-learn pipeline where that is installed.

    check_python.py FOLDER      where vae.py was installed
The last line is `N passed, N failed, N skipped`."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import numpy as np

sys.path.insert(0, sys.argv[1])
import vae  # noqa: E402

assert os.path.dirname(os.path.abspath(vae.__file__)) == os.path.abspath(sys.argv[1])
SMALL = {"hidden": [16], "latent": 2, "epochs": 8, "lr": 0.01, "device": "cpu", "threads": 1}


def bars(n=256, side=8):
    """Pictures of one bright column each, and which."""
    x = np.zeros((n, side, side), np.uint8)
    x[np.arange(n), :, np.arange(n) % side] = 255
    return x, np.arange(n) % side


def raises(kind, says, f, *args, **options):
    try:
        f(*args, **options)
    except kind as e:
        assert says in str(e), f"{e} (expected: {says})"
        return e
    raise AssertionError(f"nothing raised (expected {kind.__name__}: {says})")


def test_shapes_and_types():
    x, _ = bars()
    model = vae.fit(x, **SMALL)
    assert (model.shape, model.latent, model.classes) == ((8, 8), 2, [])
    assert repr(model) == f"<vae.Model 8x8x1, 2 latents, {model.parameters} parameters>"
    encoded = model.encode(x)
    assert encoded.mu.shape == encoded.z.shape == (256, 2) and encoded.mu.dtype == np.float32
    # the same rows as bytes, floats, doubles, bits, flat, strided
    for same in (x / np.float32(255), x / 255, x > 127, x.reshape(256, 64), np.flip(np.flip(x, 0), 0),
                 np.asfortranarray(x)):
        assert np.array_equal(model.encode(same).mu, encoded.mu), (same.dtype, same.shape)
    x_hat = model.reconstruct(x)
    assert x_hat.shape == (256, 8, 8) and np.array_equal(x_hat, model.decode(encoded.mu))
    score = model.score(x)
    assert np.array_equal(score.negative_elbo, score.recon + score.kl)
    assert np.array_equal(model.sample(3, seed=5), model.sample(3, seed=5))
    assert not np.array_equal(model.sample(3, seed=5), model.sample(3, seed=6))
    colour = np.repeat(x[..., None], 3, axis=3)
    assert vae.fit(colour, **SMALL).reconstruct(colour).shape == (256, 8, 8, 3)
    table = np.random.default_rng(1).normal(5, 3, (100, 7))
    model = vae.fit(table, likelihood="gaussian", standardize="columns", **SMALL)
    assert model.shape == (7,) and abs(model.reconstruct(table).mean() - 5) < 1


def test_what_it_learns():
    x, _ = bars()
    model = vae.fit(x, **{**SMALL, "epochs": 60})
    bright = model.reconstruct(x).mean(axis=1).argmax(axis=1)
    assert (bright == np.arange(256) % 8).mean() > 0.5
    assert model.score(255 - x).negative_elbo.min() > model.score(x).negative_elbo.max()


def test_files():
    x, _ = bars()
    model = vae.fit(x, **SMALL)
    mu = model.encode(x).mu
    with tempfile.TemporaryDirectory() as folder:
        for name in ("m.safetensors", "m.npz", "m.vae"):
            path = os.path.join(folder, name)
            model.save(path)
            assert np.array_equal(vae.load(path, threads=1, device="cpu").encode(x).mu, mu), name
        run = os.path.join(folder, "run")
        vae.fit(x, out=run, **SMALL)
        assert os.path.exists(os.path.join(run, "report.html"))
        assert np.array_equal(vae.load(run).encode(x).mu, mu)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).encode(x).mu, mu)


def test_init_from():
    x, _ = bars()
    model = vae.fit(x, **{**SMALL, "epochs": 20})
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "m.safetensors")
        model.save(path)
        on = vae.fit(x, init_from=path, epochs=1, lr=1e-30, device="cpu", threads=1)
        raises(vae.UsageError, "--latent 2, not 5", vae.fit, x, init_from=path, latent=5)
    assert on.latent == 2 and np.array_equal(on.encode(x).mu, model.encode(x).mu)


def test_errors():
    x, _ = bars()
    e = raises(vae.UsageError, "latnet", vae.fit, x, latnet=3)
    assert isinstance(e, ValueError) and isinstance(e, vae.VaeError) and e.result == 2
    raises(vae.FileError, "/nowhere", vae.load, "/nowhere/at/all")
    raises(vae.UsageError, "no model", lambda: vae.Model().latent)
    raises(vae.DataError, "astype(bool)", vae.fit, x // 255)
    raises(vae.DataError, "row 0, column 0", vae.fit, x.astype(np.float32) + 1, **SMALL)
    raises(vae.UsageError, "found shape", vae.fit, x[0, 0])
    raises(vae.UsageError, "expected numbers", vae.fit, np.array([["a", "b"]]))
    raises(vae.DivergedError, "", vae.fit, x, **{**SMALL, "lr": 1e30, "epochs": 50})
    model = vae.fit(x, **SMALL)
    raises(vae.UsageError, "64, 8x8", model.encode, x[:, :7])
    raises(vae.UsageError, "expected (n,2)", model.decode, np.zeros((3, 4)))
    raises(vae.UsageError, "no classifier", model.classify, x)


def test_epochs_and_stopping():
    x, _ = bars()
    seen, where = [], []

    def on_epoch(epoch):
        seen.append(epoch)
        where.append(threading.current_thread())
        return epoch.number == 3

    model = vae.fit(x, on_epoch=on_epoch, **SMALL)
    assert [e.number for e in seen] == [1, 2, 3] and seen[0].of == 8
    assert seen[2].elbo > seen[0].elbo and abs(seen[0].elbo + seen[0].recon + seen[0].kl) < 1e-3
    assert set(where) == {threading.main_thread()}
    assert model.encode(x).mu.shape == (256, 2)

    def fails(_):
        raise KeyError("mine")

    raises(KeyError, "mine", vae.fit, x, on_epoch=fails, **SMALL)


def test_ctrl_c():
    """In a program of its own, whose training would take hours."""
    code = ("import sys; sys.path.insert(0, sys.argv[1])\nimport numpy as np, vae\n"
            "x = np.zeros((256, 64), np.uint8); x[::2] = 255\n"
            "print('trains', flush=True)\n"
            "try:\n    vae.fit(x, epochs=100000000, threads=1, device='cpu')\n"
            "except KeyboardInterrupt:\n    print('heard')\n")
    program = subprocess.Popen([sys.executable, "-c", code, sys.argv[1]], stdout=subprocess.PIPE,
                               text=True)
    assert program.stdout.readline() == "trains\n"
    time.sleep(0.5)
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=60)[0] == "heard\n" and program.returncode == 0


def test_other_threads_run():
    x, _ = bars()
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(1)
            time.sleep(0.001)

    clock = threading.Thread(target=tick)
    clock.start()
    model = vae.fit(x, **{**SMALL, "epochs": 300})
    encoding = [threading.Thread(target=model.encode, args=(x,)) for _ in range(4)]
    for t in encoding:
        t.start()
    for t in encoding:
        t.join()
    done.set()
    clock.join()
    assert len(ticks) > 3, len(ticks)


def test_classes():
    x, y = bars()
    names = np.array([f"bar {k}" for k in range(8)])[y]
    model = vae.fit(x, names, condition="labels", batch_size=32, **{**SMALL, "epochs": 60})
    assert model.classes == [f"bar {k}" for k in range(8)]
    drawn = model.sample(8, [f"bar {k}" for k in (3, 1, 4, 1, 5, 0, 2, 6)])
    assert list(drawn.mean(axis=1).argmax(axis=1)) == [3, 1, 4, 1, 5, 0, 2, 6]
    assert model.score(x, names).negative_elbo.mean() < model.score(
        x, np.roll(names, 1)).negative_elbo.mean()
    raises(vae.DataError, "none of the model's 8", model.encode, x[:1], ["bar 9"])
    raises(vae.UsageError, "256 rows and 0 labels", model.encode, x)
    raises(vae.DataError, "no label", model.decode, np.zeros((1, 2)), [None])

    known = y.astype(float) * 10
    known[64:] = np.nan
    model = vae.fit(x, known, semi_supervised=True, labelled=64, **{**SMALL, "epochs": 60})
    assert model.classes == [str(10 * k) for k in range(8)]  # numbers by their value
    p = model.classify(x)
    assert p.shape == (256, 8) and np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert (p.argmax(axis=1) == y).mean() > 0.9


def test_log():
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logging.getLogger("vae").addHandler(handler)
    logging.getLogger("vae").setLevel(logging.INFO)
    vae.fit(bars()[0], **SMALL)
    logging.getLogger("vae").removeHandler(handler)
    assert any("parameters" in line for line in lines), lines


def test_sklearn():
    try:
        from sklearn.base import clone
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV
        from sklearn.pipeline import make_pipeline
    except ImportError:
        return "scikit-learn is not installed (tests/roundtrip/readers.sh installs it)"
    x, y = bars()
    x = x.reshape(256, 64).astype(np.float32) / 255
    given = {**SMALL, "epochs": 40, "latent": 3, "batch_size": 32}
    pipeline = make_pipeline(vae.Transformer(**given), LogisticRegression(max_iter=500))
    assert pipeline.fit(x, y).score(x, y) > 0.9
    search = GridSearchCV(clone(pipeline), {"transformer__epochs": [1, 40]}, cv=2).fit(x, y)
    assert search.best_params_ == {"transformer__epochs": 40}
    t = pipeline[0]
    assert t.transform(x).shape == (256, 3) and t.inverse_transform(t.transform(x)).shape == x.shape
    assert t.score_samples(x).shape == (256,) and t.score(x) > t.score(1 - x)
    assert t.get_params()["latent"] == 3 and "epochs=40" in repr(t)
    return None


def main():
    passed = failed = skipped = 0
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            try:
                why = test()
            except Exception:  # pylint: disable=broad-except
                failed += 1
                print(f"FAILED: {name}\n{traceback.format_exc()}")
                continue
            if why:
                skipped += 1
                print(f"SKIPPED: {name}: {why}")
            else:
                passed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())

"""Round trips through the program and the library, checked with numpy, safetensors, onnx, ONNX
Runtime, Pillow, pandas and, where it is installed, PyTorch.

    check_commands.py VAE [LIBVAE]

VAE is the program, LIBVAE the shared library (its checks are skipped without it). The last line is
`N passed, N failed, N skipped`."""

import csv
import hashlib
import importlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import traceback

import numpy as np
import onnx
import onnxruntime
import pandas
from PIL import Image, ImageOps
from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../bench/peers"))
import check_models
from check_models import close, numpy_model

VAE = os.path.abspath(sys.argv[1])
LIBRARY = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
MODULE = os.path.join(HERE, "../../host/lib")
SMALL = ["--data", "digits", "--limit", "1000"]


class Skip(Exception):
    pass


def vae(*words, expect=0, stdin=None):
    done = subprocess.run([VAE, *map(str, words)], input=stdin, capture_output=True)
    assert done.returncode == expect, (words, done.returncode, done.stderr.decode())
    if expect:
        text = done.stderr.decode()
        assert text.startswith("vae: ") and text.count("\n") == 1, text
        return text
    return done.stdout


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def torch_weights(seed, d=784, h=40, z=6):
    """A state dict of pytorch/examples' VAE, drawn as torch.nn.Linear draws."""
    rng, w = np.random.default_rng(seed), {}
    for name, fan_in, fan_out in (("fc1", d, h), ("fc21", h, z), ("fc22", h, z), ("fc3", z, h),
                                  ("fc4", h, d)):
        bound = 1 / np.sqrt(fan_in)
        w[name + ".weight"] = rng.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32)
        w[name + ".bias"] = rng.uniform(-bound, bound, fan_out).astype(np.float32)
    return w


def same_arrays(a, b):
    assert set(a) == set(b), set(a) ^ set(b)
    for key in a:
        check_models.same(key, np.asarray(a[key]), np.asarray(b[key]))


# ---- the checks: every function named check_... ----


def check_trained_model_in_onnxruntime():
    for name, options in (("plain", []),
                          ("deep", ["--hidden", "48,32", "--activation", "gelu", "--latent", "5",
                                    "--likelihood", "gaussian-learned"])):
        vae("train", *SMALL, "--epochs", "1", "--out", name, "-q", *options)
        for end in ("safetensors", "npz", "onnx"):
            vae("export", name, "--out", f"{name}.{end}")
        vae("encode", name, *SMALL, "--z", "--out", f"{name}_l.npz")
        vae("decode", name, "--latents", f"{name}_l.npz", "--out", f"{name}_x.npy")
        latents, x_hat = np.load(f"{name}_l.npz"), np.load(f"{name}_x.npy")
        assert latents["labels"].shape == (1000,) and x_hat.shape == (1000, 28, 28)
        (decoded,) = session(f"{name}.decoder.onnx").run(
            ["probabilities" if name == "plain" else "mean"], {"z": latents["z"]})
        close("decode", x_hat.reshape(1000, -1), decoded)


def check_encode_of_own_rows():
    x = np.random.default_rng(3).random((300, 28, 28), np.float32)
    np.save("rows.npy", x)
    weights = load_file("plain.safetensors")
    for name in ("plain", "deep"):
        vae("encode", name, "--data", "rows.npy", "--out", "mu.npy")
        vae("encode", name, "--data", "rows.npy", "--out", "both.npz")
        mu, logvar = session(f"{name}.encoder.onnx").run(["mu", "logvar"],
                                                         {"x": x.reshape(300, -1)})
        close("mu", np.load("mu.npy"), mu)
        close("mu in npz", np.load("both.npz")["mu"], mu)
        close("logvar", np.load("both.npz")["logvar"], logvar)
    assert set(weights) == set(torch_weights(0)), "pytorch/examples' names"


def check_pipes():
    with open("rows.npy", "rb") as f:
        rows = f.read()
    mu = vae("encode", "plain", "--data", "-", "--out", "-", stdin=rows)
    vae("encode", "plain", "--data", "rows.npy", "--out", "file.npy")
    with open("file.npy", "rb") as f:
        assert f.read() == mu
    archive = vae("encode", "plain", "--data", "-", "--out", "-", "--format", "npz", stdin=rows)
    assert np.load(io.BytesIO(archive))["mu"].shape == (300, 20)
    x_hat = np.load(io.BytesIO(vae("decode", "plain", "-l", "-", "-o", "-", stdin=mu)))
    again = np.load(io.BytesIO(vae("decode", "plain", "-l", "-", "-o", "-", stdin=archive)))
    assert x_hat.shape == (300, 28, 28)
    assert np.array_equal(x_hat, again)
    with open("model.npz", "wb") as f:
        f.write(vae("export", "plain", "--format", "npz", "--out", "-"))
    with np.load("model.npz") as ours, np.load("plain.npz") as theirs:
        same_arrays(dict(ours), dict(theirs))


def check_pictures():
    np.save("z.npy", np.random.default_rng(4).standard_normal((12, 20)))  # float64
    vae("decode", "plain", "-l", "z.npy", "-o", "x.npy")
    vae("decode", "plain", "-l", "z.npy", "-o", "pictures/")
    vae("decode", "plain", "-l", "z.npy", "-o", "grid.png")
    x_hat = np.load("x.npy")
    for i in range(12):
        with Image.open(f"pictures/{i:06d}.png") as picture:
            assert picture.mode == "L"
            assert np.array_equal(np.asarray(picture), np.floor(x_hat[i] * 255 + 0.5))
    with Image.open("grid.png") as grid:
        assert grid.width >= 4 * 28 and grid.height >= 3 * 28


def frames_of(path):
    with Image.open(path) as picture:
        assert picture.format == "GIF" and picture.info["loop"] == 0
        for i in range(picture.n_frames):
            picture.seek(i)
            yield picture.info["duration"], np.asarray(picture.convert("RGB")).astype(int)


def check_animations():
    words = ["interpolate", "plain", *SMALL, "--from", "3", "--to", "8", "--steps", "6"]
    vae(*words, "--out", "walk.gif")
    vae(*words, "--out", "walk.npy")
    x = np.load("walk.npy")
    frames = list(frames_of("walk.gif"))
    assert [ms for ms, _ in frames] == [600, 100, 100, 100, 100, 600, 100, 100, 100, 100]
    for i, (_, picture) in enumerate(frames):
        step = i if i < 6 else 10 - i
        small = picture[::4, ::4]
        assert small.shape == (28, 28, 3)
        assert np.abs(small - x[step][..., None] * 255).max() <= 0.51, "grey is exact"
    vae(*words, "--out", "walk.png")
    with Image.open("walk.png") as strip:
        assert strip.size == (8 * 58 + 2 + 16, 60) and strip.mode == "L"
        first = np.asarray(strip)[2:58:2, 68:124:2].astype(int)
    assert np.abs(first - x[0] * 255).max() <= 0.51


def check_colour():
    """RGB data: grids, folders, an animation with a palette, and PNG files as ends."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[0:12, 0:16] / 15
    hue = rng.random((200, 1, 1, 3), np.float32)
    rows = (0.2 + 0.6 * hue * np.stack([x, y, 1 - x], -1)[None] + 0.2 * hue).astype(np.float32)
    np.save("colour.npy", np.minimum(rows, 1))
    vae("train", "--data", "colour.npy", "--latent", "4", "--hidden", "32", "--epochs", "20",
        "--batch-size", "20", "--likelihood", "gaussian", "--variance", "0.01", "--out", "colour", "-q")
    words = ["interpolate", "colour", "--from", "0", "--to", "1", "--steps", "4"]
    vae(*words, "--out", "colour.gif")
    vae(*words, "--out", "steps.npy")
    steps = np.load("steps.npy")
    assert steps.shape == (4, 12, 16, 3)
    frames = list(frames_of("colour.gif"))
    assert len(frames) == 6
    for i in range(4):
        away = np.abs(frames[i][1][::7, ::7] - np.clip(steps[i], 0, 1) * 255)
        print(f"  palette: mean error {away.mean():.2f} of 255, largest {away.max():.1f}")
        assert away.mean() < 4 and away.max() < 40
    vae(*words, "--out", "colour_steps/")
    with Image.open("colour_steps/000003.png") as picture:
        assert picture.mode == "RGB" and picture.size == (16, 12)
        assert np.abs(np.asarray(picture) - np.clip(steps[3], 0, 1) * 255).max() <= 0.51
    Image.fromarray((np.load("colour.npy")[5] * 255).astype(np.uint8)).save("end.png")
    Image.fromarray(np.full((12, 16), 90, np.uint8)).save("grey.png")  # is made RGB
    vae("interpolate", "colour", "--from", "end.png", "--to", "grey.png", "--out", "ends.png")
    with Image.open("ends.png") as strip:
        pixels = np.asarray(strip)
        assert strip.mode == "RGB" and (pixels[10, -10] == 90).all()
    with Image.open("end.png") as end:
        assert (pixels[2, 2] == np.asarray(end)[0, 0]).all()
    vae("sample", "colour", "-n", "7", "--nearest", "--from", "posterior", "--out", "colour.png")
    with Image.open("colour.png") as picture:
        assert picture.mode == "RGB"


def check_import_of_others():
    w = torch_weights(5)
    save_file(w, "theirs.safetensors")
    np.savez("theirs.npz", **w)
    np.savez_compressed("packed.npz", **w)
    for path in ("theirs.safetensors", "theirs.npz", "packed.npz"):
        vae("import", path, "--out", "one.vae", "--force")
        vae("export", "one.vae", "--out", "back.safetensors")
        same_arrays(load_file("back.safetensors"), w)
    vae("import", "theirs.npz", *SMALL, "--lr", "0.002", "--out", "imported")
    config = json.loads(open("imported/config.json").read())
    assert config["lr"] == 0.002 and config["hidden"] == [40] and config["latent"] == 6
    before = json.loads(vae("eval", "imported", *SMALL, "--json"))["elbo"]
    vae("train", "--resume", "--out", "imported", "--epochs", "2", "-q")
    after = json.loads(vae("eval", "imported", *SMALL, "--json"))["elbo"]
    assert after > before + 100, (before, after)
    vae("export", "imported", "--out", "trained.safetensors")
    assert set(load_file("trained.safetensors")) == set(w)


def check_refusals():
    w = torch_weights(6)

    def refused(says, change):
        v = dict(w)
        change(v)
        save_file(v, "bad.safetensors")
        text = vae("import", "bad.safetensors", "--out", "bad.vae", expect=3)
        assert says in text, text

    refused("tensor 'fc3.bias' is missing; expected shape (40)", lambda v: v.pop("fc3.bias"))
    refused("unexpected tensor 'fc5.weight'", lambda v: v.update({"fc5.weight": v["fc1.weight"]}))
    refused("expected shape (784,40), found (40,784); it is transposed",
            lambda v: v.update({"fc4.weight": v["fc4.weight"].T.copy()}))
    refused("found I64", lambda v: v.update({"fc4.bias": v["fc4.bias"].astype(np.int64)}))
    refused("is nan", lambda v: v.update({"fc4.bias": v["fc4.bias"] * np.nan}))
    np.savez("objects.npz", **{"fc1.weight": np.array([{}])})
    vae("import", "objects.npz", "--out", "bad.vae", expect=3)
    np.save("short.npy", np.zeros((3, 19), np.float32))
    assert "the model's z has 20" in vae("decode", "plain", "-l", "short.npy", "-o", "x.npy",
                                         expect=3)
    np.save("wide.npy", np.zeros((3, 785), np.float32))
    vae("encode", "plain", "--data", "wide.npy", "--out", "x.npy", expect=3)
    vae("encode", "plain", "--data", "rows.npy", "--out", "x.npy", "--seed", "3", expect=2)
    vae("export", "plain", "--out", "/dev/full", "--format", "npz", expect=4)
    vae("export", "plain", "--out", "model.bin", expect=2)
    vae("import", "rows.npy", "--out", "bad.vae", expect=3)
    assert not os.path.exists("bad.vae")


def elbo_of(w, x, z, mu, logvar):
    config = {"activation": "relu", "likelihood": "bernoulli", "conv": []}
    out = numpy_model(w, config, (28, 28, 1), x, z)
    m, v = out["mu"], out["logvar"]
    close("mu", mu, m)
    close("logvar", logvar, v)
    return -(out["recon"] + 0.5 * (m ** 2 + np.exp(v) - 1 - v).sum(1))


def python_module():
    if LIBRARY is None:
        raise Skip("no libvae.so was named")
    os.environ["LIBVAE"] = LIBRARY
    if MODULE not in sys.path:
        sys.path.insert(0, MODULE)
    return importlib.import_module("vae")


def library():
    return python_module().load("theirs.safetensors")


def check_elbo_with_the_same_noise():
    """pytorch/examples' state dict, evaluated here (libvae) and there (numpy), same z."""
    model, w = library(), torch_weights(5)
    x = np.random.default_rng(7).random((1000, 784), np.float32)
    mu, logvar, z = model.encode(x)
    score, recon, kl = model.score(x)
    there = elbo_of(w, x.astype(np.float64), z, mu, logvar)
    difference = abs(float(-score.mean(dtype=np.float64)) - there.mean())
    print(f"  ELBO here {-score.mean():.5f}, there {there.mean():.5f} nats")
    assert difference < 1e-3, difference
    assert abs(recon + kl - score).max() < 1e-3


def check_library():
    model = library()
    x = np.random.default_rng(8).integers(0, 256, (30, 784), np.uint8)
    mu, logvar, z = model.encode(x)
    floats = model.encode((x / 255).astype(np.float32))
    close("bytes and floats", mu, floats[0])
    model.set_option("seed", 2)
    assert not np.array_equal(model.encode(x)[2], z)
    assert np.array_equal(model.sample(5), model.sample(9)[:5])
    model.save("saved.npz")
    with np.load("saved.npz") as saved:
        check_models.same("fc1.weight", saved["fc1.weight"], torch_weights(5)["fc1.weight"])
    for call, says in ((lambda: model.encode(np.full((2, 784), 1.5, np.float32)), "outside [0,1]"),
                       (lambda: model.set_option("limit", 1), "'limit' is the program's"),
                       (lambda: python_module().load("no/such"), "cannot open")):
        try:
            call()
            raise AssertionError("not refused: " + says)
        except python_module().VaeError as why:
            assert says in str(why), why


def check_archives_of_numpy():
    rng = np.random.default_rng(11)
    x, y = rng.integers(0, 256, (60, 5, 4), np.uint8), rng.integers(0, 9, 60)
    bits = rng.random((60, 13)) < 0.3
    np.savez("plain_data.npz", x_train=x, y_train=y, x_test=x[:7])
    np.savez_compressed("packed_data.npz", data=x.astype(np.float64) / 255, labels=y.astype(np.int16))
    np.savez_compressed("only.npz", bits)
    options = ["--hidden", "6", "--latent", "2", "--epochs", "1", "-q", "--batch-size", "20"]
    for name in ("plain_data", "packed_data", "only"):
        vae("train", "--data", name + ".npz", "--out", "run_" + name, *options)
    vae("encode", "run_plain_data", "--data", "plain_data.npz", "--split", "train", "--out", "a.npz")
    vae("encode", "run_plain_data", "--data", "packed_data.npz", "--out", "b.npz")
    with np.load("a.npz") as a, np.load("b.npz") as b:
        assert np.array_equal(a["labels"], y) and np.array_equal(b["labels"], y)
        close("bytes and doubles", a["mu"], b["mu"])
    np.save("bits.npy", bits.astype(np.float32))
    vae("encode", "run_only", "--data", "only.npz", "--out", "a.npy")
    vae("encode", "run_only", "--data", "bits.npy", "--out", "b.npy")
    assert np.array_equal(np.load("a.npy"), np.load("b.npy"))


def metadata_of(run):
    vae("export", run, "--out", "metadata.npz")
    with np.load("metadata.npz") as file:
        texts = json.loads(bytes(file["metadata"]))
    return {key: json.loads(texts[key]) for key in ("columns", "classes", "data_shift", "data_scale")}


def check_tables_of_pandas():
    """What pandas writes means here what it meant there: names, values to the last digit, classes."""
    rng = np.random.default_rng(14)
    table = pandas.DataFrame({
        "length, mm": rng.normal(5, 2, 60), 'the "width"': rng.normal(1.7e9, 0.3, 60), "Zähler": rng.integers(-5, 90, 60),
        "f4": rng.normal(0, 1e-12, 60).astype(np.float32), "kind": rng.choice(["a b", "ü; x", "3"], 60)})
    ways = {"plain.csv": {}, "tabs.tsv": {"sep": "\t"}, "packed.csv.gz": {}, "german.csv": {"sep": ";", "decimal": ","},
            "marked.csv": {"encoding": "utf-8-sig"}, "quoted.csv": {"quoting": 1}, "lines.csv": {"lineterminator": "\r\n"}}
    table.to_csv("plain.csv", index=False)
    with open("plain.csv", newline="", encoding="utf-8") as file:
        numbers = pandas.DataFrame([{name: float(text) for name, text in row.items() if name != "kind"}
                                    for row in csv.DictReader(file)])
    shift, scale = numbers.mean().to_numpy(), numbers.std(ddof=0).to_numpy()
    classes = sorted(set(table["kind"]), key=lambda name: (not name.isdigit(), name.encode()))
    rows = None
    for name, options in ways.items():
        # semicolons separate only where no name has a comma
        names = {"length, mm": "length"} if name == "german.csv" else {}
        table.rename(columns=names).to_csv(name, index=False, **options)
        run = "table-" + name.split(".")[0]
        vae("train", "--data", name, "--label-column", "kind", "--likelihood", "gaussian", "--hidden", 4, "--latent", 2,
            "--epochs", 2, "--report=false", "--out", run, "-q")
        told = metadata_of(run)
        assert told["columns"] == list(numbers.rename(columns=names).columns) and told["classes"] == classes, told
        assert np.allclose(told["data_shift"], shift, rtol=1e-12, atol=0), (name, told["data_shift"], shift)
        assert np.allclose(told["data_scale"], scale, rtol=1e-7, atol=0), (name, told["data_scale"], scale)
        vae("encode", run, "--data", name, "--out", "table.npz")
        with np.load("table.npz") as latents:
            known = [str(known) for known in latents["class_names"]]
            assert [known[label] for label in latents["labels"]] == list(table["kind"]), name
            assert rows is None or np.array_equal(latents["mu"], rows), f"{name}: other values than of plain.csv"
            rows = latents["mu"]
    # and back: pandas reads the scores
    vae("score", "table-plain", "--out", "scores.csv")
    scores = pandas.read_csv("scores.csv")
    assert list(scores["label"]) == list(table["kind"]) and list(scores["row"]) == list(range(60)), scores
    assert scores["neg_elbo"].notna().all() and scores["flag"].isin([0, 1]).all()
    # what has no meaning here is refused with the remedy
    options = ["--likelihood", "gaussian", "--out", "none"]
    table.to_csv("index.csv")
    assert "index=False" in vae("train", "--data", "index.csv", *options, expect=3)
    table.loc[3, "f4"] = np.nan
    table.to_csv("missing.csv", index=False)
    assert "line 5, column 'f4'" in vae("train", "--data", "missing.csv", "--label-column", "kind", *options, expect=3)


def mu_of(run, data):
    vae("encode", run, "--data", data, "--out", "pictures_mu.npy")
    return np.load("pictures_mu.npy")


def check_pictures_of_pillow():
    """Every kind of file becomes the rows that PIL reads; resizing comes near PIL's."""
    rng = np.random.default_rng(12)
    smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((40, 40)))
    kinds = {"rgb.png": Image.fromarray(smooth), "grey.png": Image.fromarray(smooth[..., 0]),
             "palette.png": Image.fromarray(smooth).quantize(9), "a.jpg": Image.fromarray(smooth),
             "progressive.jpeg": Image.fromarray(smooth),
             "alpha.png": Image.fromarray(np.dstack([smooth, smooth[..., :1]])),
             "grey.JPG": Image.fromarray(smooth[..., 1])}
    for name, picture in kinds.items():
        os.makedirs("kinds/all", exist_ok=True)
        form = "JPEG" if "j" in name.lower().split(".")[1] else "PNG"
        picture.save("kinds/all/" + name, form, **({"progressive": True} if "prog" in name else {}))
    files = sorted(kinds)
    for channels, mode in ((3, "RGB"), (1, "L")):
        for side in (40, 9):
            run = f"kinds{channels}_{side}"
            options = ["--image-channels", channels, "--image-size", side, "--hidden", "30",
                       "--latent", "8", "--epochs", "1", "-q", "--batch-size", "7"]
            vae("train", "--data", "kinds", "--out", run, *options)
            want = []
            for name in files:
                picture = Image.open("kinds/all/" + name)
                picture = Image.fromarray(np.asarray(picture.convert("RGBA"))[..., :3]) \
                    if name == "alpha.png" else picture
                want.append(np.asarray(picture.convert(mode).resize((side, side), Image.BILINEAR)))
            want = np.stack(want)
            np.save("want.npy", want.reshape(len(files), side, side, *([3] if channels == 3 else [])))
            # rows cannot be looked at from outside: the first layer sees them
            ours, theirs = mu_of(run, "kinds"), mu_of(run, "want.npy")
            # PIL rounds to bytes between the two passes, and its JPEG decoder may differ by a level
            assert abs(ours - theirs).max() < 0.02, (run, abs(ours - theirs).max())
    Image.fromarray(smooth).convert("CMYK").save("kinds/all/cmyk.jpg")
    assert "CMYK" in vae("train", "--data", "kinds", "--image-size", 9, "--out", "none", expect=3)


def rows_read(folder, *options):
    """SHA-256 of the rows that the program makes of a folder, and what it said."""
    run = f"rows{len(os.listdir('.'))}"
    done = subprocess.run([VAE, "train", "--data", folder, "--out", run, "--hidden", "2", "--latent", "1", "--epochs",
                           "1", "--sample-every", "0", "--report=false", "--device", "cpu", *map(str, options)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(f"{run}/run.json") as file:
        return json.load(file)["data"]["sha256"], done.stderr


def check_formats_of_pillow():
    """What Pillow writes in every format becomes, byte for byte, what convert() makes of it, upright
    as exif_transpose turns it, or as it is stored."""
    rng = np.random.default_rng(13)
    h, w = 9, 13
    y, x = np.mgrid[:h, :w]
    rgb = Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8))
    smooth = Image.fromarray(np.stack([x * 15, y * 20, 255 - x * 10], -1).astype(np.uint8))
    grey, bits = rgb.convert("L"), Image.fromarray(rng.integers(0, 2, (h, w), np.uint8) * 255).convert("1")
    rgba = Image.fromarray(rng.integers(0, 256, (h, w, 4), np.uint8), "RGBA")
    la = Image.fromarray(rng.integers(1, 256, (h, w, 2), np.uint8), "LA")
    palette = rgb.quantize(17)
    files, modes = {}, dict(rgb=rgb, smooth=smooth, grey=grey, bits=bits, rgba=rgba, la=la, palette=palette)

    def put(name, picture, form, **options):
        file = io.BytesIO()
        picture.copy().save(file, form, **options)
        files[name] = file.getvalue()

    for mode, picture in modes.items():
        put(f"{mode}.png", picture, "PNG")
        if mode != "la":
            put(f"{mode}.bmp", picture, "BMP")
        if mode not in ("rgba", "la", "palette"):
            put(f"{mode}.jpg", picture, "JPEG", quality=90)
        put(f"{mode}-80.webp", picture, "WEBP", quality=80)
        put(f"{mode}.WebP", picture, "WEBP", lossless=True)
        for how in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", *(["group3", "group4"] * (mode == "bits"))):
            put(f"{mode}-{how}.tif", picture, "TIFF", compression=how)
    for mode in ("rgba", "la"):  # colours multiplied by alpha: the same values, called otherwise
        plain, tag = files[f"{mode}-raw.tif"], bytes.fromhex("52010300010000000200")
        assert plain.count(tag) == 1
        files[f"{mode}-multiplied.tiff"] = plain.replace(tag, tag[:8] + b"\1\0")
    put("jpeg.tif", smooth, "TIFF", compression="jpeg")
    put("strips.tif", rgb, "TIFF", compression="tiff_lzw", tiffinfo={278: 2})
    put("big.tif", rgb, "TIFF", big_tiff=True)
    put("pages.tif", rgb, "TIFF", save_all=True, append_images=[smooth.copy()])
    put("frames.webp", rgb, "WEBP", save_all=True, append_images=[smooth.copy()], lossless=True)
    exif = Image.Exif()
    for orientation in range(1, 9):
        for mode in ("smooth", "grey"):
            tall = modes[mode].transpose(Image.Transpose.TRANSPOSE) if orientation > 4 else modes[mode]
            exif[274] = orientation
            for form, ending in (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("TIFF", "tiff")):
                more = {"lossless": True} if form == "WEBP" else {}
                put(f"lies-{orientation}-{mode}.{ending}", tall, form, exif=exif, **more)
    os.makedirs("forms/all")
    for name, data in files.items():
        with open("forms/all/" + name, "wb") as file:
            file.write(data)

    def expected(names, mode, upright):
        rows = []
        for name in sorted(names):
            picture = Image.open(io.BytesIO(files[name]))  # by name, Pillow 13 gets the sides of grey TIFFs wrong
            picture.load()
            picture = ImageOps.exif_transpose(picture) if upright else picture
            picture = picture.convert("LA") if picture.mode == "La" else picture
            rows.append(np.asarray(picture.convert(mode)).reshape(-1))
        rows = np.stack(rows)
        return hashlib.sha256(struct.pack("<QQQ", *rows.shape, 0) + rows.tobytes()).hexdigest()

    def compare(folder, names, mode, upright):
        options = ["--image-channels", len(mode), *([] if upright else ["--exif", "ignore"])]
        found, said = rows_read(folder, *options)
        if found == expected(names, mode, upright):
            return said
        for name in names:  # which of them?
            if len(names) > 1:
                os.makedirs(f"one/{name}-{mode}/all", exist_ok=True)
                os.replace(f"{folder}/all/{name}", f"one/{name}-{mode}/all/{name}")
                compare(f"one/{name}-{mode}", [name], mode, upright)
        raise AssertionError((names, mode, upright))

    said = compare("forms", files, "RGB", True)
    assert "2 files of several pictures (pages, or frames): the first of each is taken" in said, said
    compare("forms", files, "L", True)
    wide = [n for n in files if not n.startswith(("lies-5", "lies-6", "lies-7", "lies-8")) or n.endswith(".tiff")]
    assert len(files) - len(wide) == 24
    os.makedirs("wide/all")  # of one size as they are stored, too; a TIFF's tag holds in any case
    for name in wide:
        os.link("forms/all/" + name, "wide/all/" + name)
    compare("wide", wide, "RGB", False)

    for name, picture, says in (
            ("cmyk", rgb.convert("CMYK"), "TIFF of colours of kind 5 (CMYK): expected grey, a palette, RGB or YCbCr"),
            ("lab", Image.frombytes("LAB", (w, h), rgb.tobytes()), "TIFF of colours of kind 8 (L*a*b*)"),
            ("float", Image.fromarray(rng.random((h, w)).astype(np.float32)), "TIFF of floating-point values of 32 bits"),
            ("int", Image.fromarray(rng.integers(0, 9, (h, w)).astype(np.int32)), "TIFF of signed values of 32 bits")):
        os.makedirs(name)
        picture.save(f"{name}/{name}.tif")
        assert f"{name}.tif: {says}" in vae("train", "--data", name, "--out", "none", expect=3), name
    # where Pillow clips at 255: 65535 is white, as in PNG and PGM files of 16 bits
    deep = rng.integers(0, 65536, (h, w)).astype(np.uint16)
    os.makedirs("sixteen_bits")
    Image.fromarray(deep).save("sixteen_bits/a.tif")
    want = ((deep.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    assert rows_read("sixteen_bits")[0] == hashlib.sha256(struct.pack("<QQQ", 1, h * w, 0) + want.tobytes()).hexdigest()


def check_model_without_hidden_layers():
    vae("train", *SMALL, "--hidden", "none", "--latent", "4", "--epochs", "1", "--out", "linear", "-q")
    vae("export", "linear", "--out", "linear.onnx")
    x = np.random.default_rng(13).random((50, 784), np.float32)
    np.save("linear_x.npy", x.reshape(50, 28, 28))
    vae("encode", "linear", "--data", "linear_x.npy", "--out", "linear_mu.npy")
    vae("decode", "linear", "-l", "linear_mu.npy", "-o", "linear_xh.npy")
    mu, _ = session("linear.encoder.onnx").run(["mu", "logvar"], {"x": x})
    close("mu", np.load("linear_mu.npy"), mu)
    (decoded,) = session("linear.decoder.onnx").run(["probabilities"], {"z": mu})
    close("x_hat", np.load("linear_xh.npy").reshape(50, -1), decoded)
    vae("export", "linear", "--out", "linear.safetensors")
    vae("import", "linear.safetensors", "--out", "linear.vae")
    assert np.array_equal(mu_of("linear.vae", "linear_x.npy"), np.load("linear_mu.npy"))


def check_models_with_classes():
    """Encoder and decoder take the one-hot class beside x and z; M2 has a classifier."""
    vae("train", *SMALL, "--condition", "labels", "--hidden", "30,20", "--latent", "4", "--epochs",
        "1", "--out", "cvae", "-q")
    vae("train", *SMALL, "--semi-supervised", "--labelled", "100", "--hidden", "30", "--activation",
        "gelu", "--latent", "4", "--epochs", "1", "--out", "m2", "-q")
    rng = np.random.default_rng(17)
    x, labels = rng.random((200, 784), np.float32), rng.integers(0, 10, 200).astype(np.uint8)
    np.savez("classes.npz", data=x, labels=labels)
    for run in ("cvae", "m2"):
        vae("export", run, "--out", f"{run}.onnx")
        for part in ("encoder", "decoder"):
            onnx.checker.check_model(f"{run}.{part}.onnx", full_check=True)
        vae("encode", run, "--data", "classes.npz", "--out", f"{run}_mu.npz")
        vae("export", run, "--out", f"{run}.safetensors")
        weights = load_file(f"{run}.safetensors")
        assert weights["encoder.0.weight"].shape[1] == 794 and weights["decoder.0.weight"].shape[1] == 14
    ours = np.load("cvae_mu.npz")
    y = np.eye(10, dtype=np.float32)[labels]
    assert np.array_equal(ours["labels"], labels)
    mu, logvar = session("cvae.encoder.onnx").run(["mu", "logvar"], {"x": x, "y": y})
    close("mu of x, y", ours["mu"], mu)
    close("logvar of x, y", ours["logvar"], logvar)
    np.save("cvae_mu.npy", mu)
    vae("decode", "cvae", "--latents", "cvae_mu.npy", "--class", 3, "--out", "cvae_x.npy")
    three = np.tile(np.eye(10, dtype=np.float32)[3], (len(mu), 1))
    (decoded,) = session("cvae.decoder.onnx").run(["probabilities"], {"z": mu, "y": three})
    close("x_hat of z, y", np.load("cvae_x.npy").reshape(len(mu), -1), decoded)
    # a semi-supervised model goes by its own class
    onnx.checker.check_model("m2.classifier.onnx", full_check=True)
    (p,) = session("m2.classifier.onnx").run(["probabilities"], {"x": x})
    vae("classify", "m2", "--data", "classes.npz", "--out", "m2.csv")
    table = np.genfromtxt("m2.csv", delimiter=",", names=True)
    close("q(y|x)", np.stack([table[f"p{k}"] for k in range(10)], 1).astype(np.float32), p)
    chosen = np.eye(10, dtype=np.float32)[p.argmax(1)]
    (mu,) = session("m2.encoder.onnx").run(["mu"], {"x": x, "y": chosen})
    close("mu of x and the chosen y", np.load("m2_mu.npz")["mu"], mu)
    if LIBRARY is not None:
        load = python_module().load
        for run in ("cvae", "cvae.safetensors"):
            assert np.array_equal(load(run).encode(x, labels).mu, ours["mu"]), run
        close("q(y|x) of the library", load("m2").classify(x), p)


def check_tensorboard():
    """Its own reader: scalars, pictures, histograms; nothing twice after a kill and a resume."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.plugins.projector import projector_config_pb2
        from google.protobuf import text_format
    except ImportError:
        raise Skip("TensorBoard is not installed; tests/roundtrip/readers.sh installs it") from None
    small = [*SMALL, "--hidden", "20", "--latent", "6", "--tensorboard", "--validation", "0.2", "--keep", 9]
    vae("train", *small, "--epochs", 3, "--out", "board")
    vae("train", "--resume", "--out", "board", "--epochs", 4)
    for step in (21, 28):  # as if it had been killed before these were written
        os.remove(f"board/checkpoints/step-{step:010}.vae")
    vae("train", "--resume", "--out", "board", "--epochs", 4)
    board = EventAccumulator("board/tensorboard", {"images": 0, "histograms": 0, "scalars": 0})
    board.Reload()
    files = [f for f in os.listdir("board/tensorboard") if "tfevents" in f]
    assert len(files) == 3, files
    with open("board/metrics.jsonl") as file:
        lines = [json.loads(line) for line in file]
    for split in ("train", "validation", "test"):
        for name in ("elbo", "recon", "kl"):
            there = [(e.step, e.value) for e in board.Scalars(f"{name}/{split}")]
            here = [(line["step"], np.float32(line[name])) for line in lines if line["split"] == split]
            assert [s for s, _ in there] == [s for s, _ in here] == [7, 14, 21, 28], there
            assert np.allclose([v for _, v in there], [v for _, v in here], rtol=1e-6), name
    assert [e.value for e in board.Scalars("training/beta")] == [1] * 4
    for tag, name in (("samples", "epoch"), ("reconstructions", "reconstruction")):
        for i, event in enumerate(board.Images(tag)):
            with open(f"board/samples/{name}-{i + 1:03}.png", "rb") as file:
                assert event.encoded_image_string == file.read()
            picture = Image.open(io.BytesIO(event.encoded_image_string))
            assert (event.width, event.height) == picture.size
        assert i == 3
    spread = board.Histograms("kl_of_dimensions")
    assert len(spread) == 4 and all(h.histogram_value.num == 6 for h in spread)
    last = spread[-1].histogram_value
    assert last.min >= 0 and sum(last.bucket) == 6 and last.bucket_limit[-1] >= last.max
    config = projector_config_pb2.ProjectorConfig()
    with open("board/tensorboard/projector_config.pbtxt") as file:
        text_format.Parse(file.read(), config)
    (embedding,) = config.embeddings
    mu = np.loadtxt("board/tensorboard/" + embedding.tensor_path, delimiter="\t")
    vae("encode", "board", "--out", "board_mu.npz")
    ours = np.load("board_mu.npz")
    assert mu.shape == (1000, 6)
    close("mu of the projector", mu, ours["mu"][:1000])
    labels = np.loadtxt("board/tensorboard/" + embedding.metadata_path, dtype=int)
    assert np.array_equal(labels, ours["labels"][:1000])
    sprite = np.asarray(Image.open("board/tensorboard/" + embedding.sprite.image_path))
    assert list(embedding.sprite.single_image_dim) == [28, 28] and sprite.shape == (32 * 28, 32 * 28)


def check_pytorch():
    try:
        import torch
        from safetensors.torch import load_file as load_torch, save_file as save_torch
        from torch import nn
        from torch.nn import functional as F
    except ImportError:
        raise Skip("PyTorch is not installed; VAE_ROUNDTRIP_TORCH=1 installs it") from None

    class VAE_(nn.Module):  # pytorch/examples, vae/main.py
        def __init__(self):
            super().__init__()
            self.fc1 = nn.Linear(784, 400)
            self.fc21 = nn.Linear(400, 20)
            self.fc22 = nn.Linear(400, 20)
            self.fc3 = nn.Linear(20, 400)
            self.fc4 = nn.Linear(400, 784)

        def encode(self, x):
            h1 = F.relu(self.fc1(x))
            return self.fc21(h1), self.fc22(h1)

        def decode(self, z):
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    model = VAE_()
    x = torch.rand(200, 784)
    np.save("torch_rows.npy", x.numpy())
    save_torch(model.state_dict(), "torch.safetensors")
    vae("import", "torch.safetensors", "--out", "torch.vae")
    vae("encode", "torch.vae", "--data", "torch_rows.npy", "--z", "--out", "torch.npz")
    vae("decode", "torch.vae", "-l", "torch.npz", "-o", "torch_x.npy")
    vae("export", "plain", "--out", "ours.safetensors")
    with torch.no_grad(), np.load("torch.npz") as ours:
        mu, logvar = model.encode(x)
        close("torch mu", ours["mu"], mu.numpy())
        close("torch logvar", ours["logvar"], logvar.numpy())
        close("torch x_hat", np.load("torch_x.npy").reshape(200, -1),
              model.decode(torch.from_numpy(ours["z"])).numpy())
        z = torch.from_numpy(ours["z"])
        recon = F.binary_cross_entropy(model.decode(z), x, reduction="sum")
        kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        there = -float(recon + kld) / 200
        if LIBRARY is not None:  # its score draws the z that encode --z gave
            here = -float(python_module().load("torch.vae").score(x.numpy())[0].mean())
            print(f"  ELBO here {here:.5f}, in PyTorch {there:.5f} nats")
            assert abs(here - there) < 1e-3
        model.load_state_dict(load_torch("ours.safetensors"))  # strict: the very names
        vae("encode", "plain", "--data", "torch_rows.npy", "--out", "torch_mu.npy")
        close("torch mu of ours", np.load("torch_mu.npy"), model.encode(x)[0].numpy())


def check_convolutions_in_pytorch():
    """bench/peers/conv_vae.py takes the file as it is, and its numbers are this program's."""
    try:
        import torch
    except ImportError:
        raise Skip("PyTorch is not installed; VAE_ROUNDTRIP_TORCH=1 installs it") from None
    from conv_vae import ConvVAE
    rows = np.random.default_rng(21).integers(0, 256, (40, 24, 16, 3), np.uint8)
    np.save("conv_rows.npy", rows)
    options = ["--conv", "5,7,6", "--latent", "4", "--epochs", "1", "-q", "--batch-size", "20"]
    for name, more in (("bare", ["--hidden", "none", "--likelihood", "gaussian-optimal", "--mean", "sigmoid"]),
                       ("deep", ["--hidden", "11,9", "--activation", "gelu"]),
                       ("open", ["--hidden", "8", "--activation", "leaky_relu", "--likelihood", "gaussian"])):
        vae("train", "--data", "conv_rows.npy", "--out", "conv_" + name, *options, *more)
        vae("export", "conv_" + name, "--out", name + ".safetensors")
        vae("encode", "conv_" + name, "--z", "--out", "conv.npz")
        vae("decode", "conv_" + name, "-l", "conv.npz", "-o", "conv_x.npy")
        model = ConvVAE.load(name + ".safetensors")
        with torch.no_grad(), np.load("conv.npz") as ours:
            mu, logvar = model.encode(torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 255)
            close(name + " mu", ours["mu"], mu.numpy())
            close(name + " logvar", ours["logvar"], logvar.numpy())
            x_hat = model.decode(torch.from_numpy(ours["z"])).permute(0, 2, 3, 1).numpy()
            close(name + " x_hat", np.load("conv_x.npy").reshape(x_hat.shape), x_hat)
            assert x_hat.std() > 1e-3 and mu.std() > 1e-3


def main():
    checks = [(name, f) for name, f in globals().items() if name.startswith("check_") and callable(f)]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for name, check in checks:
            try:
                check()
                result = "passed"
            except Skip as why:
                result = "skipped"
                print(f"SKIPPED: {name}: {why}")
            except Exception:  # whatever it is, it is this check's failure
                result = "failed"
                print(f"FAILED: {name}\n{traceback.format_exc()}")
            counts[result] += 1
            print(f"{name}: {result}", flush=True)
        os.chdir("/")
    print(", ".join(f"{n} {word}" for word, n in counts.items()))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

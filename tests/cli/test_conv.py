"""Convolutional models: what is refused, and every command on one."""
import json
import math
import os
import struct

from harness import TINY, path, read_json, test, vae, write_npy

CONV = [*TINY, "--conv", "3,5", "--hidden", "none"]


def conv_run():
    if not os.path.exists(path("conv")):
        vae("train", *CONV, "--epochs", 1, "--out", "conv")
    return "conv"


def info(run):
    return vae("info", run, "--json").json()


@test
def conv_refuses_what_does_not_divide():
    done = vae("train", *TINY, "--conv", "3,5,7", "--out", "conv-x", code=2)
    assert "divide by 8, and these are 28 x 28" in done.err, done.err
    assert "--image-size 24 or 32" in done.err and "--conv 2 layers" in done.err


@test
def conv_refuses_rows_that_are_no_pictures():
    write_npy("conv-flat.npy", 40, 64, [(i * 7 % 11) / 11 for i in range(40 * 64)])
    done = vae("train", "--data", "conv-flat.npy", "--conv", "4", "--out", "conv-x", code=2)
    assert "--conv is for pictures, and the data are rows of 64 values" in done.err, done.err
    with open(path("conv.csv"), "w") as file:
        file.write("a,b\n" + "0.1,0.2\n" * 20)
    done = vae("train", "--data", "conv.csv", "--conv", "4", "--out", "conv-x", code=2)
    assert "--conv is for pictures" in done.err, done.err
    assert not os.path.exists(path("conv-x"))


@test
def conv_resumes_bit_for_bit():
    vae("train", *CONV, "--epochs", 2, "--out", "conv-two")
    vae("train", *CONV, "--epochs", 1, "--out", "conv-one")
    vae("train", "--resume", "--out", "conv-one", "--epochs", 2, "-q")
    assert info("conv-two")["weights_sha256"] == info("conv-one")["weights_sha256"]


@test
def flip_mirrors_pictures_in_training():
    vae("train", *CONV, "--flip", "--epochs", 2, "--out", "flip-two")
    vae("train", *CONV, "--flip", "--epochs", 1, "--out", "flip-one")
    vae("train", "--resume", "--out", "flip-one", "--epochs", 2, "-q")
    assert info("flip-two")["weights_sha256"] == info("flip-one")["weights_sha256"]
    vae("train", *CONV, "--epochs", 2, "--out", "flip-none")
    assert info("flip-two")["weights_sha256"] != info("flip-none")["weights_sha256"]
    write_npy("flip.npy", 40, 64, [(i * 7 % 11) / 11 for i in range(40 * 64)])
    vae("train", "--data", "flip.npy", "--flip", "--out", "flip-x", code=2, says="--flip mirrors pictures")


@test
def variance_is_the_error():
    options = [*CONV, "--batch-size", 300, "--likelihood", "gaussian-optimal"]  # of a step an epoch
    vae("train", *options, "--epochs", 3, "--out", "var-three")
    vae("train", *options, "--epochs", 1, "--out", "var-one")
    vae("train", "--resume", "--out", "var-one", "--epochs", 3, "-q")
    one, three = info("var-one"), info("var-three")
    assert one["weights_sha256"] == three["weights_sha256"]
    assert one["config"]["variance"] == three["config"]["variance"]
    # it is the mean squared error of the step before, and of the first one 1, or what was asked for
    with open(path("var-three", "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    variance = 1
    for line in lines:
        if line["split"] == "train":
            variance *= 2 * line["recon"] / 784 - math.log(2 * math.pi * variance)
    assert abs(three["config"]["variance"] / variance - 1) < 1e-6, (three["config"]["variance"], variance)
    vae("train", *options, "--variance", 0.1, "--epochs", 1, "--out", "var-tenth")
    with open(path("var-tenth", "metrics.jsonl")) as file:
        recon = json.loads(file.readline())["recon"]
    squares = [v * (2 * r / 784 - math.log(2 * math.pi * v)) for v, r in ((0.1, recon), (1, lines[0]["recon"]))]
    assert abs(squares[0] / squares[1] - 1) < 1e-4, squares  # of the same first step
    # a model is measured with the variance that it was trained with
    assert abs(vae("eval", "var-three", "--limit", 300, "--json").json()["recon"] - [
        line["recon"] for line in lines if line["split"] == "test"][-1]) < 1e-3
    # bits a dimension are a bound for bytes: the ELBO's, with the noise's expected value
    found = vae("eval", "var-three", "--limit", 300, "--gap", "--json").json()
    for of in (found, found["train"]):
        noise = 784 / (24 * 256**2 * three["config"]["variance"])
        bits = ((noise - of["elbo"]) / 784 + math.log(256)) / math.log(2)
        assert abs(of["bits_per_dim"] - bits) < 1e-6, (of["bits_per_dim"], bits)
        assert 5 < of["psnr"] < 40 and "1/256" in of["dequantization"]
    text = vae("eval", "var-three", "--limit", 300).out
    assert f"bits per dim  {found['bits_per_dim']:.4f} (" in text and "uniform noise of width 1/256" in text
    assert f"psnr          {found['psnr']:.3f} dB" in text, text
    vae("report", "var-three", "--limit", 300, "--out", "var.html", "-q")
    with open(path("var.html")) as file:
        page = file.read()
    for name, value in (("PSNR", found["psnr"]), ("Bits a dimension", found["bits_per_dim"])):
        shown = float(page.split(f"<dt>{name}</dt><dd><data value=\"")[1].split('"')[0])
        assert abs(shown - value) < 1e-4 * value, (name, shown, value)
    assert "over 300 test examples" in page
    bare = vae("eval", conv_run(), "--limit", 50, "--json").json()  # no density, no bits
    assert bare["bits_per_dim"] is None and bare["dequantization"] is None and bare["psnr"] > 3
    assert "bits per dim" not in vae("eval", conv_run(), "--limit", 50).out
    dull = vae("eval", conv_run(), "--limit", 50, "--binarize", "threshold", "--json").json()
    assert dull["psnr"] is None, "x is made 0 or 1"
    vae("train", *CONV, "--variance", "0.1", "--out", "var-x", code=2, says="--likelihood gaussian")


@test
def means_are_sigmoids():
    """Values in [0,1] whatever z is; resume, export and import keep it; data must lie there, too."""
    options = [*CONV, "--likelihood", "gaussian", "--variance", "0.05", "--mean", "sigmoid"]
    vae("train", *options, "--epochs", 2, "--out", "sigmoid-two")
    vae("train", *options, "--epochs", 1, "--out", "sigmoid-one")
    vae("train", "--resume", "--out", "sigmoid-one", "--epochs", 2, "-q")
    assert info("sigmoid-two")["weights_sha256"] == info("sigmoid-one")["weights_sha256"]
    write_npy("sigmoid-z.npy", 2, 3, [50, -80, 90, -70, 60, -90])
    vae("decode", "sigmoid-two", "--latents", "sigmoid-z.npy", "--out", "sigmoid-x.npy", "-q")
    with open(path("sigmoid-x.npy"), "rb") as file:
        values = struct.unpack(f"<{2 * 784}f", file.read()[-4 * 2 * 784:])
    assert min(values) >= 0 and max(values) <= 1 and max(values) > min(values)
    # untrained, but begun at the mean of the data, which are mostly 0
    vae("train", *options, "--epochs", 1, "--lr", "1e-9", "--output-bias-from-data", "--out", "sigmoid-mean")
    write_npy("sigmoid-0.npy", 1, 3, [0, 0, 0])
    vae("decode", "sigmoid-mean", "--latents", "sigmoid-0.npy", "--out", "sigmoid-x.npy", "-q")
    with open(path("sigmoid-x.npy"), "rb") as file:
        values = struct.unpack("<784f", file.read()[-4 * 784:])
    assert 0.05 < sum(values) / 784 < 0.3, sum(values) / 784
    vae("export", "sigmoid-two", "--format", "npz", "--out", "sigmoid.npz", "-q")
    vae("import", "sigmoid.npz", "--out", "sigmoid-back", "-q")
    assert info("sigmoid-back")["config"]["mean"] == "sigmoid"
    one, two = (vae("eval", run, "--limit", 100, "--json").json() for run in ("sigmoid-two", "sigmoid-back"))
    assert one["recon"] == two["recon"] and one["bits_per_dim"] == two["bits_per_dim"]
    # a table's columns are not standardized for it, and must lie in [0,1]
    with open(path("sigmoid.csv"), "w") as file:
        file.write("a,b\n" + "0.1,0.2\n0.3,0.9\n" * 20)
    table = ["--likelihood", "gaussian", "--mean", "sigmoid", "--latent", 1, "--epochs", 1]
    vae("train", "--data", "sigmoid.csv", *table, "--out", "sigmoid-table")
    with open(path("sigmoid.csv"), "a") as file:
        file.write("0.1,1.5\n")
    vae("train", "--data", "sigmoid.csv", *table, "--out", "sigmoid-x", code=3, says="--mean sigmoid needs")


@test
def presets():
    """One option for a folder of photographs; others go over it, and everything says what it was."""
    os.makedirs(path("photos"), exist_ok=True)
    for i in range(12):
        with open(path("photos", f"{i}.ppm"), "wb") as file:
            file.write(b"P6 %d 66 255\n" % (70 + i) + bytes(i * j % 251 for j in range((70 + i) * 66 * 3)))
    small = ["--conv", "2,3", "--latent", 2, "--batch-size", 4, "--threads", 1, "--report=false"]
    said = vae("train", *small, "--preset", "photos", "--data", "photos", "--epochs", 1, "--out", "of-photos").err
    assert "11 rows to train on, 1 to validate" in said, said
    config = read_json("of-photos", "config.json")
    assert config["preset"] == "photos" and config["epochs"] == 1 and config["conv"] == [2, 3]
    assert read_json("of-photos", "run.json")["preset"] == "photos"
    assert info("of-photos")["shape"] == [64, 64, 3]
    shown = vae("train", "--help").out.split("presets:")[1].split("burgess")[0].split(" --")[1:]
    shown = {words[0]: words[1:] for words in (option.split() for option in shown)}
    assert len(shown) > 9 and shown["flip"] == [] and shown["conv"] == ["32,64,128,256"], shown
    for name, value in shown.items():
        if name not in ("epochs", "batch-size", "conv", "latent"):
            found = config[name]
            found = ",".join(map(str, found)) or "none" if isinstance(found, list) else str(found)
            assert value == [found] or (value == [] and found == "True") or float(value[0]) == float(found), name
    vae("train", "--preset", "photo", code=2, says="--preset: expected one of none|photos|burgess")
    # what it sets and another option leaves without effect gives way, too; what is asked for does not
    over = [*small, "--preset", "photos", "--data", "photos", "--epochs", 1, "--likelihood", "bernoulli"]
    vae("train", *over, "--flip=false", "--out", "over")
    assert read_json("over", "config.json")["mean"] == "linear"
    vae("train", *over, "--mean", "sigmoid", "--out", "over-x", code=2, says="--mean has no effect here")
    vae("train", "--resume", "--out", "over", "--epochs", 2, "-q")
    # the run's own options come back without it, and it may be said again
    vae("train", "--resume", "--out", "of-photos", "--epochs", 2, "-q")
    vae("train", *small, "--resume", "--preset", "photos", "--out", "of-photos", "--epochs", 2)


@test
def conv_comes_back_from_an_export():
    run = conv_run()
    for kind in ("safetensors", "npz"):
        vae("export", run, "--format", kind, "--out", f"conv.{kind}", "-q")
        vae("import", f"conv.{kind}", "--out", f"conv-{kind}", "-q")
        assert info(f"conv-{kind}")["weights_sha256"] == info(run)["weights_sha256"]
        assert info(f"conv-{kind}")["config"]["conv"] == [3, 5]


@test
def conv_takes_every_command():
    run = conv_run()
    vae("eval", run, "--samples", 5, "-q")
    vae("sample", run, "-n", 4, "--out", "conv.png", "-q")
    vae("reconstruct", run, "--out", "conv-r.png", "-q")
    vae("interpolate", run, "--from", 1, "--to", 2, "--out", "conv-i.png", "-q")
    vae("encode", run, "--out", "conv-z.npz", "-q")
    vae("report", run, "--out", "conv.html", "-q")
    vae("score", run, "--data", "digits", "--limit", 50, "--out", "conv.csv", "-q")


@test
def conv_with_classes():
    vae("train", *CONV, "--condition", "labels", "--epochs", 1, "--out", "conv-labels")
    vae("sample", "conv-labels", "-n", 10, "--out", "conv-labels.png", "-q")
    vae("train", *CONV, "--semi-supervised", "--labelled", 20, "--epochs", 1, "--out", "conv-semi")
    vae("eval", "conv-semi", "-q")
    for run in ("conv-labels", "conv-semi"):
        vae("export", run, "--format", "safetensors", "--out", f"{run}.safetensors", "-q")
        vae("import", f"{run}.safetensors", "--out", f"{run}-import", "-q")
        assert info(f"{run}-import")["weights_sha256"] == info(run)["weights_sha256"]

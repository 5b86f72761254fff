"""Conditional and semi-supervised models, completion, stacked models."""
import csv
import os
import struct
import zipfile

from harness import (TINY, checkpoints, metrics, newest, path, read_json, read_npy, read_npz, same_end,
                     test, vae, write_npy)

# small, but enough to learn from
LEARN = ["--limit", "1000", "--hidden", "32", "--latent", "4", "--batch-size", "50", "--lr", "3e-3",
         "--device", "cpu", "--threads", "1", "--sample-every", "0"]


def cvae():
    if not os.path.exists(path("cvae")):
        vae("train", *TINY, "--condition", "labels", "--epochs", 2, "--out", "cvae")
    return "cvae"


def semi():
    if not os.path.exists(path("semi")):
        vae("train", *TINY, "--semi-supervised", "--labelled", 50, "--epochs", 2, "--out", "semi",
            "--validation", "0.1")
    return "semi"


def below():
    if not os.path.exists(path("below")):
        vae("train", *TINY, "--epochs", 2, "--out", "below")
    return "below"


def png_size(name):
    with open(path(name), "rb") as file:
        head = file.read(24)
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


@test
def class_options_are_checked():
    cases = [
        (["--labelled", 10], "--labelled has no effect here: it needs --semi-supervised"),
        (["--classifier-weight", 1], "it needs --semi-supervised"),
        (["--classes", 10], "--classes has no effect here"),
        (["--stack-weights", "00"], "--stack-weights has no effect here"),
        (["--semi-supervised"], "needs --labelled N"),
        (["--semi-supervised", "--labelled", 9, "--objective", "iwae"], "does not go with"),
        (["--semi-supervised", "--labelled", 9, "--objective", "stl"], "does not go with"),
        (["--semi-supervised", "--labelled", 9, "--particles", 2], "does not go with"),
        (["--semi-supervised", "--labelled", 9, "--free-bits", 1], "does not go with"),
        (["--semi-supervised", "--labelled", 9, "--condition", "labels"], "does not go with"),
        (["--condition", "label"], "expected one of none|labels, found 'label'; did you mean"),
        (["--stack", "somewhere"], "give --likelihood gaussian-learned or gaussian"),
    ]
    for args, says in cases:
        vae("train", *TINY, *args, "--out", "refused", code=2, says=says)
    vae("train", *TINY, "--semi-supervised", "--labelled", 300, "--out", "refused", code=2,
        says="leaves none without a label")
    vae("train", *TINY, "--condition", "labels", "--classes", 4, "--out", "refused", code=3,
        says="is none of the model's 4: 0, 1, 2, 3")
    data = write_npy("bare.npy", 40, 784, [0.5] * 40 * 784)
    for more in (["--condition", "labels"], ["--semi-supervised", "--labelled", 10]):
        vae("train", "--data", data, *more, "--out", "refused", code=3, says="no labels")
    assert not os.path.exists(path("refused"))


@test
def a_conditional_model_works_everywhere():
    run = cvae()
    info = vae("info", run, "--json").json()
    shapes = {t["name"]: (t["rows"], t["cols"]) for t in info["tensors"]}
    assert shapes["encoder.0.weight"] == (16, 794) and shapes["decoder.0.weight"] == (16, 13)
    assert info["config"]["condition"] == "labels" and info["config"]["classes"] == 10
    assert png_size(f"{run}/samples/epoch-002.png")[1] == 10 * (2 * 28 + 2) + 2, "a line a class"
    result = vae("eval", run, "--limit", 100, "--samples", 5, "--json").json()
    assert result["n"] == 100 and result["elbo"] < 0 and "error" not in result
    assert vae("sample", run, "-n", 25, "--out", "all.png", "--json").json()["n"] == 30
    assert vae("sample", run, "-n", 9, "--class", 3, "--out", "three.png", "--json").json()["n"] == 9
    vae("sample", run, "-n", 9, "--class", 4, "--out", "four.png")
    with open(path("three.png"), "rb") as three, open(path("four.png"), "rb") as four:
        assert three.read() != four.read()
    vae("sample", run, "--class", 10, code=2, says="expected one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, found '10'")
    vae("reconstruct", run, "-n", 5, "--out", "r.png")
    vae("encode", run, "--limit", 20, "--out", "e.npz", "--device", "cpu")
    vae("decode", run, "--latents", "e.npz", "--out", "x.npy", code=2, says="needs --class NAME")
    vae("decode", run, "--latents", "e.npz", "--class", 2, "--out", "x.npy", "--device", "cpu")
    bare = write_npy("bare784.npy", 5, 784, [0.5] * 5 * 784)
    vae("report", run, "--out", "classes.html")
    with open(path("classes.html"), encoding="utf-8") as file:
        page = file.read()
    for says in ("<h3>Reconstructions</h3>", "<h3>Interpolations</h3>", "<h3>Traversals</h3>",
                 "100 draws z ~ N(0, I), decoded: the means of p(x|z,y), a column for each class y.",
                 "decoded as the class of the left one", "Decoded as class "):
        assert says in page, says
    for command in (["eval"], ["reconstruct"], ["encode", "--out", "y.npz"]):
        vae(command[0], run, *command[1:], "--data", bare, code=3, says="no labels")
    vae("classify", run, code=2, says="no classifier")
    plain = below()
    vae("sample", plain, "--class", 1, code=2, says="not conditional")


@test
def latent_space_is_walked_as_a_class():
    run, D = cvae(), 784
    few = ["--limit", 50, "--device", "cpu"]
    vae("encode", run, *few, "--out", "walk.npz")
    latents = read_npz("walk.npz")
    mu, label = latents["mu"][1], latents["labels"][1]

    def decoded(row, k):
        write_npy("one.npy", 1, 3, mu[3 * row:3 * row + 3])
        vae("decode", run, "--latents", "one.npy", "--class", k, "--out", "one_x.npy", "--device", "cpu")
        return read_npy("one_x.npy")[1]

    def same(a, b):
        return len(a) == len(b) == D and max(abs(u - v) for u, v in zip(a, b)) < 1e-6

    # between two rows: as the first one's class, or as the one that is named
    a, b = 4, next(i for i in range(50) if label[i] != label[4])
    for more, k in (([], label[a]), (["--class", 9 - label[a]], 9 - label[a])):
        vae("interpolate", run, *few, "--from", a, "--to", b, "--steps", 3, *more, "--out", "w.npy")
        x = read_npy("w.npy")[1]
        assert same(x[:D], decoded(a, k)) and same(x[2 * D:], decoded(b, k))
    vae("interpolate", run, *few, "--from", f"{a},{b}", "--to", f"{b},{a}", "--out", "w.gif")
    # a traversal passes through mu of its row, as the row's class or another
    for more, k in ((["--row", b], label[b]), (["--row", b, "--class", 3], 3)):
        vae("traverse", run, *few, *more, "--top", 1, "--steps", 3, "--out", "t.npy")
        vae("traverse", run, *few, *more, "--top", 1, "--steps", 3, "--out", "t.png")
        x = read_npy("t.npy")[1]
        dim = vae("traverse", run, *few, *more, "--top", 1, "--json", "--out",
                  "t.png").json()["dims"][0]["dim"]
        z = list(mu[3 * b:3 * b + 3])
        z[dim] = 0.0
        write_npy("one.npy", 1, 3, z)
        vae("decode", run, "--latents", "one.npy", "--class", k, "--out", "one_x.npy", "--device", "cpu")
        assert same(x[D:2 * D], read_npy("one_x.npy")[1])
    vae("manifold", run, "--dims", "0,1", "-n", 3, "--class", 5, "--out", "m5.npy")
    vae("manifold", run, "--dims", "0,1", "-n", 3, "--class", 6, "--out", "m6.npy")
    assert read_npy("m5.npy")[1] != read_npy("m6.npy")[1]
    # without a class there is nothing to decode as
    vae("traverse", run, code=2, says="name one with --class NAME, or by a --row of the data")
    vae("manifold", run, "--dims", "0,1", code=2, says="name one with --class NAME")
    vae("sample", run, "-n", 1, "--class", 2, "--out", "pngs/")
    picture = os.path.join(path("pngs"), os.listdir(path("pngs"))[0])
    vae("interpolate", run, "--from", picture, "--to", picture, code=2, says="--class NAME")
    vae("interpolate", run, "--from", picture, "--to", picture, "--class", 2, "--out", "p.png")
    vae("traverse", below(), "--class", 1, code=2, says="not conditional")
    # a semi-supervised model classifies for itself
    vae("traverse", semi(), *few, "--row", 0, "--out", "t.png")
    vae("interpolate", semi(), "--from", picture, "--to", picture, "--out", "p.png")


@test
def a_conditional_model_scores_rows_as_their_class():
    run, args = cvae(), ["--limit", 200, "--samples", 8, "--threshold", 0, "--device", "cpu"]
    vae("score", run, *args, "--out", "right.npz")
    right = read_npz("right.npz")["neg_elbo"][1]
    elbo = vae("eval", run, "--limit", 200, "--device", "cpu", "--json").json()["elbo"]
    assert abs(sum(right) / 200 + elbo) < 0.05 * abs(elbo)
    # the same pictures under other labels are other rows
    write_npy("rows.npy", 2, 784, [i % 2 for i in range(784)] * 2)
    with zipfile.ZipFile(path("rows.npz"), "w") as archive:
        archive.write(path("rows.npy"), "data.npy")
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00\x46\x00" + b"{'descr': '|u1', 'fortran_order': "
                         b"False, 'shape': (2,)}".ljust(69) + b"\n\x03\x07")
    vae("score", run, "--data", "rows.npz", "--samples", 4, "--threshold", 0, "--device", "cpu", "--out",
        "two.npz", "--contributions", "parts.npy")
    two = read_npz("two.npz")
    assert two["recon_error"][1][0] != two["recon_error"][1][1]
    parts = read_npy("parts.npy")[1]
    assert abs(sum(parts[:784]) - two["recon_prob"][1][0]) < 1e-3 * two["recon_prob"][1][0]
    bare = write_npy("bare_rows.npy", 2, 784, [0.5] * 2 * 784)
    vae("score", run, "--data", bare, "--threshold", 0, code=3, says="no labels")
    vae("score", semi(), code=2, says="sums over classes")


@test
def a_model_with_classes_leaves_and_comes_back():
    vae("export", semi(), "--out", "semi.npz")
    names = zipfile.ZipFile(path("semi.npz")).namelist()
    for name in ("encoder.0.weight", "mu.weight", "logvar.bias", "decoder.0.weight", "output.bias",
                 "classifier.0.weight", "classifier.1.bias"):
        assert name + ".npy" in names, (name, names)
    assert not any(name.startswith("fc") for name in names)
    for run, few in ((cvae(), ["--limit", 50]), (semi(), ["--limit", 50])):
        for end in ("npz", "safetensors"):
            vae("export", run, "--out", f"back.{end}")
            vae("import", f"back.{end}", "--out", "back.vae")
            a = vae("eval", "back.vae", *few, "--json").json()
            b = vae("eval", run, *few, "--json").json()
            assert a["elbo"] == b["elbo"] and a.get("error") == b.get("error")
    vae("import", "back.npz", "--data", "digits", "--out", "back", "--force")
    vae("train", "--resume", "--out", "back", *TINY[:2], "--epochs", 1)
    assert metrics("back")[-1]["elbo"] < 0
    vae("export", cvae(), "--out", "c.npz")
    vae("import", "c.npz", "--classes", 4, "--out", "no", code=2, says="but the tensors of c.npz have 10")
    with zipfile.ZipFile(path("c.npz")) as whole, zipfile.ZipFile(path("bare.npz"), "w") as bare:
        for name in whole.namelist():
            if name != "metadata.npy":
                bare.writestr(name, whole.read(name))
    vae("import", "bare.npz", "--out", "no", code=3, says="takes 10 columns beside the 3 latents")
    vae("import", "bare.npz", "--condition", "labels", "--out", "bare.vae")
    assert vae("eval", "bare.vae", "--data", "digits", "--limit", 50, "--json").json()["n"] == 50
    done = vae("export", semi(), "--out", "semi.onnx", "--json").json()
    assert done["files"] == ["semi.encoder.onnx", "semi.decoder.onnx", "semi.classifier.onnx"]
    assert all(os.path.getsize(path(name)) > 0 for name in done["files"])
    vae("export", cvae(), "--out", "cvae.onnx")
    assert not os.path.exists(path("cvae.classifier.onnx"))


@test
def resume_takes_classes_over():
    args = [*TINY, "--semi-supervised", "--labelled", 40, "--sample-every", 0]
    vae("train", *args, "--epochs", 4, "--out", "whole")
    vae("train", *args, "--epochs", 2, "--out", "parts")
    vae("train", "--resume", "--out", "parts", "--epochs", 4)
    same_end("whole", "parts")
    assert metrics("whole") == metrics("parts")
    vae("train", "--resume", "--out", "parts", "--epochs", 5, "--labelled", 50, code=2,
        says="--labelled 40, not 50")
    assert read_json("whole", "run.json")["data"]["labelled"] == 40


@test
def m2_learns_from_a_hundred_labels():
    vae("train", *LEARN, "--semi-supervised", "--labelled", 100, "--classifier-weight", 20,
        "--epochs", 4, "--out", "m2")
    lines = [line for line in metrics("m2") if line["split"] == "test"]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["error"] < 0.4, lines[-1]  # the majority class gives 0.9
    assert lines[-1]["elbo"] > lines[0]["elbo"]
    result = vae("eval", "m2", "--limit", 1000, "--json").json()
    for key in ("elbo", "recon", "kl", "error"):
        assert abs(result[key] - lines[-1][key]) <= 1e-6 * abs(result[key]), key
    assert "% of 1000 misclassified" in vae("eval", "m2", "--limit", 1000).out
    vae("eval", "m2", "--samples", 5, code=2, says="--samples has no effect here")
    done = vae("classify", "m2", "--limit", 1000, "--out", "labels.csv", "--json").json()
    assert abs(done["error"] - result["error"]) < 1e-9
    with open(path("labels.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1000 and list(rows[0])[:3] == ["row", "label", "predicted"]
    wrong = 0
    for row in rows:
        p = [float(row[f"p{k}"]) for k in range(10)]
        assert abs(sum(p) - 1) < 1e-4 and p[int(row["predicted"])] == max(p)
        wrong += row["label"] != row["predicted"]
    assert wrong / 1000 == done["error"]
    # rows without labels are classified, too
    data = write_npy("grey.npy", 3, 784, [0.5] * 3 * 784)
    done = vae("classify", "m2", "--data", data, "--out", "grey.csv", "--json").json()
    assert done["error"] is None and done["n"] == 3
    vae("sample", "m2", "-n", 20, "--out", "m2.png")
    vae("reconstruct", "m2", "-n", 5, "--out", "m2r.png")


@test
def the_error_is_shown():
    result = vae("train", *TINY, "--semi-supervised", "--labelled", 20, "--epochs", 1, "--out",
                 "shown", "--json")
    assert "  error " in result.err
    assert 0 <= result.json()["test"]["error"] <= 1
    assert "20 more training rows have a label" in result.err


@test
def missing_parts_are_filled_in():
    for run in (below(), cvae(), semi()):
        done = vae("complete", run, "--mask", "left", "--rows", "5,0,9", "-n", 2, "--rounds", 3, "--out",
                   "c.png", "--device", "cpu", "--json").json()
        assert (done["rows"], done["n"], done["rounds"]) == ([5, 0, 9], 2, 3)
        assert png_size("c.png") == (4 * 58 + 2, 3 * 58 + 2)
    run = cvae()
    vae("complete", run, "--mask", "top", "--class", 3, "--rows", "0,1", "--rounds", 2, "--out", "3.png")
    vae("complete", run, "--mask", "top", "--class", 4, "--rows", "0,1", "--rounds", 2, "--out", "4.png")
    with open(path("3.png"), "rb") as three, open(path("4.png"), "rb") as four:
        assert three.read() != four.read()
    vae("complete", run, code=2, says="--mask is missing")
    vae("complete", run, "--mask", "left", "--rows", "3,99999", code=2, says="row 99999 is not there")
    vae("complete", run, "--mask", "nowhere.npy", code=4, says="nowhere.npy")
    vae("complete", below(), "--mask", "left", "--class", 1, code=2, says="not conditional")
    vae("complete", semi(), "--mask", "left", "--class", 1, code=2, says="classifies for itself")
    short = write_npy("short.npy", 1, 700, [1.0] * 700)
    vae("complete", run, "--mask", short, code=3, says="expected 784, as (1,784) or (28,28)")
    odd = write_npy("odd.npy", 28, 28, [0.25] * 784)
    vae("complete", run, "--mask", odd, code=3, says="a mask has 0 (missing) and 1 (observed)")
    # as floats, booleans (which are read as bits) or bytes, a mask is the same
    half = [k % 28 < 14 for k in range(784)]
    drawn = []
    for descr, values in (("<f4", half), ("|b1", half), ("|u1", [255 * v for v in half])):
        mask = write_npy("half.npy", 28, 28, values, descr)
        vae("complete", run, "--mask", mask, "--rows", 4, "-n", 1, "--rounds", 2, "--out", "h.png")
        with open(path("h.png"), "rb") as file:
            drawn.append(file.read())
    assert drawn[0] == drawn[1] == drawn[2]
    # what is observed stays: with everything observed, the completion is the original
    full = write_npy("full.npy", 28, 28, [1.0] * 784)
    vae("complete", run, "--mask", full, "--rows", 4, "-n", 1, "--rounds", 1, "--out", "f1.png")
    vae("complete", run, "--mask", full, "--rows", 4, "-n", 1, "--rounds", 4, "--seed", 9, "--out",
        "f2.png")
    with open(path("f1.png"), "rb") as a, open(path("f2.png"), "rb") as b:
        assert a.read() == b.read()


@test
def stacked_models():
    args = [*TINY, "--stack", below(), "--likelihood", "gaussian-learned", "--semi-supervised",
            "--labelled", 50]
    vae("train", *args, "--epochs", 3, "--out", "m1m2")
    config = read_json("m1m2", "config.json")
    assert config["stack-weights"] == vae("info", below(), "--json").json()["weights_sha256"]
    shapes = {t["name"]: t["cols"] for t in vae("info", "m1m2", "--json").json()["tensors"]}
    assert shapes["encoder.0.weight"] == 13 and shapes["classifier.0.weight"] == 3
    last = [line for line in metrics("m1m2") if line["split"] == "test"][-1]
    result = vae("eval", "m1m2", "--limit", 300, "--json").json()
    assert abs(result["elbo"] - last["elbo"]) < 1e-6 * abs(last["elbo"])
    assert result["error"] == last["error"]
    vae("classify", "m1m2", "--limit", 10, "--out", "m1m2.csv")
    vae("sample", "m1m2", "-n", 20, "--out", "m1m2.png")
    assert png_size("m1m2.png") == (2 * 58 + 2, 10 * 58 + 2)
    # walks end in pictures of the run below; what they start from are latents
    few = ["--limit", 20, "--device", "cpu"]
    vae("interpolate", "m1m2", *few, "--from", 1, "--to", 2, "--steps", 4, "--out", "m1m2-i.npy")
    assert read_npy("m1m2-i.npy")[0] == (4, 28, 28)
    vae("interpolate", "m1m2", *few, "--from", 1, "--to", 2, "--out", "m1m2-i.png")
    assert png_size("m1m2-i.png") == (10 * 58 + 2, 58 + 2)
    vae("traverse", "m1m2", *few, "--class", 1, "--out", "m1m2-t.png")
    vae("interpolate", "m1m2", "--from", "m1m2-i.png", "--to", "m1m2-i.png", code=2,
        says="take row numbers, no picture files")
    vae("train", *args, "--epochs", 2, "--out", "m1m2-parts")
    vae("train", "--resume", "--out", "m1m2-parts", "--epochs", 3)
    same_end("m1m2", "m1m2-parts")
    # on any model, and drawn anew: two epochs differ in their data
    vae("train", *TINY, "--stack", below(), "--likelihood", "gaussian", "--epochs", 1, "--out", "top")
    vae("reconstruct", "top", code=2, says="no pictures")
    vae("train", *TINY, "--stack", "top", "--likelihood", "gaussian", "--out", "no", code=2,
        says="expected a plain one")
    vae("train", *TINY, "--stack", "nowhere", "--likelihood", "gaussian", "--out", "no", code=4,
        says="nowhere")
    # the run below changes: what stands on it is refused
    vae("train", "--resume", "--out", below(), "--epochs", 3)
    vae("eval", "m1m2", code=3, says="its weights changed")
    vae("sample", "m1m2", code=3, says="its weights changed")
    vae("train", "--resume", "--out", "m1m2", "--epochs", 4, code=3, says="its weights changed")

"""Classes have names: they belong to the model, numbers mean themselves, new data are mapped by name."""
import csv
import json
import os
import random
import re
import struct
import zipfile
import zlib

from harness import newest, path, read_npz, sections, test, vae
from test_data import npy, write_png

SMALL = ["--hidden", 16, "--latent", 2, "--batch-size", 16, "--device", "cpu", "--threads", 1,
         "--report=false", "--sample-every", 0]
TABLE = ["--likelihood", "gaussian", *SMALL]
CENTRES = {"alpha": (0, 0), "beta": (4, 1), "gamma": (1, 5)}


def table(name, labels, centres=None, column="label", seed=1):
    """Rows of two values near the centre of their class; labels as they stand in the file."""
    rng = random.Random(seed)
    with open(path(name), "w", newline="") as file:
        file.write(f"a,b,{column}\n")
        for label in labels:
            x, y = (centres or CENTRES).get(label, (2, 2))
            file.write(f"{rng.gauss(x, 0.2):.4f},{rng.gauss(y, 0.2):.4f},{label}\n")
    return name


def rows_of(name):
    with open(path(name), newline="") as file:
        return list(csv.DictReader(file))


def cut(name, source, keep):
    """The rows of a table whose label is among `keep`."""
    with open(path(source)) as file:
        lines = file.readlines()
    with open(path(name), "w") as file:
        file.writelines(lines[:1] + [line for line in lines[1:] if line.rstrip("\n").split(",")[-1] in keep])
    return name


def conditional():
    if not os.path.exists(path("greek")):
        table("greek.csv", ["alpha", "beta", "gamma"] * 30)
        vae("train", "--data", "greek.csv", *TABLE, "--epochs", 60, "--lr", 0.01, "--condition", "labels",
            "--out", "greek", says="column 'label' holds the labels, 3 classes: alpha, beta, gamma")
    return "greek"


def scores(run, data, *more):
    vae("score", run, "--data", data, "--threshold", 1, "--out", "s.csv", "--device", "cpu", *more)
    return rows_of("s.csv")


@test
def names_belong_to_the_model():
    run = conditional()
    assert newest(run)["classes"] == b"alpha\0beta\0gamma\0"
    assert vae("info", run, "--json").json()["classes"] == ["alpha", "beta", "gamma"]
    assert vae("info", run, "--json").json()["class_rows"] == [30, 30, 30]
    assert "classes      alpha, beta, gamma\n" in vae("info", run).out
    # the same rows score the same, whichever classes are in their file
    some = cut("no-alpha.csv", "greek.csv", ("beta", "gamma"))
    mean = {}
    for data in ("greek.csv", some):
        found = scores(run, data)
        for name in ("beta", "gamma"):
            mean[data, name] = sum(float(r["neg_elbo"]) for r in found if r["label"] == name) / 30
    for name in ("beta", "gamma"):
        assert abs(mean["greek.csv", name] - mean[some, name]) < 0.5, mean
    # a class that the model does not know
    table("new.csv", ["beta", "delta"])
    vae("score", run, "--data", "new.csv", "--threshold", 1, code=3,
        says="new.csv: row 1: class 'delta' is none of the model's 3: alpha, beta, gamma")
    table("hole.csv", ["beta", ""])
    vae("encode", run, "--data", "hole.csv", "--out", "e.npz", code=3, says="hole.csv: row 1: no label")
    # by name on the command line
    for name in ("alpha", "gamma"):
        vae("decode", run, "--latents", zeros(), "--class", name, "--out",
            f"{name}.npy", "--device", "cpu")
    with open(path("alpha.npy"), "rb") as a, open(path("gamma.npy"), "rb") as b:
        assert a.read() != b.read()
    vae("decode", run, "--latents", zeros(), "--class", 0, "--out", "no.npy", code=2,
        says="--class: expected one of alpha, beta, gamma, found '0'")


def zeros():
    with open(path("zeros.npy"), "wb") as file:
        file.write(npy((1, 2), "<f4", bytes(8)))
    return "zeros.npy"


@test
def names_leave_and_come_back():
    run = conditional()
    for kind in ("safetensors", "npz"):
        vae("export", run, "--format", kind, "--out", f"greek.{kind}")
        described = vae("info", f"greek.{kind}", "--json").json()["metadata"]
        assert json.loads(described["classes"]) == ["alpha", "beta", "gamma"]
        vae("import", f"greek.{kind}", "--out", f"back-{kind}")
        back = newest(f"back-{kind}")
        assert back["classes"] == newest(run)["classes"]
        assert back["class_rows"] == newest(run)["class_rows"]
        cut("no-alpha.csv", "greek.csv", ("beta", "gamma"))
        vae("encode", f"back-{kind}", "--data", "no-alpha.csv", "--out", "e.npz", "--device", "cpu")
        assert read_npz("e.npz")["labels"][1] == (1, 2) * 30
    # names in the order of the labels' indices
    vae("encode", run, "--data", "greek.csv", "--out", "e.npz", "--device", "cpu")
    shape, raw = read_npz("e.npz")["class_names"]
    assert shape == (3,) and raw.decode("utf-32-le") == "alphabeta\0gamma"
    # weights without names get them from the data they come with
    with zipfile.ZipFile(path("greek.npz")) as whole, zipfile.ZipFile(path("plain.npz"), "w") as plain:
        for name in whole.namelist():
            if name != "metadata.npy":
                plain.writestr(name, whole.read(name))
    how = ["--condition", "labels", "--likelihood", "gaussian", "--standardize", "columns"]
    vae("import", "plain.npz", *how, "--data", "greek.csv", "--out", "named")
    assert newest("named")["classes"] == b"alpha\0beta\0gamma\0"
    # an imported model goes on with data that have some of its classes only; not with others
    vae("train", "--resume", "--out", "back-npz", "--data", "no-alpha.csv", "--epochs", 2, "--threads", 1)
    assert newest("back-npz")["classes"] == b"alpha\0beta\0gamma\0"
    vae("train", "--resume", "--out", "back-safetensors", "--data", "new.csv" if os.path.exists(
        path("new.csv")) else table("new.csv", ["beta", "delta"]), "--epochs", 2, code=3,
        says="class 'delta' is none of the model's 3: alpha, beta, gamma")


@test
def splits_of_pictures_are_numbered_together():
    rng = random.Random(1)
    for split, names in (("train", ("cat", "dog", "emu")), ("test", ("dog", "emu"))):
        for k, name in enumerate(names):
            for i in range(4):
                write_png(path("zoo", split, name, f"{i}.png"), 6, 6, 1, bytes(rng.randrange(256) for _ in range(36)))
    vae("train", "--data", "zoo", *SMALL, "--epochs", 1, "--condition", "labels", "--out", "zoo-run")
    for split, labels in (("train", (0,) * 4 + (1,) * 4 + (2,) * 4), ("test", (1,) * 4 + (2,) * 4)):
        vae("encode", "zoo-run", "--split", split, "--out", "z.npz", "--device", "cpu")
        assert read_npz("z.npz")["labels"][1] == labels
    vae("report", "zoo-run", "--out", "zoo.html")
    with open(path("zoo.html"), encoding="utf-8") as file:
        page = file.read()
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', page)[1])
    assert facts["class_names"] == facts["label_names"] == ["cat", "dog", "emu"]
    assert "Decoded as class dog." in page
    write_png(path("zoo", "test", "fox", "0.png"), 6, 6, 1, bytes(36))
    vae("eval", "zoo-run", "--split", "test", code=3, says="class 'fox' is none of the model's 3: cat, dog, emu")
    # a plain model needs no class: another one is told, and keeps its name
    vae("train", "--data", "zoo", *SMALL, "--epochs", 1, "--out", "zoo-plain")
    found = vae("score", "zoo-plain", "--split", "test", "--threshold", 1, "--out", "f.csv", "--device", "cpu",
                says="zoo: the model knows no class fox")
    assert "fox" in {r["label"] for r in rows_of("f.csv")}
    assert found.code == 0


@test
def classifiers_name_what_they_see():
    labels = ["alpha", "beta", "gamma"] * 40
    table("semi.csv", labels)
    vae("train", "--data", "semi.csv", *TABLE, "--epochs", 40, "--lr", 0.01, "--semi-supervised", "--labelled", 30,
        "--out", "semi")
    vae("classify", "semi", "--data", cut("two.csv", "semi.csv", ("beta", "gamma")), "--out", "c.csv", "--device",
        "cpu", says="0.00% misclassified")
    found = rows_of("c.csv")
    assert list(found[0]) == ["row", "label", "predicted", "p_alpha", "p_beta", "p_gamma"]
    assert {(r["label"], r["predicted"]) for r in found} == {("beta", "beta"), ("gamma", "gamma")}
    # a row of no class, and one of another: predicted, and not counted
    table("odd.csv", ["beta", "", "delta", "gamma"])
    vae("classify", "semi", "--data", "odd.csv", "--out", "c.csv", "--device", "cpu",
        says="4 rows of odd.csv, of 2 of a known class 0.00% misclassified")
    assert [r["label"] for r in rows_of("c.csv")] == ["beta", "", "delta", "gamma"]
    # rows without a label train, too: those that are labelled are among the others
    table("part.csv", ["alpha", "beta", "", "", ""] * 20)
    vae("train", "--data", "part.csv", *TABLE, "--epochs", 1, "--semi-supervised", "--labelled", 40, "--out", "part")
    vae("train", "--data", "part.csv", *TABLE, "--epochs", 1, "--semi-supervised", "--labelled", 42, "--out", "no",
        code=3, says="takes 21 rows of class alpha, there are 20")


@test
def numbers_mean_themselves():
    for name, labels in (("floats.csv", ["10.0", "2.0", "3.0"]), ("large.csv", ["10", "300", "-1"])):
        table(name, labels * 10)
        run = name[:-4]
        vae("train", "--data", name, *TABLE, "--epochs", 1, "--exclude-class", 10, "--out", run)
        found = scores(run, name)
        assert [r["label"] for r in found] == [str(int(float(v))) for v in labels] * 10
        summary = vae("score", run, "--data", name, "--threshold", 1, "--json", "--device", "cpu").json()
        assert summary["metrics"]["anomaly_class"] == 10 and summary["metrics"]["positives"] == 10
    vae("encode", "large", "--data", "large.csv", "--out", "e.npz", "--device", "cpu")
    shape, raw = read_npz("e.npz")["labels"]
    assert [int.from_bytes(raw[8 * i:8 * i + 8], "little", signed=True) for i in range(3)] == [10, 300, -1]
    # from 1 on, with gaps: conditional and semi-supervised models train, and speak of these numbers
    table("from1.csv", ["1", "13", "26"] * 20, {"1": (0, 0), "13": (4, 1), "26": (1, 5)})
    vae("train", "--data", "from1.csv", *TABLE, "--epochs", 30, "--lr", 0.01, "--semi-supervised", "--labelled", 9,
        "--out", "semi26")
    assert vae("info", "semi26", "--json").json()["config"]["classes"] == 3
    vae("classify", "semi26", "--data", "from1.csv", "--out", "c.csv", "--device", "cpu")
    found = rows_of("c.csv")
    assert list(found[0])[3:] == ["p1", "p13", "p26"] and {r["predicted"] for r in found} == {"1", "13", "26"}
    vae("train", "--data", "from1.csv", *TABLE, "--epochs", 1, "--condition", "labels", "--out", "cond26")
    vae("sample", "cond26", "--class", 2, "-n", 2, "--out", "s.npy", code=2, says="expected one of 1, 13, 26, found '2'")
    assert vae("sample", "cond26", "--class", "26.0", "-n", 2, "--out", "s.npy", "--json").json()["n"] == 2
    # 300 classes are not too many
    table("many.csv", [str(i) for i in range(300)] * 2)
    for how in (["--semi-supervised", "--labelled", 300], ["--condition", "labels"]):
        vae("train", "--data", "many.csv", *TABLE, "--epochs", 1, *how, "--label-column", "label", "--force",
            "--out", "many")
    vae("decode", "many", "--latents", zeros(), "--class", 299, "--out", "x.npy", "--device", "cpu")


@test
def what_was_never_trained_is_not_drawn():
    vae("train", "--limit", 300, *SMALL, "--epochs", 1, "--condition", "labels", "--exclude-class", "3,4", "--out", "gap")
    assert vae("info", "gap", "--json").json()["class_rows"][2:6] == [30, 0, 0, 30]
    assert "not trained  3, 4\n" in vae("info", "gap").out
    vae("sample", "gap", "--class", 3, "-n", 1, "--out", "s.npy", code=2, says="--class 3: no row of that class was trained on")
    assert vae("sample", "gap", "-n", 16, "--out", "s.npy", "--json").json()["n"] == 16, "eight lines of two"
    # --classes may name numbers beyond the data's, which are none of theirs
    table("few.csv", ["0", "1", "3"] * 10)
    vae("train", "--data", "few.csv", *TABLE, "--epochs", 1, "--condition", "labels", "--classes", 5, "--out", "five")
    assert vae("info", "five", "--json").json()["classes"] == ["0", "1", "2", "3", "4"]
    vae("train", "--data", table("few2.csv", ["a", "b"] * 10), *TABLE, "--epochs", 1, "--condition", "labels",
        "--classes", 5, "--out", "no", code=2, says="what the others are called is not known (a, b)")


@test
def anomalies_are_of_classes_by_name():
    labels = (["normal"] * 6 + ["dos", "probe, slow", ""]) * 10
    with open(path("net.csv"), "w") as file:
        rng = random.Random(3)
        file.write("a,b,class\n")
        for label in labels:
            at = 0 if label == "normal" else 5
            name = f'"{label}"' if "," in label else label
            file.write(f"{rng.gauss(at, 1):.4f},{rng.gauss(at, 1):.4f},{name}\n")
    vae("train", "--data", "net.csv", *TABLE, "--epochs", 20, "--exclude-class", "dos,probe, slow", "--out", "net",
        says="3 classes: dos, normal, probe, slow; some rows are of none")
    found = vae("score", "net", "--data", "net.csv", "--threshold", 1, "--json", "--device", "cpu").json()["metrics"]
    assert found["positives"] == 20 and found["of_no_class"] == 10 and found["anomaly_class"] == "dos,probe, slow"
    for names, positives in (("dos", 10), ("probe, slow,dos", 20), ("normal", 60)):
        found = vae("score", "net", "--data", "net.csv", "--threshold", 1, "--anomaly-class", names, "--json",
                    "--out", "s.csv", "--device", "cpu").json()["metrics"]
        assert found["positives"] == positives, names
        # AUROC of the rows that have a class, by hand
        rows = [r for r in rows_of("s.csv") if r["label"] != ""]
        assert len(rows) == 80 and {r["label"] for r in rows} == {"normal", "dos", "probe, slow"}
        bad = {"normal"} if names == "normal" else {"dos"} if names == "dos" else {"dos", "probe, slow"}
        a = [float(r["nll"]) for r in rows if r["label"] in bad]
        b = [float(r["nll"]) for r in rows if r["label"] not in bad]
        auroc = sum((x > y) + (x == y) / 2 for x in a for y in b) / len(a) / len(b)
        assert abs(auroc - found["nll"]["auroc"]) < 1e-6, names
    text = vae("score", "net", "--data", "net.csv", "--threshold", 1, "--device", "cpu").out
    assert "no label   10 rows" in text
    vae("score", "net", "--data", "net.csv", "--threshold", 1, "--anomaly-class", "normal,worm", code=3,
        says="expected classes that net.csv or the model has, dos, normal, probe, slow; found 'worm'")
    vae("train", "--data", "net.csv", *TABLE, "--exclude-class", "worm", "--out", "no", code=2,
        says="--exclude-class worm has no effect: no row of net.csv has that label; there are dos, normal, probe, slow")


@test
def a_target_is_questioned():
    table("target.csv", [str(20 + i * 7 % 214) for i in range(442)], column="target")
    note = vae("train", "--data", "target.csv", *TABLE, "--epochs", 1, "--out", "t1", says="column 'target' holds the labels, 214 classes: ")
    assert "warning: 214 classes in 442 rows: is 'target' a quantity, not a class? --label-column none keeps the column as data" in note.err
    note = vae("train", "--data", "target.csv", *TABLE, "--epochs", 1, "--label-column", "none", "--out", "t2")
    assert "target" not in note.err.replace("target.csv", "") and newest("t2")["columns"] == b"a\0b\0target\0"
    scores("t2", "target.csv")
    note = vae("train", "--data", "target.csv", *TABLE, "--epochs", 1, "--label-column", "target", "--out", "t3")
    assert "warning" not in note.err
    table("fraction.csv", ["1", "2", "2.5"], column="y")
    vae("train", "--data", "fraction.csv", *TABLE, "--out", "no", code=3,
        says="fraction.csv: line 4, column 'y': expected a label, a whole number or a text, found a fraction: '2.5'; "
             "if the column holds data, --label-column none")


def without(name, tags):
    """A checkpoint without some sections, as 1073072 wrote it: written by the description in checkpoint.c."""
    found = {tag: data for tag, data in sections(name).items() if tag not in tags}
    config = json.loads(found["config"])
    config["exclude-class"] = -1
    found["config"] = json.dumps(config).encode()
    at = 32 + 32 * len(found)
    head, body = b"", b""
    for tag, data in found.items():
        start = -(-at // 64) * 64
        head += struct.pack("<12sIQQ", tag.encode(), zlib.crc32(data), start, len(data))
        body += bytes(start - at) + data
        at = start + len(data)
    first = b"\x89VAE\r\n\x1a\n" + struct.pack("<III", 1, 0x01020304, len(found))
    crc = zlib.crc32(first + bytes(4) + struct.pack("<Q", at) + head)
    return first + struct.pack("<IQ", crc, at) + head + body


@test
def older_checkpoints_open():
    """Their numbers are names."""
    table("old.csv", ["0", "1", "2"] * 20)
    vae("train", "--data", "old.csv", *TABLE, "--epochs", 2, "--condition", "labels", "--out", "old")
    last = sorted(os.listdir(path("old", "checkpoints")))[-1]
    name = path("old", "checkpoints", last)
    data = without(name, ("classes", "class_rows"))
    for each in os.listdir(path("old", "checkpoints")):
        os.remove(path("old", "checkpoints", each))
    with open(name, "wb") as file:
        file.write(data)
    assert "classes" not in vae("info", "old", "--json").json()
    assert "classes      0, 1, 2 (numbers: their names were not kept)" in vae("info", "old").out
    assert [r["label"] for r in scores("old", cut("old-2.csv", "old.csv", ("1", "2")))] == ["1", "2"] * 20
    vae("encode", "old", "--data", "old-2.csv", "--out", "e.npz", "--device", "cpu")
    assert read_npz("e.npz")["labels"][1] == (1, 2) * 20
    vae("score", "old", "--data", conditional() + ".csv", "--threshold", 1, code=3,
        says="class 'alpha' is none of the model's 3: 0, 1, 2")
    vae("export", "old", "--out", "old.npz")
    assert "classes" not in vae("info", "old.npz", "--json").json()["metadata"]
    vae("import", "old.npz", "--out", "old-back")
    vae("decode", "old-back", "--latents", zeros(), "--class", 2, "--out", "x.npy", "--device", "cpu")
    vae("train", "--resume", "--out", "old", "--epochs", 3, "--threads", 1)
    assert newest("old")["classes"] == b"0\x001\x002\0"
    # texts were numbered as now; going on gives them their names
    run = conditional()
    os.makedirs(path("old-greek", "checkpoints"))
    last = sorted(name for name in os.listdir(path(run, "checkpoints")) if name[:5] == "step-")[-1]
    with open(path("old-greek", "checkpoints", last), "wb") as file:
        file.write(without(path(run, "checkpoints", last), ("classes", "class_rows")))
    with open(path(run, "config.json")) as old, open(path("old-greek", "config.json"), "w") as new:
        new.write(old.read())
    vae("train", "--resume", "--out", "old-greek", "--epochs", 61, "--threads", 1)
    assert newest("old-greek")["classes"] == b"alpha\0beta\0gamma\0"

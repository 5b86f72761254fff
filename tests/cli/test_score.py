"""vae score: scores, flags, thresholds, rankings, contributions, pictures."""
import csv
import io
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import xml.dom.minidom
import zipfile

from harness import Skip, TINY, VAE, WORK, parse_npy, path, read_npz, test, vae, write_npy
from test_pictures import read_png

SCORES = ("recon_error", "recon_prob", "neg_elbo", "nll")
REPRODUCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench/reproduce")
FAST = ("--samples", 4, "--threads", 1)


def score(run, *args, **more):
    return vae("score", run, *FAST, *args, **more)


def once(name, *args):
    """A run that several tests look at, all of its rows trained on."""
    if not os.path.exists(path(name)):
        vae("train", *TINY, "--epochs", 2, "--out", name, "-q", *args)
    return name


def no3():
    return once("no3", "--exclude-class", 3)


def read_csv(name=None, text=None):
    if name is not None:
        with open(path(name), newline="") as file:
            text = file.read()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def column(rows, name):
    return [float(row[name]) for row in rows]


def quantile(values, q):
    values = sorted(values)
    at = q * (len(values) - 1)
    low = min(int(at), len(values) - 1)
    return values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low])


def close(a, b, tolerance=1e-6):
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)


# ---- usage ----

@test
def score_usage():
    run = once("plain")
    cases = [
        (["--score", "elbo"], 2, "--score: expected recon_error, recon_prob, neg_elbo or nll, "
                                 "found 'elbo'"),
        (["--score", "neg-elbo"], 2, "did you mean 'neg_elbo'?"),
        (["--out", "scores.txt"], 2, "--out: expected a name that ends in .csv or .npz"),
        (["--out", ".csv"], 2, "--out"),
        (["--contributions", "c.csv"], 2, ".npy or .npz"),
        (["--heatmap", "h.jpg"], 2, "--heatmap: expected a name that ends in .png, found 'h.jpg'"),
        (["--histogram", "h.png"], 2, "--histogram: expected a name that ends in .svg"),
        (["--samples", 0], 2, "--samples: expected a whole number from 1"),
        (["--contamination", 0], 2, "between 0 and 1, found '0'"),
        (["--contamination", 1], 2, "between 0 and 1"),
        (["--contamination", -1], 2, "--contamination"),
        (["--threshold", "high"], 2, "--threshold: expected a number"),
        (["--threshold", 1, "--contamination", 0.1], 2,
         "--contamination has no effect with --threshold"),
        (["--threshold", 1, "--reference", 10], 2, "--reference has no effect with --threshold"),
        (["--anomaly-class", "3,eleven"], 3, "expected classes that digits or the model has, 0, 1, 2, "
                                             "3, 4, 5, 6, 7, 8, 9; found 'eleven'"),
        (["--anomaly-class", "0,1,2,3,4,5,6,7,8,9"], 3, "found 40 with it of 40"),
        (["--out", "-", "--json"], 2, "--json has standard output"),
        (["--out", "a.npz", "--contributions", "a.npz"], 2, "are one file: a.npz"),
        (["--data", "nowhere"], 4, "nowhere"),
        (["--out", "nowhere/scores.csv"], 4, "nowhere/scores.csv: cannot write"),
    ]
    for args, code, says in cases:
        result = vae("score", run, "--limit", 40, *FAST[2:], *args,
                     *([] if "--samples" in args else ["--samples", 4]), code=code, says=says)
        assert result.out == "", args
    vae("score", code=2, says="RUN is missing")
    assert "--contamination" in vae("score", "--help").out


# ---- scores ----

@test
def scores_as_csv_and_npz():
    run = once("plain")
    args = ("--limit", 130, "--threshold", 512)
    summary = score(run, *args, "--out", "a.csv", "--json").json()
    rows = read_csv("a.csv")
    assert list(rows[0]) == ["row", "label", *SCORES, "flag"]
    assert [int(row["row"]) for row in rows] == list(range(130))
    assert [int(row["label"]) for row in rows[:20]] and summary["n"] == 130
    for row in rows:
        r = {name: float(row[name]) for name in SCORES}
        assert all(math.isfinite(v) and v > 0 for v in r.values())
        assert r["recon_prob"] < r["neg_elbo"] and r["nll"] < r["neg_elbo"] + 5
        assert int(row["flag"]) == (r["neg_elbo"] > summary["threshold"])
    assert summary["flagged"] == sum(int(row["flag"]) for row in rows)
    assert 0 < summary["flagged"] < 130 and summary["threshold"] == 512
    assert summary["contamination"] is None and summary["reference_n"] is None
    assert summary["metrics"] is None and summary["score"] == "neg_elbo"
    # the same again, whatever the number of threads, and to standard output
    vae("score", run, "--samples", 4, "--threads", 2, *args, "--out", "b.csv")
    with open(path("a.csv")) as a, open(path("b.csv")) as b:
        text = a.read()
        assert text == b.read()
    piped = score(run, *args, "--out", "-")
    assert piped.out == text and "rows are above the threshold" in piped.err
    assert score(run, *args, "--out", "-", "-q").err == ""
    # as arrays
    score(run, *args, "--out", "a.npz", "-q")
    arrays = read_npz("a.npz")
    for name in SCORES:
        assert arrays[name][0] == (130,)
        assert ["%.9g" % v for v in arrays[name][1]] == [row[name] for row in rows]
    assert list(arrays["flag"][1]) == [int(row["flag"]) for row in rows]
    assert list(arrays["labels"][1]) == [int(row["label"]) for row in rows]
    assert arrays["threshold"][1] == (512.0,) and arrays["score"][1] == b"neg_elbo"
    # noise belongs to the position, not to the block that it is computed in
    score(run, "--limit", 70, "--threshold", 512, "--out", "c.csv")
    assert read_csv("c.csv") == rows[:70]


@test
def scores_agree_with_eval():
    run = once("plain")
    args = ("--limit", 150, "--split", "test")
    score(run, *args, "--threshold", 0, "--out", "e.csv", "--samples", 30)
    rows = read_csv("e.csv")
    found = vae("eval", run, *args, "--samples", 30, "--aggregate", 0, "--json").json()
    assert close(sum(column(rows, "nll")) / 150, found["nll"])
    assert close(sum(column(rows, "neg_elbo")) / 150, -found["elbo"], 0.01)
    kl = [e - p for e, p in zip(column(rows, "neg_elbo"), column(rows, "recon_prob"))]
    assert close(sum(kl) / 150, found["kl"], 1e-4)
    # Jensen, row by row and with room for the noise of 30 draws; the error at mu is near
    for row in rows:
        assert float(row["nll"]) < float(row["neg_elbo"]) + 2
        assert abs(float(row["recon_error"]) - float(row["recon_prob"])) < 60


# ---- thresholds ----

@test
def threshold_is_a_training_quantile():
    run = once("plain")
    for by, contamination in (("neg_elbo", 0.05), ("recon_error", 0.2), ("recon_prob", 0.01),
                              ("nll", 0.5)):
        summary = score(run, "--split", "train", "--limit", 300, "--score", by, "--contamination",
                        contamination, "--out", "t.csv", "--json").json()
        rows = read_csv("t.csv")
        values = column(rows, by)
        assert len(rows) == 300 == summary["reference_n"]
        assert close(summary["threshold"], quantile(values, 1 - contamination), 1e-7)
        assert summary["contamination"] == contamination and summary["score"] == by
        # scored itself, the training split has this share above the threshold
        assert summary["flagged"] == math.floor(contamination * 299 + 1e-9) + (
            (contamination * 299) % 1 > 1e-9)
        assert [int(row["flag"]) for row in rows] == [v > summary["threshold"] for v in values]
    # the default contamination; the threshold of another split is the same
    other = score(run, "--split", "test", "--limit", 50, "--json").json()
    train = score(run, "--split", "train", "--limit", 300, "--json").json()
    assert other["threshold"] == train["threshold"] and other["contamination"] == 0.05
    assert other["flagged"] != train["flagged"]


@test
def threshold_of_some_rows():
    """Evenly spread ones; none that were left out of training. recon_error has no noise."""
    score(no3(), "--split", "train", "--limit", 300, "--score", "recon_error", "--threshold", 1,
          "--out", "t.csv")
    rows = read_csv("t.csv")
    kept = [float(row["recon_error"]) for row in rows if row["label"] != "3"]
    assert len(kept) == 270
    args = ("--split", "test", "--limit", 20, "--score", "recon_error", "--json")
    for n in (270, 1000, 0):
        whole = score(no3(), *args, "--reference", n).json()
        assert whole["reference_n"] == 270
        assert close(whole["threshold"], quantile(kept, 0.95))
    some = score(no3(), *args, "--reference", 100, "--contamination", 0.3).json()
    assert some["reference_n"] == 100
    assert close(some["threshold"], quantile([kept[i * 270 // 100] for i in range(100)], 0.7))
    one = score(no3(), *args, "--reference", 1).json()
    assert close(one["threshold"], kept[0])
    # validation rows were not trained on, either
    held = once("held", "--validation", "0.1")
    assert score(held, *args).json()["reference_n"] == 270


def tabular(name="table", rows=120, columns=6, seed=1):
    """Correlated columns; the run trained on them. Returns rows of floats, too."""
    rng = random.Random(seed)
    values = []
    for _ in range(rows):
        a, b = rng.gauss(0, 1), rng.gauss(0, 1)
        values.append([a, b, a + b, a - b, rng.gauss(0, 0.3), 1 + 0.1 * a][:columns])
    write_npy(f"{name}.npy", rows, columns, [v for row in values for v in row])
    if not os.path.exists(path(f"{name}-run")):
        vae("train", "--data", f"{name}.npy", "--likelihood", "gaussian", "--hidden", "16",
            "--latent", "2", "--batch-size", "16", "--epochs", 30, "--device", "cpu", "--threads",
            1, "--out", f"{name}-run", "-q")
    return values


@test
def threshold_without_training_data():
    values = tabular("moved")
    os.rename(path("moved.npy"), path("elsewhere.npy"))
    gone = score("moved-run", "--data", "elsewhere.npy", "--json").json()  # known by its checksum
    assert gone["reference_n"] == 120 and gone["flagged"] == 6
    write_npy("new.npy", 5, 6, [v for row in values[:5] for v in row])
    score("moved-run", "--data", "new.npy", code=4, says="give --threshold")
    assert score("moved-run", "--data", "new.npy", "--threshold", 1, "--json").json()["n"] == 5
    write_npy("moved.npy", 5, 6, [v for row in values[5:10] for v in row])
    score("moved-run", "--data", "new.npy", code=3,
          says="moved.npy: not what the model was trained on (by SHA-256); the threshold")
    vae("export", "moved-run", "--out", "weights.npz", "-q")
    with zipfile.ZipFile(path("weights.npz")) as whole, \
            zipfile.ZipFile(path("bare.npz"), "w") as bare:  # weights as another tool has them
        for name in whole.namelist():
            if name != "metadata.npy":
                bare.writestr(name, whole.read(name))
    vae("import", "bare.npz", "--likelihood", "gaussian", "--out", "imported", "-q")
    score("imported", "--data", "new.npy", code=3, says="does not say what it was trained on")
    assert score("imported", "--data", "new.npy", "--threshold", 1, "--json").json()["n"] == 5


# ---- rankings ----

def rank(values, positive):
    """AUROC, average precision and precision at n, over pairs and thresholds."""
    ups = [v for v, p in zip(values, positive) if p]
    downs = [v for v, p in zip(values, positive) if not p]
    wins = sum((u > d) + (u == d) / 2 for u in ups for d in downs)
    average, before = 0, 0
    for t in sorted(set(values), reverse=True):
        hits = sum(u >= t for u in ups)
        average += (hits - before) / len(ups) * hits / (hits + sum(d >= t for d in downs))
        before = hits
    order = sorted(range(len(values)), key=lambda i: -values[i])
    return {"auroc": wins / len(ups) / len(downs), "auprc": average,
            "precision_at_n": sum(positive[i] for i in order[:len(ups)]) / len(ups)}


@test
def rankings_are_those_of_the_csv():
    # the class left out is the default
    summary = score(no3(), "--limit", 250, "--out", "m.csv", "--json").json()
    rows = read_csv("m.csv")
    positive = [row["label"] == "3" for row in rows]
    found = summary["metrics"]
    assert found["anomaly_class"] == 3 and found["positives"] == sum(positive) == 25
    for name in SCORES:
        want = rank(column(rows, name), positive)
        for metric, value in want.items():
            assert close(found[name][metric], value), (name, metric, found[name], want)
    flags = [int(row["flag"]) for row in rows]
    assert close(found["flagged_of_positives"], sum(f for f, p in zip(flags, positive) if p) / 25)
    assert close(found["flagged_of_others"],
                 sum(f for f, p in zip(flags, positive) if not p) / 225)
    other = score(no3(), "--limit", 250, "--anomaly-class", 1, "--json").json()
    assert other["metrics"]["anomaly_class"] == 1
    assert other["metrics"]["nll"] != found["nll"] and other["threshold"] == summary["threshold"]
    text = score(no3(), "--limit", 250).out
    assert f"neg_elbo      {found['neg_elbo']['auroc']:.4f}" in text and "label 3    25 rows" in text
    # a run without an excluded class, and data without labels or without that class
    assert "AUROC" not in score(once("plain"), "--limit", 50, "--threshold", 1).out
    note = score(no3(), "--limit", 2, "--threshold", 1)
    assert "no AUROC: of 2 rows, 0 are of the class left out" in note.err
    write_npy("unlabelled.npy", 4, 784, [0.5] * (4 * 784))
    plain = score(no3(), "--data", "unlabelled.npy", "--threshold", 1, "--json", "--out", "u.csv")
    assert plain.json()["metrics"] is None and plain.err == ""
    assert list(read_csv("u.csv")[0]) == ["row", *SCORES, "flag"]
    score(no3(), "--data", "unlabelled.npy", "--threshold", 1, "--anomaly-class", 3, code=2,
          says="--anomaly-class has no effect: unlabelled.npy has no labels")


# ---- contributions ----

@test
def contributions_add_up():
    run = once("plain")
    args = ("--limit", 60, "--threshold", 1)
    score(run, *args, "--contributions", "c.npy", "--out", "c.csv")
    rows = read_csv("c.csv")
    with open(path("c.npy"), "rb") as file:
        shape, values = parse_npy(file.read())
    assert shape == (60, 784)
    for i, row in enumerate(rows):
        assert close(sum(values[784 * i:784 * (i + 1)]), float(row["recon_prob"]), 1e-5)
    assert min(values) >= 0  # probabilities, not densities
    score(run, *args, "--score", "recon_error", "--contributions", "c.npz")
    arrays = read_npz("c.npz")
    assert arrays["contributions"][0] == (60, 784)
    assert list(arrays["labels"][1]) == [int(row["label"]) for row in rows]
    for i, row in enumerate(rows):
        part = arrays["contributions"][1][784 * i:784 * (i + 1)]
        assert close(sum(part), float(row["recon_error"]), 1e-5)


@test
def tables_name_their_columns():
    values = tabular()
    values[7][4] = 9.0   # column 4 is noise of 0.3, column 2 is the sum of 0 and 1
    values[8][2] += 8.0
    write_npy("odd.npy", 120, 6, [v for row in values for v in row])
    summary = score("table-run", "--data", "odd.npy", "--out", "odd.csv", "--contributions",
                    "odd-parts.npy", "--json").json()
    rows = read_csv("odd.csv")
    with open(path("odd-parts.npy"), "rb") as file:
        _, parts = parse_npy(file.read())
    assert list(rows[0]) == ["row", *SCORES, "flag", "top_features"]
    assert rows[7]["top_features"].startswith("4=") and rows[7]["flag"] == "1"
    assert rows[8]["flag"] == "1" and summary["flagged"] >= 2
    ranks = sorted(range(120), key=lambda i: -float(rows[i]["neg_elbo"]))
    assert set(ranks[:2]) == {7, 8}
    for i, row in enumerate(rows):
        named = [part.split("=") for part in row["top_features"].split(";")]
        order = sorted(range(6), key=lambda d: -parts[6 * i + d])[:3]
        assert [int(name) for name, _ in named] == order
        for name, value in named:
            assert close(float(value), parts[6 * i + int(name)], 1e-4)
    score("table-run", "--data", "odd.npy", "--out", "odd.npz", "-q")
    top = read_npz("odd.npz")["top_features"]
    assert top[0] == (120, 3) and top[1][21] == 4
    score("table-run", "--data", "odd.npy", "--heatmap", "h.png", code=2, says="no pictures")


@test
def tables_with_names():
    """A CSV whose columns differ a thousandfold in scale: standardized, and so is the reference."""
    rng = random.Random(3)
    lines = ['weight,"height, cm",age,class']
    for i in range(150):
        a, odd = rng.gauss(0, 1), i in (20, 40)
        lines.append(f"{60000 + 9000 * a + 10 * rng.gauss(0, 1):.1f},"
                     f"{(2.5 if odd else 1.7 + 0.1 * a):.4f},{40 + 9 * a:.2f},{int(odd)}")
    for name, kept in (("people.csv", lines), ("normal.csv", [l for l in lines if l[-1] != "1"])):
        with open(path(name), "w") as file:
            file.write("\n".join(kept) + "\n")
    vae("train", "--data", "normal.csv", "--likelihood", "gaussian", "--variance", 0.1, "--hidden",
        "16", "--latent", 1, "--batch-size", 16, "--epochs", 60, "--device", "cpu", "--threads", 1,
        "--out", "people", "-q")
    found = score("people", "--data", "people.csv", "--anomaly-class", 1, "--out", "p.csv",
                  "--json").json()
    rows = read_csv("p.csv")
    assert rows[20]["top_features"].startswith("height, cm=") and rows[20]["flag"] == "1"
    assert rows[40]["top_features"].split(";")[0].startswith("height, cm=")
    assert all(found["metrics"][name]["auroc"] == 1 for name in SCORES), found["metrics"]
    assert found["metrics"]["nll"]["precision_at_n"] == 1 and found["metrics"]["positives"] == 2
    # the rows that set the threshold are standardized as the others are
    train = score("people", "--data", "normal.csv", "--score", "recon_error", "--out", "n.csv",
                  "--json").json()
    same = score("people", "--data", "people.csv", "--score", "recon_error", "--json").json()
    assert train["reference_n"] == 148 and train["threshold"] == same["threshold"]
    assert close(train["threshold"], quantile(column(read_csv("n.csv"), "recon_error"), 0.95))


@test
def rows_far_out_are_infinite():
    values = tabular()
    values[3] = [3e30] * 6
    write_npy("far.npy", 120, 6, [v for row in values for v in row])
    result = score("table-run", "--data", "far.npy", "--out", "far.csv")
    rows = read_csv("far.csv")
    assert [rows[3][name] for name in SCORES] == ["inf"] * 4 and rows[3]["flag"] == "1"
    assert "inf" not in "".join(rows[4].values()) and "infinite   1 row" in result.out
    summary = score("table-run", "--data", "far.npy", "--json").json()
    assert summary["infinite"] == 1
    write_npy("all.npy", 1, 6, [3e30] * 6)
    score("table-run", "--data", "all.npy", code=5, says="NaN or Inf on every row")


@test
def heatmaps_show_the_most_abnormal():
    run = once("plain")
    score(run, "--limit", 30, "--threshold", 1, "--heatmap", "h.png")
    with open(path("h.png"), "rb") as file:
        head = file.read(26)
    # three columns, ten lines, of 84 pixels with borders of 2
    assert head[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", head[16:24]) == (260, 862)
    with open(path("h.png"), "rb") as file:
        first = file.read()
    score(run, "--limit", 30, "--threshold", 1, "--heatmap", "h.png", "--score", "recon_error")
    with open(path("h.png"), "rb") as file:
        assert first != file.read()
    score(run, "--limit", 4, "--threshold", 1, "--heatmap", "h.png")
    with open(path("h.png"), "rb") as file:
        assert struct.unpack(">II", file.read(24)[16:]) == (260, 4 * 86 + 2)


@test
def heatmaps_can_be_seen():
    run = once("sharp", "--epochs", 30, "--lr", "5e-3")
    rng = random.Random(9)
    # nine rows that are a little off in some pixels, and one that is far off everywhere
    values = [0.0] * (784 * 9) + [float(rng.random() < 0.5) for _ in range(784)]
    for i in range(9):
        for _ in range(40):
            values[784 * i + rng.randrange(784)] = 0.3
    write_npy("odd.npy", 10, 784, values)
    score(run, "--data", "odd.npy", "--threshold", 1, "--heatmap", "odd.png")
    width, _, _, rows = read_png("odd.png")
    for line in range(1, 10):  # the first is the noise
        part = [rows[86 * line + 2 + y][width - 86:width - 2] for y in range(84)]
        light = [byte for row in part for byte in row]
        assert sum(light) / len(light) > 28, (line, sum(light) / len(light))


@test
def histograms_mark_the_threshold():
    score(no3(), "--limit", 200, "--histogram", "h.svg", "-q")
    with open(path("h.svg")) as file:
        text = file.read()
    assert text.startswith("<svg") and "neg_elbo of 200 rows" in text
    for word in ("threshold", "label 3", "other labels", "nats"):
        assert word in text, word
    xml.dom.minidom.parseString(text)
    score(once("plain"), "--limit", 50, "--threshold", 512, "--score", "nll", "--histogram",
          "h.svg", "-q")
    with open(path("h.svg")) as file:
        text = file.read()
    assert "nll of 50 rows" in text and "threshold" in text and "label" not in text
    # a row that is infinite is left out of the drawing, not the end of it
    values = tabular()
    values[3] = [3e30] * 6
    write_npy("far.npy", 120, 6, [v for row in values for v in row])
    score("table-run", "--data", "far.npy", "--histogram", "h.svg", "-q")
    with open(path("h.svg")) as file:
        assert "inf" not in file.read().replace("infinite", "").lower()
    # one that is far out is told of, and the others have their bars
    values[3] = [300.0] * 6
    write_npy("far.npy", 120, 6, [v for row in values for v in row])
    score("table-run", "--data", "far.npy", "--histogram", "h.svg", "-q")
    with open(path("h.svg")) as file:
        text = file.read()
    assert "1 more to " in text
    assert len(set(re.findall(r"V([\d.]+)H", text))) > 5, "bars of several heights"


# ---- a digit left out ----

@test
def a_digit_left_out_of_mnist():
    data = os.path.join(os.environ.get("VAE_DATA_DIR", ""), "mnist")
    if not os.path.isdir(data):
        raise Skip("VAE_DATA_DIR names no folder with mnist/")
    data = os.path.abspath(data)
    vae("train", "--data", data, "--exclude-class", 0, "--limit", 3000, "--hidden", "64",
        "--latent", 2, "--likelihood", "gaussian", "--variance", 0.5, "--epochs", 5, "--threads", 1,
        "--device", "cpu", "--out", "no0", "-q")
    found = score("no0", "--data", data, "--anomaly-class", 0, "--limit", 1000, "--json").json()
    assert found["metrics"]["positives"] == 85 and found["reference_n"] < 3000
    assert found["metrics"]["neg_elbo"]["auroc"] > 0.8, found["metrics"]


def reproduce(*args, code=0):
    done = subprocess.run([sys.executable, os.path.join(REPRODUCE, "anomaly.py"), "--vae", VAE,
                           "--results", "anomaly.jsonl", "--runs", "anomaly", *args], cwd=WORK,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@test
def anomaly_script():
    small = ("--data", "digits", "--digits", "3", "--latents", "2", "--epochs", "1", "--hidden",
             "8", "--samples", "2", "--limit", "200")
    assert "z=2 digit 3: AUROC recon_error 0." in reproduce(*small)
    with open(path("anomaly.jsonl")) as file:
        line = file.read()
    row = json.loads(line)
    assert row["digit"] == 3 and row["positives"] == 20 and row["neg_elbo"]["auroc"] > 0
    assert reproduce(*small) == ""  # recorded already
    with open(path("anomaly.jsonl")) as file:
        assert file.read() == line
    assert "no rows of the whole data" in reproduce("--table", code=1)
    with open(path("anomaly.jsonl"), "a") as file:
        for digit in range(10):
            for seed in (1, 2):
                made = {**row, "limit": None, "digit": digit, "seed": seed}
                made["neg_elbo"] = {"auroc": 0.05 * digit + 0.02 * seed, "auprc": 0.5}
                file.write(json.dumps(made) + "\n")
    table = reproduce("--table")
    assert "| Tonnaer, table 3.3, z=32 | 0.81 | 0.09 |" in table
    mine = next(l for l in table.splitlines() if l.startswith("| here, z=2, gaussian, neg_elbo"))
    assert "hidden 8, 1 epochs, seeds 1-2 | 0.03 | 0.08 |" in mine and mine.endswith("| 0.255 |")

"""Which rows a figure is of: test data named apart, rows held out, --limit, files that are not read."""
import csv
import os
import random
import zipfile

from harness import TINY, metrics, path, read_json, read_npy, read_npz, test, vae, write_npy
from test_data import SMALL, npy, write_png

GAUSS = ["--likelihood", "gaussian"]


def numbers(name, rows, seed, columns=6):
    rng = random.Random(seed)
    return write_npy(name, rows, columns, [rng.random() for _ in range(rows * columns)])


def table(name, rows, seed, columns=("a", "b", "c")):
    rng = random.Random(seed)
    with open(path(name), "w") as file:
        file.write(",".join(columns) + "\n")
        for _ in range(rows):
            file.write(",".join(f"{rng.gauss(3, 2):.4f}" for _ in columns) + "\n")
    return name


@test
def test_data_may_be_a_set_of_their_own():
    table("trained.csv", 90, 1)
    table("tested.csv", 30, 2)
    table("swapped.csv", 30, 2, columns=("b", "a", "c"))
    args = ["--data", "trained.csv", *SMALL, *GAUSS, "--epochs", 2]
    vae("train", *args, "--test-data", "tested.csv", "--out", "splits-apart")
    assert read_json("splits-apart", "config.json")["test-data"] == "tested.csv"
    data = read_json("splits-apart", "run.json")["data"]
    assert (data["test"], data["test_path"]) == (30, "tested.csv"), data
    last = [line for line in metrics("splits-apart") if line["split"] == "test"][-1]
    for more in ([], ["--split", "test"]):  # as in training: standardized by the training rows
        found = vae("eval", "splits-apart", "--json", *more).json()
        assert (found["data"], found["split"], found["n"]) == ("tested.csv", "test", 30), found
        assert abs(found["elbo"] - last["elbo"]) < 1e-4
    gap = vae("eval", "splits-apart", "--gap", "--json").json()["train"]
    assert (gap["data"], gap["split"], gap["n"]) == ("trained.csv", "train", 90)
    assert vae("score", "splits-apart", "--samples", 2, "--json").json()["data"] == "tested.csv"
    assert vae("encode", "splits-apart", "--out", "splits-apart.npz", "--json").json()["n"] == 30
    # named, the training file is what it is; a file apart is not "train"
    for data, split in (("trained.csv", "train"), ("tested.csv", "data")):
        found = vae("eval", "splits-apart", "--data", data, "--json").json()
        assert (found["data"], found["split"]) == (data, split), found
    found = vae("eval", "splits-apart", "--data", "tested.csv", "--split", "train", "--json").json()
    assert found["split"] == "data"
    vae("eval", "splits-apart", "--data", "tested.csv", "--split", "test", code=3, says="leave --split out")
    # later, and on a run that goes on; what a test is of changes no bit of training
    vae("train", *args, "--out", "splits-apart-later")
    vae("train", "--resume", "--out", "splits-apart-later", "--epochs", 3, "--test-data", "tested.csv")
    assert [line["split"] for line in metrics("splits-apart-later")] == ["train", "train", "train", "test"]
    vae("train", *args, "--test-data", "swapped.csv", "--out", "splits-x", code=3,
        says="swapped.csv: column 1 is 'b'; the model was trained with 'a' there")
    numbers("wide6.npy", 10, 1)
    vae("train", *args, "--test-data", "wide6.npy", "--out", "splits-x", code=3, says="6 columns")
    vae("train", *args, "--test-data", "nowhere.csv", "--out", "splits-x", code=4, says="nowhere.csv")
    vae("bench", "--test-data", "tested.csv", code=2, says="--test-data has no effect")
    # a set that has a test split of its own gives that
    vae("train", *TINY, "--epochs", 1, "--test-data", "digits", "--out", "splits-apart-digits")
    assert read_json("splits-apart-digits", "run.json")["data"]["test"] == 300
    # instead of the split that the data have
    rng = random.Random(3)
    raw = bytes(rng.randrange(256) for _ in range(784 * 20))
    with open(path("twenty.npy"), "wb") as file:
        file.write(npy((20, 28, 28), "|u1", raw))
    vae("train", *TINY, "--epochs", 1, "--test-data", "twenty.npy", "--out", "splits-apart-20")
    assert vae("eval", "splits-apart-20", "--json").json()["n"] == 20
    assert vae("eval", "splits-apart-20", "--data", "digits", "--limit", 50, "--json").json()["n"] == 50


@test
def rows_held_out_can_be_asked_for():
    numbers("splits-kept.npy", 200, 4)
    numbers("splits-kept-others.npy", 50, 5)
    vae("train", "--data", "splits-kept.npy", *SMALL, "--epochs", 2, "--validation", "0.2", "--out", "splits-kept")
    last = {line["split"]: line for line in metrics("splits-kept")}
    found = {split: vae("eval", "splits-kept", "--split", split, "--json").json()
             for split in ("train", "validation")}
    assert found["train"]["n"] == 160 and found["validation"]["n"] == 40
    assert found["validation"]["split"] == "validation"
    assert abs(found["validation"]["elbo"] - last["validation"]["elbo"]) < 1e-4
    # together they are all rows, each once, and their numbers come with them
    of = {}
    for split in found:
        vae("encode", "splits-kept", "--split", split, "--out", f"{split}.npz", "-q")
        arrays = read_npz(f"{split}.npz")
        of[split] = arrays["row"][1]
        mu = arrays["mu"][1]
    assert sorted(of["train"] + of["validation"]) == list(range(200))
    vae("encode", "splits-kept", "--out", "all.npz", "-q")
    every = read_npz("all.npz")
    assert every["mu"][0] == (200, 3) and "row" not in every
    for i, row in enumerate(of["validation"]):
        assert mu[3 * i:3 * i + 3] == every["mu"][1][3 * row:3 * row + 3]
    assert vae("eval", "splits-kept", "--json").json()["split"] == "data", "train and validation together"
    vae("score", "splits-kept", "--split", "validation", "--samples", 2, "--out", "s.csv", "-q")
    with open(path("s.csv")) as file:
        assert [int(row["row"]) for row in csv.DictReader(file)] == list(of["validation"])
    # and are what pictures go by
    held = of["validation"][1]
    vae("reconstruct", "splits-kept", "--split", "validation", "--rows", held, "--out", "r1.npy")
    vae("reconstruct", "splits-kept", "--rows", held, "--out", "r2.npy")
    assert read_npy("r1.npy") == read_npy("r2.npy")
    pair = vae("interpolate", "splits-kept", "--split", "validation", "--from", held, "--to", of["validation"][0],
               "--out", "i.npy", "--json").json()["pairs"]
    assert pair == [{"from": held, "to": of["validation"][0]}], pair
    vae("reconstruct", "splits-kept", "--split", "validation", "--rows", of["train"][0], "--out", "r1.npy", code=2,
        says="is not among the 40 rows of splits-kept.npy (validation)")
    # the threshold is that of the rows trained on, whichever are scored
    thresholds = {vae("score", "splits-kept", *more, "--samples", 2, "--json").json()["threshold"]
                  for more in ([], ["--split", "train"], ["--split", "validation"])}
    assert len(thresholds) == 1, thresholds
    one = vae("eval", "splits-kept", "--split", "validation", "--limit", 1, "--json").json()
    assert one["n"] == 1
    # the same file by name; another one; none held out
    again = vae("eval", "splits-kept", "--data", "splits-kept.npy", "--split", "validation", "--json").json()
    assert again["n"] == 40
    vae("eval", "splits-kept", "--data", "splits-kept-others.npy", "--split", "validation", code=3,
        says="splits-kept-others.npy: not what splits-kept")
    numbers("splits-kept.npy", 200, 6)
    vae("eval", "splits-kept", "--split", "train", code=3, says="which of its rows were trained on is not known")
    vae("train", "--data", "splits-kept-others.npy", *SMALL, "--epochs", 1, "--out", "splits-kept-none")
    vae("eval", "splits-kept-none", "--split", "validation", code=2, says="held no rows out")
    # a report made anew shows what training's own did
    numbers("splits-kept.npy", 200, 4)
    for _ in range(2):
        with open(path("splits-kept", "report.html")) as file:
            assert "40 rows (validation)" in file.read()
        vae("report", "splits-kept", "-q")
    # of a run with --limit, those within it
    vae("train", *TINY, "--epochs", 1, "--validation", "0.1", "--out", "splits-kept-limited")
    assert vae("eval", "splits-kept-limited", "--split", "train", "--json").json()["n"] == 270
    assert vae("eval", "splits-kept-limited", "--split", "validation", "--json").json()["n"] == 30
    # and of one that left a class out, those of the others
    vae("train", *TINY, "--epochs", 1, "--exclude-class", 3, "--out", "splits-kept-no3")
    vae("encode", "splits-kept-no3", "--split", "train", "--out", "splits-kept-no3.npz", "-q")
    labels = read_npz("splits-kept-no3.npz")["labels"][1]
    assert len(labels) == 270 and 3 not in labels


@test
def a_row_held_out_is_binarized_as_in_training():
    for how in ("static", "dynamic"):
        run = f"splits-{how}"
        vae("train", *TINY, "--epochs", 1, "--binarize", how, "--validation", "0.1", "--out", run)
        last = [line for line in metrics(run) if line["split"] == "validation"][-1]
        found = vae("eval", run, "--split", "validation", "--json").json()
        for key in ("n", "elbo", "recon", "kl"):
            assert found[key] == last[key], (how, key, found[key], last[key])


def shades(folder, n=20):
    for kind in "ab":
        for i in range(n):
            write_png(path(folder, kind, f"{i:02}.png"), 4, 4, 1, bytes([10 * i + (kind == "b")] * 16))
    return folder


@test
def a_limit_takes_pictures_of_all_classes():
    shades("shades")
    vae("train", "--data", "shades", *SMALL, "--epochs", 1, "--out", "shades-run")
    rows = {}
    for n in (40, 12, 5):
        vae("encode", "shades-run", "--data", "shades", "--limit", n, "--out", "l.npz", "-q")
        arrays = read_npz("l.npz")
        rows[n] = list(zip(arrays["labels"][1], zip(*[iter(arrays["mu"][1])] * 3)))
    assert [label for label, _ in rows[40]] == [0] * 20 + [1] * 20, "all of them: by path"
    assert {label for label, _ in rows[12]} == {0, 1}
    assert rows[12][:5] == rows[5] and set(rows[12]) <= set(rows[40])
    vae("train", "--data", "shades", *SMALL, "--epochs", 1, "--limit", 20, "--out", "shades-20",
        says="20 rows to train on")
    vae("encode", "shades-20", "--split", "train", "--limit", 5, "--out", "l.npz", "-q")
    assert list(read_npz("l.npz")["labels"][1]) == [label for label, _ in rows[5]]


# ---- nothing is skipped in silence ----

@test
def files_that_are_not_read_are_named():
    write_png(path("mixed", "one.png"), 4, 4, 1, bytes(16))
    for i in range(10):
        for folder in ("mixed", "gif/in"):
            os.makedirs(path(folder), exist_ok=True)
            with open(path(folder, f"{i}.gif"), "wb") as file:
                file.write(b"GIF89a" + bytes(16))
    said = vae("train", "--data", "mixed", *SMALL, code=3, says="10 in formats that are not read").err
    assert "mixed/0.gif" in said and "7 more" in said and "mogrify" in said, said
    said = vae("train", "--data", "gif", *SMALL, code=3, says="no data set").err
    assert ".gif: 10" in said and "1 folder" in said and "PNG" in said, said
    with open(path("gif", "rows.csv"), "w") as file:
        file.write("a,b\n1,2\n")
    assert ".csv: 1" in vae("train", "--data", "gif", *SMALL, code=3, says="by itself").err
    # other files are no reason to stop, but are told
    shades("noted")
    for name in ("notes.txt", "a/labels.json"):
        with open(path("noted", name), "w") as file:
            file.write("x")
    vae("train", "--data", "noted", *SMALL, "--epochs", 1, "--out", "splits-n",
        says="2 files are not read, only PNG, JPEG, PGM, PPM, PBM, BMP, WebP and TIFF files are: noted/notes.txt, a/labels.json")
    # beside splits; beside classes
    for split in ("train", "test", "val"):
        shades(f"splits/{split}", 3)
    vae("train", "--data", "splits", *SMALL, "--epochs", 1, "--out", "splits-s",
        says="splits: not read, beside the folders train and test: val")
    write_png(path("noted", "loose.png"), 4, 4, 1, bytes(16))
    vae("train", "--data", "noted", *SMALL, code=3, says="pictures lie in it (loose.png ...) and in its folder a")


@test
def links_are_followed_once():
    shades("linked", 5)
    os.symlink("..", path("linked", "a", "up"))
    os.symlink(path("linked"), path("linked", "z"))
    os.symlink(path("linked", "a", "01.png"), path("linked", "b", "again.png"))
    os.link(path("linked", "a", "02.png"), path("linked", "b", "hard.png"))
    said = vae("train", "--data", "linked", *SMALL, "--epochs", 1, "--out", "linked-run",
               says="linked: 10 rows to train on").err
    assert "4 links to what is there already are left out" in said, said


@test
def arrays_that_are_not_used_are_not_judged():
    rng = random.Random(7)
    rows = npy((30, 4, 4), "|u1", bytes(rng.randrange(256) for _ in range(30 * 16)))
    pickled = npy((), "|O", b"\x80\x03}q\x00.")

    def archive(name, members):
        with zipfile.ZipFile(path(name), "w") as file:
            for member, data in members.items():
                file.writestr(member, data)
        return name

    def train(name, code=0, says="30 rows to train on"):
        return vae("train", "--data", name, *SMALL, "--epochs", 1, "--out", "splits-z", "--force", code=code,
                   says=says)

    train(archive("extra.npz", {"data.npy": rows, "metadata.npy": pickled, "torn.npy": rows[:-7]}))
    with zipfile.ZipFile(path("mac.npz"), "w") as file:
        file.writestr("splits-kept.npy", rows)
        file.writestr("__MACOSX/._rows.npy", b"\0\5\x16\7" + bytes(100))
        file.writestr("._rows.npy", b"\0\5\x16\7" + bytes(100))
    train("mac.npz")
    # used, they are
    train(archive("bad.npz", {"data.npy": pickled}), code=3, says="bad.npz: data.npy: npy")
    train(archive("label.npz", {"data.npy": rows, "labels.npy": pickled}), code=3,
          says="label.npz: labels.npy: npy")
    # dSprites' own: none is called data, and all are named
    said = train(archive("dsprites.npz", {"metadata.npy": pickled, "imgs.npy": rows,
                                          "latents_classes.npy": rows}), code=3,
                 says="which of its 3 arrays are the rows?").err
    assert "it has metadata, imgs, latents_classes" in said, said


# ---- what is maximized is shown ----

@test
def the_bound_that_is_maximized_is_shown():
    for objective in ("elbo", "iwae", "dreg", "stl"):
        run = f"splits-of-{objective}"
        more = [] if objective == "elbo" else ["--particles", 5]
        said = vae("train", *TINY, "--epochs", 2, "--objective", objective, *more, "--validation", "0.2",
                   "--out", run).err
        lines = {(line["epoch"], line["split"]): line for line in metrics(run)}
        line = next(line for line in said.splitlines() if line.startswith("epoch  2/2"))
        if objective == "elbo":
            assert "bound" not in said
            assert f"elbo {lines[2, 'train']['elbo']:.2f}  recon" in line
            assert f"validation {lines[2, 'validation']['elbo']:.2f}" in line
            continue
        bound = {split: -lines[2, split]["bound"] for split in ("train", "validation", "test")}
        assert bound["test"] > lines[2, "test"]["elbo"], "five particles bound more tightly than one"
        assert f"  bound {bound['train']:.2f}  elbo {lines[2, 'train']['elbo']:.2f}" in line, line
        assert f"  validation bound {bound['validation']:.2f}" in line, line
        assert f"  test bound {bound['test']:.2f}" in line, line
        assert f"test bound {bound['test']:.2f}, elbo {lines[2, 'test']['elbo']:.2f}" in said
        assert f"--objective {objective} with 5 particles" in said
        with open(path(run, "log.txt")) as file:
            assert f"test bound {bound['test']:.3f}" in file.read()
        best = read_json(run, "run.json")["last"]["validation"]["bound"]
        assert abs(best + bound["validation"]) < 1e-4
        with open(path(run, "report.html")) as file:
            page = file.read()
        assert f"The bound that is maximized ({objective}, 5 particles)" in page
        assert f"<dt>Maximized bound</dt><dd><data value=\"{bound['test']:.9g}" in page
        assert "best bound -" in vae("info", run).out
    # early stopping speaks of what it judged by
    for objective, word in (("iwae", "bound"), ("elbo", "elbo")):
        said = vae("train", *TINY, "--epochs", 30, "--lr", "0.1", "--objective", objective,
                   "--validation", "0.2", "--patience", 1, "--out", f"splits-early-{objective}").err
        lines = [line for line in metrics(f"splits-early-{objective}") if line["split"] == "validation"]
        best = max(-line["bound"] for line in lines)
        assert f"no better validation {word} in 1 epoch; the best, {best:.3f}," in said, said


@test
def latents_are_of_the_picture_itself():
    vae("train", *TINY, "--epochs", 1, "--binarize", "dynamic", "--out", "splits-drawn")
    mu = {}
    for mode in (None, "none", "dynamic"):
        more = ["--binarize", mode] if mode else []
        result = vae("encode", "splits-drawn", "--limit", 20, "--out", "mu.npy", "--json", *more)
        assert result.json()["binarize"] == (mode or "none")
        assert ("data as they are" in result.err) == (mode is None), result.err
        mu[mode] = read_npy("mu.npy")[1]
    assert mu[None] == mu["none"] != mu["dynamic"]
    vae("encode", "splits-drawn", "--limit", 20, "--seed", 3, "--out", "mu.npy", code=2,
        says="--seed has no effect")
    # classifiers on latents are on the same ones
    said = vae("probe", "splits-drawn", "--limit", 60, "--threads", 1, "--json")
    assert "data as they are" in said.err
    same = vae("probe", "splits-drawn", "--limit", 60, "--threads", 1, "--json", "--binarize", "none").json()
    assert said.json()["mu"] == same["mu"]
    drawn = vae("probe", "splits-drawn", "--limit", 60, "--threads", 1, "--json", "--binarize", "dynamic").json()
    assert drawn["mu"] != same["mu"] and drawn["data"] == same["data"]
    # a threshold is a function of the picture: it stays
    vae("train", *TINY, "--epochs", 1, "--binarize", "threshold", "--out", "splits-halves")
    result = vae("encode", "splits-halves", "--limit", 20, "--out", "mu.npy", "--json")
    assert result.json()["binarize"] == "threshold" and "as they are" not in result.err

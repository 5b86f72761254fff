"""Data of other kinds: pictures, tables, archives."""
import base64
import json
import os
import random
import struct
import zipfile
import zlib

from harness import TINY, metrics, newest, path, read_json, read_npy, read_npz, test, vae

SMALL = ["--hidden", 16, "--latent", 3, "--batch-size", 16, "--device", "cpu", "--threads", 1]


def chunk(tag, data):
    body = tag + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def write_png(name, width, height, channels, pixels):
    os.makedirs(os.path.dirname(name), exist_ok=True)
    stride = width * channels
    raw = b"".join(b"\0" + pixels[y * stride:(y + 1) * stride] for y in range(height))
    with open(name, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(
            ">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def png_header(name):
    with open(name, "rb") as file:
        data = file.read(26)
    return struct.unpack(">IIBB", data[16:26])


def npy(shape, descr, data):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def flowers(folder, side, n):
    """Coloured discs on a coloured ground, two classes, in pictures larger than `side`."""
    rng = random.Random(1)
    for i in range(n):
        size, kind = side + rng.randrange(8), i % 2
        wide = size + rng.randrange(8)
        petal = (230, 40, 60) if kind else (250, 220, 30)
        x0, y0, r = wide / 2 + rng.uniform(-3, 3), size / 2 + rng.uniform(-3, 3), size * 0.3
        pixels = bytearray()
        for y in range(size):
            for x in range(wide):
                inside = (x - x0) ** 2 + (y - y0) ** 2 < r * r
                pixels += bytes(petal if inside else (20, 120 + y % 40, 30))
        split = "test" if i % 5 == 4 else "train"
        write_png(path(folder, split, ("daisy", "rose")[kind], f"{i:03}.png"), wide, size, 3,
                  bytes(pixels))


@test
def colour_pictures_train():
    for side in (32, 64):
        folder = f"flowers{side}"
        flowers(folder, side, 40)
        vae("train", "--data", folder, "--image-size", side, *SMALL, "--epochs", 30, "--lr", "5e-3",
            "--out", f"run{side}", "--sample-every", 0)
        losses = [line["elbo"] for line in metrics(f"run{side}") if line["split"] == "train"]
        # below the entropy of the ground's mean colour nothing can fall: a clear fall is what counts
        assert losses[-1] > losses[0] + 0.02 * side * side * 3, (losses[0], losses[-1])
        info = vae("info", f"run{side}", "--json").json()
        assert info["shape"] == [side, side, 3]
        vae("sample", f"run{side}", "-n", 4, "--out", f"s{side}.png")
        vae("reconstruct", f"run{side}", "-n", 4, "--out", f"r{side}.png")
        for name in (f"s{side}.png", f"r{side}.png"):
            assert png_header(path(name))[3] == 2, "not RGB"
        # the size is remembered: later commands resize alike
        assert vae("eval", f"run{side}", "--json").json()["n"] == 8
        assert vae("eval", f"run{side}", "--split", "train", "--json").json()["n"] == 32
    vae("train", "--data", "flowers32", *SMALL, code=3, says="--image-size N")
    vae("train", "--data", "flowers32", "--image-size", 16, "--image-channels", 1, *SMALL,
        "--epochs", 1, "--out", "grey")
    assert vae("info", "grey", "--json").json()["shape"] == [16, 16, 1]
    vae("train", "--image-size", 16, code=2, says="--image-size has no effect on digits")
    vae("train", "--image-channels", 2, code=2, says="expected 1 or 3")
    with open(path("flowers32", "train", "rose", "torn.png"), "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + bytes(40))
    vae("train", "--data", "flowers32", "--image-size", 16, *SMALL, code=3, says="torn.png")


# 12 x 8 pixels, all of them 128
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19i"
    "Z2hnPk1xeXBkeFxlZ2P/wAALCAAIAAwBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAI"
    "AQEAAD8AD//Z")


def picture(*names, side=8, colour=None, grey=None):
    """A square of one colour, or of one grey in a grey file."""
    os.makedirs(os.path.dirname(path(*names)) or ".", exist_ok=True)
    channels = 3 if colour else 1
    write_png(path(*names), side, side, channels, bytes(colour or (grey,)) * side * side)


@test
def channels_belong_to_the_model():
    for i in range(6):
        picture("colour", f"{i}.png", colour=(40 * i, 255 - 40 * i, 90))
        picture("greys", f"{i}.png", grey=40 * i)
        picture("greyrgb", f"{i}.png", colour=(40 * i,) * 3)
        picture("both", "train", f"{i}.png", colour=(40 * i, 255 - 40 * i, 90))
        picture("both", "test", f"{i}.png", grey=40 * i)
        picture("mix", f"{i}.png", **({"grey": 40 * i} if i < 2 else {"colour": (40 * i, 9, 90)}))
        picture("mixrgb", f"{i}.png", colour=(40 * i,) * 3 if i < 2 else (40 * i, 9, 90))
    for name in ("colour", "greys"):
        vae("train", "--data", name, *SMALL, "--epochs", 1, "--out", f"of-{name}", "-q")
    scores = [vae("score", "of-colour", "--data", data, "--out", "-", "--threshold", 0) for data in ("greys", "greyrgb")]
    assert scores[0].out == scores[1].out, "a grey file is the RGB file of equal channels"
    assert "greys: 6 of 6 pictures are grey and become RGB, as the model has it" in scores[0].err
    assert "become" not in scores[1].err
    scores = [vae("score", "of-greys", "--data", data, "--out", "-", "--threshold", 0) for data in ("greys", "greyrgb")]
    assert scores[0].out == scores[1].out and "become" not in scores[1].err
    vae("score", "of-greys", "--data", "colour", "--threshold", 0,
        says="colour: 6 of 6 pictures are in colour and become grey, as the model has it")
    assert "become" not in vae("eval", "of-colour", "--data", "greys", "-q").err
    # between splits, and within a set: a guess that is announced
    vae("train", "--data", "both", *SMALL, "--epochs", 1, "--out", "both-run",
        says="both: 6 of 6 pictures are grey and become RGB, as the files to train on")
    assert vae("eval", "both-run", "--json").json()["n"] == 6
    vae("train", "--data", "mix", *SMALL, "--epochs", 1, "--out", "mix-run",
        says="mix: 2 of 6 pictures are grey and become RGB, as others are in colour")
    vae("train", "--data", "mixrgb", *SMALL, "--epochs", 1, "--out", "mixrgb-run", "-q")
    assert newest("mix-run")["params"] == newest("mixrgb-run")["params"]
    asked = vae("train", "--data", "mix", *SMALL, "--epochs", 1, "--image-channels", 1, "--out", "asked")
    assert "become" not in asked.err
    # the threshold's training rows are found again where they were converted
    vae("export", "of-colour", "--out", "c.safetensors", "-q")
    vae("import", "c.safetensors", "--out", "moved-c", "-q")
    vae("train", "--resume", "--out", "moved-c", "--data", "greys", "--epochs", 1, says="as the model has it")
    assert vae("info", "moved-c", "--json").json()["shape"] == [8, 8, 3]
    assert "threshold" in vae("score", "moved-c", "--data", "greys").out
    vae("import", "c.safetensors", "--data", "greys", "--out", "moved-g", says="as the model has it")
    # pictures of another size, and arrays of another shape
    picture("large", "a.png", side=16, colour=(1, 2, 3))
    vae("score", "of-colour", "--data", "large", code=3,
        says="pictures of 16 x 16 (width x height), 3 channels; the model takes 8 x 8, 3 channels (192 columns): resize")
    with open(path("turned.npy"), "wb") as file:
        file.write(npy((2, 8, 24), "|u1", bytes(range(192)) * 2))
    vae("score", "of-colour", "--data", "turned.npy", code=3, says="pictures of 24 x 8")


@test
def netpbm_files_are_pictures():
    """The same rows as PNG files of the same pixels, in folders, alone, and from standard input."""
    os.makedirs(path("pnm"), exist_ok=True)
    rows = [bytes((37 * i + j * j) % 256 for j in range(64)) for i in range(6)]
    for i, row in enumerate(rows):
        write_png(path("pnm-png", f"{i}.png"), 8, 8, 1, row)
        with open(path("pnm", f"{i}.{'pgm' if i % 2 else 'pnm'}"), "wb") as file:
            plain = " ".join(str(v) for v in row).encode()
            file.write(b"P5 # binary\n8 8 255\n" + row if i % 2 else b"P2 8 8\n255\n" + plain)
    vae("train", "--data", "pnm", *SMALL, "--epochs", 1, "--out", "pnm-run", "-q")
    vae("train", "--data", "pnm-png", *SMALL, "--epochs", 1, "--out", "pnm-png-run", "-q")
    assert newest("pnm-run")["params"] == newest("pnm-png-run")["params"]
    one, folder = (vae("score", "pnm-run", "--data", data, "--out", "-", "--threshold", 0).out for data in ("pnm/1.pgm", "pnm"))
    # the same error at z = mu; the others have noise by the row's number
    assert one.splitlines()[1].split(",")[1] == folder.splitlines()[2].split(",")[1], (one, folder)
    with open(path("pnm", "1.pgm"), "rb") as file:
        piped = vae("score", "pnm-run", "--data", "-", "--out", "-", "--threshold", 0, stdin=file).out
    assert piped == one
    with open(path("colour.ppm"), "wb") as file:
        file.write(b"P6 8 8 255\n" + bytes(range(192)))
    with open(path("colour.ppm"), "rb") as file:
        vae("score", "pnm-run", "--data", "-", "--out", "-", "--threshold", 0, stdin=file,
            says="vae: standard input: 1 of 1 pictures are in colour and become grey")
    with open(path("pnm", "9.pgm"), "wb") as file:
        file.write(b"P5 8 8 255\n" + rows[0][:-1])
    vae("train", "--data", "pnm", *SMALL, code=3, says="9.pgm: the file ends within its 8 x 8 pixels")


@test
def single_pictures_are_read_like_folders():
    for i in range(6):
        picture("sq", f"{i}.png", side=8, colour=(40 * i, 255 - 40 * i, 90))
    vae("train", "--data", "sq", *SMALL, "--image-size", 4, "--epochs", 1, "--out", "sq-run", "-q")
    with open(path("one.jpg"), "wb") as file:
        file.write(JPEG)
    os.makedirs(path("jpegs"), exist_ok=True)
    with open(path("jpegs", "one.jpeg"), "wb") as file:
        file.write(JPEG)
    one, folder = (vae("score", "sq-run", "--data", data, "--out", "-", "--threshold", 0).out for data in ("one.jpg", "jpegs"))
    assert one == folder and len(one.splitlines()) == 2
    # interpolation: JPEG, grey for a colour model, and resized
    vae("interpolate", "sq-run", "--from", "one.jpg", "--to", path("sq", "0.png"), "--steps", 2, "--out", "i.npy")
    vae("encode", "sq-run", "--data", "jpegs", "--out", "e.npz")
    vae("encode", "sq-run", "--data", "sq", "--out", "f.npz")
    z = list(read_npz("e.npz")["mu"][1]) + list(read_npz("f.npz")["mu"][1])[:3]
    with open(path("z.npy"), "wb") as file:
        file.write(npy((2, 3), "<f4", struct.pack("<6f", *z)))
    vae("decode", "sq-run", "--latents", "z.npy", "--out", "d.npy")
    assert read_npy("i.npy")[1] == read_npy("d.npy")[1]
    vae("interpolate", "sq-run", "--from", "sq", "--to", "one.jpg", code=3, says="one row, found 6 rows")
    # a mask: black is missing; of another size, and grey
    rows = bytes(255 if x >= 4 else 0 for _ in range(8) for x in range(8))
    write_png(path("masks", "right.png"), 8, 8, 1, rows)
    for mask in ("left", path("masks", "right.png")):
        vae("complete", "sq-run", "--data", "sq", "--mask", mask, "-n", 1, "--out", f"m-{os.path.basename(mask)}.png")
    with open(path("m-left.png"), "rb") as a, open(path("m-right.png.png"), "rb") as b:
        assert a.read() == b.read()
    # standardized models take rows of their units
    with open(path("units.npy"), "wb") as file:
        file.write(npy((30, 4, 4), "<f4", struct.pack("<480f", *[100 + (i * 7) % 11 for i in range(480)])))
    vae("train", "--data", "units.npy", *SMALL, "--likelihood", "gaussian", "--standardize", "columns",
        "--epochs", 1, "--out", "units", "-q")
    vae("interpolate", "units", "--from", path("masks", "right.png"), "--to", 1, code=3, says="8 x 8")
    picture("four.png", side=4, grey=3)
    vae("interpolate", "units", "--from", "four.png", "--to", 1, code=3, says="holds bytes")


def write_table(name, n, seed, columns=("height", "weight", "class")):
    rng = random.Random(seed)
    with open(path(name), "w") as file:
        file.write(",".join(columns) + ",constant\r\n")
        for _ in range(n):
            kind = rng.randrange(2)
            height = 1000 + 50 * kind + rng.gauss(0, 5)
            file.write(f"{height:.3f},{height * 0.001 + rng.gauss(0, 0.002):.5f},"
                       f"{('oak', 'ash')[kind]},7\r\n")


@test
def tables_are_standardized_and_remembered():
    write_table("trees.csv", 300, 1)
    args = ["--data", "trees.csv", *SMALL, "--epochs", 20]
    vae("train", *args, code=3, says="--likelihood gaussian")
    vae("train", *args, "--likelihood", "gaussian", "--variance", "0.1", "--out", "trees")
    info = vae("info", "trees", "--json").json()
    shift, scale = info["data_shift"], info["data_scale"]
    rows = [line.split(",") for line in open(path("trees.csv")).read().splitlines()[1:]]
    for at, column in ((0, 0), (1, 1)):
        values = [float(row[column]) for row in rows]
        mean = sum(values) / len(values)
        sd = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
        assert abs(shift[at] - mean) < 1e-5 * abs(mean), (shift[at], mean)
        assert abs(scale[at] - sd) < 1e-4 * sd, (scale[at], sd)
    assert (shift[2], scale[2]) == (7, 1)
    assert newest("trees")["columns"] == b"height\0weight\0constant\0"
    # decoded rows come in the table's units, near the rows they were encoded from
    vae("encode", "trees", "--data", "trees.csv", "--out", "z.npy")
    vae("decode", "trees", "--latents", "z.npy", "--out", "x.npy")
    data = open(path("x.npy"), "rb").read()
    x = struct.unpack("<900f", data[-3600:])
    error = sum(abs(x[3 * i] - float(rows[i][0])) for i in range(300)) / 300
    assert error < 10, error  # of values that spread over 50
    assert abs(x[2] - 7) < 0.5
    # the same model on other rows; on a table with other columns
    write_table("more.csv", 50, 2)
    assert vae("eval", "trees", "--data", "more.csv", "--json").json()["n"] == 50
    write_table("other.csv", 50, 2, columns=("weight", "height", "class"))
    vae("eval", "trees", "--data", "other.csv", code=3,
        says="column 1 is 'weight'; the model was trained with 'height' there")
    # resuming standardizes alike: same bits as one run
    args += ["--likelihood", "gaussian", "--variance", "0.1"]
    vae("train", *args[:-6], "--epochs", 10, *args[-4:], "--out", "half")
    vae("train", "--resume", "--out", "half", "--epochs", 20)
    assert newest("half")["params"] == newest("trees")["params"]
    # as it is, on request; weights that leave and come back know the units
    with open(path("unit.csv"), "w") as file:
        file.write("a,b\n" + "0.5,-0.25\n1,0.75\n" * 20)
    vae("train", "--data", "unit.csv", *SMALL, "--epochs", 1, "--likelihood", "gaussian",
        "--standardize", "none", "--out", "raw")
    assert "data_shift" not in vae("info", "raw", "--json").json()
    vae("export", "trees", "--out", "t.safetensors")
    described = vae("info", "t.safetensors", "--json").json()
    assert {t["name"] for t in described["tensors"]} >= {"fc1.weight", "fc4.bias"}
    assert len(json.loads(described["metadata"]["data_shift"])) == 3
    vae("import", "t.safetensors", "--out", "back.vae")
    assert json.loads(described["metadata"]["columns"]) == ["height", "weight", "constant"]
    vae("eval", "back.vae", "--data", "other.csv", code=3, says="trained with 'height' there")
    a = vae("eval", "back.vae", "--data", "trees.csv", "--json").json()
    b = vae("eval", "trees", "--data", "trees.csv", "--json").json()
    assert a["elbo"] == b["elbo"]
    vae("train", "--label-column", "y", *TINY, code=2, says="it needs a .csv file")
    vae("train", "--standardize", "columns", code=2, says="Gaussian likelihood")


@test
def archives_have_splits():
    rng = random.Random(3)
    train, labels = bytes(rng.randrange(256) for _ in range(200 * 16)), bytes(range(10)) * 20
    test_rows = bytes(rng.randrange(256) for _ in range(50 * 16))
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path("a.npz"), "w", method) as archive:
            archive.writestr("x_train.npy", npy((200, 4, 4), "|u1", train))
            archive.writestr("y_train.npy", npy((200,), "|u1", labels))
            archive.writestr("x_test.npy", npy((50, 4, 4), "|u1", test_rows))
        vae("train", "--data", "a.npz", *SMALL, "--epochs", 1, "--out", f"npz{method}",
            "--exclude-class", 3)
        data = read_json(f"npz{method}", "run.json")["data"]
        assert data["train"] == 180 and data["test"] == 50, data
    assert newest("npz0")["params"] == newest("npz8")["params"]
    with open(path("a.npz"), "r+b") as file:
        file.truncate(3000)
    vae("train", "--data", "a.npz", *SMALL, code=3, says="a.npz")

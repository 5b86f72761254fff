"""The built-in sprites and other data of bits: training, pictures, evaluation, refusals."""
import json
import os
import struct
import zipfile
import zlib

from harness import metrics, newest, path, read_json, same_end, test, vae

SMALL = ["--data", "sprites", "--limit", "600", "--hidden", "16", "--latent", "3", "--batch-size",
         "64", "--device", "cpu", "--threads", "1"]


def sprites_run():
    if not os.path.exists(path("sprites")):
        vae("train", *SMALL, "--epochs", 2, "--out", "sprites")
    return "sprites"


def png(name):
    """Size and rows of a grey PNG of 8 bits."""
    with open(path(name), "rb") as file:
        data = file.read()
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and (depth, colour) == (8, 0)
    packed, at = b"", 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        packed += data[at + 8:at + 8 + size] if kind == b"IDAT" else b""
        at += size + 12
    raw, rows, above = zlib.decompress(packed), [], bytes(width)
    for y in range(height):
        line = bytearray(raw[y * (width + 1):(y + 1) * (width + 1)])
        kind, row = line[0], line[1:]
        for x in range(width):
            a, b, c = (row[x - 1], above[x], above[x - 1]) if x else (0, above[0], 0)
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row[x] = (row[x] + (0, a, b, (a + b) // 2, paeth)[kind]) % 256
        rows.append(bytes(row))
        above = row
    return (width, height), rows


@test
def sprites_train_and_are_used():
    run = sprites_run()
    lines = metrics(run)
    assert [line["split"] for line in lines] == ["train", "train"], lines  # no test split
    assert lines[1]["elbo"] > lines[0]["elbo"]
    mean = struct.unpack("<4096f", newest(run)["data_mean"])
    assert 0.035 < sum(mean) / 4096 < 0.05  # sprites cover 4.26% of the grid's pixels
    assert mean[0] == 0 and max(mean) > 0.1
    assert png(f"{run}/samples/reconstruction-002.png")[0] == (10 * 66 + 2, 4 * 66 + 2 + 4)
    found = vae("eval", run, "--limit", 400, "--json").json()
    assert (found["n"], found["split"]) == (400, "train"), found
    vae("eval", run, "--split", "test", code=3, says="sprites: the set is one grid")
    vae("reconstruct", run, "-n", 4, "--out", "sprites.png")
    size, rows = png("sprites.png")
    assert size == (4 * 66 + 2, 2 * 66 + 2)
    cells = [[row[2 + 66 * i:66 + 66 * i] for row in rows[2:66]] for i in range(4)]
    assert all(set(b"".join(cell)) == {0, 255} for cell in cells)
    # of the whole grid no run of neighbours is shown, which would look alike
    assert len({sum(map(sum, cell)) for cell in cells}) > 2


@test
def sprites_are_encoded_with_labels():
    run = sprites_run()
    vae("encode", run, "--data", "sprites", "--limit", 90, "--out", "sprites.npz")
    with zipfile.ZipFile(path("sprites.npz")) as members:
        labels = members.read("labels.npy")[-90:]
    assert 20 < labels.count(0) < 40 and 20 < labels.count(2) < 40 and len(set(labels)) == 3
    vae("train", *SMALL, "--epochs", 1, "--exclude-class", 2, "--out", "no-hearts")
    vae("train", *SMALL, "--epochs", 1, "--exclude-class", 3, "--out", "none", code=2,
        says="no row of sprites has that label")


@test
def bits_are_not_binarized():
    for how in ("dynamic", "static", "threshold"):
        vae("train", *SMALL, "--binarize", how, "--out", "none", code=2,
            says="--binarize has no effect: the values of sprites are bits")
        assert not os.path.exists(path("none", "metrics.jsonl"))
    vae("bench", *SMALL[:4], "--binarize", "static", "--device", "cpu", "--hidden", 8, "--batches",
        8, code=2, says="--binarize has no effect")


@test
def sprites_do_not_depend_on_threads_and_resume():
    sprites_run()
    vae("train", *SMALL, "--threads", 3, "--epochs", 2, "--out", "sprites-3")
    same_end("sprites", "sprites-3")
    vae("train", *SMALL, "--epochs", 1, "--out", "sprites-r")
    vae("train", "--resume", "--out", "sprites-r", "--epochs", 2)
    same_end("sprites", "sprites-r")


@test
def booleans_of_numpy_are_bits():
    rows, columns = 80, 13
    values = bytes((i * i + i // 13) % 7 % 2 for i in range(rows * columns))
    header = f"{{'descr': '|b1', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    with open(path("bool.npy"), "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + values)
    with open(path("byte.npy"), "wb") as file:  # the same pixels as bytes of 0 and 255
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) +
                   header.replace("b1", "u1").encode() + bytes(255 * v for v in values))
    tiny = ["--hidden", 8, "--latent", 2, "--batch-size", 16, "--epochs", 2, "--device", "cpu",
            "--threads", 1]
    vae("train", "--data", "bool.npy", *tiny, "--out", "bool")
    vae("train", "--data", "byte.npy", *tiny, "--out", "byte")
    for tag in ("params", "adam_v", "data_mean"):
        assert newest("bool")[tag] == newest("byte")[tag], tag
    assert read_json("bool", "run.json") != read_json("byte", "run.json")  # other bytes, other hash
    both = [json.loads(vae("eval", run, "--json").out) for run in ("bool", "byte")]
    assert both[0]["elbo"] == both[1]["elbo"]
    vae("decode", "bool", "--latents", "bool.npy", "--out", "x.npy", code=3, says="found booleans")


@test
def presets_of_sprites_are_read():
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../bench/reproduce")
    for beta in (1, 4):
        run = f"preset-{beta}"
        vae("train", "--config", os.path.join(folder, f"dsprites-beta{beta}.json"), "--limit", 64,
            "--hidden", 8, "--decoder-hidden", 8, "--epochs", 1, "--threads", 1, "--device", "cpu",
            "--out", run)
        config = read_json(run, "config.json")
        found = [config[key] for key in ("data", "beta", "latent", "lr", "batch-size")]
        assert found == ["sprites", beta, 10, 1e-4, 64], found

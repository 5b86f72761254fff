"""Tables: what their text means, and the scales that stay with a model."""
import json
import os
import random
import struct

from harness import WORK, newest, path, read_json, read_npy, read_npz, test, vae

SMALL = ["--hidden", 16, "--latent", 2, "--batch-size", 16, "--device", "cpu", "--threads", 1,
         "--likelihood", "gaussian", "--report=false"]


def write(name, text):
    with open(path(name), "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
    return name


def rows(n, seed, *columns):
    """CSV lines without a header: (format, mean, deviation) of each column."""
    rng = random.Random(seed)
    return "".join(",".join(format(rng.gauss(mean, sd), how) for how, mean, sd in columns) + "\n"
                   for _ in range(n))


def identity(name, d, *args):
    """A model whose encoder's mu is x as it comes to it."""
    eye = [[float(i == j) for j in range(d)] for i in range(d)]
    tensors = {"mu.weight": eye, "logvar.weight": [[0.0] * d] * d, "output.weight": eye,
               "mu.bias": [0.0] * d, "logvar.bias": [0.0] * d, "output.bias": [0.0] * d}
    header, data = {}, b""
    for key in sorted(tensors):
        value = tensors[key]
        flat = [v for row in value for v in row] if isinstance(value[0], list) else value
        piece = struct.pack(f"<{len(flat)}f", *flat)
        header[key] = {"dtype": "F32", "shape": [d] * (1 + isinstance(value[0], list)),
                       "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    text = json.dumps(header).encode()
    write(f"{name}.safetensors", struct.pack("<Q", len(text)) + text + data)
    vae("import", f"{name}.safetensors", "--hidden", "none", "--latent", d, "--likelihood", "gaussian",
        "--out", name, "-q", *args)
    return name


def seen(model, data):
    """The rows as the model of `identity` sees them."""
    vae("encode", model, "--data", data, "--out", "seen.npz", "-q")
    (n, d), values = read_npz("seen.npz")["mu"]
    return [list(values[i * d:(i + 1) * d]) for i in range(n)]


@test
def names_survive():
    names = ["a\nb", "c \"d\"", "e,f", "g;h\t", "Größe (cm)", "\\n", "x" * 1000]
    header = ",".join('"' + name.replace('"', '""') + '"' for name in names)
    write("names.csv", header + "\r\n" + rows(40, 1, *[(".3f", 0, 1)] * 7))
    vae("train", "--data", "names.csv", *SMALL, "--epochs", 2, "--out", "names", "-q")
    vae("train", "--resume", "--out", "names", "--epochs", 3, "-q")
    assert newest("names")["columns"] == b"".join(name.encode() + b"\0" for name in names)
    assert vae("eval", "names", "--json").json()["n"] == 40
    for kind in ("safetensors", "npz"):
        vae("export", "names", "--out", f"names.{kind}", "-q")
        metadata = vae("info", f"names.{kind}", "--json").json()["metadata"]
        assert json.loads(metadata["columns"]) == names
        vae("import", f"names.{kind}", "--out", f"back-{kind}", "-q")
        assert newest(f"back-{kind}")["columns"] == newest("names")["columns"]
    vae("score", "names", "--data", "names.csv", "--out", "names-scores.csv", "-q")
    write("swapped.csv", header.replace("e,f", "f,e") + "\n" + rows(4, 1, *[(".3f", 0, 1)] * 7))
    error = vae("eval", "names", "--data", "swapped.csv", code=3, says="column 3 is 'f,e'").err
    assert len(error.splitlines()) == 1
    vae("report", "names", "--out", "names.html", "-q")


@test
def names_that_cannot_survive_are_refused():
    for header, says in ((b"gr\xf6\xdfe,b", "line 1: column 1: expected a name, found bytes that are no UTF-8"),
                         (b"a,\"b\x1b[2J\"", "line 1: column 2: expected a name, found a control character"),
                         (b"a," + b"n" * 1001, "column 2: expected a name, found one of more than 1000"),
                         (b",a", "column 1: expected a name, found nothing"),
                         (b"a,b,c,b", "line 1: two columns are called 'b', column 2 and column 4"),
                         (b"\xff\xfea\0,\0b\0", "UTF-16"), (b"PK\x03\x04\x14", "workbook")):
        write("bad.csv", header + b"\n1,2\n")
        vae("train", "--data", "bad.csv", *SMALL, "--out", "bad", code=3, says=says)


@test
def names_of_earlier_versions_are_read():
    """Checkpoints up to 1073072 end names with line feeds, and hold scales as floats."""
    import zlib
    write("old.csv", "a,b\n" + rows(40, 2, (".3f", 5, 2), (".3f", -1, 0.1)))
    vae("train", "--data", "old.csv", *SMALL, "--epochs", 1, "--out", "old", "-q")
    parts = newest("old")
    parts["columns"] = parts["columns"].replace(b"\0", b"\n")
    scales = struct.unpack("<4d", parts["standard"])
    parts["standard"] = struct.pack("<4f", *scales)
    head, body, at = b"", b"", 32 + 32 * len(parts)
    for tag, data in parts.items():
        gap = -at % 64
        head += struct.pack("<12sIQQ", tag.encode(), zlib.crc32(data), at + gap, len(data))
        body += bytes(gap) + data
        at += gap + len(data)
    for crc in (0, None):
        crc = zlib.crc32(front + head) if crc is None else 0
        front = b"\x89VAE\r\n\x1a\n" + struct.pack("<IIIIQ", 1, 0x01020304, len(parts), crc, at)
    write("old.vae", front + head + body)
    now, then = (vae("eval", run, "--data", "old.csv", "--json").json() for run in ("old", "old.vae"))
    assert abs(now["elbo"] - then["elbo"]) < 1e-5
    shift = vae("info", "old.vae", "--json").json()["data_shift"]
    assert all(abs(a - b) < 1e-12 for a, b in zip(shift, struct.unpack("<2f", parts["standard"][:8])))
    write("other.csv", "b,a\n1,2\n")
    vae("eval", "old.vae", "--data", "other.csv", code=3, says="trained with 'a' there")


@test
def spreadsheets_are_understood():
    model = identity("plain3", 3)
    for text, values in (("a,b,c\n1,2,3\n4,5,6\n\n", [[1, 2, 3], [4, 5, 6]]),
                         ("a,b,c\r\n1,2,3\r\n\r\n\r\n", [[1, 2, 3]]),
                         ("\ufeffa;b;c\n1,5;2,5;-3,5e1\n4;5;6\n", [[1.5, 2.5, -35], [4, 5, 6]]),
                         ("a;b;c\n1.5;2;3\n", [[1.5, 2, 3]]),
                         ("a\tb\tc\n1\t2.5\t3\n", [[1, 2.5, 3]]),
                         ("\"a,x\";b;c\n\"1,5\";2;3", [[1.5, 2, 3]])):
        write("sheet.csv", text)
        assert seen(model, "sheet.csv") == values, (text, seen(model, "sheet.csv"))
    write("sheet.tsv", "a\tb\tc\n1\t2,5\t3\n")
    vae("encode", model, "--data", "sheet.tsv", "--out", "seen.npz",
        says="sheet.tsv: fields are separated by tabs, decimals by commas")
    write("length.tsv", "length, mm\twidth\n" + "1,5\t2\n2,5\t4\n" * 4)  # a comma in a name is no separator there
    vae("train", "--data", "length.tsv", *SMALL, "--epochs", 1, "--out", "length", "-q")
    for text, says in (("a,b,c\n1,2,3\n\n4,5,6\n", "line 3: a blank line between rows"),
                       ("a,b,c\n0x10,2,3\n", "line 2, column 'a': expected a number, found '0x10'"),
                       ("a,b,c\n1,1e400,3\n", "found '1e400'"), ("a,b,c\n1,nan,3\n", "found 'nan'"),
                       ("a,b,c\n1,inf,3\n", "found 'inf'"), ("a,b,c\n1,,3\n", "missing values"),
                       ("a,b,c\n\"1,000\",2,3\n", "no marks between thousands"),
                       ("a,b,c\n1;5,2,3\n", "separated by commas"),
                       ("a;b;c\n1.5;2;3\n1,5;2;3\n", "line 3, column 'a': expected a number with a decimal point"),
                       ("a;b;c\n1,5;2;3\n1;2.5;3\n", "line 3, column 'b': expected a number with a decimal comma"),
                       ("a;b;c\n1.234,5;2;3\n", "found '1.234,5'"),
                       ("a,b,c\r1,2,3\r", "line ends LF")):
        write("sheet.csv", text)
        vae("encode", model, "--data", "sheet.csv", "--out", "seen.npz", code=3, says=says)


@test
def columns_are_left_out():
    write("full.csv", "id,when,\"a,b\",c,y\n" + "".join(f"r{i},yesterday,{i % 7},{-i % 5},{i % 2}\n" for i in range(40)))
    args = ["--data", "full.csv", *SMALL, "--epochs", 1]
    vae("train", *args, code=3, says="line 2, column 'id': expected a number, found 'r0'; --drop-columns")
    vae("train", *args, "--drop-columns", "id,wen", code=3,
        says="no column is called 'wen' (--drop-columns); did you mean 'when'?")
    vae("train", *args, "--drop-columns", "id,when", "--out", "kept", "-q")
    assert newest("kept")["columns"] == b"a,b\0c\0"
    vae("train", *args, "--drop-columns", 'id,when,"a,b",y', "--out", "kept1", "-q")
    assert newest("kept1")["columns"] == b"c\0"
    assert vae("eval", "kept1", "--json").json()["n"] == 40
    # new data are read alike, whether the columns are there or not
    write("less.csv", "\"a,b\",c\n1,2\n")
    for data, n in (("full.csv", 40), ("less.csv", 1)):
        assert vae("eval", "kept", "--data", data, "--json").json()["n"] == n
    vae("export", "kept", "--out", "kept.npz", "-q")
    vae("import", "kept.npz", "--out", "kept-back", "-q")
    assert vae("eval", "kept-back", "--data", "full.csv", "--json").json()["n"] == 40
    vae("train", *args, "--drop-columns", "id,when,\"a,b\",c", code=3, says="no columns but")
    vae("train", "--drop-columns", "x", code=2, says="it needs a .csv file")


@test
def narrow_columns_far_from_zero_keep_their_values():
    rng = random.Random(3)
    for kind, spread in (("minute", 60), ("hour", 3600), ("micro", 1)):
        base = 1.7e9 if kind != "micro" else 1.7e15
        values = [(base + rng.randrange(spread * (1000000 if kind == "micro" else 1)), rng.gauss(0, 1)) for _ in range(200)]
        write(f"{kind}.csv", "when,x\n" + "".join(f"{w:.0f},{x!r}\n" for w, x in values))
        header = "{'descr': '<f8', 'fortran_order': False, 'shape': (200, 2), }"
        header += " " * (63 - (10 + len(header)) % 64) + "\n"
        body = b"".join(struct.pack("<2d", *row) for row in values)
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + body
        write(f"{kind}.npy", npy)
        import zipfile
        with zipfile.ZipFile(path(f"{kind}.npz"), "w") as archive:
            archive.writestr("data.npy", npy)
        write(f"{kind}.idx", bytes([0, 0, 0x0e, 2]) + struct.pack(">2I", 200, 2)
              + b"".join(struct.pack(">2d", *row) for row in values))
        for end in ("csv", "npy", "npz", "idx"):
            run = f"{kind}-{end}"
            error = vae("train", "--data", f"{kind}.{end}", *SMALL, "--standardize", "columns", "--epochs", 1,
                        "--out", run).err
            assert "warning" not in error, error
            found = struct.unpack("<4d", newest(run)["standard"])
            for i in range(2):
                column = [row[i] for row in values]
                mean = sum(v - column[0] for v in column) / 200 + column[0]
                sd = (sum((v - mean) ** 2 for v in column) / 200) ** 0.5
                assert abs(found[i] - mean) < 1e-6 * sd and abs(found[2 + i] / sd - 1) < 1e-6, (run, found, mean, sd)
        # the model sees standardized values, whichever file they come from
        model = identity(f"id-{kind}", 2, "--data", f"{kind}.csv", "--standardize", "columns")
        expected = [(w - found[0]) / found[2] for w, _ in values]
        for end in ("csv", "npy", "npz", "idx"):
            got = [row[0] for row in seen(model, f"{kind}.{end}")]
            assert max(abs(a - b) for a, b in zip(got, expected)) < 1e-5, (kind, end)


@test
def decoded_rows_have_the_units_of_the_table():
    """The identity gives rows back: as doubles where floats would round them away."""
    values = [(1700000000 + 7 * i % 61, i % 5) for i in range(40)]
    write("clock.csv", "when,x\n" + "".join(f"{w},{x}\n" for w, x in values))
    model = identity("clock", 2, "--data", "clock.csv", "--standardize", "columns")
    vae("encode", model, "--data", "clock.csv", "--out", "z.npy", "-q")
    vae("decode", model, "--latents", "z.npy", "--out", "x.npy", "-q")
    with open(path("x.npy"), "rb") as file:
        data = file.read()
    assert b"'<f8'" in data[:128]
    back = struct.unpack("<80d", data[-640:])
    assert all(abs(back[2 * i + k] - values[i][k]) < 1e-4 for i in range(40) for k in (0, 1))
    # where floats do they stay
    write("near.csv", "a,b\n" + rows(40, 4, (".4f", 10, 2), (".4f", -3, 0.5)))
    identity("near-id", 2, "--data", "near.csv", "--standardize", "columns")
    vae("decode", "near-id", "--latents", "z.npy", "--out", "x.npy", "-q")
    assert read_npy("x.npy")[0] == (40, 2)


@test
def lost_values_are_named():
    write("minute.csv", "when,x\n" + "".join(f"{1700000000 + i},{i % 3}\n" for i in range(60)))
    vae("train", "--data", "minute.csv", *SMALL, "--epochs", 1, "--standardize", "none", "--lr", "1e-20", "--out", "lost",
        says="the values of column 'when', from 1700000000 to 1700000059, are rounded", code=5)
    error = vae("train", "--data", "minute.csv", *SMALL, "--epochs", 1, "--out", "found").err
    assert "warning" not in error
    # floats that were rounded before they came here
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (60, 2), }"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    write("minute.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
          + b"".join(struct.pack("<2f", 1.7e9 + 2 * i, i % 3) for i in range(60)))
    vae("train", "--data", "minute.npy", *SMALL, "--epochs", 1, "--standardize", "columns", "--out", "f4",
        says="column 0 varies by no more than the rounding of its values")


@test
def scales_stay_with_an_imported_model():
    write("near.csv", "a,b\n" + rows(60, 4, (".4f", 10, 2), (".4f", -3, 0.5)))
    write("far.csv", "a,b\n" + rows(60, 5, (".4f", 20, 9), (".4f", 30, 0.1)))
    vae("train", "--data", "near.csv", *SMALL, "--epochs", 3, "--out", "near", "-q")
    vae("export", "near", "--out", "near.safetensors", "-q")
    vae("import", "near.safetensors", "--out", "moved", "-q")
    told = read_json("moved", "run.json")
    assert (told["status"], told["from"], told["data"]) == ("imported", "near.safetensors", {"path": None, "shape": [1, 2, 1]}), told
    scales = newest("near")["standard"]
    assert newest("moved")["standard"] == scales
    before = vae("eval", "moved", "--data", "far.csv", "--json").json()["elbo"]
    vae("train", "--resume", "--out", "moved", "--data", "far.csv", "--epochs", 1, "--lr", "1e-3", "-q")
    assert newest("moved")["standard"] == scales, "the model's scales, not those of other data"
    trained = read_json("moved", "run.json")
    assert trained["data"]["path"] == "far.csv"
    after = vae("eval", "moved", "--data", "far.csv", "--json").json()["elbo"]
    assert after > before and abs(after - before) < 0.2 * abs(before), (before, after)
    # names of columns are the model's, too
    write("turned.csv", "b,a\n" + rows(60, 5, (".4f", 20, 9), (".4f", 30, 0.1)))
    vae("import", "near.safetensors", "--out", "moved2", "-q")
    vae("import", "near.safetensors", "--data", "near.csv", "--out", "moved3", "-q")
    told = read_json("moved3", "run.json")
    assert told["data"]["path"] == "near.csv" and os.path.samefile(told["folder"], WORK)
    vae("train", "--resume", "--out", "moved2", "--data", "turned.csv", code=3, says="trained with 'a' there")
    vae("import", "near.safetensors", "--data", "turned.csv", "--out", "no", code=3, says="trained with 'a' there")
    # weights that were trained on values as they are stay so, unless the user says what they were
    raw = identity("raw", 2, "--data", "near.csv")
    assert "standard" not in newest("raw")
    vae("train", "--resume", "--out", raw, "--epochs", 1, "--lr", "1e-3", "-q")
    assert "standard" not in newest("raw")
    identity("scaled", 2, "--data", "near.csv", "--standardize", "columns")
    assert [round(v, 6) for v in struct.unpack("<4d", newest("scaled")["standard"])] == \
        [round(v, 6) for v in struct.unpack("<4d", scales)]
    vae("import", "raw.safetensors", "--hidden", "none", "--likelihood", "gaussian", "--standardize", "columns",
        "--out", "no", code=2, says="where --data names what it was trained on")
    vae("import", "near.safetensors", "--standardize", "none", "--out", "no", code=2, says="part of the model")

"""Commands that make pictures: sample, reconstruct, interpolate, traverse, manifold, decode. The files
are read by the descriptions of their formats alone."""
import math
import os
import signal
import struct
import subprocess
import time
import zlib

from harness import TINY, VAE, WORK, parse_npy, path, read_npy, test, trained, vae, write_npy

SIDE, ZOOM, GAP = 28, 2, 2
CELL = SIDE * ZOOM + GAP


# ---- readers ----

def unfilter(kind, line, above, n):
    """PNG's five line filters; n: bytes of a pixel."""
    out = bytearray(line)
    for i, value in enumerate(line):
        a = out[i - n] if i >= n else 0
        b = above[i]
        c = above[i - n] if i >= n else 0
        near = min((abs(b - c), 0, a), (abs(a - c), 1, b), (abs(a + b - 2 * c), 2, c))[2]
        out[i] = (value + (0, a, b, (a + b) // 2, near)[kind]) & 255
    return out


def read_png(name):
    """width, height, channels, rows of bytes."""
    with open(path(name), "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", name
    at, packed = 8, b""
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8:at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack_from(">I", data, at + 8 + length)[0]
        if kind == b"IHDR":
            width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", body)
            assert (depth, rest) == (8, [0, 0, 0]) and colour in (0, 2)
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    channels = 3 if colour == 2 else 1
    raw, rows, above = zlib.decompress(packed), [], bytes(width * channels)
    assert len(raw) == height * (1 + width * channels)
    for y in range(height):
        line = raw[y * (1 + width * channels):(y + 1) * (1 + width * channels)]
        above = unfilter(line[0], line[1:], above, channels)
        rows.append(above)
    return width, height, channels, rows


def write_png(name, width, height, channels, pixels):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    lines = b"".join(b"\0" + bytes(pixels[y * width * channels:(y + 1) * width * channels])
                     for y in range(height))
    with open(path(name), "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(
            ">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b""))


def cell(picture, line, column, left=0, top=0):
    """The pixels of a grid's cell, in the size of the data; left, top: wider borders before it."""
    _, _, _, rows = picture
    return [rows[top + GAP + line * CELL + ZOOM * y][left + GAP + column * CELL + ZOOM * x]
            for y in range(SIDE) for x in range(SIDE)]


def unlzw(data, bits):
    """GIF's LZW."""
    clear, end = 1 << bits, (1 << bits) + 1
    out, table, width, last = bytearray(), [], bits + 1, None
    value = count = 0
    for byte in data:
        value |= byte << count
        count += 8
        while count >= width:
            code, value, count = value & ((1 << width) - 1), value >> width, count - width
            if code == clear:
                table = [bytes([i]) for i in range(clear)] + [b"", b""]
                width, last = bits + 1, None
                continue
            if code == end:
                return bytes(out)
            entry = table[code] if code < len(table) else last + last[:1]
            if last is not None and len(table) < 4096:
                table.append(last + entry[:1])
            if len(table) == 1 << width and width < 12:
                width += 1
            out += entry
            last = entry
    raise AssertionError("no end code")


def read_gif(name):
    """width, height, loops (None or a number, 0 = for ever), frames as (delay, list of RGB)."""
    with open(path(name), "rb") as file:
        data = file.read()
    assert data[:6] == b"GIF89a"
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    assert flags & 0x80
    n = 2 << (flags & 7)
    colours = [tuple(data[13 + 3 * i:16 + 3 * i]) for i in range(n)]
    at, loops, delay, frames = 13 + 3 * n, None, 0, []

    def blocks(at):
        body = b""
        while data[at]:
            body += data[at + 1:at + 1 + data[at]]
            at += 1 + data[at]
        return body, at + 1

    while data[at] != 0x3B:
        if data[at] == 0x21 and data[at + 1] == 0xFF:
            body, at = blocks(at + 2)
            assert body[:11] == b"NETSCAPE2.0" and body[11] == 1
            loops = struct.unpack_from("<H", body, 12)[0]
        elif data[at] == 0x21 and data[at + 1] == 0xF9:
            body, at = blocks(at + 2)
            delay = struct.unpack_from("<H", body, 1)[0]
        else:
            assert data[at] == 0x2C
            box = struct.unpack_from("<HHHHB", data, at + 1)
            assert box == (0, 0, width, height, 0)
            body, after = blocks(at + 11)
            pixels = unlzw(body, data[at + 10])
            assert len(pixels) == width * height
            frames.append((delay, [colours[i] for i in pixels]))
            at = after
    assert at == len(data) - 1
    return width, height, loops, frames


def read_bytes(name):
    with open(path(name), "rb") as file:
        return file.read()


def pixel(value):
    return min(255, max(0, int(value * 255 + 0.5)))


def near(pixels, values, slack=1):
    assert len(pixels) == len(values) == SIDE * SIDE
    worst = max(abs(p - 255 * v) for p, v in zip(pixels, values))
    assert worst <= slack, f"{worst} of 255 away"


def row_of(values, i):
    return values[i * SIDE * SIDE:(i + 1) * SIDE * SIDE]


# ---- runs ----

def plane():
    """A run with two latents."""
    if not os.path.exists(path("plane")):
        vae("train", *TINY, "--latent", 2, "--epochs", 3, "--out", "plane", "-q", "--sample-every", 0)
    return "plane"


def flat():
    """A run on rows that are no pictures."""
    if not os.path.exists(path("flat")):
        write_npy("flat.npy", 40, 5, [(i * 37 % 101) / 101 for i in range(200)])
        vae("train", "--data", "flat.npy", "--latent", 2, "--hidden", 8, "--epochs", 2, "--device", "cpu",
            "--threads", 1, "--batch-size", 10, "--out", "flat", "-q")
    return "flat"


def mus(run, rows, name="mu.npy"):
    """mu of the test split's first rows."""
    vae("encode", run, "--split", "test", "--limit", rows, "--out", name, "-q", "--threads", 1)
    shape, values = read_npy(name)
    return [list(values[i * shape[1]:(i + 1) * shape[1]]) for i in range(shape[0])]


def decoded(run, latents):
    """The decoder's means of latents, by vae decode."""
    write_npy("latents.npy", len(latents), len(latents[0]), [v for z in latents for v in z])
    vae("decode", run, "--latents", "latents.npy", "--out", "decoded.npy", "-q", "--threads", 1)
    return read_npy("decoded.npy")[1]


# ---- sample ----

@test
def samples_are_the_same_in_every_format():
    run = trained()
    vae("sample", run, "-n", 300, "--out", "s.npy")  # two batches
    shape, x = read_npy("s.npy")
    assert shape == (300, SIDE, SIDE) and all(0 <= v <= 1 for v in x)
    vae("sample", run, "-n", 300, "--out", "s.png", "--columns", 15, says="s.png: 300 samples")
    picture = read_png("s.png")
    assert picture[:3] == (15 * CELL + GAP, 20 * CELL + GAP, 1)
    for i in (0, 14, 15, 256, 299):
        near(cell(picture, i // 15, i % 15), row_of(x, i), 0.51)
    vae("sample", run, "-n", 300, "--out", "folder/")
    names = sorted(os.listdir(path("folder")))
    assert names == [f"{i:06d}.png" for i in range(300)]
    for i in (0, 299):
        width, height, channels, rows = read_png(f"folder/{names[i]}")
        assert (width, height, channels) == (SIDE, SIDE, 1)
        near([v for row in rows for v in row], row_of(x, i), 0.51)
    raw = subprocess.run([VAE, "sample", run, "-n", "300", "--out", "-", "-t", "1"], cwd=WORK,
                         capture_output=True, check=True)
    assert raw.stdout == read_bytes("s.npy") and b"standard output: 300" in raw.stderr
    vae("sample", run, "-n", 10, "--out", "ten.png")
    assert read_png("ten.png")[:2] == (4 * CELL + GAP, 3 * CELL + GAP)


@test
def sample_seeds():
    run = trained()
    first = []
    for more in ([], [], ["--seed", 2], ["--temperature", "0.5"], ["-n", 20]):
        vae("sample", run, "-n", 9, "--out", "seed.npy", "-q", *more)
        first.append(read_npy("seed.npy")[1])
    assert first[0] == first[1] and first[0] != first[2] and first[0] != first[3]
    assert first[4][:len(first[0])] == first[0], "the first samples do not depend on how many"
    vae("sample", run, "-n", 2, "--temperature", 0, "--out", "seed.npy", "-q")
    cold = read_npy("seed.npy")[1]
    assert row_of(cold, 0) == row_of(cold, 1)
    near([pixel(v) for v in row_of(cold, 0)], decoded(run, [[0, 0, 0]]))
    three = []
    for threads in (1, 3):
        vae("sample", run, "-n", 300, "--from", "posterior", "--limit", 1000,
            "--components", 3, "--out", "seed.npy", "-q", "-t", threads)
        three.append(read_bytes("seed.npy"))
    assert three[0] == three[1], "threads change nothing"


@test
def posterior_samples():
    run = "wide"
    vae("train", *TINY, "--limit", 3000, "--epochs", 1, "--out", run, "-q")
    args = ["sample", run, "-n", 30, "--from", "posterior"]
    result = vae(*args, "--limit", 3000, "--out", "post.npy", "--json").json()
    fit = result["mixture"]
    assert result["from"] == "posterior" and result["n"] == 30
    assert (fit["covariance"], fit["split"]) == ("full", "train") and fit["components"] in (1, 2, 5, 10, 20, 50)
    for other in (1, 2, 5):  # no fewer fit the rows held out better
        tried = vae(*args, "--limit", 3000, "--components", other, "--out", "post.npy", "--json").json()["mixture"]
        assert other >= fit["components"] or tried["held_out"] < fit["held_out"], (other, tried, fit)
        assert other != fit["components"] or tried["held_out"] == fit["held_out"]
    assert (fit["n"], fit["held_out_n"], fit["converged"]) == (2700, 300, True)
    assert fit["held_out"] > fit["prior_held_out"], "the fit must beat the prior on fresh rows"
    assert abs(fit["held_out"] - fit["log_likelihood"]) < 0.5  # of 300 rows
    text = vae(*args, "--out", "post.npy", "--components", 2, "--covariance", "diagonal", "--limit", 500,
               says="2 Gaussians (diagonal) fitted to z of 450 rows of digits (train)").err
    assert "of 50 rows held out:" in text
    one = read_bytes("post.npy")
    vae(*args, "--out", "post.npy", "--components", 2, "--covariance", "diagonal", "--limit", 500, "-q")
    assert read_bytes("post.npy") == one
    vae(*args, "--out", "post.npy", "--components", 2, "--covariance", "diagonal", "--limit", 500, "-q",
        "--seed", 5)
    assert read_bytes("post.npy") != one
    few = vae(*args, "--out", "post.npy", "--limit", 5, "--json").json()["mixture"]
    assert few["components"] == 1 and few["held_out_n"] == 0 and few["held_out"] is None


@test
def psnr_of_a_semi_supervised_model():
    """Of what it reconstructs, each row as its most probable class; bits of the sum over classes."""
    vae("train", *TINY, "--semi-supervised", "--labelled", 20, "--likelihood", "gaussian", "--variance", 0.04,
        "--mean", "sigmoid", "--epochs", 1, "--out", "semi", "-q")
    found = vae("eval", "semi", "--limit", 10, "--json").json()
    vae("reconstruct", "semi", "-n", 10, "--out", "semi.png", "-q")
    picture = read_png("semi.png")
    squares = sum((a - b) ** 2 for i in range(10) for a, b in zip(cell(picture, 0, i), cell(picture, 1, i)))
    psnr = -10 * math.log10(squares / 255 ** 2 / (10 * SIDE * SIDE))
    assert abs(found["psnr"] - psnr) < 0.02, (found["psnr"], psnr)  # those are bytes
    noise = 784 / (24 * 256**2 * 0.04)
    bits = ((noise - found["elbo"]) / 784 + math.log(256)) / math.log(2)
    assert abs(found["bits_per_dim"] - bits) < 1e-6, (found["bits_per_dim"], bits)
    text = vae("eval", "semi", "--limit", 10).out
    assert f"psnr          {found['psnr']:.3f} dB (mean at z = mu of the most probable class" in text, text
    vae("train", *TINY, "--semi-supervised", "--labelled", 20, "--likelihood", "gaussian-learned", "--epochs", 1,
        "--out", "semi-learned", "-q")
    learned = vae("eval", "semi-learned", "--limit", 10, "--json").json()
    assert learned["psnr"] > 3 and learned["bits_per_dim"] is None  # each class has variances of its own


@test
def nearest_training_examples():
    run = trained()
    vae("sample", run, "-n", 4, "--columns", 4, "--out", "x.npy", code=2,
        says="--columns has no effect where --out is no .png")
    vae("sample", run, "-n", 5, "--out", "x.npy")
    x = read_npy("x.npy")[1]
    result = vae("sample", run, "-n", 5, "--columns", 3, "--nearest", "--split", "test", "--out", "n.png",
                 "--json").json()
    picture = read_png("n.png")
    # two bands of two lines, the second set apart
    assert picture[:2] == (3 * CELL + GAP, 4 * CELL + GAP + 2 * GAP)
    for i in range(5):
        line, column, top = 2 * (i // 3), i % 3, i // 3 * 2 * GAP
        near(cell(picture, line, column, top=top), row_of(x, i), 0.51)
        example = [v / 255 for v in cell(picture, line + 1, column, top=top)]
        away = math.dist(example, row_of(x, i))
        assert abs(away - result["nearest_distance"][i]) < 1e-3, (away, result)
    row = result["nearest_row"][0]
    vae("reconstruct", run, "--rows", row, "--out", "r.png")
    assert cell(read_png("r.png"), 0, 0) == cell(picture, 1, 0)
    vae("sample", run, "-n", 1, "--nearest", "--out", "n.png", says="nearest of 270 rows of digits (train)")  # those it was trained on


@test
def sample_refuses():
    run = trained()
    for args, says in (
            (["--components", 3], "--components has no effect without --from posterior"),
            (["--covariance", "full"], "--covariance has no effect without --from posterior"),
            (["--limit", 3], "--limit has no effect without --from posterior"),
            (["--data", "digits"], "--data has no effect without --from posterior or --nearest"),
            (["--split", "test"], "--split has no effect without"),
            (["--nearest", "--out", "x.npy"], "--nearest has no effect where --out is no .png"),
            (["--from", "q"], "--from: expected prior or posterior, found 'q'"),
            (["--from", "posterior", "--covariance", "tied"], "expected full or diagonal, found 'tied'"),
            (["--from", "posterior", "--components", 0], "--components: expected a whole number from 1"),
            (["--out", "x.jpg"], "x.jpg: expected a name that ends in .png, .npy or / (a folder), or -"),
            (["--out", "x.gif"], "x.gif: expected a name that ends in .png, .npy"),
            (["--out", "-", "--json"], "--json has standard output"),
            (["-n", 1000000], "is above 16384 pixels a side; ask for fewer"),
            (["--columns", 600], "in 600 columns"),
            (["--temperature", "-1"], "--temperature: expected a number from 0")):
        n = ["-n", 700] if "--columns" in args else []
        vae("sample", run, *args, *n, code=2, says=says)
    vae("sample", run, "-n", 5, "--out", "left/")
    vae("sample", run, "-n", 4, "--out", "left", code=2, says="left: holds 000004.png of an earlier set")
    vae("sample", run, "-n", 5, "--seed", 9, "--out", "left", "-q")
    vae("sample", run, "--out", "no/such/", code=4, says="no/such/: cannot make the folder")
    vae("sample", run, "--out", "/dev/full", code=2, says="/dev/full: expected a name")
    with open("/dev/full", "wb") as full:
        vae("sample", run, "--out", "-", code=4, says="standard output: cannot write", stdout=full)
    before = read_bytes("left/000000.png")
    vae("sample", run, "--out", "left/000000.png/x.npy", code=4, says="Not a directory")
    assert read_bytes("left/000000.png") == before


@test
def sampling_is_bounded_and_interruptible():
    """Half a million rows of 3 kB would be 1.5 GB: the program must not hold them, and Ctrl-C must
    leave nothing behind."""
    run = trained()
    process = subprocess.Popen([VAE, "sample", run, "-n", "500000", "--out", "huge.npy", "-t", "1"],
                               cwd=WORK, stderr=subprocess.PIPE)

    def temporary():
        return [n for n in os.listdir(WORK) if n.startswith("huge.npy.")]

    deadline = time.time() + 60
    while not (temporary() and os.path.getsize(path(temporary()[0])) > 20 << 20):
        assert process.poll() is None, process.stderr.read()
        assert time.time() < deadline
        time.sleep(0.02)
    with open(f"/proc/{process.pid}/status") as file:
        resident = [int(l.split()[1]) for l in file if l.startswith("VmRSS")][0]
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == -signal.SIGINT and "vae: interrupted" in error, error
    assert not os.path.exists(path("huge.npy")) and temporary() == []
    bound = 400 << 10 if "/test/" in VAE else 100 << 10  # the sanitizers have memory of their own
    assert resident < bound, f"{resident} kB"


# ---- reconstruct ----

@test
def reconstruct_rows():
    run = trained()
    vae("reconstruct", run, "--rows", "7,0,7", "--out", "r.png", says="3 reconstructions")
    picture = read_png("r.png")
    assert picture[:2] == (3 * CELL + GAP, 2 * CELL + GAP)
    mu = mus(run, 8)
    x = decoded(run, [mu[7], mu[0]])
    assert cell(picture, 0, 0) == cell(picture, 0, 2) and cell(picture, 1, 0) == cell(picture, 1, 2)
    near(cell(picture, 1, 0), row_of(x, 0))
    near(cell(picture, 1, 1), row_of(x, 1))
    vae("reconstruct", run, "-n", 8, "--out", "r8.png", "--columns", 8, "-q")
    eight = read_png("r8.png")
    assert cell(eight, 0, 7) == cell(picture, 0, 0) and cell(eight, 1, 0) == cell(picture, 1, 1)
    vae("reconstruct", run, "--rows", "7,0", "--out", "r.npy", "-q")
    shape, values = read_npy("r.npy")
    assert shape == (2, SIDE, SIDE) and max(abs(a - b) for a, b in zip(values, x)) < 1e-6
    vae("reconstruct", run, "--rows", "7,0", "--out", "rec/", "-q")
    assert sorted(os.listdir(path("rec"))) == ["000000.png", "000001.png"]
    for rows, says in (("10000", "--rows: row 10000 is not there: digits (test) has rows 0 to 9999"),
                       ("1,,2", "--rows: expected numbers from 0"), ("", "--rows: expected numbers"),
                       ("-1", "expected numbers from 0"), ("1,x", "found '1,x'"),
                       ("99999999999999999999999999", "expected numbers from 0")):
        vae("reconstruct", run, f"--rows={rows}", code=2, says=says)
    vae("reconstruct", run, "--rows", 1, "-n", 3, code=2, says="--n has no effect with --rows")
    vae("reconstruct", run, "--rows", 50, "--limit", 50, code=2, says="has rows 0 to 49")
    vae("reconstruct", run, "--columns", 3, "--out", "x.npy", code=2, says="--columns has no effect")


# ---- interpolate ----

@test
def interpolation_strips():
    run = trained()
    vae("interpolate", run, "--from", "3,1", "--to", "4,5", "--steps", 5, "--out", "i.png",
        says="10 steps of interpolation")
    picture = read_png("i.png")
    wide = 4 * GAP  # sets the originals apart
    assert picture[:2] == (7 * CELL + GAP + 2 * wide, 2 * CELL + GAP)
    mu = mus(run, 6)
    middle = [(a + b) / 2 for a, b in zip(mu[3], mu[4])]
    x = decoded(run, [mu[3], mu[4], middle, mu[1], mu[5]])
    for (line, column), want in (((0, 0), 0), ((0, 4), 1), ((0, 2), 2), ((1, 0), 3), ((1, 4), 4)):
        near(cell(picture, line, column + 1, left=wide), row_of(x, want))
    vae("reconstruct", run, "-n", 6, "--out", "r6.png", "--columns", 6, "-q")
    originals = read_png("r6.png")
    for line, first, last in ((0, 3, 4), (1, 1, 5)):
        assert cell(picture, line, 0) == cell(originals, 0, first)
        assert cell(picture, line, 6, left=2 * wide) == cell(originals, 0, last)
    vae("interpolate", run, "--from", "3,1", "--to", "4,5", "--steps", 5, "--out", "i.npy", "-q")
    shape, values = read_npy("i.npy")
    assert shape == (10, SIDE, SIDE)
    assert max(abs(a - b) for a, b in zip(row_of(values, 2), row_of(x, 2))) < 1e-5
    result = vae("interpolate", run, "--from", 3, "--to", 3, "--steps", 2, "--out", "i/", "--json").json()
    assert (result["mode"], result["steps"], result["n"]) == ("linear", 2, 2)
    assert result["pairs"] == [{"from": 3, "to": 3}]
    assert read_bytes("i/000000.png") == read_bytes("i/000001.png")


@test
def spherical_interpolation():
    run = trained()
    a, b = mus(run, 2)
    angle = math.acos(sum(x * y for x, y in zip(a, b)) / math.hypot(*a) / math.hypot(*b))
    middle = [(x + y) * math.sin(angle / 2) / math.sin(angle) for x, y in zip(a, b)]
    x = decoded(run, [a, b, middle])
    vae("interpolate", run, "--from", 0, "--to", 1, "--mode", "spherical", "--steps", 3, "--out", "s3.npy",
        "-q")
    values = read_npy("s3.npy")[1]
    for i, want in ((0, 0), (2, 1), (1, 2)):
        assert max(abs(p - q) for p, q in zip(row_of(values, i), row_of(x, want))) < 1e-4
    vae("interpolate", run, "--from", 0, "--to", 1, "--steps", 3, "--out", "l3.npy", "-q")
    linear = read_npy("l3.npy")[1]
    assert row_of(linear, 0) == row_of(values, 0) and row_of(linear, 1) != row_of(values, 1)


@test
def interpolation_animations():
    run = trained()
    vae("interpolate", run, "--from", 3, "--to", 4, "--steps", 4, "--out", "a.gif")
    width, height, loops, frames = read_gif("a.gif")
    assert (width, height, loops, len(frames)) == (112, 112, 0, 6)  # there and back
    assert [delay for delay, _ in frames] == [60, 10, 10, 60, 10, 10]
    assert frames[1][1] == frames[5][1] and frames[2][1] == frames[4][1] and frames[0][1] != frames[3][1]
    mu = mus(run, 5)
    x = decoded(run, [mu[3], mu[4]])
    for frame, want in ((0, 0), (3, 1)):
        pixels = frames[frame][1]
        assert all(r == g == b for r, g, b in pixels)
        near([pixels[4 * y * width + 4 * col][0] for y in range(SIDE) for col in range(SIDE)],
             row_of(x, want))
    vae("interpolate", run, "--from", "3,1,2", "--to", "4,5,6", "--steps", 2, "--out", "b.gif")
    width, height, loops, frames = read_gif("b.gif")
    assert (width, height, loops, len(frames)) == (2 * 114 + 2, 2 * 114 + 2, 0, 2)
    first = read_bytes("b.gif")
    vae("interpolate", run, "--from", "3,1,2", "--to", "4,5,6", "--steps", 2, "--out", "b.gif", "-q")
    assert read_bytes("b.gif") == first


@test
def interpolation_between_files():
    run = trained()
    vae("reconstruct", run, "-n", 2, "--out", "two.png", "-q")
    picture = read_png("two.png")
    a, b = cell(picture, 0, 0), cell(picture, 0, 1)
    write_png("a.png", SIDE, SIDE, 1, a)
    write_png("b.png", SIDE, SIDE, 3, [v for v in b for _ in range(3)])  # RGB is made grey
    vae("interpolate", run, "--from", "a.png", "--to", "b.png", "--steps", 3, "--out", "f.npy", "-q")
    vae("interpolate", run, "--from", 0, "--to", "b.png", "--steps", 3, "--out", "g.npy", "-q")
    vae("interpolate", run, "--from", 0, "--to", 1, "--steps", 3, "--out", "h.npy", "-q")
    assert read_bytes("f.npy") == read_bytes("g.npy") == read_bytes("h.npy")
    result = vae("interpolate", run, "--from", "a.png", "--to", "b.png", "--out", "f.png", "--json").json()
    assert result["pairs"] == [{"from": "a.png", "to": "b.png"}] and result["n"] == 10
    write_png("c.png", 20, 28, 1, [0] * 560)
    vae("interpolate", run, "--from", "c.png", "--to", "b.png", code=3,
        says="c.png: pictures of 20 x 28 (width x height), 1 channel; the model takes 28 x 28")
    vae("interpolate", run, "--from", "none.png", "--to", "b.png", code=4, says="none.png")
    write_npy("no.png", 1, 1, [0])
    vae("interpolate", run, "--from", "no.png", "--to", "b.png", code=3, says="no.png: 1 columns; the model was trained on 784")
    vae("interpolate", run, "--from", "a.png", "--to", "b.png", "--data", "digits", code=2,
        says="--data has no effect between two picture files")


@test
def interpolation_refuses():
    run = trained()
    for args, says in (
            ([], "--from is missing"), (["--from", 1], "--to is missing"),
            (["--from", "1,2", "--to", 3], "--from names 2 and --to 1"),
            (["--from", "1", "--to", 10000], "--to: row 10000 is not there"),
            (["--from", "10000", "--to", 1], "--from: row 10000 is not there"),
            (["--from", "1", "--to", 2, "--steps", 1], "--steps: expected a whole number from 2"),
            (["--from", "1", "--to", 2, "--mode", "cubic"], "--mode: expected linear or spherical"),
            (["--from", "1", "--to", 2, "--out", "x.bmp"], "ends in .png, .gif, .npy or /"),
            (["--from", ",".join(["1"] * 100), "--to", ",".join(["2"] * 100), "--steps", 10000,
              "--out", "x.gif"], "x.gif: 10000 frames of 1142 x 1142 pixels are more")):
        vae("interpolate", run, *args, code=2, says=says)


# ---- traverse ----

@test
def traversal():
    run = trained()
    result = vae("traverse", run, "--steps", 5, "--range", 2, "--out", "t.png", "--json").json()
    assert (result["order"], result["data_n"], result["n"]) == ("kl", 10000, 15)
    dims = [d["dim"] for d in result["dims"]]
    kl = [d["kl"] for d in result["dims"]]
    assert sorted(dims) == [0, 1, 2] and kl == sorted(kl, reverse=True)
    known = vae("eval", run, "--json").json()["kl_per_dim"]
    assert all(abs(known[d] - k) < 1e-4 for d, k in zip(dims, kl))
    picture = read_png("t.png")
    assert picture[:2] == (5 * CELL + GAP, 3 * CELL + GAP)

    def at(dim, value, base=(0, 0, 0)):
        return [value if j == dim else base[j] for j in range(3)]

    x = decoded(run, [at(dims[0], -2), at(dims[1], 1), at(dims[2], 2), [0, 0, 0]])
    near(cell(picture, 0, 0), row_of(x, 0))
    near(cell(picture, 1, 3), row_of(x, 1))
    near(cell(picture, 2, 4), row_of(x, 2))
    for line in range(3):
        near(cell(picture, line, 2), row_of(x, 3))
    text = vae("traverse", run, "--top", 2, "--out", "t2.npy").out
    lines = text.splitlines()
    assert "mean of 10000 rows of digits, test" in lines[0]
    assert [int(line.split()[1]) for line in lines[1:]] == dims[:2]
    assert read_npy("t2.npy")[0] == (22, SIDE, SIDE)
    base = mus(run, 8)[7]
    vae("traverse", run, "--row", 7, "--top", 1, "--steps", 3, "--out", "t3.npy", "-q")
    x = decoded(run, [at(dims[0], v, base) for v in (-3, 0, 3)])
    values = read_npy("t3.npy")[1]
    assert max(abs(a - b) for a, b in zip(values, x)) < 1e-5
    piped = subprocess.run([VAE, "traverse", run, "--top", "1", "--out", "-", "-t", "1"], cwd=WORK,
                           capture_output=True, check=True).stdout
    assert parse_npy(piped)[0] == (11, SIDE, SIDE), "no listing among the rows"
    vae("traverse", run, "--top", 4, code=2, says="--top: expected a whole number from 1 to 3")
    vae("traverse", run, "--row", 10000, code=2, says="--row: row 10000 is not there")
    vae("traverse", run, "--range", 0, code=2, says="--range: expected a number")


@test
def traversal_without_data():
    write_npy("gone.npy", 40, 784, [(i * 37 % 101) / 101 for i in range(40 * 784)])
    vae("train", "--data", "gone.npy", "--hidden", 8, "--latent", 3, "--epochs", 1, "--device", "cpu",
        "--threads", 1, "--out", "gone", "-q")
    vae("traverse", "gone", "--out", "g.npy", code=0)
    os.remove(path("gone.npy"))
    text = vae("traverse", "gone", "--out", "g.npy", says="dimensions in their own order, not by KL: "
                                                          "gone.npy: cannot open")
    assert [line.split() for line in text.out.splitlines()] == [
        ["row", "dimension"], ["0", "0"], ["1", "1"], ["2", "2"]]
    result = vae("traverse", "gone", "--out", "g.npy", "--json").json()
    assert result["order"] == "index" and result["data"] is None
    assert result["dims"] == [{"dim": j, "kl": None} for j in range(3)]
    vae("traverse", "gone", "--row", 0, "--out", "g.npy", code=4, says="gone.npy: cannot open")
    vae("traverse", "gone", "--data", "none.npy", "--out", "g.npy", code=4, says="none.npy: cannot open")


# ---- manifold ----

def quantile(p):
    low, high = -10.0, 10.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 * math.erfc(-middle / math.sqrt(2)) < p else (low, middle)
    return low


@test
def manifold():
    run = plane()
    result = vae("manifold", run, "-n", 4, "--out", "m.png", "--json").json()
    assert (result["n"], result["spacing"], result["dims"]) == (16, "quantiles", [0, 1])
    assert abs(result["from"] - quantile(1 / 8)) < 1e-6 and abs(result["to"] + result["from"]) < 1e-9
    picture = read_png("m.png")
    assert picture[:2] == (4 * CELL + GAP, 4 * CELL + GAP)
    axis = [quantile((i + 0.5) / 4) for i in range(4)]
    places = [(0, 0), (0, 3), (2, 1)]
    x = decoded(run, [[axis[column], axis[3 - line]] for line, column in places])
    for i, (line, column) in enumerate(places):
        near(cell(picture, line, column), row_of(x, i))
    vae("manifold", run, "-n", 3, "--range", 2, "--dims", "1,0", "--out", "m.npy", says="9 pictures")
    shape, values = read_npy("m.npy")
    x = decoded(run, [[v, h] for v in (2, 0, -2) for h in (-2, 0, 2)])
    assert shape == (9, SIDE, SIDE) and max(abs(a - b) for a, b in zip(values, x)) < 1e-5
    vae("manifold", run, "--out", "m30.png", "-q")
    assert read_png("m30.png")[:2] == (30 * CELL + GAP, 30 * CELL + GAP)


@test
def manifold_of_more_latents():
    run = trained()
    vae("manifold", run, code=2, says="the model has 3 latents, and a manifold is drawn of 2: train with "
                                      "--latent 2, or pick two with --dims I,J")
    for dims in ("0", "0,0", "0,3", "0,1,2", "a,b"):
        vae("manifold", run, "--dims", dims, code=2, says="--dims: expected")
    vae("manifold", run, "--dims", "2,0", "-n", 2, "--range", 1, "--out", "m3.npy", "-q")
    x = decoded(run, [[v, 0, h] for v in (1, -1) for h in (-1, 1)])
    assert max(abs(a - b) for a, b in zip(read_npy("m3.npy")[1], x)) < 1e-5


# ---- data that are no pictures ----

@test
def rows_that_are_no_pictures():
    run = flat()
    ends = ["--from", 0, "--to", 1]
    for command in (["sample", run], ["reconstruct", run], ["traverse", run], ["manifold", run],
                    ["interpolate", run, *ends]):
        name = command[0]
        for out in (f"{name}.png", f"{name}/") + ((f"{name}.gif",) if name == "interpolate" else ()):
            vae(*command, "--out", out, code=2,
                says=f"{out}: the model's data are no pictures: 1 x 5, 1 channels")
            assert not os.path.exists(path(out))
        vae(*command, "--out", f"{name}.npy", "-q")
        shape, values = read_npy(f"{name}.npy")
        assert len(shape) == 2 and shape[1] == 5 and all(0 <= v <= 1 for v in values)
    vae("interpolate", run, "--from", "absent.png", "--to", 1, "--out", "x.npy", code=4, says="absent.png")


@test
def decode_writes_what_sample_writes():
    run = trained()
    write_npy("z.npy", 5, 3, [0.1 * i for i in range(15)])
    for out in ("d.npy", "d.png", "d/"):
        vae("decode", run, "--latents", "z.npy", "--out", out, "-q")
    shape, x = read_npy("d.npy")
    picture = read_png("d.png")
    assert shape == (5, SIDE, SIDE) and picture[:2] == (3 * CELL + GAP, 2 * CELL + GAP)
    near(cell(picture, 1, 1), row_of(x, 4), 0.51)
    assert len(os.listdir(path("d"))) == 5
    vae("decode", run, "--latents", "z.npy", "--out", "d.gif", code=2, says="d.gif: expected a name")

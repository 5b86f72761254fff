"""What is attacked: commands with small inputs. All paths are relative to the folder of a case, beside
which lies ../fix, made once and never written."""
import base64
import os
import struct
import zipfile
import zlib

# 8 x 8, grey: what libjpeg made of 20*x + 10*y
JPEG = base64.b64decode(
    "/9j/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgyPC4zNDL/"
    "wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABf/EABkQAAEFAAAAAAAAAAAAAAAAAAAFBiIzUf/aAAgBAQAAPwAh"
    "hINUMP/Z")
TRAIN = ["train", "--threads", "1", "--hidden", "6", "--latent", "2", "--batch-size", "8", "--out", "run", "-q"]
SMALL = [*TRAIN, "--data", "../fix/rows.npz"]


class Scene:
    """args: of one run. copies: {name in the case: name in ../fix}. old: files that are there before, of a
    set that args replace. trains: it leaves a run in `run` that --resume can complete; imports: one that is
    not trained. timed: what it prints is never twice the same. program: vae, simt or library. writes: it
    leaves files."""

    def __init__(self, name, args, copies=None, old=(), stdin=None, trains=False, imports=False, timed=False,
                 program="vae", env=(), writes=True):
        self.name, self.args, self.copies, self.old = name, [str(x) for x in args], copies or {}, old
        self.stdin, self.trains, self.imports, self.timed = stdin, trains, imports, timed
        self.program, self.env, self.writes = program, env, writes
        self.frozen = not timed  # the clock


TRAINING = {  # what is added to SMALL
    "plain": ["--epochs", 3, "--keep", 1],
    "stop": ["--epochs", 6, "--validation", 0.25, "--patience", 1, "--keep", 2, "--lr", 0.05, "--save-every", 2],
    "semi": ["--epochs", 2, "--semi-supervised", "--labelled", 9, "--binarize", "dynamic"],
    "conv": ["--epochs", 2, "--conv", 4, "--objective", "iwae", "--particles", 2, "--report=false"],
    "cond": ["--epochs", 2, "--condition", "labels", "--sample-every", 0, "--threads", 2],
    "variance": ["--epochs", 3, "--likelihood", "gaussian-optimal", "--kl-warmup", 2,
                 "--free-bits", 0.1],
}


def scenes():
    run = {"run": "plain"}
    for name, more in TRAINING.items():
        yield Scene(f"train-{name}", [*SMALL, *more], trains=True)
    yield Scene("train-table", [*TRAIN, "--data", "../fix/table.csv", "--epochs", 2, "--likelihood", "gaussian"], trains=True)
    yield Scene("train-pictures", [*TRAIN, "--data", "../fix/pics", "--epochs", 1], trains=True)
    yield Scene("train-formats", [*TRAIN, "--data", "../fix/forms", "--epochs", 1], trains=True)
    yield Scene("train-cache", [*TRAIN, "--data", "../fix/pics", "--cache", "pics.cache", "--epochs", 1], trains=True)
    yield Scene("train-cache-old", [*TRAIN, "--data", "../fix/pics", "--cache", "caches/pics", "--epochs", 1],
                {"caches": "caches"}, trains=True)
    yield Scene("train-idx", [*TRAIN, "--data", "../fix/idx", "--epochs", 1], trains=True)
    yield Scene("train-config", [*TRAIN, "--config", "../fix/options.json", "--data", "../fix/rows.npy", "--epochs", 1],
                trains=True)
    yield Scene("train-stack", [*TRAIN, "--stack", "../fix/plain", "--epochs", 1, "--data", "../fix/rows.npz",
                               "--likelihood", "gaussian"], trains=True)
    yield Scene("train-force", [*SMALL, "--force", "--epochs", 1], run, trains=True)
    yield Scene("resume", ["train", "--resume", "--out", "run", "--epochs", 4, "-q"], run, trains=True)
    yield Scene("resume-auto", ["train", "--resume=auto", *SMALL[1:], "--epochs", 2], trains=True)
    yield Scene("resume-killed", ["train", "--resume", "--out", "run", "-q"], {"run": "unreported"}, trains=True)
    for kind in ("safetensors", "npz"):
        yield Scene(f"export-{kind}", ["export", "../fix/plain", "--out", f"w.{kind}"], old=[f"w.{kind}"])
    yield Scene("export-onnx", ["export", "../fix/semi", "--out", "w.onnx"],
                old=[f"w.{part}.onnx" for part in ("encoder", "decoder", "classifier")])
    yield Scene("export-stdout", ["export", "../fix/conv", "--format", "npz", "--out", "-"])
    yield Scene("import-safetensors", ["import", "../fix/w.safetensors", "--out", "run"], imports=True)
    yield Scene("import-npz", ["import", "../fix/w.npz", "--out", "run", "--force"], run, imports=True)
    yield Scene("info", ["info", "../fix/plain"], writes=False)
    yield Scene("info-json", ["info", "../fix/table", "--json"], writes=False)
    yield Scene("info-file", ["info", "../fix/w.safetensors"], writes=False)
    yield Scene("eval", ["eval", "../fix/plain", "--samples", 3, "--per-example", "e.npz", "--threads", 1], old=["e.npz"])
    yield Scene("eval-semi", ["eval", "../fix/semi", "--threads", 1, "--json"], writes=False)
    yield Scene("report", ["report", "run", "--threads", 1], run)
    yield Scene("report-out", ["report", "../fix/table", "--out", "r.html", "--threads", 1])
    yield Scene("sample", ["sample", "../fix/plain", "-n", 4, "--threads", 1, "--out", "s.png"], old=["s.png"])
    yield Scene("sample-folder", ["sample", "../fix/cond", "-n", 4, "--class", 4, "--threads", 1, "--out", "s/"])
    yield Scene("sample-posterior", ["sample", "../fix/plain", "-n", 4, "--from", "posterior", "-k", 2, "--nearest",
                                     "--threads", 1, "--out", "s.png"])
    yield Scene("reconstruct", ["reconstruct", "../fix/plain", "--threads", 1, "--out", "r.npy"], old=["r.npy"])
    yield Scene("interpolate", ["interpolate", "../fix/plain", "--from", 1, "--to", 2, "--threads", 1, "--out", "w.gif"],
                old=["w.gif"])
    yield Scene("interpolate-files", ["interpolate", "../fix/pictures", "--from", "../fix/pics/a/0.png", "--to",
                                      "../fix/pics/b/2.jpg", "--threads", 1, "--out", "w.png"])
    yield Scene("traverse", ["traverse", "../fix/plain", "--threads", 1, "--out", "t.png"])
    yield Scene("manifold", ["manifold", "../fix/plain", "-n", 3, "--threads", 1, "--out", "-"])
    yield Scene("complete", ["complete", "../fix/plain", "--mask", "../fix/mask.npy", "-n", 2, "--rounds", 2, "--threads", 1,
                             "--out", "c.png"], old=["c.png"])
    yield Scene("encode", ["encode", "../fix/plain", "--threads", 1, "--out", "z.npz", "--z"], old=["z.npz"])
    yield Scene("encode-stdin", ["encode", "../fix/table", "--data", "-", "--out", "-", "--threads", 1], stdin="../fix/table.csv")
    yield Scene("decode", ["decode", "../fix/plain", "--latents", "../fix/z.npz", "--out", "x.npy", "--threads", 1],
                old=["x.npy"])
    yield Scene("score", ["score", "../fix/plain", "--samples", 2, "--threads", 1, "--out", "s.csv", "--contributions", "c.npy",
                          "--heatmap", "h.png", "--histogram", "h.svg"], old=["s.csv", "h.svg"])
    yield Scene("probe", ["probe", "../fix/cond", "--labels", "9", "--seeds", 2, "--scatter", "p.svg", "--threads", 1,
                          "--json"])
    yield Scene("classify", ["classify", "../fix/semi", "--threads", 1, "--out", "y.csv"], old=["y.csv"])
    yield Scene("bench", ["bench", "--data", "../fix/rows.npy", "--hidden", 4, "--latent", 2, "--batches", 8, "--seconds", 0.001,
                          "--repeats", 1, "--device", "cpu", "--threads", 1], timed=True, writes=False)
    yield Scene("help", ["train", "--help"], writes=False)
    yield Scene("libvae", [], program="library")
    yield Scene("train-cuda", [*SMALL, "--epochs", 2, "--device", "cuda"], trains=True, program="simt",
                env=["VAE_CUDA_STREAM_DATA=1"])


# ---- the inputs ----

def npy(shape, descr, raw):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + raw


def noise(seed, n):
    """n bytes, the same everywhere."""
    state, out = seed * 2654435761 % 2**32 or 1, bytearray()
    for _ in range(n):
        state = (state * 1664525 + 1013904223) % 2**32
        out.append(state >> 24)
    return bytes(out)


def png(pixels, side):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    rows = b"".join(b"\0" + pixels[y * side:(y + 1) * side] for y in range(side))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def gz(raw):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(raw) + packer.flush()


def pictures(seed, n):
    """n pictures of 8 x 8 that a model can learn a little of: a bar at one of three places, and noise."""
    grain = noise(seed, 64 * n)
    return bytes(min(255, 200 * (i // 64 % 3 == (i % 8) // 3) + grain[i] // 5) for i in range(64 * n))


def make_inputs(fix):
    def put(name, raw):
        os.makedirs(os.path.dirname(os.path.join(fix, name)), exist_ok=True)
        with open(os.path.join(fix, name), "wb") as file:
            file.write(raw)

    n, n_test = 24, 9
    labels = bytes(3 + i % 3 for i in range(n))
    arrays = {"x_train": npy((n, 8, 8), "|u1", pictures(1, n)), "y_train": npy((n,), "|u1", labels),
              "x_test": npy((n_test, 8, 8), "|u1", pictures(2, n_test)), "y_test": npy((n_test,), "|u1", labels[:n_test])}
    with zipfile.ZipFile(os.path.join(fix, "rows.npz"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in arrays.items():
            archive.writestr(zipfile.ZipInfo(name + ".npy", (1980, 1, 1, 0, 0, 0)), raw)
    put("rows.npy", npy((n, 64), "|u1", pictures(1, n)))
    put("mask.npy", npy((1, 64), "|b1", bytes(i % 8 < 4 for i in range(64))))
    grain = noise(3, 4 * n)
    put("table.csv", ("a,b,c,d,label\n" + "".join(
        ",".join(str(value) for value in grain[4 * i:4 * i + 4]) + f",{'xy'[i % 2]}\n" for i in range(n))).encode())
    for i, folder in enumerate("aabb"):
        put(f"pics/{folder}/{i}.png", png(pictures(4 + i, 1), 8))
    put("pics/b/2.jpg", JPEG)
    for name in ("webp-lossless-exif", "tiff-lzw", "jpeg-exif", "png-exif"):  # 3 x 5 pixels, turned
        with open(os.path.join(os.path.dirname(__file__), "../fuzz/corpus/fuzz_picture", name), "rb") as file:
            put(f"forms/{name}.{name.split('-')[0]}", file.read())
    put("idx/train-images-idx3-ubyte.gz", gz(struct.pack(">IIII", 0x803, n, 8, 8) + pictures(1, n)))
    put("idx/train-labels-idx1-ubyte.gz", gz(struct.pack(">II", 0x801, n) + bytes(i % 3 for i in range(n))))
    put("options.json", b'{"hidden": [5, 4], "latent": 2, "activation": "gelu"}')


def make_fixture(fix, run):
    """run(args): the program with the folder of a case as its own."""
    make_inputs(fix)
    os.mkdir(os.path.join(fix, "caches"))

    def train(name, args):
        args = list(args)
        args[args.index("run")] = f"../fix/{name}"
        run(args)

    train("plain", [*SMALL, "--epochs", 2, "--validation", 0.25])
    for name in ("semi", "conv", "cond"):
        train(name, [*SMALL, *TRAINING[name]])
    train("table", [*TRAIN, "--data", "../fix/table.csv", "--epochs", 2, "--likelihood", "gaussian"])
    train("pictures", [*TRAIN, "--data", "../fix/pics", "--epochs", 1])
    train("sixteen", [*TRAIN, "--data", "../fix/pics", "--epochs", 1, "--image-size", 4, "--cache", "../fix/caches/pics"])
    train("unreported", [*SMALL, "--epochs", 2])
    for name in ("report.html", "run.json"):
        os.unlink(os.path.join(fix, "unreported", name))
    for kind in ("safetensors", "npz"):
        run(["export", "../fix/plain", "--out", f"../fix/w.{kind}"])
    run(["encode", "../fix/plain", "--out", "../fix/z.npz", "--z"])

"""What the tests of the command line share. VAE names the program (default build/vae)."""
import json
import math
import os
import struct
import subprocess
import tempfile
import zipfile

VAE = os.path.abspath(os.environ.get("VAE", "build/vae"))
# one thread: many small runs, often beside each other
TINY = ["--limit", "300", "--hidden", "16", "--latent", "3", "--batch-size", "32", "--device", "cpu",
        "--threads", "1"]
WORK = tempfile.mkdtemp(prefix="vae-cli-")
TESTS = []


class Skip(Exception):
    pass


def test(function):
    TESTS.append(function)
    return function


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def json(self):
        return json.loads(self.out)


def vae(*args, code=0, says=None, env=None, prefix=(), program=VAE, **more):
    """Runs vae; its exit code must be `code`, its stderr must hold `says`."""
    if len(args) > 1 and args[0] in ("eval", "sample", "reconstruct", "interpolate", "traverse",
                                     "manifold", "report"):
        args = (*args, "--threads", "1")
    process = subprocess.run([*prefix, program, *map(str, args)], stdin=more.pop("stdin", subprocess.DEVNULL),
                             stdout=more.pop("stdout", subprocess.PIPE), stderr=subprocess.PIPE,
                             env={**os.environ, **(env or {})}, cwd=WORK, timeout=120, **more)
    out = (process.stdout or b"").decode()
    err = process.stderr.decode()
    line = "vae " + " ".join(map(str, args))
    assert process.returncode == code, f"{line}: exit {process.returncode}, not {code}: {err}"
    if says is not None:
        assert says in err, f"{line}: '{says}' is not in: {err}"
    if code > 0:
        last = err.strip().splitlines()[-1]
        assert last.startswith("vae: "), f"{line}: error without 'vae: ': {last}"
    return Result(process.returncode, out, err)


def path(*parts):
    return os.path.join(WORK, *parts)


def read_json(*parts):
    with open(path(*parts)) as file:
        return json.load(file)


def metrics(run):
    """The lines of metrics.jsonl without what depends on the clock."""
    with open(path(run, "metrics.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    for line in lines:
        del line["wall_s"], line["examples_per_s"]
    return lines


def sections(name):
    """Sections of a checkpoint, read by the description in checkpoint.c alone."""
    with open(name, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89VAE\r\n\x1a\n"
    version, endian, n, _, size = struct.unpack_from("<IIIIQ", data, 8)
    assert (version, endian, size) == (1, 0x01020304, len(data))
    found = {}
    for i in range(n):
        tag, _, offset, length = struct.unpack_from("<12sIQQ", data, 32 + 32 * i)
        assert offset % 64 == 0
        found[tag.rstrip(b"\0").decode()] = data[offset:offset + length]
    return found


def checkpoints(run):
    return sorted(name for name in os.listdir(path(run, "checkpoints")) if name[:5] == "step-")


def newest(run):
    return sections(path(run, "checkpoints", checkpoints(run)[-1]))


def same_end(a, b):
    a, b = newest(a), newest(b)
    for tag in ("params", "adam_m", "adam_v", "data_mean", "shape", "tensors", "summary"):
        assert a[tag] == b[tag], f"section {tag} differs"
    # state, without wall_s
    assert a["state"][:80] == b["state"][:80] and a["state"][88:] == b["state"][88:]


def trained():
    """A small finished run that many tests look at."""
    if not os.path.exists(path("run")):
        vae("train", *TINY, "--epochs", 3, "--out", "run", "--validation", "0.1")
    return "run"


def write_npy(name, rows, columns, values, descr="<f4"):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    with open(path(name), "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        kind = {"<f4": "f", "|b1": "?", "|u1": "B"}[descr]
        file.write(struct.pack(f"<{rows * columns}{kind}", *values))
    return name


def parse_npy(data):
    """shape, values; text as bytes."""
    assert data[:8] == b"\x93NUMPY\x01\x00"
    length = struct.unpack_from("<H", data, 8)[0]
    header = eval(data[10:10 + length].decode(), {})  # a literal, written by this program
    assert header["fortran_order"] is False
    items, raw = math.prod(header["shape"]), data[10 + length:]
    kind = {"<f4": "f", "|u1": "B", "<u4": "I"}.get(header["descr"])
    assert kind is None or len(raw) == items * struct.calcsize(kind)
    return header["shape"], struct.unpack(f"<{items}{kind}", raw) if kind else raw


def read_npy(name):
    with open(path(name), "rb") as file:
        return parse_npy(file.read())


def read_npz(name):
    """name: (shape, values) of each array."""
    with zipfile.ZipFile(path(name)) as archive:
        return {n[:-4]: parse_npy(archive.read(n)) for n in archive.namelist()}

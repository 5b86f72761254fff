"""Arrays that are mapped, as they take more than 64 MiB. FULL=1: one of more than 4 GiB, as well."""
import gzip
import os
import random
import shutil
import signal
import struct
import subprocess
import time

from harness import VAE, Skip, metrics, path, read_json, same_end, test, vae
from test_program import TRACED

ROWS, COLUMNS = 1056, 16384  # of floats: 66 MiB
LARGE = ["--hidden", 2, "--latent", 2, "--batch-size", 64, "--device", "cpu", "--threads", 2,
         "--sample-every", 0]


def write_large(name, rows=ROWS, columns=COLUMNS, descr="<f4", last=(), shape=None):
    """Mostly a hole; some rows, and the last values, are not zero. shape: of a row."""
    shape = (rows, *(shape or (columns,)))
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    kind, size = ("f", 4) if descr == "<f4" else ("B", 1)
    rng = random.Random(5)
    with open(path(name), "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        begin = file.tell()
        for row in [0, 1, 2, rows // 2, rows - 1]:
            file.seek(begin + row * columns * size)
            file.write(struct.pack(f"<{columns}{kind}", *(rng.random() if kind == "f" else rng.randrange(256)
                                                          for _ in range(columns))))
        file.seek(begin + (rows * columns - len(last)) * size)
        file.write(struct.pack(f"<{len(last)}{kind}", *last))
        file.truncate(begin + rows * columns * size)
    return begin


@test
def a_mapped_file_and_its_packed_twin_give_the_same():
    write_large("whole.npy")
    with open(path("whole.npy"), "rb") as plain, gzip.open(path("whole.npy.gz"), "wb", 1) as packed:
        packed.write(plain.read())
    for data, run in ("whole.npy", "mapped"), ("whole.npy.gz", "unpacked"):
        vae("train", "--data", data, *LARGE, "--epochs", 2, "--validation", "0.1", "--out", run)
        vae("encode", run, "--data", data, "--out", run + ".npz", "--threads", 1)
    same_end("mapped", "unpacked")
    assert metrics("mapped") == metrics("unpacked")
    a, b = (read_json(run, "run.json")["data"] for run in ("mapped", "unpacked"))
    assert a["sha256"] == b["sha256"], (a, b)
    with open(path("mapped.npz"), "rb") as x, open(path("unpacked.npz"), "rb") as y:
        assert x.read() == y.read()


@test
def a_bad_value_at_the_end_is_named_before_anything_is_written():
    write_large("bad.npy", last=(1.25, 0.5))
    vae("train", "--data", "bad.npy", *LARGE, "--out", "bad", code=3,
        says=f"bad.npy: row {ROWS - 1}, column {COLUMNS - 2}: value 1.25 is outside [0,1]")
    assert not os.path.exists(path("bad"))


@test
def a_file_cut_short_while_it_trains_ends_the_run_with_words():
    begin = write_large("cut.npy")
    with open(path("cut.npy"), "rb") as file:
        file.seek(-4 * COLUMNS, os.SEEK_END)
        last = file.read()
    process = subprocess.Popen([VAE, "train", "--data", "cut.npy", *map(str, LARGE), "--epochs", "100000",
                                "--out", "cut", "-q"], cwd=path(), stderr=subprocess.PIPE)
    for _ in range(600):
        if process.poll() is not None or os.path.isfile(path("cut", "metrics.jsonl")) and metrics("cut"):
            break
        time.sleep(0.1)
    was = os.stat(path("cut.npy"))
    os.truncate(path("cut.npy"), begin + 4096)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4, (process.returncode, err)
    assert b"vae: cut.npy: " in err and b"while it was in use" in err, err
    assert str(begin + 4096).encode() in err and str(was.st_size).encode() in err, err
    # the last checkpoint is good, and goes on with the data as they were
    os.truncate(path("cut.npy"), was.st_size)
    write_large("cut.npy")
    with open(path("cut.npy"), "rb") as file:
        file.seek(-4 * COLUMNS, os.SEEK_END)
        assert file.read() == last
    epochs = metrics("cut")[-1]["epoch"] + 1
    vae("train", "--resume", "--out", "cut", "--epochs", epochs)
    assert metrics("cut")[-1]["epoch"] == epochs


def touched_after_the_pass(*args):
    """The data are written to when all was looked at once, and rows are about to be read anew."""
    if shutil.which("strace") is None:
        raise Skip("strace is not installed")
    trace = ["strace", "-f", "-qq", "-e", "trace=madvise", "-o", path("advice.txt")]
    command = [VAE, *args, "--device", "cpu", "--threads", "1"]
    how = {"cwd": path(), "env": {**os.environ, **TRACED}, "stderr": subprocess.PIPE}
    if subprocess.run([*trace, "true"], capture_output=True).returncode != 0:
        raise Skip("strace may not trace here")
    assert subprocess.run([*trace, *command], **how).returncode == 0
    said = [line for line in open(path("advice.txt")) if "madvise(" in line]
    when = 1 + next(i for i, line in enumerate(said) if "MADV_RANDOM" in line)
    os.unlink(path("advice.txt"))
    os.unlink(path(args[args.index("--out") + 1]))
    process = subprocess.Popen([*trace, "-e", f"inject=madvise:signal=SIGSTOP:when={when}", *command], **how)
    for _ in range(600):
        said = open(path("advice.txt")).read() if os.path.exists(path("advice.txt")) else ""
        if process.poll() is not None or "stopped by SIGSTOP" in said:
            break
        time.sleep(0.05)
    os.utime(path("touched.npy"))
    if process.poll() is None:
        os.kill(int(said.split()[0]), signal.SIGCONT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4 and b"vae: touched.npy: was written to while it was in use" in err, (args, err)
    assert not os.path.exists(path(args[args.index("--out") + 1]))


@test
def rows_that_are_looked_at_singly_are_of_a_file_that_did_not_change():
    write_large("touched.npy", shape=(128, 128))
    vae("train", "--data", "touched.npy", *LARGE, "--epochs", 1, "--report=false", "--out", "touched")
    touched_after_the_pass("complete", "touched", "--mask", "left", "--rounds", "1", "--out", "completed.png")
    touched_after_the_pass("sample", "touched", "--nearest", "-n", "2", "--out", "near.png")


@test
def memory_does_not_grow_with_a_file_of_more_than_4_gib():
    if os.environ.get("FULL", "0") in ("", "0"):
        raise Skip("a file of 4.5 GB: FULL=1")
    rows, columns = 2200000, 2048
    write_large("huge.npy", rows, columns, "|u1")
    process = subprocess.Popen([VAE, "train", "--data", "huge.npy", *map(str, LARGE), "--batch-size", "1024",
                                "--epochs", "1", "--out", "huge", "-q"], cwd=path())
    most = 0
    while process.poll() is None:
        with open(f"/proc/{process.pid}/status") as file:
            anon = [line for line in file if line.startswith("RssAnon")]
        most = max([most, *(int(line.split()[1]) for line in anon)])
        time.sleep(0.1)
    assert process.returncode == 0 and 0 < most < 300 << 10, (process.returncode, most)
    assert read_json("huge", "run.json")["data"]["rows"] == rows

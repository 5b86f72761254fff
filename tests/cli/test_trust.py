"""What a run holds is not lost, and what is not a run's is not touched."""
import os
import shutil
import signal
import struct
import subprocess

from harness import (Skip, TINY, VAE, WORK, checkpoints, metrics, newest, path, read_json,
                     same_end, test, trained, vae, write_npy)
from test_program import TRACED, strace


def copy(run, name):
    shutil.rmtree(path(name), ignore_errors=True)
    shutil.copytree(path(run), path(name))
    return name


def snapshot(folder):
    """Every entry under a folder with its content: links as what they point to."""
    found = {}
    for root, folders, files in os.walk(path(folder)):
        for name in folders + files:
            at = os.path.join(root, name)
            if os.path.islink(at):
                found[at] = os.readlink(at)
            elif os.path.isfile(at):
                with open(at, "rb") as file:
                    found[at] = file.read()
            else:
                found[at] = None
    return found


def put(text, *parts):
    os.makedirs(os.path.dirname(path(*parts)), exist_ok=True)
    with open(path(*parts), "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def cut(name, size):
    with open(path(name), "r+b") as file:
        file.truncate(size)


# ---- rotation ----

@test
def rotation_counts_what_can_be_read():
    vae("train", *TINY, "--epochs", 2, "--out", "turn", "-q")
    put("", "turn/checkpoints/step-0000008888.vae")
    put("", "turn/checkpoints/step-0000009999.vae")
    vae("train", "--resume", "--out", "turn", "--epochs", 4, "--keep", 2, "-q")
    vae("info", "turn", says="step-0000009999.vae")
    assert checkpoints("turn") == ["step-0000000030.vae", "step-0000000040.vae",
                                   "step-0000008888.vae", "step-0000009999.vae"]
    vae("train", *TINY, "--epochs", 4, "--out", "straight", "-q")
    for name in ("step-0000008888.vae", "step-0000009999.vae"):
        os.unlink(path("turn/checkpoints", name))
    same_end("turn", "straight")


@test
def rotation_keeps_the_last_that_can_be_read():
    """The newest is cut short, only one is kept, and the run ends at once."""
    for size in (0, 1000, 20000):
        shutil.rmtree(path("short"), ignore_errors=True)
        vae("train", *TINY, "--epochs", 2, "--out", "short", "--keep", 2, "-q")
        cut("short/checkpoints/step-0000000020.vae", size)
        vae("train", "--resume", "--out", "short", "--keep", 1, "--epochs", 2, code=-signal.SIGTERM,
            prefix=strace("rename:signal=SIGTERM:when=2"), env=TRACED)
        vae("info", "short")
        assert len(checkpoints("short")) == 2, checkpoints("short")
        vae("train", "--resume", "--out", "short", "--keep", 1, "--epochs", 2, "-q")
        vae("info", "short")
        assert checkpoints("short") == ["step-0000000020.vae"]


# ---- what is no damage is no reason to take an older checkpoint ----

@test
def a_checkpoint_that_cannot_be_read_now_is_an_error():
    run = copy(trained(), "transient")
    name = f"{run}/checkpoints/{checkpoints(run)[-1]}"
    folder, config = f"{run}/checkpoints", f"{run}/config.json"
    before = snapshot(run)
    commands = [["export", run, "--out", "transient.npz"], ["info", run],
                ["train", "--resume", "--out", run, "--epochs", 4], ["eval", run, "--limit", 10]]
    for at, call, error, says in (
            (name, "openat", "EMFILE", "Too many open files"), (name, "openat", "EACCES", "denied"),
            (name, "openat", "EIO", "Input/output"), (name, "pread64", "EIO", "Input/output"),
            (folder, "openat", "EACCES", "denied"), (folder, "getdents64", "EIO", "Input/output"),
            (config, "access,newfstatat,faccessat2,stat", "EIO", "Input/output")):
        prefix = strace(f"{call}:error={error}")
        prefix[1:1] = ["-P", at]
        for args in commands if at != config else commands[2:3]:
            vae(*args, code=4, says=says, prefix=prefix, env=TRACED)
            assert not os.path.exists(path("transient.npz"))
    after = snapshot(run)
    for at in before:
        if not at.endswith((".json", "log.txt", ".html")):
            assert after[at] == before[at], at
    # damage is: the one before is taken
    cut(f"{run}/checkpoints/{checkpoints(run)[-1]}", 5000)
    vae("export", run, "--out", "transient.npz", says="taking the checkpoint before it")

"""What a run holds is not lost, and what is not a run's is not touched."""
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import zipfile

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


@test
def what_cannot_be_known_is_no_no():
    """A split, labels, a folder, weights that cannot be looked at now are not taken as not there."""
    with zipfile.ZipFile(path("split.npz"), "w") as archive:
        for name, n in (("x_train", 40), ("x_test", 10)):
            write_npy("part.npy", n, 16, [i * 7 % 251 for i in range(16 * n)], "|u1")
            archive.write(path("part.npy"), name + ".npy")
    put(struct.pack(">IIII", 0x803, 40, 4, 4) + bytes(range(40)) * 16, "idx/train-images-idx3-ubyte")
    put(struct.pack(">II", 0x801, 40) + bytes(i % 3 for i in range(40)), "idx/train-labels-idx1-ubyte")
    small = ["--hidden", 4, "--latent", 2, "--epochs", 1, "--threads", 1, "-q"]
    vae("train", *small, "--data", "split.npz", "--out", "splits")
    vae("export", "splits", "--out", "splits.npz", "-q")

    def fails(at, fault, *args):
        prefix = strace(fault)
        prefix[1:1] = ["-P", at, "-P", path(at)]
        vae(*args, code=4, says=at, prefix=prefix, env=TRACED)

    for when in (1, 2, 3): # training rows, is there a test split, its rows
        fails("split.npz", f"openat:error=EIO:when={when}", "train", *small, "--data", "split.npz", "--out", "known")
        assert not os.path.exists(path("known"))
    for when in (1, 2): # eval and the report of the training rows instead, or without data, were exit 0
        fails("split.npz", f"openat:error=EIO:when={when}", "eval", "splits")
        fails("split.npz", f"openat:error=EMFILE:when={when}", "report", "splits")
    fails("idx/train-labels-idx1-ubyte", "stat,newfstatat:error=EIO", "train", *small, "--data", "idx", "--out", "known")
    fails("splits.npz", "openat:error=EIO:when=1", "info", "splits.npz")
    fails("splits/run.json", "openat:error=EIO", "eval", "splits")
    os.rename(path("split.npz"), path("moved.npz")) # gone: without data, as before
    vae("report", "splits", says="without data")


# ---- folders that are not a run's ----

def foreign_folders():
    """Projects of a person, each with names that a run uses too."""
    own = {"config.json": '{"epochs": 3, "lr": 0.1}', "run.json": '{"schema": 1, "status": "mine"}',
           "report.html": "<p>mine", "log.txt": "2026-01-01T00:00:00Z mine\n",
           "metrics.jsonl": '{"step": 1}\n', "samples/epoch-001.png": "mine",
           "checkpoints/step-0000000001.vae": "mine", "checkpoints/best.vae": "mine",
           "config.json.1-0.tmp": "mine", "notes.txt": "mine"}
    for names in ([name] for name in own):
        yield "foreign", {name: own[name] for name in names}
    yield "foreign", own


@test
def what_is_not_a_run_stays_as_it_is():
    vae("export", trained(), "--out", "weights.npz", "-q")
    for folder, files in foreign_folders():
        shutil.rmtree(path(folder), ignore_errors=True)
        for name, text in files.items():
            put(text, folder, name)
        before = snapshot(folder)
        for args in (["train", *TINY, "--force"], ["train", "--resume"],
                     ["import", "weights.npz", "--force"], ["train", *TINY],
                     ["import", "weights.npz"]):
            vae(*args, "--out", folder, code=2, says=folder)
            assert snapshot(folder) == before, (args, files)
    # a run of this program beside a config.json that is not
    copy("run", "mixed")
    put('{"name": "mine"}', "mixed/config.json")
    before = snapshot("mixed")
    for args in (["train", *TINY, "--force"], ["train", "--resume"], ["import", "weights.npz", "--force"]):
        vae(*args, "--out", "mixed", code=2, says="mixed: not a run of vae: its config.json is another program's")
        assert snapshot("mixed") == before

    # a checkpoint that cannot be read may be anyone's
    put("mine", "unknown", "notes.txt")
    os.makedirs(path("unknown/checkpoints"))
    os.symlink("step-0000000001.vae", path("unknown/checkpoints/step-0000000001.vae"))
    for args in (["train", *TINY, "--force"], ["train", "--resume"]):
        vae(*args, "--out", "unknown", code=4, says="unknown/checkpoints/step-0000000001.vae: cannot open")
    assert os.listdir(path("unknown/checkpoints")) == ["step-0000000001.vae"]


@test
def force_removes_what_a_run_wrote():
    run = copy(trained(), "forced")
    own = ["notes.txt", "samples/epoch-mine.png", "samples/face.png", "samples/mine.tmp",
           "checkpoints/step-mine.vae", "checkpoints/my best.vae", "checkpoints/mine.tmp", "x.tmp"]
    for name in own:
        put("mine", run, name)
    put("torn", run, "checkpoints/step-0000000099.vae.77-0.tmp")
    put("torn", run, "config.json.77-1.tmp")
    vae("train", *TINY, "--epochs", 1, "--out", run, "--force", "-q")
    left = {os.path.relpath(at, path(run)) for at in snapshot(run)}
    assert left == {"checkpoints", "samples", "config.json", "run.json", "log.txt", "metrics.jsonl",
                    "report.html", "samples/epoch-001.png", "samples/reconstruction-001.png",
                    "checkpoints/step-0000000000.vae", "checkpoints/step-0000000010.vae",
                    *own}, left
    os.symlink(path(run), path("by-link"))  # the folder itself may be named by a link
    vae("train", *TINY, "--epochs", 1, "--out", "by-link", "--force", "-q")
    assert os.path.islink(path("by-link"))


@test
def a_run_killed_at_birth_is_a_run():
    """SIGKILL at each system call that makes something, up to config.json."""
    for call in ("mkdir", "openat", "flock", "rename", "fsync"):
        for when in range(1, 40 if call == "openat" else 4):
            shutil.rmtree(path("born"), ignore_errors=True)
            args = ["train", *TINY, "--epochs", "1", "--limit", "40", "--out", "born"]
            prefix = strace(f"{call}:signal=SIGKILL:when={when}")
            prefix[1:1] = ["-P", "born", "-P", "born/log.txt", "-P", path("born/log.txt"), "-P",
                           "born/checkpoints", "-P", "born/samples", "-P", "born/config.json"]
            dead = subprocess.run([*prefix, VAE, *args], cwd=WORK, capture_output=True,
                                  env={**os.environ, **TRACED}).returncode != 0
            if dead:
                vae("train", "--resume=auto" if when % 2 else "--force", *args[1:], "-q")
            else:
                break


@test
def a_run_killed_while_it_is_replaced_is_a_run():
    """With files of a person in its folder, too."""
    vae("train", *TINY, "--epochs", 1, "--out", "replaced", "-q")
    put("mine", "replaced/notes.txt")
    args = ["train", *TINY, "--epochs", "1", "--limit", "40", "--out", "replaced", "--force", "-q"]
    for fault in ("unlink:signal=SIGKILL:when=2", "unlink:signal=SIGKILL:when=5", "rename:signal=SIGKILL:when=1"):
        dead = subprocess.run([*strace(fault), VAE, *map(str, args)], cwd=WORK, capture_output=True,
                              env={**os.environ, **TRACED})
        assert dead.returncode != 0, dead.stderr
        vae(*args)
        assert checkpoints("replaced")[-1] == "step-0000000002.vae"
        assert snapshot("replaced")[path("replaced/notes.txt")] == b"mine"


@test
def links_are_not_written_through():
    put("mine", "elsewhere/file")
    os.makedirs(path("elsewhere/folder"), exist_ok=True)
    os.makedirs(path("elsewhere/pictures"), exist_ok=True)
    elsewhere = snapshot("elsewhere")

    def plant(target, *parts):
        at = path(*parts)
        if os.path.isdir(at):
            shutil.rmtree(at)
        elif os.path.lexists(at):
            os.unlink(at)
        os.symlink(path("elsewhere", target), at)

    # what is written into: refused
    for name, target in (("log.txt", "file"), ("metrics.jsonl", "file"), ("log.txt", "new"),
                         ("metrics.jsonl", "new"), ("checkpoints", "folder"), ("samples", "folder")):
        run = copy(trained(), "linked")
        plant(target, run, name)
        before = snapshot(run)
        for args in (["--force"], ["--resume", "--epochs", 4]):
            vae("train", *(TINY if args == ["--force"] else []), *args, "--out", run, code=2,
                says=f"linked/{name}: a symbolic link")
            assert snapshot("elsewhere") == elsewhere and snapshot(run) == before, name
    # what is replaced: the link itself is; one to a device, too
    run = copy(trained(), "linked")
    for name in ("run.json", "config.json", "report.html", "samples/epoch-004.png",
                 "samples/reconstruction-004.png", "checkpoints/best.vae",
                 "checkpoints/step-0000000036.vae"):
        plant("file", run, name)
    os.unlink(path(run, "config.json"))
    shutil.copy(path("run/config.json"), path("elsewhere/config.json"))
    plant("config.json", run, "config.json")
    os.unlink(path(run, "run.json"))
    os.unlink(path(run, "samples/epoch-004.png"))
    os.symlink("/dev/full", path(run, "samples/epoch-004.png"))
    os.unlink(path(run, "report.html"))
    os.symlink("/dev/full", path(run, "report.html"))
    elsewhere = snapshot("elsewhere")
    vae("train", "--resume", "--out", run, "--epochs", 4, "-q")
    assert snapshot("elsewhere") == elsewhere
    assert not any(os.path.islink(at) for at in snapshot(run))
    os.unlink(path(run, "report.html"))
    os.symlink("/dev/full", path(run, "report.html"))
    vae("report", run, "-q")
    assert not os.path.islink(path(run, "report.html"))
    # a folder of pictures
    vae("sample", run, "-n", 3, "--out", "drawn/", "-q")
    plant("file", "drawn/000001.png")
    vae("sample", run, "-n", 3, "--out", "drawn/", "-q")
    assert snapshot("elsewhere") == elsewhere and len(os.listdir(path("drawn"))) == 3
    assert not os.path.islink(path("drawn/000001.png"))


# ---- a file that is damaged is an error ----

@test
def a_gif_that_failed_in_the_middle_is_not_kept():
    run = trained()
    args = ["interpolate", run, "--from", 1, "--to", 2, "--limit", 10, "--out", "walk.gif", "-q"]
    vae(*args)
    before = snapshot(".")[path(".", "walk.gif")]
    for when in (1, 5, 20):
        vae(*args, code=4, says="walk.gif: cannot write: ",
            prefix=strace(f"write:error=EIO:when={when}"), env=TRACED)
        after = {at: text for at, text in snapshot(".").items() if "walk.gif" in at}
        assert after == {path(".", "walk.gif"): before}, sorted(after)


@test
def what_a_run_could_not_write_is_said():
    """Of a run that is quiet, too: the training goes on, and the exit code is 4."""
    args = ["train", *TINY, "--epochs", 2, "--out", "lossy", "-q"]
    # renames: config.json, run.json, step 0; two pictures and a checkpoint each epoch; run.json, report
    for when, says in ((4, "samples/epoch-001.png"), (8, "samples/reconstruction-002.png"),
                       (10, "lossy/run.json"), (11, "lossy/report.html")):
        lost = vae(*args, code=4, says=f"warning: lossy/{says[6:] if says[0] == 'l' else says}: cannot "
                   "write: Input/output error", prefix=strace(f"rename:error=EIO:when={when}"),
                   env=TRACED)
        assert lost.err.count("warning: ") == 1 and "the training itself is done" in lost.err
        vae("info", "lossy")
        shutil.rmtree(path("lossy"))
    prefix = strace("write:error=ENOSPC")
    prefix[1:1] = ["-P", path("lossy/log.txt")]
    lost = vae(*args, "--json", code=4, says="log.txt: cannot write: No space left", prefix=prefix,
               env=TRACED)
    assert lost.json()["epoch"] == 2 and lost.err.count("warning: ") == 1, lost.err


@test
def a_log_that_fails_midway_is_told_once():
    """What is told goes to the log, too: where that is what failed, the telling must not begin again."""
    prefix = strace("write:error=ENOSPC:when=3+")
    prefix[1:1] = ["-P", path("crowded", "log.txt")]
    lost = vae("train", *TINY, "--epochs", 2, "--out", path("crowded"), code=4, prefix=prefix, env=TRACED)
    assert lost.err.count("warning: ") == 1, lost.err
    assert len(checkpoints("crowded")) > 0 and read_json("crowded", "run.json")["epoch"] == 2


@test
def a_set_of_files_is_replaced_together():
    vae("train", *TINY, "--epochs", 1, "--binarize", "dynamic", "--semi-supervised", "--labelled",
        100, "--out", "half-labelled", "-q")
    names = ["set.encoder.onnx", "set.decoder.onnx", "set.classifier.onnx"]
    calls = [f"{call}:error={error}:when={when}" for call, error in (
        ("renameat2", "EIO"), ("fsync", "EIO"), ("write", "ENOSPC"))
        for when in range(1, 4)]
    for old in ([], names[:1], names[1:], names):
        for name in names:
            if os.path.exists(path(name)):
                os.unlink(path(name))
        for name in old:
            put("old " + name, name)
        before = {at: text for at, text in snapshot(".").items() if "/set." in at}
        for fault in calls:
            prefix = strace(fault)
            vae("export", "half-labelled", "--out", "set.onnx", "-q", code=4, says="cannot write",
                prefix=prefix, env=TRACED)
            after = {at: text for at, text in snapshot(".").items() if "/set." in at}
            assert after == before, (fault, old, sorted(after))
        # where two names cannot be exchanged
        prefix = strace("renameat2:error=EINVAL")
        prefix[1:1] = ["-e", "inject=rename:error=EIO:when=4"]
        prefix[prefix.index("trace=renameat2")] = "trace=renameat2,rename"
        if len(old) == 3:
            vae("export", "half-labelled", "--out", "set.onnx", "-q", code=4, prefix=prefix, env=TRACED)
            after = {at: text for at, text in snapshot(".").items() if "/set." in at}
            assert after == before, sorted(after)
        vae("export", "half-labelled", "--out", "set.onnx", "-q")
        after = {at: text for at, text in snapshot(".").items() if "/set." in at}
        assert len(after) == 3 and all(len(text) > 1000 for text in after.values())


# ---- killed at the very end ----

@test
def a_run_killed_before_its_report_gets_one():
    """At each rename behind the last checkpoint's: run.json, then report.html."""
    vae("train", *TINY, "--epochs", 2, "--out", "whole-end", "-q")
    done = vae("train", "--resume", "--out", "whole-end")
    assert "already finished" in done.err and "not all was written" not in done.err
    first = snapshot("whole-end")
    for when in (10, 11):
        run = f"cut-end-{when}"
        args = ["train", *TINY, "--epochs", 2, "--out", run, "-q"]
        dead = subprocess.run([*strace(f"rename:signal=SIGKILL:when={when}"), VAE, *map(str, args)],
                              cwd=WORK, capture_output=True, env={**os.environ, **TRACED})
        assert dead.returncode != 0 and not os.path.exists(path(run, "report.html"))
        same_end(run, "whole-end")
        if when == 11:
            os.unlink(path(run, "samples/epoch-002.png"))
        result = vae("train", "--resume", "--out", run, "--json", says="not all was written")
        assert result.json()["had_finished"] and result.json()["report"] == f"{run}/report.html"
        assert read_json(run, "run.json")["status"] == "done"
        with open(path(run, "report.html")) as file:
            assert ">done<" in file.read()
        for picture in ("samples/epoch-002.png", "samples/reconstruction-002.png"):
            assert snapshot(run)[path(run, picture)] == first[path("whole-end", picture)]
        before = snapshot(run)
        vae("train", "--resume", "--out", run, says="already finished")
        assert {k: v for k, v in snapshot(run).items() if "log.txt" not in k} == {
            k: v for k, v in before.items() if "log.txt" not in k}, "nothing is missing now"
    # one that is not wanted is not missing
    vae("train", *TINY, "--epochs", 1, "--out", "no-page", "--report=false", "-q")
    vae("train", "--resume", "--out", "no-page", "-q")
    assert not os.path.exists(path("no-page/report.html"))


# ---- what is no file, and what is in one ----

@test
def pipes_are_refused_not_waited_for():
    run = trained()
    os.mkfifo(path("pipe"))
    for name in ("pipe.npz", "pipe.npy", "pipe.csv", "pipe.png"):
        os.mkfifo(path(name))
    vae("info", "pipe", code=3, says="pipe: not a regular file")
    vae("import", "pipe", "--out", "piped", code=3, says="not a regular file")
    vae("train", *TINY, "--config", "pipe", code=3, says="pipe: a pipe or a device")
    vae("train", *TINY, "--config", ".", code=3, says=".: a folder")
    for name in ("pipe.npz", "pipe.npy", "pipe.csv"):
        vae("eval", run, "--data", name, code=3, says="not a regular file")
        vae("decode", run, "--latents", name, "--out", "x.npy", code=3, says="not a regular file")
    vae("interpolate", run, "--from", "pipe.png", "--to", "pipe.png", "--out", "x.png", code=3,
        says="not a regular file")
    vae("complete", run, "--mask", "pipe.npy", "--out", "x.png", code=3, says="not a regular file")
    os.rename(path("pipe"), path(copy(run, "piped"), "report.html"))
    vae("report", "piped", "-q")


def tiny_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


@test
def a_limit_of_file_sizes_is_an_error():
    vae("train", *TINY, "--epochs", 1, "--out", "limited", code=4, says="File too large",
        preexec_fn=tiny_files)
    vae("export", trained(), "--out", "limited.npz", code=4, says="limited.npz: cannot write",
        preexec_fn=tiny_files)
    assert not any("limited.npz" in name for name in os.listdir(WORK))


@test
def text_of_files_cannot_steer_a_terminal():
    evil = "a\x1b]0;owned\x07\x1b[2Jb\x7f\x9bc\n"
    run = copy(trained(), "evil")
    vae("export", run, "--out", "evil.safetensors", "-q")
    with open(path("evil.safetensors"), "rb") as file:
        data = file.read()
    n = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8:8 + n])
    header["__metadata__"][evil] = evil
    header[evil] = {"dtype": "F32", "shape": [0], "data_offsets": 2 * [len(data) - 8 - n]}
    text = json.dumps(header).encode()
    put(struct.pack("<Q", len(text)) + text + data[8 + n:], "evil.safetensors")
    shown = vae("info", "evil.safetensors")
    told = vae("import", "evil.safetensors", "--out", "evil-run", code=3)
    named = vae("info", f"no {evil} file", code=4)
    for text in (shown.out, told.err, named.err):
        assert "\\x1b]0;owned\\x07\\x1b[2Jb\\x7f\\x9bc\\x0a" in text, text
        assert not set(text) & {"\x1b", "\x07", "\x7f", "\x9b"}, text


@test
def a_failing_disk_is_exit_4():
    run = trained()
    for name in ("disk.npz", "disk.safetensors"):
        vae("export", run, "--out", name, "-q")
        for when in (1, 2, 3, 5, 8):
            for call in ("pread64", "read"):
                prefix = strace(f"{call}:error=EIO:when={when}")
                prefix[1:1] = ["-P", path(name)]
                process = subprocess.run([*prefix, VAE, "import", name, "--out", "disk-run"], cwd=WORK,
                                         capture_output=True, env={**os.environ, **TRACED})
                err = process.stderr.decode()
                if process.returncode == 0:  # so many reads there are not
                    shutil.rmtree(path("disk-run"))
                else:
                    assert process.returncode == 4 and name in err, (name, call, when, err)
    vae("sample", run, "-n", 2, "--out", "disk/", "-q")
    prefix = strace("read:error=EIO")
    prefix[1:1] = ["-P", path("disk/000000.png")]
    vae("interpolate", run, "--from", "disk/000000.png", "--to", "disk/000001.png", "--out", "x.png",
        code=4, says="000000.png", prefix=prefix, env=TRACED)


# ---- no memory ----

STARVE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long n, at = -1;
/* Counting begins where main begins, by its first call of signal(): what libraries take before it
 * (CUDA's, where it is linked) is theirs, and they may end as they like. */
static int armed;
void (*signal(int number, void (*handler)(int)))(int)
{
    struct sigaction act = {.sa_handler = handler}, old;
    armed = 1;
    return sigaction(number, &act, &old) == 0 ? old.sa_handler : SIG_ERR;
}
static int fails(void)
{
    if (!armed) {
        return 0;
    }
    if (at < 0) {
        const char *text = getenv("FAIL_AT");
        at = text != NULL ? atol(text) : 0;
    }
    return __atomic_add_fetch(&n, 1, __ATOMIC_RELAXED) == at ? (errno = ENOMEM, 1) : 0;
}
void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t a, size_t b) { return fails() ? NULL : __libc_calloc(a, b); }
void *realloc(void *p, size_t size) { return fails() ? NULL : __libc_realloc(p, size); }
"""


@test
def failed_allocations_are_exit_1():
    """Every 7th (FULL=1: each) allocation of commands that read and write JSON fails."""
    program = os.path.join(os.path.dirname(VAE), "..", "vae")  # of the tests: it has no sanitizer
    if not os.access(program, os.X_OK):
        raise Skip(f"no {program}")
    if shutil.which("cc") is None:
        raise Skip("no cc")
    put(STARVE, "starve.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", path("starve.so"), path("starve.c")], check=True)
    run = trained()
    vae("export", run, "--out", "fed.safetensors", "-q")
    step = 1 if os.environ.get("FULL") == "1" else 7
    sizes = {}
    outs = ["starved.vae", "starved.safetensors", "starved.npz", "starved.encoder.onnx"]
    for args in (["info", "fed.safetensors"], ["info", "fed.safetensors", "--json"],
                 ["import", "fed.safetensors", "--out", outs[0]], ["export", run, "--out", outs[1]],
                 ["export", run, "--out", outs[2]], ["export", run, "--out", "starved.onnx"]):
        good = vae(*args).out
        sizes.update((name, os.path.getsize(path(name))) for name in outs if os.path.exists(path(name)))
        for at in range(1, 100000, step):
            for name in outs:
                if os.path.exists(path(name)):
                    os.unlink(path(name))
            process = subprocess.run([program, *args], cwd=WORK, capture_output=True, env={
                **os.environ, "LD_PRELOAD": path("starve.so"), "FAIL_AT": str(at), "OMP_NUM_THREADS": "1"})
            code, err = process.returncode, process.stderr.decode()
            if code == 0:
                assert process.stdout.decode() == good, (args, at)
                if at > 1000:  # of some 800
                    break
            else:  # opendir's is the folder's
                assert code == 1 or (code == 4 and "Cannot allocate memory" in err), (args, at, code, err)
                assert "emory" in err, (args, at, err)
                for name in outs:  # what is there (it was the message that failed) is whole
                    whole = not os.path.exists(path(name)) or os.path.getsize(path(name)) == sizes[name]
                    assert whole, (args, at, name)


def peak(*args):
    """Runs vae; the most memory it held, in MiB. By a small process between, as a new process counts
    what the one held that it was forked from."""
    between = ("import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
               "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", between, VAE, *map(str, args)], cwd=WORK,
                          capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr.decode()
    return int(done.stdout.split()[-1]) / 1024


@test
def archives_take_what_is_wanted():
    """A few rows of an archive that unpacks to 200 MB, of each type."""
    import zipfile
    for descr, item in (("|u1", 1), ("|b1", 1), ("<f4", 4), ("<f8", 8)):
        rows = 200_000_000 // item // 100
        header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, 100), }}"
        header += " " * (63 - (10 + len(header)) % 64) + "\n"
        with zipfile.ZipFile(path("large.npz"), "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("x.npy", "w") as member:
                member.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
                member.write(bytes(rows * 100 * item))
        args = ["train", "--data", "large.npz", "--limit", 20, "--hidden", 4, "--latent", 2, "--epochs",
                1, "--device", "cpu", "--threads", 1, "--report=false", "--out", "few", "--force"]
        held = peak(*args)
        assert held < 120, (descr, held)
        vae("info", "few")
    # before the data are looked at
    vae("train", "--data", "nowhere.npz", "--hidden", "400000,400000", "--out", "too-large", code=2,
        says="the model is too large")
    assert not os.path.exists(path("too-large"))


@test
def masks_are_booleans_bytes_or_floats():
    run, made = trained(), set()
    observed = [k % 3 % 2 for k in range(784)]

    def completed(name, values, dtype):
        mask = write_npy(name, 28, 28, values, dtype)
        vae("complete", run, "--mask", mask, "--rows", 1, "-n", 1, "--rounds", 1, "--out", "m.png")
        with open(path("m.png"), "rb") as file:
            return file.read()
    made = {completed("bools.npy", observed, "|b1"), completed("bytes01.npy", observed, "|u1"),
            completed("bytes255.npy", [255 * v for v in observed], "|u1"), completed("floats.npy", observed, "<f4")}
    assert len(made) == 1, "masks that say the same hide the same"
    assert completed("inverse.npy", [1 - v for v in observed], "|u1") not in made
    mask = write_npy("grey.npy", 28, 28, [7, *observed[1:]], "|u1")
    vae("complete", run, "--mask", mask, "--out", "m.png", code=3, says="value 0 is 7; a mask has 0 (missing) and 1")
    # elsewhere such bytes are refused
    vae("score", run, "--data", "bytes01.npy", "--out", "s.csv", code=3, says="array.astype(bool)")
    vae("decode", run, "--latents", "bools.npy", "--out", "m.npy", code=3, says="found booleans")

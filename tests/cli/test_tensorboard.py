"""TensorBoard's files in a run: whose they are. What is in them its own reader checks
(tests/roundtrip/check_commands.py)."""
import os
import struct
import time

from harness import TINY, path, test, vae

BEGAN = time.time()


def board(run):
    return sorted(os.listdir(path(run, "tensorboard")))


def fields(raw):
    """(number, value) of a protobuf message: whole numbers, doubles, floats, bytes."""
    at = 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            value |= (raw[at] & 0x7f) << shift
            shift, at = shift + 7, at + 1
            if raw[at - 1] < 0x80:
                return value
    while at < len(raw):
        key = varint()
        if key & 7 in (1, 5):
            kind = "<d" if key & 7 == 1 else "<f"
            yield key >> 3, struct.unpack_from(kind, raw, at)[0]
            at += struct.calcsize(kind)
        elif key & 7 == 2:
            size = varint()
            yield key >> 3, raw[at:at + size]
            at += size
        else:
            yield key >> 3, varint()


def summaries(run):
    """(step, {tag: {field: value}}) of each event in the files of a run, in order. Each was written by now, and
    not before this program began."""
    raw, at = b"", 0
    for name in board(run):
        if "tfevents" in name:
            with open(path(run, "tensorboard", name), "rb") as file:
                raw += file.read()
    while at < len(raw):
        (size,) = struct.unpack_from("<Q", raw, at)
        event = dict(fields(raw[at + 12:at + 12 + size]))
        assert BEGAN <= event[1] <= time.time(), event[1]
        values = [dict(fields(value)) for _, value in fields(event.get(5, b""))]
        yield event.get(2, 0), {value[1].decode(): value for value in values}
        at += 12 + size + 4


@test
def tensorboard_is_written_if_asked_for():
    vae("train", *TINY, "--epochs", 1, "--out", "no-board", "-q")
    assert not os.path.exists(path("no-board", "tensorboard"))
    vae("train", *TINY, "--epochs", 1, "--tensorboard", "--out", "board", "-q")
    assert len(board("board")) == 5 and board("board")[-3:] == [
        "mu.tsv", "projector_config.pbtxt", "sprite.png"]
    # a folder that is replaced keeps what is not a run's
    with open(path("board", "tensorboard", "mine.txt"), "w") as file:
        file.write("mine")
    vae("train", *TINY, "--epochs", 1, "--force", "--out", "board", "-q")
    assert board("board") == ["mine.txt"]


@test
def tensorboard_is_not_written_through_links():
    os.makedirs(path("linked-to"))
    vae("train", *TINY, "--epochs", 1, "--out", "linked", "-q")
    os.symlink(path("linked-to"), path("linked", "tensorboard"))
    vae("train", "--resume", "--out", "linked", "--epochs", 2, "--tensorboard", code=2,
        says="a symbolic link")
    assert os.listdir(path("linked-to")) == []


@test
def tensorboard_of_a_table():
    with open(path("board.csv"), "w") as file:
        file.write("a,b\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(40)))
    vae("train", "--data", "board.csv", "--likelihood", "gaussian", "--hidden", "4", "--latent", "2",
        "--device", "cpu", "--threads", "1", "--epochs", "1", "--tensorboard", "--out", "table", "-q")
    assert board("table")[-2:] == ["mu.tsv", "projector_config.pbtxt"] and len(board("table")) == 3
    with open(path("table", "tensorboard", "mu.tsv")) as file:
        assert [len(line.split("\t")) for line in file] == [2] * 40
    (_, first), (step, last) = summaries("table")
    assert first == {} and step == 1
    kl = vae("eval", "table", "--json").json()["kl_per_dim"]
    spread = dict(fields(last["kl_of_dimensions"][5]))
    for value, wanted in zip((spread[1], spread[2], spread[3], spread[4]), (min(kl), max(kl), 2, sum(kl))):
        assert abs(value - wanted) < 1e-5 * abs(wanted), (spread, kl)
    # a session more; then the same again, as if it had been killed before its checkpoint
    vae("train", "--resume", "--epochs", 2, "--out", "table", "-q")
    os.remove(path("table", "checkpoints", "step-0000000002.vae"))
    vae("train", "--resume", "--epochs", 2, "--out", "table", "-q")
    assert [step for step, tags in summaries("table") if tags] == [1, 2]

"""TensorBoard's files in a run: whose they are. What is in them its own reader checks
(tests/roundtrip/check_commands.py)."""
import os

from harness import TINY, path, test, vae


def board(run):
    return sorted(os.listdir(path(run, "tensorboard")))


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
    os.makedirs(path("elsewhere"))
    vae("train", *TINY, "--epochs", 1, "--out", "linked", "-q")
    os.symlink(path("elsewhere"), path("linked", "tensorboard"))
    vae("train", "--resume", "--out", "linked", "--epochs", 2, "--tensorboard", code=2,
        says="a symbolic link")
    assert os.listdir(path("elsewhere")) == []


@test
def tensorboard_of_a_table():
    with open(path("board.csv"), "w") as file:
        file.write("a,b\n" + "".join(f"{i % 7},{i % 5}\n" for i in range(40)))
    vae("train", "--data", "board.csv", "--likelihood", "gaussian", "--hidden", "4", "--latent", "2",
        "--device", "cpu", "--threads", "1", "--epochs", "1", "--tensorboard", "--out", "table", "-q")
    assert board("table")[-2:] == ["mu.tsv", "projector_config.pbtxt"] and len(board("table")) == 3
    with open(path("table", "tensorboard", "mu.tsv")) as file:
        assert [len(line.split("\t")) for line in file] == [2] * 40

"""vae train --sweep: a run for each combination of values."""
import os
import pty
import signal
import subprocess
import time

from harness import TINY, VAE, WORK, newest, path, read_json, test, vae


def runs(folder):
    return sorted(name for name in os.listdir(path(folder)) if name != "compare.html")


@test
def sweep_trains_every_combination():
    result = vae("train", *TINY, "--epochs", 1, "--sweep", "beta=1,2", "--sweep", "seed=2,3",
                 "--jobs", 2, "--out", "sweep", "--json", says="beta-2_seed-3: done: epoch 1")
    assert runs("sweep") == [f"beta-{b}_seed-{z}" for b in (1, 2) for z in (2, 3)]
    for b in (1, 2):
        for z in (2, 3):
            config = read_json(f"sweep/beta-{b}_seed-{z}", "config.json")
            assert (config["beta"], int(config["seed"]), config["hidden"]) == (b, z, [16])
    table = result.json()
    assert [r["options"] for r in table["runs"]] == [
        {"seed": str(z), "beta": str(b)} for b in (1, 2) for z in (2, 3)]
    assert os.path.getsize(path("sweep/compare.html")) > 10000
    # each is what it would have been alone
    vae("train", *TINY, "--epochs", 1, "--beta", 2, "--seed", 3, "--out", "alone", "-q")
    assert newest("alone")["params"] == newest("sweep/beta-2_seed-3")["params"]


@test
def sweep_takes_lists():
    vae("train", "--limit", 100, "--latent", 2, "--device", "cpu", "--threads", 1, "--epochs", 1,
        "--sweep", "hidden=8;8,4", "--out", "lists", "-q")
    assert runs("lists") == ["hidden-8", "hidden-8+4"]
    assert read_json("lists/hidden-8+4", "config.json")["hidden"] == [8, 4]


@test
def sweep_goes_on():
    sweep = ["train", *TINY, "--sweep", "seed=1,2", "--out", "on"]
    vae(*sweep, "--epochs", 1, "-q")
    vae(*sweep, "--epochs", 2, "-q", code=2, says="there already")
    vae(*sweep, "--epochs", 2, "--resume", "-q")
    assert read_json("on/seed-1", "run.json")["epoch"] == 2
    vae("train", *TINY, "--epochs", 2, "--seed", 2, "--out", "on-alone", "-q")
    assert newest("on/seed-2")["params"] == newest("on-alone")["params"]


@test
def sweep_tells_of_failures():
    result = vae("train", *TINY, "--epochs", 1, "--sweep", "lr=1e30,1e-3", "--out", "bad", code=5,
                 says="1 of 2 runs failed")
    assert "bad/lr-1e30: failed" in result.err and "bad/lr-1e-3: done" in result.err
    assert os.path.exists(path("bad/compare.html"))


@test
def sweep_is_stopped_and_goes_on():
    many = ["train", *TINY, "--sweep", "seed=1,2,3", "--jobs", "2", "--out", "stopped", "-q"]
    process = subprocess.Popen([VAE, *many, "--epochs", "100000"], stderr=subprocess.PIPE, cwd=WORK,
                               stdin=subprocess.DEVNULL)
    wait = time.time() + 60
    while len([r for r in ("stopped/seed-1", "stopped/seed-2")
               if os.path.exists(path(r, "metrics.jsonl"))]) < 2:
        assert time.time() < wait
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM and b"goes on with the sweep" in err, err
    assert runs("stopped") == ["seed-1", "seed-2"]
    assert read_json("stopped/seed-1", "run.json")["status"] == "interrupted"
    done = read_json("stopped/seed-1", "run.json")["epoch"]
    vae(*many, "--epochs", done + 1, "--resume")
    assert runs("stopped") == ["seed-1", "seed-2", "seed-3"]
    assert read_json("stopped/seed-3", "run.json")["status"] == "done"


@test
def sweep_shows_its_runs_on_a_terminal():
    master, slave = pty.openpty()
    process = subprocess.Popen([VAE, "train", *TINY, "--epochs", "40", "--sample-every", "0",
                                "--sweep", "seed=7,8", "--out", "shown"], stderr=slave, stdin=slave,
                               stdout=subprocess.DEVNULL, cwd=WORK,
                               env={**os.environ, "TERM": "xterm"})
    os.close(slave)
    text = b""
    while True:
        try:
            part = os.read(master, 4096)
        except OSError:
            break
        if not part:
            break
        text += part
    assert process.wait() == 0 and b"  seed-7  " in text and b"seed-8: done: epoch 40" in text


@test
def sweep_refuses():
    for words, says in ((["beta"], "expected OPTION=VALUE"), (["beta=1,,2"], "none of them empty"),
                        (["out=a,b"], "each run has its own"), (["bta=1,2"], "did you mean 'beta'"),
                        (["latent=1,2"], "give one of them"), (["beta=1,x"], "--beta: expected"),
                        (["beta=1,1"], "two runs would be in"),
                        (["lr-gamma=0.5,0.6"], "--lr-gamma has no effect"),
                        (["beta=1,2", "--sweep", "beta=3"], "given twice")):
        vae("train", *TINY, "--sweep", *words, "--out", "refused", code=2, says=says)
    vae("train", *TINY, "--sweep", "beta=1,2", code=2, says="--sweep needs --out")
    vae("train", *TINY, "--jobs", 2, "--out", "refused", code=2, says="--jobs has no effect")
    assert not os.path.exists(path("refused"))

"""Ranks: `mpirun -n N vae` computes what one process does, agrees on everything, and ends as one. With
FULL=1 each kind of model on 2, 3 and 4 ranks, 20 kills, each MPI call that fails; else a part of that."""
import array
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time

from harness import (TINY, VAE, WORK, Skip, checkpoints, metrics, newest, path, read_json, sections, test, vae,
                     write_npy)

FULL = os.environ.get("FULL", "0") not in ("", "0")
ALONE = os.path.join(os.path.dirname(VAE), "vae_alone")  # the same, built without MPI
FAIL = path("fail_mpi.so")  # a copy: names in LD_PRELOAD end at a space
if os.path.exists(os.path.join(os.path.dirname(VAE), "fail_mpi.so")):
    shutil.copy(os.path.join(os.path.dirname(VAE), "fail_mpi.so"), FAIL)
DEVICE = os.environ.get("VAE_RANKS_DEVICE", "cpu")
ENV = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,vader",
       "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMPI_MCA_hwloc_base_binding_policy": "none",
       "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "PRTE_MCA_hwloc_default_binding_policy": "none",  # 5
       "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}  # MPI's own
# 100 steps, the last of each epoch with one row: fewer than the ranks
STEPS = [*TINY[2:], "--data", "digits", "--limit", "289", "--epochs", "10", "--seed", "5", "--force", "-q", "--report=false",
         "--sample-every", "0", "--device", DEVICE]
KINDS = {
    "bernoulli": [],
    "dynamic": ["--binarize", "dynamic", "--clip-norm", "20", "--optimizer", "adamw", "--weight-decay", "0.01"],
    "static": ["--binarize", "static", "--activation", "gelu"],
    "gaussian": ["--likelihood", "gaussian", "--validation", "0.1", "--limit", "321"],
    "gaussian, optimal variance": ["--likelihood", "gaussian-optimal"],
    "learned variance": ["--likelihood", "gaussian-learned", "--lr", "1e-4"],
    "iwae": ["--objective", "iwae", "--particles", "3"],
    "dreg": ["--objective", "dreg", "--particles", "3", "--activation", "tanh"],
    "stl": ["--objective", "stl", "--particles", "2"],
    "free bits": ["--free-bits", "0.2"],
    "conditional": ["--condition", "labels"],
    "semi-supervised": ["--semi-supervised", "--labelled", "30", "--activation", "tanh", "--limit", "319"],
    "convolutions": ["--conv", "3", "--hidden", "none", "--flip", "--activation", "tanh", "--batch-size", "29"],
    # all at once: where what is drawn of a row stands in the batch is at its most intricate
    "semi-supervised convolutions": ["--conv", "3", "--hidden", "none", "--flip", "--semi-supervised", "--labelled",
                                     "30", "--activation", "tanh", "--binarize", "dynamic", "--batch-size", "29", "--limit",
                                     "319"],
    "bits": ["--data", "sprites", "--limit", "165", "--hidden", "4", "--batch-size", "18"],
}


def launcher():
    if shutil.which("mpirun") is None or "built without MPI" in vae("devices").out:
        raise Skip("no mpirun, or a vae without MPI")
    return ["mpirun"]


def forgets():
    """Open MPI 5's mpirun may end before it has passed on what a rank said last."""
    return re.search(r"Open MPI v([5-9]|\d\d)", vae("devices").out) is not None


def ranks(n, *args, code=0, says=None, env=None, prefix=()):
    """vae as n ranks, which end with `code` (or one of several); mpirun's own lines are cut out of what it says."""
    command = [*launcher(), "-n", str(n), *prefix, VAE, *map(str, args)]
    process = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, cwd=WORK, timeout=120,
                             env={**os.environ, **ENV, **(env or {})})
    out, err = process.stdout.decode(errors="replace"), process.stderr.decode(errors="replace")
    codes = code if isinstance(code, tuple) else (code,)
    assert process.returncode in codes, f"{' '.join(command)}: exit {process.returncode}, not {code}: {err}"
    assert says is None or re.search(says, err), f"{' '.join(command)}: '{says}' is not in: {err}"
    lines = [line for line in err.splitlines() if line.startswith("vae: ")]
    assert lines or not 1 <= process.returncode <= 6 or forgets(), f"{' '.join(command)}: exit {process.returncode} without a word"
    return out, lines


def weights(run):
    return array.array("f", newest(run)["params"])


def apart(a, b):
    """Relative distance of two runs' parameters."""
    a, b = weights(a), weights(b)
    assert len(a) == len(b)
    return math.sqrt(sum((x - y)**2 for x, y in zip(a, b)) / sum(x * x for x in a))


def close(a, b, limit=1e-5):
    distance = apart(a, b)
    assert distance < limit, f"{a} and {b}: parameters differ by {distance:.1e} of their length"


def one_and_many(name, options, counts):
    vae("train", *STEPS, *options, "--out", "one")
    assert int.from_bytes(newest("one")["state"][:8], "little") == 100
    for n in counts:
        ranks(n, "train", *STEPS, *options, "--out", "many")
        close("one", "many")
        for a, b in zip(metrics("one"), metrics("many"), strict=True):
            for key, value in a.items():
                assert value == b[key] or math.isclose(value, b[key], rel_tol=1e-5), (name, n, key, value, b[key])


@test
def ranks_compute_what_one_does():
    """Every likelihood, objective and kind of model: 100 steps, and the figures of each epoch."""
    launcher()
    for i, (name, options) in enumerate(KINDS.items()):
        one_and_many(name, options, (2, 3, 4) if FULL else (2 + i % 3,))


@test
def repeated_runs_and_ranks_have_equal_bits():
    """Ranks compare their parameters after every epoch themselves; that they notice is tested below."""
    for run in ("a", "b"):
        ranks(3, "train", *STEPS, "--out", run)
    assert newest("a")["params"] == newest("b")["params"]
    assert metrics("a") == metrics("b")


@test
def a_rank_that_computes_wrong_is_noticed():
    launcher()
    if not os.path.exists(FAIL):
        raise Skip("fail_mpi.so is not built")
    ranks(2, "train", *STEPS, "--out", "wrong", code=1, says="the parameters: rank 1 on .* and rank 0 on .* differ",
          env={"LD_PRELOAD": FAIL, "VAE_MPI_FLIP": "20"}, prefix=sanitizer())


def sanitizer():
    """A preloaded library must come behind the sanitizer's, if the program has one."""
    linked = subprocess.run(["ldd", VAE], capture_output=True, text=True).stdout
    found = re.search(r"libasan\S* => (\S+)", linked)
    return ["env", f"LD_PRELOAD={found[1]}:{FAIL}"] if found else []


@test
def a_run_goes_on_with_other_ranks():
    vae("train", *STEPS, "--validation", "0.1", "--out", "whole")
    for first, then in ((3, 1), (1, 2), (2, 4)):
        halves = [*STEPS, "--validation", "0.1", "--epochs", "5", "--out", "halves"]
        vae("train", *halves) if first == 1 else ranks(first, "train", *halves)
        more = ["train", "--resume", "--out", "halves", "--epochs", "10", "-q"]
        vae(*more) if then == 1 else ranks(then, *more)
        close("whole", "halves")
        assert [m["epoch"] for m in metrics("halves")] == [m["epoch"] for m in metrics("whole")]


@test
def a_stacked_run_shares_the_encoding():
    vae("train", *STEPS, "--epochs", "2", "--out", "below")
    stacked = [*STEPS, "--stack", "below", "--likelihood", "gaussian", "--hidden", "8", "--epochs", "4"]
    vae("train", *stacked, "--out", "one")
    ranks(2, "train", *stacked, "--out", "many")
    close("one", "many")


@test
def the_first_writes_and_prints():
    out, err = ranks(3, "train", *TINY, "--epochs", "2", "--out", "told", "--json")
    assert out.count('"schema"') == 1 and sum("trained 2 epochs" in line for line in err) <= 1
    about = read_json("told", "run.json")
    assert [r["rank"] for r in about["ranks"]] == [0, 1, 2] and about["status"] == "done"
    assert {r["host"] for r in about["ranks"]} == {about["host"]["name"]}
    assert all(r["device"].startswith("cpu, 1 thread") for r in about["ranks"]) and about["mpi"]
    assert "ranks" not in read_json(trained_alone(), "run.json")
    names = {n for _, _, files in os.walk(path("told")) for n in files}
    assert names == {n for _, _, files in os.walk(path("alone")) for n in files}
    os.makedirs(path("nowhere"), exist_ok=True)
    ranks(2, "train", *TINY, "--epochs", "1", says="the run is in runs/digits-")
    assert len(os.listdir(path("runs"))) == 1


def trained_alone():
    if not os.path.exists(path("alone")):
        vae("train", *TINY, "--epochs", "2", "--out", "alone")
    return "alone"


@test
def ranks_make_one_cache_of_pictures():
    """The first makes it, the others open it; the bits are those of a run without."""
    os.makedirs(path("pictures"))
    for i in range(400):  # which takes longer than two ranks can be apart
        with open(path("pictures", f"{i:03d}.pgm"), "wb") as file:
            file.write(b"P5 4 4 255\n" + bytes((i * 31 + k * 17) % 256 for k in range(16)))
    options = ["train", "--data", "pictures", "--hidden", 3, "--latent", 2, "--epochs", 2, "--batch-size", 99, "--device", "cpu",
               "--sample-every", 0, "--report=false", "-q", "--out"]
    ranks(2, *options, "plain-pictures")
    trace = ["strace", "-f", "-ff", "-qq", "-e", "trace=rename,renameat,renameat2", "-o", "renames"]
    ranks(2, *options, "kept-pictures", "--cache", "pictures.cache", prefix=trace)
    assert metrics("kept-pictures") == metrics("plain-pictures")
    calls = "".join(open(path(n)).read() for n in os.listdir(path()) if n.startswith("renames."))
    assert calls.count('"pictures.cache")') == 1 and "checkpoints" in calls, calls


@test
def eval_score_and_encode_share_rows():
    run = trained_alone()
    for args in (["eval", run, "--samples", "70", "--limit", "150", "--json", "-t", "1", "--per-example", "{}.npz"],
                 ["eval", run, "--gap", "--limit", "150", "--aggregate", "50", "-t", "1"],
                 ["score", run, "--limit", "123", "--samples", "9", "--out", "{}.csv", "-t", "1"],
                 ["score", run, "--limit", "20", "--samples", "9", "--contributions", "{}.npy", "--heatmap", "{}.png", "-t", "1"],
                 ["encode", run, "--limit", "301", "--z", "--out", "{}.npz", "-t", "1"]):
        alone = vae(*(a.format("file1") for a in args)).out
        for n in (2, 3):
            shared, _ = ranks(n, *(a.format(f"file{n}") for a in args))
            shared = shared.replace(f"file{n}", "file1")
            if "--json" in args:  # a latent's KL is a sum of floats
                a, b = json.loads(alone), json.loads(shared)
                pairs = list(zip(a.pop("kl_per_dim"), b.pop("kl_per_dim"), strict=True))
                assert a == b and all(math.isclose(x, y, rel_tol=1e-6) for x, y in pairs), (a, b, pairs)
            else:
                assert shared == alone, (args, n)
            for ending in ("npz", "csv", "npy", "png"):
                if os.path.exists(path("file1." + ending)):
                    with open(path("file1." + ending), "rb") as a, open(path(f"file{n}.{ending}"), "rb") as b:
                        assert a.read() == b.read(), (args, n)
                    os.remove(path(f"file{n}.{ending}"))
        for ending in ("npz", "csv", "npy", "png"):
            if os.path.exists(path("file1." + ending)):
                os.remove(path("file1." + ending))
    vae("train", *STEPS, *KINDS["semi-supervised"], "--epochs", "1", "--out", "semi")
    a, b = (json.loads(out) for out in (vae("eval", "semi", "--limit", "100", "--json").out,
                                        ranks(3, "eval", "semi", "--limit", "100", "--json", "-t", "1")[0]))
    assert a.keys() == b.keys()
    for key, value in a.items():  # losses are added up in the ranks' order
        assert math.isclose(value, b[key], rel_tol=1e-9) if isinstance(value, float) else value == b[key], key


@test
def what_cannot_be_shared_is_refused():
    run = trained_alone()
    one = write_npy("one-row.npy", 1, 4, [0.5] * 4)
    for code, says, args in (
            (2, "vae sample works alone, not as 2 ranks", ["sample", run, "--out", "x.png"]),
            (2, "vae report works alone", ["report", run]),
            (2, "--data -: standard input reaches one rank alone", ["eval", run, "--data", "-"]),
            (2, "1 row to train on are fewer than the 2 ranks", ["train", "--data", one, "--out", "no"]),
            (2, "--batch-size 1, of which each of 2 ranks", ["train", *TINY, "--batch-size", "1", "--out", "no"]),
            (2, "unknown option --nope", ["train", "--nope"]),
            (2, "the folder is not empty", ["train", *TINY, "--out", run]),
            (4, "nowhere.npy: cannot open", ["train", "--data", "nowhere.npy", "--out", "no"]),
            (5, "NaN or Inf, in step 2", ["train", *TINY, "--likelihood", "gaussian", "--lr", "1e30", "--out", "nan"])):
        _, lines = ranks(2, *args, code=code, says=says)
        errors = [line for line in lines if re.search(says, line) and not line.startswith("vae: failed: ")]
        assert len(errors) == 1, lines
    assert not os.path.exists(path("no"))


@test
def data_must_be_the_same():
    rng = random.Random(1)
    for name in ("same", "other"):
        write_npy(f"{name}.npy", 40, 4, [rng.random() for _ in range(160)])
    # rank 1 finds another file under the name that both are given
    for r, name in enumerate(("same", "other")):
        os.makedirs(path(f"host{r}"), exist_ok=True)
        shutil.copy(path(f"{name}.npy"), path(f"host{r}", "data.npy"))
    _, lines = ranks(2, "train", "--data", "data.npy", "--epochs", "1", "--hidden", "4", "--out", path("differ"), code=1,
                     says="the data data.npy, by SHA-256: rank 1 on .* and rank 0 on .* differ",
                     prefix=["sh", "-c", f'cd {path("host")}$OMPI_COMM_WORLD_RANK && exec "$@"', "sh"])
    assert not os.path.exists(path("differ")) and lines


@test
def launchers_are_recognized():
    strangers = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1"}
    vae("train", *TINY, code=2, says="srun has started 4 tasks without MPI", env=strangers)
    vae("info", trained_alone(), env={**strangers, "VAE_RANKS": "0"})
    vae("info", trained_alone(), env={"OMPI_COMM_WORLD_SIZE": "1", "SLURM_NTASKS": "9"})
    if os.path.exists(ALONE):
        for size in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PALS_SIZE"):
            process = subprocess.run([ALONE, "train"], env={**os.environ, size: "2"}, capture_output=True, text=True, cwd=WORK)
            assert process.returncode == 2 and "built without MPI" in process.stderr, process.stderr
    out, _ = ranks(2, "sample", trained_alone(), "-n", "4", "--out", "-", env={"VAE_RANKS": "0"})
    assert out.count("NUMPY") == 2  # two programs that know nothing of each other


# ---- ends ----

class Running:
    """A long run of n ranks, some epochs of which are done. grace: seconds that mpirun gives them when it is
    stopped itself."""

    def __init__(self, n, name, *options, grace=1):
        self.run = name
        waits = {f"{who}_MCA_odls_base_sigkill_timeout": str(grace) for who in ("OMPI", "PRTE")}
        shutil.rmtree(path(name), ignore_errors=True)
        command = [*launcher(), "-n", str(n), VAE, "train", "--data", "digits", "--limit", "500", "--epochs", "100000",
                   "--batch-size", "50", "--hidden", "8", "--latent", "2", "--device", DEVICE, "-t", "1", "--report=false", "-q", "--out",
                   name, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, cwd=WORK, env={**os.environ, **ENV, **waits})
        for _ in range(600):
            if os.path.exists(path(name, "metrics.jsonl")) and os.path.getsize(path(name, "metrics.jsonl")) > 0:
                break
            time.sleep(0.05)
        self.ranks = {}
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    environ = dict(v.split(b"=", 1) for v in file.read().split(b"\0") if b"=" in v)
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                with open(f"/proc/{entry}/stat") as file:
                    parent = int(file.read().rsplit(")", 1)[1].split()[1])
            except (OSError, ValueError):
                continue
            if words[0] == VAE.encode() and parent == self.process.pid:
                self.ranks[int(environ[b"OMPI_COMM_WORLD_RANK"])] = int(entry)
        assert len(self.ranks) == n, (self.ranks, self.process.poll())

    def end(self, seconds=15):
        """Exit code of mpirun, seconds until all are gone, and what they said."""
        begin = time.time()
        text = self.process.communicate(timeout=60)[0].decode(errors="replace")
        while any(alive(pid) for pid in self.ranks.values()):
            assert time.time() - begin < seconds, f"still there: {self.ranks}: {text}"
            time.sleep(0.05)
        assert time.time() - begin < seconds, f"{time.time() - begin:.1f} s: {text}"
        return self.process.returncode, text


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def goes_on(run):
    epoch = metrics(run)[-1]["epoch"]
    vae("train", "--resume", "--out", run, "--epochs", epoch + 2, "-q", "--threads", "1")
    assert [m["epoch"] for m in metrics(run) if m["split"] == "train"] == list(range(1, epoch + 3))


@test
def a_signal_to_one_stops_all():
    for who, number in ((2, signal.SIGTERM), (0, signal.SIGINT), (None, signal.SIGINT)):
        job = Running(3, "signalled", grace=4 if who is None else 1)  # a busy machine takes longer than a second
        os.kill(job.process.pid if who is None else job.ranks[who], number)
        code, text = job.end()
        assert who is None or code == 128 + number, (code, text)
        assert text.count("vae: interrupted in epoch") == 1 or ("vae: " not in text and forgets()), text
        state = read_json("signalled", "run.json")
        assert state["status"] == "interrupted" and f"step-{state['step']:010d}.vae" == checkpoints("signalled")[-1]
    goes_on("signalled")


@test
def a_killed_rank_ends_the_others():
    rng = random.Random(7)
    for i in range(20 if FULL else 3):
        job = Running(3, "killed")
        time.sleep(rng.random())
        os.kill(job.ranks[rng.randrange(3)], signal.SIGKILL)
        code, text = job.end()
        assert code == 137 and re.search(r"rank \d with PID \d+ on node \S+ exited on\s+signal 9", text), (code, text)
        sections(path("killed", "checkpoints", checkpoints("killed")[-1]))
    goes_on("killed")


@test
def a_full_disk_ends_all():
    job = Running(2, "full")
    resource.prlimit(job.ranks[0], resource.RLIMIT_FSIZE, (4096, 4096))
    code, text = job.end()
    assert code == 4 and text.count("vae: full/") == 1, (code, text)
    goes_on("full")


@test
def calls_of_mpi_that_fail_end_all():
    """Each call, on one rank or on all: a documented exit code, and one line that says which."""
    launcher()
    if not os.path.exists(FAIL):
        raise Skip("fail_mpi.so is not built")
    short = ["train", *TINY, "--limit", "64", "--epochs", "1", "--report=false", "--sample-every", "0", "-q", "--force", "--out", "fails"]
    prefix = sanitizer()
    ranks(2, *short, env={"LD_PRELOAD": FAIL, "VAE_MPI_COUNT": path("count")}, prefix=prefix)
    with open(path("count")) as file:
        calls = int(file.read())
    assert calls > 30
    for n in sorted({*range(1, calls + 1, 1 if FULL else 9), *range(calls - 2, calls + 1)}):  # the farewell, too
        for who in ("0", "1"):
            env = {"LD_PRELOAD": FAIL, "VAE_MPI_FAIL": str(n), "VAE_MPI_FAIL_RANK": who}
            _, lines = ranks(2, *short, code=1, env=env, prefix=prefix)
            said = any(re.search(f"MPI: MPI_.*failed on (host|rank {who})", line) for line in lines)
            assert said or (not lines and forgets()), (n, who, lines)


@test
def bench_tells_the_rate_of_all():
    out, _ = ranks(2, "bench", "--limit", "300", "--hidden", "16", "--latent", "3", "--batches", "64", "--repeats", "2",
                   "--seconds", "0.02", "--warm-up", "5", "--device", "cpu", "--threads", "1", "--json")
    row = json.loads(out)["rows"][0]
    assert row["batch"] == 64 and row["ranks"] == 2 and row["alone_batch"] == 32
    share = row["examples_per_s"] / 2 / row["alone_examples_per_s"]
    assert math.isclose(row["share_of_n"], share, rel_tol=1e-6) and 0 < share

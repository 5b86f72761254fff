"""Commands, exit codes, messages, files, signals, kills and faults."""
import fcntl
import json
import math
import os
import pty
import random
import resource
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
import zipfile

from harness import (Skip, TINY, VAE, WORK, checkpoints, metrics, newest, path, read_json,
                     same_end, sections, test, trained, vae, write_npy)


# ---- usage ----

@test
def usage_errors():
    cases = [
        ([], "no command given"),
        (["evla"], "did you mean 'eval'"),
        (["xyzzy"], "unknown command 'xyzzy'; vae --help lists them"),
        (["--epochs", "3"], "a command comes first"),
        (["help", "trian"], "did you mean 'train'"),
        (["train", "--epcohs", "3"], "unknown option --epcohs; did you mean --epochs?"),
        (["train", "-x"], "unknown option -x"),
        (["train", "--qqqqqq"], "unknown option --qqqqqq; vae train --help"),
        (["train", "--epochs"], "option --epochs wants a value"),
        (["train", "--json=3"], "option --json takes no value"),
        (["train", "extra"], "unexpected 'extra'"),
        (["train", "--epochs", "0"], "--epochs: expected a whole number from 1"),
        (["train", "--epochs", "ten"], "found 'ten'"),
        (["train", "--lr", "-1"], "--lr: expected a number above 0"),
        (["train", "--activation", "reul"], "did you mean 'relu'"),
        (["train", "--hidden", "4,,5"], "as in 400,200"),
        (["train", "--output-bias-from-data=maybe"], "true or false"),
        (["train", "--variance", "1"], "--variance has no effect here"),
        (["train", "--mean", "sigmoid"], "--mean has no effect here: it needs --likelihood gaussian"),
        (["train", "--likelihood", "gaussian", "--mean", "sigmoid", "--standardize", "columns"], "use --mean linear"),
        (["train", "--likelihood", "gaussian", "--mean", "sigmoid", "--stack", "some"], "latents of --stack"),
        (["train", "--objective", "iwae", "--beta", "4"], "--beta has no effect"),
        (["train", "--patience", "4"], "validation"),
        (["train", "--likelihood", "gaussian", "--binarize", "static"], "--binarize"),
        (["train", "--precision", "tf32", "--device", "cpu"], "GPU"),
        (["train", "--resume"], "--resume needs --out"),
        (["train", "--resume", "--force", "--out", "x"], "give one of them"),
        (["eval"], "RUN is missing"),
        (["eval", "a", "b"], "unexpected 'b'"),
        (["eval", "nowhere", "--samples", "-3"], "--samples: expected a whole number"),
        (["sample", "nowhere", "-n", "0"], "--n: expected a whole number from 1"),
        (["devices", "--epochs", "3"], "unknown option --epochs"),
    ]
    for args, says in cases:
        result = vae(*args, code=2, says=says)
        assert result.out == "", f"{args}: usage errors belong on stderr"


@test
def help_and_version():
    overview = vae("--help").out
    assert vae("help").out == overview and vae("-h").out == overview
    commands = ["train", "eval", "sample", "reconstruct", "info", "devices"]
    for command in commands:
        assert f"  {command} " in overview
        text = vae(command, "--help").out
        assert text == vae("help", command).out == vae(command, "-h").out
        assert f"usage: vae {command}" in text and "\nexamples:\n  vae " + command in text
        assert "--help" in text
    text = vae("train", "--help").out
    for option in ("--hidden", "--kl-warmup", "--adam-eps", "[1e-3]", "--resume", "elbo|iwae"):
        assert option in text, option
    assert vae("--version").out.startswith("vae ")
    assert vae("train", "--help", "--epochs", "3").code == 0


# ---- train ----

@test
def train_writes_a_run():
    run = trained()
    assert sorted(os.listdir(path(run))) == ["checkpoints", "config.json", "log.txt",
                                             "metrics.jsonl", "report.html", "run.json", "samples"]
    assert sorted(os.listdir(path(run, "samples"))) == [
        f"{kind}-00{i}.png" for kind in ("epoch", "reconstruction") for i in (1, 2, 3)]
    assert sorted(os.listdir(path(run, "checkpoints"))) == [
        "best.vae", "step-0000000018.vae", "step-0000000027.vae"]
    info = read_json(run, "run.json")
    assert info["schema"] == 1 and info["status"] == "done" and info["seed"] == "1"
    for key in ("version", "git", "compiler", "libraries", "device", "threads", "host", "wall_s",
                "peak_rss_bytes", "started"):
        assert info[key] is not None, key
    cpu = vae("devices", "--json").json()["cpu"]
    assert info["device"].split(", ")[-1] == cpu["backend"].split(", ")[-1]  # the level
    assert info["host"]["cpu"] == cpu["name"] and info["host"]["instructions"] == cpu["instructions"]
    assert info["host"]["granted"] == cpu["threads"]
    assert len(info["data"]["sha256"]) == 64 and info["data"]["shape"] == [28, 28, 1]
    assert info["data"]["train"] == 270 and info["data"]["validation"] == 30
    lines = metrics(run)
    assert [(l["epoch"], l["split"]) for l in lines] == [
        (e, s) for e in (1, 2, 3) for s in ("train", "validation", "test")]
    for line in lines:
        assert abs(line["elbo"] + line["recon"] + line["kl"]) < 1e-3 and line["schema"] == 1
        assert line["lr"] == 0.001 and line["beta"] == 1 and line["step"] == 9 * line["epoch"]


@test
def train_keeps_streams_apart():
    plain = vae("train", *TINY, "--epochs", 1, "--out", "streams")
    assert plain.out == "" and "epoch  1/1" in plain.err and "\r" not in plain.err
    assert "streams/samples/epoch-001.png" in plain.err and "try next:" in plain.err
    quiet = vae("train", *TINY, "--epochs", 1, "--out", "streams", "--force", "-q")
    assert quiet.out == "" and quiet.err == ""
    machine = vae("train", *TINY, "--epochs", 1, "--out", "streams", "--force", "--json")
    result = machine.json()
    assert result["schema"] == 1 and result["epoch"] == 1 and result["run"] == "streams"
    assert os.path.exists(path(result["checkpoint"])) and result["test"]["n"] == 300
    assert result["validation"] is None


@test
def config_files_go_round():
    run = trained()
    vae("train", "--config", f"{run}/config.json", "--out", "again", "-q")
    same_end(run, "again")
    assert metrics(run) == metrics("again")
    # the command line wins, wherever it stands
    vae("train", "--out", "third", "--epochs", 1, "--config", f"{run}/config.json", "-q")
    assert read_json("third", "config.json")["epochs"] == 1
    assert read_json("third", "config.json")["latent"] == 3
    with open(path("bad.json"), "w") as file:
        file.write('{"lrr": 1}')
    vae("train", "--config", "bad.json", code=2, says="bad.json: unknown option 'lrr'")
    vae("train", "--config", "none.json", code=4, says="none.json")


@test
def out_is_chosen_and_guarded():
    vae("train", *TINY, "--epochs", 1, says="the run is in runs/digits-1")
    vae("train", *TINY, "--epochs", 1, says="the run is in runs/digits-2")
    vae("train", *TINY, "--out", "runs/digits-1", code=2, says="--resume")
    os.mkdir(path("empty"))
    vae("train", *TINY, "--epochs", 1, "--out", "empty", "-q")
    open(path("file"), "w").close()
    vae("train", *TINY, "--out", "file", code=4, says="file")
    vae("train", *TINY, "--out", "/proc/nowhere/run", code=4, says="cannot make the folder")


@test
def closed_descriptors_are_no_files():
    """With 2>&- the next file that is opened would be standard error: messages went into log.txt."""
    vae("train", *TINY, "--epochs", 1, "--out", "silent", prefix=("sh", "-c", 'exec "$@" 2>&-', "sh"))
    with open(path("silent", "log.txt")) as file:
        lines = file.read().splitlines()
    assert lines and all(line[:2] == "20" for line in lines), lines
    # standard output that is closed is one that cannot be written
    vae("--version", code=4, says="stdout: cannot write", prefix=("sh", "-c", 'exec "$@" >&-', "sh"))


@test
def options_from_a_file_with_a_byte_order_mark():
    with open(path("bom.json"), "wb") as file:
        file.write(b'\xef\xbb\xbf{"latent": 5}')
    vae("train", "--limit", 300, "--hidden", 16, "--threads", 1, "-c", "bom.json", "--epochs", 1, "--out", "bom",
        "-q")
    assert vae("info", "bom", "--json").json()["config"]["latent"] == 5


@test
def resume_needs_a_run():
    vae("train", *TINY, "--resume", "--out", "mistyped", code=2,
        says="mistyped: there is no run to resume: no such folder; --resume=auto begins one")
    assert not os.path.exists(path("mistyped"))
    vae("train", *TINY, "--resume=auto", "--out", "begun", "--epochs", 1, "-q")
    for name in checkpoints("begun"):
        os.remove(path("begun", "checkpoints", name))
    vae("train", *TINY, "--resume", "--out", "begun", code=2, says="no checkpoints/step-*.vae in it")
    for epochs in (1, 2):
        vae("train", *TINY, "--resume=auto", "--out", "begun", "--epochs", epochs, "-q")
        assert vae("info", "begun", "--json").json()["state"]["epoch"] == epochs
    vae("train", "--resume=later", "--out", "begun", code=2,
        says="expected nothing or auto, found 'later'")
    vae("train", "--resume", "auto", "--out", "begun", code=2, says="unexpected 'auto'")


@test
def data_of_a_run_are_found_from_where_it_began():
    """Relative paths mean what they meant; and a message says that the run named them."""
    for folder in ("there", "elsewhere"):
        os.makedirs(path(folder), exist_ok=True)
    write_npy("there/rows.npy", 20, 4, [i % 2 for i in range(80)])
    write_npy("elsewhere/rows.npy", 10, 4, [i % 2 for i in range(40)])

    def run(folder, *args, code=0):
        done = subprocess.run([VAE, *args, "--threads", "1"], cwd=path(folder), capture_output=True,
                              timeout=60)
        assert done.returncode == code, done.stderr.decode()
        return done

    run("there", "train", "--data", "rows.npy", "--hidden", "8", "--latent", "2", "--epochs", "1",
        "--out", "run", "-q")
    for name in (path("there", "run"), "../there/run",
                 path("there", "run", "checkpoints", "step-0000000001.vae")):
        assert json.loads(run("elsewhere", "eval", name, "--json").stdout)["n"] == 20
    run("there", "eval", "run/checkpoints/step-0000000001.vae")
    run("there/run/checkpoints", "eval", "step-0000000001.vae")
    run("elsewhere", "score", "../there/run", "--data", "rows.npy")
    run("elsewhere", "train", "--resume", "--out", "../there/run", "--epochs", "2", "-q")
    assert json.loads(run("there", "eval", "run", "--json").stdout)["n"] == 20
    os.rename(path("there", "rows.npy"), path("there", "gone.npy"))
    os.remove(path("elsewhere", "rows.npy"))
    for args in (["eval", "../there/run"], ["probe", "../there/run"],
                 ["train", "--resume", "--out", "../there/run", "--epochs", "3"]):
        error = run("elsewhere", *args, code=4).stderr.decode()
        assert "rows.npy: cannot open" in error and "(that is what the run was trained on" in error
    error = run("elsewhere", "eval", "../there/run", "--data", "no.npy", code=4).stderr.decode()
    assert "trained on" not in error


@test
def standard_input_is_data():
    small = ["--hidden", 8, "--latent", 2, "--epochs", 1, "--threads", 1, "-q"]
    write_npy("in.npy", 20, 4, [i % 3 / 2 for i in range(80)])
    with open(path("in.csv"), "w") as file:
        file.write("a,b\n" + "".join(f"{i % 5},{i % 7}\n" for i in range(20)))
    vae("train", "--data", "in.npy", *small, "--out", "in")
    vae("train", "--data", "in.csv", *small, "--out", "in-csv", "--likelihood", "gaussian")
    for run, data in (("in", "in.npy"), ("in-csv", "in.csv")):
        for args in (["score", run, "--out", "scores.csv"],
                     ["score", run, "--out", "scores.csv", "--threshold", "0"],
                     ["encode", run, "--out", "mu.npy"], ["eval", run, "--json"]):
            found = []
            for name in (data, "-"):
                with open(path(data), "rb") as file:
                    done = subprocess.run([VAE, *args, "--data", name], stdin=file, cwd=WORK,
                                          capture_output=True, timeout=60)
                assert done.returncode == 0, (args, name, done.stderr)
                out = done.stdout
                if args[2] == "--out":
                    with open(path(args[3]), "rb") as file:
                        out = file.read()
                found.append(out.replace(data.encode(), b"standard input"))
            assert found[0] == found[1], args
    for text, says in ((b"", "standard input: is empty"),
                       (b"nothing", "standard input: not a data set")):
        done = subprocess.run([VAE, "score", "in", "--data", "-"], input=text, cwd=WORK,
                              capture_output=True, timeout=60)
        assert done.returncode == 3 and says in done.stderr.decode(), done.stderr


@test
def resume_by_command_line():
    trained()
    done = vae("train", "--resume", "--out", "run", says="already finished")
    assert "resuming" not in done.err
    shutil.copytree(path("run"), path("longer"))
    vae("train", "--resume", "--out", "longer", "--epochs", 5, says="epoch  5/5")
    vae("train", *TINY, "--epochs", 5, "--out", "five", "--validation", "0.1", "-q")
    same_end("longer", "five")
    assert metrics("longer") == metrics("five")
    vae("train", "--resume", "--out", "longer", "--latent", 4, "--epochs", 9, code=2,
        says="--latent 3, not 4")
    vae("train", "--resume", "--out", "longer", "--limit", 200, "--epochs", 9, code=2,
        says="other data")


@test
def diverging_is_exit_5():
    vae("train", *TINY, "--lr", "1e30", "--out", "nan", code=5, says="last good checkpoint: nan/")
    assert read_json("nan", "run.json")["status"] == "failed"
    assert "NaN" in read_json("nan", "run.json")["error"]
    vae("info", "nan")


@test
def bad_data_is_exit_3():
    write_npy("range.npy", 3, 4, [0, 1, 0.5, 0.25, 1, 1, 1.5, 0, 0, 0, 0, 0])
    vae("train", "--data", "range.npy", "--out", "bad-range", code=3, says="1.5")
    assert not os.path.exists(path("bad-range"))
    vae("train", "--data", "range.npy", "--likelihood", "gaussian", "--out", "good-range",
        "--epochs", 1, "--device", "cpu")
    assert os.listdir(path("good-range", "samples")) == []
    vae("sample", "good-range", code=2, says="no pictures")
    with open(path("torn.npy"), "wb") as file:
        file.write(b"\x93NUMPY\x01\x00\x40")
    vae("train", "--data", "torn.npy", code=3, says="torn.npy")
    vae("train", "--data", "no/such", code=4, says="no/such")
    vae("train", "--data", "range.npy", "--likelihood", "gaussian", "--exclude-class", 3, code=2,
        says="no labels")


@test
def no_gpu_is_exit_6():
    if vae("devices", "--json").json()["cuda"]["devices"] > 0:
        raise Skip("this machine has a GPU")
    vae("train", *TINY, "--device", "cuda", "--out", "gpu", code=6)
    assert not os.path.exists(path("gpu"))


# ---- what a trained model can be asked ----

@test
def eval_prints_numbers():
    run = trained()
    result = vae("eval", run, "--samples", 100, "--json", "--limit", 300).json()
    for key in ("schema", "elbo", "recon", "kl", "nll", "nll_se", "samples", "active_units",
                "kl_per_dim", "binarize", "n"):
        assert key in result, key
    last = [line for line in metrics(run) if line["split"] == "test"][-1]
    assert abs(result["elbo"] - last["elbo"]) < 1e-3, "eval and training measure alike"
    assert abs(sum(result["kl_per_dim"]) - result["kl"]) < 1e-3
    assert result["nll"] < -result["elbo"] and 0 < result["nll_se"] < 20
    assert result["n"] == 300 and result["samples"] == 100 and result["binarize"] == "none"
    assert 0 <= result["active_units"] <= 3
    # blocks of particles: 100 are 64 and 36; one sample more must not move it far
    other = vae("eval", run, "--samples", 101, "--json", "--limit", 300).json()
    assert abs(other["nll"] - result["nll"]) < 0.1
    assert result["aggregate_n"] == 300 and 0 < result["mutual_information"] < math.log(300)
    parts = [result[key] for key in ("mutual_information", "total_correlation", "dimwise_kl")]
    assert abs(sum(parts) - result["kl"]) < 1e-3, "the parts of the KL add up to it"
    none = vae("eval", run, "--json", "--limit", 10).json()
    assert none["nll"] is None and none["samples"] == 0
    bare = vae("eval", run, "--json", "--limit", 50, "--aggregate", 0, "--per-example", "each.npz",
               "--samples", 5, "--gap").json()
    assert bare.get("aggregate_n") in (None, 0), bare.get("aggregate_n")
    with zipfile.ZipFile(os.path.join(WORK, "each.npz")) as members:
        names = set(members.namelist())
        assert {"elbo.npy", "recon.npy", "kl.npy", "nll.npy", "labels.npy"} <= names, names
        assert len(members.read("elbo.npy")) >= 50 * 4
    assert "gap" in bare and bare["gap"] is not None, sorted(bare)
    vae("eval", run, "--gap", "--split", "train", code=2)
    text = vae("eval", run, "--limit", 10, "--binarize", "threshold", "--split", "train").out
    assert "(train, 10 examples, binarize threshold)" in text and "active units" in text
    best = vae("eval", run, "--best", "--json", "--limit", 10).json()
    assert best["checkpoint"].endswith("best.vae")
    write_npy("narrow.npy", 2, 3, [0] * 6)
    vae("eval", run, "--data", "narrow.npy", code=3, says="3 columns; the model was trained on 784")
    vae("eval", run, "--split", "third", code=2, says="train, validation or test")
    vae("eval", "narrow.npy", code=3, says="not a checkpoint")
    vae("eval", "nowhere", code=4, says="nowhere")
    vae("eval", "/", code=3, says="no checkpoints here")


@test
def reproduction_has_its_options():
    vae("train", *TINY, "--hidden", "none", "--epochs", 1, "--out", "linear")
    assert read_json("linear", "config.json")["hidden"] == []
    assert vae("eval", "linear", "--json", "--limit", 300).json()["n"] == 300
    # moments this large let nothing move
    vae("train", *TINY, "--adam-v0", "1e30", "--epochs", 2, "--out", "still")
    one, two = [line["elbo"] for line in metrics("still") if line["split"] == "test"]
    assert abs(one - two) < 1e-4
    vae("train", *TINY, "--epochs", 4, "--lr-schedule", "step", "--lr-milestones", "1,3",
        "--lr-gamma", "0.5", "--out", "steps")
    rates = [line["lr"] for line in metrics("steps") if line["split"] == "train"]
    assert rates == [1e-3, 5e-4, 5e-4, 2.5e-4], rates
    vae("train", "--lr-milestones", "1,3", code=2, says="--lr-schedule step")
    vae("train", "--lr-schedule", "step", "--lr-milestones", "1", "--lr-step-epochs", "3", code=2,
        says="--lr-milestones, which replace it")
    vae("train", "--decoder-hidden", "none", code=2, says="--decoder-hidden: expected")


@test
def pictures_are_drawn():
    run = trained()
    for args in (["sample", run, "-n", 10],
                 ["reconstruct", run, "-n", 7, "--split", "train", "--limit", 50]):
        vae(*args, "--out", "picture.png", says="picture.png")
        with open(path("picture.png"), "rb") as file:
            first = file.read()
        assert first[:8] == b"\x89PNG\r\n\x1a\n"
        vae(*args, "--out", "picture.png", "-q")
        with open(path("picture.png"), "rb") as file:
            assert file.read() == first, "the same command draws the same picture"
        assert vae(*args, "--out", "picture.png", "--json").json()["out"] == "picture.png"
    vae("sample", run, "-n", 10, "--seed", 2, "--temperature", "0.5", "--out", "picture.png", "-q")
    with open(path("picture.png"), "rb") as file:
        assert file.read() != first
    vae("sample", run, "--out", "no/folder/x.png", code=4, says="no/folder/x.png")


@test
def info_tells_all():
    run = trained()
    result = vae("info", run, "--json").json()
    n = 784 * 16 + 16 + 16 * 6 + 6 + 3 * 16 + 16 + 16 * 784 + 784
    assert result["parameters"] == n
    assert result["tensors"][0] == {"name": "encoder.0.weight", "rows": 16, "cols": 784, "offset": 0}
    assert result["config"]["latent"] == 3 and result["state"]["finished"] is True
    assert len(newest(run)["params"]) == 4 * n
    assert result["summary"]["test"]["n"] == 300
    text = vae("info", f"{run}/checkpoints/best.vae").out
    assert "encoder.head.weight" in text and "best.vae" in text
    vae("info", run + "/config.json", code=3, says="not a checkpoint")


@test
def bf16_on_the_cpu():
    """The same bits for any number of threads and when resumed; run.json says how; eval is near fp32's."""
    def train(out, *more):
        vae("train", "--data", "digits", "--limit", 400, "--batch-size", 100, "--hidden", 128, "--latent", 10, "-q",
            "--device", "cpu", "--out", out, *more)
        return newest(out)["params"]
    bf16 = ["--precision", "bf16"]
    one = train("one", *bf16, "--epochs", 2, "--threads", 1)
    assert one == train("two", *bf16, "--epochs", 2, "--threads", 2)
    train("half", *bf16, "--epochs", 1, "--threads", 3)
    vae("train", "--resume", "--out", "half", "--epochs", 2, "-q")
    assert newest("half")["params"] == one
    assert ", bf16 by " in read_json("half/run.json")["device"]
    assert train("floats", "--epochs", 2) != one
    losses = [vae("eval", run, "--limit", 300, "--json").json()["elbo"] for run in ("one", "floats")]
    assert abs(losses[0] - losses[1]) < 1.5, losses


@test
def devices_are_listed():
    text, cpu = vae("devices").out, vae("devices", "--json").json()["cpu"]
    assert text.startswith(f"cpu   {cpu['name']}, {cpu['cores']} cores: {cpu['backend']}\ncpu   offers ")
    assert cpu["cores"] >= 1 and cpu["instructions"] in text and f"\ncpu   in bf16: {cpu['bf16']}\n" in text
    offers = cpu["instructions"].split()
    how = "products of floats, as slow as fp32"
    if {"avx512", "avx512_bf16"} <= set(offers):
        how = "amx_bf16" if "amx_bf16" in offers else "avx512_bf16"
    assert cpu["bf16"].endswith(f", bf16 by {how}"), cpu
    flags = next((line for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("flags")), "").split()
    for name, flag in {"avx2": "avx2", "fma": "fma", "avx512_bf16": "avx512_bf16", "amx_bf16": "amx_bf16"}.items():
        assert (name in cpu["instructions"].split()) == (flag in flags), name
    assert ("avx512" in cpu["instructions"].split()) == ({"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(flags))
    one = next(iter(os.sched_getaffinity(0)))
    for number, wanted in (("", 1), ("3", 3)):  # the mask's one, or what is asked for
        cpu = vae("devices", "--json", env={"OMP_NUM_THREADS": number},
                  preexec_fn=lambda: os.sched_setaffinity(0, [one])).json()["cpu"]
        assert cpu["threads"] == wanted and f"{wanted} thread" in cpu["backend"], (number, cpu)
    level = vae("devices", "--json", env={"VAE_ISA": "baseline"}).json()["cpu"]
    assert level["bf16"].endswith(", baseline, bf16 by products of floats, as slow as fp32")
    assert level["backend"].endswith(", baseline") and level["instructions"] == cpu["instructions"]


# ---- full disks ----

@test
def full_stdout_is_exit_4():
    run = trained()
    for args in (["info", run], ["devices"], ["--help"], ["--version"], ["train", "--help"],
                 ["eval", run, "--limit", 5, "--json"]):
        with open("/dev/full", "w") as full:
            vae(*args, code=4, says="stdout: cannot write: ", stdout=full)


def small_disk():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))


@test
def what_no_disk_has_room_for_is_not_begun():
    n = 4294967295
    vae("sample", trained(), "-n", n, "--out", "huge.npy", code=4, preexec_fn=small_disk,
        says=f"huge.npy: cannot write {128 + 4 * 784 * n} bytes: ")
    assert not [name for name in os.listdir(path()) if name.startswith(("huge.npy", ".huge.npy"))]


@test
def full_disk_while_training():
    vae("train", *TINY, "--epochs", 2, "--out", "no-room", code=4, says="cannot write",
        preexec_fn=small_disk)
    assert not any(name.endswith(".tmp") for _, _, names in os.walk(path("no-room"))
                   for name in names)
    vae("train", *TINY, "--epochs", 2, "--out", "no-room", "--resume=auto", "-q")
    vae("train", *TINY, "--epochs", 2, "--out", "room", "-q")
    same_end("no-room", "room")


# ---- signals and kills ----

def start(*args, **more):
    return subprocess.Popen([VAE, *map(str, args)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=WORK, **more)


def wait_for(name, seconds=60):
    end = time.time() + seconds
    while not os.path.exists(path(name)) and time.time() < end:
        time.sleep(0.01)


LONG = [*TINY, "--epochs", 80, "--sample-every", 0, "--keep", 3]


def reference():
    if not os.path.exists(path("reference", "metrics.jsonl")):
        vae("train", *LONG, "--out", "reference", "-q")
    return "reference"


@test
def signals_save_and_kill():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        run = f"signal-{number}"
        process = start("train", *LONG, "--epochs", 100000, "--out", run)
        wait_for(f"{run}/samples")
        wait_for(f"{run}/checkpoints/step-0000000010.vae")
        process.send_signal(number)
        err = process.communicate(timeout=60)[1].decode()
        assert process.returncode == -number, f"{process.returncode}: {err}"
        assert f"--resume --out {run}" in err
        info = read_json(run, "run.json")
        assert info["status"] == "interrupted" and info["step"] >= 10
        state = newest(run)["state"]
        assert struct.unpack_from("<Q", state)[0] == info["step"]
    # and on from there, to the end of a run of 80 epochs
    if info["step"] < 800:
        vae("train", "--resume", "--out", run, "--epochs", 80, "-q")
        same_end(run, reference())
        assert metrics(run) == metrics(reference())


@test
def second_signal_kills_at_once():
    """In the middle of a step that takes seconds."""
    process = start("train", "--limit", 6000, "--hidden", "2000", "--batch-size", 6000,
                    "--device", "cpu", "--threads", 1, "--out", "twice")
    wait_for("twice/checkpoints/step-0000000000.vae")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    alive = process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert read_json("twice", "run.json")["status"] == "running" or not alive


@test
def the_best_variance_is_no_less_than_a_millionth():
    """Of rows that a decoder gives back to the bit it would be 0."""
    write_npy("zeros.npy", 64, 4, [0] * 256)
    vae("train", "--data", "zeros.npy", "--likelihood", "gaussian-optimal", "--standardize", "none", "--hidden", 1,
        "--latent", 1, "--batch-size", 8, "--epochs", 500, "--save-every", 1000, "--sample-every", 0, "--device", "cpu",
        "--report=false", "--threads", 1, "--out", "zeros", "-q")
    assert read_json("zeros", "config.json")["variance"] == 1
    assert vae("info", "zeros", "--json").json()["config"]["variance"] == 1e-6


@test
def kills_lose_nothing():
    """SIGKILL at random moments of the training, over and over: the end is that of a run left alone."""
    reference()
    dice = random.Random(int(os.environ.get("VAE_KILL_SEED", "1")))
    kills = 0

    def lines():
        try:
            with open(path("killed", "metrics.jsonl"), "rb") as file:
                return file.read().count(b"\n")
        except FileNotFoundError:
            return 0

    for _ in range(200):
        goal = lines() + dice.randrange(1, 20)
        process = start("train", *LONG, "--out", "killed", "--resume=auto", "-q")
        while process.poll() is None and lines() < goal:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.01))
        process.kill()
        err = process.communicate()[1].decode()
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0, err
            break
        kills += 1
    assert process.returncode == 0, "never got to the end"
    assert kills >= 3, f"only {kills} kills"
    same_end("killed", reference())
    assert metrics("killed") == metrics(reference())
    assert checkpoints("killed") == checkpoints("reference")
    assert not any(name.endswith(".tmp") for name in os.listdir(path("killed", "checkpoints")))


@test
def one_trainer_to_a_folder():
    process = start("train", *LONG, "--epochs", 100000, "--out", "shared")
    try:
        wait_for("shared/checkpoints/step-0000000010.vae")
        vae("train", "--resume", "--out", "shared", code=2, says="another vae is training")
    finally:
        process.kill()
        process.communicate()


def strace(fault, *only):
    """A prefix of a command: what goes wrong in it, as strace's inject has it, of calls to these files if any."""
    if shutil.which("strace") is None:
        raise Skip("strace is not installed")
    call = fault.split(":")[0]
    prefix = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        raise Skip("strace may not trace here")
    return [*prefix, *(word for file in only for word in ("-P", file)), "-e", f"inject={fault}"]


# LeakSanitizer cannot work under a tracer; and UCX, which Open MPI 5 is linked with, would start a thread and write
# its name before main: calls that were to fail would be others
TRACED = {"ASAN_OPTIONS": "detect_leaks=0", "UCX_VFS_ENABLE": "n"}


@test
def faults_are_reported():
    """A failing fsync, rename or write is exit 4, and the run can be resumed."""
    vae("train", *TINY, "--epochs", 2, "--out", "faultless", "-q")
    cases = [("fsync:error=EIO:when=5", "Input/output error"),
             ("rename:error=ENOSPC:when=3", "No space left on device"),
             ("rename:error=EIO:when=4", "Input/output error"),
             ("fdatasync:error=ENOSPC:when=2", "metrics.jsonl")]
    for fault, says in cases:
        shutil.rmtree(path("faulty"), ignore_errors=True)
        vae("train", *TINY, "--epochs", 2, "--out", "faulty", "--sample-every", 0, code=4,
            says=says, prefix=strace(fault), env=TRACED)
        vae("train", *TINY, "--epochs", 2, "--out", "faulty", "--resume=auto", "-q",
            "--sample-every", 0)
        assert newest("faulty")["params"] == newest("faultless")["params"], fault
        assert metrics("faulty") == metrics("faultless"), fault


@test
def killed_at_each_rename():
    """Dying just before or after any rename leaves a run that can be resumed."""
    vae("train", *TINY, "--epochs", 2, "--out", "unkilled", "--validation", "0.1", "-q")
    for when in range(1, 11):
        shutil.rmtree(path("renamed"), ignore_errors=True)
        args = ["train", *TINY, "--epochs", "2", "--out", "renamed", "--validation", "0.1",
                "--sample-every", "0"]
        process = subprocess.run([*strace(f"rename:signal=SIGKILL:when={when}"), VAE, *args],
                                 cwd=WORK, capture_output=True, env={**os.environ, **TRACED})
        if process.returncode == 0:
            assert when > 6, "the fault was never injected"
            break
        vae(*args, "--resume=auto", "-q")
        assert newest("renamed")["params"] == newest("unkilled")["params"], when
        assert metrics("renamed") == metrics("unkilled"), when
        best = [sections(path(run, "checkpoints", "best.vae"))["params"]
                for run in ("renamed", "unkilled")]
        assert best[0] == best[1], when


# ---- terminals ----

def on_terminal(args, width, env):
    """What vae writes to stderr if that is a terminal."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen([VAE, *map(str, args)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=side, cwd=WORK,
                               env={**os.environ, **env})
    os.close(side)
    out = b""
    while True:
        if select.select([main], [], [], 0.1)[0]:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # the other side is closed
                break
            out += chunk
        elif process.poll() is not None:
            break
    os.close(main)
    assert process.wait() == 0, out.decode()
    return out.decode().replace("\r\n", "\n")


@test
def progress_on_a_terminal():
    args = ["train", *TINY, "--epochs", 2, "--out", "tty", "--force"]
    text = on_terminal(args, 100, {"TERM": "xterm"})
    assert "\repoch 1/2" in text and " left" in text and "\x1b" not in text
    assert "epoch  2/2  elbo" in text
    for width in (20, 40, 80):
        text = on_terminal(args, width, {"TERM": "xterm"})
        for line in text.split("\n"):
            for drawn in line.split("\r")[1:]:
                if drawn.startswith("epoch 1/2") or drawn.startswith("epoch 2/2"):
                    assert len(drawn.rstrip()) < width, drawn
    assert "\r" not in on_terminal(args, 80, {"TERM": "dumb"})
    assert on_terminal([*args, "-q"], 80, {"TERM": "xterm"}) == ""

#!/usr/bin/env python3
"""Ranks on emulated GPUs: `mpirun -n N vae --device cuda` with NCCL's stand-in, captured and not, in fp32
and bf16; libraries and calls that fail. Closes with 'N passed, N failed, N skipped'."""
import os
import runpy
import sys

CLI = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli")
sys.path.insert(0, CLI)
sys.dont_write_bytecode = True
os.environ.setdefault("VAE", "build/simt/vae")
import harness
from harness import newest, path, read_json, test, vae

# 26 steps, the last of each epoch with one row; 16 of them in one graph
STEPS = ["--data", "digits", "--hidden", "16", "--latent", "3", "--batch-size", "8", "--limit", "97", "--epochs", "2",
         "--seed", "5", "--device", "cuda", "--threads", "1", "--force", "-q", "--report=false", "--sample-every", "0"]
KINDS = {
    "plain": [],
    "iwae": ["--objective", "iwae", "--particles", "2", "--binarize", "dynamic"],
    "free bits": ["--free-bits", "0.2", "--likelihood", "gaussian", "--clip-norm", "20"],
    "semi-supervised": ["--semi-supervised", "--labelled", "20", "--limit", "117", "--activation", "tanh"],
    "convolutions": ["--conv", "3", "--hidden", "none", "--flip", "--activation", "tanh", "--epochs", "1"],
}
import test_ranks
from test_ranks import FULL, close, ranks


@test
def emulated_ranks_compute_what_one_does():
    test_ranks.launcher()
    for i, (name, options) in enumerate(KINDS.items()):
        vae("train", *STEPS, *options, "--out", "one")
        for n in (2, 3) if FULL else (2 + i % 2,):
            ranks(n, "train", *STEPS, *options, "--out", "many")
            close("one", "many")


@test
def in_bf16_too():
    test_ranks.launcher()
    vae("train", *STEPS, "--precision", "bf16", "--out", "one")
    ranks(2, "train", *STEPS, "--precision", "bf16", "--out", "many")
    close("one", "many", 1e-4)  # where a sum is rounded the other way, a weight's bf16 twin is


@test
def graphs_streams_and_orders_do_not_change_bits():
    ranks(3, "train", *STEPS, "--out", "a")
    about = read_json("a", "run.json")
    assert len(about["ranks"]) == 3 and "NCCL 2." in about["device"] and "16 steps" in about["device"], about["device"]
    for env in ({"VAE_CUDA_GRAPHS": "0"}, {"VAE_CUDA_STREAM_DATA": "1"}, {"VAE_SIMT_STREAMS": "earliest"},
                {"VAE_SIMT_STREAMS": "random:3", "VAE_CUDA_PERSISTENT": "1"}):
        ranks(3, "train", *STEPS, "--out", "b", env=env)
        assert newest("a")["params"] == newest("b")["params"], env


@test
def each_rank_takes_a_gpu_of_its_own():
    ranks(2, "train", *STEPS, "--epochs", "1", "--out", "gpus", env={"VAE_SIMT_DEVICES": "2"})
    assert [r["device"][:6] for r in read_json("gpus", "run.json")["ranks"]] == ["cuda:0", "cuda:1"]
    ranks(2, "train", *STEPS, "--device", "cuda:1", "--out", "no", code=2, says="2 ranks of host .* would take one GPU",
          env={"VAE_SIMT_DEVICES": "2"})


@test
def what_is_missing_is_named():
    ranks(2, "train", *STEPS, "--out", "no", code=6, says="need NCCL, and it is missing", env={"VAE_SIMT_NO_NCCL": "1"})
    ranks(2, "train", *STEPS, "--out", "no", code=6, says="lacks ncclAllReduce", env={"VAE_SIMT_NO_NCCL": "ncclAllReduce"})
    alone = ["sh", "-c", '[ $OMPI_COMM_WORLD_RANK = 0 ] || export VAE_SIMT_NO_DEVICE=1; exec "$@"', "sh"]
    ranks(2, "train", *STEPS, "--out", "no", code=6, says="rank 1 on .*: no GPU to run on", prefix=alone)
    ranks(2, "train", *STEPS, "--device", "auto", "--out", "no", code=6, prefix=alone,
          says="rank 1 on .*: other ranks have a GPU, and this one has none")
    ranks(2, "train", *STEPS, "--epochs", "50", "--out", "lost", code=1, says="NCCL: .*remote process exited",
          env={"VAE_SIMT_NCCL_LOST": "1"})
    assert not os.path.exists(path("no"))


@test
def calls_that_fail_on_one_rank_end_all():
    """Of CUDA, cuBLASLt and NCCL: what it ends with is documented, and nobody waits for ever."""
    test_ranks.launcher()
    for n in range(5, 400, 5 if FULL else 97):
        fails = ["sh", "-c", f'[ $OMPI_COMM_WORLD_RANK = 0 ] || export VAE_SIMT_FAIL={n}; exec "$@"', "sh"]
        # 0: it was one that frees things, or came after the end. Which one is the n-th differs from run to run:
        # while a rank waits for another it asks CUDA again and again
        ranks(2, "train", *STEPS, "--epochs", "1", "--out", "fails", code=(0, 1, 6), prefix=fails)


if __name__ == "__main__":
    own = [function.__name__ for function in harness.TESTS if function.__module__ == "__main__"]
    sys.argv[1:] = sys.argv[1:] or own
    sys.exit(runpy.run_path(os.path.join(CLI, "run"), run_name="ranks")["main"]())

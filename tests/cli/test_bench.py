"""vae bench."""
from harness import TINY, test, vae


@test
def bench_times_the_step():
    args = ["--limit", 300, "--hidden", 16, "--latent", 3, "--device", "cpu", "--threads", 1,
            "--seconds", 0.01, "--repeats", 3, "--warm-up", 40]
    result = vae("bench", *args, "--batches", "20,300", "--json").json()
    assert [row["batch"] for row in result["rows"]] == [20, 300]
    for row in result["rows"]:
        assert 0 < row["step_us_min"] <= row["step_us"] <= row["step_us_max"]
        assert 0 < row["fresh_us_min"] <= row["fresh_us"] <= row["fresh_us_max"]
        assert row["after_steps"] >= 40
        assert abs(row["fresh_examples_per_s"] * row["fresh_us"] / (1e6 * row["batch"]) - 1) < 1e-6
        assert abs(row["examples_per_s"] * row["step_us"] / (1e6 * row["batch"]) - 1) < 1e-6
        # 784-16-3: forward and both gradients, no input gradient of the first layer
        mac = 784 * 16 + 16 * 6 + 3 * 16 + 16 * 784
        flops = 2 * row["batch"] * (3 * mac - 784 * 16)
        assert abs(row["gflop_per_s"] * row["step_us"] * 1e3 / flops - 1) < 1e-6
    text = vae("bench", *args, "--batches", 20, says="medians of 3").out
    assert text.count("examples/s") == 1 and " fresh" in text
    short = vae("bench", *args, "--batches", 20, "--warm-up", 10**9, "--warm-up-seconds", 0.2,
                "--json").json()["rows"][0]
    assert short["after_steps"] < 10**6, short


@test
def bench_times_every_kind_of_model():
    """The model and the rows are those of training: classes, convolutions, particles, a part of the rows."""
    args = ["--limit", 300, "--latent", 3, "--device", "cpu", "--threads", 1, "--seconds", 0.01,
            "--repeats", 1, "--warm-up", 2, "--batches", 40, "--json"]
    for options in (["--condition", "labels", "--hidden", 8],
                    ["--semi-supervised", "--labelled", 50, "--hidden", 8],
                    ["--conv", "4,8", "--hidden", "none"],
                    ["--objective", "iwae", "--particles", 3, "--hidden", 8, "--exclude-class", 3]):
        row = vae("bench", *args, *options).json()["rows"][0]
        counted = not {"--labelled", "--particles"} & set(options)
        assert row["step_us"] > 0 and ("gflop_per_s" in row) == counted, options
    vae("bench", *args[:-3], "--batches", 251, "--semi-supervised", "--labelled", 50, "--hidden", 8,
        code=2, says="a batch of 251, but digits has 250 rows to train on")


@test
def bench_refuses():
    vae("bench", "--epochs", 3, code=2, says="--epochs has no effect on bench")
    vae("bench", "--batch-size", 3, code=2, says="--batches says which")
    vae("bench", "--init-from", "x", code=2, says="--init-from has no effect on bench")
    vae("bench", *TINY[:2], "--cache", "x", code=2, says="--cache has no effect on digits")
    vae("bench", "--batches", "3,x", code=2, says="found '3,x'")
    vae("bench", *TINY[:2], "--batches", 301, code=2, says="a batch of 301, but digits has 300 rows")
    vae("bench", "--device", "cuda:99", "--limit", 300, "--batches", 20, code=6, says="CUDA")

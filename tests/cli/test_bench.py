"""vae bench."""
from harness import TINY, test, vae


@test
def bench_times_the_step():
    args = ["--limit", 300, "--hidden", 16, "--latent", 3, "--device", "cpu", "--threads", 1,
            "--seconds", 0.01, "--repeats", 3]
    result = vae("bench", *args, "--batches", "20,300", "--json").json()
    assert [row["batch"] for row in result["rows"]] == [20, 300]
    for row in result["rows"]:
        assert 0 < row["step_us_min"] <= row["step_us"] <= row["step_us_max"]
        assert abs(row["examples_per_s"] * row["step_us"] / (1e6 * row["batch"]) - 1) < 1e-6
        # 784-16-3: forward and both gradients, no input gradient of the first layer
        mac = 784 * 16 + 16 * 6 + 3 * 16 + 16 * 784
        flops = 2 * row["batch"] * (3 * mac - 784 * 16)
        assert abs(row["gflop_per_s"] * row["step_us"] * 1e3 / flops - 1) < 1e-6
    text = vae("bench", *args, "--batches", 20, says="medians of 3").out
    assert text.count("examples/s") == 1


@test
def bench_refuses():
    vae("bench", "--epochs", 3, code=2, says="--epochs has no effect on bench")
    vae("bench", "--batch-size", 3, code=2, says="--batches says which")
    vae("bench", "--batches", "3,x", code=2, says="found '3,x'")
    vae("bench", *TINY[:2], "--batches", 301, code=2, says="a batch of 301, but digits has 300 rows")
    vae("bench", "--device", "cuda:99", "--limit", 300, "--batches", 20, code=6, says="CUDA")

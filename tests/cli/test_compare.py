"""Several runs side by side."""
import os
import re
import shutil

from harness import TINY, metrics, path, read_json, test, trained, vae


def pair():
    """Runs that differ in two options, named by their folders."""
    if not os.path.exists(path("side/a")):
        vae("train", *TINY, "--epochs", 2, "--beta", 2, "--out", "side/a", "-q")
        vae("train", *TINY, "--epochs", 2, "--lr", "0.003", "--out", "side/b", "-q")
    return "side/a", "side/b"


@test
def compare_tells_options_and_figures():
    a, b = pair()
    result = vae("compare", a, b, "--json").json()
    assert result["split"] == "test" and result["comparable"] is True
    runs = result["runs"]
    assert [r["run"] for r in runs] == ["a", "b"]
    assert [r["options"] for r in runs] == [{"beta": "2", "lr": "0.001"}, {"beta": "1", "lr": "0.003"}]
    for run, folder in zip(runs, (a, b)):
        last = [line for line in metrics(folder) if line["split"] == "test"][-1]
        assert all(abs(run[k] - last[k]) < 1e-4 for k in ("elbo", "recon", "kl")), (run, last)
        about = read_json(folder, "run.json")
        assert run["epoch"] == 2 and run["status"] == "done"
        assert 0 < run["wall_s"] <= about["wall_s"] * (1 + 1e-6)
        assert abs(run["examples_per_s"] - 600 / run["wall_s"]) < 1e-3 * run["examples_per_s"]
    best = max(runs, key=lambda r: r["elbo"])
    assert result["best"] == best["run"]
    lines = vae("compare", a, b).out.splitlines()
    assert len(lines) == 3 and re.match(r"run +beta +lr +test elbo +test recon +test kl ", lines[0])
    assert [("(best)" in line) for line in lines[1:]] == [r is best for r in runs]


@test
def compare_writes_a_page():
    a, b = pair()
    vae("compare", a, b, "--out", "side.html", says="2 runs side by side")
    with open(path("side.html")) as file:
        page = file.read()
    assert page.count("data:image/png;base64,") == 2 and page.count("<svg") == 6
    assert "<figcaption>a · beta 2 · lr 0.001</figcaption>" in page
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", page)
    assert vae("compare", a, b, "--out", "-", "-q").out.startswith("<!DOCTYPE html>")


@test
def compare_says_what_cannot_be_compared():
    a, _ = pair()
    vae("train", *TINY, "--binarize", "threshold", "--epochs", 1, "--out", "side/t", "-q")
    assert "cannot be compared" in vae("compare", a, "side/t").out
    vae("train", *TINY, "--limit", 200, "--epochs", 1, "--out", "side/fewer", "-q")
    result = vae("compare", a, "side/fewer", "--json").json()
    assert result["comparable"] is False and result["best"] is None
    # names that two runs share are paths
    shutil.copytree(path("side/a"), path("other/a"))
    assert [r["run"] for r in vae("compare", a, "other/a", "--json").json()["runs"]] == [a, "other/a"]


@test
def compare_refuses():
    a, _ = pair()
    vae("compare", a, code=2, says="RUN RUN ... is missing")
    vae("compare", a, "nowhere", code=4, says="nowhere")
    vae("compare", a, a, "--out", "-", "--json", code=2, says="--json")
    os.makedirs(path("empty"))
    vae("compare", a, "empty", code=3, says="empty")

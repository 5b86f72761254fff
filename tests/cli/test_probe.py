"""vae probe: classifiers on latents, disentanglement, scatter."""
import re
import xml.etree.ElementTree as tree

from harness import path, test, vae

SMALL = ["--limit", 600, "--hidden", 32, "--latent", 4, "--batch-size", 32, "--device", "cpu",
         "--threads", 1]


def model():
    import os
    if not os.path.exists(path("probed")):
        vae("train", *SMALL, "--epochs", 8, "--out", "probed", "--sample-every", 0)
    return "probed"


@test
def probe_measures_labels():
    run = model()
    one = vae("probe", run, "--limit", 600, "--labels", "20,100", "--seeds", 2, "--threads", 1,
              "--json").json()
    two = vae("probe", run, "--limit", 600, "--labels", "20,100", "--seeds", 2, "--threads", 3,
              "--json").json()
    assert one == two, "threads show"
    # chance is 10%; four latents after so few steps say a little, the pixels much
    assert 0.2 < one["mu"]["knn_accuracy"] < one["data"]["knn_accuracy"] <= 1, one
    assert 0.2 < one["mu"]["logistic_accuracy"] < one["data"]["logistic_accuracy"] <= 1, one
    assert one["data"]["knn_accuracy"] > 0.8 and one["data"]["logistic_accuracy"] > 0.8, one
    few, more = one["few_labels"]
    assert (few["labels"], more["labels"]) == (20, 100)
    assert more["data"]["logistic_error"] < few["data"]["logistic_error"]
    text = vae("probe", run, "--limit", 600, "--threads", 1).out
    found = re.search(r"nearest neighbours +([0-9.]+)% +([0-9.]+)%", text)
    assert abs(float(found.group(1)) - 100 * one["mu"]["knn_accuracy"]) < 0.006, text


@test
def probe_scores_factors_and_draws():
    run = model()
    out = vae("probe", run, "--limit", 1200, "--disentanglement", "--scatter", "s.svg", "--threads", 1,
              "--json").json()
    scores = out["disentanglement"]
    assert scores["factors"] == 9 and scores["rows"] == 1200
    for key in ("mig", "sap", "beta_vae", "factor_vae", "dci_disentanglement", "dci_completeness",
                "dci_informativeness"):
        assert 0 <= scores[key] <= 1, (key, scores)
    root = tree.parse(path("s.svg")).getroot()
    dots = sum(p.get("d", "").count("h0") for p in root.iter("{http://www.w3.org/2000/svg}path"))
    assert dots == 1200, dots


@test
def probe_refuses():
    run = model()
    vae("probe", run, "--limit", 600, "--labels", "15", code=2, says="a multiple of the 10 classes")
    vae("probe", run, "--limit", 600, "--labels", "5000", code=3, says="training rows; 5000 labels")
    vae("probe", run, "--limit", 600, "--labels", "many", code=2, says="found 'many'")
    vae("probe", run, "--seeds", 3, code=2, says="--seeds has no effect without --labels")
    vae("probe", run, "--holdout", "0.2", code=2, says="has a test split")
    with open(path("rows.csv"), "w") as file:
        file.write("a,b,label\n" + "0.1,0.9,0\n0.8,0.2,1\n" * 30)
    vae("train", "--data", "rows.csv", "--hidden", 4, "--latent", 2, "--epochs", 1, "--out", "tiny",
        "--threads", 1, "--device", "cpu")
    vae("probe", "tiny", code=3, says="keep rows back with --holdout 0.2")
    assert vae("probe", "tiny", "--holdout", "0.2", "--json").json()["data"]["knn_accuracy"] == 1
    vae("probe", "tiny", "--disentanglement", code=3, says="no factors")
    vae("probe", "tiny", "--data", "rows.csv", "--holdout", "0.001", code=2, says="of 60 rows is 0")
    with open(path("bare.csv"), "w") as file:
        file.write("a,b\n" + "0.1,0.9\n0.8,0.2\n" * 30)
    vae("probe", "tiny", "--data", "bare.csv", "--holdout", "0.2", code=3, says="no labels")

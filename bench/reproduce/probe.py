#!/usr/bin/env python3
"""What latents say of MNIST's labels, beside the pixels: trains, probes, appends rows to the results.

    bench/reproduce/probe.py default --data data/mnist     the defaults of vae train
    bench/reproduce/probe.py m1 --data data/mnist          M1 of Kingma et al. 2014, table 1
    bench/reproduce/probe.py --table                       the rows as Markdown

A run that was interrupted goes on. M1 there: 2 x 600 softplus, z = 50, binarized anew each time, batch
1000, Adam 3e-4, then a transductive SVM on z; here logistic regression or nearest neighbours, chosen
and fitted on the labelled rows alone, on mu.
"""
import argparse
import json
import os
import subprocess
import sys

sys.dont_write_bytecode = True
from common import HERE, append, commit, cpu, now, read, rows
MODELS = {
    "default": ["--epochs", "10"],
    "m1": ["--hidden", "600,600", "--latent", "50", "--activation", "softplus", "--binarize", "dynamic",
           "--batch-size", "1000", "--lr", "3e-4"],
}
PAPER = {100: 11.82, 600: 5.72, 1000: 4.24, 3000: 3.49}  # M1+TSVM, Kingma et al. 2014, table 1


def measure(args):
    run = os.path.join(args.runs, f"probe-{args.model}")
    train = [args.vae, "train", "--data", args.data, "--out", run, "--resume=auto", "--sample-every", "0",
             *MODELS[args.model]]
    if args.epochs is not None:
        train += ["--epochs", str(args.epochs)]
    probe = [args.vae, "probe", run, "--json", "--data", args.data, "--labels", "100,600,1000,3000",
             "--seeds", "5"]
    if args.threads is not None:
        train += ["--threads", str(args.threads)]
        probe += ["--threads", str(args.threads)]
    subprocess.run(train, check=True)
    found = json.loads(subprocess.run(probe, check=True, stdout=subprocess.PIPE).stdout)
    trained = read(os.path.join(run, "run.json"))
    del found["checkpoint"]
    row = {"schema": 1, "model": args.model, "data": os.path.basename(args.data.rstrip("/")),
           "data_sha256": trained["data"]["sha256"], "epochs": trained["epoch"],
           "wall_s": trained["wall_s"], **found, "machine": cpu(), "device": trained["device"],
           "commit": commit(),
           "date": now()}
    append(args.results, row)


def table(path):
    print("| model | labels | mu: kNN | mu: logistic | pixels: kNN | pixels: logistic | paper, M1+TSVM |")
    print("|---|---|---|---|---|---|---|")
    for row in rows(path):
        name = f"{row['model']}, {row['epochs']} epochs"
        cells = [100 * (1 - row[of][key]) for of in ("mu", "data")
                 for key in ("knn_accuracy", "logistic_accuracy")]
        print(f"| {name} | all | " + " | ".join(f"{c:.2f}" for c in cells) + " | |")
        for few in row["few_labels"]:
            cells = [f"{100 * few[of][key + '_error']:.2f} ± {100 * few[of][key + '_sd']:.2f}"
                     for of in ("mu", "data") for key in ("knn", "logistic")]
            paper = PAPER.get(few["labels"]) if row["model"] == "m1" else None
            print(f"| {name} | {few['labels']} | " + " | ".join(cells) +
                  f" | {'' if paper is None else paper} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", choices=sorted(MODELS))
    parser.add_argument("--vae", default="build/vae")
    parser.add_argument("--data", default="data/mnist")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--runs", default="runs/reproduce")
    parser.add_argument("--results", default=os.path.join(HERE, "..", "results", "probe.jsonl"))
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        table(args.results)
    elif args.model is None:
        sys.exit("probe: which model? default or m1")
    else:
        measure(args)


if __name__ == "__main__":
    main()

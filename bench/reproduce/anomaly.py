#!/usr/bin/env python3
"""Anomaly detection on MNIST: each digit left out of training in turn, with 2 and 32 latents.

    bench/reproduce/anomaly.py [--digits 0,1,2] [--latents 2,32] [--epochs 20] [--threads 1]
                               [--hidden 400] [--likelihood gaussian|bernoulli]
    bench/reproduce/anomaly.py --table

A digit and a number of latents make one run, `vae train --exclude-class D` and `vae score
--anomaly-class D`, and one line of the results; those that are recorded already are not done again,
and a run that was interrupted goes on. --table prints the lines as Markdown, beside the published
figures of anomaly.json, which says what protocol they come from and what differs here.
"""
import argparse
import json
import os
import sys
import time

sys.dont_write_bytecode = True
from common import HERE, append, commit, cpu, fail, now, read, rows, run

SCORES = ("recon_error", "recon_prob", "neg_elbo", "nll")


def numbers(text):
    return [int(part) for part in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", default="build/vae", help="the program [build/vae]")
    parser.add_argument("--data", default="data/mnist")
    parser.add_argument("--digits", type=numbers, default=list(range(10)))
    parser.add_argument("--latents", type=numbers, default=[2, 32])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--hidden", default="400")
    parser.add_argument("--likelihood", default="gaussian", choices=["gaussian", "bernoulli"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=128, help="draws of z a row [128]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--limit", type=int, help="only the first rows: for trying this out")
    parser.add_argument("--runs", default="runs/anomaly", help="folder of the runs")
    parser.add_argument("--results", default=os.path.join(HERE, "..", "results", "anomaly.jsonl"))
    parser.add_argument("--table", action="store_true", help="print what is recorded, run nothing")
    return parser.parse_args()


def key(row):
    return tuple(row[name] for name in ("digit", "latent", "likelihood", "hidden", "epochs", "seed",
                                        "samples", "limit"))


def measure(args, protocol, digit, latent):
    folder = os.path.join(args.runs, f"{args.likelihood}-z{latent}-h{args.hidden}-digit{digit}"
                          + f"-seed{args.seed}"
                          + (f"-first{args.limit}" if args.limit else ""))
    common = ["--device", args.device, "--threads", str(args.threads)]
    common += ["--limit", str(args.limit)] if args.limit else []
    run([args.vae, "train", "--data", args.data, "--exclude-class", str(digit), "--latent",
         str(latent), "--hidden", args.hidden, "--epochs", str(args.epochs), "--seed",
         str(args.seed), *protocol["train"],
         *protocol["likelihoods"][args.likelihood], "--out", folder, "--resume=auto", "-q", *common], False)
    began = time.monotonic()
    # ranks do not depend on the threshold: a few training rows do for it
    result = json.loads(run([args.vae, "score", folder, "--data", args.data, "--split", "test",
                             "--anomaly-class", str(digit), "--samples", str(args.samples),
                             "--reference", "500", "--json", *common], True))
    trained = read(os.path.join(folder, "run.json"))
    found = result["metrics"]
    return {
        "schema": 1, "digit": digit, "latent": latent,
        "likelihood": args.likelihood, "hidden": args.hidden,
        "epochs": args.epochs, "seed": args.seed, "samples": args.samples, "limit": args.limit,
        "protocol": protocol["here"], "n": result["n"], "positives": found["positives"],
        **{score: found[score] for score in SCORES},
        "train_wall_s": trained["wall_s"], "score_wall_s": round(time.monotonic() - began, 1),
        "data_sha256": trained["data"]["sha256"],
        "machine": f"{cpu()}, {trained['host']['cores']} cores", "device": trained["device"],
        "threads": args.threads, "commit": commit(), "trained_by": trained["git"],
        "date": now(),
    }


# ---- the table ----

def mean(values):
    return sum(values) / len(values)


def line(name, values):
    """Ten digits and, where all are there, their mean."""
    cells = [f"{v:.2f}" if v is not None else "" for v in values]
    cells.append(f"{mean(values):.3f}" if None not in values else "")
    return f"| {name} | " + " | ".join(cells) + " |\n"


def groups(found):
    """Rows of the whole data by what they share."""
    made = {}
    for row in found:
        if row["limit"] is None:
            shared = tuple(row[name] for name in ("latent", "likelihood", "hidden", "epochs",
                                                  "samples"))
            made.setdefault(shared, []).append(row)
    return sorted(made.items())


def averaged(group, score, metric):
    """A value a digit: the mean over seeds, or None."""
    values = []
    for digit in range(10):
        mine = [row[score][metric] for row in group if row["digit"] == digit]
        values.append(mean(mine) if mine else None)
    return values


def table(found, published, metric, scores):
    text = "| " + metric.upper() + " | " + " | ".join(map(str, range(10))) + " | mean |\n"
    text += "|" + "---|" * 12 + "\n"
    for row in published:
        if row["metric"] == metric:
            latent = f", z={row['latent']}" if row["latent"] is not None else ""
            text += line(row["source"] + latent, row["values"])
    for (latent, likelihood, hidden, epochs, _), group in groups(found):
        for score in scores:
            seeds = sorted({row["seed"] for row in group})
            name = f"here, z={latent}, {likelihood}, {score}, hidden {hidden}, {epochs} epochs"
            name += f", seeds {seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else ""
            text += line(name, averaged(group, score, metric))
    return text


def show(args, protocol):
    found = rows(args.results)
    if not any(row["limit"] is None for row in found):
        fail(f"{args.results}: no rows of the whole data")
    print(table(found, protocol["published"], "auroc", ("neg_elbo", "recon_error")))
    print(table(found, protocol["published"], "auprc", ("neg_elbo",)))
    print(f"Here: {protocol['here']}. Published: {protocol['there']}.")


def main():
    args = arguments()
    protocol = read(os.path.join(HERE, "anomaly.json"))
    if args.table:
        show(args, protocol)
        return
    if not all(0 <= digit <= 9 for digit in args.digits):
        fail("--digits: expected digits from 0 to 9")
    for latent in args.latents:
        for digit in args.digits:
            wanted = (digit, latent, args.likelihood, args.hidden, args.epochs, args.seed,
                      args.samples, args.limit)
            if wanted in map(key, rows(args.results)):
                continue
            row = measure(args, protocol, digit, latent)
            append(args.results, row)
            print(f"z={latent} digit {digit}: AUROC " + ", ".join(
                f"{score} {row[score]['auroc']:.3f}" for score in SCORES), flush=True)


if __name__ == "__main__":
    main()

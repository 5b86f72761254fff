#!/usr/bin/env python3
"""Semi-supervised MNIST with 100 labels (Kingma et al. 2014, table 1), and conditional samples.

    bench/reproduce/semi.py m1      the VAE whose latents m1m2 is trained on
    bench/reproduce/semi.py m2      M2 on the pixels
    bench/reproduce/semi.py m1m2    M2 on the latents of m1
    bench/reproduce/semi.py cvae    a conditional VAE; its samples are classified by an m2
    bench/reproduce/semi.py --table

Each run appends a row to bench/results/semi.jsonl. The classes of 28 x 28 grey MNIST, all 60,000
training rows of which 100 keep their label, ten of each class, drawn by the seed; the error is on the
10,000 test rows after the last epoch; the number of epochs is not chosen by it. A row's "chosen" says
which of its options were.
"""
import argparse
import csv
import json
import math
import os
import random
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
import common

PAPER = {"m2": "11.97 +- 1.71", "m1m2": "3.33 +- 0.14"}
NAMES = {"m2": "M2", "m1m2": "M1+M2", "cvae": "conditional VAE"}
COMMON = ["--activation", "softplus", "--batch-size", "200", "--lr", "1e-3", "--sample-every", "0"]
SEMI = ["--semi-supervised", "--labelled", "100", "--latent", "50", "--hidden", "500"]
PIXELS = ["--binarize", "dynamic"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["m1", "m2", "m1m2", "cvae"])
    parser.add_argument("--table", action="store_true", help="the results as Markdown")
    parser.add_argument("--vae", default="build/vae")
    parser.add_argument("--data", default="data/mnist")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weight", default="0.1", help="--classifier-weight: 0.1 is eq. 9 with alpha "
                        "= 0.1 N; 60 is 0.1 N/N_labelled, where alpha multiplies means of batches")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--judge", help="run of a classifier, for cvae [the m2 of this seed]")
    parser.add_argument("--each", type=int, default=100, help="conditional samples of each class")
    parser.add_argument("--runs", default="runs/semi")
    parser.add_argument("--results", default="bench/results/semi.jsonl")
    return parser.parse_args()


def folder_of(args, what):
    name = what if what in ("m1", "cvae") else f"{what}-w{args.weight}"
    return os.path.join(args.runs, f"{name}-seed{1 if what == 'm1' else args.seed}")


def options(args):
    """The options of `vae train` that make the model."""
    if args.what == "m1":
        return [*COMMON, *PIXELS, "--latent", "50", "--hidden", "600,600"]
    if args.what == "cvae":
        return [*COMMON, *PIXELS, "--condition", "labels", "--latent", "20", "--hidden", "500"]
    weight = ["--classifier-weight", args.weight]
    if args.what == "m2":
        return [*COMMON, *PIXELS, *SEMI, *weight]
    return [*COMMON, *SEMI, *weight, "--stack", folder_of(args, "m1"), "--likelihood",
            "gaussian-learned"]


def call(*command):
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if done.stdout.strip() else None


def write_npy(path, rows, columns, values):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    header += " " * (63 - (10 + len(header)) % 64) + "\n"
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        file.write(struct.pack(f"<{rows * columns}f", *values))


def recognized(args, folder):
    """Fraction of conditional samples, of each class, that a classifier takes for that class."""
    judge = args.judge or folder_of(argparse.Namespace(**{**vars(args), "what": "m2"}), "m2")
    device = ["--device", "cpu", "--threads", args.threads]
    draw, hits = random.Random(args.seed), []
    z, x, labels = (os.path.join(folder, name) for name in ("z.npy", "x.npy", "labels.csv"))
    for k in range(10):
        write_npy(z, args.each, 20, [draw.gauss(0, 1) for _ in range(args.each * 20)])
        call(args.vae, "decode", folder, "--latents", z, "--class", str(k), "--out", x, "-q", *device)
        call(args.vae, "classify", judge, "--data", x, "--out", labels, "-q", *device)
        with open(labels, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        hits.append(sum(int(row["predicted"]) == k for row in rows) / len(rows))
    judged = common.read(os.path.join(judge, "run.json"))["last"]["test"]
    return {"recognized": sum(hits) / 10, "recognized_by_class": hits,
            "judge": os.path.basename(judge.rstrip("/")), "judge_error": judged["error"],
            "each": args.each}


def measure(args):
    folder = folder_of(args, args.what)
    subprocess.run([args.vae, "train", "--data", args.data, "--out", folder, "--resume=auto", "--device",
                    "cpu", "--threads", args.threads, "--seed", str(args.seed), "--epochs",
                    str(args.epochs), *options(args)], check=True)
    done = common.read(os.path.join(folder, "run.json"))
    if args.what == "m1":
        return
    last = done["last"]["test"]
    named = options(argparse.Namespace(**{**vars(args), "runs": "runs/semi"}))
    row = {"schema": 1, "what": args.what, "labelled": 0 if args.what == "cvae" else 100,
           "classifier_weight": None if args.what == "cvae" else float(args.weight),
           "error": last.get("error"), "elbo": last["elbo"], "paper": PAPER.get(args.what),
           "seed": args.seed, "epochs": done["epoch"], "options": " ".join(named),
           "data_sha256": done["data"]["sha256"], "wall_s": done["wall_s"],
           "machine": f"{common.cpu()}, {done['host']['cores']} cores", "device": done["device"],
           "commit": common.commit(), "trained_by": done["git"],
           "date": common.now()}
    if args.what == "m1m2":
        row["m1_epochs"] = common.read(os.path.join(folder_of(args, "m1"), "run.json"))["epoch"]
    if args.what == "cvae":
        row.update(recognized(args, folder))
    common.append(args.results, row)
    print(json.dumps(row))


def spread(values):
    if len(values) < 2:
        return ""
    middle = sum(values) / len(values)
    return f" +- {math.sqrt(sum((v - middle) ** 2 for v in values) / (len(values) - 1)):.2f}"


def table(rows):
    found = {}
    for row in rows:
        found.setdefault((row["what"], row["classifier_weight"], row["epochs"]), []).append(row)
    print("| model | classifier weight | epochs | seeds | test error, % (spread of seeds) | "
          "published, % | training of one |")
    print("|---|---|---|---|---|---|---|")
    for (what, weight, epochs), group in sorted(found.items(), key=lambda item: str(item[0])):
        wall = f"{sum(row['wall_s'] for row in group) / len(group) / 60:.0f} min"
        if what == "cvae":
            continue
        errors = [100 * row["error"] for row in group]
        print(f"| {NAMES[what]} | {weight:g} | {epochs} | {len(group)} | "
              f"{sum(errors) / len(errors):.2f}{spread(errors)} | {PAPER[what]} | {wall} |")
    for row in rows:
        if row["what"] == "cvae":
            print(f"\nConditional VAE after {row['epochs']} epochs: {100 * row['recognized']:.1f}% of "
                  f"{10 * row['each']} samples are taken for their class by {row['judge']}, which "
                  f"errs on {100 * row['judge_error']:.1f}% of the test set.")


def main():
    args = arguments()
    if args.table:
        table(common.rows(args.results))
    elif args.what is None:
        sys.exit("semi: m1, m2, m1m2, cvae or --table")
    else:
        measure(args)


if __name__ == "__main__":
    main()

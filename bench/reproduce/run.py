#!/usr/bin/env python3
"""Reproduces a published figure: trains a preset, evaluates it, appends a row to the results.

    make reproduce PRESET=burda-paper-k1 [DATA=data/mnist] [STAGES=5] [SEED=2] [DEVICE=cpu] [THREADS=1]

A run that was interrupted goes on when this is called again, and so does a shortened one that is
called with more stages. A figure that is recorded already is not measured twice. The presets are
beside this file, each good for `vae train --config FILE`; figures.json says what they aim at.
"""
import argparse
import json
import os
import sys

sys.dont_write_bytecode = True
from common import HERE, append, commit, cpu, fail, now, read, rows, run


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--vae", default="build/vae", help="the program [build/vae]")
    parser.add_argument("--data", help="default: the preset's, data/mnist")
    parser.add_argument("--stages", type=int, help="of a staged preset, only the first so many")
    parser.add_argument("--epochs", type=int, help="only so many passes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", help="auto, cpu, cuda")
    parser.add_argument("--threads", type=int, help="CPU threads; default: as vae train")
    parser.add_argument("--samples", type=int, help="importance samples; default: the protocol's")
    parser.add_argument("--limit", type=int, help="only the first rows: for trying this out")
    parser.add_argument("--runs", default="runs/reproduce", help="folder of the runs")
    parser.add_argument("--results", default="bench/results/reproduce.jsonl")
    return parser.parse_args()


def passes(preset, args):
    """How many to train: all, or those of the first stages (stage i lasts 3^i)."""
    if args.stages is None:
        return args.epochs or preset["epochs"]
    if preset.get("lr-schedule") != "staged":
        fail(f"STAGES: {args.preset} has no stages")
    if args.epochs is not None or not 1 <= args.stages <= preset["stages"]:
        fail(f"STAGES: expected 1 to {preset['stages']}, and no number of passes beside it")
    return (3 ** args.stages - 1) // 2


def make_row(args, preset, figure, folder, result):
    trained = read(os.path.join(folder, "run.json"))
    value = -result["elbo"] if figure["value"] == "loss" else result["nll"]
    return {
        "schema": 1, "preset": args.preset, "source": figure["source"],
        "figure": f"{result['split']} loss" if figure["value"] == "loss" else f"NLL (L_{result['samples']})",
        "value": value,
        "se": result["nll_se"] if figure["value"] == "nll" else None,
        "paper": figure["paper"], "band": figure["band"],
        "elbo": result["elbo"], "nll": result["nll"], "nll_se": result["nll_se"],
        "samples": result["samples"], "active_units": result["active_units"],
        "paper_active_units": figure.get("paper_active"),
        "protocol": figure["protocol"], "not_modelled": figure["not_modelled"],
        "binarize": result["binarize"], "passes": result["epoch"],
        "protocol_passes": preset["epochs"], "limit": args.limit, "n": result["n"],
        "seed": args.seed, "data": os.path.basename(trained["data"]["path"].rstrip("/")),
        "data_sha256": trained["data"]["sha256"], "wall_s": trained["wall_s"],
        "machine": f"{cpu()}, {trained['host']['cores']} cores", "device": trained["device"],
        "commit": commit(), "trained_by": trained["git"],
        "date": now(),
    }


def main():
    args = arguments()
    figures = read(os.path.join(HERE, "figures.json"))
    figures.pop("compare")  # pairs of presets, for table.py
    if args.preset not in figures:
        fail(f"PRESET={args.preset}: expected one of {', '.join(figures)}")
    config = os.path.join(HERE, args.preset + ".json")
    preset, figure = read(config), figures[args.preset]
    count = passes(preset, args)
    folder = os.path.join(args.runs, f"{args.preset}-seed{args.seed}"
                          + (f"-first{args.limit}" if args.limit else ""))
    train = [args.vae, "train", "--config", config, "--out", folder, "--resume=auto",
             "--epochs", str(count), "--seed", str(args.seed)]
    evaluate = [args.vae, "eval", folder, "--json", "--samples",
                str(figure["samples"] if args.samples is None else args.samples)]
    for name in ("data", "device", "threads", "limit"):
        value = getattr(args, name)
        train += [f"--{name}", str(value)] if value is not None else []
        evaluate += [f"--{name}", str(value)] if value is not None and name != "data" else []
    run(train, False)
    done = read(os.path.join(folder, "run.json"))
    same = {"preset": args.preset, "seed": args.seed, "passes": done["epoch"],
            "data_sha256": done["data"]["sha256"], "limit": args.limit, "device": done["device"],
            "samples": int(evaluate[5])}
    for row in rows(args.results):
        if all(row.get(key) == value for key, value in same.items()):
            print(f"recorded already: {row['figure']} {row['value']:.2f} after {row['passes']} "
                  f"passes ({row['date']})")
            return
    row = make_row(args, preset, figure, folder, json.loads(run(evaluate, True)))
    if figure.get("disentanglement"):
        probe = [args.vae, "probe", folder, "--disentanglement", "--json"]
        for name in ("device", "threads", "limit"):
            value = getattr(args, name)
            probe += [f"--{name}", str(value)] if value is not None else []
        row["disentanglement"] = json.loads(run(probe, True))["disentanglement"]
    append(args.results, row)
    print(f"{row['figure']} {row['value']:.2f} after {row['passes']} of {row['protocol_passes']} "
          f"passes, binarize {row['binarize']}; published: {row['paper']}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What can be drawn from a model of photographs: the preset, and what changes when one thing of it does.

Each variant is trained anew, then as many pictures are drawn from the prior and from Gaussians fitted to q(z) of
the training rows as there are photographs, and compared with these:

    distance   Frechet's, between two Gaussians fitted to the first 64 principal components of the photographs'
               values in [0,1]: colours and shapes, not detail. Photographs themselves, half against half: "floor".
    detail     mean squared difference of neighbouring pixels, beside the photographs' (1 = as much as they have):
               what is blurred has less, wherever it comes from.

A network's features (FID) would judge more, and there is none here. So look at the grids, too: RUNS/NAME-prior.png
and RUNS/NAME-posterior.png, the same seed in all.

    bench/reproduce/draws.py PHOTOS [--build build] [--epochs 24] [--threads 1] [--only NAME,NAME]
                             [--runs runs/draws] [--json FILE]
needs NumPy and Pillow.
"""
import argparse
import json
import os
import sys

import numpy as np
from PIL import Image

sys.dont_write_bytecode = True
from common import append, commit, cpu, now, run

SIDE, COMPONENTS = 64, 64
VARIANTS = {
    "preset": [],
    "latent-32": ["--latent", "32"],
    "latent-8": ["--latent", "8"],
    "beta-4": ["--beta", "4"],
    "bernoulli": ["--likelihood", "bernoulli"],
    "no-flips": ["--flip=false"],
}


def photographs(folder):
    """All of a folder as the preset takes them, but for the filter: (n, SIDE, SIDE, 3) in [0,1]."""
    pictures = []
    for where, _, names in sorted(os.walk(folder)):
        for name in sorted(names):
            try:
                picture = Image.open(os.path.join(where, name)).convert("RGB")
            except OSError:
                continue
            edge = min(picture.size)
            left, top = ((s - edge) // 2 for s in picture.size)
            box = (left, top, left + edge, top + edge)
            pictures.append(np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX, box=box), np.float32) / 255)
    return np.stack(pictures)


def root(a):
    """Of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(a)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def frechet(a, b):
    """Heusel et al. 2017, equation 6, of rows of features."""
    ca, cb = np.cov(a.T), np.cov(b.T)
    half = root(ca)
    both = np.trace(root(half @ cb @ half))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * both)


def detail(x):
    return float(((x[:, 1:] - x[:, :-1]) ** 2).mean() + ((x[:, :, 1:] - x[:, :, :-1]) ** 2).mean())


class Judge:
    def __init__(self, real):
        self.real, flat = real, real.reshape(len(real), -1).astype(np.float64)
        self.mean = flat.mean(0)
        _, _, axes = np.linalg.svd((flat - self.mean)[np.random.default_rng(1).permutation(len(flat))[:2000]],
                                   full_matrices=False)
        self.axes = axes[:COMPONENTS].T
        self.features = self.of(real)
        order = np.random.default_rng(2).permutation(len(real))
        half = len(real) // 2
        self.floor = frechet(self.features[order[:half]], self.features[order[half:]])

    def of(self, x):
        return (x.reshape(len(x), -1) - self.mean) @ self.axes

    def __call__(self, x):
        return {"distance": round(frechet(self.features, self.of(x)), 3),
                "detail": round(detail(x) / detail(self.real), 3)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("photos")
    p.add_argument("--build", default="build")
    p.add_argument("--epochs", default="24")
    p.add_argument("--threads", default="1")
    p.add_argument("--only", default=",".join(VARIANTS))
    p.add_argument("--runs", default="runs/draws")
    p.add_argument("--json")
    args = p.parse_args()
    vae = os.path.join(args.build, "vae")

    os.makedirs(args.runs, exist_ok=True)
    judge = Judge(photographs(args.photos))
    n = str(len(judge.real))
    print(f"{n} photographs; floor of the distance {judge.floor:.3f}", flush=True)
    for name in args.only.split(","):
        folder = os.path.join(args.runs, name)
        if not os.path.exists(os.path.join(folder, "run.json")):
            run([vae, "train", "--data", args.photos, "--preset", "photos", *VARIANTS[name], "--epochs", args.epochs,
                 "--threads", args.threads, "--out", folder, "-q"], False)
        else:
            run([vae, "train", "--resume", "--out", folder, "-q"], False)
        found = json.loads(run([vae, "eval", folder, "--split", "validation", "--json", "--threads", args.threads,
                                "-q"], True))
        row = {"schema": 1, "benchmark": "draws", "variant": name, "options": VARIANTS[name],
               "epochs": int(args.epochs), "kl": found["kl"], "psnr": found["psnr"],
               "bits": found.get("bits_per_dim"), "floor": round(judge.floor, 3),
               "commit": commit(), "cpu": cpu(), "threads": int(args.threads), "date": now()}
        for source in ("prior", "posterior"):
            drawn = os.path.join(args.runs, f"{name}-{source}.npy")
            draw = [vae, "sample", folder, "--from", source, "--threads", args.threads, "-q"]
            run([*draw, "-n", n, "--out", drawn], False)
            run([*draw, "-n", "64", "--out", drawn[:-4] + ".png"], False)
            row[source] = judge(np.load(drawn).reshape(-1, SIDE, SIDE, 3).astype(np.float32))
            os.remove(drawn)
        if args.json:
            append(args.json, row)
        print(f"{name:10s} KL {row['kl']:6.1f}  PSNR {row['psnr']:5.2f} dB  prior {row['prior']}  "
              f"posterior {row['posterior']}", flush=True)


if __name__ == "__main__":
    main()

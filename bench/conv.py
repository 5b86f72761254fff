#!/usr/bin/env python3
"""The training step of a convolutional VAE on the CPU, beside PyTorch's of the same model and the
multiply-add peak, in turn and in one run: what shares the machine disturbs them alike.

64x64x3, channels 32 64 128 256, 128 latents, a Gaussian of variance 1: 327 MFLOP an image if every
sum is counted as it is written, whatever an implementation saves of them. Memory is the most that a
process had.

    bench/conv.py [--build build] [--threads N] [--batches 64,256] [--repeats 5] [--seconds 1]
                  [--rounds 2] [--modes eager,compile] [--json FILE]
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PICTURES, SIDE, CONV, LATENT = 1024, 64, "32,64,128,256", 128


def write_pictures(path):
    head = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({PICTURES}, {SIDE}, {SIDE}, 3), }}"
    head += " " * (-(10 + len(head) + 1) % 64) + "\n"
    with open(path, "wb") as f:
        f.write(b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode())
        f.write(os.urandom(PICTURES * SIDE * SIDE * 3))


def run(command, **options):
    """What a program prints, and the MiB it had at most."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{command[0]} failed: {text}")
    return text, usage.ru_maxrss / 1024


class Runs:
    def __init__(self, args, pictures):
        self.args, self.pictures = args, pictures

    def peak(self):
        text, _ = run([f"{self.args.build}/bench_ops", "--only", "nothing", "--ceiling", "64",
                       "--batch-size", "16", "--threads", str(self.args.threads)])
        return 1e3 * float(re.search(r"([\d.]+) TFLOP/s", text)[1])

    def ours(self, batch):
        a = self.args
        text, mib = run([f"{a.build}/vae", "bench", "--device", "cpu", "--data", self.pictures,
                         "--conv", CONV, "--hidden", "none", "--latent", str(LATENT),
                         "--likelihood", "gaussian", "--batches", str(batch),
                         "--repeats", str(a.repeats), "--seconds", str(a.seconds),
                         "--threads", str(a.threads), "--warm-up", "10", "--json"],
                        stderr=subprocess.DEVNULL)
        row = json.loads(text)["rows"][0]
        return {"step_us": [row[k] for k in ("step_us", "step_us_min", "step_us_max")], "mib": mib,
                "gflop_per_step": row["gflop_per_s"] * row["step_us"] * 1e-6}

    def torch(self, batch, mode):
        a = self.args
        with tempfile.NamedTemporaryFile() as f:
            run([sys.executable, "-W", "ignore", os.path.join(HERE, "peers", "torch_conv.py"),
                 "--modes", mode, "--batches", str(batch), "--threads", str(a.threads),
                 "--repeats", str(a.repeats), "--seconds", str(a.seconds), "--json", f.name],
                stderr=subprocess.DEVNULL)
            row = json.load(open(f.name))
        return {"step_us": [row["step_us"][k] for k in ("median", "min", "max")], "mib": row["mib"],
                "mib_before": row["mib_before"], "torch": row["torch"]}


def joined(runs):
    """Of several runs of the same: the median of their medians, the least and the most."""
    row = dict(runs[0])
    row["step_us"] = {"median": round(statistics.median(r["step_us"][0] for r in runs)),
                      "min": round(min(r["step_us"][1] for r in runs)),
                      "max": round(max(r["step_us"][2] for r in runs))}
    row["mib"] = round(max(r["mib"] for r in runs))
    return row


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--build", default="build")
    p.add_argument("--threads", default=len(os.sched_getaffinity(0)), type=int)
    p.add_argument("--batches", default="64,256")
    p.add_argument("--repeats", default=5, type=int)
    p.add_argument("--seconds", default=1, type=float)
    p.add_argument("--rounds", default=2, type=int)
    p.add_argument("--modes", default="eager,compile")
    p.add_argument("--json")
    args = p.parse_args()
    has_torch = subprocess.run([sys.executable, "-c", "import torch"], stderr=subprocess.DEVNULL)
    modes = args.modes.split(",") if has_torch.returncode == 0 and args.modes else []
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(args, os.path.join(folder, "pictures.npy"))
        write_pictures(runs.pictures)
        for batch in (int(b) for b in args.batches.split(",")):
            peaks, rows = [], {}
            for _ in range(args.rounds):
                for name in ["vae", *modes]:
                    peaks.append(runs.peak())
                    rows.setdefault(name, []).append(
                        runs.ours(batch) if name == "vae" else runs.torch(batch, name))
            peak = statistics.median(peaks)
            ours = joined(rows["vae"])
            gflop = round(ours.pop("gflop_per_step"), 3)
            for name, some in rows.items():
                row = ours if name == "vae" else joined(some)
                step = row["step_us"]["median"]
                row.update({
                    "schema": 2, "benchmark": "conv",
                    "who": name if name == "vae" else "torch-" + name,
                    "model": f"{SIDE}x{SIDE}x3-{CONV.replace(',', '-')}-{LATENT}", "batch": batch,
                    "threads": args.threads, "images_per_s": round(1e6 * batch / step, 1),
                    "gflop_per_step": gflop,
                    "peak_gflop_per_s": [round(v, 1) for v in sorted(peaks)],
                    "share_of_peak": round(gflop / step * 1e6 / peak, 4),
                    "vae_is_faster": round(step / ours["step_us"]["median"], 3),
                    "date": time.strftime("%Y-%m-%d")})
                if args.json:
                    with open(args.json, "a") as f:
                        f.write(json.dumps(row) + "\n")
                print(f"{row['who']:14s} batch {batch:4d} {step / 1e3:9.1f} ms "
                      f"({row['step_us']['min'] / 1e3:.1f} - {row['step_us']['max'] / 1e3:.1f})"
                      f" {row['images_per_s']:8.1f} images/s {100 * row['share_of_peak']:6.1f}% of"
                      f" the peak ({peak:.0f} GFLOP/s) {row['mib']} MiB; vae is"
                      f" {row['vae_is_faster']:.2f} times as fast",
                      flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Times PyTorch's training step of conv_vae.py's model, eager and compiled, channels last, fp32 or
bf16 by autocast: what `vae bench --conv 32,64,128,256 --hidden none -z 128 --likelihood gaussian`
times here; on a GPU also in tf32.

A Gaussian of variance 1, ReLU, Adam 1e-3; pictures of random values lie in memory as float32, a
batch is gathered by a shuffled index. Prints a table and, with --json, appends lines of JSON. Rows
name the most memory that the process has used so far (mib), and what it used before the first step
of theirs.

    torch_conv.py [--device cpu|cuda] [--conv 32,64,128,256] [--side 64] [--latent 128]
                  [--batches 64,256] [--threads N] [--precision fp32,bf16]
                  [--modes eager,compile] [--repeats 5] [--seconds 1] [--json FILE]
"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F

from conv_vae import ConvVAE


class Model(ConvVAE):
    def loss(self, x):
        mu, logvar = (part.float() for part in self.encode(x))
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        recon = 0.5 * F.mse_loss(self.decode(z).float(), x, reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (recon + kl) / x.shape[0]


def memory_mib():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def make_step(args, precision, mode, data, batch):
    torch.manual_seed(1)
    model = Model(args.conv, (), args.latent, (args.side, args.side, 3), sigmoid=False)
    model = model.to(args.device, memory_format=torch.channels_last)
    opt = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True if args.device == "cuda" else None)
    amp = torch.autocast(args.device, dtype=torch.bfloat16, enabled=precision == "bf16")
    loss_of = torch.compile(model.loss) if mode == "compile" else model.loss
    order = torch.randperm(data.shape[0], device=args.device)
    at = 0

    def run(n):
        nonlocal at
        total = 0.0  # read once on a GPU, as reading it waits for the device
        for _ in range(n):
            at = at if at + batch <= data.shape[0] else 0
            x = data[order[at:at + batch]].contiguous(memory_format=torch.channels_last)
            at += batch
            with amp:
                loss = loss_of(x)
            loss.backward()
            opt.step()
            opt.zero_grad(set_to_none=True)
            total += loss.item() if args.device == "cpu" else loss.detach()
        return float(total)

    return run


def measure(args, precision, mode, data, batch):
    name = "-".join(str(v) for v in [f"{args.side}x{args.side}x3", *args.conv, args.latent])
    row = {"schema": 2, "benchmark": "torch_conv", "model": name, "peer": "torch-" + mode, "device": args.device,
           "torch": torch.__version__, "threads": torch.get_num_threads(), "precision": precision,
           "batch": batch, "repeats": args.repeats, "mib_before": memory_mib()}
    run = make_step(args, precision, mode, data, batch)
    run(3)
    t = time.perf_counter()
    run(2)
    n = max(1, round(args.seconds / ((time.perf_counter() - t) / 2)))
    times = []
    for _ in range(args.repeats):
        t = time.perf_counter()
        run(n)
        times.append((time.perf_counter() - t) / n)
    step = statistics.median(times)
    row.update({"mib": memory_mib(), "images_per_s": round(batch / step, 1),
                "step_us": {"median": round(1e6 * step), "min": round(1e6 * min(times)),
                            "max": round(1e6 * max(times))}})
    if args.json:
        with open(args.json, "a") as f:
            f.write(json.dumps(row) + "\n")
    print(f"{name} {batch:6d} {1e6 * step:10.0f} us {batch / step:8.1f} images/s  {row['mib']} MiB"
          f"  torch {torch.__version__} {mode} {precision}", flush=True)


def main():
    numbers = lambda s: [int(v) for v in s.split(",")]  # noqa: E731
    p = argparse.ArgumentParser()
    p.add_argument("--device", default="cpu")
    p.add_argument("--conv", default="32,64,128,256", type=numbers)
    p.add_argument("--side", default=64, type=int)
    p.add_argument("--latent", default=128, type=int)
    p.add_argument("--batches", default="64,256", type=numbers)
    p.add_argument("--threads", default=0, type=int)
    p.add_argument("--precision", default="fp32")
    p.add_argument("--modes", default="eager,compile")
    p.add_argument("--repeats", default=5, type=int)
    p.add_argument("--seconds", default=1, type=float)
    p.add_argument("--json")
    args = p.parse_args()
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    data = torch.rand(1024, 3, args.side, args.side, generator=torch.Generator().manual_seed(2))
    data = data.to(args.device, memory_format=torch.channels_last)
    for precision in args.precision.split(","):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = True
        for batch in args.batches:
            for mode in args.modes.split(","):
                torch.compiler.reset()
                measure(args, precision, mode, data, batch)


if __name__ == "__main__":
    main()

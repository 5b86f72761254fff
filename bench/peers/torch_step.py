#!/usr/bin/env python3
"""Times PyTorch's training step of the same VAE: eager, and compiled; on a GPU also either of these
captured as one CUDA graph, which is the fastest that it offers.

The model is pytorch/examples' (784-400-20 by default, ReLU, Bernoulli from logits summed over
pixels, closed-form KL, Adam 1e-3), the data lie on the device as float32, a batch is gathered by a
shuffled index. Prints a table and, with --json, appends lines of JSON like bench_step's.

With --conv it is the README's ConvVAE on pictures of --side x --side x 3 instead, channels last, ReLU,
a Gaussian of variance 1 (`vae bench --conv ... --hidden none --likelihood gaussian`).

    torch_step.py [--device cpu|cuda] [--precision fp32,tf32,bf16] [--hidden 400] [--latent 20]
                  [--conv 32,64,128,256] [--side 64] [--threads N]
                  [--batches 20,128,1024,8192] [--repeats 9] [--seconds 0.5] [--json FILE]
                  [--modes eager,graph,compile,compile-graph]

Rows name the most memory that the process has used so far, and what it used before the first step.
"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F


class VAE(torch.nn.Module):
    def __init__(self, d, hidden, latent):
        super().__init__()
        sizes = [d] + hidden
        self.enc = torch.nn.ModuleList(
            torch.nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        self.head = torch.nn.Linear(sizes[-1], 2 * latent)
        sizes = [latent] + hidden[::-1]
        self.dec = torch.nn.ModuleList(
            torch.nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        self.out = torch.nn.Linear(sizes[-1], d)

    def loss(self, x):
        h = x
        for layer in self.enc:
            h = F.relu(layer(h))
        mu, logvar = self.head(h).float().chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        h = z.to(x.dtype)
        for layer in self.dec:
            h = F.relu(layer(h))
        logits = self.out(h).float()
        recon = F.binary_cross_entropy_with_logits(logits, x.float(), reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (recon + kl) / x.shape[0]


class ConvVAE(torch.nn.Module):
    def __init__(self, conv, channels, side, z):
        super().__init__()
        c = [channels] + conv
        self.grid = (conv[-1], side >> len(conv), side >> len(conv))
        n = conv[-1] * self.grid[1] ** 2
        self.enc = torch.nn.ModuleList(torch.nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(c, c[1:]))
        self.head = torch.nn.Linear(n, 2 * z)
        self.first = torch.nn.Linear(z, n)
        self.dec = torch.nn.ModuleList(
            torch.nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in list(zip(c, c[1:]))[::-1])

    def loss(self, x):
        h = x
        for layer in self.enc:
            h = F.relu(layer(h))
        mu, logvar = self.head(h.flatten(1)).float().chunk(2, dim=1)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        h = F.relu(self.first(z.to(x.dtype))).unflatten(1, self.grid)
        h = h.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.dec):
            h = layer(h) if i == len(self.dec) - 1 else F.relu(layer(h))
        recon = 0.5 * F.mse_loss(h.float(), x.float(), reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (recon + kl) / x.shape[0]


def new_model(args):
    if args.conv:
        model = ConvVAE(args.conv, 3, args.side, args.latent)
        return model.to(args.device, memory_format=torch.channels_last)
    return VAE(784, args.hidden, args.latent).to(args.device)


def new_data(args, n):
    g = torch.Generator().manual_seed(2)
    if args.conv:
        data = torch.rand(n, 3, args.side, args.side, generator=g)
        return data.to(args.device, memory_format=torch.channels_last)
    data = torch.rand(n, 784, generator=g)
    return (data * (torch.rand(n, 784, generator=g) < 0.2)).to(args.device)


def memory_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def make_step(args, precision, mode, data, batch):
    torch.manual_seed(1)
    model = new_model(args)
    cuda = args.device == "cuda"
    opt = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True if cuda else None,
                           capturable=cuda)
    amp = torch.autocast(args.device, dtype=torch.bfloat16, enabled=precision == "bf16")
    order = torch.randperm(data.shape[0], device=data.device)
    loss_of = torch.compile(model.loss) if mode.startswith("compile") else model.loss

    def step(x):
        with amp:
            loss = loss_of(x)
        loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=not mode.endswith("graph"))
        return loss.detach()

    at = 0

    def batches(n):
        nonlocal at
        for _ in range(n):
            if at + batch > data.shape[0]:
                at = 0
            yield order[at:at + batch]
            at += batch

    def run(n):
        total = None
        for rows in batches(n):
            loss = step(data[rows])
            total = loss.clone() if total is None else total + loss
        return total.item()  # waits for the device, as reading a log point does

    if mode.endswith("graph"):  # the same kernels, captured once and replayed
        static = data[order[:batch]].clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step(static)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = step(static)

        def run(n):
            for rows in batches(n):
                torch.index_select(data, 0, rows, out=static)
                graph.replay()
            return loss.item()

    return run


def report(args, row):
    """Appends a row at once: a run may be cut off."""
    if args.json:
        with open(args.json, "a") as f:
            f.write(json.dumps({"schema": 2, "benchmark": "torch_step", "torch": torch.__version__,
                                "threads": torch.get_num_threads(), "repeats": args.repeats,
                                **row}) + "\n")


def measure(args, name, precision, mode, data, batch):
    row = {"model": name, "peer": "torch-" + mode, "device": args.device, "precision": precision,
           "batch": batch, "mib_before": round(memory_mib())}
    try:
        run = make_step(args, precision, mode, data, batch)
        run(10)
        t = time.perf_counter()
        run(5)
        n = max(1, int(args.seconds / ((time.perf_counter() - t) / 5)))
        times = []
        for _ in range(args.repeats):
            t = time.perf_counter()
            run(n)
            times.append((time.perf_counter() - t) / n)
    except Exception as e:  # a peer that cannot run here is reported, not hidden
        print(f"{name} batch {batch} {mode}: failed: {type(e).__name__}: {str(e)[:200]}", flush=True)
        report(args, {**row, "error": str(e)[:200]})
        return
    us = 1e6 * statistics.median(times)
    report(args, {**row, "mib": round(memory_mib()), "examples_per_s": round(batch / us * 1e6),
                  "step_us": {"median": round(us, 2), "min": round(1e6 * min(times), 2),
                              "max": round(1e6 * max(times), 2)}})
    print(f"{name:18s} {batch:7d} {us:10.1f} us  {batch / us * 1e6:10.0f} examples/s"
          f"  torch {torch.__version__} {mode} {precision}", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--device", default="cpu")
    p.add_argument("--precision", default="fp32", type=lambda s: s.split(","))
    p.add_argument("--hidden", default="400", type=lambda s: [int(v) for v in s.split(",")])
    p.add_argument("--latent", default=20, type=int)
    p.add_argument("--conv", default=None, type=lambda s: [int(v) for v in s.split(",")])
    p.add_argument("--side", default=64, type=int)
    p.add_argument("--threads", default=None, type=int)
    p.add_argument("--batches", default="20,128,1024,8192")
    p.add_argument("--repeats", default=9, type=int)
    p.add_argument("--seconds", default=0.5, type=float)
    p.add_argument("--modes", default=None)
    p.add_argument("--json")
    args = p.parse_args()
    modes = args.modes or ("eager,graph,compile,compile-graph" if args.device == "cuda" else
                           "eager,compile")
    name = "-".join(str(v) for v in [784] + args.hidden + [args.latent])
    if args.conv:
        name = "-".join(str(v) for v in [f"{args.side}x{args.side}x3"] + args.conv + [args.latent])
    if args.threads:
        torch.set_num_threads(args.threads)
    for precision in args.precision:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        for batch in (int(b) for b in args.batches.split(",")):
            data = new_data(args, max(1024 if args.conv else 60000, batch))
            for mode in modes.split(","):
                torch.compiler.reset()
                measure(args, name, precision, mode, data, batch)


if __name__ == "__main__":
    main()

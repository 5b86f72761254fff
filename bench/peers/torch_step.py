#!/usr/bin/env python3
"""Times PyTorch's training step of the same VAE: eager, and compiled; on a GPU also either of these
captured as one CUDA graph, which is the fastest that it offers.

The model is pytorch/examples' (784-400-20 by default, ReLU, Bernoulli from logits summed over
pixels, closed-form KL, Adam 1e-3), the data lie on the device as float32, a batch is gathered by a
shuffled index. --particles K makes it an importance weighted autoencoder's (Burda et al. 2015: log
mean of K weights); --dynamic draws x from the pixels at every use. Times are those after --warm-up
steps, or seconds, and with fresh weights beside them. Prints a table and, with --json, appends
lines of JSON like bench_step's.

    torch_step.py [--device cpu|cuda] [--precision fp32,tf32,bf16] [--hidden 400] [--latent 20]
                  [--batches 20,128,1024,8192] [--repeats 9] [--seconds 0.5] [--json FILE]
                  [--modes eager,graph,compile,compile-graph] [--data BYTES] [--warm-up 2000]
                  [--warm-up-seconds 20] [--activation relu|tanh] [--particles K] [--dynamic]

BYTES are rows of 784 bytes, as bench_step --dump writes them; without, they are random.
"""
import argparse
import json
import math
import statistics
import time

import torch
import torch.nn.functional as F


class VAE(torch.nn.Module):
    def __init__(self, d, args):
        super().__init__()
        hidden, latent = args.hidden, args.latent
        self.act, self.particles, self.dynamic = getattr(torch, args.activation), args.particles, args.dynamic
        sizes = [d] + hidden
        self.enc = torch.nn.ModuleList(
            torch.nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        self.head = torch.nn.Linear(sizes[-1], 2 * latent)
        sizes = [latent] + hidden[::-1]
        self.dec = torch.nn.ModuleList(
            torch.nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        self.out = torch.nn.Linear(sizes[-1], d)

    def loss(self, x):
        if self.dynamic:
            x = (torch.rand_like(x) < x).to(x.dtype)
        h = x
        for layer in self.enc:
            h = self.act(layer(h))
        mu, logvar = self.head(h).float().chunk(2, dim=1)
        if self.particles > 0:
            return self.bound(x, mu, logvar)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        logits = self.decode(z.to(x.dtype))
        recon = F.binary_cross_entropy_with_logits(logits, x.float(), reduction="sum")
        kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
        return (recon + kl) / x.shape[0]

    def decode(self, h):
        for layer in self.dec:
            h = self.act(layer(h))
        return self.out(h).float()

    def bound(self, x, mu, logvar):
        eps = torch.randn(x.shape[0], self.particles, mu.shape[1], device=x.device)
        z = mu.unsqueeze(1) + torch.exp(0.5 * logvar).unsqueeze(1) * eps
        logits = self.decode(z.to(x.dtype))
        recon = F.binary_cross_entropy_with_logits(
            logits, x.float().unsqueeze(1).expand_as(logits), reduction="none").sum(2)
        log_pq = 0.5 * (eps.pow(2) - z.pow(2) + logvar.unsqueeze(1)).sum(2)
        return -(torch.logsumexp(log_pq - recon, 1) - math.log(self.particles)).mean()


def make_step(args, precision, mode, data, batch):
    torch.manual_seed(1)
    model = VAE(data.shape[1], args).to(args.device)
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
           "batch": batch, "particles": args.particles, "data": "digits" if args.data else "random"}
    try:
        run = make_step(args, precision, mode, data, batch)
        run(10)
        t = time.perf_counter()
        run(5)
        n = max(1, int(args.seconds / ((time.perf_counter() - t) / 5)))

        def measured():
            times = []
            for _ in range(args.repeats):
                t = time.perf_counter()
                run(n)
                times.append((time.perf_counter() - t) / n)
            return times

        fresh, after = measured(), 15 + args.repeats * n
        t, some = time.perf_counter(), max(1, n // 10)
        while after < args.warm_up and time.perf_counter() - t < args.warm_up_seconds:
            run(some)
            after += some
        times = measured()
    except Exception as e:  # a peer that cannot run here is reported, not hidden
        print(f"{name} batch {batch} {mode}: failed: {type(e).__name__}: {str(e)[:200]}", flush=True)
        report(args, {**row, "error": str(e)[:200]})
        return
    us, fresh_us = (1e6 * statistics.median(some) for some in (times, fresh))
    report(args, {**row, "examples_per_s": round(batch / us * 1e6), "after_steps": after,
                  "fresh_us": {"median": round(fresh_us, 2), "min": round(1e6 * min(fresh), 2),
                               "max": round(1e6 * max(fresh), 2)},
                  "step_us": {"median": round(us, 2), "min": round(1e6 * min(times), 2),
                              "max": round(1e6 * max(times), 2)}})
    print(f"{name:18s} {batch:7d} {us:10.1f} us  {batch / us * 1e6:10.0f} examples/s"
          f" after {after} steps, {batch / fresh_us * 1e6:.0f} fresh  torch {torch.__version__} {mode} {precision}", flush=True)


def read_rows(args, batch):
    if args.data:
        with open(args.data, "rb") as f:
            data = torch.frombuffer(bytearray(f.read()), dtype=torch.uint8).view(-1, 784).float() / 255
        return data.repeat(-(-batch // data.shape[0]), 1)
    n_rows = max(60000, batch)
    g = torch.Generator().manual_seed(2)
    data = torch.rand(n_rows, 784, generator=g)
    return data * (torch.rand(n_rows, 784, generator=g) < 0.2)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--device", default="cpu")
    p.add_argument("--precision", default="fp32", type=lambda s: s.split(","))
    p.add_argument("--hidden", default="400", type=lambda s: [int(v) for v in s.split(",")])
    p.add_argument("--latent", default=20, type=int)
    p.add_argument("--batches", default="20,128,1024,8192")
    p.add_argument("--repeats", default=9, type=int)
    p.add_argument("--seconds", default=0.5, type=float)
    p.add_argument("--modes", default=None)
    p.add_argument("--data")
    p.add_argument("--warm-up", default=2000, type=int)
    p.add_argument("--warm-up-seconds", default=20, type=float)
    p.add_argument("--activation", default="relu", choices=["relu", "tanh"])
    p.add_argument("--particles", default=0, type=int)
    p.add_argument("--dynamic", action="store_true")
    p.add_argument("--json")
    args = p.parse_args()
    modes = args.modes or ("eager,graph,compile,compile-graph" if args.device == "cuda" else
                           "eager,compile")
    name = "-".join(str(v) for v in [784] + args.hidden + [args.latent])
    for precision in args.precision:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        for batch in (int(b) for b in args.batches.split(",")):
            data = read_rows(args, batch).to(args.device)
            for mode in modes.split(","):
                torch.compiler.reset()
                measure(args, name, precision, mode, data, batch)


if __name__ == "__main__":
    main()

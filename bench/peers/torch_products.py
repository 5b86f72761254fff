#!/usr/bin/env python3
"""Times PyTorch's products (on a CPU of x86-64 MKL's, in bf16 oneDNN's) of one training step: what
bench_step calls `matmul`, each on memory of its own, by torch.mm into memory that lies ready; and
says whether one thread gives the same bits.

    torch_products.py [--hidden 400] [--latent 20] [--batches 20,128,1024,8192] [--threads N]
                      [--precision fp32|bf16] [--repeats 9] [--seconds 0.5] [--json FILE]
"""
import argparse
import json
import statistics
import time

import torch


def products(sizes, batch, dtype):
    """(out, a, b) of each layer's products: forward, weight's gradient, input's gradient."""
    work = []
    for i, (n_in, n_out) in enumerate(sizes):
        x, w, dy = (torch.rand(shape).to(dtype) for shape in ((batch, n_in), (n_out, n_in), (batch, n_out)))
        work.append((torch.empty(batch, n_out, dtype=dtype), x, w.t()))
        work.append((torch.empty(n_out, n_in, dtype=dtype), dy.t(), x))
        if i > 0:
            work.append((torch.empty(batch, n_in, dtype=dtype), dy, w))
    return work


def same_bits(work):
    """Of how many products one thread gives the bits of all."""
    threads, many = torch.get_num_threads(), [torch.mm(a, b) for _, a, b in work]
    torch.set_num_threads(1)
    same = sum(torch.equal(torch.mm(a, b), c) for (_, a, b), c in zip(work, many))
    torch.set_num_threads(threads)
    return same


def main():
    numbers = lambda s: [int(v) for v in s.split(",")]  # noqa: E731
    p = argparse.ArgumentParser()
    p.add_argument("--hidden", default="400", type=numbers)
    p.add_argument("--latent", default=20, type=int)
    p.add_argument("--batches", default="20,128,1024,8192", type=numbers)
    p.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    p.add_argument("--threads", default=0, type=int)
    p.add_argument("--repeats", default=9, type=int)
    p.add_argument("--seconds", default=0.5, type=float)
    p.add_argument("--json")
    args = p.parse_args()
    if args.threads > 0:
        torch.set_num_threads(args.threads)
    down, up = [784, *args.hidden], [args.latent, *args.hidden[::-1], 784]
    sizes = [*zip(down, down[1:]), (down[-1], 2 * args.latent), *zip(up, up[1:])]
    name = "-".join(str(v) for v in [*down, args.latent])
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    blas = "oneDNN" if args.precision == "bf16" else "MKL" if torch.backends.mkl.is_available() else "another library"
    for batch in args.batches:
        work = products(sizes, batch, dtype)
        flops = sum(2 * out.numel() * a.shape[1] for out, a, _ in work)

        def run(n):
            t = time.perf_counter()
            for _ in range(n):
                for out, a, b in work:
                    torch.mm(a, b, out=out)
            return (time.perf_counter() - t) / n

        same = same_bits(work)
        run(2)
        n = max(1, int(args.seconds / run(2)))
        times = [run(n) for _ in range(args.repeats)]
        median = statistics.median(times)
        if args.json:
            with open(args.json, "a") as f:
                f.write(json.dumps({
                    "schema": 2, "benchmark": "torch_products", "torch": torch.__version__,
                    "blas": blas, "threads": torch.get_num_threads(), "repeats": args.repeats,
                    "model": name, "precision": args.precision, "batch": batch,
                    "products": len(work), "same_bits_on_one_thread": same, "gflop": round(1e-9 * flops, 4),
                    "gflop_per_s": round(1e-9 * flops / median, 1),
                    "us": {"median": round(1e6 * median, 2), "min": round(1e6 * min(times), 2),
                           "max": round(1e6 * max(times), 2)}}) + "\n")
        print(f"{name:18s} {batch:7d} {1e6 * median:10.1f} us  {1e-9 * flops / median:8.1f} GFLOP/s"
              f"  products by {blas}, torch {torch.__version__}, "
              f"{same} of {len(work)} with the same bits on one thread", flush=True)


if __name__ == "__main__":
    main()

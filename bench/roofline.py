#!/usr/bin/env python3
"""Predicts the time of each operation of a training step from its bytes and FLOPs, so that a real
run can be judged: time >= max(bytes / copy rate, FLOPs / matmul rate).

    roofline.py [--hidden 400] [--latent 20] [--classes 0] [--batch 128,65536]
                [--precision bf16] [--copy 4.3e12] [--matmul 790e12] [--json FILE]

--classes C: of a semi-supervised model, every example as each of C classes; its classifier and its
few labelled rows are left out.

Ceilings default to one H200 as measured elsewhere: 4.3 TB/s device-to-device copy (reads and
writes counted), 790 TFLOP/s for an 8192^3 bf16 product; tf32 counts half of that, fp32 67 TFLOP/s
(the vendor's sheet). Bytes: every activation is written once and read by each consumer, data set
rows are bytes, Adam reads g and reads and writes p, m, v in fp32 and writes the bf16 shadow.
What stays in the L2 cache is not counted off, so at small batches the memory time is an upper
bound and kernel launches (some 2 us each in a graph) decide.
"""
import argparse
import json


def operations(hidden, latent, classes, batch, precision, d=784):
    act = 2 if precision == "bf16" else 4
    ops = []

    def op(name, read, written, flops=0, nodes=1):
        ops.append({"op": name, "bytes": read + written, "flops": flops, "nodes": nodes})

    enc = [d] + hidden
    dec = [latent + classes] + hidden[::-1]
    layers = [(f"enc{i}", a, b) for i, (a, b) in enumerate(zip(enc[:-1], enc[1:]))]
    layers += [("head", enc[-1], 2 * latent)]
    n_enc = len(layers)
    layers += [(f"dec{i}", a, b) for i, (a, b) in enumerate(zip(dec[:-1], dec[1:]))]
    layers += [("out", dec[-1], d)]
    params = sum(a * b + b for _, a, b in layers) + classes * layers[0][2]
    rows = batch * max(classes, 1)
    h = layers[0][2]

    op("gather", batch * d, batch * d * act)
    for i, (name, a, b) in enumerate(layers):
        n = batch if i == 0 else rows  # the first layer's product is the same for all classes
        if i == n_enc:
            op("latent forward", rows * 2 * latent * act, rows * latent * act + rows * 4)
        op(name + " forward", (n * a + a * b) * act, n * b * act, 2 * n * a * b)
        if i == 0 and classes > 0:
            op("class forward", batch * h * act, rows * h * act)
    op("loss", (rows + batch) * d * act, rows * d * act + rows * 4)
    if classes > 0:
        op("class loss", rows * 12, rows * 4)
        op("weights of rows", rows * d * act, rows * d * act)
    op("totals", batch * 8, 0)
    for i, (name, a, b) in reversed(list(enumerate(layers))):
        n = batch if i == 0 else rows
        if i == 0 and classes > 0:
            op("class sums", rows * h * act, batch * h * act)
        op(name + " weight gradient", n * (a + b) * act, a * b * 4, 2 * n * a * b)
        if i == 0 and classes > 0:
            op("class weight gradient", rows * h * act, classes * h * 4)
        if i > 0:
            mask = n * a // 8 if i != n_enc else 0
            op(name + " input gradient", (n * b + a * b) * act + mask, n * a * act, 2 * n * a * b)
        if i == n_enc:
            op("latent backward", rows * 3 * latent * act, rows * 2 * latent * act)
    op("gradient norm", params * 4, 0)
    op("adam", params * 16, params * 12 + (params * 2 if precision == "bf16" else 0))
    return ops, params


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--hidden", default="400", type=lambda s: [int(v) for v in s.split(",")])
    p.add_argument("--latent", default=20, type=int)
    p.add_argument("--classes", default=0, type=int)
    p.add_argument("--batch", default="128,65536")
    p.add_argument("--precision", default="bf16", choices=["fp32", "tf32", "bf16"])
    p.add_argument("--copy", default=4.3e12, type=float)
    p.add_argument("--matmul", default=None, type=float)
    p.add_argument("--json")
    args = p.parse_args()
    matmul = args.matmul or {"bf16": 790e12, "tf32": 395e12, "fp32": 67e12}[args.precision]
    report = []
    for batch in (int(b) for b in args.batch.split(",")):
        ops, params = operations(args.hidden, args.latent, args.classes, batch, args.precision)
        kind = f", {args.classes} classes" if args.classes > 0 else ""
        print(f"784-{'-'.join(map(str, args.hidden))}-{args.latent}{kind}, {params:,} parameters, "
              f"batch {batch}, {args.precision}")
        print(f"{'operation':24s} {'MB':>10s} {'GFLOP':>9s} {'us memory':>10s} {'us math':>9s} "
              f"{'us bound':>9s}")
        total = {"bytes": 0, "flops": 0, "us": 0.0}
        for o in ops:
            o["us_memory"] = 1e6 * o["bytes"] / args.copy
            o["us_math"] = 1e6 * o["flops"] / matmul
            o["us"] = max(o["us_memory"], o["us_math"])
            total["bytes"] += o["bytes"]
            total["flops"] += o["flops"]
            total["us"] += o["us"]
            print(f"{o['op']:24s} {o['bytes'] / 1e6:10.3f} {o['flops'] / 1e9:9.3f} "
                  f"{o['us_memory']:10.2f} {o['us_math']:9.2f} {o['us']:9.2f}")
        bound = max(total["bytes"] / args.copy, total["flops"] / matmul)
        print(f"{'sum':24s} {total['bytes'] / 1e6:10.3f} {total['flops'] / 1e9:9.3f} "
              f"{'':10s} {'':9s} {total['us']:9.2f}")
        print(f"op by op {total['us']:.1f} us = {batch / total['us']:.2f} M examples/s; the whole "
              f"step as one, {1e6 * bound:.1f} us = {batch / bound / 1e6:.2f} M examples/s\n")
        report.append({"batch": batch, "precision": args.precision, "hidden": args.hidden,
                       "latent": args.latent, "classes": args.classes, "parameters": params, "ops": ops,
                       "us_op_by_op": total["us"], "us_bound": 1e6 * bound})
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"schema": 1, "kind": "prediction", "copy_bytes_per_s": args.copy,
                       "matmul_flop_per_s": matmul, "models": report}, f, indent=1)


if __name__ == "__main__":
    main()

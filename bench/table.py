#!/usr/bin/env python3
"""Makes the tables of step times from rows of bench_step and the peers (lines of JSON): a line for each
precision and batch, the program beside its bound (roofline.py) and every peer, medians in microseconds.

    table.py ROWS.jsonl [MODEL]        MODEL: 784-400-20 unless given
"""
import json
import sys

from roofline import operations

NAMES = {"torch-eager": "PyTorch eager", "torch-graph": "eager, CUDA graph",
         "torch-compile": "compiled", "torch-compile-graph": "compiled, CUDA graph",
         "jax-scan": "JAX, scan"}
PEERS = list(NAMES)


def bound(model, batch, precision, copy=4.3e12):
    sizes = [int(n) for n in model.split("-")[1:]]
    ops, _ = operations(sizes[:-1], sizes[-1], 0, batch, precision)
    matmul = {"bf16": 790e12, "tf32": 395e12, "fp32": 67e12}[precision]
    return 1e6 * sum(max(o["bytes"] / copy, o["flops"] / matmul) for o in ops)


def main():
    model = sys.argv[2] if len(sys.argv) > 2 else "784-400-20"
    own, peers = {}, {}
    for line in open(sys.argv[1]):
        row = json.loads(line)
        if row.get("model") != model or "step_us" not in row:
            continue
        key = row["precision"], row["batch"]
        if row.get("benchmark") == "step" and row["device"] == "cuda" and row.get("note", "") in ("", "default"):
            own[key] = row["step_us"]["median"]
        elif row.get("peer") in PEERS:
            peers[key + (row["peer"],)] = row["step_us"]["median"]
    print("| precision | batch | vae, us | M examples/s | bound, us | "
          + " | ".join(NAMES[p] for p in PEERS) + " | fastest peer / vae |")
    print("|---" * (6 + len(PEERS)) + "|")
    order = {"bf16": 0, "tf32": 1, "fp32": 2}
    for key in sorted(own, key=lambda k: (order[k[0]], k[1])):
        times = [peers.get(key + (p,)) for p in PEERS]
        best = min((t for t in times if t), default=None)
        cells = [key[0], f"{key[1]:,}", f"{own[key]:,.1f}", f"{key[1] / own[key]:.2f}",
                 f"{bound(model, key[1], key[0]):,.0f}"]
        cells += [f"{t:,.0f}" if t else "" for t in times] + [f"{best / own[key]:.1f}" if best else ""]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

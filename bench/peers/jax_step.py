#!/usr/bin/env python3
"""Times JAX's training step of the same VAE: one jitted function that runs `lax.scan` over steps,
data on the device, Adam written out (so that only jax is needed).

    jax_step.py [--precision fp32,tf32,bf16] [--hidden 400] [--latent 20]
                [--batches 128,1024,8192] [--steps 50] [--repeats 9] [--json FILE] [--data BYTES]
                [--warm-up 2000] [--warm-up-seconds 20]

BYTES are rows of 784 bytes, as bench_step --dump writes them; without, they are random. Times are
those after --warm-up steps, or seconds, and with fresh weights beside them.
"""
import argparse
import json
import statistics
import time

import jax
import jax.numpy as jnp


def init(key, sizes):
    params = []
    for a, b in zip(sizes[:-1], sizes[1:]):
        key, k1, k2 = jax.random.split(key, 3)
        bound = a ** -0.5
        params.append((jax.random.uniform(k1, (a, b), minval=-bound, maxval=bound),
                       jax.random.uniform(k2, (b,), minval=-bound, maxval=bound)))
    return params


def dense(layer, x, dtype):
    w, b = layer
    return jnp.dot(x.astype(dtype), w.astype(dtype),
                   preferred_element_type=jnp.float32) + b


def loss_fn(params, x, key, n_enc, dtype):
    h = x
    for layer in params[:n_enc - 1]:
        h = jax.nn.relu(dense(layer, h, dtype))
    mu, logvar = jnp.split(dense(params[n_enc - 1], h, dtype), 2, axis=1)
    h = mu + jnp.exp(0.5 * logvar) * jax.random.normal(key, mu.shape)
    for layer in params[n_enc:-1]:
        h = jax.nn.relu(dense(layer, h, dtype))
    logits = dense(params[-1], h, dtype)
    recon = jnp.sum(jax.nn.softplus(logits) - x * logits)
    kl = -0.5 * jnp.sum(1 + logvar - mu ** 2 - jnp.exp(logvar))
    return (recon + kl) / x.shape[0]


def make_run(args, precision, data, batch, steps):
    sizes_enc = [784] + args.hidden
    sizes_dec = [args.latent] + args.hidden[::-1] + [784]
    key = jax.random.PRNGKey(1)
    params = init(key, sizes_enc + [2 * args.latent]) + init(key, sizes_dec)
    n_enc = len(args.hidden) + 1
    dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
    order = jax.random.permutation(key, data.shape[0])
    zeros = jax.tree_util.tree_map(jnp.zeros_like, params)

    def step(carry, i):
        params, m, v, t, key = carry
        key, sub = jax.random.split(key)
        first = (i * batch) % (data.shape[0] - batch + 1)
        x = data[jax.lax.dynamic_slice(order, (first,), (batch,))].astype(jnp.float32) / 255.0
        loss, g = jax.value_and_grad(loss_fn)(params, x, sub, n_enc, dtype)
        t = t + 1
        m = jax.tree_util.tree_map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree_util.tree_map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        c1, c2 = 1 - 0.9 ** t, 1 - 0.999 ** t
        params = jax.tree_util.tree_map(
            lambda p, a, b: p - 1e-3 * (a / c1) / (jnp.sqrt(b / c2) + 1e-8), params, m, v)
        return (params, m, v, t, key), loss

    @jax.jit
    def run(carry):
        carry, losses = jax.lax.scan(step, carry, jnp.arange(steps))
        return carry, losses.sum()

    return run, (params, zeros, zeros, jnp.float32(0), key)


def report(args, row):
    """Appends a row at once: a run may be cut off."""
    if args.json:
        with open(args.json, "a") as f:
            f.write(json.dumps({"schema": 2, "benchmark": "jax_step", "jax": jax.__version__,
                                "repeats": args.repeats, **row}) + "\n")


def measure(args, name, precision, batch, device):
    n_rows = max(60000, batch)
    if args.data:
        with open(args.data, "rb") as f:
            data = jnp.frombuffer(f.read(), dtype=jnp.uint8).reshape(-1, 784)
        data = jnp.tile(data, (-(-batch // data.shape[0]), 1))
    else:
        data = jax.random.randint(jax.random.PRNGKey(2), (n_rows, 784), 0, 256, dtype=jnp.uint8)
    run, carry = make_run(args, precision, data, batch, args.steps)
    carry, loss = run(carry)
    loss.block_until_ready()

    def measured(carry, times, n):
        for _ in range(n):
            t = time.perf_counter()
            carry, loss = run(carry)
            loss.block_until_ready()
            times.append((time.perf_counter() - t) / args.steps)
        return carry

    fresh, times, ignored = [], [], []
    carry = measured(carry, fresh, args.repeats)
    t, after = time.perf_counter(), (1 + args.repeats) * args.steps
    while after < args.warm_up and time.perf_counter() - t < args.warm_up_seconds:
        carry = measured(carry, ignored, 1)
        after += args.steps
    measured(carry, times, args.repeats)
    us, fresh_us = (1e6 * statistics.median(some) for some in (times, fresh))
    report(args, {"model": name, "peer": "jax-scan", "device": device.platform,
                  "precision": precision, "batch": batch,
                  "examples_per_s": round(batch / us * 1e6), "after_steps": after,
                  "data": "digits" if args.data else "random",
                  "fresh_us": {"median": round(fresh_us, 2), "min": round(1e6 * min(fresh), 2),
                               "max": round(1e6 * max(fresh), 2)},
                  "step_us": {"median": round(us, 2), "min": round(1e6 * min(times), 2),
                              "max": round(1e6 * max(times), 2)}})
    print(f"{name:18s} {batch:7d} {us:10.1f} us  {batch / us * 1e6:10.0f} examples/s"
          f" after {after} steps, {batch / fresh_us * 1e6:.0f} fresh  jax {jax.__version__} scan on {device.device_kind} {precision}", flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--precision", default="fp32", type=lambda s: s.split(","))
    p.add_argument("--hidden", default="400", type=lambda s: [int(v) for v in s.split(",")])
    p.add_argument("--latent", default=20, type=int)
    p.add_argument("--batches", default="128,1024,8192")
    p.add_argument("--steps", default=50, type=int)
    p.add_argument("--repeats", default=9, type=int)
    p.add_argument("--json")
    p.add_argument("--data")
    p.add_argument("--warm-up", default=2000, type=int)
    p.add_argument("--warm-up-seconds", default=20, type=float)
    args = p.parse_args()
    device = jax.devices()[0]
    name = "-".join(str(v) for v in [784] + args.hidden + [args.latent])
    for precision in args.precision:
        jax.config.update("jax_default_matmul_precision", {
            "fp32": "float32", "tf32": "tensorfloat32", "bf16": "bfloat16"}[precision])
        for batch in (int(b) for b in args.batches.split(",")):
            measure(args, name, precision, batch, device)


if __name__ == "__main__":
    main()

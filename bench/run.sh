#!/usr/bin/env bash
# `make bench`: the step on the CPU (and on the GPU where there is one), then the peers that are
# installed, all in one run on one machine. Writes $OUT/rows.jsonl (default bench/results/<host>)
# and prints the tables. Environment: OUT, REPEATS (9), SECONDS_EACH (0.5), PYTHON (python3).
set -euo pipefail
build=${BUILD:-build}
out=${OUT:-bench/results/$(hostname)}
repeats=${REPEATS:-9} each=${SECONDS_EACH:-0.5} python=${PYTHON:-python3}
mkdir -p "$out"
rm -f "$out/rows.jsonl"

data=$build/digits.bytes # the rows that all of them train on
"$build/bench_step" --dump "$data"

echo "== the step on the CPU"
"$build/bench_step" --device cpu --repeats "$repeats" --seconds "$each" --json "$out/rows.jsonl"

if "$python" -c 'import torch' 2>/dev/null; then
    echo "== PyTorch on the CPU"
    "$python" bench/peers/torch_step.py --device cpu --repeats "$repeats" --seconds "$each" \
        --data "$data" --json "$out/rows.jsonl"
    echo "== products by PyTorch's library"
    "$python" bench/peers/torch_products.py --repeats "$repeats" --seconds "$each" \
        --json "$out/rows.jsonl"
else
    echo "== PyTorch is not installed here: no peer figures for the CPU"
fi
echo "== convolutions on the CPU, beside PyTorch's where it is installed"
"$python" bench/conv.py --build "$build" --repeats 5 --seconds "$each" --json "$out/rows.jsonl"
if "$build/vae" devices | grep -q 'cuda:[0-9]* .*GiB'; then
    echo "== the GPU"
    BIN=$build BENCH=bench OUT=$out LOGS=$build/gpu-logs REPEATS=$repeats PYTHON=$python \
        tests/check_gpu.sh steps models operations jax torch compiled
fi
echo "results: $out"

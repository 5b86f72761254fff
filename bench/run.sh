#!/usr/bin/env bash
# `make bench`: the step on the CPU (and on the GPU where there is one), then the peers that are
# installed, all in one run on one machine. Writes $OUT/*.json (default bench/results/<host>) and
# prints the tables. Environment: OUT, REPEATS (9), SECONDS_EACH (0.5), PYTHON (python3).
set -euo pipefail
build=${BUILD:-build}
out=${OUT:-bench/results/$(hostname)}
repeats=${REPEATS:-9} each=${SECONDS_EACH:-0.5} python=${PYTHON:-python3}
mkdir -p "$out"

echo "== the step on the CPU"
"$build/bench_step" --device cpu --repeats "$repeats" --seconds "$each" --json "$out/step_cpu.json"

if "$python" -c 'import torch' 2>/dev/null; then
    echo "== PyTorch on the CPU"
    "$python" bench/peers/torch_step.py --device cpu --repeats "$repeats" --seconds "$each" \
        --json "$out/torch_cpu.json"
else
    echo "== PyTorch is not installed here: no peer figures for the CPU"
fi
if "$build/vae" devices | grep -q 'cuda:[0-9]* .*GiB'; then
    echo "== the GPU"
    BIN=$build bench/bench_gpu.sh "$out"
fi
echo "results: $out"

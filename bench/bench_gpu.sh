#!/usr/bin/env bash
# Timing on a GPU: the step in every precision and model, the CPU path of the same machine, and the
# peers that are installed. bench_gpu.sh FOLDER: writes FOLDER/*.json. Under nine minutes.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here/..}
out=${1:?folder}
python=${PYTHON:-python3}
peers=$here/peers
repeats=${REPEATS:-7} each=${SECONDS_EACH:-0.15}
bad=0
mkdir -p "$out"

models=("400 20" "1024,1024 64" "200,200 50")
for model in "${models[@]}"; do
    read -r hidden latent <<<"$model"
    for precision in fp32 tf32 bf16; do
        timeout 120 "$bin/bench_step" --device cuda --precision $precision --hidden "$hidden" \
            --latent "$latent" --batches 128,1024,8192,65536,262144 --repeats "$repeats" \
            --seconds "$each" --json "$out/step_cuda_${hidden//,/x}_$precision.json" || bad=1
    done
done
for precision in fp32 bf16; do
    timeout 60 "$bin/bench_ops" --device cuda --precision $precision --batch-size 65536 \
        --json "$out/ops_cuda_$precision.json" || bad=1
done
"$bin/bench_step" --device cpu --batches 128,1024,8192 --repeats 5 --seconds 0.5 \
    --json "$out/step_cpu.json" || bad=1
for peer in torch jax; do
    if ! "$python" -c "import $peer" 2>/dev/null; then
        echo "peer $peer: not installed here"
        continue
    fi
    for precision in fp32 bf16; do
        device=(--device cuda --seconds "$each")
        [ "$peer" = jax ] && device=()
        timeout 150 "$python" "$peers/${peer}_step.py" "${device[@]}" --precision $precision \
            --batches 128,1024,8192,65536 --repeats 5 --json "$out/${peer}_cuda_$precision.json" ||
            echo "peer $peer $precision: failed or ran out of time"
    done
done
exit $bad

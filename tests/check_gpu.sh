#!/usr/bin/env bash
# Correctness on a real GPU, then speed: `make check-gpu` runs it in the source tree, and a bundle
# carries it with its programs (DIR/check_gpu.sh). Writes one JSON report, check_gpu.json, and every
# log under $OUT (default ./gpu-report). Exit status 0 only if every check passed.
#   check_gpu.sh [--quick]     --quick: correctness without compute-sanitizer and without timing
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${BIN:-$here}
bench=${BENCH:-$here/bench}
out=${OUT:-gpu-report}
quick=0
[ "${1:-}" = "--quick" ] && quick=1
mkdir -p "$out"
report=$out/check_gpu.json
rows=() bad=0
start=$(date +%s)

row() { # NAME STATUS SECONDS DETAIL
    printf '%-44s %-8s %4ss  %s\n' "$1" "$2" "$3" "$4"
    rows+=("$(printf '  {"check": "%s", "status": "%s", "seconds": %s, "detail": "%s"}' \
        "$1" "$2" "$3" "${4//[\"\\]/ }")")
    [ "$2" = failed ] && bad=$((bad + 1))
    return 0
}
check() { # NAME COMMAND...
    local name=$1 log=$out/${1//[^A-Za-z0-9_]/_}.log t rc
    shift
    t=$(date +%s)
    timeout 300 "$@" >"$log" 2>&1 </dev/null
    rc=$?
    if [ $rc -eq 0 ]; then
        row "$name" passed $(($(date +%s) - t)) "$(grep -aE 'PASSED|ERROR SUMMARY' "$log" | tail -n 1 | tr -d '\n')"
    else
        row "$name" failed $(($(date +%s) - t)) "exit $rc: $(tail -n 1 "$log" | cut -c1-160)"
    fi
}
figure() { # KEY FILE: a number of the last train line of a metrics file
    grep -a '"split": *"train"' "$2" | tail -n 1 | sed -E "s/.*\"$1\": *([-0-9.eE+]+).*/\1/"
}
within() { awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN {d = a - b; if (d < 0) d = -d; exit !(d <= t)}'; }

echo "device: $("$bin/vae" devices | tr '\n' ' ')"
# cuBLASLt may lie in a Python package where there is no toolkit.
if ! ldconfig -p | grep -q 'libcublasLt.so.1' && [ ! -e "$here/lib/libcublasLt.so.13" ]; then
    found=$(find /usr/local/cuda*/lib64 /usr/lib/python3* /usr/local/lib/python3* /opt "$HOME" \
        -name 'libcublasLt.so.1[23]' 2>/dev/null | head -n 1)
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}:$(dirname "${found:-.}")
    export LD_LIBRARY_PATH
fi
for precision in fp32 tf32 bf16; do
    for program in test_ops test_ops_loss test_ops_classes; do
        check "$program $precision" env VAE_TEST_DEVICE=cuda VAE_TEST_PRECISION=$precision \
            "$bin/$program"
    done
done
check "whole-step gradients fp32" env VAE_TEST_DEVICE=cuda "$bin/test_gradients"
check "the model on the device" env VAE_TEST_DEVICE=cuda "$bin/test_model"

# Parity: the same 100 steps on both.
train() { # FOLDER OPTIONS...
    local folder=$1
    shift
    "$bin/vae" train --data digits --limit "${CHECK_ROWS:-12800}" --epochs 1 --seed 1 -q --force --out "$folder" "$@" \
        >"$folder.log" 2>&1
}
train "$out/cpu" --device cpu || row "training on the CPU" failed 0 "$(tail -n 1 "$out/cpu.log")"
reference=$(figure elbo "$out/cpu/metrics.jsonl")
for precision in fp32 tf32 bf16; do
    case $precision in fp32) tolerance=0.001 ;; tf32) tolerance=0.05 ;; *) tolerance=0.5 ;; esac
    t=$(date +%s)
    if train "$out/$precision" --device cuda --precision $precision; then
        got=$(figure elbo "$out/$precision/metrics.jsonl")
        status=failed
        within "$got" "$reference" $tolerance && status=passed
        row "100 steps, cuda $precision against the CPU" $status $(($(date +%s) - t)) \
            "elbo $got against $reference, tolerance $tolerance"
    else
        row "100 steps, cuda $precision against the CPU" failed $(($(date +%s) - t)) \
            "$(tail -n 1 "$out/$precision.log")"
    fi
done

# Same bits again, streamed instead of resident, and without graphs.
weights() { "$bin/vae" info "$out/$1" 2>/dev/null | awk '$1 == "weights" {print $3}'; }
train "$out/again" --device cuda
VAE_CUDA_STREAM_DATA=1 train "$out/streamed" --device cuda
VAE_CUDA_GRAPHS=0 train "$out/direct" --device cuda
for run in again streamed direct; do
    if [ -n "$(weights fp32)" ] && [ "$(weights fp32)" = "$(weights $run)" ]; then
        row "same bits: $run" passed 0 ""
    else
        row "same bits: $run" failed 0 "weights $(weights fp32) and $(weights $run)"
    fi
done
train "$out/resumed" --device cuda --epochs 2
train "$out/halves" --device cuda
"$bin/vae" train --resume --out "$out/halves" --epochs 2 --device cuda -q >"$out/halves.log" 2>&1
if [ -n "$(weights resumed)" ] && [ "$(weights resumed)" = "$(weights halves)" ]; then
    row "resume, same bits as one session" passed 0 ""
else
    row "resume, same bits as one session" failed 0 "weights $(weights resumed) and $(weights halves)"
fi

if [ $quick -eq 0 ]; then
    sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    if [ -n "$sanitizer" ]; then
        for tool in memcheck racecheck initcheck synccheck; do
            check "compute-sanitizer $tool" "$sanitizer" --tool $tool --error-exitcode 9 "$bin/vae" \
                train --data digits --limit 384 --epochs 1 --hidden 48 --latent 6 --batch-size 100 \
                --device cuda --force -q --out "$out/sanitized"
        done
    else
        row "compute-sanitizer" skipped 0 "not found on this machine"
    fi
    BIN=$bin "$bench/bench_gpu.sh" "$out" || bad=$((bad + 1))
fi

{
    printf '{"schema": 1, "report": "check-gpu", "date": "%s", "version": "%s", "seconds": %s,\n' \
        "$(date -u +%F)" "$("$bin/vae" --version | head -n 1 | tr -d '"')" $(($(date +%s) - start))
    printf ' "device": "%s",\n "failed": %s, "checks": [\n' \
        "$("$bin/vae" devices | tr '\n"\\' ';  ')" "$bad"
    for i in "${!rows[@]}"; do
        [ "$i" -gt 0 ] && printf ',\n'
        printf '%s' "${rows[$i]}"
    done
    printf '\n]}\n'
} >"$report"
echo "report: $report ($bad failed)"
[ "$bad" -eq 0 ]

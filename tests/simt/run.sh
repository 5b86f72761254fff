#!/usr/bin/env bash
# The program end to end on the emulated CUDA backend: 100 training steps against the CPU for every
# likelihood, activation and objective, resume, streaming, exit codes, and API calls that fail.
#   run.sh [parity|bits|refusals|failures|script ...]   only these parts
# shellcheck disable=SC2319 # the $? of a condition is what is meant
set -u
build=${BUILD:-build}
vae=$build/simt/vae
temp=$(mktemp -d)
trap 'rm -rf "$temp" 2>/dev/null || { sleep 2; rm -rf "$temp"; }' EXIT # a killed run may still be writing
passed=0 failed=0
parts=" ${*:-parity bits refusals failures script} "
part() { [[ $parts == *" $1 "* ]]; }
FULL=${FULL:-0}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

ok() { # WHAT CONDITION-STATUS DETAIL
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: $1: $3"
    fi
}
train() { # FOLDER OPTIONS...
    local folder=$temp/$1
    shift
    "$vae" train --data digits --limit 1600 --epochs 1 --batch-size 16 --hidden 40,24 --latent 6 \
        --sample-every 0 --seed 3 -q --force --out "$folder" "$@" >"$folder.log" 2>&1
}
figure() { # KEY FOLDER: of the last line of training
    grep -a '"split": *"train"' "$temp/$2/metrics.jsonl" | tail -n 1 |
        sed -E "s/.*\"$1\": *([-0-9.eE+]+).*/\1/"
}
within() { awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN {d = a - b; if (d < 0) d = -d; exit !(d <= t)}'; }
declare -A on_cpu # elbo there, by options
parity() { # NAME TOLERANCE OPTIONS...: 100 steps on both
    local name=$1 tolerance=$2 model a b
    shift 2
    model=${*/--precision=*/}
    if [ -z "${on_cpu[ $model]:-}" ]; then
        train cpu --device cpu --report=false "${@/--precision=*/--precision=fp32}"
        on_cpu[ $model]=$(figure elbo cpu)
    fi
    a=${on_cpu[ $model]}
    train cuda --device cuda --report=false "$@"
    b=$(figure elbo cuda)
    within "${a:-x}" "${b:-y}" "$tolerance" && [ -n "$a" ]
    ok "100 steps, $name" $? "elbo ${a:-none} on the CPU, ${b:-none} emulated: $(tail -n 1 "$temp/cuda.log")"
    rm -rf "${temp:?}/cpu" "$temp/cuda"
}
weights() { "$vae" info "$temp/$1" 2>/dev/null | awk '$1 == "weights" {print $3}'; }
refused() { # WHAT EXIT-CODE TEXT ENV... -- OPTIONS...: the run fails so, and says so
    local what=$1 code=$2 text=$3 rc settings=()
    shift 3
    while [ "$1" != -- ]; do
        settings+=("$1")
        shift
    done
    shift
    env "${settings[@]}" "$vae" train --data digits --limit 640 -q --force --out "$temp/none" "$@" \
        >"$temp/none.log" 2>&1
    rc=$?
    [ $rc -eq "$code" ] && grep -q "$text" "$temp/none.log"
    ok "$what" $? "exit $rc: $(tail -n 1 "$temp/none.log")"
}

bits=(--data sprites --limit 500 --hidden 16)

if part parity; then
    activations=$("$vae" train --help | sed -n 's/.*--activation \([a-z_|]*\).*/\1/p')
    for activation in ${activations//|/ }; do
        parity "bernoulli $activation" 0.001 --activation $activation
    done
    parity "dynamic binarization" 0.001 --binarize dynamic
    parity "static binarization" 0.001 --binarize static
    parity "gaussian" 0.001 --likelihood gaussian
    parity "gaussian, learned variance" 0.01 --likelihood gaussian-learned --lr 1e-4
    parity "iwae" 0.001 --objective iwae --particles 3
    # not relu: where one pre-activation is within rounding of 0, the two take different branches, and
    # Adam makes a whole step of a first tiny gradient; with DReG's squared weights it grows to 0.1 nats,
    # over the few labelled rows of a semi-supervised model to 0.002
    parity "dreg" 0.001 --objective dreg --particles 3 --activation tanh
    parity "stl" 0.001 --objective stl
    parity "free bits, clipping, AdamW" 0.001 --free-bits 0.1 --clip-norm 5 --optimizer adamw --weight-decay 0.01
    parity "conditional" 0.001 --condition labels
    parity "semi-supervised" 0.001 --semi-supervised --labelled 50 --limit 800 --batch-size 8 --activation tanh
    parity "tf32" 0.05 --precision=tf32
    parity "bf16" 0.5 --precision=bf16

    parity "bits" 0.001 "${bits[@]}"
    parity "bits, bf16" 0.5 "${bits[@]}" --precision=bf16
    # whole steps by one kernel
    export VAE_CUDA_PERSISTENT=1
    parity "whole steps" 0.001
    parity "whole steps, tanh, dynamic, AdamW, clipped" 0.001 --activation tanh --binarize dynamic \
        --optimizer adamw --weight-decay 0.01 --clip-norm 5
    parity "whole steps, gaussian, gelu" 0.001 --likelihood gaussian --activation gelu
    parity "whole steps, bits" 0.001 "${bits[@]}"
    parity "whole steps, bf16" 0.5 --precision=bf16
    unset VAE_CUDA_PERSISTENT

    export VAE_SIMT_LT_REFUSE=all
    parity "no epilogues" 0.001 --activation relu
    parity "no epilogues, bf16" 0.5 --precision=bf16
    unset VAE_SIMT_LT_REFUSE
fi

if part bits; then
    # 50 whole batches and a partial one: graphs of many steps, of one, and direct steps
    steps=(--device cuda --limit 808)
    train whole "${steps[@]}" --epochs 2
    train again "${steps[@]}" --epochs 2
    train halves "${steps[@]}" --epochs 1
    "$vae" train --resume --device cuda --epochs 2 --out "$temp/halves" -q >"$temp/halves.log" 2>&1
    VAE_CUDA_STREAM_DATA=1 train streamed "${steps[@]}" --epochs 2
    VAE_CUDA_GRAPHS=0 train direct "${steps[@]}" --epochs 2
    whole=$(weights whole)
    for run in again halves streamed direct; do
        [ -n "$whole" ] && [ "$(weights $run)" = "$whole" ]
        ok "same bits: $run" $? "weights differ: $(tail -n 1 "$temp/$run.log")"
    done
    for order in reverse shuffled:5; do
        VAE_SIMT_ORDER=$order train ordered "${steps[@]}" --epochs 2
        [ -n "$whole" ] && [ "$(weights ordered)" = "$whole" ]
        ok "same bits: threads in $order order" $? "weights differ: $(tail -n 1 "$temp/ordered.log")"
    done

    VAE_CUDA_STREAM_DATA=1 VAE_CUDA_GRAPHS=0 train both "${steps[@]}" --epochs 2
    [ -n "$whole" ] && [ "$(weights both)" = "$whole" ]
    ok "same bits: streamed without graphs" $? "weights differ: $(tail -n 1 "$temp/both.log")"

    # the same by one kernel, whose bits are its own: split, resumed, by fewer blocks, in other orders
    export VAE_CUDA_PERSISTENT=1
    steps=(--device cuda --limit 168)
    train whole "${steps[@]}" --epochs 2
    whole=$(weights whole)
    train halves "${steps[@]}" --epochs 1
    "$vae" train --resume --device cuda --epochs 2 --out "$temp/halves" -q >"$temp/halves.log" 2>&1
    VAE_CUDA_PERSISTENT=3 train three "${steps[@]}" --epochs 2
    VAE_CUDA_PERSISTENT=99999 train beyond "${steps[@]}" --epochs 2 # more blocks than there is room for
    VAE_SIMT_ORDER=reverse train reverse "${steps[@]}" --epochs 2
    VAE_SIMT_ORDER=shuffled:5 train shuffled "${steps[@]}" --epochs 2
    for run in halves three beyond reverse shuffled; do
        [ -n "$whole" ] && [ "$(weights $run)" = "$whole" ]
        ok "same bits of whole steps: $run" $? "weights differ: $(tail -n 1 "$temp/$run.log")"
    done
    grep -q "whole steps by one kernel" "$temp/whole/run.json"
    ok "run.json says which way steps went" $? "$(grep -o 'whole steps[^,]*' "$temp/whole/run.json")"
    unset VAE_CUDA_PERSISTENT

    # bf16 from the CPU to the GPU and back: close to a run that stays
    train stays --device cpu --precision bf16 --limit 808 --epochs 3
    train crosses --device cpu --precision bf16 --limit 808 --epochs 1
    for to in cuda:2 cpu:3; do
        "$vae" train --resume --device ${to%:*} --epochs ${to#*:} --out "$temp/crosses" -q >"$temp/crosses.log" 2>&1
        ok "bf16 goes on on ${to%:*}" $? "$(tail -n 1 "$temp/crosses.log")"
    done
    a=$(figure elbo stays) b=$(figure elbo crosses)
    within "${a:-x}" "${b:-y}" 0.5 && [ -n "$a" ] && [ "$(weights stays)" != "$(weights crosses)" ]
    ok "bf16 on the CPU, the GPU and the CPU" $? "elbo ${b:-none}, ${a:-none} on the CPU alone"

    train whole --device cuda "${bits[@]}"
    VAE_CUDA_STREAM_DATA=1 train bits --device cuda "${bits[@]}"
    [ -n "$(weights whole)" ] && [ "$(weights bits)" = "$(weights whole)" ]
    ok "same bits: streamed bits" $? "weights differ: $(tail -n 1 "$temp/bits.log")"
fi

if part refusals; then
    "$vae" devices | grep -q '^cuda.*Emulated'
    ok "devices lists it" $? "$("$vae" devices | tail -n 1)"
    refused "a device that is not there" 6 "no GPU 9" A=1 -- --device cuda:9
    refused "no cuBLASLt" 6 cublasLt VAE_SIMT_NO_CUBLASLT=1 -- --device cuda
    refused "a cuBLASLt that lacks a function" 6 "lacks" VAE_SIMT_NO_CUBLASLT=cublasLtMatmul -- --device cuda
    refused "a driver too old" 6 "driver" VAE_SIMT_NO_DEVICE=old -- --device cuda
    refused "out of memory" 1 "out of memory.*free" VAE_SIMT_MEMORY=12000000 -- --device cuda
    VAE_SIMT_NO_DEVICE=1 train none --device cuda
    [ $? -eq 6 ]
    ok "no device is exit code 6" $? "$(tail -n 1 "$temp/none.log")"
    VAE_SIMT_NO_DEVICE=1 train auto --device auto
    ok "auto falls back to the CPU" $? "$(tail -n 1 "$temp/auto.log")"
fi

if part failures; then
    # Every 7th API call of a short run fails, with FULL=1 each: an exit code we document, one line that says why,
    # no crash, no leak (the sanitizers would end it with another code).
    for n in $(seq 1 $((FULL ? 1 : 7)) 400); do
        VAE_SIMT_FAIL=$n timeout 60 "$vae" train --data digits --limit 64 --epochs 1 --batch-size 16 \
            --hidden 16 --latent 3 --device cuda -q --force --out "$temp/fail" >"$temp/fail.log" 2>&1
        rc=$?
        case $rc in
        0 | 1 | 6) ok "call $n fails" 0 "" ;;
        *) ok "call $n fails" 1 "exit $rc: $(grep -aE 'ERROR|vae:' "$temp/fail.log" | head -n 1)" ;;
        esac
    done
fi

if part script; then
    # check_gpu.sh, as on a real GPU: what a run that is cut off leaves, and what one that ends says.
    script() { # OUT SECTION...
        local out=$temp/$1
        shift
        BIN=$build/simt OUT=$out LOGS=$temp/logs CHECK_ROWS=256 CHECK_CONV=2 tests/check_gpu.sh "$@" >"$out.log" 2>&1
    }
    rows() { python3 -c 'import json, sys; rows = [json.loads(l) for l in open(sys.argv[1])]
print(sum(r["status"] == sys.argv[2] for r in rows))' "$temp/$1/rows.jsonl" "$2"; }
    LIMIT=900 script whole bits # emulated on a busy machine it may take as long as it likes
    ok "check_gpu.sh passes" $? "$(tail -n 2 "$temp/whole.log" | tr '\n' ' ')"
    [ "$(rows whole passed)" -eq 13 ] && [ "$(rows whole failed)" -eq 0 ] && tar -tzf "$temp/whole/logs.tar.gz" >/dev/null
    ok "a row for each check, and one for the section" $? "$(cat "$temp/whole.log")"
    mkdir "$temp/killed"
    BIN=$build/simt OUT=$temp/killed LOGS=$temp/logs CHECK_ROWS=256 setsid tests/check_gpu.sh smoke \
        >"$temp/killed.log" 2>&1 &
    for _ in $(seq 600); do
        [ -s "$temp/killed/rows.jsonl" ] && break
        sleep 0.1
    done
    kill -KILL -- -$! 2>/dev/null
    wait $! 2>/dev/null
    [ "$(rows killed passed)" -ge 1 ] && [ "$(rows killed failed)" -eq 0 ]
    ok "a killed run leaves the rows before" $? "$(cat "$temp/killed/rows.jsonl")"
    LIMIT=1 script limited smoke
    [ $? -eq 1 ] && [ "$(rows limited failed)" -ge 1 ] && grep -q 'ran past its 1 s' "$temp/limited/rows.jsonl"
    ok "a section that runs past its limit is said so" $? "$(cat "$temp/limited.log")"
    BUDGET=2 script budget smoke bits
    [ $? -eq 0 ] && [ "$(rows budget skipped)" -eq 2 ] && [ -s "$temp/budget/rows.jsonl" ]
    ok "and none is begun when the budget is spent" $? "$(cat "$temp/budget.log")"
fi

echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]

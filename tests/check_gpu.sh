#!/usr/bin/env bash
# Everything that wants a real GPU, in sections: `make check-gpu` runs it in the source tree, a bundle
# (`make bundle`) carries it with its programs.
#   check_gpu.sh [SECTION ...]    all of them, in the order of `sections` below, unless named
# Time on a GPU is short and a run may be cut off: every check and every timing appends its row to
# $OUT/rows.jsonl at once, $OUT/logs.tar.gz is made anew after every section, and every section has a
# limit of its own. Exit status 0 only if no row says "failed".
# Environment: OUT (gpu-report), LOGS (a new folder, packed into OUT), BUDGET (seconds for all sections:
# what does not fit is cut short or skipped, and the archive is whole), MNIST (a folder with the four
# files), REPEATS, SECONDS_EACH, WARM_UP_SECONDS (of training before what is timed counts), PYTHON.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
self=$here/$(basename "$0")
bin=${BIN:-$here}
bench=${BENCH:-$here/bench}
out=${OUT:-gpu-report}
python=${PYTHON:-python3}
repeats=${REPEATS:-5} each=${SECONDS_EACH:-0.1} warm=${WARM_UP_SECONDS:-1}
model=(--hidden 400 --latent 20)
convolutions=(--conv "${CHECK_CONV:-8,16}" --hidden none --flip)

# section and seconds it may take
sections="device:30 smoke:40 ops:200 parity:80 bits:80 mnist:60 memcheck:90 profile:60 steps:90
    whole:90 conv:120 switches:60 operations:60 models:90 cpu:60 jax:120 torch:120 compiled:150 sanitize:120"

mkdir -p "$out"
out=$(cd "$out" && pwd)
rows=$out/rows.jsonl
# not in $out: of many files there few might come back from a borrowed node
logs=${LOGS:-$(mktemp -d "${TMPDIR:-/tmp}/check-gpu.XXXXXX")}
export OUT=$out LOGS=$logs

clean() { printf '%s' "$1" | tr -c '[:print:]' ' ' | tr '"\\' "' " | cut -c1-"${2:-300}"; }
row() { # CHECK STATUS SECONDS DETAIL
    printf '%-44s %-8s %5ss  %s\n' "$1" "$2" "$3" "$(clean "$4" 120)"
    printf '{"section": "%s", "check": "%s", "status": "%s", "seconds": %s, "detail": "%s"}\n' \
        "$section" "$1" "$2" "$3" "$(clean "$4" 1500)" >>"$rows"
}
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN {printf "%.1f", b - a}'; }
check() { # NAME COMMAND...: passes if the command does
    local name=$1 log=$logs/${1//[^A-Za-z0-9_]/_}.log t rc
    shift
    t=$(now)
    "$@" >"$log" 2>&1 </dev/null
    rc=$?
    if [ $rc -eq 0 ]; then
        row "$name" passed "$(since "$t")" "$(grep -aE 'PASSED|ERROR SUMMARY' "$log" | tail -n 1)"
    elif [ $rc -eq 3 ] && grep -qE 'Device not supported|LibraryNotLoaded|ERR_NVGPUCTRPERM' "$log"; then
        row "$name" skipped "$(since "$t")" "refused by this machine: $(tail -n 1 "$log")"
    else
        row "$name" failed "$(since "$t")" \
            "exit $rc: $(grep -aE 'FAILED|rror' "$log" | head -n 3 | tr '\n' ' ') $(tail -n 1 "$log")"
    fi
}
figure() { # KEY FOLDER [SPLIT]: of the last line of a run's metrics
    grep -a "\"split\": *\"${3:-train}\"" "$logs/$2/metrics.jsonl" 2>/dev/null | tail -n 1 |
        sed -E "s/.*\"$1\": *([-0-9.eE+]+).*/\1/"
}
within() { awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN {d = a - b; if (d < 0) d = -d; exit !(a != "" && b != "" && d <= t)}'; }
train() { # FOLDER OPTIONS...
    local folder=$logs/$1
    shift
    "$bin/vae" train --data digits --limit "${CHECK_ROWS:-12800}" --epochs 1 --seed 1 -q --force \
        --sample-every 0 --out "$folder" "$@" >"$folder.log" 2>&1
}
weights() { "$bin/vae" info "$logs/$1" 2>/dev/null | awk '$1 == "weights" {print $3}'; }
same() { # WHAT FOLDER FOLDER
    if [ -n "$(weights "$2")" ] && [ "$(weights "$2")" = "$(weights "$3")" ]; then
        row "$1" passed 0 "$(weights "$2")"
    else
        row "$1" failed 0 "weights '$(weights "$2")' and '$(weights "$3")' $(tail -n 1 "$logs/$3.log")"
    fi
}
steps() { # OPTIONS...: rows of bench_step
    "$bin/bench_step" --device cuda --repeats "$repeats" --seconds "$each" --warm-up-seconds "$warm" \
        --json "$rows" "$@" || row "bench_step $*" failed 0 "exit $?"
}

section_device() {
    local program missing
    for program in vae test_ops test_ops_loss test_ops_conv test_ops_classes test_model test_gradients test_whole test_twins bench_step \
        bench_ops; do
        missing=$(ldd "$bin/$program" 2>&1 | grep 'not found' | tr '\n' ' ')
        [ -z "$missing" ] || row "libraries of $program" failed 0 "$missing"
    done
    row "system" passed 0 "$(uname -sr), $(nproc) CPUs, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
    nvidia-smi >"$logs/nvidia-smi.txt" 2>&1
    row "nvidia-smi" passed 0 "$(nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit,ecc.mode.current --format=csv,noheader 2>&1)"
    check "vae devices" "$bin/vae" devices
    row "device" "$(grep -q 'cuda:[0-9]* .*GiB' "$logs/vae_devices.log" && echo passed || echo failed)" 0 \
        "$(cat "$logs/vae_devices.log")"
    row "version" passed 0 "$("$bin/vae" --version)"
}

section_smoke() {
    local precision t
    for precision in fp32 tf32 bf16; do
        t=$(now)
        CUBLASLT_LOG_LEVEL=5 CUBLASLT_LOG_FILE=$logs/cublaslt_$precision.txt train smoke_$precision \
            --limit "${CHECK_ROWS:-1280}" --device cuda --precision $precision
        row "smoke $precision" "$([ -n "$(weights smoke_$precision)" ] && echo passed || echo failed)" \
            "$(since "$t")" "elbo $(figure elbo smoke_$precision) $(tail -n 1 "$logs/smoke_$precision.log")"
    done
}

section_ops() { # one after another: side by side they share the GPU in slices of time and take ten times as long
    local precision program
    check "steps in bf16 beside the CPU's" env OMP_NUM_THREADS=1 "$bin/test_twins"
    check "whole-step gradients fp32" env VAE_TEST_DEVICE=cuda OMP_NUM_THREADS=1 "$bin/test_gradients"
    check "the model on the device" env VAE_TEST_DEVICE=cuda OMP_NUM_THREADS=1 "$bin/test_model"
    for precision in fp32 bf16 tf32; do
        for program in test_ops_conv test_ops_loss test_ops_classes test_ops; do
            check "$program $precision" env VAE_TEST_DEVICE=cuda VAE_TEST_PRECISION=$precision \
                OMP_NUM_THREADS=1 "$bin/$program"
        done
    done
}

section_parity() { # 100 steps on both: rounding that Adam amplifies at ReLU's kinks reaches 0.01 nats
    local precision tolerance t got reference kind options
    for kind in relu tanh convolutions; do
        options=(--activation "$kind")
        [ $kind = convolutions ] && options=("${convolutions[@]}" --activation tanh)
        train cpu_$kind --device cpu "${options[@]}"
        reference=$(figure elbo cpu_$kind)
        for precision in fp32 tf32 bf16; do
            case $precision in fp32) tolerance=0.01 ;; tf32) tolerance=0.05 ;; *) tolerance=0.5 ;; esac
            t=$(now)
            train ${precision}_$kind --device cuda --precision $precision "${options[@]}"
            got=$(figure elbo ${precision}_$kind)
            row "100 steps $kind $precision against the CPU" \
                "$(within "$got" "$reference" $tolerance && echo passed || echo failed)" "$(since "$t")" \
                "elbo $got against $reference, tolerance $tolerance $(tail -n 1 "$logs/${precision}_$kind.log")"
        done
    done
}

section_bits() {
    local precision
    for precision in fp32 bf16; do
        same_bits "$precision" --precision $precision
    done
    same_bits "bf16 convolutions" --precision bf16 "${convolutions[@]}"
}
same_bits() { # WHAT OPTIONS...
    local what=$1 name=${1// /_}
    shift
    train "once_$name" --device cuda "$@"
    train "again_$name" --device cuda "$@"
    VAE_CUDA_STREAM_DATA=1 train "streamed_$name" --device cuda "$@"
    VAE_CUDA_GRAPHS=0 train "direct_$name" --device cuda "$@"
    same "same bits again, $what" "once_$name" "again_$name"
    same "same bits streamed, $what" "once_$name" "streamed_$name"
    same "same bits without graphs, $what" "once_$name" "direct_$name"
    train "two_$name" --device cuda --epochs 2 "$@"
    train "halves_$name" --device cuda "$@"
    "$bin/vae" train --resume --out "$logs/halves_$name" --epochs 2 --device cuda -q >"$logs/halves_$name.log" 2>&1
    same "same bits resumed, $what" "two_$name" "halves_$name"
}

section_mnist() { # pytorch/examples' model and protocol: 105.2 to 106.0
    local precision t elbo
    [ -d "${MNIST:-none}" ] || { row "MNIST, 10 epochs" skipped 0 "MNIST= names no folder"; return; }
    for precision in bf16 tf32 fp32; do
        t=$(now)
        "$bin/vae" train --data "$MNIST" --epochs 10 --seed 1 --device cuda --precision $precision --force \
            --out "$logs/mnist_$precision" >"$logs/mnist_$precision.log" 2>&1
        elbo=$(figure elbo mnist_$precision test | tr -d -)
        row "MNIST, 10 epochs, $precision" "$(within "$elbo" 105.6 0.4 && echo passed || echo failed)" \
            "$(since "$t")" "test loss $elbo, wanted 105.2 to 106.0; $(figure examples_per_s mnist_$precision) examples/s in the last epoch"
    done
}

section_memcheck() {
    sanitizer memcheck
    export VAE_CUDA_HOPPER=1 # for few rows, too
    sanitizer memcheck "Hopper's products" --limit 1024 --batch-size 512 --precision bf16 --hidden 400 --latent 20
}
section_sanitize() { # these look into cuBLAS' kernels too, where they report what is none: own kernels only
    local tool
    only=(--kernel-regex kns=_kernel)
    for tool in racecheck initcheck synccheck; do
        sanitizer $tool
    done
}
sanitizer() { # TOOL [WHAT OPTIONS...]: of a small model and of one with convolutions, or of what is named
    local tool=$1 program
    program=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
    [ -n "$program" ] || { row "compute-sanitizer $tool" skipped 0 "not on this machine"; return; }
    shift
    if [ $# -eq 0 ]; then
        sanitizer "$tool" "a small model" --limit 384 --hidden 48 --latent 6 --batch-size 100
        sanitizer "$tool" convolutions --limit 200 --latent 6 --batch-size 64 --precision bf16 "${convolutions[@]}"
        return
    fi
    local what=$1
    shift
    check "compute-sanitizer $tool, $what" "$program" --tool "$tool" --error-exitcode 9 "${only[@]}" "$bin/vae" \
        train --data digits --epochs 1 --device cuda --force -q --sample-every 0 --out "$logs/sanitized" "$@"
}
only=()

section_profile() { # one step, kernel by kernel
    local ncu precision batch log
    ncu=$(command -v ncu || ls /usr/local/cuda/bin/ncu /opt/nvidia/nsight-compute/*/ncu 2>/dev/null | head -n 1)
    [ -n "$ncu" ] || { row "ncu" skipped 0 "not on this machine"; return; }
    for batch in 65536 128; do
        for precision in bf16 fp32; do
            log=$logs/ncu_${precision}_$batch.csv
            VAE_CUDA_GRAPHS=0 "$ncu" --clock-control none --cache-control none --csv --launch-skip 50 \
                --launch-count 60 --metrics gpu__time_duration.sum,dram__bytes.sum,launch__grid_size \
                "$bin/bench_step" --device cuda --precision $precision "${model[@]}" --batches $batch \
                --repeats 1 --seconds 0.01 --warm-up-seconds 0 >"$log" 2>&1
            if grep -q gpu__time_duration "$log"; then
                row "ncu $precision $batch" passed 0 "in the logs"
            else
                row "ncu $precision $batch" skipped 0 "$(tail -n 1 "$log")"
            fi
        done
    done
}

section_steps() {
    local precision
    for precision in bf16 tf32 fp32; do
        steps --precision $precision "${model[@]}" --batches 128,1024,8192,65536,262144
    done
}
section_whole() { # whole steps by one kernel, which are off by default
    local precision
    for precision in fp32 tf32 bf16; do
        check "whole steps beside ordinary ones $precision" env VAE_TEST_DEVICE=cuda \
            VAE_TEST_PRECISION=$precision OMP_NUM_THREADS=1 "$bin/test_whole"
    done
    check "gradients of whole steps" env VAE_TEST_DEVICE=cuda VAE_CUDA_PERSISTENT=1 "$bin/test_gradients"
    VAE_CUDA_PERSISTENT=1 train whole --device cuda --precision bf16
    VAE_CUDA_PERSISTENT=1 train whole_again --device cuda --precision bf16
    VAE_CUDA_PERSISTENT=50 train whole_fewer --device cuda --precision bf16
    same "whole steps repeat to the bit" whole whole_again
    same "whole steps by 50 blocks" whole whole_fewer
    for precision in bf16 tf32 fp32; do
        VAE_CUDA_PERSISTENT=1 steps --precision $precision "${model[@]}" --batches 128,256,20 --note "whole steps"
    done
}
section_conv() { # pictures of 64 x 64 x 3
    local precision pictures=$logs/pictures.npy count=1024 head
    local large=(--conv "32,64,128,256" --hidden none --latent 128 --likelihood gaussian)
    head="{'descr': '|u1', 'fortran_order': False, 'shape': ($count, 64, 64, 3), }"
    { printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "$head" && head -c $((count * 64 * 64 * 3)) /dev/urandom; } >"$pictures"
    for precision in bf16 tf32 fp32; do
        steps --precision $precision --data "$pictures" --rows $count "${large[@]}" --batches 64,256,1024
    done
    for precision in bf16 fp32; do
        operations --precision $precision --batch-size 1024 "${large[@]}"
    done
    has_peer torch || return
    for precision in eager:bf16,tf32,fp32 compile:bf16; do # what compiling takes has no bound
        "$python" "$bench/peers/torch_conv.py" --device cuda --modes "${precision%:*}" \
            --precision "${precision#*:}" --batches 64,256,1024 --repeats "$repeats" --seconds "$each" \
            --json "$rows" || row "torch convolutions, $precision" failed 0 "exit $?"
    done
}
section_switches() {
    local precision
    for precision in bf16 fp32; do
        VAE_CUDA_GRAPHS=0 steps --precision $precision "${model[@]}" --batches 128,65536 --note "graphs off"
        VAE_CUDA_TUNE=1 steps --precision $precision "${model[@]}" --batches 128,65536 --note "tuned"
        VAE_CUDA_STREAM_DATA=1 steps --precision $precision "${model[@]}" --batches 128,65536 --note "streamed"
    done
}
section_models() {
    local precision
    for precision in bf16 fp32; do
        steps --precision $precision --hidden 1024,1024 --latent 64 --batches 128,8192,65536
        steps --precision $precision --hidden 200,200 --latent 50 --batches 128,8192,65536
    done
}
section_operations() {
    local precision batch
    for batch in 65536 128; do
        for precision in bf16 fp32; do
            operations --precision $precision --batch-size $batch
        done
    done
}
operations() { # OPTIONS...: rows of bench_ops
    "$bin/bench_ops" --device cuda --repeats "$repeats" --seconds 0.03 --json "$rows" "$@" ||
        row "bench_ops $*" failed 0 "exit $?"
}
section_cpu() {
    "$bin/bench_step" --device cpu --batches 128,1024,8192 --repeats 3 --seconds 0.5 --warm-up-seconds "$warm" \
        --json "$rows" || row "bench_step on the CPU" failed 0 "exit $?"
}

peer() { # torch|jax PRECISION BATCHES OPTIONS...
    local name=$1 precision=$2 batches=$3 data=$logs/digits.bytes # the rows that bench_step has
    shift 3
    [ -s "$data" ] || "$bin/bench_step" --dump "$data"
    "$python" "$bench/peers/${name}_step.py" --precision "$precision" --batches "$batches" --data "$data" \
        --warm-up-seconds "$warm" --repeats "$repeats" --json "$rows" "$@" || row "$name $precision" failed 0 "exit $?"
}
has_peer() {
    "$python" -c "import $1" 2>/dev/null && return
    row "$1" skipped 0 "not installed here"
    return 1
}
section_jax() {
    has_peer jax && XLA_PYTHON_CLIENT_PREALLOCATE=false peer jax bf16,tf32,fp32 128,1024,8192,65536
}
section_torch() {
    has_peer torch && peer torch bf16,tf32,fp32 128,1024,8192,65536 --device cuda --seconds "$each" --modes eager,graph
}
section_compiled() { # last: what it takes to compile has no bound
    has_peer torch && peer torch bf16,tf32,fp32 128,65536,8192,1024 --device cuda --seconds "$each" \
        --modes compile,compile-graph
}

if [ "${1:-}" = --one ]; then # a section in a process of its own, so that it has a limit
    section=$2
    "section_$section"
    exit
fi

# cuBLASLt may lie in a Python package where there is no toolkit
if [ ! -e "$here/lib/libcublasLt.so.13" ] && [ ! -e /usr/local/cuda/lib64/libcublasLt.so.13 ] &&
    [ "$(ldconfig -p 2>/dev/null | grep -c 'libcublasLt\.so\.13')" -eq 0 ]; then
    found=$(find /usr/local/cuda*/lib64 /usr/lib/python3* /usr/local/lib/python3* /opt "$HOME" \
        -name 'libcublasLt.so.13' 2>/dev/null | head -n 1)
    [ -n "$found" ] && export LD_LIBRARY_PATH="${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}${found%/*}"
fi
mkdir -p "$logs"
end=${BUDGET:+$((SECONDS + BUDGET))}
for entry in $sections; do
    section=${entry%:*} limit=${LIMIT:-${entry#*:}}
    if [ $# -gt 0 ] && [[ " $* " != *" $section "* ]]; then
        continue
    fi
    left=$((${end:-SECONDS + limit} - SECONDS))
    if [ -n "$end" ] && [ $left -lt 3 ]; then
        row "section $section" skipped 0 "no time left of BUDGET=$BUDGET"
        continue
    fi
    limit=$((left < limit ? left : limit))
    t=$(now)
    timeout -k 5 "$limit" bash "$self" --one "$section"
    rc=$?
    if [ $rc -eq 124 ] || [ $rc -eq 137 ]; then
        row "section $section" failed "$(since "$t")" "ran past its $limit s; the rows before are kept"
    else
        row "section $section" passed "$(since "$t")" "done"
    fi
    tar -C "$logs" --exclude='*.vae' --exclude='*.png' --exclude=report.html --exclude='*.bytes' --exclude='*.npy' -czf "$out/logs.tmp" . && mv "$out/logs.tmp" "$out/logs.tar.gz"
done
failed=$(grep -c '"status": "failed"' "$rows")
echo "rows: $rows; $failed failed; logs: $logs"
grep '"status": "failed"' "$rows"
[ "$failed" -eq 0 ]

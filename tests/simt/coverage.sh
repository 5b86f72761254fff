#!/usr/bin/env bash
# Which lines of kernels/ and host/backend/cuda/*.c the emulated tests run: builds them with gcov into
# $BUILD/coverage, runs the emulated tests and the program, prints a row per file and every line that
# never ran. `make coverage` calls it.
set -u
build=${BUILD:-build}/coverage
tests=(test_ops test_ops_loss test_ops_conv test_ops_classes test_model test_gradients)
make --no-print-directory BUILD="$build" SAN="-O1 -g --coverage -fprofile-update=atomic" \
    "${tests[@]/#/$build/simt/}" "$build/simt/vae" >"$build.log" 2>&1 || { tail "$build.log"; exit 1; }
find "$build" -name '*.gcda' -delete
export VAE_TEST_DEVICE=cuda
for refuse in "" all; do
    VAE_SIMT_LT_REFUSE=$refuse "$build/simt/test_ops" >/dev/null 2>&1
done
for precision in fp32 tf32 bf16; do
    for t in "${tests[@]}"; do
        VAE_TEST_PRECISION=$precision "$build/simt/$t" >/dev/null 2>&1
    done
done
VAE_CUDA_STREAM_DATA=1 "$build/simt/test_model" >/dev/null 2>&1
VAE_CUDA_TUNE=1 "$build/simt/test_ops" >/dev/null 2>&1
for state in 1 driver old; do
    VAE_SIMT_NO_DEVICE=$state "$build/simt/vae" devices >/dev/null 2>&1
done
VAE_SIMT_NO_CUBLASLT=1 "$build/simt/vae" train --device cuda --out "$build/none" --force >/dev/null 2>&1
VAE_SIMT_MEMORY=2000000 "$build/simt/vae" train --device cuda --limit 640 --out "$build/none" --force \
    >/dev/null 2>&1
BUILD=$build tests/simt/run.sh | tail -n 1

printf '%-34s %8s %8s\n' file lines run
list=$build/never-ran.txt
: >"$list"
for source in host/backend/cuda/*.c kernels/*.cu; do
    object=$build/simt/${source%.c}
    gcov -t -o "$(dirname "$object")" "$object".gcda "$object".gcno 2>/dev/null |
        awk -F: -v want="$source" -v list="$list" '
            $3 == "Source" {on = $4 == want; next}
            on {gsub(/ /, "", $1)
                if ($1 == "-" || $2 + 0 == 0) next
                line = $2 + 0
                if ($1 ~ /^#+$|^=+$/) {if (!(line in ran)) never[line] = $0}
                else {ran[line] = 1; delete never[line]}}
            END {n = 0; for (l in ran) n++
                 m = 0; for (l in never) {m++; print want ":" never[l] >>list}
                 printf "%-34s %8d %7.1f%%\n", want, n + m, n + m ? 100 * n / (n + m) : 100}'
done
echo "lines that never ran: $list"

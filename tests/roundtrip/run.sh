#!/usr/bin/env bash
# Compares with readers that this project did not write (readers.sh installs them): random models in
# every format, then round trips through the program and the library.
#   run.sh [models|commands|tutorial ...]   only these parts
#   BUILD   build folder [build], with vae, roundtrip/random_model and lib/libvae.so
#   VAE     the program [$BUILD/vae]
#   MODELS  how many random models [200; 1000 if FULL is set]
# The last line is `N passed, N failed, N skipped`.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
vae=${VAE:-$build/vae}
venv=$build/venv
parts=" ${*:-models commands tutorial} "
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=1

why=$(tests/roundtrip/readers.sh) || {
    echo "SKIPPED: $why"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

passed=0 failed=0 skipped=0
check() { # PROGRAM...: adds what its last line says
    local last log
    log=$(mktemp)
    "$venv/bin/python" "$@" 2>&1 | tee "$log" | grep -vE '^[0-9]+ passed, '
    last=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
    rm -f "$log"
    if [ -z "$last" ]; then
        echo "FAILED: $1 ended without its last line"
        last="0 passed, 1 failed, 0 skipped"
    fi
    # shellcheck disable=SC2086 # the words of the line
    set -- $last
    passed=$((passed + $1)) failed=$((failed + $3)) skipped=$((skipped + $5))
}

if [[ $parts == *" models "* ]]; then
    models=${FULL:+1000}
    check tests/roundtrip/check_models.py "$build/roundtrip/random_model" "${MODELS:-${models:-200}}"
fi
if [[ $parts == *" commands "* ]]; then
    library=("$build/lib/libvae.so")
    [ -e "${library[0]}" ] || library=()
    check tests/roundtrip/check_commands.py "$vae" "${library[@]}"
fi
if [[ $parts == *" tutorial "* ]]; then
    if [ -e "$build/lib/libvae.so" ]; then
        check tests/roundtrip/check_tutorial.py "$vae" "$build/lib/libvae.so"
    else
        skipped=$((skipped + 1))
        echo "SKIPPED: data/tutorial.md: $build/lib/libvae.so is not built"
    fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

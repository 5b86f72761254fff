#!/usr/bin/env bash
# Installs readers that this project did not write (numpy, safetensors, onnx, ONNX Runtime, Pillow;
# PyTorch too with VAE_ROUNDTRIP_TORCH=1) into $BUILD/venv and compares with them: random models in
# every format, then round trips through the program and the library.
#   BUILD   build folder [build], with vae, roundtrip/random_model and lib/libvae.so
#   VAE     the program [$BUILD/vae]
#   MODELS  how many random models [1000]
# The last line is `N passed, N failed, N skipped`.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
vae=${VAE:-$build/vae}
venv=$build/venv
readers=(numpy safetensors onnx onnxruntime pillow)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} OPENBLAS_NUM_THREADS=1

have() { # MODULE...: are they all there?
    "$venv/bin/python" -c "import ${1//-/_}$(printf ', %s' "${@:2}")" 2>/dev/null
}

skip() { # WHY
    echo "SKIPPED: $1"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
}

install() { # PACKAGE...
    timeout 900 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" \
        >"$build/venv.log" 2>&1
}

if [ ! -x "$venv/bin/python" ]; then
    mkdir -p "$build"
    python3 -m venv "$venv" || skip "python3 -m venv does not work here (Debian: python3-venv)"
fi
if ! have numpy safetensors onnx onnxruntime PIL; then
    echo "installing ${readers[*]} into $venv"
    install "${readers[@]}" ||
        skip "the readers cannot be installed (no registry?): $(tail -n 1 "$build/venv.log")"
fi
if [ -n "${VAE_ROUNDTRIP_TORCH:-}" ] && ! have torch; then
    echo "installing torch into $venv (large)"
    install torch --index-url https://download.pytorch.org/whl/cpu ||
        echo "torch cannot be installed: $(tail -n 1 "$build/venv.log")"
fi

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

check tests/roundtrip/check_models.py "$build/roundtrip/random_model" "${MODELS:-1000}"
if [ -e "$build/lib/libvae.so" ]; then
    check tests/roundtrip/check_commands.py "$vae" "$build/lib/libvae.so"
else
    check tests/roundtrip/check_commands.py "$vae"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# Installs readers that this project did not write (numpy, safetensors, onnx, ONNX Runtime, Pillow,
# scikit-learn, pandas, TensorBoard; PyTorch too with VAE_ROUNDTRIP_TORCH=1) into $BUILD/venv, where they are missing. Exit
# status 1, and a line that says why, where they cannot be installed.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build}
venv=$build/venv
readers=(numpy safetensors onnx onnxruntime pillow scikit-learn pandas tensorboard)

have() { # MODULE...: are they all there?
    "$venv/bin/python" -c "import ${1//-/_}$(printf ', %s' "${@:2}")" 2>/dev/null
}
fail() { # WHY
    echo "$1"
    exit 1
}
install() { # PACKAGE...
    timeout 900 "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" \
        >"$build/venv.log" 2>&1
}

mkdir -p "$build"
exec 9>"$build/venv.lock"
flock 9 # one at a time
if [ ! -x "$venv/bin/python" ]; then
    python3 -m venv "$venv" || fail "python3 -m venv does not work here (Debian: python3-venv)"
fi
if ! have numpy safetensors onnx onnxruntime PIL sklearn pandas tensorboard; then
    install "${readers[@]}" ||
        fail "the readers cannot be installed (no registry?): $(tail -n 1 "$build/venv.log")"
fi
if [ -n "${VAE_ROUNDTRIP_TORCH:-}" ] && ! have torch; then
    install torch --index-url https://download.pytorch.org/whl/cpu ||
        echo "torch cannot be installed: $(tail -n 1 "$build/venv.log")"
fi
exit 0

#!/usr/bin/env bash
# The shell scripts are sound, and the inclusion rules of the code base hold.
set -u
export LC_ALL=C.UTF-8 # columns, not bytes
passed=0 failed=0 skipped=0
check() { # WHAT COMMAND...: passes if the command prints nothing and succeeds
    local what=$1 out
    shift
    if out=$("$@" 2>&1) && [ -z "$out" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAILED: %s\n%s\n' "$what" "$out"
    fi
}
absent() { # grep's arguments: succeeds if nothing matches
    ! grep -nE "$@"
}

scripts=$(find tests bench data .ci -name '*.sh' -o -path .ci/run -o -path tests/cli/run)
for script in $scripts; do
    [ -f "$script" ] && head -n 1 "$script" | grep -qE 'bash|/sh' || continue
    if command -v shellcheck >/dev/null; then
        check "shellcheck $script" shellcheck -S warning "$script"
    else
        skipped=$((skipped + 1))
        echo "SKIPPED: shellcheck is not installed: $script"
    fi
done

shopt -s globstar
not_cuda=() not_main=()
for f in host/**/*.[ch] include/*.h; do
    case "$f" in host/backend/cuda/* | include/kernels.h) ;; *) not_cuda+=("$f") ;; esac
    case "$f" in host/cli/main.c | host/cli/output.c) ;; *) not_main+=("$f") ;; esac
done
check "CUDA headers only in backend/cuda and kernels" \
    absent '#include *[<"](cuda|cublas|curand)' "${not_cuda[@]}"
check "the step sees no backend's inside" absent '#include *"backend/' host/model/*
check "kernels draw by cuRAND" absent 'vae_(philox|eps4|box_muller)\(' kernels/*.cu
check "no line of more than 100 columns" absent '.{101}' host/**/*.[ch] include/*.h kernels/*
check "only the front of the program exits" absent '(^|[^_a-z])exit\(' "${not_main[@]}"

# The rooms' rule, on includes and, where the program is built, on calls.
check "arrows only go down" tests/arrows.py "${BUILD:-build}/release"

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

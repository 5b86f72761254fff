#!/usr/bin/env bash
# The shell scripts are sound, and the inclusion rules of the code base hold.
set -u
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

for script in $(git ls-files -co --exclude-standard '*.sh' .ci/run tests/cli/run 2>/dev/null); do
    [ -f "$script" ] && head -n 1 "$script" | grep -qE 'bash|/sh' || continue
    if command -v shellcheck >/dev/null; then
        check "shellcheck $script" shellcheck -S warning "$script"
    else
        skipped=$((skipped + 1))
        echo "SKIPPED: shellcheck is not installed: $script"
    fi
done

shopt -s nullglob
kernels=(kernels/*.cu)
host=(host/*.c)
not_cuda=()
for f in "${host[@]}" include/*.h host/*.h; do
    case "$f" in host/backend_cuda*) ;; include/kernels.h) ;; *) not_cuda+=("$f") ;; esac
done
check "CUDA headers only in backend_cuda and kernels" \
    absent '#include *[<"](cuda|cublas|curand)' "${not_cuda[@]}"
if [ "${#kernels[@]}" -gt 0 ]; then
    check "kernels see only their own headers" absent \
        '#include *"(backend|model|config|layout|dataset|trainer|checkpoint)\.h"' "${kernels[@]}"
fi
check "the step sees no backend's inside" absent '#include *"(cpu_|backend_c)' host/model.c
check "only main.c exits" absent '(^|[^_a-z])exit\(' "${host[@]/host\/main.c/include/status.h}"

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

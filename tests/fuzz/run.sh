#!/usr/bin/env bash
# Every fuzz target on its corpus and on RUNS inputs made of it [20000; 200000 if FULL is set], always
# the same ones. `make fuzz` goes on from there.
set -u
build=${BUILD:-build}
runs=${FULL:+200000}
new=$(mktemp -d) passed=0 failed=0
trap 'rm -rf "$new"' EXIT
for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    mkdir "$new/$name"
    if "$build/fuzz/$name" -runs="${RUNS:-${runs:-20000}}" -seed=1 -rss_limit_mb=1024 -max_len=65536 \
        -artifact_prefix="$new/" "$new/$name" "tests/fuzz/corpus/$name" >"$new/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "$name"
        tail -n 40 "$new/log"
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# Every fuzz target, or the named ones, on the kept corpus and on inputs made of it: RUNS of them each,
# always the same ones [20000; 200000 if FULL is set]; or for FUZZ_SECONDS each, other ones every time,
# and going on from what was found before (make fuzz). What is new is kept in $BUILD/fuzz/found/TARGET,
# an input that fails in $BUILD/fuzz/failed/TARGET-... .
#
#     tests/fuzz/run.sh [TARGET...]
set -u
build=${BUILD:-build} runs=${FULL:+200000}
runs=${RUNS:-${runs:-20000}}
work=$(mktemp -d) passed=0 failed=0
trap 'rm -rf "$work"' EXIT
mkdir -p "$build/fuzz/failed"

targets=("$@")
if [ "$#" -eq 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do
        targets+=("$(basename "$source" .c)")
    done
fi

# Deep ones cost a hundred times as much an input as parsers of a header: a few of them are enough
# where the number counts.
share() {
    case "$1" in
    fuzz_model) echo 32 ;;
    fuzz_run | fuzz_argv) echo 8 ;;
    *) echo 1 ;;
    esac
}

printf '%-18s %12s %10s %8s %8s\n' target inputs 'inputs/s' edges corpus
for name in "${targets[@]}"; do
    if [ -n "${FUZZ_SECONDS:-}" ]; then
        new=$build/fuzz/found/$name
        how=(-max_total_time="$FUZZ_SECONDS")
    else
        new=$work/$name
        how=(-runs=$((runs / $(share "$name"))) -seed=1)
    fi
    mkdir -p "$new" "tests/fuzz/corpus/$name"
    begin=$(date +%s%N)
    if "$build/fuzz/$name" "${how[@]}" -rss_limit_mb=1024 -malloc_limit_mb=300 -max_len=4096 -timeout=25 \
        -artifact_prefix="$build/fuzz/failed/$name-" -print_final_stats=1 "$new" "tests/fuzz/corpus/$name" \
        >"$work/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        tail -n 40 "$work/log"
        echo "$name failed; again: $build/fuzz/$name FILE, with the file named above"
    fi
    inputs=$(sed -n 's/^stat::number_of_executed_units: //p' "$work/log")
    took=$((($(date +%s%N) - begin) / 1000000 + 1))
    read -r edges corpus < <(sed -n 's|.* cov: \([0-9]*\) .* corp: \([0-9]*\)/.*|\1 \2|p' "$work/log" | tail -n 1)
    printf '%-18s %12s %10s %8s %8s\n' "$name" "${inputs:-?}" $((${inputs:-0} * 1000 / took)) \
        "${edges:-?}" "${corpus:-?}"
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]

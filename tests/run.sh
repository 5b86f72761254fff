#!/usr/bin/env bash
# Runs every test program that `make test` built and closes with the line CI reads:
# N passed, N failed, N skipped. Set VAE_DATA_DIR to a folder that holds mnist/ to test on it.
set -u
build=${BUILD:-build}
logs=$build/test/logs
mkdir -p "$logs"
export BUILD=$build
passed=0 failed=0 skipped=0

export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

# Threads that spin at barriers make a loaded machine crawl; the tests' sizes gain nothing by it.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

count() { # NAME LOG EXIT: adds what one program's log says, in cmocka's words or in a plain line
    local name=$1 log=$2 rc=$3 p f s
    p=$(grep -aoE '^\[  PASSED  \] [0-9]+ test' "$log" | awk '{n += $4} END {print n + 0}')
    f=$(grep -aoE '^\[  FAILED  \] [0-9]+ test' "$log" | awk '{n += $4} END {print n + 0}')
    s=$(grep -aoE '^\[  SKIPPED \] [0-9]+ test' "$log" | awk '{n += $4} END {print n + 0}')
    local plain
    plain=$(grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
    if [ -n "$plain" ]; then
        read -r p _ f _ s _ <<<"$plain"
    fi
    if [ "$rc" -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1
    fi
    if [ "$p" -eq 0 ] && [ "$f" -eq 0 ] && [ "$s" -eq 0 ]; then
        f=1 # a program that tested nothing is a broken test
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    printf '%-34s %4d passed %4d failed %4d skipped\n' "$name" "$p" "$f" "$s"
    if [ "$f" -ne 0 ]; then
        tail -n 60 "$log"
    elif [ "$s" -ne 0 ]; then
        grep -aE 'SKIPPED|skip' "$log" | head -n 8
    fi
}

run() { # NAME COMMAND...
    local name=$1 log=$logs/${1//[^A-Za-z0-9_]/_}.log
    shift
    timeout 1200 "$@" >"$log" 2>&1 </dev/null
    count "$name" "$log" $?
}

if [ -z "${VAE_DATA_DIR:-}" ]; then
    echo "VAE_DATA_DIR is not set: tests on real MNIST are SKIPPED"
fi
for program in "$build"/test/test_*; do
    [ -x "$program" ] && run "$(basename "$program")" "$program"
done
for program in "$build"/simt/test_*; do
    [ -x "$program" ] || continue
    case "$program" in
    *test_ops | *test_ops_loss | *test_ops_classes | *test_gradients)
        for precision in fp32 tf32 bf16; do
            run "emulated $(basename "$program") $precision" env VAE_TEST_DEVICE=cuda \
                VAE_TEST_PRECISION=$precision "$program"
        done
        ;;
    *) run "emulated $(basename "$program")" env VAE_TEST_DEVICE=cuda "$program" ;;
    esac
done
[ -x tests/cli/run ] && run "cli" env VAE="$build/test/vae" tests/cli/run
[ -x tests/simt/run.sh ] && run "emulated program" tests/simt/run.sh
run "report in a browser" env VAE="$build/test/vae" tests/report/run
run "round trips" tests/roundtrip/run.sh
run "installed library" tests/roundtrip/installed.sh
run "parsers on bad input" tests/fuzz/run.sh
run "rules" tests/lint.sh

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

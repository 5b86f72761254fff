#!/usr/bin/env python3
"""Mutation testing (make mutants): faults are planted in the parsers, the checkpoints, the trainer, the
model and the kernels, one at a time, in a copy of the tree; which of them do the tests catch?

    tests/mutants/run.py                    MUTANTS [200] of them, JOBS [2] at a time; goes on where it was cut short
    tests/mutants/run.py again N...         these anew (after a test was written), with all that is in the tree now
    tests/mutants/run.py report             what is known so far, survivors as diffs
    GROUPS="parsers run" tests/mutants/run.py    faults in these only (table.py)

A fault that does not compile without warnings, or gives the same object as before, is none: another is taken
in its place. For each the tests of table.py run, most specific first, until one fails, dies or does not end
in time. Results are lines of JSON in $BUILD/mutants/results.jsonl; the same seed (SEED [1]) and sources plant
the same faults."""
import concurrent.futures
import difflib
import fcntl
import glob
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults
import table

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("BUILD") or "build"
HOME = os.path.join(ROOT, BUILD, "mutants")
RESULTS = os.path.join(HOME, "results.jsonl")
BASELINE = os.path.join(HOME, "baseline.json")
SEED = os.environ.get("SEED") or "1"
MUTANTS = int(os.environ.get("MUTANTS") or 200)
JOBS = int(os.environ.get("JOBS") or 2)
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "BUILD": "build", "LC_ALL": "C.UTF-8",
       "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:hard_rss_limit_mb=3000",
       "UBSAN_OPTIONS": "print_stacktrace=1"}
lock = threading.Lock()


def make(tree, *targets):
    """Did it build? Targets may be none."""
    done = subprocess.run(["make", "-s", "--no-print-directory", "CUDA=0", "GIT=planted", *targets], cwd=tree, env=ENV,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode == 0


# ---- the trees ----

def copy_tree(tree):
    """The sources as they are, committed or not; a copy of an earlier tree keeps what it has built."""
    os.makedirs(tree, exist_ok=True)
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE).stdout.decode().split("\0")
    for name in filter(None, names):
        source, to = os.path.join(ROOT, name), os.path.join(tree, name)
        if not os.path.isfile(source):
            continue
        with open(source, "rb") as f:
            new = f.read()
        try:
            with open(to, "rb") as f:
                if f.read() == new:
                    continue
        except OSError:
            os.makedirs(os.path.dirname(to), exist_ok=True)
        with open(to, "wb") as f:
            f.write(new)
        shutil.copymode(source, to)


# ---- faults ----

def group_of(number):
    """By the shares of table.GROUPS."""
    at = number * sum(share for _, share, _ in table.GROUPS) // MUTANTS
    for group, share, _ in table.GROUPS:
        if at < share:
            return group
        at -= share
    raise ValueError(number)


def choose(number, attempt, sources):
    """Fault `number` of its group, or what takes its place: places in one order of all faults of the group, in
    which no operator crowds out the others, and none comes twice."""
    group = group_of(number)
    in_group = [n for n in range(MUTANTS) if group_of(n) == group]
    if group not in memo:
        memo[group] = order(group, sources[group])
    return (group, *memo[group][in_group.index(number) + attempt * len(in_group)])


def order(group, sources):
    rng = random.Random("%s %s" % (SEED, group))
    found = {}
    for path, text in sources:
        for operator, begin, end, to in faults.sites(text):
            found.setdefault(operator, []).append((operator, path, begin, end, to))
    for places in found.values():
        rng.shuffle(places)
    ordered = []
    while any(found.values()):
        operators = sorted(found)
        operator = rng.choices(operators, [len(found[o]) ** 0.5 for o in operators])[0]
        ordered.append(found[operator].pop())
    return ordered


memo = {}


def read_sources(tree):
    sources = {}
    for group, _, patterns in table.GROUPS:
        paths = sorted(p for pattern in patterns for p in glob.glob(os.path.join(tree, pattern)))
        sources[group] = []
        for path in paths:
            with open(path, encoding="utf-8") as f:
                sources[group].append((os.path.relpath(path, tree), f.read()))
    return sources


def object_of(path):
    """The object, of the variant without sanitizers, that says whether a fault changes anything."""
    if path.endswith(".cu"):
        return "build/simt/%s.o" % path
    if path.startswith("host/backend/cuda/"):
        return "build/simt/%s.o" % path[:-2]
    if path == "host/backend/cpu/kernels.c":
        return "build/plain/host/backend/cpu/kernels_avx2.o"
    return "build/plain/%s.o" % path[:-2]


def content(tree, path):
    """What the object does: no debugging information in it."""
    bare = os.path.join(tree, "build", "bare.o")
    subprocess.run(["strip", "-g", "-o", bare, os.path.join(tree, object_of(path))], check=True)
    with open(bare, "rb") as f:
        return f.read()


# ---- tests ----

def command_of(test):
    """(targets, command, environment) of a test as the table names it."""
    kind, *rest = test.split()
    if kind == "unit":
        return ["build/test/test_%s" % rest[0]], ["build/test/test_%s" % rest[0]], {}
    if kind == "simt":
        more = {"VAE_TEST_DEVICE": "cuda", "VAE_TEST_PRECISION": rest[1] if len(rest) > 1 else "fp32"}
        if rest[-1] == "whole-steps":
            more["VAE_CUDA_PERSISTENT"] = "3"
        return ["build/simt/test_%s" % rest[0]], ["build/simt/test_%s" % rest[0]], more
    if kind == "program":
        return ["build/simt/vae", "build/test/vae"], ["tests/simt/run.sh", rest[0]], {}
    if kind == "cli":
        return ["build/test/vae"], ["tests/cli/run", *rest], {"VAE": "build/test/vae"}
    if kind == "fuzz":
        return ["build/fuzz/%s" % name for name in rest], ["tests/fuzz/run.sh", *rest], {"RUNS": "4000"}
    raise ValueError(test)


def run(tree, test, cpu, wall):
    """None: it passed; or how it failed. Seconds of processor time."""
    _, command, more = command_of(test)
    with open(os.path.join(tree, "build", "test.log"), "wb") as out:
        child = subprocess.Popen(["prlimit", "--core=0", "--cpu=%d" % cpu, *command], cwd=tree, env={**ENV, **more},
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        # seconds in which this program ran, too: it may be stopped for a while, with all that it started
        done, left = (0, 0, None), 4 * wall
        while done[0] == 0 and left > 0:
            time.sleep(0.25 if left < 4 * wall - 8 else 0.05)
            left -= 1
            done = os.wait4(child.pid, os.WNOHANG)
        late = done[0] == 0
        if late:
            os.killpg(child.pid, signal.SIGKILL)
            done = os.wait4(child.pid, 0)
        _, status, usage = done
        child.returncode = code = os.waitstatus_to_exitcode(status)
        try:
            os.killpg(child.pid, signal.SIGKILL)  # whatever it left behind
        except ProcessLookupError:
            pass
    took = usage.ru_utime + usage.ru_stime
    if code == 0:
        return None, took
    return "does not end" if late or code in (-signal.SIGXCPU, -signal.SIGKILL) else "exit status %d" % code, took


def is_wide(test):
    """Tests of whole programs cost a minute each, fuzz targets a build: for what all others let through."""
    return test.split()[0] in ("cli", "program", "fuzz")


def tests_of(path, wide):
    for pattern, tests in table.TESTS:
        if glob.fnmatch.fnmatch(path, pattern):
            return [test for test in tests if is_wide(test) == wide]
    raise ValueError(path)


def measure(tree, tests):
    """These tests pass without faults; how long each takes."""
    known = {}
    if os.path.exists(BASELINE):
        with open(BASELINE, encoding="utf-8") as f:
            known = json.load(f)
    for test in sorted(tests):
        if test in known:
            continue
        if not make(tree, *command_of(test)[0]):
            sys.exit("%s does not build" % test)
        how, took = run(tree, test, 600, 1200)
        if how is not None:
            sys.exit("%s fails without any fault: %s; see %s/build/test.log" % (test, how, tree))
        known[test] = round(took, 2)
        print("%7.2f s  %s" % (took, test), flush=True)
        with open(BASELINE + ".new", "w", encoding="utf-8") as f:
            json.dump(known, f, indent=1, sort_keys=True)
        os.replace(BASELINE + ".new", BASELINE)
    return known


# ---- a mutant ----

def plant(tree, number, sources, baseline, wide, first):
    """Tries candidates from `first` on until one is a mutant; what becomes of it."""
    for attempt in range(first, 200):
        group, operator, path, begin, end, to = choose(number, attempt, sources)
        text = dict(sources[group])[path]
        changed = text[:begin] + to + text[end:]
        full = os.path.join(tree, path)
        if not make(tree, object_of(path)):
            raise RuntimeError("%s does not build" % path)
        before = content(tree, path)
        began, took = time.monotonic(), 0.0
        try:
            with open(full, "w", encoding="utf-8") as f:
                f.write(changed)
            if not make(tree, object_of(path)) or content(tree, path) == before:
                continue
            caught = how = None
            ran = []
            for test in tests_of(path, wide):
                if not make(tree, *command_of(test)[0]):
                    raise RuntimeError("%s: %s does not build" % (path, test))
                usual = baseline[test]
                how, cpu = run(tree, test, 10 + 5 * usual, 120 + 30 * usual)
                took += cpu
                ran.append(test)
                if how is not None:
                    caught = test
                    break
        finally:
            with open(full, "w", encoding="utf-8") as f:
                f.write(text)
        diff = list(difflib.unified_diff(text.splitlines(), changed.splitlines(), path, path, "", "", 2, ""))
        return {"number": number, "attempt": attempt, "group": group, "operator": operator, "file": path,
                "line": text.count("\n", 0, begin) + 1, "diff": "\n".join(diff), "caught": caught, "how": how,
                "ran": ran, "cpu_s": round(took, 1), "wall_s": round(time.monotonic() - began, 1)}
    raise RuntimeError("no fault in two hundred attempts")


# ---- what is known ----

def results():
    """The last line of each number."""
    found = {}
    if os.path.exists(RESULTS):
        with open(RESULTS, encoding="utf-8") as f:
            for line in f:
                row = json.loads(line)
                found[row["number"]] = row
    return found


def keep(row):
    with lock, open(RESULTS, "a", encoding="utf-8") as f:
        f.write(json.dumps(row) + "\n")
    print("%3d %-8s %-18s %s:%d  %s" % (row["number"], row["group"], row["operator"], row["file"], row["line"],
                                        "caught by %s" % row["caught"] if row["caught"] else "SURVIVED"), flush=True)


def report():
    rows = [row for number, row in sorted(results().items()) if number < MUTANTS]
    survivors = [row for row in rows if row["caught"] is None]
    for row in survivors:
        print("\n%d, %s, %d tests:\n%s" % (row["number"], row["operator"], len(row["ran"]), row["diff"]))
        if str(row["number"]) in table.EXPLAINED:
            print("  -- %s" % table.EXPLAINED[str(row["number"])])
    print()
    for group in [group for group, _, _ in table.GROUPS] + [None]:
        of = [row for row in rows if group in (None, row["group"])]
        caught = sum(row["caught"] is not None for row in of)
        if of:
            print("%-10s %3d of %3d caught, %5.1f %%" % (group or "all", caught, len(of), 100 * caught / len(of)))
    print("%.0f s of a core in tests; %d planted of %d" % (sum(r["cpu_s"] for r in rows), len(rows), MUTANTS))
    return len(rows) == MUTANTS and 10 * len(survivors) <= len(rows)


def run_all(todo, wide):
    """Mutants by number, on trees of their own."""
    known = results()
    trees = [os.path.join(HOME, "tree%s" % (k or "")) for k in range(min(JOBS, len(todo)))]
    copy_tree(trees[0])
    sources = read_sources(trees[0])
    groups = {group_of(n) for n in todo}
    paths = [known[n]["file"] for n in todo] if wide else [path for g in groups for path, _ in sources[g]]
    print("tests without faults:", flush=True)
    baseline = measure(trees[0], {test for path in paths for test in tests_of(path, wide)})
    for tree in trees[1:]:
        if not os.path.isdir(tree):
            shutil.copytree(trees[0], tree, symlinks=True)
        copy_tree(tree)
    free = list(trees)

    def one(number):
        with lock:
            tree = free.pop()
        try:
            row = plant(tree, number, sources, baseline, wide, known[number]["attempt"] if wide else 0)
            if wide:  # what has run before counts, too
                row["ran"] = known[number]["ran"] + row["ran"]
                row["cpu_s"] += known[number]["cpu_s"]
            keep(row)
        finally:
            with lock:
                free.append(tree)
    with concurrent.futures.ThreadPoolExecutor(len(trees)) as pool:
        for future in [pool.submit(one, number) for number in todo]:
            future.result()


def main():
    if sys.argv[1:2] == ["report"]:
        return 0 if report() else 1
    os.makedirs(HOME, exist_ok=True)
    guard = open(os.path.join(HOME, "lock"), "w")
    fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
    only = (os.environ.get("GROUPS") or "").split()
    again = [int(word) for word in sys.argv[2:]] if sys.argv[1:2] == ["again"] else []
    todo = again or [n for n in range(MUTANTS) if n not in results() and (not only or group_of(n) in only)]
    random.Random(SEED).shuffle(todo)  # so that a part of them says something of all
    if todo:
        run_all(todo, False)
    # survivors before the tests of whole programs
    todo = [n for n, row in results().items() if row["caught"] is None and (not again or n in again) and
            any(test not in row["ran"] for test in tests_of(row["file"], True))]
    if todo:
        run_all(todo, True)
    return 0 if report() else 1


if __name__ == "__main__":
    sys.exit(main())

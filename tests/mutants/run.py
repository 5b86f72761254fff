#!/usr/bin/env python3
"""Mutation testing (make mutants): faults are planted in the parsers, the checkpoints, the trainer, the
model and the kernels, one at a time, in a copy of the tree; which of them do the tests catch?

    tests/mutants/run.py                    MUTANTS [200] of them, JOBS [2] at a time; goes on where it was cut short
    tests/mutants/run.py again N...         these anew (after a test was written), with all that is in the tree now
    tests/mutants/run.py report             what is known so far, survivors as diffs
    TESTS="unit npy, cli data" tests/mutants/run.py again N...    with these tests alone
    ONLY="parsers run" tests/mutants/run.py    faults in these only (table.py)

A fault that does not compile without warnings, or gives the same object as before, is none: another is taken
in its place. For each the tests of table.py run, most specific first, until one fails, dies or does not end
in time. Results are lines of JSON in $BUILD/mutants/results.jsonl; the same seed (SEED [1]) and sources plant
the same faults."""
import collections
import concurrent.futures
import difflib
import fcntl
import glob
import json
import os
import random
import re
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
from coverage import FLAGS, Coverage

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BUILD = os.environ.get("BUILD") or "build"
HOME = os.path.join(ROOT, BUILD, "mutants")
RESULTS = os.path.join(HOME, "results.jsonl")
BASELINE = os.path.join(HOME, "baseline.json")
SEED = os.environ.get("SEED") or "1"
MUTANTS = int(os.environ.get("MUTANTS") or 200)
ONLY_THESE = [" ".join(test.split()) for test in (os.environ.get("TESTS") or "").split(",") if test.strip()]
WIDE = float(os.environ.get("WIDE") or 90)
JOBS = int(os.environ.get("JOBS") or 2)
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8",
       "ASAN_OPTIONS": "detect_leaks=1:allocator_may_return_null=1:hard_rss_limit_mb=3000",
       "UBSAN_OPTIONS": "print_stacktrace=1"}
LINKER = " -fuse-ld=lld" if shutil.which("ld.lld") else ""  # links in a tenth of a second
# How what is tested is built, by folder: first without sanitizers, several times as fast, and compiled so that a
# warning is an error; what passes there with them.
KINDS = {"fast": ["SAN=-O1 -Werror" + LINKER], "build": ["SAN_DEBUG=-g0" + LINKER]}
FAILED = re.compile(rb"^(?:\[  FAILED  \]|FAILED\b)", re.M)  # in cmocka's words, and in a script's
lock = threading.Lock()


def make(tree, *targets, how=()):
    """Did it build? Targets are in the folder of their kind of build."""
    kind = targets[0].split("/")[0]
    done = subprocess.run(["make", "-s", "--no-print-directory", "CUDA=0", "GIT=planted", "BUILD=" + kind,
                           *(how or KINDS[kind]), *targets], cwd=tree, env=ENV, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode == 0


# ---- the trees ----

def stale(tree, names):
    """Files of a tree, below what is built from, that the sources have no longer."""
    there = (os.path.relpath(p, tree) for room in ("host", "kernels", "include", "tests")
             for p in glob.glob(os.path.join(tree, room, "**"), recursive=True) if os.path.isfile(p))
    return set(there) - set(names)


def copy_tree(tree):
    """The sources as they are, committed or not; a copy of an earlier tree keeps what it has built. Of what is built
    here it has the readers of the round trips."""
    os.makedirs(os.path.join(tree, "build"), exist_ok=True)
    readers = os.path.join(ROOT, BUILD, "venv")
    if os.path.exists(readers) and not os.path.lexists(os.path.join(tree, "build/venv")):
        os.symlink(readers, os.path.join(tree, "build/venv"))
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True,
                           stdout=subprocess.PIPE).stdout.decode().split("\0")
    for name in stale(tree, names):
        os.remove(os.path.join(tree, name))
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
    """The object that says whether a fault changes anything."""
    if path.endswith(".cu"):
        return "fast/simt/%s.o" % path
    if path.startswith("host/backend/cuda/"):
        return "fast/simt/%s.o" % path[:-2]
    if path == "host/backend/cpu/kernels.c":
        return "fast/asan/host/backend/cpu/kernels_avx2.o"
    return "fast/asan/%s.o" % path[:-2]


def content(tree, path):
    with open(os.path.join(tree, object_of(path)), "rb") as f:
        return f.read()


# ---- tests ----

def command_of(test, kind="build"):
    """(targets, command, environment) of a test as the table names it."""
    what, *rest = test.split()
    vae, emulated = kind + "/test/vae", kind + "/simt/vae"
    if what == "unit":
        more = {"VAE_TEST_PRECISION": rest[1]} if len(rest) > 1 else {}
        return ["%s/test/test_%s" % (kind, rest[0])], ["%s/test/test_%s" % (kind, rest[0])], more
    if what == "simt":
        more = {"VAE_TEST_DEVICE": "cuda", "VAE_TEST_PRECISION": rest[1] if len(rest) > 1 else "fp32"}
        if rest[-1] == "whole-steps":
            more["VAE_CUDA_PERSISTENT"] = "3"
        return ["%s/simt/test_%s" % (kind, rest[0])], ["%s/simt/test_%s" % (kind, rest[0])], more
    if what == "program":
        return [emulated, vae], ["tests/simt/run.sh", rest[0]], {}
    if what == "ranks":
        return [emulated], ["tests/simt/ranks.py"], {"VAE": emulated}
    if what == "cli":
        more = [kind + "/test/vae_alone"] if {"ranks", "photos"} & set(rest) else []  # as new as the other
        more += [kind + "/test/fail_mpi.so"] if "ranks" in rest else []
        return [vae, *more], ["tests/cli/run", *rest], {"VAE": vae}
    if what == "roundtrip":
        return [kind + "/vae", kind + "/roundtrip/random_model"], ["tests/roundtrip/run.sh", rest[0]], {"MODELS": "30"}
    if what == "faults":  # of a part, in scenes
        scenes = [word for scene in rest[1:] for word in ("--scene", scene)]
        return ([kind + "/vae", vae, kind + "/faults/shim.so"],
                ["tests/faults/run", "--long", "--part", rest[0], *scenes], {"JOBS": "1"})
    if what == "fuzz":
        return ["%s/fuzz/%s" % (kind, name) for name in rest], ["tests/fuzz/run.sh", *rest], {"RUNS": "4000"}
    raise ValueError(test)


def run(tree, test, kind, cpu, wall):
    """None: it passed; or how it failed: it is ended as soon as one of its cases did. Seconds of processor time."""
    _, command, more = command_of(test, kind)
    log, temp = os.path.join(tree, "build", "test.log"), os.path.join(os.path.abspath(tree), "build", "temp")
    shutil.rmtree(temp, ignore_errors=True)
    os.makedirs(temp)
    with open(log, "wb") as out:
        child = subprocess.Popen(["prlimit", "--core=0", "--cpu=%d" % cpu, *command], cwd=tree, stdin=subprocess.DEVNULL,
                                 env={**ENV, "BUILD": kind, "TMPDIR": temp, **more}, stdout=out, stderr=out,
                                 start_new_session=True)
    # seconds in which this program ran, too: it may be stopped for a while, with all that it started
    done, left, failed = (0, 0, None), 4 * wall, None
    while done[0] == 0 and left > 0 and not failed:
        time.sleep(0.25 if left < 4 * wall - 8 else 0.05)
        left -= 1
        done = os.wait4(child.pid, os.WNOHANG)
        with open(log, "rb") as out:
            failed = FAILED.search(out.read())
    stopped = done[0] == 0
    if stopped:
        os.killpg(child.pid, signal.SIGKILL)
        done = os.wait4(child.pid, 0)
    _, status, usage = done
    child.returncode = code = os.waitstatus_to_exitcode(status)
    try:
        os.killpg(child.pid, signal.SIGKILL)  # whatever it left behind
    except ProcessLookupError:
        pass
    took = usage.ru_utime + usage.ru_stime
    if failed:
        return "a case failed", took
    if stopped or code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "does not end", took
    return (None if code == 0 else "exit status %d" % code), took


def failed_of(tree, test):
    """Of several tests of the command line the one that failed."""
    with open(os.path.join(tree, "build", "test.log"), encoding="utf-8", errors="replace") as log:
        found = re.search(r"^FAILED +(\w+)$", log.read(), re.M) if test.startswith("cli ") else None
    return "cli " + found[1] if found else test


def is_wide(test):
    """Tests of whole programs cost a minute each, fuzz targets a build: for what all others let through."""
    return test.split()[0] in ("cli", "program", "ranks", "roundtrip", "faults", "fuzz")


def cli_tests(root=ROOT):
    """Of every test of the command line: the file it is in (test_NAME.py is NAME)."""
    found = {}
    for path in sorted(glob.glob(os.path.join(root, "tests/cli/test_*.py"))):
        with open(path, encoding="utf-8") as f:
            for name in re.findall(r"^@test\ndef (\w+)", f.read(), re.M):
                found[name] = os.path.basename(path)[5:-3]
    return found


def measured_tests(root):
    """Whose lines are worth to be known; what is emulated takes too long."""
    units = [os.path.basename(p)[5:-2] for p in sorted(glob.glob(os.path.join(root, "tests/unit/test_*.c")))]
    return (["unit %s" % name for name in units if name not in ("curand", "whole")] +
            ["cli %s" % name for name, file in cli_tests(root).items() if file in table.ASKED])


def is_new(test):
    """A unit test that has changed since lines were measured: it may run others now."""
    kind, name = test.split()[:2]
    try:
        with open(os.path.join(coverage.tree, "tests/unit/test_%s.c" % name), "rb") as old, \
                open(os.path.join(ROOT, "tests/unit/test_%s.c" % name), "rb") as new:
            return kind in ("unit", "simt") and old.read() != new.read()
    except OSError:
        return True


def named(path, wide):
    """What is named for a source."""
    tests = next(tests for pattern, tests in table.TESTS if glob.fnmatch.fnmatch(path, pattern))
    return [test for test in tests if is_wide(test) == wide]


def tests_of(path, text, line, wide):
    """What is named for a source, if it runs the line. Wide: then whatever other unit test does; and of the command
    line's tests that were asked those that do, beginning with those that run little else, as many as take WIDE
    seconds."""
    first = [test for test in named(path, wide) if set(test.split()[1:]).isdisjoint(table.ASKED)]
    first = [test for test in first if coverage.runs(test, path, text, line) or is_new(test)]
    if not wide or path.startswith(("kernels/", "host/backend/cuda/")):
        return first
    units = [test for test in coverage.tests if test.startswith("unit ") and test not in named(path, False)]
    tellers = ["cli " + name for name, file in cli_tests().items() if file in table.ASKED]
    chosen, seconds = [], 0.0  # of the clock, as the lines were measured
    for test in sorted(tellers, key=coverage.breadth):
        if coverage.runs(test, path, text, line) and (not chosen or seconds < WIDE):
            seconds += coverage.seconds(test)
            chosen.append(test[4:])
    return ([test for test in sorted(units, key=coverage.seconds) if coverage.runs(test, path, text, line)] +
            (["cli " + " ".join(chosen)] if chosen else []) + first)


coverage = Coverage(HOME)


def measure_coverage():
    """Once, in a tree of its own, built without sanitizers; tests that are written later count as running all lines."""
    if not coverage.tests:
        copy_tree(coverage.tree)
    tests = measured_tests(coverage.tree)
    if all(test in coverage.tests for test in tests):
        return
    targets = {target for test in tests for target in command_of(test)[0]}
    if not make(coverage.tree, "-j%d" % JOBS, *targets, how=[FLAGS]):
        sys.exit("%s does not build" % coverage.tree)
    print("lines that tests run:", flush=True)
    sources = {path for _, _, patterns in table.GROUPS for pattern in patterns
               for path in glob.glob(os.path.join(ROOT, pattern))}
    coverage.measure(tests, sources, command_of, {**ENV, "BUILD": "build"}, JOBS)


class Baseline:
    """Seconds of a core that each test takes where it passes: fault or none, one that passes is as it was."""

    def __init__(self):
        self.known = {}
        if os.path.exists(BASELINE):
            with open(BASELINE, encoding="utf-8") as f:
                self.known = json.load(f)

    def seconds(self, test, kind):
        return self.known.get("%s %s" % (kind, test), 60)

    def passed(self, test, kind, seconds):
        with lock:
            self.known.setdefault("%s %s" % (kind, test), round(seconds, 2))
            with open(BASELINE + ".new", "w", encoding="utf-8") as f:
                json.dump(self.known, f, indent=1, sort_keys=True)
            os.replace(BASELINE + ".new", BASELINE)

    def check(self, tree, test, kind):
        """A test that failed passes in a tree without faults, or all of this means nothing."""
        if "%s %s" % (kind, test) not in self.known:
            built = make(tree, *command_of(test, kind)[0])
            how, took = run(tree, test, kind, 600, 1200) if built else ("it does not build", 0)
            if how is not None:
                raise RuntimeError("%s fails without any fault: %s" % (test, how))
            self.passed(test, kind, took)


# ---- a mutant ----

def difference(path, text, changed):
    return "\n".join(difflib.unified_diff(text.splitlines(), changed.splitlines(), path, path, "", "", 2, ""))


def planted(row, text):
    """The fault of a row in the sources as they are now, by the lines around it; None: its place is gone, or not
    the only one of its kind."""
    lines = [line for line in row["diff"].splitlines()[2:] if not line.startswith("@@")]
    before = "".join("\n" + line[1:] for line in lines if line[0] in " -")
    after = "".join("\n" + line[1:] for line in lines if line[0] in " +")
    return text.replace(before, after) if ("\n" + text).count(before + "\n") == 1 else None


def candidates(number, sources, row, others):
    """(attempt, group, operator, path, text, changed) of what may be planted as this number: what its row says, or
    else whatever is none of the others."""
    if row is not None:
        text = dict(sources[row["group"]]).get(row["file"], "")
        changed = planted(row, text)
        if changed is not None:
            yield row["attempt"], row["group"], row["operator"], row["file"], text, changed
        print("%d: gone from %s; another fault instead" % (number, row["file"]), flush=True)
    for attempt in range(200):
        group, operator, path, begin, end, to = choose(number, attempt, sources)
        text = dict(sources[group])[path]
        changed = text[:begin] + to + text[end:]
        if same_change(difference(path, text, changed)) not in others:
            yield attempt, group, operator, path, text, changed
    raise RuntimeError("no fault in two hundred attempts")


def same_change(diff):
    """What of a diff is the same wherever the lines have moved."""
    return tuple(line for line in diff.splitlines() if not line.startswith("@@"))


commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, stdout=subprocess.PIPE, check=False,
                        encoding="ascii").stdout.strip()


def plant(tree, number, sources, baseline, wide, row, others):
    """Tries candidates until one is a mutant; what becomes of it."""
    for attempt, group, operator, path, text, changed in candidates(number, sources, row, others):
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
            line = next(n for n, (a, b) in enumerate(zip(text.split("\n"), changed.split("\n")), 1) if a != b)
            tests = ONLY_THESE or tests_of(path, text, line, wide)
            kind = caught = how = None
            ran = []
            for kind, test in [(kind, test) for kind in KINDS for test in tests]:
                if not make(tree, *command_of(test, kind)[0]):
                    raise RuntimeError("%s: %s does not build" % (path, test))
                usual = baseline.seconds(test, kind)
                how, cpu = run(tree, test, kind, 10 + 5 * usual, 120 + 30 * usual)
                took += cpu
                ran.append(test)
                if how is not None:
                    caught = failed_of(tree, test)
                    break
                baseline.passed(test, kind, cpu)
        finally:
            with open(full, "w", encoding="utf-8") as f:
                f.write(text)
        diff = difference(path, text, changed)
        if caught is not None:  # those that ran together: one may have been in another one's way
            baseline.check(tree, test, kind)
        return {"number": number, "attempt": attempt, "group": group, "operator": operator, "file": path,
                "line": line, "diff": diff, "caught": caught, "how": how,
                "commit": commit, "ran": sorted(set(ran)), "cpu_s": round(took, 1),
                "wall_s": round(time.monotonic() - began, 1)}
    raise RuntimeError("no fault that can be planted")


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


def explanation(row):
    """Why no test can catch it, by table.EXPLAINED; None where nobody said so."""
    changed = ["\n".join(line[1:].strip() for line in row["diff"].splitlines()[2:] if line[0] == sign) for sign in "-+"]
    return table.EXPLAINED.get((row["file"], *changed))


def tell_counts(rows, key, names):
    """A row for each: planted, caught, equivalent, survived; of those that are not equivalent, how many were caught."""
    print("\n%-18s %8s %8s %11s %9s %8s" % (key, "planted", "caught", "equivalent", "survived", "share"))
    for name in [*names, None]:
        of = [row for row in rows if name in (None, row[key])]
        caught = sum(row["caught"] is not None for row in of)
        same = sum(row["caught"] is None and explanation(row) is not None for row in of)
        if of:
            share = 100 * caught / max(1, len(of) - same)
            print("%-18s %8d %8d %11d %9d %6.1f %%" % (name or "all", len(of), caught, same,
                                                       len(of) - caught - same, share))
    return 10 * caught >= 9 * (len(of) - same)


def report():
    rows = [row for number, row in sorted(results().items()) if number < MUTANTS]
    for row in rows:
        if row["caught"] is None:
            print("\n%d, %s, %d tests:\n%s" % (row["number"], row["operator"], len(row["ran"]), row["diff"]))
            if explanation(row) is not None:
                print("  -- equivalent: %s" % explanation(row))
    tell_counts(rows, "operator", sorted({row["operator"] for row in rows}))
    enough = tell_counts(rows, "group", [group for group, _, _ in table.GROUPS])
    kinds = collections.Counter(row["caught"].split()[0] for row in rows if row["caught"])
    print("\ncaught by: %s" % ", ".join("%s %d" % (kind, n) for kind, n in kinds.most_common()))
    print("%.0f s of a core in tests; %d planted of %d" % (sum(r["cpu_s"] for r in rows), len(rows), MUTANTS))
    return len(rows) == MUTANTS and enough


def take_tree():
    """One that no run beside this one works in, with the sources of now; and what to close after it."""
    for k in range(64):
        tree = os.path.join(HOME, "tree%d" % k)
        guard = open(tree + ".lock", "w")
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            guard.close()
            continue
        copy_tree(tree)
        return tree, guard
    raise RuntimeError("no tree is free in %s" % HOME)


def run_all(todo, wide):
    """Mutants by number, on trees of their own."""
    known = results()
    taken = [take_tree() for _ in range(min(JOBS, len(todo)))]
    free = [tree for tree, _ in taken]
    sources = read_sources(free[0])
    baseline = Baseline()

    def one(number):
        with lock:
            tree = free.pop()
            others = {same_change(row["diff"]) for n, row in results().items() if n != number}
        try:
            row = plant(tree, number, sources, baseline, wide, known.get(number), others)
            row["wide"] = wide
            if (wide or ONLY_THESE) and number in known:  # what has run before counts, too
                row["ran"] = known[number]["ran"] + row["ran"]
                row["cpu_s"] += known[number]["cpu_s"]
            keep(row)
        finally:
            with lock:
                free.append(tree)
    with concurrent.futures.ThreadPoolExecutor(len(taken)) as pool:
        for future in [pool.submit(one, number) for number in todo]:
            future.result()
    for _, guard in taken:
        guard.close()


def main():
    if sys.argv[1:2] == ["report"]:
        return 0 if report() else 1
    os.makedirs(HOME, exist_ok=True)
    only = (os.environ.get("ONLY") or "").split()
    again = [int(word) for word in sys.argv[2:]] if sys.argv[1:2] == ["again"] else []
    todo = again or [n for n in range(MUTANTS) if n not in results() and (not only or group_of(n) in only)]
    random.Random(SEED).shuffle(todo)  # so that a part of them says something of all
    if todo:
        run_all(todo, False)
    # survivors before the tests of whole programs
    todo = [n for n, row in results().items()
            if row["caught"] is None and not row.get("wide") and (not again or n in again)]
    if todo and WIDE > 0 and not ONLY_THESE:
        measure_coverage()
        run_all(todo, True)
    return 0 if report() else 1


if __name__ == "__main__":
    sys.exit(main())

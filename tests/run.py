#!/usr/bin/env python3
"""Runs every test program that `make test` built, as many side by side as there are cores, one more
while those leave a core idle, longest first, and closes with the line CI reads: N passed, N failed,
N skipped.

    tests/run.py [WORD...]    only the programs whose name holds one of the words

Environment: BUILD (the build folder), JOBS (cores to keep busy, default: all), FULL=1 (the long form), VAE_DATA_DIR (a folder that holds mnist/, to test on it). tests/README.md says more."""
import glob
import json
import os
import re
import signal
import subprocess
import sys
import time

BUILD = os.environ.get("BUILD") or "build"
FULL = os.environ.get("FULL", "0") not in ("", "0")
LOGS = os.path.join(BUILD, "test", "logs")
RECORD = os.path.join(BUILD, "test", "seconds.json")  # of the last run, by name
TIMEOUT = 1200
SHOWN = 400  # lines of a failed program's output; all of it is in its log
# Where there is no record: what takes long comes first in this order, the rest after it.
LONGEST = ("cli ranks", "emulated program: parity", "emulated ranks", "emulated test_model_tsan", "cli trust",
           "cli program", "installed library", "cli probe", "emulated program: bits", "round trips: tutorial",
           "cli conv", "cli pictures", "cli conditional", "faults", "emulated program: script", "cli report",
           "report in a browser", "emulated test_ops_loss fp32", "emulated test_ops_loss tf32",
           "emulated test_ops_loss bf16", "emulated test_model", "parsers on bad input", "cli photos", "cli score",
           "emulated test_ops fp32", "emulated test_ops tf32", "emulated test_ops bf16", "cli data",
           "round trips: commands", "test_ops_loss", "test_ops_loss bf16", "cli mapped", "test_matmul")
PRECISIONS = ("fp32", "tf32", "bf16")
CPU_BF16 = ("test_ops", "test_ops_loss", "test_ops_conv", "test_ops_classes", "test_gradients", "test_determinism", "test_mapped")
BY_PRECISION = ("test_ops", "test_ops_loss", "test_ops_conv", "test_ops_classes", "test_gradients", "test_whole")


class Program:
    def __init__(self, name, *command, **env):
        self.name, self.command, self.env = name, command, env
        self.log = os.path.join(LOGS, re.sub(r"\W+", "_", name) + ".log")

    def start(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["timeout", "-k", "10", str(TIMEOUT), *self.command], stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env={**os.environ, **self.env})
        self.begin = time.monotonic()

    def end(self, status, usage):
        self.wall = time.monotonic() - self.begin
        self.cpu = usage.ru_utime + usage.ru_stime
        self.process.returncode = os.waitstatus_to_exitcode(status)
        with open(self.log, encoding="utf-8", errors="replace") as log:
            self.lines = log.read().splitlines()
        self.passed, self.failed, self.skipped = counts(self.lines, self.process.returncode)


def counts(lines, code):
    """What a log says, in cmocka's words or in a plain line."""
    p = f = s = 0
    for line in lines:
        if match := re.match(r"\[  (PASSED |FAILED |SKIPPED) \] (\d+) test", line):
            n = int(match[2])
            p, f, s = (p + n, f, s) if match[1] == "PASSED " else (p, f + n, s) if match[1] == "FAILED " else (p, f, s + n)
    plain = [m for m in (re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", x) for x in lines) if m]
    if plain:
        p, f, s = map(int, plain[-1].groups())
    if f == 0 and (code != 0 or p + s == 0):
        f = 1  # it broke, or it tested nothing
    return p, f, s


def programs():
    def built(folder):
        """What make says there is: one that is missing fails, one left over from another commit is not run."""
        told = os.environ.get("TEST_PROGRAMS")
        if told is not None:
            return sorted(p for p in told.split() if p.startswith(f"{BUILD}/{folder}/test_"))
        return sorted(p for p in glob.glob(f"{BUILD}/{folder}/test_*") if os.path.isfile(p) and os.access(p, os.X_OK))

    vae = {"VAE": f"{BUILD}/test/vae"}
    for path in built("test"):
        name = os.path.basename(path)
        yield Program(name, path)
        if name in CPU_BF16:
            yield Program(f"{name} bf16", path, VAE_TEST_PRECISION="bf16")
    for path in built("simt"):
        name = os.path.basename(path)
        for precision in PRECISIONS if name in BY_PRECISION else ("",):
            more = {"VAE_TEST_PRECISION": precision} if precision else {}
            yield Program(f"emulated {name} {precision}".strip(), path, VAE_TEST_DEVICE="cuda", **more)
            if name == "test_gradients": # the persistent kernel's, against the same references
                yield Program(f"emulated {name} {precision}, whole steps", path, VAE_TEST_DEVICE="cuda",
                              VAE_CUDA_PERSISTENT="3", **more)
    for path in sorted(glob.glob("tests/cli/test_*.py")):
        topic = os.path.basename(path)[5:-3]
        yield Program(f"cli {topic}", "tests/cli/run", topic, **vae)
    for part in ("parity", "bits", "refusals", "failures", "script"):
        yield Program(f"emulated program: {part}", "tests/simt/run.sh", part)
    yield Program("emulated ranks", "tests/simt/ranks.py", VAE=f"{BUILD}/simt/vae")
    yield Program("report in a browser", "tests/report/run", **vae)
    yield Program("round trips: models", "tests/roundtrip/run.sh", "models")
    yield Program("round trips: commands", "tests/roundtrip/run.sh", "commands")
    yield Program("round trips: tutorial", "tests/roundtrip/run.sh", "tutorial")
    yield Program("installed library", "tests/roundtrip/installed.sh")
    yield Program("parsers on bad input", "tests/fuzz/run.sh")
    yield Program("faults", "tests/faults/run", JOBS="1")  # beside the others
    yield Program("rules", "tests/lint.sh")


def environment():
    """What every program inherits."""
    os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1:allocator_may_return_null=1")
    os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
    # A program a core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_DYNAMIC", "false")
    os.environ.update(BUILD=BUILD, FULL="1" if FULL else "")


def read_record():
    try:
        with open(RECORD, encoding="utf-8") as file:
            record = json.load(file)
        return record if isinstance(record, dict) else {}
    except (OSError, ValueError):
        return {}


def longest_first(todo):
    record = read_record()
    guess = {name: len(LONGEST) - i for i, name in enumerate(LONGEST)}
    return sorted(todo, key=lambda p: record.get(p.name, guess.get(p.name, 0)), reverse=True)


class Cores:
    """How many cores of the machine are at work, whoever's work it is: a program that waits (for a disk, a
    browser, ranks for one another) leaves its own to another program."""
    LOOK = 1  # seconds

    def __init__(self):
        self.then, self.idle = time.monotonic(), self.idle_seconds()

    @staticmethod
    def idle_seconds():
        """Of all cores since the machine started, without work or with work that waits for the disk."""
        try:
            with open("/proc/stat", encoding="ascii") as file:
                words = file.readline().split()
            return (int(words[4]) + int(words[5])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError):
            return 0  # which lets nobody in: all cores are busy

    def busy(self):
        """Since the last look, if that is long enough ago, else None."""
        now = time.monotonic()
        if now - self.then < self.LOOK:
            return None
        idle = self.idle_seconds()
        was, self.idle = (idle - self.idle) / (now - self.then), idle
        self.then = now
        return os.cpu_count() - was

    def forget(self):
        self.then, self.idle = time.monotonic(), self.idle_seconds()


def run_all(todo, jobs):
    running, done, cores = {}, [], Cores()
    try:
        while todo or running:
            busy = cores.busy()
            while todo and (len(running) < jobs or (busy is not None and busy < jobs - 0.5 and len(running) < 2 * jobs)):
                program = todo.pop(0)
                program.start()
                running[program.process.pid] = program
                busy = None
                cores.forget()  # what the new one takes shows in the next look
            pid, status, usage = os.wait4(-1, os.WNOHANG if todo else 0)
            if pid == 0:
                time.sleep(0.05)
                continue
            program = running.pop(pid)
            program.end(status, usage)
            done.append(program)
            tell(program)
    finally:
        for program in running.values():  # after Ctrl-C
            program.process.terminate()
    return done


def tell(program):
    print(f"{program.name:34} {program.passed:4} passed {program.failed:4} failed {program.skipped:4} skipped"
          f" {program.wall:7.1f} s")
    if program.failed:
        if len(program.lines) > SHOWN:
            print(f"... {len(program.lines) - SHOWN} lines before these are in {program.log}")
        print("\n".join([*program.lines[-SHOWN:], f"exit status {program.process.returncode}; {program.log}"]))
    elif program.skipped:
        print("\n".join([x for x in program.lines if re.search("SKIPPED|skip", x)][:8]))
    sys.stdout.flush()


def keep_record(done):
    record = {**read_record(), **{p.name: round(p.wall, 2) for p in done}}
    with open(RECORD + ".new", "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1, sort_keys=True)
    os.replace(RECORD + ".new", RECORD)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    os.makedirs(LOGS, exist_ok=True)
    environment()
    jobs = int(os.environ.get("JOBS") or len(os.sched_getaffinity(0)))
    if not os.environ.get("VAE_DATA_DIR"):
        print("VAE_DATA_DIR is not set: tests on real MNIST are SKIPPED")
    form = "the long form (FULL=1)" if FULL else "the short form (FULL=1 does more)"
    begin = time.monotonic()
    wanted = [p for p in programs() if not sys.argv[1:] or any(word in p.name for word in sys.argv[1:])]
    done = run_all(longest_first(wanted), jobs)
    keep_record(done)
    wall = time.monotonic() - begin
    print(f"\nseconds: of the clock, of a core, program; {jobs} side by side")
    for program in sorted(done, key=lambda p: p.wall):
        print(f"{program.wall:8.1f} {program.cpu:8.1f}  {program.name}")
    print(f"{wall:8.1f} {sum(p.cpu for p in done):8.1f}  {form}")
    failed = sum(p.failed for p in done)
    print(f"{sum(p.passed for p in done)} passed, {failed} failed, {sum(p.skipped for p in done)} skipped")
    return failed != 0 or not done


if __name__ == "__main__":
    sys.exit(main())

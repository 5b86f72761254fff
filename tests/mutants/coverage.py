"""Which lines of the sources each test runs, by gcov: a fault in a line can be caught by no test that does not
run it. Measured once, in a tree of its own that keeps its sources; places in newer ones are looked for there."""
import concurrent.futures
import difflib
import functools
import glob
import gzip
import json
import os
import re
import shutil
import subprocess
import time

FLAGS = "SAN=-O1 --coverage -fprofile-update=prefer-atomic"


def lines_of(folder, wanted):
    """source: the lines that ran, and those that there are, as sets of bits; of what was left in a folder."""
    data = [p for p in glob.glob(os.path.join(folder, "**", "*.gcda"), recursive=True) if wanted(p)]
    ran, known = {}, {}
    if data:
        out = subprocess.run(["gcov", "--json-format", "--stdout", *data], check=True, stdout=subprocess.PIPE,
                             stderr=subprocess.DEVNULL).stdout
        for report in out.splitlines():
            for source in json.loads(report)["files"]:
                name = source["file"]
                for line in source["lines"]:
                    bit = 1 << line["line_number"]
                    known[name] = known.get(name, 0) | bit
                    ran[name] = ran.get(name, 0) | (bit if line["count"] else 0)
    return ran, known


class Coverage:
    def __init__(self, home):
        self.tree, self.file = os.path.join(home, "coverage"), os.path.join(home, "coverage.json.gz")
        self.tests, self.known = {}, {}
        if os.path.exists(self.file):
            with gzip.open(self.file, "rt") as f:
                about = json.load(f)
            self.known = {name: int(bits, 16) for name, bits in about["known"].items()}
            self.tests = {test: (seconds, {name: int(bits, 16) for name, bits in ran.items()})
                          for test, (seconds, ran) in about["tests"].items()}

    def keep(self):
        def hexed(bits):
            return {name: "%x" % value for name, value in bits.items()}
        with gzip.open(self.file + ".new", "wt") as f:
            json.dump({"known": hexed(self.known),
                       "tests": {test: (seconds, hexed(ran)) for test, (seconds, ran) in self.tests.items()}}, f)
        os.replace(self.file + ".new", self.file)

    def measure(self, tests, sources, command_of, env, jobs):
        """Of tests that are not known yet; the tree has been built. Those that fail or take long are left out."""
        names = {os.path.basename(source).split(".")[0] for source in sources}

        def wanted(path):
            return "/host/" in path and "kernels_" in path or os.path.basename(path).split(".")[0] in names

        def one(test):
            folder = os.path.join(self.tree, "build", "gcda", re.sub(r"\W+", "_", test))
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            _, command, more = command_of(test)
            strip = os.path.abspath(self.tree).count(os.sep)
            began = time.monotonic()
            with open(folder + ".log", "wb") as log:
                code = subprocess.run(["timeout", "600", *command], cwd=self.tree, stdin=subprocess.DEVNULL, stdout=log,
                                      stderr=log, env={**env, "TMPDIR": folder, "GCOV_PREFIX": folder, **more,
                                                       "GCOV_PREFIX_STRIP": str(strip)}).returncode
            took = time.monotonic() - began
            for data in glob.glob(os.path.join(folder, "**", "*.gcda"), recursive=True):
                notes = os.path.splitext(os.path.join(self.tree, os.path.relpath(data, folder)))[0] + ".gcno"
                os.symlink(os.path.abspath(notes), os.path.splitext(data)[0] + ".gcno")
            ran, known = lines_of(folder, wanted)
            shutil.rmtree(folder, ignore_errors=True)
            return test, code, round(took, 2), ran, known
        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for test, code, took, ran, known in pool.map(one, [test for test in tests if test not in self.tests]):
                print("%7.2f s  %s%s" % (took, test, "" if code == 0 else ": exit status %d" % code), flush=True)
                for name, bits in known.items():
                    self.known[name] = self.known.get(name, 0) | bits
                self.tests[test] = (took, ran)
                self.keep()

    @functools.lru_cache(None)
    def old_line(self, path, text):
        """line now: line in the sources that were measured."""
        try:
            with open(os.path.join(self.tree, path), encoding="utf-8") as f:
                old = f.read()
        except OSError:
            return {}
        matcher = difflib.SequenceMatcher(None, text.split("\n"), old.split("\n"), False)
        return {b.a + i + 1: b.b + i + 1 for b in matcher.get_matching_blocks() for i in range(b.size)}

    def runs(self, test, path, text, line):
        """Does the test run this line of the source, as far as is known? Of a statement of several lines the first
        that is known counts."""
        if test not in self.tests:
            return True
        places = self.old_line(path, text)
        while line > 0 and line not in places:
            line -= 1
        at, known = places.get(line), self.known.get(path, 0)
        if at is None or not known:
            return True
        near = next((n for n in range(at, max(0, at - 8), -1) if known >> n & 1), None)
        return near is None or bool(self.tests[test][1].get(path, 0) >> near & 1)

    def seconds(self, test):
        return self.tests[test][0] if test in self.tests else 1.0

    def breadth(self, test):
        """How many lines it runs: what runs few is about them."""
        return sum(bin(bits).count("1") for bits in self.tests[test][1].values()) if test in self.tests else 0

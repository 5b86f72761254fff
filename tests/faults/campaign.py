"""The campaign: which cases there are, and how one is run and judged. A case is a tuple of plain values;
joined by slashes it is the name by which `tests/faults/run --case NAME` repeats it."""
import collections
import ctypes
import errno
import os
import random
import shutil
import signal
import time

from judge import FOREIGN, OLD, Judgement, judge, judge_again, judge_mutant, snapshot, stamps
from mutate import mutate_bytes, mutate_checkpoint, mutate_text
from scenes import SMALL, make_fixture, scenes
from server import EVER, NO_FAULT, Server

SCENES = {scene.name: scene for scene in scenes()}
PARTS = ("alloc", "asan", "calls", "kill", "signal", "timed", "limit", "full", "mutant")

# How a system call of each kind may fail. Short reads and writes are no failures at all.
ERRORS = {
    "open": ("EIO", "EMFILE", "EACCES"), "read": ("EIO", "EINTR", "short"), "write": ("ENOSPC", "EIO", "EINTR", "short"),
    "fsync": ("EIO", "ENOSPC"), "rename": ("EIO", "ENOSPC"), "close": ("EIO",), "mkdir": ("ENOSPC", "EACCES"),
    "unlink": ("EACCES",), "mmap": ("ENOMEM",), "readdir": ("EIO",), "stat": ("EIO", "EACCES"), "access": ("EIO",),
    "seek": ("EIO",), "truncate": ("EIO",), "flock": ("EINTR",), "fcntl": ("EMFILE",), "dup": ("EMFILE",),
    "memfd": ("EMFILE",), "random": ("ENOSYS",), "machine": ("EIO",),
}
LASTING = ("write", 1, EVER, "fail", errno.EFBIG)  # what a limit and a full disk come to
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ)

# What is done with a file that was made wrong: the words, and the file that they write.
USES = {
    "info": (["info", "M", "--json"], None), "eval": (["eval", "M", "--samples", "2", "--threads", "1"], None),
    "npz": (["export", "M", "--out", "w.npz"], "w.npz"), "onnx": (["export", "M", "--out", "w.onnx"], "w."),
    "sample": (["sample", "M", "-n", "2", "--threads", "1", "--out", "s.npy"], "s.npy"),
    "report": (["report", "M", "--out", "r.html", "--threads", "1"], "r.html"),
    "resume": (["train", "--resume", "--out", "run", "--epochs", "3", "--threads", "1", "-q"], None),
}
BASES = {"plain": "../fix/rows.npz", "semi": "../fix/rows.npz", "table": "../fix/table.csv", "conv": "../fix/rows.npz",
         "cond": "../fix/rows.npz"}
TEXTS = ("config.json", "run.json", "metrics.jsonl")


def case_name(case):
    return "/".join(str(word) for word in case)


def parse_case(name):
    return tuple(int(word) if word.lstrip("-").isdigit() else word for word in name.split("/"))


def codes_of(scene, kind, action, value):
    """Exit codes that a fault may have. 0: then nothing must be lost."""
    if action in ("short", "signal") or scene.program == "library":
        return {0}
    # of a training run 4 may mean: it is done, but for a picture or the report
    codes = {0, 1} | ({4} if scene.trains else set()) if kind in ("alloc", "thread", "mmap", "random") else {0, 4}
    return codes | ({1} if kind in ("memfd", "machine") else set())


libc = ctypes.CDLL(None, use_errno=True)
MS_REMOUNT, MS_REC, MS_PRIVATE = 32, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000


def mount(source, target, kind, flags, data):
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def own_mounts():
    """May this process mount, seen by nobody else? It can from then on."""
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")) if user else ():
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
        mount("none", "/", "none", MS_REC | MS_PRIVATE, "")
    except OSError:
        return False
    return True


class Worker:
    """A folder with a case in it, and the fixture beside; servers of the programs."""

    def __init__(self, root, shim, programs):
        self.root, self.shim, self.programs = root, shim, programs
        self.servers, self.references = {}, {}
        self.fix, self.case = os.path.join(root, "fix"), os.path.join(root, "case")
        self.mounts, self.mounted = own_mounts(), False
        shutil.rmtree(root, ignore_errors=True)
        os.makedirs(self.fix)
        self.empty()
        make_fixture(self.fix, self.make)
        self.stamps = stamps(self.fix)
        self.bases = {}
        for name in BASES:
            folder = os.path.join(self.fix, name, "checkpoints")
            steps = sorted(step for step in os.listdir(folder) if step.startswith("step-"))
            with open(os.path.join(folder, steps[-1]), "rb") as file:
                self.bases[name] = file.read()

    def server(self, program):
        if program not in self.servers:
            self.servers[program] = Server(self.shim, self.programs[program], os.path.join(self.root, "out-" + program),
                                           leaks="asan" in program)
        return self.servers[program]

    def make(self, args):
        ran = self.server("vae").run(args, self.case)
        assert ran.status == 0, f"{' '.join(map(str, args))}: exit {ran.status}: {ran.err}"

    def close(self):
        self.unmount()
        for server in self.servers.values():
            server.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def unmount(self):
        if self.mounted and libc.umount2(self.case.encode(), 2) != 0:
            raise OSError(ctypes.get_errno(), "umount")
        self.mounted = False

    def empty(self):
        self.unmount()
        shutil.rmtree(self.case, ignore_errors=True)
        os.makedirs(self.case)

    def put(self, name, raw):
        with open(os.path.join(self.case, name), "wb") as file:
            file.write(raw)

    def set_up(self, scene, mounted=False):
        """The case's folder as it is before; its snapshot."""
        self.empty()
        if mounted:
            mount("none", self.case, "tmpfs", 0, "size=64m")
            self.mounted = True
        for name, source in scene.copies.items():
            shutil.copytree(os.path.join(self.fix, source), os.path.join(self.case, name))
        for name, raw in FOREIGN.items():
            if os.path.isdir(os.path.dirname(os.path.join(self.case, name))):
                self.put(name, raw)
        for name in scene.old:
            self.put(name, OLD)
        return snapshot(self.case)

    def run(self, scene, fault=NO_FAULT, program=None, args=None, **more):
        stdin = os.path.join(self.case, scene.stdin) if scene.stdin else "/dev/null"
        lasting = fault[2] > fault[1] or more.get("fsize", 0) > 0 or self.mounted
        env = [*scene.env, *(["LASTING=1"] if lasting else [])]
        return self.server(program or scene.program).run(args or scene.args, self.case, fault, stdin=stdin, env=env,
                                                         frozen=scene.frozen, **more)

    def reference(self, scene):
        """An undisturbed run: what it leaves, prints, counts of allocations and of calls, and seconds."""
        if scene.name not in self.references:
            counts = {}
            for fault in NO_FAULT, ("any", 1, 0, "count", 0):
                self.set_up(scene)
                begin = time.monotonic()
                ran = self.run(scene, fault)
                seconds = min(time.monotonic() - begin, counts.get("seconds", 1e9))
                assert ran.status == 0, f"{scene.name}: exit {ran.status}: {ran.err}"
                counts = {**ran.counts, "seconds": seconds}
            self.references[scene.name] = snapshot(self.case), ran.out, counts
        return self.references[scene.name]

    def again(self, scene):
        """What a person would do next with a run that was not finished."""
        args = list(scene.args)
        if scene.imports:
            args += [] if "--force" in args else ["--force"]
        elif "--force" not in args and not any(arg.startswith("--resume") for arg in args):
            args.append("--resume=auto")
        return args

    def judged(self, scene, ran, fault, before, codes, sent=()):
        reference, said, _ = self.references[scene.name]
        j = judge(scene, ran, fault, before, snapshot(self.case), reference, codes, sent, said)
        if self.mounted:
            mount("none", self.case, "none", MS_REMOUNT, "size=64m")
        if scene.trains or scene.imports and ran.status != 0:
            repeated = self.run(scene, args=self.again(scene))
            judge_again(j, scene, repeated, before, snapshot(self.case), reference)
        self.check_fixture(j)
        return j, ran

    def check_fixture(self, j):
        if stamps(self.fix) != self.stamps:
            j.wrong("a file of the input was touched")
            self.stamps = stamps(self.fix)

    # ---- a case of each part ----

    def fault(self, part, name, kind, first, last, action, value):
        """An allocation or a system call that fails, or brings a signal."""
        scene, fault = SCENES[name], (kind, first, last, action, value)
        self.reference(scene)
        before = self.set_up(scene)
        program = {"vae": "asan", "library": "library-asan"}[scene.program] if part == "asan" else None
        ran = self.run(scene, fault, program)
        # SIGXFSZ is ignored
        sent = (value,) if action == "signal" and value != signal.SIGXFSZ else ()
        return self.judged(scene, ran, fault, before, codes_of(scene, kind, action, value), sent)

    def timed(self, _, name, signo, after_us):
        """A signal at a moment."""
        scene = SCENES[name]
        self.reference(scene)
        before = self.set_up(scene)
        ran = self.run(scene, after_us=after_us, signo=signo)
        return self.judged(scene, ran, NO_FAULT, before, {0}, (signo,))

    def limit(self, _, name, size):
        """No file may be larger."""
        scene = SCENES[name]
        self.reference(scene)
        before = self.set_up(scene)
        ran = self.run(scene, fsize=size)
        return self.judged(scene, ran, LASTING, before, {0, 4})

    def full(self, _, name, pages):
        """So many pages are free in the file system."""
        scene = SCENES[name]
        self.reference(scene)
        before = self.set_up(scene, mounted=True)
        info = os.statvfs(self.case)
        used = (info.f_blocks - info.f_bfree) * info.f_frsize
        mount("none", self.case, "none", MS_REMOUNT, f"size={used + 4096 * pages}")
        ran = self.run(scene)
        return self.judged(scene, ran, LASTING, before, {0, 4})

    def mutant(self, _, base, what, use, seed):
        """A checkpoint or a text of a run, made wrong; the program built with sanitizers."""
        rng = random.Random(f"{base}/{what}/{use}/{seed}")
        self.empty()
        args, out = USES[use]
        if what == "checkpoint":
            raw = mutate_checkpoint(rng, self.bases[base], list(self.bases.values()))
            changed = "m.vae"
            if use == "resume":
                os.makedirs(os.path.join(self.case, "run/checkpoints"))
                changed = "run/checkpoints/step-0000000006.vae"
        else:
            shutil.copytree(os.path.join(self.fix, base), os.path.join(self.case, "run"))
            changed = f"run/{what}"
            with open(os.path.join(self.case, changed), "rb") as file:
                raw = rng.choice((mutate_text, mutate_text, mutate_bytes))(rng, file.read())
        self.put(changed, raw)
        args = [("run" if changed.startswith("run/") else changed) if word == "M" else word for word in args]
        # what a changed configuration names need not be there
        args += ["--data", BASES[base]] if use in ("eval", "report", "resume") and what == "checkpoint" else []
        before = snapshot(self.case)
        ran = self.server("asan").run(args, self.case)
        j = Judgement()
        judge_mutant(j, ran, changed, out, before, snapshot(self.case))
        self.check_fixture(j)
        return j, ran

    def do(self, case):
        run = {"timed": self.timed, "limit": self.limit, "full": self.full, "mutant": self.mutant}
        try:
            j, ran = run.get(case[0], self.fault)(*case)
            if ran.late:
                # LeakSanitizer does not always survive that its process is stopped and goes on (job control,
                # a machine that sleeps): once more; a hang of the program's is one again
                j, ran = run.get(case[0], self.fault)(*case)
                j.outcome = j.outcome if ran.late else "hung once"
            return j, ran
        except (OSError, AssertionError, RuntimeError) as why:
            j = Judgement()
            j.outcome = "broken"
            j.wrong(f"the campaign itself: {type(why).__name__}: {why}")
            return j, None


# ---- which cases ----

def pick(rng, n, most):
    """1 .. n, or so many of them."""
    return range(1, n + 1) if n <= most else sorted(rng.sample(range(1, n + 1), most))


def call_faults(name, counts):
    for kind, errors in ERRORS.items():
        for error in errors:
            action = "short" if error == "short" else "fail"
            value = 0 if error == "short" else getattr(errno, error)
            for i in range(1, counts.get(kind, 0) + 1):
                yield "calls", name, kind, i, i, action, value
                if kind in ("open", "read", "write", "fsync", "mmap") and error in ("EIO", "ENOSPC", "ENOMEM"):
                    yield "calls", name, kind, i, EVER, action, value


def size_of(folder):
    return sum(len(raw) // 4096 + 1 for raw in folder.values() if raw is not None)


def cases_of(scene, counts, pages, sizes, rng):
    """sizes: at most so many cases of a scene, by part."""
    name, most = scene.name, collections.Counter(sizes)
    if scene.trains:  # which costs more, as each is resumed
        for part in ("alloc", "asan", "starved", "calls", "limit", "full"):
            most[part] = sizes["train-" + part]
    if scene.program == "simt":
        most = collections.Counter({key: sizes["simt"] for key in ("kill", "timed")})
    for part, key, last in ("alloc", "alloc", 0), ("alloc", "starved", EVER), ("asan", "asan", 0):
        for i in pick(rng, counts["alloc"], most[key]):
            yield part, name, "alloc", i, last or i, "fail", errno.ENOMEM
    for i in pick(rng, counts["thread"], most["calls"]):
        yield "calls", name, "thread", i, EVER if i % 2 else i, "fail", errno.EAGAIN
    faults = list(call_faults(name, counts))
    yield from faults if len(faults) <= most["calls"] else rng.sample(faults, most["calls"])
    for i in pick(rng, counts["any"], most["kill" if scene.trains else "kill-others"]):
        yield "kill", name, "any", i, i, "signal", int(signal.SIGKILL)
    if scene.trains:
        for i in pick(rng, counts["any"], most["signal"]):
            yield "signal", name, "any", i, i, "signal", int(STOPS[i % len(STOPS)])
        for i in range(most["timed"]):
            signo = signal.SIGKILL if i % 3 else STOPS[i // 3 % 3]
            yield "timed", name, int(signo), int(rng.uniform(0.02, 1.0) * counts["seconds"] * 1e6) + 1
    if scene.writes:
        for i in range(most["limit"]):
            yield "limit", name, int(2 ** rng.uniform(4, 17))
        for i in pick(rng, pages + 4, most["full"]):
            yield "full", name, i


def mutants(n_checkpoints, n_texts):
    uses, bases = list(USES), list(BASES)
    for i in range(n_checkpoints):
        yield "mutant", bases[i % len(bases)], "checkpoint", uses[i // len(bases) % len(uses)], i
    for i in range(n_texts):
        yield "mutant", bases[i % 2], TEXTS[i // 2 % 3], ("info", "report", "resume", "eval")[i // 6 % 4], i

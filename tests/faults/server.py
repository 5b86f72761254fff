"""Programs under shim.c: asked to run once, with a fault. A server belongs to one process."""
import collections
import ctypes
import ctypes.util
import glob
import mmap
import os
import shutil
import signal
import struct
import subprocess
import tempfile

EVER = 1 << 62
NO_FAULT = ("none", 0, 0, "count", 0)
ACTIONS = {"count": 0, "fail": 1, "short": 2, "signal": 3}
COUNTED = 64  # kinds that a report has room for
REPORT = struct.Struct(f"={COUNTED}QQ32s1024s4096s")

# status: as subprocess has it; late: it had to be killed; call, path, trace: of the first hit
Ran = collections.namedtuple("Ran", "status late counts hits call path trace out err")


def text(raw):
    return raw.split(b"\0", 1)[0].decode(errors="replace")


class Server:
    """leaks: look for them at the end, which can't be done where system calls are trapped: LeakSanitizer stops
    the process from another, which inherits the traps."""
    def __init__(self, shim, program, folder, leaks):
        self.folder = folder  # for what it prints
        self.program = program
        os.makedirs(folder, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            file.truncate(mmap.PAGESIZE * (REPORT.size // mmap.PAGESIZE + 1))
            self.report = mmap.mmap(file.fileno(), 0)
            report = file.name
        ask, self.ask = os.pipe()
        self.answer, answer = os.pipe()
        shim = shutil.copy(shim, folder)  # names in LD_PRELOAD end at a space
        env = {**os.environ, "LD_PRELOAD": os.path.abspath(shim), "FAULTS_REPORT": report,
               "FAULTS_ASK": f"{ask},{answer}"}
        options = env.get("ASAN_OPTIONS", "detect_leaks=1:allocator_may_return_null=1")
        options += "" if leaks else ":detect_leaks=0"
        env["ASAN_OPTIONS"] = options + ":verify_asan_link_order=0:exitcode=99"
        env["UBSAN_OPTIONS"] = env.get("UBSAN_OPTIONS", "print_stacktrace=1") + ":exitcode=99"
        env["LSAN_OPTIONS"] = "exitcode=99"
        self.process = subprocess.Popen([program], env=env, pass_fds=(ask, answer), cwd=folder,
                                        stdin=subprocess.DEVNULL)
        os.close(ask)
        os.close(answer)
        self.kinds_told()
        os.unlink(report)

    def kinds_told(self):
        line = b""
        while not line.endswith(b"\n"):
            got = os.read(self.answer, 4096)
            if not got:
                raise RuntimeError(f"{self.program}: does not start under the shim")
            line += got
        self.kinds = line.decode().split()
        return True

    def run(self, args, cwd, fault=NO_FAULT, stdin="/dev/null", env=(), frozen=True, after_us=0, signo=0,
            limit_s=40, fsize=0):
        """fault: (kind, first, last, action, value): see shim.c."""
        kind, first, last, action, value = fault
        out, err = os.path.join(self.folder, "out"), os.path.join(self.folder, "err")
        # system calls are trapped only where they are counted: of a kind that is no allocation's
        trapped = kind not in ("none", "alloc", "thread")
        words = [cwd, stdin, out, err, kind, first, last, ACTIONS[action], value, int(trapped), int(frozen), after_us,
                 int(signo), limit_s, fsize, len(env), *env, "vae", *args]
        request = b"".join(str(word).encode() + b"\0" for word in words)
        os.write(self.ask, struct.pack("=I", len(request)) + request)
        answer = os.read(self.answer, 8)
        if len(answer) != 8:
            raise RuntimeError(f"{self.program}: the server is gone, at {args} {fault}")
        status, late = struct.unpack("=ii", answer)
        told = REPORT.unpack_from(self.report)
        counts = dict(zip(self.kinds, told[:COUNTED]))
        with open(out, "rb") as file:
            said = file.read()
        with open(err, "rb") as file:
            errors = file.read().decode(errors="replace")
        return Ran(os.waitstatus_to_exitcode(status), late != 0, counts, told[COUNTED], text(told[COUNTED + 1]),
                   text(told[COUNTED + 2]), text(told[COUNTED + 3]), said, errors)

    def close(self):
        os.close(self.ask)
        self.process.wait()
        os.close(self.answer)

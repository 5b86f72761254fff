"""What a run with a fault left, judged by one function."""
import errno
import json
import os
import re
import struct

FOREIGN = {"mine.txt": b"mine\n", "run/notes.txt": b"mine\n", "run/samples/mine.png": b"mine\n",
           "run/checkpoints/mine.vae": b"mine\n", "run/x.tmp": b"mine\n"}
OLD = b"what was there before\n"
TEMP = re.compile(r"\.\d+-\d+\.tmp(\.old)?$")


def snapshot(folder, inside=""):
    """Every entry under a folder with its content: None of a folder."""
    found = {}
    for entry in os.scandir(os.path.join(folder, inside)):
        name = os.path.join(inside, entry.name)
        if entry.is_dir(follow_symlinks=False):
            found[name] = None
            found.update(snapshot(folder, name))
        else:
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = file.read()
    return found


def stamps(folder):
    """What changes when anything under a folder is written."""
    found = []
    for entry in os.scandir(folder):
        info = entry.stat(follow_symlinks=False)
        found.append((entry.name, info.st_ino, info.st_size, info.st_mtime_ns))
        if entry.is_dir(follow_symlinks=False):
            found += stamps(entry.path)
    return sorted(found, key=str)


def sections(data):
    """Sections of a checkpoint by the description in host/run/checkpoint.c, without its wall time."""
    assert data[:8] == b"\x89VAE\r\n\x1a\n"
    n, size = struct.unpack_from("<I", data, 16)[0], struct.unpack_from("<Q", data, 24)[0]
    assert size == len(data)
    found = {}
    for i in range(n):
        tag, _, offset, length = struct.unpack_from("<12sIQQ", data, 32 + 32 * i)
        found[tag.rstrip(b"\0").decode()] = data[offset:offset + length]
    found["state"] = found["state"][:80] + found["state"][88:]
    return found


def same_but_for_time(name, raw):
    """What of a file must be the same in two runs alike."""
    if raw is None:
        return None
    base = os.path.basename(name)
    try:
        if base.endswith(".vae") and raw[:1] == b"\x89":
            return sections(raw)
        if base == "metrics.jsonl":
            lines = [json.loads(line) for line in raw.decode().splitlines()]
            return [{k: v for k, v in line.items() if k not in ("wall_s", "examples_per_s")} for line in lines]
        if base == "run.json":
            return {k: v for k, v in json.loads(raw).items() if k not in ("peak_rss_bytes", "wall_s", "updated", "started")}
        if base == "report.html":  # the table of the run
            return re.sub(rb"[0-9][0-9.,e+-]*( (examples/s|s|min|MB|MiB|GiB))", rb"#\1", raw)
        if base == "log.txt":
            return re.sub(rb"[0-9][0-9.,]*( (examples/s|s))", rb"#\1", raw)
    except (AssertionError, ValueError, KeyError, struct.error, UnicodeDecodeError):
        pass
    return raw


def end_of(files):
    """What a finished run comes to, whatever happened on the way: its newest weights and its metrics."""
    steps = sorted(name for name in files if re.fullmatch(r"run/checkpoints/step-\d+\.vae", name))
    best = "run/checkpoints/best.vae"
    return {"newest": steps[-1:] and same_but_for_time(steps[-1], files[steps[-1]]), "name": steps[-1:],
            "best": same_but_for_time(best, files.get(best)),
            "metrics": same_but_for_time("metrics.jsonl", files.get("run/metrics.jsonl"))}


def differences(a, b):
    return ", ".join(key for key in sorted({*a, *b}, key=str) if a.get(key) != b.get(key))


def names_the_file(message, path):
    """Has the message the name of what a call was about, or of its folder?"""
    path = TEMP.sub("", path)
    if path.startswith("/proc/self/fd/"):
        return "standard input" in message
    if re.search(r"/(out|err)$", path) or path.startswith(("/dev/", "pipe:", "/memfd")):
        return True  # standard streams; they are named otherwise
    parts = [part for part in path.split("/") if part and not part.startswith("(")][-2:]
    return not parts or any(part in message for part in parts)


def asked_by(ran, library):
    """Was it that library which asked for the memory it did not get?"""
    asked = [frame for frame in ran.trace.split() if not frame.startswith(("shim.so", "libc.so", "libasan.so"))]
    return ran.call.endswith("alloc") and asked[:1] != [] and asked[0].startswith(library + ".so")


def blamed_module(report):
    """The library in whose function a sanitizer's report begins: the first frame but glibc's and its own."""
    for frame in re.findall(r"^ +#\d+ 0x[0-9a-f]+ (.*)$", report, re.M):
        if not re.search(r"libsanitizer|libasan|libc\.so|nptl/|sysdeps|malloc/", frame):
            return os.path.basename(re.sub(r".*\(([^()+]*)\+0x.*", r"\1", frame))
    return ""


def excuse(ran, died, last):
    """What is not this program's to mend, by name; None where it is.

    libcrypto (OpenSSL 3.0) dies of a signal, or loses memory, when its own start has none, and is of no use
    to the process from then on. libzip (1.7.3) says
    of an archive that it is none when it has no memory for an entry of its directory (_zip_dirent_new), loses
    memory as well, and takes a disk that fails within a member for its end."""
    for library in ("libcrypto", "libzip"):
        if asked_by(ran, library) and is_report(ran) and blamed_module(ran.err).startswith(library + ".so"):
            return library
    if asked_by(ran, "libcrypto") and (died in (6, 11) or "libcrypto cannot compute" in ran.err):
        return "libcrypto"
    if asked_by(ran, "libzip") and ran.status == 3 and "Not a zip archive" in last:
        return "libzip"
    if ran.call == "read" and ran.path.endswith(".npz") and ran.status == 3 and "Premature end of file" in last:
        return "libzip"
    return None


def is_report(ran):
    return ran.status == 99 or re.search(r"ERROR: (Address|Leak)Sanitizer|runtime error:", ran.err) is not None


def judge_words(j, ran, fault, last):
    """Of a failure: does the last line say what failed?"""
    ever = fault[2] > fault[1]
    # nothing can be said where standard error is what fails
    mute = ran.path.endswith("/err") or fault[0] == "write" and ever and ran.hits > 0
    if mute:
        return
    if not last.startswith("vae: "):
        j.wrong(f"exit {ran.status} without a message: '{last}'")
    elif ran.status in (3, 4) and not ever and not names_the_file(ran.err, ran.path):
        j.wrong(f"the message does not name {ran.path}: {last}")
    elif ran.status == 1 and fault[0] == "alloc" and "memory" not in ran.err:
        j.wrong(f"the message does not say that memory is missing: {last}")


class Judgement:
    """outcome: in a word or two, for the figures. faults: what is wrong, a line each."""

    def __init__(self):
        self.outcome, self.faults = "", []

    def wrong(self, what):
        self.faults.append(what)


def judge(scene, ran, fault, before, after, reference, codes, sent=(), said=None):
    """before, after: snapshots. reference: after an undisturbed run; said: what that printed. codes: exit
    codes that this fault may have. sent: signals that were, of which it may die."""
    j = Judgement()
    last = (ran.err.strip().splitlines() or [""])[-1]
    died = -ran.status if ran.status < 0 else 0
    # read() and write() may be interrupted and say so; this program calls again, stdio's do not
    interrupted = fault[3] == "fail" and fault[4] == errno.EINTR
    j.outcome = f"signal {died}" if died else f"exit {ran.status}"
    excused = excuse(ran, died, last)
    if excused is not None:
        j.outcome = excused
    elif ran.late:
        j.wrong("it hung")
    elif is_report(ran):
        j.wrong("a sanitizer's report: " + "\n".join(ran.err.splitlines()[:40]))
    elif died and died not in sent:
        j.wrong(f"died of signal {died}")
    elif not died and ran.status not in codes and not (interrupted and ran.status == 4):
        j.wrong(f"exit {ran.status}, not one of {sorted(codes)}: {last}")
    elif ran.status > 0:
        judge_words(j, ran, fault, last)
    for name, raw in before.items():
        if name in FOREIGN and after.get(name) != raw:
            j.wrong(f"a foreign file was touched: {name}")
    whole = ran.status == 0 and excused is None
    library = scene.program == "library"
    lasting = fault[2] > fault[1] and library  # its calls fail, and it goes on
    if whole and said is not None and fault[0] != "machine" and not scene.timed and not lasting and not (
            library and ran.path.endswith("/out")) and said != ran.out:
        j.wrong("exit 0, but it printed something else")
    for name in sorted({*before, *after, *reference}):
        fresh = name not in before
        is_temp = TEMP.search(name) is not None
        if is_temp and name in after and fresh:
            # who was killed, or could not remove it, could not do better
            if not died and ran.call != "unlink":
                j.wrong(f"left a temporary file: {name}")
            continue
        if (scene.trains or scene.imports and not whole or library) and name.startswith("run"):
            continue  # whether a run is whole, its resuming shows
        if whole and fault[0] == "machine":
            continue  # it says something else of the machine, or of where it began
        if lasting:
            continue  # what is saved depends on what could be loaded before
        now, was, then = (same_but_for_time(name, files.get(name)) if name in files else "absent"
                          for files in (after, before, reference))
        if whole and now != then:
            j.wrong(f"exit 0, but {name} is {'missing' if now == 'absent' else 'not what it should be'}")
        if not whole and now != was and now != then:
            j.wrong(f"{j.outcome}, and {name} is " + ("gone" if now == "absent" else "neither the old one nor the new"))
    return j


def judge_again(j, scene, ran, before, after, reference):
    """The run that a fault left unfinished was taken up: before, after, reference as above."""
    if ran.status != 0 or ran.late:
        j.wrong(f"resuming: exit {ran.status}: {(ran.err.strip().splitlines() or ['no message'])[-1]}")
        return
    for name, raw in before.items():
        if name in FOREIGN and after.get(name) != raw:
            j.wrong(f"resuming: a foreign file was touched: {name}")
    a, b = end_of(after), end_of(reference)
    for key in a:
        if a[key] != b[key]:
            where = differences(a[key], b[key]) if isinstance(a[key], dict) and isinstance(b[key], dict) else ""
            j.wrong(f"resumed, it ends with other {key}: {where}")
    try:
        if scene.trains and json.loads(after["run/run.json"])["status"] != "done":
            j.wrong("resumed, run.json does not say done")
    except (KeyError, ValueError):
        j.wrong("resumed, run.json is not there or not whole")
    last = max([name for name in reference if name.startswith("run/samples/epoch-")], default="-000.png")[-8:]
    for name in reference:
        # of pictures the last ones; a step that was in another place is another file
        early = name.startswith("run/samples/") and not name.endswith(last)
        if name.startswith("run/") and "checkpoints/step" not in name and not early and name not in after:
            j.wrong(f"resumed, {name} is missing")
    for name in after:
        if TEMP.search(name):
            j.wrong(f"resumed, a temporary file is left: {name}")


def judge_mutant(j, ran, changed, out, before, after):
    """A file was wrong from the start: it is refused by name, or taken, and nothing else happens."""
    last = (ran.err.strip().splitlines() or [""])[-1]
    j.outcome = f"signal {-ran.status}" if ran.status < 0 else f"exit {ran.status}"
    if ran.late:
        j.wrong("it hung")
    elif is_report(ran):
        j.wrong("a sanitizer's report: " + "\n".join(ran.err.splitlines()[:40]))
    elif ran.status < 0 or ran.status > 5:
        j.wrong(f"{j.outcome}: {last}")
    elif ran.status > 0 and not last.startswith("vae: "):
        j.wrong(f"exit {ran.status} without a message: '{last}'")
    elif ran.status == 1 and "memory" not in ran.err:
        j.wrong(f"exit 1, but it is not about memory: {last}")
    for name in sorted(after):
        if TEMP.search(name):
            j.wrong(f"left a temporary file: {name}")
        elif ran.status != 0 and out is not None and name.startswith(out):
            j.wrong(f"{j.outcome}, and {name} was written")
    if ran.status in (1, 2, 3) and after.get(changed) != before[changed]:
        j.wrong(f"{j.outcome}, and {changed} is not as it was")

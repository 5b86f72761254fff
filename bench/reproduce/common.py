"""What the scripts of this folder share: the program's runs, and files of result rows."""
import datetime
import json
import os
import signal
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def fail(message):
    sys.exit(f"reproduce: {message}")


def read(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def run(command, capture):
    """The program's standard output, if wanted. Ends this one as the program ended."""
    with subprocess.Popen(command, stdout=subprocess.PIPE if capture else None, text=True) as child:
        # both are the program's to handle, which saves its state; Ctrl-C reaches it by itself
        signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        text = child.communicate()[0]
    if child.returncode < 0:
        print("reproduce: interrupted; the same command goes on from here", file=sys.stderr)
    if child.returncode != 0:
        sys.exit(128 - child.returncode if child.returncode < 0 else child.returncode)
    return text


def commit():
    done = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty"], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() or "unknown"


def cpu():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "unknown CPU"


def rows(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def append(path, row):
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

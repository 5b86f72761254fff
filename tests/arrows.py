#!/usr/bin/env python3
"""The house's rule, checked on real includes: a room uses only the rooms that it may (host/README.md).

ROOMS lists the rooms from the ground up with what each may include; what those include in turn counts
too. A file belongs to the room of its folder. Prints each arrow that is not allowed with the chain of
includes that makes it, and each circle of files; exit status 1 if there is any.
With --count: files and lines a room."""
import collections
import os
import re
import sys

# room: rooms it may use beside those that these may use
ROOMS = {
    "base": [],
    "config": ["base"],
    "format": ["base"],
    "image": ["base"],
    "plot": ["base"],
    "dataset": ["base", "config", "format", "image"],
    "ranks": ["base"],
    "backend": ["base", "config", "dataset", "ranks"],
    "model": ["base", "config", "backend"],
    "run": ["base", "config", "model"],
    # k nearest neighbours and logistic regression are products of matrices: backend/cpu/matmul.h
    "stats": ["base", "backend"],
    "infer": ["model", "run", "dataset", "stats", "image"],
    "eval": ["infer", "stats"],
    "exchange": ["format", "model", "run"],
    "report": ["infer", "eval", "stats", "plot", "image"],
    "train": ["report", "exchange"],
    "cli": ["train"],
    "lib": ["train"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s+["<]([^">]+)[">]', re.M)  # <...> finds a room's header, too
# Includes that the C++ of kernels and tests also use.
SHARED = "include"


def allowed():
    """Each room's set of rooms: itself, what it may use, and what those may use."""
    may = {}
    for room, uses in ROOMS.items():
        may[room] = {room}.union(*[may[u] for u in uses])
    return may


def room_of(path):
    return path.split(os.sep)[1] if path.startswith("host" + os.sep) else None


def sources():
    for top in ("host", SHARED, "kernels"):
        for folder, _, names in os.walk(top):
            for name in sorted(names):
                if name.endswith((".c", ".h", ".cu")):
                    yield os.path.join(folder, name)


def includes(path):
    with open(path, encoding="utf-8") as file:
        for name in INCLUDE.findall(file.read()):
            for folder in ("host", SHARED, os.path.dirname(path)):
                found = os.path.join(folder, name)
                if os.path.exists(found):
                    yield found
                    break


def reach(start, graph):
    """Every file that `start` includes, however far away: file -> the file that includes it."""
    come_from, todo = {start: None}, [start]
    while todo:
        path = todo.pop()
        for other in graph[path]:
            if other not in come_from:
                come_from[other] = path
                todo.append(other)
    return come_from


def chain(path, come_from):
    names = []
    while path is not None:
        names.append(path)
        path = come_from[path]
    return " <- ".join(names)


def circles(graph):
    """Groups of nodes that reach each other (Tarjan's strongly connected components, by hand-kept stack)."""
    reached = {v: set(reach(v, graph)) - {v} for v in graph}
    groups, seen = [], set()
    for v in sorted(graph):
        if v not in seen:
            group = {v} | {w for w in reached[v] if v in reached[w]}
            seen |= group
            if len(group) > 1:
                groups.append(sorted(group))
    return groups


def calls(folder):
    """Which source file uses a function or table that which other one defines, from the objects of `folder`."""
    import subprocess
    defines, wants = {}, collections.defaultdict(set)
    for here, _, names in os.walk(os.path.join(folder, "host")):
        for name in names:
            if not name.endswith(".o"):
                continue
            path = os.path.join(here, name)
            source = os.path.relpath(path, folder)[:-2] + ".c"
            source = re.sub(r"/kernels_[a-z0-9]+\.c$", "/kernels.c", source)  # one object a level
            if not os.path.exists(source):
                continue  # left over from another commit
            out = subprocess.run(["nm", "-g", path], capture_output=True, text=True, check=True).stdout
            for line in out.splitlines():
                *_, kind, symbol = line.split()
                if kind == "U":
                    wants[source].add(symbol)
                elif kind in "TDRBVW":
                    defines[symbol] = source
    files = set(wants) | set(defines.values())
    if not files:
        print(f"SKIPPED: no objects in {folder}: calls are not looked at", file=sys.stderr)
    return {f: {defines[s] for s in wants[f] if s in defines} - {f} for f in files}


def main():
    paths = list(sources())
    if "--count" in sys.argv[1:]:
        rooms = collections.defaultdict(lambda: [0, 0])
        for path in paths:
            room = rooms[room_of(path) or path.split(os.sep)[0]]
            room[0] += 1
            with open(path, encoding="utf-8") as file:
                room[1] += sum(1 for _ in file)
        for name, (files, lines) in rooms.items():
            print(f"{name:10} {files:4} files {lines:6} lines")
        return 0
    may, bad = allowed(), 0
    graph = {path: list(includes(path)) for path in paths}
    for path in paths:
        room = room_of(path)
        come_from = reach(path, graph)
        for other in come_from:
            there = room_of(other)
            if room is not None and there is not None and there not in may[room]:
                bad += 1
                print(f"{room} may not use {there}: {chain(other, come_from)}")
            if room is None and there is not None and (there != "base" or path.startswith("kernels")):
                bad += 1
                print(f"{path.split(os.sep)[0]} sees a room: {chain(other, come_from)}")
    for group in circles(graph):
        bad += 1
        print("includes in a circle: " + ", ".join(group))
    for folder in sys.argv[1:]:
        graph = calls(folder)
        for path in sorted(graph):
            for other in sorted(graph[path]):
                if room_of(other) not in may[room_of(path)]:
                    bad += 1
                    print(f"{path} calls up: {other}")
        for group in circles(graph):
            bad += 1
            print("call each other in a circle: " + ", ".join(group))
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())

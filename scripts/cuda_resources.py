#!/usr/bin/env python3
"""A table of what ptxas says of each kernel; fails for hot kernels that spill or use a stack.

    cuda_resources.py [--all] HOT_LIST LOG...        (logs of nvcc -Xptxas -v)

HOT_LIST: per line a source file and a regular expression, matched from the beginning of the names
of that file's kernels; # begins a comment. With --all, each whose file is here must match something.
"""
import os
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")


def parse(path):
    """Rows of one log, and whether nvcc failed."""
    rows, failed = [], False
    with open(path) as f:
        for line in f:
            failed = failed or line.startswith("nvcc failed")
            if m := ENTRY.search(line):
                rows.append({"symbol": m[1], "arch": m[2], "stack": 0, "spill": 0, "registers": 0,
                             "shared": 0, "file": os.path.basename(path).split(".sm_")[0]})
            elif not rows:
                continue
            elif m := STACK.search(line):
                rows[-1]["stack"] = int(m[1])
                rows[-1]["spill"] = int(m[2]) + int(m[3])
            elif m := USED.search(line):
                rows[-1]["registers"] = int(m[1])
                if m := SHARED.search(line):
                    rows[-1]["shared"] = int(m[1])
    return rows, failed


def demangle(rows):
    try:
        names = subprocess.run(["c++filt"], input="\n".join(r["symbol"] for r in rows), text=True,
                               capture_output=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = [r["symbol"] for r in rows]
    for row, name in zip(rows, names):
        name = re.sub(r"^void ", "", name).replace("(anonymous namespace)::", "")
        row["name"] = re.sub(r"\(.*", "", name) if not name.startswith("(") else name


def hot_list(path):
    """[(stem of the file, expression)]"""
    with open(path) as f:
        lines = [line.split("#")[0].split(maxsplit=1) for line in f]
    return [(line[0].removesuffix(".cu"), line[1].strip()) for line in lines if line]


def is_hot(row, file, pattern):
    return row["file"] == file and re.match(pattern, row["name"])


def main():
    args = [arg for arg in sys.argv[1:] if arg != "--all"]
    problems, rows = [], []
    for path in args[1:]:
        found, failed = parse(path)
        rows += found
        if failed:
            with open(path) as f:
                problems.append(f"{os.path.basename(path)}: does not compile\n" + f.read()[-1500:])
    demangle(rows)
    hot = hot_list(args[0])
    print(f"{'kernel':64} {'arch':8} {'regs':>5} {'shared':>7} {'stack':>6} {'spills':>6}")
    for row in sorted(rows, key=lambda r: (r["name"], r["arch"])):
        marked = any(is_hot(row, *entry) for entry in hot)
        print(f"{row['name'][:64]:64} {row['arch']:8} {row['registers']:5} {row['shared']:7} "
              f"{row['stack']:6} {row['spill']:6}{'  hot' if marked else ''}")
        if marked and (row["stack"] or row["spill"]):
            problems.append(f"{row['name']} for {row['arch']}: {row['stack']} bytes of stack, "
                            f"{row['spill']} of spills; hot kernels have none")
    if "--all" in sys.argv:
        files = {row["file"] for row in rows}
        problems += [f"{args[0]}: {pattern} matches no kernel of {file}.cu" for file, pattern in hot
                     if file in files and not any(is_hot(row, file, pattern) for row in rows)]
    for problem in problems:
        print("FAILED:", problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

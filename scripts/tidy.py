#!/usr/bin/env python3
"""Rules of this project's source files that no compiler checks. Standard library only.

    scripts/tidy.py                       check the whole tree
    scripts/tidy.py --clang BUILD/compile_commands.json
                                          compile the C files of a build with clang as well

Prints "file:line: what is wrong"; exits with 1 when anything is, with 0 otherwise.
"""
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Each layer, and the layers whose headers it may include.
LAYERS = {
    "base": {"base"},
    "data": {"base", "data"},
    "kernels": {"base", "kernels"},
    "model": {"base", "kernels", "model"},
    "train": {"base", "data", "kernels", "model", "train"},
    "eval": {"base", "data", "kernels", "model", "eval"},
}
SOURCE = (".c", ".h", ".cc", ".cu", ".cuh", ".inc")
SCRIPT = (".sh", ".py", ".cmake", ".yaml", "CMakeLists.txt")
LINE_COLUMNS_MAX = 100
FILE_LINES_MAX = 700
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")  # split, or this line breaks the rule
# What a document points at: a link, or the path of a file of ours in words (NAME.sh is none).
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)[^)]*\)")
PATH = re.compile(r"(?<![\w./<$-])((?:base|data|kernels|model|train|eval|tests|docs|configs|scripts"
                  r"|cmake)/[a-z0-9_./-]+\.(?:c|h|cc|cu|md|sh|py|yaml|cmake))\b")
INCLUDE = re.compile(r'\s*#\s*include\s+(["<])([^">]+)[">]')


def find_files():
    """Paths, relative to the root, of what the rules are for."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(d for d in folders if not d.startswith((".", "build", "runs"))
                            and d not in ("corpus", "golden", "__pycache__"))
        for name in sorted(names):
            if name.endswith(SOURCE + SCRIPT + (".md",)):
                yield os.path.relpath(os.path.join(folder, name), ROOT)


def check_lines(path, text):
    if text and not text.endswith("\n"):
        yield path, text.count("\n") + 1, "the last line has no end"
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > LINE_COLUMNS_MAX:
            yield path, number, f"{len(line)} columns, at most {LINE_COLUMNS_MAX}"
        if "\t" in line:
            yield path, number, "a tab"
        if line != line.rstrip():
            yield path, number, "spaces at the end"
        if UNFINISHED.search(line):
            yield path, number, "a mark of unfinished work"


def check_links(path, text):
    """What a document names is there, from the root or from the document's folder."""
    folder = os.path.dirname(path)
    for number, line in enumerate(text.split("\n"), 1):
        for target in sorted({*LINK.findall(line), *PATH.findall(line)}):
            if not any(os.path.exists(os.path.join(ROOT, place, target)) for place in ("", folder)):
                yield path, number, f"{target} is not there"


def check_guard(path, text):
    """base/cfg.h is guarded by BASE_CFG_H."""
    wanted = re.sub(r"[^A-Z0-9]", "_", path.upper())
    found = re.search(r"^#ifndef (\w+)\n#define (\w+)\n", text, re.M)
    if not found or found.groups() != (wanted, wanted):
        yield path, 1, f"the header guard must be {wanted}"


def check_includes(path, text):
    layer = path.split("/")[0]
    own_header = os.path.splitext(path)[0] + ".h"
    has_own = path.endswith((".c", ".cc", ".cu")) and os.path.exists(os.path.join(ROOT, own_header))
    is_first = True
    for number, line in enumerate(text.split("\n"), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        quote, target = found.groups()
        target_layer = target.split("/")[0]
        if layer in LAYERS and target_layer in LAYERS and target_layer not in LAYERS[layer]:
            yield path, number, f"{layer}/ may not include {target_layer}/"
        is_own = target in (own_header, own_header.split("/", 1)[-1])
        if is_first and has_own and not is_own and not target.endswith("_impl.h"):
            yield path, number, f'"{own_header}", or an _impl.h of the module, must be first'
        is_first = False


def library_includes():
    """Compiler flags for the one library whose header is not where compilers look."""
    for package in ("hdf5", "hdf5-serial"):
        if not shutil.which("pkg-config"):
            break
        done = subprocess.run(["pkg-config", "--cflags-only-I", package], capture_output=True,
                              text=True)
        if done.returncode == 0:
            return done.stdout.split()
    return []


def check_alone(path, text):
    """A header must need nothing before it; as C, and as C++ where it says it is fit for that."""
    languages = [("c", "gnu11", "cc")]
    if "__cplusplus" in text:
        languages.append(("c++", "gnu++17", "c++"))
    for language, standard, compiler in languages:
        if not shutil.which(compiler):
            continue
        command = [compiler, "-fsyntax-only", "-x", language, f"-std={standard}", "-Wall",
                   "-Wextra", "-march=native", "-fopenmp-simd", "-D_GNU_SOURCE", "-I", ROOT,
                   "-I", os.path.join(ROOT, "tests"), *LIBRARY_INCLUDES, "-include", path,
                   os.devnull]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0 or done.stderr:
            found = re.search(r"(error|warning): (.*)", done.stderr)
            why = found.group(2) if found else done.stderr.strip()
            yield path, 1, f"does not compile alone as {language}: {why}"


LIBRARY_INCLUDES = library_includes()


def check_script(path):
    if path.endswith(".sh") and shutil.which("bash"):
        done = subprocess.run(["bash", "-n", path], cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            yield path, 1, done.stderr.strip()


# Folders whose headers are C++ alone.
CPLUSPLUS = ("kernels/cuda/", "kernels/emu/", "tests/ptx/", "tests/softgpu/")


def check_file(path):
    with open(os.path.join(ROOT, path), encoding="utf-8", newline="") as file:
        text = file.read()
    if path.endswith(".md"):
        return list(check_links(path, text))
    problems = list(check_lines(path, text))
    if path.endswith(SOURCE):
        problems += check_includes(path, text)
        if text.count("\n") > FILE_LINES_MAX:
            print(f"{path}: {text.count(chr(10))} lines; is it two modules?", file=sys.stderr)
    if path.endswith((".h", ".cuh")):
        problems += check_guard(path, text)
    if path.endswith(".h") and not path.startswith(CPLUSPLUS):
        problems += check_alone(path, text)
    return problems + list(check_script(path))


def check_with_clang(entry):
    """The same command by clang, without code generation."""
    words = shlex.split(entry["command"])
    words = words[1:words.index("-o")] + words[words.index("-o") + 2:]
    done = subprocess.run(["clang", "-fsyntax-only", "-Wno-unknown-warning-option"] + words,
                          cwd=entry["directory"], capture_output=True, text=True)
    path = os.path.relpath(entry["file"], ROOT)
    return [(path, 0, done.stderr.strip())] if done.returncode != 0 else []


def main():
    if sys.argv[1:2] == ["--clang"]:
        with open(sys.argv[2], encoding="utf-8") as file:
            work = [entry for entry in json.load(file) if entry["file"].endswith(".c")]
        check = check_with_clang
    else:
        work, check = list(find_files()), check_file
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = [problem for found in pool.map(check, work) for problem in found]
    for path, number, what in problems:
        print(f"{path}:{number}: {what}")
    print(f"{len(work)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

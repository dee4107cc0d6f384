#!/usr/bin/env python3
"""Our shards beside Arrow files of Hugging Face `datasets`, from the same dialogues.

    python3 tests/peer/shards_datasets.py --soulchat build/bin/soulchat --work /tmp/peer
        --tokenizer models/chatglm-6b --corpus smilechat.jsonl [--threads 2]

Needs `datasets` and `sentencepiece`. SMILECHAT's form, uncompressed. Three ways to hold it:

  shards    `soulchat prepare` without a search for duplicates, all dialogues for training
  runs      Arrow, a row for each dialogue: the same token runs of its turns, as lists of int32
  samples   Arrow, a row for each reply: input_ids and labels of the whole prompt, which is what
            training scripts commonly store

Arrow is made as its users make it: load_dataset("json") and map() with a batched function in
--threads processes. The tokenizer there is the SentencePiece library with ChatGLM-6B's rewriting of
white space. For each: bytes on disk; seconds of the clock and of the processors to prepare; seconds
of a fresh process until the first micro-batch of 16,384 rows in shuffled order; microseconds for a
sample in random order (shards: `soulchat bench prepare`). Prints a table and one line of JSON.
"""
import argparse
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time

MAX_INPUT, MAX_TARGET, ROWS = 1536, 512, 16384
NAMES = {"client": "用户", "counselor": "心理咨询师"}
GMASK, SOP, EOP, SPACE = 130001, 130004, 130005, 5
_processor = None


def encode(path, text):
    global _processor
    if _processor is None:
        import sentencepiece
        _processor = sentencepiece.SentencePieceProcessor(os.path.join(path, "ice_text.model"))
    text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
    text = re.sub(" {2,80}", lambda run: f"<|blank_{len(run.group())}|>", text)
    return _processor.encode(text)


def turns_of(dialogue):
    """Turns as our rules of form leave them: neighbours joined, single newlines, stripped."""
    turns = []
    for turn in dialogue:
        text = re.sub("\n+", "\n", turn["content"].replace("\r\n", "\n")).strip()
        if not text:
            continue
        if turns and turns[-1][0] == turn["role"]:
            turns[-1][1] += "\n" + text
        else:
            turns.append([turn["role"], text])
    return turns


def runs_of(path, dialogue):
    """For each turn its tokens as a later line, and those of a reply alone."""
    out = {"role": [], "ctx": [], "target": []}
    for index, (role, text) in enumerate(turns_of(dialogue)):
        out["role"].append(role == "counselor")
        out["ctx"].append(encode(path, f"\n{NAMES[role]}：{text}")[1:])
        trained = role == "counselor" and index > 0
        out["target"].append(encode(path, text) if trained else [])
    return out


def map_runs(batch, path):
    rows = [runs_of(path, dialogue) for dialogue in batch["dialogue"]]
    return {key: [row[key] for row in rows] for key in ("role", "ctx", "target")}


def map_samples(batch, path):
    out = {"input_ids": [], "labels": []}
    cue = encode(path, "\n心理咨询师：")[1:]
    for dialogue in batch["dialogue"]:
        runs = runs_of(path, dialogue)
        for index, target in enumerate(runs["target"]):
            first = index
            room = MAX_INPUT - 1 - len(cue)
            while first > 0 and len(runs["ctx"][first - 1]) <= room:
                first -= 1
                room -= len(runs["ctx"][first])
            if not target or first == index or len(target) + 2 > MAX_TARGET:
                continue
            prompt = sum(runs["ctx"][first:index], []) + cue
            prompt[0] = SPACE
            out["input_ids"].append(prompt + [GMASK, SOP] + target + [EOP])
            out["labels"].append([-100] * (len(prompt) + 1) + [SOP] + target + [EOP])
    return out


def map_dataset(args, kind):
    import datasets
    datasets.disable_progress_bars()
    features = datasets.Features(
        {"role": datasets.List(datasets.Value("bool")),
         "ctx": datasets.List(datasets.List(datasets.Value("int32"))),
         "target": datasets.List(datasets.List(datasets.Value("int32")))} if kind == "runs" else
        {"input_ids": datasets.List(datasets.Value("int32")),
         "labels": datasets.List(datasets.Value("int32"))})
    cache = os.path.join(args.work, "cache-" + kind)
    data = datasets.load_dataset("json", data_files=args.corpus, split="train", cache_dir=cache)
    if args.dialogues:
        data = data.select(range(min(args.dialogues, len(data))))
    data = data.map(map_runs if kind == "runs" else map_samples, batched=True, batch_size=200,
                    num_proc=args.threads, remove_columns=data.column_names, features=features,
                    fn_kwargs={"path": args.tokenizer})
    data.save_to_disk(os.path.join(args.work, kind))
    shutil.rmtree(cache)


def sample_reader(data, kind):
    """The rows of random samples, laid out."""
    order = list(range(len(data)))
    random.Random(42).shuffle(order)
    for index in order:
        row = data[index]
        if kind == "samples":
            yield row["input_ids"], row["labels"]
            continue
        for turn, target in enumerate(row["target"]):
            if target:
                prompt = sum(row["ctx"][:turn], [])[-MAX_INPUT:]
                yield prompt + [GMASK, SOP] + target + [EOP], target


def first_batch(args, kind):
    import datasets
    data = datasets.load_from_disk(os.path.join(args.work, kind))
    rows = 0
    for ids, _ in sample_reader(data, kind):
        rows += len(ids)
        if rows >= ROWS:
            break


def random_access(args, kind):
    import datasets
    data = datasets.load_from_disk(os.path.join(args.work, kind))
    begin, count = time.process_time(), 0
    for count, _ in enumerate(sample_reader(data, kind), 1):
        if count == 20000:
            break
    print(1e6 * (time.process_time() - begin) / count)


def measure(command):
    """Seconds of the clock and of the processors of a process and all that it started; its text."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.time() - begin, cpu, done.stdout


def folder_bytes(path):
    return sum(os.path.getsize(os.path.join(root, name)) for root, _, names in os.walk(path)
               for name in names if name.endswith((".arrow", ".h5", ".json")))


def settings(args, out):
    return [f"--data.source={args.corpus}", f"--data.tokenizer={args.tokenizer}",
            f"--data.dir={out}", "--data.duplicates=keep", "--data.validation_permyriad=0",
            "--data.test_permyriad=0", f"--data.threads={args.threads}",
            f"--data.max_dialogues={args.dialogues}"]


def run_shards(args):
    out = os.path.join(args.work, "shards")
    wall, cpu, _ = measure([args.soulchat, "prepare", *settings(args, out)])
    first = measure([args.soulchat, "inspect", out, "--step=0", "--micro=0", "--json",
                     "--batch.unit=tokens", "--batch.size=65536"])
    bench = json.loads(measure([args.soulchat, "bench", "prepare", "--json",
                                *settings(args, out)])[2])
    each = 1e6 * bench["parts"]["random"]["cpu_s"] / bench["random_samples"]
    return [folder_bytes(out), wall, cpu, first[0], first[1], each]


def run_arrow(args, kind):
    again = [sys.executable, *sys.argv, "--part"]
    wall, cpu, _ = measure([*again, "map-" + kind])
    first = measure([*again, "first-" + kind])
    each = float(measure([*again, "random-" + kind])[2])
    return [folder_bytes(os.path.join(args.work, kind)), wall, cpu, first[0], first[1], each]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--soulchat", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--work", required=True, help="a new folder; it is removed at the end")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dialogues", type=int, default=0, help="0 = all")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        action, kind = args.part.split("-")
        {"map": map_dataset, "first": first_batch, "random": random_access}[action](args, kind)
        return
    os.makedirs(args.work)
    try:
        rows = {"shards": run_shards(args)}
        for kind in ("runs", "samples"):
            rows[kind] = run_arrow(args, kind)
    finally:
        shutil.rmtree(args.work)
    print(f"{'':8} {'MB':>8} {'prepare, s (cpu)':>18} {'first batch, s (cpu)':>21}"
          f" {'random, us':>11}")
    for name, (size, wall, cpu, first, first_cpu, each) in rows.items():
        print(f"{name:8} {size / 1e6:8.1f} {wall:9.1f} ({cpu:6.1f})"
              f" {first:11.2f} ({first_cpu:7.2f}) {each:11.1f}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

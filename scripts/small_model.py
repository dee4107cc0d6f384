#!/usr/bin/env python3
"""A small ChatGLM for a corpus of one's own: a tokenizer trained on it, and a config.json.

    python3 scripts/small_model.py CORPUS OUT_DIR [--pieces 8000] [--hidden 256] [--layers 8]

CORPUS is in the form of SMILE (one JSON object a line) or of SoulChatCorpus (one JSON array).
Needs spm_train (Debian: sentencepiece). Then: soulchat prepare --data.tokenizer=OUT_DIR ...,
soulchat train --model.dir=OUT_DIR --model.init=random ...
"""
import argparse
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "data" / "sample"))
import make_tokenizer  # noqa: E402

ROLES = {"user": "用户", "client": "用户", "assistant": "心理咨询师", "counselor": "心理咨询师"}


def dialogues(path):
    text = path.read_text(encoding="utf-8")
    is_array = text.lstrip().startswith("[")
    for record in json.loads(text) if is_array else map(json.loads, text.splitlines()):
        messages = record.get("messages") or record.get("dialogue")
        yield [(ROLES[m["role"]], m["content"]) for m in messages]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    sizes = dict(pieces=8000, hidden=256, layers=8, heads=8, positions=2048, lines=200000)
    for name, value in sizes.items():
        parser.add_argument("--" + name, type=int, default=value)
    args = parser.parse_args()

    lines = [line.replace("\n", "<n>") for dialogue in dialogues(args.corpus)
             for line in make_tokenizer.lines_of(dialogue)]
    random.Random(1).shuffle(lines)
    args.out.mkdir(parents=True, exist_ok=True)
    names = make_tokenizer.make_chatglm(args.out / "ice_text.model", lines[:args.lines],
                                        args.pieces, character_coverage=0.9995, num_threads=2)
    make_tokenizer.write_configs(args.out, names, args.hidden, args.layers, args.heads,
                                 args.positions)
    print(f"{args.out}: {len(names)} pieces, hidden {args.hidden}, {args.layers} layers")


if __name__ == "__main__":
    main()

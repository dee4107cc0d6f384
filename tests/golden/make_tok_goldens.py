#!/usr/bin/env python3
"""Write tok_chatglm.jsonl and tok_chatglm2.jsonl: what the tiny tokenizers make of hostile texts.

    python3 tests/golden/make_tok_goldens.py    # needs Debian's python3-sentencepiece

One JSON object a line: text, ids (plain), special_ids (registered names become ids), decoded (of
ids). The rules are written here once more, in the way of the families' Python classes, on top of
the same SentencePiece library, so that the C code is compared with something that is not itself.
"""
import json
import pathlib
import random
import re

import sentencepiece

HERE = pathlib.Path(__file__).resolve().parent
SAMPLE = HERE.parent.parent / "data" / "sample"
REGISTERED = ["<sop>", "<eop>", "<unk>", "<pad>", "[MASK]"]
NAMES = REGISTERED + ["[gMASK]", "[sMASK]", "<s>", "</s>", "<n>", "<|tab|>", "<|blank_5|>",
                      "<|blank_80|>", "<|blank_81|>", "<|blank_1|>", "<|blank_", "<0x41>",
                      "<ENC>", "sop", "eop", "n>"]
FIXED = [
    "", " ", "  ", "a", " a", "a ", "\n", "\n\n", " \n ", "a \n b", "\t", "\t\t", "\r\n", "\0",
    "a\0b", "\x01", "你好", "你好👋！", "第一行\n第二行", "用户：你好，老师\n心理咨询师：",
    "x" + " " * 79 + "y", "x" + " " * 80 + "y", "x" + " " * 81 + "y", "x" + " " * 82 + "y",
    "x" + " " * 161 + "y", " " * 200, "①②½㊙️ﬁＡ", "　全角　空格　", "e\u0301", "é", "\u200b\ufeff",
    "\ufffd", "a\ufffdb", "▁", "▁▁a", "𠮷野家", "👨‍👩‍👧‍👦", "𝔘𝔫𝔦", "2023年11月20日", "3.14", "＜n＞",
    "＜|tab|＞", "< n>", "<<n>>", "<n", "\u2028\u2029", "\x85\xa0", "龘靐齉", "한국어", "العربية",
    "\U0010ffff", "<sop><eop>", " <sop> ", "a <sop> b", "a\n<eop>\tb", "　[MASK]　x",
    "\xa0<pad>\x1c", "<unk><unk>", "<<sop>>", "x [gMASK] <sop> y", "</s><s>", "哈" * 300,
    "，。？！：；“”（）", "ａｂｃ１２３", "a" * 200,
]


class Chatglm:
    def __init__(self, path):
        self.sp = sentencepiece.SentencePieceProcessor()
        self.sp.Load(str(path))
        self.registered = {name: self.sp.PieceToId(name) for name in REGISTERED}

    def encode(self, text):
        text = text.replace("\n", "<n>").replace("\t", "<|tab|>")
        for i in range(80, 1, -1):
            text = text.replace(" " * i, f"<|blank_{i}|>")
        return [self.sp.PieceToId(piece) for piece in self.sp.EncodeAsPieces(text)]

    def encode_special(self, text):
        parts = [p for p in re.split("(" + "|".join(map(re.escape, REGISTERED)) + ")", text) if p]
        for i, part in enumerate(parts):
            if part in self.registered:
                if i > 0:
                    parts[i - 1] = parts[i - 1].rstrip()
                if i + 1 < len(parts):
                    parts[i + 1] = parts[i + 1].lstrip()
        ids = []
        for part in parts:
            if part in self.registered:
                ids.append(self.registered[part])
            elif part:
                ids += self.encode(part)
        return ids

    def decode(self, ids):
        kept = [i for i in ids if i not in self.registered.values()]
        text = self.sp.DecodePieces([self.sp.IdToPiece(i) for i in kept])
        text = text.replace("<n>", "\n").replace("<|tab|>", "\t")
        for i in range(2, 81):
            text = text.replace(f"<|blank_{i}|>", " " * i)
        return text


class Chatglm2:
    def __init__(self, path):
        self.sp = sentencepiece.SentencePieceProcessor()
        self.sp.Load(str(path))

    def encode(self, text):
        return [self.sp.PieceToId(piece) for piece in self.sp.EncodeAsPieces(text)]

    encode_special = encode

    def decode(self, ids):
        return self.sp.DecodePieces(["" if i < 3 else self.sp.IdToPiece(i) for i in ids])


def texts():
    rng = random.Random(5)
    corpus = json.loads((SAMPLE / "corpus.json").read_text(encoding="utf-8"))
    said = [m["content"] for dialogue in corpus for m in dialogue["messages"]]
    ranges = [(0, 0x1F), (0x20, 0x7E), (0x4E00, 0x9FFF), (0x1F300, 0x1FAFF), (0x300, 0x36F),
              (0xFF00, 0xFFEF), (0x2000, 0x206F), (0x2460, 0x33FF), (0xE000, 0x10FFFF),
              (0x80, 0x24F)]

    def bit():
        kind = rng.random()
        if kind < 0.3:
            text = rng.choice(said)
            begin = rng.randrange(len(text))
            return text[begin:begin + rng.randint(1, 12)]
        if kind < 0.5:
            return rng.choice(NAMES)
        if kind < 0.65:
            return rng.choice([" ", "\n", "\t"]) * rng.choice([1, 2, 3, 90])
        return chr(rng.randint(*rng.choice(ranges)))

    return FIXED + NAMES + [rng.choice(said) for _ in range(15)] + [
        "".join(bit() for _ in range(rng.choice([2, 4, 8]))) for _ in range(110)]


def main():
    for name, tok in (("chatglm", Chatglm(SAMPLE / "model" / "ice_text.model")),
                      ("chatglm2", Chatglm2(HERE / "chatglm2" / "tokenizer.model"))):
        with open(HERE / f"tok_{name}.jsonl", "w", encoding="ascii") as out:
            for text in texts():
                ids = tok.encode(text)
                row = {"text": text, "ids": ids, "special_ids": tok.encode_special(text),
                       "decoded": tok.decode(ids)}
                out.write(json.dumps(row, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A corpus of SoulChatCorpus's size, form and dirt, out of dialogues of SMILECHAT: to measure
`soulchat prepare`. The same seed gives the same bytes. Standard library only.

    scripts/make_corpus.py smilechat.jsonl corpus.json
    scripts/make_corpus.py smilechat.jsonl small.json --dialogues 2000

One JSON array with an indent of 4: {"id", "topic", "messages": [{"role", "content"}]}. The turns of
a dialogue follow those of SMILECHAT, each varied: sentences are left out, sentences of other turns
come in, and words change for others like them, so that two dialogues are near duplicates only where
that is wanted. What is wrong in the original is there too, about as often: dialogues without a
turn, with an empty one, with the counsellor first or the client last; and what its relatives have:
names of roles, repeated newlines, HTML, contact data, words of crisis.
"""
import argparse
import json
import random

DIALOGUES = 258354
BYTES = 907_380_685
# Rounds of a dialogue and how many have so many; topics and their shares.
ROUNDS = {0: 48, 1: 6304, 2: 346, 3: 1986, 4: 16351, 5: 68626, 6: 92957, 7: 47545, 8: 16211,
          9: 5472, 10: 2082, 11: 334, 12: 65, 13: 11, 14: 10, 15: 1, 16: 2, 17: 1, 23: 1}
TOPICS = {"婚恋": 55111, "情绪": 31796, "人际": 29887, "家庭": 25611, "治疗": 24622, "成长": 24190,
          "行为": 20960, "自我": 20017, "社会": 9757, "职场": 9174, "心理学知识": 6063, "未明确": 993,
          "性心理": 172}
WORDS = [("妈妈", "爸爸"), ("男朋友", "女朋友"), ("老师", "同学"), ("工作", "学习"), ("难过", "委屈"),
         ("焦虑", "紧张"), ("昨天", "上周"), ("大学", "高中"), ("朋友", "室友"), ("害怕", "担心"),
         ("生气", "失望"), ("孩子", "弟弟")]
SENTENCE_ENDS = "。！？"


def sentences(text):
    parts, begin = [], 0
    for at, char in enumerate(text):
        if char in SENTENCE_ENDS:
            parts.append(text[begin:at + 1])
            begin = at + 1
    if begin < len(text):
        parts.append(text[begin:])
    return parts


def swap_words(rng, text):
    """Some pairs of words change places, through a character that no text has."""
    for one, other in rng.sample(WORDS, 3):
        text = text.replace(one, "\0").replace(other, one).replace("\0", other)
    return text


class Maker:
    def __init__(self, path, seed, per_turn):
        self.rng = random.Random(seed)
        self.turns = {"user": [], "assistant": []}
        self.per_turn = per_turn
        self.debt = 0.0  # characters that the corpus is behind its length
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                for turn in json.loads(line)["dialogue"]:
                    role = "user" if turn["role"] == "client" else "assistant"
                    if turn["content"]:
                        self.turns[role].append(sentences(turn["content"]))

    def text(self, role, near):
        """A varied turn: the one at `near`, with sentences of others until it is long enough."""
        rng, turns = self.rng, self.turns[role]
        want = self.per_turn[role] * rng.uniform(0.5, 1.5) + self.debt
        parts = [s for s in turns[near % len(turns)] if rng.random() < 0.7]
        size = sum(map(len, parts))
        while size < want:
            more = rng.choice(rng.choice(turns))
            parts.insert(rng.randrange(len(parts) + 1), more)
            size += len(more)
        while len(parts) > 1 and size - len(parts[-1]) >= want:
            size -= len(parts.pop())
        self.debt = max(-40.0, min(40.0, want - size))
        return swap_words(rng, "".join(parts)) or "嗯。"

    def messages(self, rounds):
        rng = self.rng
        start = rng.randrange(len(self.turns["user"]))
        out = []
        for i in range(rounds):
            out.append({"role": "user", "content": self.text("user", start + i)})
            out.append({"role": "assistant", "content": self.text("assistant", start + i)})
        return out

    def soil(self, messages):
        """What is wrong in the original, and some of what its relatives have."""
        rng = self.rng
        if not messages:
            return messages
        if rng.random() < 0.045 and len(messages) > 2:
            messages.pop()
        elif rng.random() < 1 / 3000:
            messages.pop(0)
        at = rng.choice(messages)
        dice = rng.random()
        if dice < 398 / DIALOGUES:
            at["content"] = ""
        elif dice < 0.004:
            at["content"] = ("支持者：" if at["role"] == "assistant" else "求助者：") + at["content"]
        elif dice < 0.008:
            at["content"] = at["content"].replace("。", "。\n\n\n", 2)
        elif dice < 0.009:
            at["content"] = "<p>" + at["content"] + "&nbsp;</p>"
        elif dice < 0.010:
            at["content"] += f"我的电话是139{rng.randrange(10 ** 8):08d}。"
        elif dice < 0.0105:
            at["content"] += f"加我微信：wx_{rng.randrange(10 ** 6):06d}"
        elif dice < 0.02:
            at["content"] += "有时候我真的想自杀。"
        elif dice < 0.021:
            at["content"] = "\u200b" + at["content"] + "\r\n "
        elif dice < 0.022 and at["role"] == "assistant":
            at["content"] = "作为一个AI，" + at["content"]
        return messages


def write_corpus(path, maker, dialogues):
    rng = maker.rng
    rounds = rng.choices(list(ROUNDS), weights=list(ROUNDS.values()), k=dialogues)
    topics = rng.choices(list(TOPICS), weights=list(TOPICS.values()), k=dialogues)
    earlier = []  # some are repeated, a sentence apart
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.write("[\n")
        for i in range(dialogues):
            if earlier and rng.random() < 0.002:
                messages = json.loads(json.dumps(rng.choice(earlier)))
                messages[0]["content"] += "谢谢你听我说。" * rng.randrange(2)
            else:
                messages = maker.soil(maker.messages(rounds[i]))
            if messages and len(earlier) < 500:
                earlier.append(messages)
            record = {"id": i, "topic": topics[i], "messages": messages}
            text = json.dumps(record, ensure_ascii=False, indent=4).replace("\n", "\n    ")
            out.write("    " + text + (",\n" if i + 1 < dialogues else "\n"))
        out.write("]\n")
        return out.tell()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("smile", help="SMILECHAT as JSON lines, unpacked")
    parser.add_argument("out")
    parser.add_argument("--dialogues", type=int, default=DIALOGUES)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--user-chars", type=float, default=41.4, help="mean of a client's turn")
    parser.add_argument("--assistant-chars", type=float, default=90.0, help="of a counsellor's")
    args = parser.parse_args()
    maker = Maker(args.smile, args.seed,
                  {"user": args.user_chars, "assistant": args.assistant_chars})
    size = write_corpus(args.out, maker, args.dialogues)
    wanted = BYTES * args.dialogues // DIALOGUES
    print(f"{args.out}: {args.dialogues} dialogues, {size} bytes (as published: {wanted})")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Put corpus.json together from the hand-written cases of cases.txt.

    python3 data/sample/make_corpus.py            # rewrites data/sample/corpus.json
    python3 data/sample/make_corpus.py --check    # exit 1 when corpus.json is not what this makes

Every case gives five dialogues: one or two of a single exchange (about a third of all), the others
of two to six. The words of a case stay together: what the counsellor answers was written for that
statement. Only greetings, small acknowledgements and goodbyes are drawn from the lists below, by a
fixed seed.
"""
import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
SEED = 20231120

KINDS = ("say", "hear", "ask", "tip", "u", "a")
GREETINGS = ["", "", "", "", "你好，", "老师您好，", "你好，我想聊一聊。", "我不知道该跟谁说。"]
KNOCKS = [
    ("你好，我可以和你说说心里话吗？", "你好，当然可以，很高兴你愿意来。今天想从哪里说起呢？"),
    ("在吗？我今天心情不太好。", "我在的，谢谢你愿意来找我。愿意说说发生了什么吗？"),
    ("老师好，我第一次做咨询，有点紧张。", "第一次来会紧张很正常，我们慢慢说，你想说多少都可以。"),
    ("有件事压在心里很久了，想找人说说。", "谢谢你信任我，我会认真听，你可以按自己的节奏说。"),
]
FIRST_WORDS = ["", "", "谢谢你愿意告诉我。", "我听到了。", "抱抱你。"]
TIP_WORDS = ["", "如果你愿意，", "也许"]
TIP_ENDS = ["", "慢慢来，我会陪着你。", "你不需要一下子做到最好。", "你已经迈出了求助的第一步，这很可贵。"]
GOODBYES = [
    ("谢谢你，和你说完我心里好受多了。", "不客气，谢谢你的信任。想说话的时候，随时可以再来。"),
    ("谢谢老师，我会试着去做的。", "好的，一步一步来，做不到的时候也不要责怪自己，我一直在这里。"),
    ("今天先聊到这里吧，谢谢你听我说。", "谢谢你今天的坦诚，愿你今晚睡个好觉，我们下次再聊。"),
    ("说出来以后轻松了很多，谢谢你。", "能听到你说轻松了一些，我也很高兴。请好好照顾自己。"),
    ("我知道该怎么做了，谢谢。", "相信你心里的力量，遇到困难的时候，欢迎再来和我说说。"),
]


def read_cases(path):
    """[{"topic", "say": [...], "hear": [...], "ask", "tip", "turns": [(u, a), ...]}]"""
    cases, topic = [], ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("== "):
            topic = line[3:]
        elif line == "--":
            cases.append({"topic": topic} | {kind: [] for kind in KINDS})
        else:
            kind, _, text = line.partition(": ")
            if not text or not cases or kind not in KINDS:
                sys.exit(f"{path}:{number}: expected '== topic', '--' or 'kind: text'")
            cases[-1][kind].append(text)
    for case in cases:
        one_each = len(case["ask"]) == 1 and len(case["tip"]) == 1
        if not case["say"] or not case["hear"] or not one_each or len(case["u"]) != len(case["a"]):
            sys.exit(f"{path}: the case '{case['say']}' is not complete")
        case["turns"] = list(zip(case.pop("u"), case.pop("a")))
    return cases


def single(rng, case, variant, _rounds):
    say, hear = case["say"][variant % len(case["say"])], case["hear"][variant % len(case["hear"])]
    tip_word = rng.choice(TIP_WORDS) if case["tip"][0].startswith(("可以", "不妨", "试着")) else ""
    if tip_word == "也许" and not case["tip"][0].startswith("可以"):
        tip_word = ""
    reply = rng.choice(FIRST_WORDS) + hear + tip_word + case["tip"][0] + rng.choice(TIP_ENDS)
    return [(rng.choice(GREETINGS) + say, reply)]


def several(rng, case, variant, rounds):
    """2 to 6 exchanges: steps of the case, a goodbye from 3 on, a greeting at 6."""
    say, hear = case["say"][variant % len(case["say"])], case["hear"][variant % len(case["hear"])]
    opening = [rng.choice(KNOCKS)] if rounds == 6 else []
    greeting = "" if opening else rng.choice(GREETINGS)
    first = (greeting + say, rng.choice(FIRST_WORDS) + hear + case["ask"][0])
    ending = [rng.choice(GOODBYES)] if rounds >= 3 else []
    step_count = rounds - len(opening) - 1 - len(ending)
    return opening + [first] + case["turns"][:step_count] + ending


def make(cases):
    rng = random.Random(SEED)
    dialogues = []
    for index, case in enumerate(cases):
        rounds = [1, 1 if index % 3 != 0 else 3, 2, rng.choice([3, 4]), rng.choice([5, 6])]
        for variant, count in enumerate(rounds):
            make_one = single if count == 1 else several
            dialogues.append((case["topic"], make_one(rng, case, variant, count)))
    rng.shuffle(dialogues)
    return [{"id": i, "topic": topic,
             "messages": [{"role": role, "content": text}
                          for pair in exchange for role, text in zip(("user", "assistant"), pair)]}
            for i, (topic, exchange) in enumerate(dialogues)]


def main():
    text = json.dumps(make(read_cases(HERE / "cases.txt")), ensure_ascii=False, indent=4) + "\n"
    path = HERE / "corpus.json"
    if "--check" in sys.argv[1:]:
        if path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path} is not what make_corpus.py makes; run it and commit the result")
    else:
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

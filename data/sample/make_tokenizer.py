#!/usr/bin/env python3
"""Train the two tiny tokenizers of this project on corpus.json.

    python3 data/sample/make_tokenizer.py     # needs spm_train (Debian: sentencepiece)

data/sample/model/ice_text.model        of ChatGLM-6B's kind: unigram, nmt_nfkc, special pieces in
                                        ChatGLM-6B's order
data/sample/model/config.json,          a ChatGLM-6B of 4 layers with this vocabulary
data/sample/model/tokenizer_config.json
tests/golden/chatglm2/tokenizer.model   of ChatGLM2-6B's kind: BPE, text as it is, bytes first

spm_train puts special and byte pieces in front; ChatGLM-6B has them after the text. So the trained
model is taken apart here, which takes a few lines of protobuf, and put together in ChatGLM-6B's
order. Run again, it gives the same bytes with the same version of spm_train (0.1.97).
"""
import json
import pathlib
import struct
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
CHATGLM2 = HERE.parent.parent / "tests" / "golden" / "chatglm2"
UNIGRAM_PIECES = 1600  # before special and byte pieces
BPE_PIECES = 1600      # all
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
CONTROLS = ["[MASK]", "[gMASK]", "[sMASK]", "<unused_0>", "<sop>", "<eop>", "<ENC>", "<dBLOCK>"]
BLANKS = ["<|tab|>"] + [f"<|blank_{i}|>" for i in range(2, 81)]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
ASCII = "".join(chr(c) for c in range(0x21, 0x7F))


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def encode(fields):
    """[(number, int | float | bytes)] to a message."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        else:
            out += varint(number << 3) + varint(value)
    return out


def decode(message):
    at, fields = 0, []

    def read():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = read()
        if key & 7 == 0:
            fields.append((key >> 3, read()))
        elif key & 7 == 5:
            fields.append((key >> 3, struct.unpack_from("<f", message, at)[0]))
            at += 4
        else:
            size = read()
            fields.append((key >> 3, message[at:at + size]))
            at += size
    return fields


def train(lines, **settings):
    """The fields of the model that spm_train makes of these lines."""
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder, "text")
        text.write_text("\n".join(lines) + "\n", encoding="utf-8")
        settings = {"input": text, "model_prefix": pathlib.Path(folder, "m"), "num_threads": 1,
                    "max_sentence_length": 1 << 16, "split_digits": "true",
                    "character_coverage": 1.0, "minloglevel": 2} | settings
        flags = [f"--{name}={value}" for name, value in settings.items()]
        subprocess.run(["spm_train"] + flags, check=True)
        return decode(pathlib.Path(folder, "m.model").read_bytes())


def piece(name, kind, score=0.0):
    return (1, encode([(1, name.encode()), (2, score), (3, kind)]))


def rewrite_training(message, changes):
    """Training settings without the paths of this machine, and with these fields set."""
    dropped = {1, 2, 16} | set(changes)  # input, model_prefix, num_threads
    kept = [(number, value) for number, value in decode(message) if number not in dropped]
    return encode(sorted(kept + list(changes.items()), key=lambda field: field[0]))


def lines_of(messages):
    """[(role name, text)] of one dialogue as the lines to learn from."""
    # <n> first, so that no piece joins the leading space with a word
    yield "".join(f"<n>{name}：{text}" for name, text in messages)
    for _, text in messages:
        yield f"<n>{text}"


def make_chatglm(path, lines, piece_count, **settings):
    """Write a tokenizer of ChatGLM-6B's kind; the names of its pieces by id."""
    fields = train(lines, model_type="unigram", vocab_size=piece_count, pad_id=3,
                   user_defined_symbols="<n>", required_chars=ASCII, **settings)
    pieces = [(1, value) for number, value in fields if number == 1]
    space = next(p for p in pieces if dict(decode(p[1]))[1] == "▁".encode())
    pieces.remove(space)
    pieces.insert(5, space)
    pieces += [piece(name, CONTROL) for name in CONTROLS]
    pieces += [piece(name, USER_DEFINED) for name in BLANKS]
    pieces += [piece(name, BYTE) for name in BYTES]
    changes = {4: len(pieces), 35: 1}  # vocab_size, byte_fallback
    rest = [(number, rewrite_training(value, changes) if number == 2 else value)
            for number, value in fields if number != 1]
    path.write_bytes(encode(pieces + rest))
    return [dict(decode(value))[1].decode() for _, value in pieces]


def make_chatglm2(dialogues):
    lines = [m["content"] for dialogue in dialogues for m in dialogue["messages"]]
    fields = train(lines + list(ASCII), model_type="bpe", vocab_size=BPE_PIECES,
                   byte_fallback="true", normalization_rule_name="identity",
                   remove_extra_whitespaces="false")
    fields = [(number, rewrite_training(value, {}) if number == 2 else value)
              for number, value in fields]
    CHATGLM2.mkdir(parents=True, exist_ok=True)
    (CHATGLM2 / "tokenizer.model").write_bytes(encode(fields))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_configs(folder, names, hidden, layers, heads, positions):
    """config.json of a ChatGLM-6B of these sizes and vocabulary, and tokenizer_config.json."""
    write_json(folder / "config.json", {
        "architectures": ["ChatGLMModel"], "model_type": "chatglm",
        "vocab_size": (len(names) + 63) // 64 * 64, "hidden_size": hidden, "num_layers": layers,
        "num_attention_heads": heads, "inner_hidden_size": 4 * hidden,
        "max_sequence_length": positions, "layernorm_epsilon": 1e-5, "position_encoding_2d": True,
        "use_cache": True, "mask_token_id": names.index("[MASK]"),
        "gmask_token_id": names.index("[gMASK]"), "bos_token_id": names.index("<sop>"),
        "eos_token_id": names.index("<eop>"), "pad_token_id": names.index("<pad>"),
        "torch_dtype": "float32"})
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "ChatGLMTokenizer", "bos_token": "<sop>", "eos_token": "<eop>",
        "end_token": "</s>", "gmask_token": "[gMASK]", "mask_token": "[MASK]", "pad_token": "<pad>",
        "unk_token": "<unk>", "remove_space": False, "do_lower_case": False, "num_image_tokens": 0,
        "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]}})


def main():
    dialogues = json.loads((HERE / "corpus.json").read_text(encoding="utf-8"))
    roles = {"user": "用户", "assistant": "心理咨询师"}
    lines = [line for dialogue in dialogues
             for line in lines_of([(roles[m["role"]], m["content"]) for m in dialogue["messages"]])]
    names = make_chatglm(HERE / "model" / "ice_text.model", lines, UNIGRAM_PIECES)
    make_chatglm2(dialogues)
    write_configs(HERE / "model", names, hidden=128, layers=4, heads=4, positions=512)


if __name__ == "__main__":
    main()

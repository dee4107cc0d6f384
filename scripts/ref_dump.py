#!/usr/bin/env python3
"""Make a golden folder: a small random ChatGLM-6B and what plain PyTorch computes from it.

    scripts/ref_dump.py OUT --hidden 96 --heads 3 --seed 7 --untied --mask-token mask --shards 3
    build/tests/parity OUT
    scripts/ref_dump.py --bf16 DIR       # only bf16.json, for a golden folder that is there
    build/tests/parity --device emu --dtype bf16 DIR

An implementation of its own, in float32 and with one dense tensor operation per formula, so that it
shares nothing with the program it judges but the mathematics (model/README.md). The layout of OUT
is described in tests/golden/README.md. Needs torch.

bf16.json holds what PyTorch loses in bf16: its fused functions in bf16 (LayerNorm, linear, GELU,
scaled_dot_product_attention, autograd; rotary products in float32, logits widened for the loss, as
published code does) against the plain formulas in float64, both on the weights rounded to bf16.
The error of a tensor is RMS(bf16 - float64) / RMS(float64) over the rows that are no padding.
"""
import argparse
import glob
import json
import math
import os
import types

import numpy as np
import torch
import torch.nn.functional as F

from golden_file import read_golden, write_golden

ALPHA = math.sqrt(2 * 28)  # at any depth, as in the published code
GREEDY = 24


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out")
    p.add_argument("--bf16", action="store_true",
                   help="OUT is a golden folder: measure bf16 on it and write its bf16.json")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--vocab", type=int, default=640)
    p.add_argument("--hidden", type=int, default=64)
    p.add_argument("--layers", type=int, default=3)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--inner", type=int, default=0, help="0: four times hidden")
    p.add_argument("--batch", type=int, default=4)
    p.add_argument("--longest", type=int, default=64, help="tokens of the longest sample")
    p.add_argument("--untied", action="store_true", help="lm_head of its own; config.json says so")
    p.add_argument("--mask-token", choices=["gmask", "mask"], default="gmask",
                   help="mask: [MASK] somewhere inside each prompt and no [gMASK]")
    p.add_argument("--shards", type=int, default=2)
    p.add_argument("--norms-f32", action="store_true", help="norms in float32, as on the hub")
    a = p.parse_args()
    a.inner = a.inner or 4 * a.hidden
    assert a.hidden % (4 * a.heads) == 0, "the head width must be a multiple of 4"
    return a


def make_config(a):
    config = {
        "vocab_size": a.vocab, "hidden_size": a.hidden, "num_layers": a.layers,
        "num_attention_heads": a.heads, "inner_hidden_size": a.inner,
        "max_sequence_length": max(2 * a.longest, 64), "layernorm_epsilon": 1e-5,
        "mask_token_id": a.vocab - 8, "gmask_token_id": a.vocab - 7,
        "bos_token_id": a.vocab - 4, "eos_token_id": a.vocab - 3, "pad_token_id": 3,
        "position_encoding_2d": True, "use_cache": True, "architectures": ["ChatGLMModel"],
        "model_type": "chatglm", "torch_dtype": "float16",
    }
    if a.untied:
        config["tie_word_embeddings"] = False
    return config


# ---- weights ----

def make_weights(a, gen):
    """Values that fp16 holds exactly, as float32; spreads large enough that every term matters."""
    def normal(*shape, std):
        return (torch.randn(*shape, generator=gen) * std).half().float()

    def norm(name, w):
        w[name + ".weight"] = (1 + normal(a.hidden, std=0.1)).half().float()
        w[name + ".bias"] = normal(a.hidden, std=0.05)

    def linear(name, w, rows, cols):
        w[name + ".weight"] = normal(rows, cols, std=1.2 / math.sqrt(cols))
        w[name + ".bias"] = normal(rows, std=0.05)

    embedding = normal(a.vocab, a.hidden, std=4 / math.sqrt(a.hidden))
    w = {"transformer.word_embeddings.weight": embedding}
    for i in range(a.layers):
        p = f"transformer.layers.{i}."
        norm(p + "input_layernorm", w)
        linear(p + "attention.query_key_value", w, 3 * a.hidden, a.hidden)
        linear(p + "attention.dense", w, a.hidden, a.hidden)
        norm(p + "post_attention_layernorm", w)
        linear(p + "mlp.dense_h_to_4h", w, a.inner, a.hidden)
        linear(p + "mlp.dense_4h_to_h", w, a.hidden, a.inner)
    norm("transformer.final_layernorm", w)
    if a.untied:
        w["lm_head.weight"] = normal(a.vocab, a.hidden, std=2 / math.sqrt(a.hidden))
    return w


def inv_freq(a):
    half = a.hidden // a.heads // 2
    return (1.0 / 10000 ** (torch.arange(0, half, 2).float() / half)).half()


def save_weights(a, w):
    files = dict(w)
    files.setdefault("lm_head.weight", w["transformer.word_embeddings.weight"])
    for i in range(a.layers):
        files[f"transformer.layers.{i}.attention.rotary_emb.inv_freq"] = inv_freq(a)
    names = sorted(files, key=lambda n: (n == "lm_head.weight", "final" in n,
                                         int(n.split(".")[2]) if ".layers." in n else -1, n))
    shards = np.array_split(np.array(names), a.shards)
    weight_map, total = {}, 0
    for k, shard in enumerate(shards, 1):
        file = f"pytorch_model-{k:05d}-of-{a.shards:05d}.bin"
        tensors = {}
        for name in map(str, shard):
            keep = a.norms_f32 and "layernorm" in name
            tensors[name] = files[name].float().clone() if keep else files[name].half().clone()
            weight_map[name] = file
            total += tensors[name].numel() * tensors[name].element_size()
        torch.save(tensors, os.path.join(a.out, file))
    with open(os.path.join(a.out, "pytorch_model.bin.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, f, indent=2)


# ---- sequences ----

def positions(ids, config):
    """Both position rows and the context length of one sample, pads included."""
    ctx = ids.index(config["bos_token_id"])
    mask = config["gmask_token_id"]
    mask_at = ids.index(mask) if mask in ids else ids.index(config["mask_token_id"])
    pos = [i if i < ctx else mask_at for i in range(len(ids))]
    block = [0 if i < ctx else i - ctx + 1 for i in range(len(ids))]
    return pos, block, ctx


def make_prompt(a, config, length, rng):
    ids = rng.integers(5, a.vocab - 8, size=length).tolist()
    if a.mask_token == "gmask":
        return ids + [config["gmask_token_id"], config["bos_token_id"]]
    ids.insert(int(rng.integers(0, length)), config["mask_token_id"])
    return ids + [config["bos_token_id"]]


def make_batch(a, config, rng):
    """B samples of different lengths: the longest, a very short one, others between."""
    rows, labels, lengths, contexts = [], [], [], []
    for b in range(a.batch):
        total = a.longest if b == 0 else 6 if b == 1 else int(rng.integers(8, a.longest))
        prompt = make_prompt(a, config, int(rng.integers(1, total - 4)), rng)
        reply = rng.integers(5, a.vocab - 8, size=total - len(prompt) - 1).tolist()
        ids = prompt + reply + [config["eos_token_id"]]
        ctx = ids.index(config["bos_token_id"])
        pad = a.longest - len(ids)
        rows.append(ids + [config["pad_token_id"]] * pad)
        labels.append([-100] * ctx + ids[ctx:] + [-100] * pad)
        lengths.append(len(ids))
        contexts.append(ctx)
    return rows, labels, lengths, contexts


# ---- the network ----

def layer_norm(x, w, name):
    mean = x.mean(-1, keepdim=True)
    var = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(var + 1e-5) * w[name + ".weight"] + w[name + ".bias"]


def dense(x, w, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(0.7978845608028654 * x * (1 + 0.044715 * x * x)))


def rotate(x, pos, freq):
    """x [B, S, H, D/2], pos [B, S]: pairs (j, j + D/4) turn by pos * freq[j]."""
    angle = (pos.float()[..., None] * freq.float())[:, :, None, :]
    first, second = x.chunk(2, dim=-1)
    cos, sin = angle.cos(), angle.sin()
    turned = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.to(x.dtype)


def two_streams(x, pos, block, freq):
    first, second = x.chunk(2, dim=-1)
    return torch.cat([rotate(first, pos, freq), rotate(second, block, freq)], dim=-1)


def attention(q, k, v, visible):
    """q, k, v [B, S, H, D], visible [B, S, S]."""
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~visible[:, None], float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


def fused_attention(q, k, v, visible):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None]).transpose(1, 2)


PLAIN = types.SimpleNamespace(layer_norm=layer_norm, dense=dense, gelu=gelu, attention=attention)
FUSED = types.SimpleNamespace(
    layer_norm=lambda x, w, name: F.layer_norm(x, x.shape[-1:], w[name + ".weight"],
                                               w[name + ".bias"], 1e-5),
    dense=lambda x, w, name: F.linear(x, w[name + ".weight"], w[name + ".bias"]),
    gelu=lambda x: F.gelu(x, approximate="tanh"),
    attention=fused_attention)


def forward(a, w, ids, config, f=PLAIN):
    """logits [B, S, V] and the output of every block."""
    places = [positions(row, config) for row in ids]
    pos = torch.tensor([p[0] for p in places])
    block = torch.tensor([p[1] for p in places])
    ctx = torch.tensor([p[2] for p in places])
    B, S, H = len(ids), len(ids[0]), a.heads
    D = a.hidden // H
    key, query = torch.arange(S)[None, None, :], torch.arange(S)[None, :, None]
    visible = (key <= query) | (key < ctx[:, None, None])
    freq = inv_freq(a)

    x = w["transformer.word_embeddings.weight"][torch.tensor(ids)]
    hidden = []
    for i in range(a.layers):
        p = f"transformer.layers.{i}."
        h = f.layer_norm(x, w, p + "input_layernorm")
        qkv = f.dense(h, w, p + "attention.query_key_value")
        q, k, v = qkv.view(B, S, H, 3 * D).split(D, dim=-1)
        q, k = two_streams(q, pos, block, freq), two_streams(k, pos, block, freq)
        mix = f.attention(q, k, v, visible).reshape(B, S, a.hidden)
        o = f.dense(mix, w, p + "attention.dense")
        m = f.layer_norm(ALPHA * h + o, w, p + "post_attention_layernorm")
        g = f.gelu(f.dense(m, w, p + "mlp.dense_h_to_4h"))
        x = ALPHA * m + f.dense(g, w, p + "mlp.dense_4h_to_h")
        hidden.append(x)
    x = f.layer_norm(x, w, "transformer.final_layernorm")
    head = w["lm_head.weight"] if a.untied else w["transformer.word_embeddings.weight"]
    return x @ head.T, hidden


def loss_of(logits, labels):
    return F.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]),
                           torch.tensor(labels)[:, 1:].reshape(-1), ignore_index=-100)


# ---- what the file holds ----

def dump_forward(f, a, w, config, batch):
    ids, labels, lengths, contexts = batch
    for name, values in (("input_ids", ids), ("labels", labels), ("lengths", lengths),
                         ("context_lengths", contexts)):
        f[f"batch/{name}"] = np.array(values, dtype=np.int32)
    with torch.no_grad():
        logits, hidden = forward(a, w, ids, config)
    f["forward/logits"] = logits.numpy()
    f["forward@loss"] = float(loss_of(logits.double(), labels))
    for i, h in enumerate(hidden):
        f[f"forward/hidden_{i}"] = h.numpy()


def dump_greedy(f, a, w, config, rng):
    """Full forward passes, no cache. Prompts whose best two logits nearly tie are drawn again:
    rounding would decide."""
    while True:
        prompt = make_prompt(a, config, int(rng.integers(3, 12)), rng)
        ids, margins, largest = list(prompt), [], 0.0
        with torch.no_grad():
            for _ in range(GREEDY):
                row = forward(a, w, [ids], config)[0][0, -1]
                best = row.topk(2)
                margins.append(float(best.values[0] - best.values[1]))
                largest = max(largest, float(row.abs().max()))
                ids.append(int(best.indices[0]))
        if min(margins) > 1e-4 * largest:
            break
    f["generate/prompt_ids"] = np.array(prompt, dtype=np.int32)
    f["generate/greedy_ids"] = np.array(ids[len(prompt):], dtype=np.int32)
    f["generate/margins"] = np.array(margins, dtype=np.float32)


def dump_training(f, a, w, config, batch):
    """Gradients, then three clipped AdamW steps on the one batch."""
    ids, labels = batch[0], batch[1]
    decay = 0.01
    settings = dict(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=decay,
                    max_grad_norm=1.0)
    w = {name: t.clone().requires_grad_() for name, t in w.items()}
    groups = [{"params": [t for t in w.values() if t.dim() == 2], "weight_decay": decay},
              {"params": [t for t in w.values() if t.dim() == 1], "weight_decay": 0.0}]
    adamw = torch.optim.AdamW(groups, lr=settings["lr"], eps=settings["eps"], foreach=False,
                              betas=(settings["beta1"], settings["beta2"]))
    losses, norms = [], []
    for step in range(3):
        adamw.zero_grad()
        loss = loss_of(forward(a, w, ids, config)[0], labels)
        loss.backward()
        if step == 0:
            for name, t in w.items():
                f[f"grad/{name}"] = t.grad.numpy().copy()
        norms.append(float(torch.sqrt(sum((t.grad.double() ** 2).sum() for t in w.values()))))
        losses.append(float(loss.detach()))
        torch.nn.utils.clip_grad_norm_(w.values(), settings["max_grad_norm"])
        adamw.step()
    f["grad@global_norm"] = norms[0]
    for name, t in w.items():
        f[f"adamw/weights_after_3/{name}"] = t.detach().numpy()
    f["adamw/losses"] = np.array(losses)
    f["adamw/grad_norms"] = np.array(norms)
    f.update({"adamw@" + key: value for key, value in settings.items()})


# ---- bf16 ----

def results(a, w, config, batch, dtype, f):
    """Everything that is compared, as float64: rows of padding left out, gradients by name."""
    ids, labels, lengths = batch
    w = {name: t.bfloat16().to(dtype).requires_grad_() for name, t in w.items()}
    logits, hidden = forward(a, w, ids, config, f)
    wide = logits.float() if dtype == torch.bfloat16 else logits
    loss_of(wide, labels).backward()
    shifted = torch.tensor(labels)[:, 1:]
    trained = shifted != -100
    nll = F.cross_entropy(wide[:, :-1][trained], shifted[trained], reduction="none")
    real = torch.arange(len(ids[0])) < torch.tensor(lengths)[:, None]
    out = {"logits": logits[real], "nll": nll}
    out.update({f"hidden_{i}": h[real] for i, h in enumerate(hidden)})
    out.update({f"grad/{name}": t.grad for name, t in w.items()})
    return {name: t.detach().double() for name, t in out.items()}


def rms(t):
    return float(t.pow(2).mean().sqrt())


def dump_bf16(a, w, config, batch):
    exact = results(a, w, config, batch, torch.float64, PLAIN)
    bf16 = results(a, w, config, batch, torch.bfloat16, FUSED)
    report = {"torch": torch.__version__,
              "tensors": {name: {"rms": rms(t), "error": rms(bf16[name] - t) / rms(t)}
                          for name, t in exact.items()}}
    with open(os.path.join(a.out, "bf16.json"), "w") as f:
        json.dump(report, f, indent=1)
        f.write("\n")


def measure_folder(a):
    """bf16.json of a golden folder, from its weights and its batch."""
    with open(os.path.join(a.out, "config.json")) as f:
        config = json.load(f)
    a.hidden, a.heads = config["hidden_size"], config["num_attention_heads"]
    a.layers, a.untied = config["num_layers"], config.get("tie_word_embeddings") is False
    w = {}
    for file in sorted(glob.glob(os.path.join(a.out, "*.bin"))):
        w.update(torch.load(file, map_location="cpu"))
    w = {name: t.float() for name, t in w.items()
         if "inv_freq" not in name and (a.untied or name != "lm_head.weight")}
    golden = read_golden(os.path.join(a.out, "golden.safetensors"))
    batch = [golden[f"batch/{name}"].tolist() for name in ("input_ids", "labels", "lengths")]
    dump_bf16(a, w, config, batch)


def main():
    a = parse()
    if a.bf16:
        measure_folder(a)
        return
    os.makedirs(a.out, exist_ok=True)
    gen, rng = torch.Generator().manual_seed(a.seed), np.random.default_rng(a.seed)
    config = make_config(a)
    w = make_weights(a, gen)
    batch = make_batch(a, config, rng)
    with open(os.path.join(a.out, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    save_weights(a, w)
    golden = {}
    dump_forward(golden, a, w, config, batch)
    dump_greedy(golden, a, w, config, rng)
    dump_training(golden, a, w, config, batch)
    write_golden(os.path.join(a.out, "golden.safetensors"), golden)
    dump_bf16(a, w, config, batch[:3])


if __name__ == "__main__":
    main()

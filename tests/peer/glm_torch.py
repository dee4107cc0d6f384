"""ChatGLM-6B for training in PyTorch: the network, its attention in several exact forms, the output
layer with its loss, and the micro-batches. Used by the benchmarks beside it; needs PyTorch alone.

Everything is ragged: a micro-batch is one run of rows that holds several samples, no padding.
The mathematics is that of model/README.md.
"""
import json
import math
import os
import struct
import types

import torch
import torch.nn.functional as F

ALPHA = math.sqrt(56.0)
LENGTHS = [(120, 30), (210, 48), (264, 52), (330, 60), (450, 75), (195, 47)]
TYPES = {"F32": torch.float32, "I32": torch.int32, "F16": torch.float16, "BF16": torch.bfloat16}


# ---- micro-batches ----

def read_safetensors(path):
    """name -> tensor; github.com/huggingface/safetensors, README, "Format"."""
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(size)), bytearray(f.read())
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        dtype = TYPES[entry["dtype"]]
        count = (end - begin) // torch.empty((), dtype=dtype).element_size()
        flat = torch.frombuffer(data, dtype=dtype, count=count, offset=begin) if count else \
            torch.empty(0, dtype=dtype)
        out[name] = flat.reshape(entry["shape"])
    return out


def packs_from_file(path):
    """[[micro-batch, ...] of step 0, ...] of a file that `soulchat bench packs` wrote."""
    file = read_safetensors(path)
    first = file["step_first"].tolist()
    names = ("ids", "pos", "block", "segments", "target_rows", "labels", "weights")
    micro = [{name: file[f"{i:05d}/{name}"] for name in names} for i in range(first[-1])]
    return [micro[a:b] for a, b in zip(first, first[1:])]


def packs_from_formula(rows, vocab, count):
    """One step of `count` equal micro-batches; train/bench_batch.h."""
    ids = [(r * 7919 + 13) % (vocab - 8) for r in range(rows)]
    pos, block, segments, targets = [0] * rows, [0] * rows, [], []
    start, i = 0, 0
    while start < rows:
        prompt, reply = LENGTHS[i % len(LENGTHS)]
        length = min(prompt + reply + 3, rows - start)
        ctx = min(prompt + 1, length)
        segments.append((start, ctx, length))
        for j in range(length):
            pos[start + j] = min(j, ctx - 1)
            block[start + j] = max(0, j - ctx + 1)
            if ctx - 1 <= j < length - 1:
                targets.append(start + j)
        start, i = start + length, i + 1
    micro = dict(ids=ids, pos=pos, block=block, segments=segments, target_rows=targets,
                 labels=[ids[r + 1] for r in targets])
    micro = {name: torch.tensor(values, dtype=torch.int32) for name, values in micro.items()}
    micro["weights"] = torch.full((len(targets),), 1.0 / (len(targets) * count))
    return [[micro] * count]


def cut(micro, pieces):
    """The samples of a micro-batch in so many of about as many rows each; together the same loss.
    All are padded to the rows of the largest, so that they have one shape."""
    if pieces == 1:
        return [micro]
    segments = micro["segments"].tolist()
    total, groups, sums = sum(n for _, _, n in segments), [[] for _ in range(pieces)], [0] * pieces
    for s, c, n in segments:
        at = min(range(pieces), key=lambda i: sums[i])
        groups[at].append((s, c, n))
        sums[at] += n
    assert sum(sums) == total
    rows = -(-max(sums) // 128) * 128
    return [pick(micro, group, rows) for group in groups if group]


def pick(micro, segments, rows):
    """Some samples of a micro-batch, moved together, in so many rows."""
    where = torch.cat([torch.arange(s, s + n) for s, _, n in segments])
    place = torch.full((len(micro["ids"]),), -1)
    place[where] = torch.arange(len(where))
    kept = place[micro["target_rows"].long()] >= 0
    out = {name: F.pad(micro[name][where], (0, rows - len(where)))
           for name in ("ids", "pos", "block")}
    out["segments"] = torch.tensor([(place[s].item(), c, n) for s, c, n in segments])
    out["target_rows"] = place[micro["target_rows"].long()][kept]
    out["labels"], out["weights"] = micro["labels"][kept], micro["weights"][kept]
    return out


def bounds(lengths):
    return torch.tensor([0] + list(lengths)).cumsum(0).to(torch.int32)


def place_of(taken, rows):
    """Of every row: where it stands in `taken`, or the length of that where it does not."""
    place = torch.full((rows,), len(taken))
    place[taken] = torch.arange(len(taken))
    return place


def layout(micro, device):
    """What attention and loss need of a micro-batch, on the device."""
    rows = len(micro["ids"])
    segments = [tuple(s) for s in micro["segments"].tolist()]
    context = torch.cat([torch.arange(s, s + c) for s, c, _ in segments])
    target = torch.cat([torch.arange(s + c, s + n) for s, c, n in segments])
    both = torch.cat([context, target])
    owner, end = torch.full((rows,), -1), torch.zeros(rows, dtype=torch.long)
    for i, (s, c, n) in enumerate(segments):
        owner[s:s + n], end[s:s + n] = i, s + c
    m = types.SimpleNamespace(
        rows=rows, segments=segments, context_rows=context, context_place=place_of(context, rows),
        target_rows=target, target_place=place_of(target, rows), both_rows=both,
        both_place=place_of(both, rows), owner=owner, prefix_end=end,
        context_bounds=bounds(c for _, c, _ in segments),
        reply_bounds=bounds(n - c for _, c, n in segments),
        all_bounds=bounds(n for _, _, n in segments), ids=micro["ids"].long(),
        pos=micro["pos"].long(), block=micro["block"].long(), loss_rows=micro["target_rows"].long(),
        labels=micro["labels"].long(), weights=micro["weights"], block_mask=None)
    for name, value in vars(m).items():
        if isinstance(value, torch.Tensor):
            setattr(m, name, value.to(device))
            if len(value) != rows:  # differs between micro-batches: one compiled layer for all
                torch._dynamo.maybe_mark_dynamic(getattr(m, name), 0)
    m.longest_context = max(c for _, c, _ in segments)
    m.longest_reply = max(n - c for _, c, n in segments)
    m.longest = max(n for _, _, n in segments)
    return m


# ---- attention: q, k, v [rows, heads, width] -> [rows, heads, width], all exact ----

def attend_segments(q, k, v, m):
    """scaled_dot_product_attention of each sample with its mask."""
    parts, end = [], 0
    for s, c, n in m.segments:
        row, col = (torch.arange(n, device=q.device)[:, None],
                    torch.arange(n, device=q.device)[None])
        one = (x[s:s + n].transpose(0, 1)[None] for x in (q, k, v))
        out = F.scaled_dot_product_attention(*one, attn_mask=(col <= row) | (col < c))
        parts.append(out[0].transpose(0, 1))
        end = s + n
    return torch.cat(parts + [torch.zeros_like(q[end:])])


def flash(q, k, v, q_bounds, k_bounds, q_most, k_most, causal):
    return torch.ops.aten._flash_attention_forward(
        q, k, v, q_bounds, k_bounds, q_most, k_most, 0.0, causal, False,
        scale=1.0 / math.sqrt(q.shape[-1]))[0]


def cudnn(q, k, v, q_bounds, k_bounds, q_most, k_most):
    return torch.ops.aten._cudnn_attention_forward(
        q, k, v, None, q_bounds, k_bounds, q_most, k_most, True, 0.0, False, False,
        scale=1.0 / math.sqrt(q.shape[-1]))[0]


class Move(torch.autograd.Function):
    """Row i is row `where[i]` of x, or zeros where that is len(x). `back` is the way back: no row
    goes to two places, so that gradients are moved too, which is faster than adding them up."""

    @staticmethod
    def forward(ctx, x, where, back):
        ctx.save_for_backward(back)
        return rows_at(x, where)

    @staticmethod
    def backward(ctx, grad):
        back, = ctx.saved_tensors
        return rows_at(grad, back), None, None


def rows_at(x, where):
    there = (where < len(x))[:, None, None]
    return torch.where(there, x[where.clamp(max=len(x) - 1)], x.new_zeros(()))


def two_calls(q, k, v, m, prefix_call):
    """The prefix sees itself; replies see everything before them, causal from the lower right."""
    context = (Move.apply(x, m.context_rows, m.context_place) for x in (q, k, v))
    a = prefix_call(*context, m.context_bounds, m.context_bounds, m.longest_context,
                    m.longest_context)
    b = flash(Move.apply(q, m.target_rows, m.target_place), k, v, m.reply_bounds, m.all_bounds,
              m.longest_reply, m.longest, True)
    return Move.apply(torch.cat([a, b]), m.both_place, m.both_rows)


def attend_flash(q, k, v, m):
    return two_calls(q, k, v, m, lambda *a: flash(*a, False))


def attend_cudnn(q, k, v, m):
    return two_calls(q, k, v, m, cudnn)


def attend_flex(q, k, v, m):
    from torch.nn.attention.flex_attention import flex_attention
    out = flex_attention(*(x.transpose(0, 1)[None] for x in (q, k, v)), block_mask=m.block_mask)
    return out[0].transpose(0, 1)


def prepare_flex(m):
    """The mask's blocks, once per micro-batch, outside of the timed steps."""
    from torch.nn.attention.flex_attention import create_block_mask
    owner, end = m.owner, m.prefix_end

    def visible(_b, _h, row, col):
        return (owner[row] == owner[col]) & ((col <= row) | (col < end[row]))

    make = torch.compile(create_block_mask) if owner.is_cuda else create_block_mask
    m.block_mask = make(visible, None, None, m.rows, m.rows, device=owner.device)


ATTENTION = {"segments": attend_segments, "flash": attend_flash, "flex": attend_flex,
             "cudnn": attend_cudnn}  # in the order in which they are tried


# ---- the network ----

def rotary_table(half, positions, device):
    inverse = (10000.0 ** (-torch.arange(0, half, 2, dtype=torch.float32) / half)).half().float()
    angle = torch.outer(torch.arange(positions, dtype=torch.float32), inverse)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().to(device), angle.sin().to(device)


def rotate(x, cos, sin):
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def two_streams(x, tables):
    """Rotated in float32, rounded once."""
    wide = x.float().chunk(2, dim=-1)
    halves = [rotate(half, cos, sin) for half, (cos, sin) in zip(wide, tables)]
    return torch.cat(halves, dim=-1).to(x.dtype)


LAYER = ("norm1.weight", "norm1.bias", "qkv.weight", "qkv.bias", "dense.weight", "dense.bias",
         "norm2.weight", "norm2.bias", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
FILES = dict(zip(LAYER, (f"{a}.{b}" for a in ("input_layernorm", "attention.query_key_value",
                                              "attention.dense", "post_attention_layernorm",
                                              "mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
                         for b in ("weight", "bias"))))


def shapes_of(size):
    """name -> shape of every parameter, in the order of the files."""
    C, inner = size.hidden, size.inner
    layer = dict(zip(LAYER, [(C,), (C,), (3 * C, C), (3 * C,), (C, C), (C,), (C,), (C,),
                             (inner, C), (inner,), (C, inner), (C,)]))
    shapes = {"embed.weight": (size.vocab, C)}
    for i in range(size.layers):
        shapes.update({f"{i}.{name}": shape for name, shape in layer.items()})
    shapes.update({"norm.weight": (C,), "norm.bias": (C,)})
    if not size.tied:
        shapes["head.weight"] = (size.vocab, C)
    return shapes


def layer_forward(x, m, tables, heads, attend, *weights):
    w = dict(zip(LAYER, weights))
    C = x.shape[1]
    a = F.layer_norm(x, (C,), w["norm1.weight"], w["norm1.bias"], 1e-5)
    qkv = F.linear(a, w["qkv.weight"], w["qkv.bias"]).view(x.shape[0], heads, 3 * C // heads)
    q, k, v = qkv.chunk(3, dim=-1)
    t = attend(two_streams(q, tables), two_streams(k, tables), v, m).reshape(x.shape)
    h = ALPHA * a + F.linear(t, w["dense.weight"], w["dense.bias"])
    b = F.layer_norm(h, (C,), w["norm2.weight"], w["norm2.bias"], 1e-5)
    u = F.gelu(F.linear(b, w["fc1.weight"], w["fc1.bias"]), approximate="tanh")
    return ALPHA * b + F.linear(u, w["fc2.weight"], w["fc2.bias"])


def loss_gradient(logits, labels, weights):
    """nll and, in the logits' place and type, the gradient of sum(weights * nll)."""
    wide = logits.float()
    lse = torch.logsumexp(wide, dim=-1)
    nll = lse - wide.gather(1, labels[:, None])[:, 0]
    p = torch.exp(wide - lse[:, None])
    p = torch.where(torch.arange(logits.shape[1], device=logits.device) == labels[:, None],
                    p - 1.0, p)
    return nll, (p * weights[:, None]).to(logits.dtype)


class LinearLoss(torch.autograd.Function):
    """sum(weights * cross entropy of x @ w.T), a chunk of rows at a time, gradients at once."""

    @staticmethod
    def forward(ctx, x, w, labels, weights, chunk, gradient):
        dx, dw, loss = torch.empty_like(x), None, x.new_zeros((), dtype=torch.float32)
        for at in range(0, len(x), chunk):
            part = slice(at, at + chunk)
            nll, dz = gradient(x[part] @ w.T, labels[part], weights[part])
            loss += (nll * weights[part]).sum()
            dx[part] = dz @ w
            dw = dz.T @ x[part] if dw is None else dw.addmm_(dz.T, x[part])
        ctx.save_for_backward(dx, dw)
        return loss

    @staticmethod
    def backward(ctx, grad):
        """The loss is the end of the graph: grad is 1."""
        dx, dw = ctx.saved_tensors
        return dx, dw, None, None, None, None


class Glm:
    """Weights are given: name -> tensor that requires a gradient, where the optimizer has them."""

    def __init__(self, size, weights, attention, compile_mode, recompute, chunk, positions):
        self.size, self.weights, self.chunk, self.recompute = size, weights, chunk, recompute
        device = weights["embed.weight"].device
        self.table = rotary_table(size.hidden // size.heads // 2, positions, device)
        self.attend = ATTENTION[attention]
        self.layer, self.gradient = layer_forward, loss_gradient
        if compile_mode != "none":
            self.layer = torch.compile(layer_forward, mode=compile_mode)
            self.gradient = torch.compile(loss_gradient)

    def loss(self, m):
        cos, sin = self.table
        tables = [(cos[p][:, None], sin[p][:, None]) for p in (m.pos, m.block)]
        x = F.embedding(m.ids, self.weights["embed.weight"])
        for i in range(self.size.layers):
            args = (x, m, tables, self.size.heads, self.attend,
                    *(self.weights[f"{i}.{name}"] for name in LAYER))
            if self.recompute:
                x = torch.utils.checkpoint.checkpoint(self.layer, *args, use_reentrant=False)
            else:
                x = self.layer(*args)
        C = self.size.hidden
        x = F.layer_norm(x, (C,), self.weights["norm.weight"], self.weights["norm.bias"], 1e-5)
        head = self.weights["embed.weight" if self.size.tied else "head.weight"]
        return LinearLoss.apply(x[m.loss_rows], head, m.labels, m.weights, self.chunk,
                                self.gradient)


# ---- published files ----

def size_of_folder(folder):
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    return types.SimpleNamespace(
        hidden=c["hidden_size"], layers=c["num_layers"], heads=c["num_attention_heads"],
        vocab=c["vocab_size"], inner=c["inner_hidden_size"],
        tied=c.get("tie_word_embeddings", True))


def weights_of_folder(folder, size):
    """name -> tensor in float32."""
    file = {}
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if name.startswith("model") and name.endswith(".safetensors"):
            file.update(read_safetensors(path))
        elif name.endswith(".bin"):
            file.update(torch.load(path, map_location="cpu", weights_only=True))
    names = {"embed.weight": "transformer.word_embeddings.weight", "head.weight": "lm_head.weight",
             "norm.weight": "transformer.final_layernorm.weight",
             "norm.bias": "transformer.final_layernorm.bias"}
    names.update({f"{i}.{ours}": f"transformer.layers.{i}.{theirs}"
                  for i in range(size.layers) for ours, theirs in FILES.items()})
    return {ours: file[names[ours]].float() for ours in shapes_of(size)}

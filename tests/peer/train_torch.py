#!/usr/bin/env python3
"""The training steps of `soulchat bench step` in PyTorch, as fast as PyTorch does them.

    python3 tests/peer/train_torch.py --preset 6b --rows 16384 --micro 4 [--json FILE]
    python3 tests/peer/train_torch.py --model DIR --packs packs.safetensors --precision f32

Nothing is held back: one ragged run without padding; every exact attention that this PyTorch has
is checked against float64 and timed, and the fastest is used; torch.compile; the loss over trained
rows only, chunked, with its gradients at once; bf16 weights and float32 master, moments and update
in one compiled kernel over flat memory (--optimizer fused: torch.optim.AdamW(fused=True)); where
memory is short, micro-batches of half the rows before anything is recomputed. Micro-batches are
those of `soulchat bench packs` or of train/bench_batch.h. The last line is JSON; --json has it
while steps are made, so that a run that is stopped leaves what it had.
"""
import argparse
import json
import os
import statistics
import sys
import time
import types

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch
import torch.utils.checkpoint

import glm_torch as glm

BETA1, EPS = 0.9, 1e-8
CHUNK = 1 << 28  # elements of one update
PRESETS = {"6b": dict(hidden=4096, layers=28, heads=32, vocab=130528),
           "tiny": dict(hidden=64, layers=2, heads=2, vocab=640)}


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--preset", choices=PRESETS)
    for name, value in dict(hidden=512, layers=8, heads=8, vocab=8192, rows=2048, micro=1, steps=10,
                            warmup=2, threads=0, chunk=4096).items():
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--model", help="folder with config.json and weights")
    p.add_argument("--packs", help="file of soulchat bench packs")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--precision", choices=["f32", "bf16"], default=None)
    p.add_argument("--grads", choices=["weight", "f32"], default="weight",
                   help="of bf16 weights: summed in bf16, or in float32")
    p.add_argument("--optimizer", choices=["flat", "fused"], default="flat")
    p.add_argument("--no-master", action="store_true", help="bf16 weights are updated themselves")
    p.add_argument("--attention", choices=["auto", *glm.ATTENTION], default="auto")
    p.add_argument("--compile", choices=["none", "default", "max-autotune-no-cudagraphs"])
    p.add_argument("--recompute", choices=["auto", "none", "full"], default="auto")
    p.add_argument("--pieces", type=int, default=0, help="a micro-batch is cut into; 0: by memory")
    p.add_argument("--lr", type=float, default=1e-4)
    p.add_argument("--rates", help="metrics.jsonl of a run whose learning rates are taken")
    p.add_argument("--beta2", type=float, default=0.999)
    p.add_argument("--clip", type=float, default=1.0)
    p.add_argument("--deadline", type=float, default=1e9, help="seconds; later steps are left out")
    p.add_argument("--json", help="write the result here too")
    a = p.parse_args()
    for name, value in PRESETS.get(a.preset, {}).items():
        setattr(a, name, value)
    a.precision = a.precision or ("bf16" if a.device == "cuda" else "f32")
    a.compile = a.compile or ("default" if a.device == "cuda" else "none")
    a.notes = []
    if a.rates:
        with open(a.rates) as f:
            a.rates = [row["lr"] for row in map(json.loads, f) if "lr" in row]
        a.steps = min(a.steps, len(a.rates) - a.warmup)
    return a


def elapsed():
    return time.perf_counter() - START


def say(text):
    print(f"{elapsed():7.1f} s  {text}", file=sys.stderr, flush=True)


def sync(device):
    if device == "cuda":
        torch.cuda.synchronize()


# ---- weights, gradients and state in flat memory ----

def update_flat(w, master, m, v, g, scale, lr, beta2, c1, c2, decay):
    """AdamW as torch.optim.AdamW does it; c1, c2: bias corrections; g is clipped by scale."""
    g = g.float() * scale
    x = (w if master is None else master).float()
    m.lerp_(g, 1 - BETA1)
    v.mul_(beta2).add_(g * g * (1 - beta2))
    x = x * (1 - lr * decay) - (lr / c1) * m / (torch.sqrt(v) / c2 + EPS)
    if master is not None:
        master.copy_(x)
    w.copy_(x)


class Flat:
    """Every parameter is a view of one array, and so are gradients, master and moments."""

    def __init__(self, a, size, values):
        shapes = glm.shapes_of(size)
        dtype = torch.bfloat16 if a.precision == "bf16" else torch.float32
        count = sum(torch.Size(s).numel() for s in shapes.values())
        self.a, self.count = a, count
        self.w = torch.empty(count, dtype=dtype, device=a.device)
        self.g = torch.zeros(count, device=a.device,
                             dtype=torch.float32 if a.grads == "f32" else dtype)
        self.weights, at = {}, 0
        for name, shape in shapes.items():
            part = slice(at, at + torch.Size(shape).numel())
            fill(self.w[part], name, shape, values, size)
            p = torch.nn.Parameter(self.w[part].view(shape))
            grad = self.g[part].view(shape)
            if self.g.dtype == dtype:
                p.grad = grad
            else:
                p.register_post_accumulate_grad_hook(lambda p, grad=grad: add_wide(p, grad))
            self.weights[name], at = p, part.stop
        self.open_optimizer()

    def open_optimizer(self):
        a = self.a
        narrow = self.w.dtype == torch.bfloat16
        self.master = self.w.float() if narrow and not a.no_master else None
        if a.optimizer == "fused":
            target = self.w if self.master is None else self.master
            self.target = [p.detach() for p in target.split(CHUNK)]
            self.adamw = [torch.optim.AdamW([t], lr=a.lr, betas=(BETA1, a.beta2), eps=EPS,
                                            weight_decay=0.0, fused=True) for t in self.target]
            return
        self.m, self.v = (torch.zeros(self.count, device=a.device) for _ in range(2))
        self.update = update_flat
        if a.compile != "none":
            self.update = torch.compile(update_flat, dynamic=True)

    def zero(self):
        self.g.zero_()

    def clip_scale(self):
        """min(1, clip / (norm + 1e-6)) as torch.nn.utils.clip_grad_norm_; stays on the device."""
        parts = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in self.g.split(CHUNK)]
        norm = torch.linalg.vector_norm(torch.stack(parts))
        return torch.clamp(self.a.clip / (norm + 1e-6), max=1.0), norm

    def step(self, number):
        a = self.a
        scale, norm = self.clip_scale()
        lr = a.rates[number - 1] if a.rates else a.lr
        if a.optimizer == "fused":
            self.step_fused(scale, lr)
            return norm
        c1, c2 = 1 - BETA1 ** number, (1 - a.beta2 ** number) ** 0.5
        factors = [torch.tensor(x, device=a.device) for x in (lr, a.beta2, c1, c2)]
        with torch.no_grad():
            for at in range(0, self.count, CHUNK):
                part = slice(at, at + CHUNK)
                master = None if self.master is None else self.master[part]
                self.update(self.w[part], master, self.m[part], self.v[part], self.g[part], scale,
                            *factors, 0.0)
        return norm

    def step_fused(self, scale, lr):
        pieces = zip(self.target, self.adamw, self.g.split(CHUNK), self.w.split(CHUNK))
        for target, adamw, g, w in pieces:
            target.grad = g.detach().to(target.dtype) * scale
            adamw.param_groups[0]["lr"] = lr
            adamw.step()
            target.grad = None
            if self.master is not None:
                w.detach().copy_(target)


def add_wide(p, grad):
    grad.add_(p.grad)
    p.grad = None


def fill(out, name, shape, values, size):
    """Published values, or random ones that are good enough for time."""
    with torch.no_grad():
        if values is not None:
            out.copy_(values[name].reshape(-1))
        elif len(shape) == 2:
            output = name == ("embed.weight" if size.tied else "head.weight")
            out.normal_(std=1.0 / size.hidden if output else 0.02)
        else:
            out.fill_(1.0 if name.endswith("norm.weight") or "norm" in name and
                      name.endswith("weight") else 0.0)


# ---- the fastest exact attention ----

def float64_attention(m, heads, width, device):
    """Inputs, their gradients and the output of plain masked attention in float64."""
    gen = torch.Generator().manual_seed(1)
    q, k, v, dout = (torch.randn(m.rows, heads, width, generator=gen).to(device)
                     for _ in range(4))
    wide = [x.double().requires_grad_() for x in (q, k, v)]
    row, col = (torch.arange(m.rows, device=device)[:, None],
                torch.arange(m.rows, device=device)[None])
    seen = (m.owner[:, None] == m.owner[None]) & ((col <= row) | (col < m.prefix_end[:, None]))
    score = torch.einsum("qhd,khd->hqk", wide[0], wide[1]) / width ** 0.5
    p = score.masked_fill(~seen, float("-inf")).softmax(-1)
    out = torch.einsum("hqk,khd->qhd", p, wide[2])
    out.backward(dout.double())
    return (q, k, v, dout), [out.detach()] + [x.grad for x in wide]


def run_attention(attend, m, inputs):
    qkv = [x.detach().requires_grad_() for x in inputs[:3]]
    out = attend(*qkv, m)
    out.backward(inputs[3])
    return [out.detach()] + [x.grad for x in qkv]


def check_attention(a, attend, name, heads, width, dtype):
    """Largest relative error against float64 on a small ragged run, output and gradients."""
    lengths = [(1, 1), (1, 63), (65, 64), (40, 89), (128, 192), (0, 70), (129, 300)]
    start, segments = 0, []
    for c, t in lengths:
        segments.append((start, c, c + t))
        start += c + t
    rows = start + 7  # padding at the end
    zero = torch.zeros(rows, dtype=torch.int32)
    micro = dict(ids=zero, pos=zero, block=zero, segments=torch.tensor(segments),
                 target_rows=zero[:1], labels=zero[:1], weights=torch.ones(1))
    m = glm.layout(micro, a.device)
    if name == "flex":
        glm.prepare_flex(m)
    inputs, exact = float64_attention(m, heads, width, a.device)
    got = run_attention(attend, m, [x.to(dtype) for x in inputs])
    errors = [((x.double() - y)[:start].norm() / y[:start].norm()).item()
              for x, y in zip(got, exact)]
    return max(float("inf") if e != e else e for e in errors)


def time_attention(a, attend, m, heads, width, dtype):
    inputs = [torch.randn(m.rows, heads, width, device=a.device, dtype=dtype) for _ in range(4)]
    for _ in range(3):
        run_attention(attend, m, inputs)
    times = []
    for _ in range(5):
        sync(a.device)
        begin = time.perf_counter()
        run_attention(attend, m, inputs)
        sync(a.device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def choose_attention(a, size, m):
    """name of the fastest that is exact; what was found out about each."""
    dtype = torch.bfloat16 if a.precision == "bf16" else torch.float32
    width, report, best = size.hidden // size.heads, {}, None
    names = list(glm.ATTENTION) if a.attention == "auto" else [a.attention]
    if a.device == "cuda" and a.attention == "auto":
        names.remove("segments")  # a launch per sample and layer
    bar = 2e-2 if dtype == torch.bfloat16 else 1e-4
    for name in names:
        if best is not None and elapsed() > 0.4 * a.deadline:
            report[name] = "not tried: no time"
            a.notes.append(f"attention {name} was not tried")
            continue
        attend = glm.ATTENTION[name]
        compiled = attend if a.compile == "none" else torch.compile(attend)  # as in a layer
        try:
            error = check_attention(a, compiled if name == "flex" else attend, name,
                                    min(size.heads, 4), width, dtype)
            if error > bar:
                report[name] = f"wrong: error {error:.2e}"
            else:
                if name == "flex" and m.block_mask is None:
                    glm.prepare_flex(m)
                seconds = time_attention(a, compiled, m, size.heads, width, dtype)
                report[name] = {"error": error, "ms": round(seconds * 1e3, 4)}
                if best is None or seconds < best[1]:
                    best = name, seconds
        except Exception as e:  # an attention that this PyTorch or device lacks
            report[name] = f"{type(e).__name__}: {str(e)[:160].splitlines()[:1]}"
        say(f"attention {name}: {report[name]}")
        torch._dynamo.reset()
    if best is None:
        sys.exit(f"no exact attention here: {json.dumps(report)}")
    return best[0], report


# ---- steps ----

def pieces_for(a, size, rows):
    """1, or 2 where a micro-batch's activations would not fit beside weights and state: compiled
    layers keep some 26 bytes a row and hidden unit, the flat optimizer 16 a parameter."""
    if a.pieces or a.device != "cuda":
        return a.pieces or 1
    count = sum(torch.Size(s).numel() for s in glm.shapes_of(size).values())
    need = 16 * count + 26 * size.hidden * size.layers * rows + 12 * a.chunk * size.vocab
    return 1 if need < 0.95 * torch.cuda.get_device_properties(0).total_memory else 2


def read_packs(a, size):
    if a.packs:
        return glm.packs_from_file(a.packs)
    return glm.packs_from_formula(a.rows, size.vocab, a.micro)


def open_data(a, packs, pieces):
    layouts, steps = {}, []
    for step in packs:
        for m in step:
            if id(m) not in layouts:
                layouts[id(m)] = [glm.layout(x, a.device) for x in glm.cut(m, pieces)]
        steps.append([x for m in step for x in layouts[id(m)]])
    every = [m for step in steps for m in step]
    for name in ("longest", "longest_context", "longest_reply"):
        most = max(getattr(m, name) for m in every)
        for m in every:
            setattr(m, name, most)  # one compiled layer serves all
    return steps


def run_step(net, flat, micro, number):
    flat.zero()
    loss = 0.0
    for m in micro:
        part = net.loss(m)
        part.backward()
        loss = loss + part.detach()
    flat.step(number)
    return loss


def first_steps(a, size, flat, packs, attention, losses, pieces, recompute):
    data = open_data(a, packs, pieces)
    prepare(attention, data)
    positions = max(int(max(m.pos.max(), m.block.max())) for s in data for m in s) + 1
    net = glm.Glm(size, flat.weights, attention, a.compile, recompute, a.chunk, positions)
    net.pieces = pieces
    for i in range(a.warmup):
        losses.append(run_step(net, flat, data[i % len(data)], i + 1).item())
        say(f"step {i + 1}: loss {losses[-1]:.4f}")
    return net, data


def warm_up(a, size, flat, packs, attention, losses):
    """The network and its data after the first steps. Out of memory: again with micro-batches of
    half the rows, then with every layer recomputed. What does not compile: without the compiler."""
    pieces = pieces_for(a, size, max(len(m["ids"]) for step in packs for m in step))
    modes = [(pieces, False), (2 * pieces, False), (2 * pieces, True)]
    if a.recompute != "auto":
        modes = [(pieces, a.recompute == "full")]
    while True:
        try:
            return first_steps(a, size, flat, packs, attention, losses, *modes[0])
        except Exception as e:  # of the compiler, or of what it calls
            short = isinstance(e, torch.OutOfMemoryError) or "out of memory" in str(e)
            if losses or (len(modes) == 1 if short else a.compile == "none"):
                raise
            a.notes.append(f"{type(e).__name__} with {modes[0]}: {str(e)[:160].splitlines()[:1]}")
        say(a.notes[-1])
        if short:
            modes.pop(0)
        else:
            a.compile = "none"
        flat.zero()
        torch._dynamo.reset()
        if a.device == "cuda":
            torch.cuda.empty_cache()


def prepare(attention, data):
    if attention == "flex":
        for m in {id(m): m for step in data for m in step}.values():
            if m.block_mask is None:
                glm.prepare_flex(m)


def measure(a, net, flat, data, losses, done):
    """done(times, tokens of each step) after every step."""
    times, tokens = [], []
    for i in range(a.warmup, a.warmup + a.steps):
        if times and elapsed() > a.deadline:
            a.notes.append(f"{i - a.warmup} of {a.steps} steps: no time")
            break
        begin = time.perf_counter()
        losses.append(run_step(net, flat, data[i % len(data)], i + 1).item())
        sync(a.device)
        times.append(time.perf_counter() - begin)
        tokens.append(sum(n for m in data[i % len(data)] for _, _, n in m.segments))
        say(f"step {i + 1}: loss {losses[-1]:.4f}, {times[-1]:.4f} s")
        done(times, tokens)


def result_of(a, net, flat, attention, report, losses, times, tokens):
    """Steps that compile something are not counted where nothing was warmed up."""
    first = min(3, len(times) - 1) if a.warmup == 0 else 0
    counted, seconds = tokens[first:], times[first:]
    same = len(set(tokens)) == 1
    peak = torch.cuda.max_memory_allocated() if a.device == "cuda" else 0
    device = torch.cuda.get_device_name() if a.device == "cuda" else "cpu"
    return dict(
        torch=torch.__version__, device=device, parameters=flat.count, precision=a.precision,
        master=flat.master is not None, optimizer=a.optimizer, compile=a.compile,
        recompute=net.recompute, pieces=net.pieces, attention=attention, attention_report=report,
        notes=a.notes, tokens=sum(counted) / len(counted), steps=len(times),
        tokens_per_s=round(counted[0] / statistics.median(seconds) if same else
                           sum(counted) / sum(seconds), 1),
        step_ms=dict(median=round(statistics.median(seconds) * 1e3, 3),
                     min=round(min(seconds) * 1e3, 3), max=round(max(seconds) * 1e3, 3)),
        peak_bytes=peak, seconds=round(elapsed(), 1), losses=losses)


def write(path, result):
    with open(path + ".tmp", "w") as f:
        f.write(json.dumps(result) + "\n")
    os.replace(path + ".tmp", path)


def main():
    a = parse()
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(1)
    torch._dynamo.config.cache_size_limit = 64
    size = glm.size_of_folder(a.model) if a.model else types.SimpleNamespace(
        hidden=a.hidden, layers=a.layers, heads=a.heads, vocab=a.vocab, inner=4 * a.hidden,
        tied=True)
    packs = read_packs(a, size)
    attention, report = choose_attention(a, size, open_data(a, [packs[0][:1]], 1)[0][0])
    flat = Flat(a, size, glm.weights_of_folder(a.model, size) if a.model else None)
    say(f"{flat.count} parameters, attention {attention}")
    losses, result = [], {}
    net, data = warm_up(a, size, flat, packs, attention, losses)

    def done(times, tokens):
        result.update(result_of(a, net, flat, attention, report, losses, times, tokens))
        if a.json and (len(times) < 10 or len(times) % 10 == 0 or len(times) == a.steps):
            write(a.json, result)

    measure(a, net, flat, data, losses, done)
    if a.json:
        write(a.json, result)
    print(json.dumps(result))


START = time.perf_counter()
if __name__ == "__main__":
    main()

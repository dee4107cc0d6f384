#!/usr/bin/env python3
"""The training step of `soulchat bench step` in PyTorch, for a fair comparison on one machine.

    python3 tests/peer/bench_torch.py [--hidden 512 --layers 8 --heads 8 --vocab 8192 --rows 2048
                                       --steps 10 --threads 2] [--compile] [--json]

Nothing is held back: one ragged run without padding, scaled_dot_product_attention per segment with
the prefix mask, logits for trained rows only, fused AdamW, clipping, float32; --compile adds
torch.compile.
The micro-batch is the one of train/bench_batch.h. Needs PyTorch; the program itself does not.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

from glm_torch import ALPHA, packs_from_formula, rotary_table, rotate


class Layer(torch.nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.heads, self.width = heads, hidden // heads
        self.norm1 = torch.nn.LayerNorm(hidden)
        self.qkv = torch.nn.Linear(hidden, 3 * hidden)
        self.dense = torch.nn.Linear(hidden, hidden)
        self.norm2 = torch.nn.LayerNorm(hidden)
        self.fc1 = torch.nn.Linear(hidden, 4 * hidden)
        self.fc2 = torch.nn.Linear(4 * hidden, hidden)

    def attend(self, a, tables, segments, masks):
        rows = a.shape[0]
        q, k, v = self.qkv(a).view(rows, self.heads, 3 * self.width).chunk(3, dim=-1)
        q, k = (torch.cat([rotate(half, cos, sin)
                           for half, (cos, sin) in zip(x.chunk(2, dim=-1), tables)], dim=-1)
                for x in (q, k))
        qkv = [x.transpose(0, 1) for x in (q, k, v)]
        parts = [F.scaled_dot_product_attention(*(x[None, :, s:s + n] for x in qkv),
                                                attn_mask=mask)[0]
                 for (s, _, n), mask in zip(segments, masks)]
        return self.dense(torch.cat(parts, dim=1).transpose(0, 1).reshape(rows, -1))

    def forward(self, x, tables, segments, masks):
        a = self.norm1(x)
        m = self.norm2(ALPHA * a + self.attend(a, tables, segments, masks))
        return ALPHA * m + self.fc2(F.gelu(self.fc1(m), approximate="tanh"))


class Model(torch.nn.Module):
    def __init__(self, args):
        super().__init__()
        self.embed = torch.nn.Embedding(args.vocab, args.hidden)
        torch.nn.init.normal_(self.embed.weight, std=1.0 / args.hidden)
        layers = [Layer(args.hidden, args.heads) for _ in range(args.layers)]
        self.layers = torch.nn.ModuleList(layers)
        self.norm = torch.nn.LayerNorm(args.hidden)

    def forward(self, ids, tables, segments, masks, targets, labels):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, tables, segments, masks)
        logits = self.norm(x)[targets] @ self.embed.weight.T
        return F.cross_entropy(logits, labels)


def gemm_rate(n=2048, seconds=1.0):
    a, b, times = torch.randn(n, n), torch.randn(n, n), []
    torch.mm(a, b.T)
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        torch.mm(a, b.T)
        times.append(time.perf_counter() - start)
    return 2.0 * n ** 3 / statistics.median(times)


def product_flop(args, targets):
    """Of a step's matrix products, forward and backward, attention's left out."""
    per_row = 2 * 12 * args.hidden ** 2
    return 3.0 * (args.layers * per_row * args.rows + 2 * args.hidden * args.vocab * targets)


def product_seconds(step):
    """Time of one step inside aten::mm, addmm and bmm."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    names = {"aten::mm", "aten::addmm", "aten::bmm"}
    return sum(e.self_cpu_time_total for e in profile.key_averages() if e.key in names) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = dict(hidden=512, layers=8, heads=8, vocab=8192, rows=2048, steps=10, threads=0)
    for name, value in sizes.items():
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(1)

    micro = packs_from_formula(args.rows, args.vocab, 1)[0][0]
    ids, pos, block, targets, labels = (
        micro[name].long() for name in ("ids", "pos", "block", "target_rows", "labels"))
    segments = [tuple(s) for s in micro["segments"].tolist()]
    cos, sin = rotary_table(args.hidden // args.heads // 2, 2048, "cpu")
    tables = [(cos[p][:, None], sin[p][:, None]) for p in (pos, block)]
    masks = []
    for _, ctx, n in segments:
        row, col = torch.arange(n)[:, None], torch.arange(n)[None]
        masks.append((col <= row) | (col < ctx))

    model = Model(args)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    groups = [dict(params=matrices), dict(params=vectors, weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, weight_decay=0.0, fused=True)
    forward = torch.compile(model, dynamic=False) if args.compile else model

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = forward(ids, tables, segments, masks, targets, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    ceiling = gemm_rate()
    for _ in range(2):
        step()
    times = []
    for _ in range(args.steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    ceiling = max(ceiling, gemm_rate())
    step_s, inside_s = statistics.median(times), product_seconds(step)
    rate = product_flop(args, len(targets)) / inside_s
    result = dict(torch=torch.__version__, threads=torch.get_num_threads(), compiled=args.compile,
                  parameters=sum(p.numel() for p in model.parameters()), rows=args.rows,
                  targets=len(targets), step_s=round(step_s, 6),
                  tokens_per_s=round(args.rows / step_s, 1),
                  gemm_share=round(inside_s / step_s, 4), gemm_gflops=round(rate / 1e9, 2),
                  ceiling_gflops=round(ceiling / 1e9, 2), gemm_fraction=round(rate / ceiling, 4))
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key:15} {value}")


if __name__ == "__main__":
    main()

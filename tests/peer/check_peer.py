#!/usr/bin/env python3
"""Is the PyTorch peer the same model? Run by the test `peer` where python3 has PyTorch.

    python3 tests/peer/check_peer.py PATH_OF_SOULCHAT

- The forms of attention that need a GPU are the mask, when their library calls are replaced by
  plain ones: which rows go where is checked here, the calls themselves before every measurement.
- Losses of five steps, clipping and AdamW included, equal those of `soulchat bench step` on the
  same weights and micro-batches to float32 rounding.
"""
import json
import math
import os
import subprocess
import sys
import tempfile
import types

try:
    import torch
except ImportError:
    print("SKIP: python3 has no PyTorch")
    sys.exit(77)

import glm_torch as glm
import train_torch

MODEL = "tests/golden/chatglm-tiny"


def plain_varlen(q, k, v, q_bounds, k_bounds, q_most, k_most, causal=False):
    out = torch.zeros_like(q)
    for i in range(len(q_bounds) - 1):
        a, b = q_bounds[i].item(), q_bounds[i + 1].item()
        c, d = k_bounds[i].item(), k_bounds[i + 1].item()
        assert b - a <= q_most and d - c <= k_most
        score = torch.einsum("qhd,khd->hqk", q[a:b], k[c:d]) / math.sqrt(q.shape[-1])
        if causal:  # aligned at the lower right
            row, col = torch.arange(b - a)[:, None], torch.arange(d - c)[None]
            score = score.masked_fill(col > row + (d - c) - (b - a), float("-inf"))
        out[a:b] = torch.einsum("hqk,khd->qhd", score.softmax(-1), v[c:d])
    return out


def check_two_calls():
    a = types.SimpleNamespace(device="cpu")
    glm.flash, glm.cudnn = plain_varlen, plain_varlen
    for name in ("flash", "cudnn", "segments"):
        error = train_torch.check_attention(a, glm.ATTENTION[name], name, 2, 16, torch.float32)
        print(f"attention {name}: error {error:.1e}")
        assert error < 1e-5, name


def check_flex_mask():
    micro = glm.packs_from_formula(512, 640, 1)[0][0]
    m = glm.layout(micro, "cpu")
    glm.prepare_flex(m)
    rows = torch.arange(m.rows)
    got = torch.stack([m.block_mask.mask_mod(0, 0, r, rows) for r in rows])
    expected = torch.zeros(m.rows, m.rows, dtype=torch.bool)
    for s, c, n in m.segments:
        row, col = torch.arange(n)[:, None], torch.arange(n)[None]
        expected[s:s + n, s:s + n] = (col <= row) | (col < c)
    assert torch.equal(got, expected)
    print("flex: the mask is the prefix mask")


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def check_losses(soulchat):
    with tempfile.TemporaryDirectory() as folder:
        packs = os.path.join(folder, "packs.safetensors")
        subprocess.run([soulchat, "bench", "packs", packs, "--bench.steps=2", "--bench.micro=2",
                        "--bench.rows=512", "--bench.vocab=640"], check=True, capture_output=True)
        ours = run([soulchat, "bench", "step", f"--bench.packs={packs}", f"--bench.model={MODEL}",
                    "--bench.steps=3", "--bench.probe=64", "--train.threads=1", "--json"])
        theirs = run([sys.executable, "tests/peer/train_torch.py", "--packs", packs, "--model",
                      MODEL, "--steps", "3", "--threads", "1", "--device", "cpu",
                      "--attention", "segments"])
    for step, (x, y) in enumerate(zip(ours["losses"], theirs["losses"], strict=True)):
        print(f"step {step + 1}: soulchat {x:.6f}, PyTorch {y:.6f}")
        assert abs(x - y) < 2e-6 * abs(y), "losses differ by more than rounding"
    assert ours["losses"][-1] < ours["losses"][0]
    assert ours["tokens"] == theirs["tokens"]


def main():
    check_two_calls()
    check_flex_mask()
    check_losses(sys.argv[1])


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What PyTorch's libraries reach on this device: rates of matrix products and of a copy.

    python3 tests/peer/ceilings_torch.py [--device cuda|cpu] [--side 8192] [--rows 16384]
                                         [--json FILE]

Random numbers (constant ones draw less power and run faster), medians of timed calls after
warm-up, copies counted as bytes read plus bytes written. The last line is JSON.
"""
import argparse
import json
import statistics
import time

import torch


def seconds_of(work, device, calls):
    def once():
        if device == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(calls):
            work()
        if device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - begin) / calls
    once()
    return statistics.median(once() for _ in range(7))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    p.add_argument("--side", type=int, default=8192)
    p.add_argument("--rows", type=int, default=16384)
    p.add_argument("--hidden", type=int, default=4096)
    p.add_argument("--copy", type=int, default=1 << 32, help="bytes")
    p.add_argument("--json")
    a = p.parse_args()
    dtype = torch.bfloat16 if a.device == "cuda" else torch.float32
    calls = 5 if a.device == "cuda" else 1
    C, R, n = a.hidden, a.rows, a.side
    shapes = {"square": (n, n, n), "qkv": (R, 3 * C, C), "dense": (R, C, C), "fc1": (R, 4 * C, C),
              "fc2": (R, C, 4 * C), "fc1 weight gradient": (4 * C, C, R)}
    result = {"torch": torch.__version__, "dtype": str(dtype), "gemm_tflops": {}}
    for name, (m, k_out, k) in shapes.items():
        x, w = (torch.randn(d, k, device=a.device, dtype=dtype) for d in (m, k_out))
        seconds = seconds_of(lambda: x @ w.T, a.device, calls)
        result["gemm_tflops"][name] = round(2.0 * m * k_out * k / seconds / 1e12, 4)
    x = torch.randn(a.copy // 4, device=a.device)
    y = torch.empty_like(x)
    result["copy_gb_per_s"] = round(2.0 * a.copy / seconds_of(lambda: y.copy_(x), a.device, calls)
                                    / 1e9, 3)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

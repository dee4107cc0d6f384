#!/usr/bin/env python3
"""Does scripts/gpu_report.py judge as it should? Run by the test `gpu_report`.

A folder as the stages of gpu_check.sh leave it, with known figures: every bar's verdict is
compared, once where all are met, once where each is missed, once where nothing was measured.
"""
import json
import os
import subprocess
import sys
import tempfile

REPORT = "scripts/gpu_report.py"
COPY, PRODUCT, PARAMETERS = 4e12, 8e14, 6173286400


def put(folder, name, *lines):
    with open(os.path.join(folder, name), "w") as f:
        f.write("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")


def operator(name, ceiling, share):
    return dict(operator=name, shape="s", dtype="bf16", flop=8e11, bytes=4e9, ceiling=ceiling,
                ms=1.0 / share, of_floor=share)


def checks(ok):
    status = "ok" if ok else "failed (1)"
    return [dict(check=name, stage=stage, status=status, ms=1)
            for name, stage in (("parity-f32", "smoke"), ("test_x", "tests"),
                                ("same-bytes", "equal"), ("memcheck-norm", "sanitize"),
                                ("no-device", "conditions"))]


def step(seconds, update_s, allocations):
    return dict(parameters=PARAMETERS, tokens_per_s=65536 / seconds, step_s=seconds,
                model_gflop=2.28e6, of_ceiling=2.28e15 / seconds / PRODUCT, device_bytes=1,
                ceiling_gflops=PRODUCT / 1e9, parts_s=dict(update=update_s),
                allocations_after_first=allocations, losses=[1.0])


def curve(offset):
    return [5.0 - 0.01 * i + offset for i in range(40)]


def trace(gap):
    """Two micro-batches of one step, the norm, and one of the next step."""
    spans = [("micro_batch", 0, 1000), ("micro_batch", 1000 + gap, 1000),
             ("sumsq_chunks", 2100 + gap, 10), ("micro_batch", 5000, 1000)]
    return [dict(name=n, ph="X", ts=t, dur=d, tid=1, pid=1) for n, t, d in spans]


def fill(folder, good):
    put(folder, "info.txt", "gpu=NVIDIA H200, 580, 143771 MiB", "commit=0123456789abcdef")
    put(folder, "checks.jsonl", *checks(good), '{"check": "cut sho')
    for kind in ("bf16", "bf16-grads"):
        ratio = 1.1 if good else 1.3
        put(folder, f"smoke-parity-{kind}.log", "== parity",
            dict(logits_ratio=ratio, grad_ratio=ratio, ok=good))
    put(folder, "bench_ops.jsonl", dict(ceiling="copy", dtype="bf16", rate=COPY),
        dict(ceiling="product", dtype="bf16", rate=PRODUCT), operator("linear_fwd", "product", .9),
        operator("attn_fwd", "product", .7), operator("attn_bwd", "product", .5),
        operator("norm_fwd", "copy", .9 if good else .8))
    floor = 28 * PARAMETERS / COPY
    put(folder, "step-bf16-grads.json",
        step(3.4 if good else 3.7, floor * (1.1 if good else 1.3), 0 if good else 2))
    put(folder, "step-bf16-grads.card", "500, 345, 90.1, 30", "133000, 1900, 690, 60", "133, 19")
    put(folder, "ceilings.json", dict(gemm_tflops=dict(square=PRODUCT / 1e12), copy_gb_per_s=1))
    put(folder, "peer.json", dict(torch="2", tokens_per_s=16000, attention="flash", peak_bytes=1))
    off = 1.01 if good else 1.2
    put(folder, "plan.json", dict(memory=dict(device_bytes=int(133000 * 2 ** 20 * off)),
                                  time=dict(step_s=3.4 * off)))
    for name, offset in (("ours", 0.0), ("noise", 0.001)):
        put(folder, f"learn-{name}.jsonl",
            *(dict(step=i + 1, loss=x, lr=1e-4, tokens=100, seconds=1.0)
              for i, x in enumerate(curve(offset))))
    put(folder, "learn-peer.json", dict(losses=curve(0.001 if good else 0.1)))
    put(folder, "conditions.jsonl", dict(condition="no-device", status=1, said=["x"], ok=good))
    put(folder, "trace.json", json.dumps(trace(1 if good else 100)))


def judge(folder):
    out = os.path.join(folder, "out.json")
    done = subprocess.run([sys.executable, REPORT, folder, out, "--table", "--verdict"],
                          capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    with open(out) as f:
        return {b["bar"]: b["verdict"] for b in json.load(f)["bars"]}, done.returncode


def expect(good, verdict, status):
    with tempfile.TemporaryDirectory() as folder:
        if good is None:  # a rehearsal's figures say nothing about the whole model's
            put(folder, "info.txt", "tiny=1")
            put(folder, "step-tiny.json", step(9.0, 9.0, None))
            put(folder, "bench_ops.jsonl", operator("norm_fwd", "copy", .1))
        else:
            fill(folder, good)
        verdicts, got = judge(folder)
        wrong = {bar: v for bar, v in verdicts.items() if v != verdict}
        assert not wrong, f"expected all {verdict}: {wrong}"
        assert len(verdicts) == 16 and got == status, (len(verdicts), got)
        print(f"{verdict}: {len(verdicts)} bars")


def check_cut_short():
    """What was not made, or lacks what it needs, is not known; the other verdicts stand."""
    more = [("doctor", "smoke", "failed (1)"), ("test_y", "tests", "no time"),
            ("train-whole", "equal", "stopped at 40 s"), ("two-steps", "conditions", "failed (1)"),
            ("compute-sanitizer", "sanitize", "not here")]
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, True)
        put(folder, "checks.jsonl", *checks(True),
            *(dict(check=c, stage=stage, status=status, ms=1) for c, stage, status in more))
        verdicts, _ = judge(folder)
    unknown = sorted(bar.split()[0] for bar, v in verdicts.items() if v == "not measured")
    assert unknown == ["bad", "checks", "runs", "tests"], verdicts
    assert set(verdicts.values()) == {"met", "not measured"}, verdicts
    print("cut short: not measured")


def check_rates():
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, True)
        path = os.path.join(folder, "rates.json")
        subprocess.run([sys.executable, REPORT, folder, path + ".out", "--rates", path],
                       check=True, capture_output=True)
        with open(path) as f:
            rates = json.load(f)["NVIDIA H200"]
        assert rates["gemm_bf16"] == PRODUCT and rates["copy"] == COPY
        assert abs(rates["gemm_share"] - 0.9) < 1e-3 and abs(rates["attn_bwd"] / 4e14 - 1) < 1e-3
        print("rates: as measured")


def main():
    expect(True, "met", 0)
    expect(False, "MISSED", 1)
    expect(None, "not measured", 0)
    check_cut_short()
    check_rates()


if __name__ == "__main__":
    main()

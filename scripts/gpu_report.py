#!/usr/bin/env python3
"""What the stages of scripts/gpu_check.sh left in a folder, as one JSON; --table prints a summary.

    gpu_report.py FOLDER OUT.json [--table]
"""
import glob
import json
import os
import sys


def lines_of(folder, name):
    try:
        with open(os.path.join(folder, name)) as f:
            return [json.loads(line) for line in f if line.strip()]
    except FileNotFoundError:
        return []


def read(folder, name):
    """The JSON of a file, None where it is not there or was cut short."""
    try:
        with open(os.path.join(folder, name)) as f:
            return json.load(f)
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def info_of(folder):
    try:
        with open(os.path.join(folder, "info.txt")) as f:
            return dict(line.rstrip("\n").split("=", 1) for line in f if "=" in line)
    except FileNotFoundError:
        return {}


def parity_of(folder):
    """The last line of each parity run is JSON."""
    out = {}
    for path in glob.glob(os.path.join(folder, "smoke-parity-*.log")):
        with open(path) as f:
            last = ([line for line in f if line.startswith("{")] or ["null"])[-1]
        try:
            out[os.path.basename(path)[len("smoke-"):-len(".log")]] = json.loads(last)
        except json.JSONDecodeError:
            pass
    return out


def steps_of(folder):
    steps = {}
    for path in sorted(glob.glob(os.path.join(folder, "step-*.json"))):
        step = read(folder, os.path.basename(path))
        if step is not None:
            steps[os.path.basename(path)[len("step-"):-len(".json")]] = step
    return steps


def collect(folder):
    report = {"info": info_of(folder), "checks": lines_of(folder, "checks.jsonl"),
              "parity": parity_of(folder), "operators": lines_of(folder, "bench_ops.jsonl"),
              "ceilings_torch": read(folder, "ceilings.json"), "steps": steps_of(folder),
              "peer": read(folder, "peer.json")}
    report["failures"] = [c["check"] for c in report["checks"]
                          if c["status"] not in ("ok", "skipped")]
    best = (report["ceilings_torch"] or {}).get("gemm_tflops", {}).get("square")
    for step in report["steps"].values():
        if best:
            step["of_torch_gemm_rate"] = round(
                step["model_gflop"] / step["step_s"] / (best * 1e3), 4)
        if report["peer"]:
            step["over_peer"] = round(step["tokens_per_s"] / report["peer"]["tokens_per_s"], 4)
    return report


def table(report):
    checks = report["checks"]
    ok = sum(c["status"] == "ok" for c in checks)
    print(f"\n{report['info'].get('gpu', report['info'].get('device', ''))}, "
          f"commit {report['info'].get('commit', '')[:12]}")
    print(f"checks: {ok} of {len(checks)} ok; not ok: {', '.join(report['failures']) or 'none'}")
    for row in report["operators"]:
        if "of_floor" in row:
            print(f"{row['operator']:18} {row['shape']:34} {row['dtype']:5} {row['ms']:10.3f} ms "
                  f"{100 * row['of_floor']:6.1f} % of floor ({row['ceiling']})")
    for name, step in report["steps"].items():
        print(f"step {name}: {step['step_s']:.4f} s, {step['tokens_per_s']:.0f} tokens/s, "
              f"{100 * step['of_ceiling']:.1f} % of the product rate "
              f"{step['ceiling_gflops'] / 1e3:.1f} TFLOP/s, {step['device_bytes'] / 1e9:.2f} GB"
              + (f", {step['over_peer']:.3f} x PyTorch" if "over_peer" in step else ""))
    peer = report["peer"]
    if peer:
        print(f"PyTorch {peer['torch']}: {peer['tokens_per_s']:.0f} tokens/s, attention "
              f"{peer['attention']}, {peer['peak_bytes'] / 1e9:.2f} GB")
    if report["ceilings_torch"]:
        print(f"PyTorch's ceilings: {report['ceilings_torch']}")


def main():
    report = collect(sys.argv[1])
    with open(sys.argv[2], "w") as f:
        json.dump(report, f, indent=1)
        f.write("\n")
    if "--table" in sys.argv[3:]:
        table(report)
        print(f"report: {sys.argv[2]}")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What the stages of scripts/gpu_check.sh left in a folder: one JSON, a verdict for each bar.

    gpu_report.py FOLDER OUT.json [--table] [--verdict] [--rates FILE]

--table prints a summary. --verdict: exit status 1 if a check failed. --rates writes the measured
rates as `soulchat plan --plan.rates` reads them, prints the card's name and, on a second line, the
settings that describe the bundle's samples; exit status 1 if no rates were measured.
"""
import glob
import json
import os
import re
import struct
import sys

PACKS = ".gpu-deps/packs.safetensors"
SMOOTH = 10  # steps that a point of a loss curve is the mean of
ADAMW_BYTES = {"bf16-grads": 28, "f32-grads": 30}  # a parameter; kernels/PERF.md
MEMORY_BOUND = ("copy", "read")


# ---- reading ----

def text_of(folder, name):
    try:
        with open(os.path.join(folder, name), errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def lines_of(folder, name):
    """The JSON objects of a file, a line each; a line that was cut short is left out."""
    out = []
    for line in text_of(folder, name).splitlines():
        try:
            out.append(json.loads(line))
        except json.JSONDecodeError:
            pass
    return out


def read(folder, name):
    """The JSON of a file, None where it is not there or was cut short."""
    try:
        return json.loads(text_of(folder, name))
    except json.JSONDecodeError:
        return None


def info_of(folder):
    lines = text_of(folder, "info.txt").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def named(folder, prefix, suffix):
    """(name, path's last part) of files PREFIX NAME SUFFIX."""
    for path in sorted(glob.glob(os.path.join(folder, prefix + "*" + suffix))):
        file = os.path.basename(path)
        yield file[len(prefix):-len(suffix)], file


def parity_of(folder):
    """The last line of each parity run is JSON."""
    out = {}
    for name, file in named(folder, "smoke-parity-", ".log"):
        found = [line for line in text_of(folder, file).splitlines() if line.startswith("{")]
        try:
            out[name] = json.loads(found[-1])
        except (IndexError, json.JSONDecodeError):
            pass
    return out


def cards_of(folder):
    """The largest memory and the means of clock, power and temperature while steps ran."""
    out = {}
    for name, file in named(folder, "step-", ".card"):
        rows = [[float(x) for x in re.findall(r"[\d.]+", line)]
                for line in text_of(folder, file).splitlines()]
        rows = [row for row in rows if len(row) == 4]
        if not rows:
            continue
        busy = [row for row in rows if row[2] > 0.5 * max(r[2] for r in rows)]
        means = [sum(column) / len(busy) for column in zip(*busy)]
        out[name] = dict(memory_bytes=int(max(row[0] for row in rows) * 2 ** 20),
                         clock_mhz=round(means[1]), power_w=round(means[2]),
                         temperature_c=round(means[3]))
    return out


def ncu_of(folder):
    """Kernel by kernel what ncu's CSV says; its columns are named by the line that begins "ID"."""
    import csv
    out = []
    for name, file in named(folder, "ncu-ncu-", ".log"):
        lines = [line for line in text_of(folder, file).splitlines() if line.startswith('"')]
        rows = list(csv.DictReader(lines))
        kernels = {}
        for row in rows:
            if "Metric Name" in row:
                kernel = kernels.setdefault(
                    row["ID"], {"group": name, "kernel": row["Kernel Name"]})
                kernel[row["Metric Name"]] = f'{row["Metric Value"]} {row["Metric Unit"]}'.strip()
        out += kernels.values()
    return out


# ---- what follows ----

def smooth(losses):
    return [sum(losses[i:i + SMOOTH]) / SMOOTH for i in range(0, len(losses) - SMOOTH + 1, SMOOTH)]


def apart(a, b):
    """Mean relative difference of two smoothed curves over the steps that both have."""
    pairs = list(zip(smooth(a), smooth(b)))
    return sum(abs(x - y) / y for x, y in pairs) / len(pairs) if pairs else None


def idle_between(folder):
    """What the device waits between two micro-batches of a step, as a share of the shorter one: the
    largest. Between those that another operator follows lies the end of a step."""
    track = [e for e in read(folder, "trace.json") or [] if e["ph"] == "X" and e["tid"] == 1]
    micro = sorted((e for e in track if e["name"] == "micro_batch"), key=lambda e: e["ts"])
    ends = [e["ts"] for e in track if e["name"] in ("sumsq_chunks", "adamw_segments")]
    shares = []
    for a, b in zip(micro, micro[1:]):
        end = a["ts"] + a["dur"]
        if not any(end <= t <= b["ts"] for t in ends):
            shares.append((b["ts"] - end) / min(a["dur"], b["dur"]))
    return max(shares, default=None)


def learned(folder):
    ours, noise = ([line["loss"] for line in lines_of(folder, f"learn-{name}.jsonl")
                    if "lr" in line] for name in ("ours", "noise"))
    peer = read(folder, "learn-peer.json")
    out = {"ours": ours, "noise": noise, "peer": peer,
           "replies": text_of(folder, "learn-replies.log").splitlines()[1:]}
    if ours and peer:
        steps = [line for line in lines_of(folder, "learn-ours.jsonl") if "lr" in line]
        out["tokens_per_s"] = round(sum(s["tokens"] for s in steps[5:]) /
                                    max(sum(s["seconds"] for s in steps[5:]), 1e-9), 1)
        out["from_peer"] = apart(ours, peer["losses"])
        out["from_rounding"] = apart(noise, ours)
        out["last"] = min(len(ours), len(peer["losses"]))
    return out if ours else None


def rate_of(rows, name):
    found = [r["rate"] for r in rows if r.get("ceiling") == name and "rate" in r
             and r["dtype"] == "bf16"]
    return found[-1] if found else None


def measured_rates(report):
    """What `soulchat plan` reads; None where products, attention or copies were not measured."""
    rows = [r for r in report["operators"] if r.get("dtype") == "bf16"]
    gemm, copy = rate_of(rows, "product"), rate_of(rows, "copy")
    timed = [r for r in rows if "ms" in r]
    dense = [r for r in timed
             if r["operator"] in ("linear_fwd", "linear_dx", "linear_dw bf16", "linear_dw f32")]
    attn = {name: [r for r in timed if r["operator"] == name] for name in ("attn_fwd", "attn_bwd")}
    if not gemm or not copy or not dense or not attn["attn_bwd"]:
        return None
    per_s = lambda rows: sum(r["flop"] for r in rows) / sum(r["ms"] for r in rows) * 1e3
    rates = dict(gemm_bf16=gemm, gemm_share=round(min(per_s(dense) / gemm, 1.0), 4), copy=copy,
                 attn_fwd=per_s(attn["attn_fwd"][:2]), attn_bwd=per_s(attn["attn_bwd"][:2]))
    wide = [r["rate"] for r in report["operators"] if r.get("ceiling") == "product"
            and r.get("dtype") == "f32" and "rate" in r]
    return dict(rates, gemm_f32=wide[-1]) if wide else rates


def samples_of(path):
    """Mean rows before a reply and of replies in a file of packs, as settings of plan."""
    context = target = count = 0
    with open(path, "rb") as f:
        size, = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(size))
        for name, entry in header.items():
            if not name.endswith("/segments"):
                continue
            f.seek(8 + size + entry["data_offsets"][0])
            rows = entry["shape"][0]
            values = struct.unpack(f"<{3 * rows}i", f.read(12 * rows))
            context += sum(values[1::3])
            target += sum(values[2::3]) - sum(values[1::3])
            count += rows
    return f"--plan.context={round(context / count)} --plan.target={round(target / count)}"


# ---- the bars ----

def bar(name, value, bound, upper, note=""):
    """upper: the value must not be above the bound, else not below."""
    if value is None:
        verdict = "not measured"
    else:
        verdict = "met" if (value <= bound if upper else value >= bound) else "MISSED"
    if isinstance(value, float):
        value = round(value, 4)
    return dict(bar=name, value=value, bound=("<= " if upper else ">= ") + str(bound),
                verdict=verdict, note=note)


def checks_bar(name, report, stage, pattern=".", needs="."):
    """How many checks of a stage failed, of those that match the pattern. Where none did, but one
    was not made, or one that they need failed, it is not known."""
    of_stage = [c for c in report["checks"] if c["stage"] == stage and re.search(needs, c["check"])
                and c["status"] != "skipped"]
    found = [c for c in of_stage if re.search(pattern, c["check"])
             and c["status"] not in ("no time", "not here")]
    bad = [c["check"] for c in found if c["status"] != "ok"]
    cut = [c["check"] for c in of_stage if c["status"] != "ok" and c["check"] not in bad]
    return bar(name, len(bad) if bad or (found and not cut) else None, 0, True,
               f"{len(found)} checks" + (": " + ", ".join(bad + cut) if bad or cut else ""))


def most(values):
    values = [v for v in values if v is not None]
    return max(values) if values else None


def precision_bars(report):
    parity = report["parity"]
    ratio = lambda what: most(p.get(what + "_ratio") for p in parity.values())
    return [checks_bar("float32 on the device: parity with the goldens failed", report, "smoke",
                       "parity-f32", "parity-f32"),
            bar("bf16 logits: error over PyTorch's", ratio("logits"), 1.2, True),
            bar("bf16 gradients: error over PyTorch's", ratio("grad"), 1.2, True)]


def speed_bars(report):
    step = report["steps"].get("bf16-grads") or {}
    tiny = report["info"].get("tiny") == "1"
    slow = [r for r in report["operators"] if r.get("ceiling") in MEMORY_BOUND
            and "of_floor" in r and r["dtype"] == "bf16" and not tiny]
    below = [f'{r["operator"]} {r["shape"]}: {r["of_floor"]:.3f}' for r in slow
             if r["of_floor"] < 0.85]
    against = [step.get(x) for x in ("of_ceiling", "of_torch_gemm_rate") if step.get(x)]
    return [bar("step of ChatGLM-6B: of the product rate, ours or PyTorch's, the higher",
                min(against) if against else None, 0.80, False),
            bar("step of ChatGLM-6B: times PyTorch", step.get("over_peer"), 1.15, False),
            bar("kernels bound by memory: least share of the copy rate",
                min((r["of_floor"] for r in slow), default=None), 0.85, False, "; ".join(below)),
            bar("AdamW of 6.17e9 parameters: times its byte floor",
                step.get("adamw_over_floor"), 1.2, True),
            bar("device idle between two micro-batches, of one's time",
                report["idle_between_micro"], 0.01, True),
            bar("device allocations after the first step", most(
                s.get("allocations_after_first") for s in report["steps"].values()), 0, True)]


def plan_bars(report):
    step, plan = report["steps"].get("bf16-grads"), report["plan"]
    memory = seconds = None
    if step and plan:
        card = report["cards"].get("bf16-grads", {}).get("memory_bytes") or step["device_bytes"]
        memory = abs(plan["memory"]["device_bytes"] / card - 1.0)
        seconds = abs(plan["time"]["step_s"] / step["step_s"] - 1.0)
    return [bar("plan: peak memory off by", memory, 0.03, True),
            bar("plan: time of a step off by", seconds, 0.10, True)]


def learn_bars(report):
    learn = report["learn"] or {}
    rounding = learn.get("from_rounding")
    bound = round(max(1.5 * (rounding or 0.0), 0.005), 4)
    return [bar("training from scratch: mean distance from PyTorch's loss curve",
                learn.get("from_peer"), bound, True,
                f"two roundings of ours: {rounding}; {learn.get('last')} steps")]


def bars_of(report):
    conditions = "|".join(c["condition"] for c in report["conditions"]) or "none"
    return (precision_bars(report) + speed_bars(report) + plan_bars(report) + learn_bars(report) + [
        checks_bar("runs that did not repeat to the bit", report, "equal", "same"),
        checks_bar("tests on the device that failed", report, "tests"),
        checks_bar("checks by compute-sanitizer that failed", report, "sanitize"),
        checks_bar("bad conditions not answered as promised", report, "conditions",
                   f"^({conditions})$")])


# ---- all of it ----

def steps_of(folder):
    found = ((name, read(folder, file)) for name, file in named(folder, "step-", ".json"))
    return {name: step for name, step in found if step}


def relate_steps(report):
    """Steps beside PyTorch's product rate and steps, and the update beside its bytes."""
    best = max((report["ceilings_torch"] or {}).get("gemm_tflops", {}).values(), default=None)
    copy = rate_of(report["operators"], "copy") or \
        1e9 * (report["ceilings_torch"] or {}).get("copy_gb_per_s", 0.0)
    for name, step in report["steps"].items():
        if best:
            step["of_torch_gemm_rate"] = round(
                step["model_gflop"] / step["step_s"] / (best * 1e3), 4)
        if report["peer"]:
            step["over_peer"] = round(step["tokens_per_s"] / report["peer"]["tokens_per_s"], 4)
        if copy and name in ADAMW_BYTES:
            floor = ADAMW_BYTES[name] * step["parameters"] / copy
            step["adamw_over_floor"] = round(step["parts_s"]["update"] / floor, 4)


def collect(folder):
    report = {"info": info_of(folder), "bars": [], "checks": lines_of(folder, "checks.jsonl"),
              "parity": parity_of(folder), "operators": lines_of(folder, "bench_ops.jsonl"),
              "ceilings_torch": read(folder, "ceilings.json"), "steps": steps_of(folder),
              "cards": cards_of(folder), "peer": read(folder, "peer.json"),
              "plan": read(folder, "plan.json"), "learn": learned(folder),
              "idle_between_micro": idle_between(folder),
              "conditions": lines_of(folder, "conditions.jsonl"), "ncu": ncu_of(folder)}
    report["failures"] = [c["check"] for c in report["checks"]
                          if c["status"] not in ("ok", "skipped")]
    relate_steps(report)
    report["bars"] = bars_of(report)
    return report


def table(report):
    checks = report["checks"]
    ok = sum(c["status"] == "ok" for c in checks)
    print(f"\n{report['info'].get('gpu', report['info'].get('device', ''))}, "
          f"commit {report['info'].get('commit', '')[:12]}")
    for row in report["operators"]:
        if "of_floor" in row:
            print(f"{row['operator']:18} {row['shape']:34} {row['dtype']:5} {row['ms']:10.3f} ms "
                  f"{100 * row['of_floor']:6.1f} % of floor ({row['ceiling']})")
    for name, step in report["steps"].items():
        print(f"step {name}: {step['step_s']:.4f} s, {step['tokens_per_s']:.0f} tokens/s, "
              f"{100 * step['of_ceiling']:.1f} % of the product rate "
              f"{step['ceiling_gflops'] / 1e3:.1f} TFLOP/s, {step['device_bytes'] / 1e9:.2f} GB"
              + (f", {step['over_peer']:.3f} x PyTorch" if "over_peer" in step else ""))
    for name, card in report["cards"].items():
        print(f"card {name}: {card}")
    peer = report["peer"]
    if peer:
        print(f"PyTorch {peer['torch']}: {peer['tokens_per_s']:.0f} tokens/s, attention "
              f"{peer['attention']}, {peer['peak_bytes'] / 1e9:.2f} GB {peer.get('notes', '')}")
    if report["ceilings_torch"]:
        print(f"PyTorch's ceilings: {report['ceilings_torch']}")
    print()
    for b in report["bars"]:
        print(f"{b['verdict']:12} {b['bar']}: {b['value']} ({b['bound']}) {b['note'][:160]}")
    print(f"\nchecks: {ok} of {len(checks)} ok; not ok: {', '.join(report['failures']) or 'none'}")


def write_rates(report, path):
    rates = measured_rates(report)
    gpu = report["info"].get("gpu", "").split(",")[0]
    if rates is None or not gpu:
        return False
    with open(path, "w") as f:
        json.dump({gpu: rates}, f)
    print(gpu)
    if os.path.exists(PACKS):
        print(samples_of(PACKS))
    return True


def main():
    folder, out, options = sys.argv[1], sys.argv[2], sys.argv[3:]
    report = collect(folder)
    new = f"{out}.{os.getpid()}.tmp"  # several checks may run side by side
    with open(new, "w") as f:
        json.dump(report, f, indent=1, ensure_ascii=False)
        f.write("\n")
    os.replace(new, out)  # what was there stays whole if this is killed
    if "--table" in options:
        table(report)
        print(f"report: {out}")
    if "--rates" in options and not write_rates(report, options[options.index("--rates") + 1]):
        return 1
    return 1 if "--verdict" in options and report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# One rank and several on the processors of this machine: what `soulchat plan` predicts beside what
# `soulchat train` takes, and what ranks wait for. To be read by people.
#
#     SOULCHAT=build/bin/soulchat tests/bench/scaling.sh [RANKS [ROUNDS]]      RANKS a power of two
#
# Every rank has one thread. Runs of both kinds take turns, since other work on the machine changes
# all times; what counts is the ratio. Processor time, which other work changes less, is compared as
# well: what ranks do more than one rank. The link's rate is measured first, and given to the plan.
set -euo pipefail
soulchat=$(realpath "${SOULCHAT:?path of the soulchat program}")
ranks=${1:-2} rounds=${2:-5}
cd "$(dirname "$0")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The sample's tokenizer, and a model of seven million parameters.
cp -r data/sample/model "$scratch/model"
python3 - "$scratch/model/config.json" <<'PYTHON'
import json, sys
config = json.load(open(sys.argv[1]))
config.update(hidden_size=256, inner_hidden_size=1024, num_layers=8, num_attention_heads=4)
json.dump(config, open(sys.argv[1], "w"))
PYTHON
settings=(--config configs/tiny.yaml --data.dir="$scratch/corpus" --model.dir="$scratch/model"
  --batch.size=16 --batch.lanes="$ranks" --train.threads=1)
"$soulchat" prepare "${settings[@]}" > /dev/null 2>&1

sizes=(--bench.hidden=256 --bench.layers=8 --bench.heads=4 --bench.vocab=2000)
link=$(scripts/launch/node.sh --nproc "$ranks" -- "$soulchat" bench comm --json \
  --train.threads=1 --bench.steps=15 "${sizes[@]}" | sed 's/.*"gb_per_s":\([0-9.]*\).*/\1/')

train() { # RANKS OUT STEPS: seconds of steps but for the first, and the processors' of the run
  local TIMEFORMAT='%U'
  rm -rf "$scratch/run"
  { time "$soulchat" train "${settings[@]}" --train.out="$scratch/run" --train.steps="$3" \
    --train.warmup_steps=1 --train.validate_every=0 --train.save_every=0 --ranks "$1" "${@:4}" \
    > "$scratch/log" 2>&1; } 2>> "$2.cpu$3" || { cat "$scratch/log" >&2; exit 1; }
  grep -o '"seconds":[0-9.]*' "$scratch/run/metrics.jsonl" | cut -d: -f2 | tail -n +2 \
    >> "$2" || true
}
for ((i = 0; i < rounds; i++)); do
  for steps in 1 7; do # what a start takes of the processors is taken off
    train 1 "$scratch/one" "$steps"
    train "$ranks" "$scratch/many" "$steps" --train.zero=1
    train "$ranks" "$scratch/many2" "$steps" --train.zero=2
  done
done
plan() { # STAGE; one call, one measurement of the processor
  "$soulchat" plan --scaling --json "${settings[@]}" --plan.card=cpu --train.zero="$1" \
    --plan.intra="$link" --plan.message_us=20
}
plan 1 > "$scratch/many.json"
plan 2 > "$scratch/many2.json"

python3 - "$scratch" "$ranks" "$link" <<'PYTHON'
import json, statistics, sys
folder, ranks, link = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
numbers = lambda name: [float(line) for line in open(f"{folder}/{name}")]
cpu = lambda name: [b - a for a, b in zip(numbers(name + ".cpu1"), numbers(name + ".cpu7"))]
one = numbers("one")
load = lambda name: json.load(open(f"{folder}/{name}.json"))
rows = lambda name: {row["ranks"]: row for row in load(name)["fixed"]}
print(f"link {link:.2f} GB/s; one rank: step {statistics.median(one):.3f} s measured, "
      f"{rows('many')[1]['step_s']:.3f} s predicted")
for name, stage in ("many", 1), ("many2", 2):
    plan = rows(name)[ranks]
    # the same samples in the same step: ratios step by step
    ratios = [a / b for a, b in zip(one, numbers(name))]
    more = statistics.median(b / a for a, b in zip(cpu("one"), cpu(name)))
    print(f"{ranks} ranks, train.zero {stage}: "
          f"{statistics.median(ratios):.2f} times as fast measured "
          f"({min(ratios):.2f} to {max(ratios):.2f}), {ranks * plan['efficiency']:.2f} predicted; "
          f"{more:.3f} times the processor time of a step; "
          f"sent {plan['sent_bytes'] / 1e6:.1f} MB a rank and step; "
          f"waiting {plan['exposed_s']:.3f} of {plan['step_s']:.3f} s predicted")
PYTHON

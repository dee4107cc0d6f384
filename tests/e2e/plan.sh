#!/usr/bin/env bash
# soulchat plan as its user runs it: the shipped settings fit their cards with 3 % to spare, what is
# offered as a change fits, --json is JSON, and a wrong word is one line.
. "$(dirname "$0")/common.sh"

plan() { must "plan $*" "$soulchat" plan "$@"; }

# The settings of each card, on the cards of that size; 3 % of each must stay free (plan.spare).
while read -r size cards; do
    for card in $cards; do
        plan --config "configs/chatglm-6b-1x$size.yaml" --plan.card="$card"
        grep -q "It fits, with 3.0 % to stay free" "$scratch/log" || fail "$size on $card"
        echo "ok: $size on $card: $(grep '^left' "$scratch/log" | tr -s ' ')"
    done
done <<'TABLE'
141gb h200
80gb h100 a100-80gb
48gb l40s a6000
24gb rtx4090 rtx3090
TABLE

# Eight cards share what one cannot hold; a stage that does not fit is told from one that does.
for card in h100 a100-80gb; do
    plan --config configs/chatglm-6b-8x80gb.yaml --plan.card="$card" --plan.ranks=8
    grep -q "It fits, with 3.0 % to stay free" "$scratch/log" || fail "8x80gb on $card"
    echo "ok: 8x80gb on $card: $(grep 'times one card' "$scratch/log")"
done
expect 1 "are wanted" "$soulchat" plan --config configs/chatglm-6b-8x80gb.yaml --plan.card=h100 \
    --plan.ranks=8 --train.zero=0
grep -q -- "--train.zero=1$" "$scratch/out" || fail "no higher stage was offered"
plan --config configs/chatglm-6b-8x80gb.yaml --plan.card=h100 --scaling
[ "$(grep -cE '^ +[0-9]+ +2 ' "$scratch/log")" = 17 ] || fail "scaling: other rows"
grep -q "128   no sample for each card" "$scratch/log" || fail "scaling: 80 samples on 128 cards"
echo "ok: 1 to 512 cards"

# What does not fit is exit 1, a line of error, and a change; with it, the same command fits.
offered() { awk '/The smallest change that fits:/ { getline; print; exit }' "$scratch/out"; }
for card in h200 h100 a100-40gb l40s rtx5090 rtx4090; do
    expect 1 "GB are wanted, and $card may fill" "$soulchat" plan --plan.card="$card" \
        --train.precision=bf16
    read -r -a change <<<"$(offered)"
    [ ${#change[@]} -gt 0 ] || fail "no change offered for $card"
    plan --plan.card="$card" --train.precision=bf16 "${change[@]}"
    grep -q "^It fits" "$scratch/log" || fail "$card with ${change[*]}"
    echo "ok: $card fits with ${change[*]}"
done
expect 1 "are wanted" "$soulchat" plan --plan.card=rtx4090 --plan.memory_bytes=8000000000
grep -q "No change of settings makes it fit" "$scratch/out" || fail "8 GB: a change was offered"

# Without a model or a corpus, and with them.
plan --config configs/tiny.yaml
grep -q "assumed: no corpus in" "$scratch/log" || fail "no corpus: not said"
prepare
plan --config configs/tiny.yaml --data.dir="$scratch/corpus"
grep -q "samples of $scratch/corpus" "$scratch/log" || fail "corpus: not used"

# JSON of one that fits and of one that does not.
if command -v python3 >/dev/null; then
    "$soulchat" plan --json --config configs/chatglm-6b-1x24gb.yaml --plan.card=rtx4090 \
        >"$scratch/a.json" || fail "24gb as JSON"
    "$soulchat" plan --json --plan.card=l40s --train.precision=bf16 >"$scratch/b.json" \
        2>"$scratch/err" && fail "l40s: fits?"
    python3 - "$scratch/a.json" "$scratch/b.json" <<'PYTHON'
import json, sys
fits, wide = (json.load(open(path)) for path in sys.argv[1:])
for plan in fits, wide:
    memory = plan["memory"]
    assert sum(memory["classes"].values()) == memory["device_bytes"], memory
    assert (memory["device_bytes"] <= memory["budget_bytes"]) == memory["fits"], memory
    time = plan["time"]
    assert abs(sum(time["parts"].values()) - time["step_s"]) < 1e-6 * time["step_s"], time
    assert plan["parameters"] == 6173286400
    assert plan["ranks"]["count"] == 1 and plan["ranks"]["sent_bytes"] == 0, plan["ranks"]
assert fits["memory"]["fits"] and fits["smallest_change"] is None
change = wide["smallest_change"]
assert not wide["memory"]["fits"] and change["memory"]["fits"] and change["settings"], change
PYTHON
    echo "ok: JSON"
fi

# Wrong words.
expect 2 "the nearest is nvlink4" "$soulchat" plan --plan.card=h200 --plan.intra=nvlnk4
expect 2 "plan.ranks" "$soulchat" plan --plan.card=h200 --plan.ranks=0
expect 2 "batch.lanes is 4 and there are 8 ranks" "$soulchat" plan --plan.card=h200 \
    --plan.ranks=8 --batch.lanes=4
expect 2 "train.grad_dtype" "$soulchat" plan --plan.card=h200 --plan.ranks=8 \
    --train.precision=bf16 --train.grad_dtype=bf16
expect 2 "plan --json is of one plan" "$soulchat" plan --plan.card=h100 --scaling --json
expect 2 "several ranks add gradients up in float32" "$soulchat" plan --plan.card=l40s --scaling \
    --config configs/chatglm-6b-1x48gb.yaml
expect 2 "bench comm measures between ranks" "$soulchat" bench comm
expect 2 "the nearest is rtx4090" "$soulchat" plan --plan.card=rtx4091
expect 2 "to plan for a card that is not here" "$soulchat" plan --train.device=cuda:1023
expect 2 "plan.spare" "$soulchat" plan --plan.card=h200 --plan.spare=51
expect 2 "train.moments" "$soulchat" plan --plan.card=h200 --train.moments=4bit
expect 2 "train.grad_dtype" "$soulchat" plan --plan.card=h200 --train.grad_dtype=bf16
expect 2 "train.precision" "$soulchat" plan --plan.card=cpu --train.precision=bf16
expect 2 "train.update is backward" "$soulchat" plan --plan.card=h200 --train.precision=bf16 \
    --train.update=backward --train.clip_norm_from=previous
expect 1 "nowhere.json" "$soulchat" plan --plan.card=h200 --plan.rates="$scratch/nowhere.json"
echo '{"NVIDIA H200": {"copy": "fast"}}' >"$scratch/rates.json"
expect 1 "copy is a string" "$soulchat" plan --plan.card=h200 --plan.rates="$scratch/rates.json"

#!/usr/bin/env bash
# The CUDA backend's own kernels on the host, in bf16: training learns as in float32.
export SOULCHAT_EMU_GUARD=1 # and no host code follows a pointer into the device
. "$(dirname "$0")/emu_common.sh"

# near NAME OTHER BOUND: losses of all steps, relative.
near() {
    local losses
    losses=$(paste <(grep -o '"loss":[0-9.e-]*' "$scratch/$1/metrics.jsonl" | cut -d: -f2) \
        <(grep -o '"loss":[0-9.e-]*' "$scratch/$2/metrics.jsonl" | cut -d: -f2))
    awk -v bound="$3" '{ d = ($1 - $2) / $2; if (d < 0) d = -d; if (d > most) most = d }
        END { print "largest difference of losses", most; exit !(NR > 0 && most <= bound) }' \
        <<<"$losses" || fail "$1 and $2: other losses: $losses"
}

must cpu train cpu --train.device=cpu --train.precision=f32
must f32 train f32 --train.precision=f32
near f32 cpu 1e-4 # roundings of f32 through four steps of AdamW

# A unit of bf16 is 2^-8: the loss, a mean over many tokens, stays far inside one of them.
must master train master
near master cpu 4e-3
must grads train grads --train.grad_dtype=bf16
near grads cpu 4e-3
must small train small --train.moments=8bit --train.max_grad_norm=0
grep -q '"weight_change":[0-9]' "$scratch/small/metrics.jsonl" || fail "no change of weights told"
near small cpu 1e-2 # clipped there, and not here; 8-bit moments, rounded weights

must export "$soulchat" export "$scratch/master" "$scratch/hf" --export.dtype=f32
must generate "$soulchat" generate --generate.model="$scratch/hf" --generate.max_new_tokens=3 \
    --text 你好
expect 2 "keeps float32 values" train master --train.steps=$((steps + 1)) --resume \
    --train.master=off
must "resume in float32" train master --train.steps=$((steps + 1)) --resume --train.precision=f32

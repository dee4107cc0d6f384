#!/usr/bin/env bash
# The CUDA backend's own kernels on the host, in bf16: training learns as in float32, memory
# settings that keep the bits keep them, interrupted runs end in the bits of whole ones.
. "$(dirname "$0")/common.sh"
prepare
steps=4
train() {
    tiny train --train.device=emu --train.precision=bf16 --train.out="$scratch/$1" \
        --train.steps=$steps --batch.size=1 --train.validate_every=0 "${@:2}"
}
train probe --train.steps=1 >"$scratch/log" 2>&1 || {
    grep -q "libsoulchat_emu" "$scratch/log" || { cat "$scratch/log" >&2; fail "emu"; }
    echo "SKIP: $(tail -1 "$scratch/log")"
    exit 77
}
same() {
    [ "$(digest "$scratch/$1/ckpt/step-0000000$steps")" = \
        "$(digest "$scratch/$2/ckpt/step-0000000$steps")" ] || fail "$1 and $2: other bits"
    echo "ok: $1 and $2: same bits"
}
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
must host train host --train.moments_place=host --train.activations=recompute
same master host

small=(--train.moments=8bit --train.max_grad_norm=0)
must small train small "${small[@]}"
near small cpu 1e-2 # clipped there, and not here; 8-bit moments, rounded weights
must small-host train small-host "${small[@]}" --train.moments_place=host --train.activations=lean
same small small-host
must small-backward train small-backward "${small[@]}" --train.moments_place=host \
    --train.update=backward --train.activations=recompute
same small small-backward

clipped=(--train.moments=8bit --train.update=backward --train.clip_norm_from=previous)
must whole train whole "${clipped[@]}"
steps=2
must halves train halves "${clipped[@]}"
steps=4
must resume train halves "${clipped[@]}" --resume
same whole halves

must export "$soulchat" export "$scratch/master" "$scratch/hf" --export.dtype=f32
must generate "$soulchat" generate --generate.model="$scratch/hf" --generate.max_new_tokens=3 \
    --text 你好
expect 2 "keeps float32 values" train master --train.steps=5 --resume --train.master=off
must "resume in float32" train master --train.steps=5 --resume --train.precision=f32

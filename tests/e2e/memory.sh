#!/usr/bin/env bash
# Settings that save memory: what must keep the bits keeps them; what changes numbers resumes to its
# own bits and exports; what cannot go together is one line with both names.
. "$(dirname "$0")/common.sh"
prepare
steps=6
train() {
    tiny train --train.out="$scratch/$1" --train.steps=$steps --train.save_every=3 \
        --batch.size=2 "${@:2}"
}
# same NAME OTHER: their last checkpoints are equal.
same() {
    [ "$(digest "$scratch/$1/ckpt/step-0000000$steps")" = \
        "$(digest "$scratch/$2/ckpt/step-0000000$steps")" ] || fail "$1 and $2: other bits"
    echo "ok: $1 and $2: same bits"
}
free=(--train.max_grad_norm=0)

must f32 train f32 "${free[@]}"
must host train host "${free[@]}" --train.moments_place=host
same f32 host
must recompute train recompute "${free[@]}" --train.activations=recompute
same f32 recompute
must backward train backward "${free[@]}" --train.update=backward --train.moments_place=host \
    --train.activations=recompute
same f32 backward

must 8bit train 8bit --train.moments=8bit
must 8bit-host train 8bit-host --train.moments=8bit --train.moments_place=host
same 8bit 8bit-host
for name in f32 8bit; do
    bytes=$(stat -c %s "$scratch/$name/ckpt/step-0000000$steps/optim.0000.safetensors")
    echo "ok: $name moments: $bytes bytes"
    [ "$name" = f32 ] || [ "$bytes" -lt "$last" ] || fail "8-bit moments take no less"
    last=$bytes
done

# Interrupted runs, their state in host memory, end in the bits of whole ones.
clipped=(--train.moments=8bit --train.moments_place=host --train.update=backward
    --train.clip_norm_from=previous --train.max_grad_norm=0.5)
must whole train whole "${clipped[@]}"
steps=3
must halves train halves "${clipped[@]}"
steps=6
must resume train halves "${clipped[@]}" --resume
same whole halves

must export "$soulchat" export "$scratch/8bit" "$scratch/hf" --export.dtype=f32
must generate "$soulchat" generate --generate.model="$scratch/hf" --generate.max_new_tokens=3 \
    --text 你好

expect 2 "train.moments is f32" train 8bit --train.steps=8 --resume
expect 2 "train.clip_norm_from: previous" train no --train.update=backward
expect 2 "batch.lanes is 2" train no --train.update=backward "${free[@]}" --batch.lanes=2
expect 2 "it must be one" train no --train.update=backward "${free[@]}" --batch.size=40
expect 2 "train.device is cpu" train no --train.precision=bf16
expect 2 "train.precision is f32" train no --train.master=on
[ ! -e "$scratch/no" ] || fail "settings that cannot be made a run folder"

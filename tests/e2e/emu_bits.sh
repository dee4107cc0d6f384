#!/usr/bin/env bash
# The CUDA backend's own kernels on the host, in bf16: memory settings that keep the bits keep them,
# interrupted runs end in the bits of whole ones.
. "$(dirname "$0")/emu_common.sh"

must master train master
must host train host --train.moments_place=host --train.activations=recompute
same master host

small=(--train.moments=8bit --train.max_grad_norm=0)
must small train small "${small[@]}"
must small-host train small-host "${small[@]}" --train.moments_place=host --train.activations=lean
same small small-host
must small-backward train small-backward "${small[@]}" --train.moments_place=host \
    --train.update=backward --train.activations=recompute
same small small-backward

clipped=(--train.moments=8bit --train.update=backward --train.clip_norm_from=previous)
must whole train whole "${clipped[@]}"
must halves train halves "${clipped[@]}" --train.steps=$((steps / 2))
must resume train halves "${clipped[@]}" --resume
same whole halves

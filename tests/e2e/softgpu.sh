#!/usr/bin/env bash
# The CUDA backend over streams that run late (tests/softgpu): a run ends in the bits of the one
# whose work is done when it is queued; with moments that travel, and with two ranks over NCCL's
# stand-in.
. "$(dirname "$0")/emu_common.sh"

# late NAME SEED options...: the same run on both devices; 0 is as late as can be.
late() {
    must "$1" train "$1" "${@:3}"
    SOFTGPU_SEED=$2 must "$1-late" train "$1-late" "${@:3}" --train.device=cuda
    same "$1" "$1-late"
}

late plain 1
late host 0 --train.moments_place=host --train.activations=recompute
late small 0 --train.moments=8bit --train.update=backward --train.clip_norm_from=previous
late ranks 0 --ranks 2 --batch.size=2

# emu_common.sh - sourced by the end-to-end tests of the CUDA backend's own kernels on the host, in
# bf16: a model of two small layers, because every instruction is emulated. EMU_STEPS: updates of a
# run; 2 show memory errors as well as 4 do.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
prepare
steps=${EMU_STEPS:-4}

cp -r data/sample/model "$scratch/model"
sed -i -e 's/"hidden_size": 128/"hidden_size": 64/' -e 's/"num_layers": 4/"num_layers": 2/' \
    -e 's/"num_attention_heads": 4/"num_attention_heads": 2/' \
    -e 's/"inner_hidden_size": 512/"inner_hidden_size": 256/' "$scratch/model/config.json"

train() {
    tiny train --model.dir="$scratch/model" --train.device=emu --train.precision=bf16 \
        --train.out="$scratch/$1" --train.steps="$steps" --batch.size=1 --train.validate_every=0 \
        "${@:2}"
}

train probe --train.steps=1 >"$scratch/log" 2>&1 || {
    grep -q "libsoulchat_emu" "$scratch/log" || { cat "$scratch/log" >&2; fail "emu"; }
    echo "SKIP: $(tail -1 "$scratch/log")"
    exit 77
}

# same NAME OTHER: the last checkpoints of two runs.
same() {
    [ "$(digest "$scratch/$1/ckpt/step-0000000$steps")" = \
        "$(digest "$scratch/$2/ckpt/step-0000000$steps")" ] || fail "$1 and $2: other bits"
    echo "ok: $1 and $2: same bits"
}

#!/usr/bin/env bash
# Training steps have one sha256 for 1, 2, 3 and 4 threads, with and without recomputation.
. "$(dirname "$0")/common.sh"
prepare
want=
for settings in "1 keep" "2 keep" "3 keep" "4 keep" "2 lean"; do
    read -r threads activations <<<"$settings"
    out="$scratch/run-$threads-$activations"
    must train tiny train --train.out="$out" --train.steps=3 --train.threads="$threads" \
        --train.activations="$activations"
    got=$(digest "$out/ckpt/step-00000003")
    [ -z "$want" ] || [ "$got" = "$want" ] || fail "$settings: other bits"
    want=$got
    echo "ok: $settings: ${got:0:16}"
done

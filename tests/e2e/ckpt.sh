#!/usr/bin/env bash
# soulchat ckpt: what it says of whole and damaged checkpoints, and of two that differ.
. "$(dirname "$0")/common.sh"
prepare
train() {
    tiny train --train.out="$scratch/$1" --train.steps=4 --train.save_every=2 "${@:2}"
}
ckpt() { "$soulchat" ckpt "$@"; }
says() {
    ckpt "${@:2}" >"$scratch/out" 2>&1 || { cat "$scratch/out"; fail "ckpt ${*:2}"; }
    grep -qF -- "$1" "$scratch/out" || { cat "$scratch/out"; fail "no \"$1\" from: ckpt ${*:2}"; }
    echo "ok: $(grep -F -- "$1" "$scratch/out" | head -1)"
}

must "a run" train a --train.keep_best=true
must "the same" train same
must "another" train b --train.lr=2e-3
a=$scratch/a/ckpt b=$scratch/b/ckpt

says "step-00000002: whole" verify "$scratch/a"
says "step-00000004: whole" verify "$a/step-00000004"
says "step-00000004" list "$scratch/a"
says "whole, best, last" list "$scratch/a"
says "f32, moments f32" list "$a"
says '"last": true' list "$scratch/a" --json

# The same run has the same bytes, wherever it lies.
says "0 differences in" diff "$scratch/a" "$scratch/same"
diff -r "$a/step-00000004" "$scratch/same/ckpt/step-00000004" || fail "other bytes"
says "differ, by" diff "$scratch/a" "$scratch/b"
says "settings  train.lr" diff "$a/step-00000002" "$b/step-00000002"
says "state     step" diff "$a/step-00000002" "$a/step-00000004"
says '"max_abs"' diff "$scratch/a" "$scratch/b" --json
ckpt diff "$scratch/a" "$scratch/b" --json | python3 -c '
import json, sys
report = json.load(sys.stdin)
assert report["compared"] > 10 and 0 < len(report["tensors"]) <= report["compared"]
assert all(0 < t["differ"] <= t["elements"] and t["max_abs"] > 0 for t in report["tensors"])'

# A file that cannot be read at present says nothing about the checkpoint.
mv "$a/step-00000002/state.json" "$scratch/state.json"
ln -s state.json "$a/step-00000002/state.json"
for how in verify list; do
    expect 1 "state.json: Too many levels of symbolic links" ckpt $how "$scratch/a"
    ! grep -q "NOT WHOLE" "$scratch/out" || fail "$how calls it damaged"
done
mv "$scratch/state.json" "$a/step-00000002/state.json"

# Digests see what sizes do not.
printf 'x' | dd of="$a/step-00000002/optim.0000.safetensors" bs=1 seek=5000 conv=notrunc status=none
says "step-00000002" list "$scratch/a"
expect 1 "1 of 2 checkpoints are not whole" ckpt verify "$scratch/a"
grep -q "NOT WHOLE: .*optim.0000.safetensors: crc32c" "$scratch/out" || fail "no cause named"
truncate -s -1 "$a/step-00000004/model.0000.safetensors"
expect 1 "1 of 2 checkpoints are not whole" ckpt list "$scratch/a"
expect 1 "2 of 2 checkpoints are not whole" ckpt verify "$scratch/a"

expect 2 "expected \`verify PATH\`" ckpt
expect 2 "expected \`verify PATH\`" ckpt diff "$scratch/a"
expect 2 "expected \`verify PATH\`" ckpt guess "$scratch/a"
expect 1 "no checkpoint in it" ckpt verify "$scratch"
expect 1 "no such folder" ckpt list "$scratch/nowhere"

#!/usr/bin/env bash
# Steps that go wrong: skipped or rolled back, the same way every time. Needs fault points.
. "$(dirname "$0")/common.sh"
if ! SOULCHAT_FAULT=guard.nan:1 "$soulchat" --version >/dev/null 2>&1 ||
    SOULCHAT_FAULT=guard.nan:1 "$soulchat" tokenize --help 2>&1 | grep -q "no fault points"; then
    echo "SKIP: this build has no fault points"
    exit 77
fi
prepare
train() {
    tiny train --train.out="$scratch/$1" --train.steps="$2" --train.validate_every=0 \
        --train.save_every=4 --train.keep_last=9 "${@:3}"
}
last=ckpt/step-00000012
expect 1 "step 6: loss nan" env SOULCHAT_FAULT=guard.nan:6 bash -c \
    "$(declare -f train tiny tiny_exec); $(declare -p soulchat scratch); train stop 12"
SOULCHAT_FAULT=guard.nan:6 must skip train skip 12 --train.on_nonfinite=skip
grep -q '{"step":6,"event":"skip","cause":"loss not finite"' "$scratch/skip/metrics.jsonl" ||
    fail "no line on the skipped step"
grep -q '"updates": 11' "$scratch/skip/$last/state.json" || fail "a skipped step counts as update"
SOULCHAT_FAULT=guard.nan:6 must "skip, again" train skip-2 12 --train.on_nonfinite=skip
[ "$(digest "$scratch/skip/$last")" = "$(digest "$scratch/skip-2/$last")" ] || fail "other bits"
echo "ok: skipped, twice the same"
SOULCHAT_FAULT=guard.nan:6 must rollback train roll 12 --train.on_nonfinite=rollback
[ "$(digest "$scratch/skip/$last")" = "$(digest "$scratch/roll/$last")" ] || fail "other bits"
echo "ok: rolled back: $(grep '"event":"rollback"' "$scratch/roll/metrics.jsonl")"
rm -r "$scratch/roll/$last"
must "resume after it" train roll 12 --resume --train.on_nonfinite=rollback
[ "$(digest "$scratch/skip/$last")" = "$(digest "$scratch/roll/$last")" ] || fail "other bits"
echo "ok: resumed between: same bits"

# Several ranks decide as one, whatever they share; weights are compared on the way, and what was
# loaded is what was saved.
several() {
    SOULCHAT_FAULT=guard.nan:6 must "$1" train "$1" 12 --train.on_nonfinite=rollback \
        --batch.size=12 --batch.lanes=6 --train.threads=1 --train.check_every=2 "${@:2}"
}
several ranks-1
for stage in 0 2 3; do
    several ranks-2-$stage --ranks 2 --train.zero=$stage
    [ "$(digest "$scratch/ranks-1/$last")" = "$(digest "$scratch/ranks-2-$stage/$last")" ] ||
        fail "2 ranks, train.zero $stage: other bits after a rollback"
    for key in crc32c rollbacks; do
        [ "$(grep "\"$key\"" "$scratch/ranks-1/$last/state.json")" = \
            "$(grep "\"$key\"" "$scratch/ranks-2-$stage/$last/state.json")" ] ||
            fail "2 ranks, train.zero $stage: another $key"
    done
    rm -r "$scratch/ranks-2-$stage/$last"
    must resume train ranks-2-$stage 12 --resume --train.on_nonfinite=rollback --batch.size=12 \
        --batch.lanes=6 --train.threads=1 --train.check_every=2 --ranks 2 --train.zero=$stage
    grep -q "checksum of weights and optimizer state: as saved" "$scratch/log" || fail "no checksum"
    [ "$(digest "$scratch/ranks-1/$last")" = "$(digest "$scratch/ranks-2-$stage/$last")" ] ||
        fail "2 ranks, train.zero $stage: other bits after rollback and resume"
    echo "ok: 2 ranks, train.zero $stage: rolled back and resumed to the same bits"
done

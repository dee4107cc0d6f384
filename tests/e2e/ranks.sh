#!/usr/bin/env bash
# `soulchat train --ranks N`: one sha256 of weights and state on any number of ranks and ZeRO stage,
# also where a run goes on with another number of them.
. "$(dirname "$0")/common.sh"
prepare
train() { # OUT STEPS arguments...
    tiny train --train.out="$scratch/$1" --train.steps="$2" --train.threads=1 --batch.size=12 \
        --train.schedule=constant "${@:3}"
}

# Loss, rate and norm of each step, and the validation losses; lines of events hold times.
numbers() { grep -E 'grad_norm|validation_loss' "$scratch/$1/metrics.jsonl" | cut -d, -f2-5; }

# Alone, training waits for its checkpoints; the others write them behind their steps.
must "one rank" train alone 6 --batch.lanes=12 --train.save=wait
want=$(digest "$scratch/alone/ckpt/step-00000006")
# The whole folder: manifest and state.json, too.
folder() { (cd "$scratch/$1/ckpt/step-00000006" && sha256sum -- * | sha256sum | cut -c1-64); }
files=$(folder alone)

for run in "2 0" "3 1" "4 2" "3 3"; do
    read -r ranks stage <<<"$run"
    out=run-$ranks-$stage
    must "$ranks ranks, train.zero $stage" train "$out" 6 --batch.lanes=12 --ranks "$ranks" \
        --train.zero="$stage"
    got=$(digest "$scratch/$out/ckpt/step-00000006")
    [ "$got" = "$want" ] || fail "$ranks ranks, train.zero $stage: other bits"
    numbers "$out" | cmp - <(numbers alone) || fail "$ranks ranks, train.zero $stage: other metrics"
    [ "$(folder "$out")" = "$files" ] || fail "$ranks ranks, train.zero $stage: other files"
    echo "ok: $ranks ranks, train.zero $stage: ${got:0:16}"
done

# Half way with three ranks, the rest with others; the lanes are those of the run.
for run in "1 0" "2 1" "4 3"; do
    read -r ranks stage <<<"$run"
    out=then-$ranks
    must "first half" train "$out" 3 --batch.lanes=12 --ranks 3 --train.zero=3
    must "second half" train "$out" 6 --resume --ranks "$ranks" --train.zero="$stage"
    got=$(digest "$scratch/$out/ckpt/step-00000006")
    [ "$got" = "$want" ] || fail "3 ranks, then $ranks: other bits"
    echo "ok: 3 ranks, then $ranks: same bits"
done

# A number of ranks that does not divide the lanes, in the second half; and more ranks than lanes.
must "first half" train uneven 3 --batch.lanes=12 --ranks 3
expect 0 "12 lanes on 5 ranks: some have 3, some 2" train uneven 6 --resume --ranks 5
[ "$(digest "$scratch/uneven/ckpt/step-00000006")" = "$want" ] || fail "3 ranks, then 5: other bits"
expect 2 "batch.lanes is 2 and there are 3 ranks" train no 1 --batch.lanes=2 --ranks 3
expect 2 "--ranks x: expected a number" train no 1 --ranks x

# As many lanes as ranks, unless said otherwise; a stop on request is everyone's.
(tiny_exec train --train.out="$scratch/stop" --train.steps=100000 --train.threads=1 \
    --ranks 2 >"$scratch/log" 2>&1) &
pid=$!
for _ in $(seq 600); do
    [ "$(cat "$scratch/stop/metrics.jsonl" 2>/dev/null | wc -l)" -ge 3 ] && break
    sleep 0.05
done
kill -TERM $pid
status=0; wait $pid || status=$?
[ $status = 130 ] || { cat "$scratch/log" >&2; fail "SIGTERM: exit $status, expected 130"; }
grep -q "^  lanes: 2$" "$scratch/stop/settings.yaml" || fail "lanes of two ranks"
grep -q "continue with --resume" "$scratch/log" || fail "no word on how to continue"
echo "ok: SIGTERM ends two ranks in a checkpoint"

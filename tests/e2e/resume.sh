#!/usr/bin/env bash
# A run that is killed at random moments and resumed ends in the same bits as one left alone.
. "$(dirname "$0")/common.sh"
prepare
steps=12
train_exec() {
    tiny_exec train --train.out="$scratch/$1" --train.steps=$steps --train.save_every=2 "${@:2}"
}
train() { (train_exec "$@"); }

must "undisturbed run" train whole
want=$(digest "$scratch/whole/ckpt/step-000000$steps")

for attempt in 1 2 3; do
    rm -rf "$scratch/killed"
    # Kill when a random number of steps has been logged, and again after the resume.
    for kill in 1 2; do
        train_exec killed --resume >"$scratch/log" 2>&1 &
        pid=$!
        lines=$((RANDOM % 6 + kill * 2))
        for _ in $(seq 600); do
            [ "$(cat "$scratch/killed/metrics.jsonl" 2>/dev/null | wc -l)" -ge "$lines" ] && break
            kill -0 $pid 2>/dev/null || break
            sleep 0.01
        done
        kill -9 $pid 2>/dev/null || true
        status=0; wait $pid 2>/dev/null || status=$?
        case $status in
            0 | 137) ;;
            *) cat "$scratch/log" >&2; fail "killed run: exit $status" ;;
        esac
    done
    must resume train killed --resume
    got=$(digest "$scratch/killed/ckpt/step-000000$steps")
    [ "$got" = "$want" ] || fail "attempt $attempt: weights differ after kill and resume"
    echo "ok: attempt $attempt: killed twice, same bits"
done

# A stop on request saves and says how to go on.
train_exec stopped >"$scratch/log" 2>&1 &
pid=$!
for _ in $(seq 600); do
    [ "$(cat "$scratch/stopped/metrics.jsonl" 2>/dev/null | wc -l)" -ge 3 ] && break
    sleep 0.01
done
kill -TERM $pid
status=0; wait $pid || status=$?
[ $status = 130 ] || { cat "$scratch/log"; fail "SIGTERM: exit $status, expected 130"; }
grep -q "continue with --resume" "$scratch/log" || fail "no word on how to continue"
must "resume after SIGTERM" train stopped --resume
got=$(digest "$scratch/stopped/ckpt/step-000000$steps")
[ "$got" = "$want" ] || fail "bits differ after SIGTERM"
echo "ok: SIGTERM saves, resume ends in the same bits"

# Two programs never train into one folder.
train_exec shared >"$scratch/log" 2>&1 &
pid=$!
for _ in $(seq 600); do [ -s "$scratch/shared/metrics.jsonl" ] && break; sleep 0.01; done
expect 1 "another" train shared --resume
wait $pid || fail "the first of two runs"

# A damaged newest checkpoint is passed over, with a word.
newest=$(ls -d "$scratch"/whole/ckpt/step-* | tail -1)
printf 'x' | dd of="$newest/model.0000.safetensors" bs=1 seek=5000 conv=notrunc status=none
expect 0 "passing over" train whole --resume
[ "$(digest "$scratch/whole/ckpt/step-000000$steps")" = "$want" ] || fail "bits differ after damage"
echo "ok: damaged checkpoint passed over, same bits"

# A finished run has nothing to resume, and says so.
expect 0 "nothing to do" train whole --resume

# When every checkpoint is damaged, nobody starts a run over unasked.
for dir in "$scratch"/whole/ckpt/step-*; do truncate -s -1 "$dir/state.json"; done
expect 1 "none of its 2 checkpoints is whole" train whole --resume

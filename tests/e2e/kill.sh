#!/usr/bin/env bash
# kill -9 of the training process at random moments; --restarts starts it again. Every run ends in
# the bits of one that was left alone, and no kill costs more than the checkpoint on its way: the
# next start goes on from one that was published, at most one save interval before the last begun.
#
#     SOULCHAT=... bash tests/e2e/kill.sh [KILLS] [SEED] [RUNS]      10 kills in 1 run by default
#
# A moment is so many lines of metrics after a start, from none (while it still reads) to those of
# two checkpoints, and some milliseconds: in reading, steps, saves, and between a save and its line.
# Every other kill waits until a checkpoint is being written, behind the steps (train.save), and
# strikes within some milliseconds of that. RANKS=2 trains with --ranks 2 and kills one of the ranks
# instead.
. "$(dirname "$0")/common.sh"
kills=${1:-10} seed=${2:-1} runs=${3:-1} ranks=${RANKS:-1}
RANDOM=$seed
began=$(date +%s)
save_every=3 steps=$((60 > 7 * kills / runs ? 60 : 7 * kills / runs))
prepare
ranks_options=()
[ "$ranks" = 1 ] || ranks_options=(--ranks "$ranks" --batch.lanes="$ranks")
train_exec() {
    tiny_exec train --train.out="$scratch/$1" --train.steps=$steps --batch.size=2 \
        --train.save_every=$save_every --train.keep_last=2 --train.validate_every=0 \
        "${ranks_options[@]}" "${@:2}"
}
checkpoint=ckpt/step-$(printf %08d "$steps")

must "undisturbed run" bash -c "$(declare -f train_exec tiny_exec); $(declare -p soulchat scratch \
    steps save_every ranks_options); train_exec whole"
want=$(digest "$scratch/whole/$checkpoint")

# The processes that train: the child of $1, or with ranks its children.
trainers() {
    local child
    child=$(cat "/proc/$1/task/$1/children" 2>/dev/null) || return 0
    [ "$ranks" = 1 ] && echo $child && return
    for pid in $child; do cat "/proc/$pid/task/$pid/children" 2>/dev/null || true; done
}

lines() { { cat "$scratch/$1/metrics.jsonl" 2>/dev/null || true; } | wc -l; }

# writes NAME: whether a checkpoint is on its way to the disk.
writes() { compgen -G "$scratch/$1/ckpt/step-*.tmp" >/dev/null; }

# strike NAME PARENT: wait for a start that was not struck yet, for a moment, and kill.
last=
strike() {
    local pids target
    while pids=$(trainers "$2") && { [ -z "$pids" ] || [ "$pids" = "$last" ]; }; do
        kill -0 "$2" 2>/dev/null || return 0
        sleep 0.01
    done
    last=$pids
    target=$(($(lines "$1") + RANDOM % (2 * save_every + 4)))
    while [ "$(lines "$1")" -lt $target ] && kill -0 "$2" 2>/dev/null; do sleep 0.01; done
    if [ $((killed % 2)) = 1 ]; then
        while ! writes "$1" && kill -0 "$2" 2>/dev/null; do sleep 0.002; done
        sleep "$(printf '0.%03d' $((RANDOM % 20)))"
    else
        sleep "$(printf '0.%03d' $((RANDOM % 150)))"
    fi
    pids=($pids)
    kill -9 "${pids[$((RANDOM % ${#pids[@]}))]}" 2>/dev/null && killed=$((killed + 1)) || return 0
    writes "$1" && unfinished=$((unfinished + 1)) || true
}

killed=0 unfinished=0 repeated_most=0 parent=
clean_up() {
    [ -z "$parent" ] || { kill $parent 2>/dev/null && wait $parent || true; }
    rm -rf "$scratch"
}
trap clean_up EXIT
for run in $(seq "$runs"); do
    name=killed-$run
    (train_exec $name --restarts 20) >"$scratch/log-$run" 2>&1 &
    parent=$!
    goal=$((kills * run / runs))
    while [ $killed -lt $goal ] && kill -0 $parent 2>/dev/null; do strike $name $parent; done
    status=0; wait $parent || status=$?
    parent=
    [ $status = 0 ] || { tail -20 "$scratch/log-$run" >&2; fail "run $run: exit $status"; }
    [ $killed -ge $goal ] || fail "run $run ended after $killed kills of $goal"
    got=$(digest "$scratch/$name/$checkpoint")
    [ "$got" = "$want" ] || fail "run $run: other bits than the undisturbed run"
    # Between the last step before a crash and the one that the next start goes on from; between
    # that and the last checkpoint that was begun; and whether it was published at all.
    read -r worst behind lost < <(awk -F'[:,]' '
        /"grad_norm"/ { reached = $2 }
        /"event":"save"/ { begun = $2 }
        /"event":"published"/ { published = $2 }
        /"event":"start"/ { $2 = 0 }
        /"event":"(start|resume)"/ {
            if (reached - $2 > most) most = reached - $2
            if (begun - $2 > behind) behind = begun - $2
            if (published > $2) lost++
            reached = begun = published = $2
        }
        END { print most + 0, behind + 0, lost + 0 }' "$scratch/$name/metrics.jsonl")
    [ "$lost" = 0 ] || fail "run $run: $lost published checkpoints were lost"
    [ "$behind" -le $save_every ] || fail "run $run: $behind steps behind a save that was begun"
    [ "$worst" -le $((2 * save_every)) ] || fail "run $run: $worst steps repeated"
    [ "$worst" -le $repeated_most ] || repeated_most=$worst
    echo "ok: run $run: same bits; $(tail -1 "$scratch/$name/metrics.jsonl")"
done
[ $kills -lt 10 ] || [ $unfinished -gt 0 ] || fail "no kill struck a checkpoint on its way"
echo "ok: $killed kills in $runs runs of $steps steps ($ranks ranks, seed $seed), $unfinished of" \
    "them left a checkpoint half written: bits equal" \
    "every time; at most $repeated_most steps repeated, saved every $save_every;" \
    "$(($(date +%s) - began)) s"

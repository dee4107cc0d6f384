#!/usr/bin/env bash
# Signals: a checkpoint now (USR1), a checkpoint and out (USR2, train.stop_after), a stop (TERM);
# and the parent of --restarts, which passes them on and knows when an end is final.
. "$(dirname "$0")/common.sh"
prepare
train_exec() {
    tiny_exec train --train.out="$scratch/$1" --train.steps="$2" --train.validate_every=0 \
        --train.schedule=constant "${@:3}"
}
train() { (train_exec "$@"); }
has_checkpoint() { ls "$scratch/$1"/ckpt/step-????????/MANIFEST.json >/dev/null 2>&1; }
wait_checkpoint() { wait_until "$1: no checkpoint" has_checkpoint "$1"; }
wait_log() { wait_until "no \"$1\" in the log" grep -q "$1" "$scratch/log"; }
children() { cat "/proc/$1/task/$1/children"; }

train_exec now 1000000 >"$scratch/log" 2>&1 & pid=$!
wait_lines now 4
kill -USR1 $pid
wait_checkpoint now
kill -0 $pid || fail "SIGUSR1 ended the run"
echo "ok: SIGUSR1: $(ls "$scratch/now/ckpt" | head -1), and on"
kill -USR2 $pid
kill -USR2 $pid
kill -TERM $pid
ends 79 $pid "SIGUSR2, SIGUSR2, SIGTERM"
grep -q "a checkpoint is written in" "$scratch/log" || fail "no word on how long a stop takes"
step=$(grep '"event":"stop"' "$scratch/now/metrics.jsonl" | grep -o '"step":[0-9]*' | cut -d: -f2)
must "resume after SIGUSR2" train now $((step + 2)) --resume
must "undisturbed run" train whole $((step + 2))
last=ckpt/step-$(printf %08d $((step + 2)))
[ "$(digest "$scratch/now/$last")" = "$(digest "$scratch/whole/$last")" ] || fail "other bits"
echo "ok: stopped at step $step, same bits"

# A closed terminal is a stop, unless nohup keeps it away; a log that nobody reads is no matter.
train_exec gone 1000000 >"$scratch/log" 2>&1 & pid=$!
wait_lines gone 2
kill -HUP $pid
ends 130 $pid SIGHUP
grep -q "continue with --resume" "$scratch/log" || fail "SIGHUP: no word on how to go on"
(trap '' HUP; train_exec stays 1000000) >"$scratch/log" 2>&1 & pid=$!
wait_lines stays 2
kill -HUP $pid
wait_more stays
kill -TERM $pid
ends 130 $pid "SIGHUP ignored, SIGTERM"
# Ctrl-C is for what is in the foreground, and ignored in what a script has started with &.
(trap '' INT; train_exec behind 1000000) >"$scratch/log" 2>&1 & pid=$!
wait_lines behind 2
kill -INT $pid
kill -INT $pid
wait_more behind
kill -TERM $pid
ends 130 $pid "SIGINT ignored, SIGTERM"
{ train unread 20 2>&1; echo $? >"$scratch/status"; } | head -1 >/dev/null
[ "$(cat "$scratch/status")" = 0 ] || fail "a run ended because its log's reader did"
echo "ok: a log whose reader has left"

expect 79 "continue with --resume" train timed 1000000 --train.stop_after=1

# The parent passes a stop on and ends as its child does; a crash is not the end; usage is.
train_exec again 1000000 --restarts 3 >"$scratch/log" 2>&1 & pid=$!
wait_lines again 3
kill -9 $(children $pid)
wait_log "starting again (restart 1)"
wait_more again
kill -TERM $pid
ends 130 $pid "SIGTERM to the parent"
# A signal that is ignored is no request: a crash after it is one to start again after.
(trap '' HUP INT; train_exec hung 1000000 --restarts 3) >"$scratch/log" 2>&1 & pid=$!
wait_lines hung 3
kill -HUP $pid
kill -INT $pid
sleep 0.2
kill -9 $(children $pid)
wait_log "starting again (restart 1)"
wait_more hung
kill -TERM $pid
ends 130 $pid "SIGHUP and SIGINT ignored by a parent, a crash, SIGTERM"
# Ctrl-Z suspends whom the parent has started as well, to the last rank; fg continues all of them.
state() { sed 's/.*) //' "/proc/$1/stat" | cut -c1; }
is_in() { case $(state "$2") in [$1]) ;; *) false ;; esac; }
# wait_state STATES PID
wait_state() { wait_until "process $2 is in none of the states $1" is_in "$1" "$2"; }
set -m # a group of its own, with a parent outside, or the kernel lets nobody stop it
train_exec suspended 1000000 --restarts 3 --ranks 2 --batch.lanes=2 >"$scratch/log" 2>&1 & pid=$!
set +m
wait_lines suspended 3
launcher=$(children $pid)
ranks=$(children $launcher)
kill -TSTP $pid
for process in $pid $launcher $ranks; do wait_state T "$process"; done
kill -CONT $pid
for process in $pid $launcher $ranks; do wait_state RSD "$process"; done
wait_more suspended
kill -TERM $pid
ends 130 $pid "SIGTSTP, SIGCONT, SIGTERM to the parent of a launcher of 2 ranks"

# A child that has just begun is asked as well as one that trains.
train_exec early 1000000 --restarts 3 >"$scratch/log" 2>&1 & pid=$!
until [ -n "$(children $pid)" ]; do sleep 0.001; done
kill -TERM $pid
ends 130 $pid "SIGTERM to the parent of a child that has just begun"
expect 2 "continue with --resume" train again 1000000 --restarts 3
[ "$(grep -c "starting again" "$scratch/err")" = 0 ] || fail "a wrong setting was tried again"
expect 2 "--restarts zero" train again 5 --restarts zero
# What never began is not tried again: it would fail in the same way.
expect 1 "nowhere" train never 5 --restarts 3 --data.dir="$scratch/nowhere"
[ "$(grep -c "starting again" "$scratch/err")" = 0 ] || fail "a missing corpus was tried again"
# A run that cannot get any further is given up.
expect 1 "given up after 3 failures" train away 40 --restarts 2 --train.lr=10 \
    --train.weight_decay=10

# Several ranks: asking the launcher, or any one of them, is enough.
(trap '' HUP; train_exec ranks 1000000 --ranks 2 --batch.lanes=2) >"$scratch/log" 2>&1 & pid=$!
wait_lines ranks 3
rank=$(children $pid | cut -d' ' -f2)
kill -USR1 "$rank"
wait_checkpoint ranks
kill -HUP $pid # ignored: not passed on
kill -USR2 $pid
ends 79 $pid "2 ranks: SIGUSR1 to one, SIGUSR2 to their launcher"
[ "$(ls -d "$scratch"/ranks/ckpt/step-???????? | wc -l)" = 2 ] || fail "no two checkpoints"
grep -q "Hangup passed on" "$scratch/log" && fail "SIGHUP passed on although ignored"
echo "ok: SIGHUP under nohup is not passed on"

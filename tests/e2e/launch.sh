#!/usr/bin/env bash
# Ranks started by others than `soulchat train --ranks`: the bits of one rank. What is not installed
# is skipped, and said: mpirun, torchrun (TORCHRUN, or in PATH), srun with a running Slurm.
. "$(dirname "$0")/common.sh"
prepare
steps=4
args() { # OUT: arguments of a run
    echo train --config configs/tiny.yaml --data.dir="$scratch/corpus" --batch.size=4 \
        --batch.micro_tokens=1024 --train.validate_samples=4 --train.warmup_steps=1 \
        --train.schedule=constant --train.threads=1 --train.steps=$steps --batch.lanes=2 \
        --train.out="$scratch/$1"
}
must "one rank" "$soulchat" $(args alone)
want=$(digest "$scratch/alone/ckpt/step-0000000$steps")
same() { # NAME PATTERN: how the run says that its ranks met
    [ "$(digest "$scratch/$1/ckpt/step-0000000$steps")" = "$want" ] || fail "$1: other bits"
    grep -q "$2" "$scratch/log" || { cat "$scratch/log" >&2; fail "$1: no \"$2\""; }
    echo "ok: $1: ${want:0:16}"
}
skip() { echo "not tried: $*"; }

# A free port, as far as one can know; ranks of one job agree on it.
port=$((20000 + RANDOM % 10000))

# What torchrun does, without Python; and two machines, which are this one twice.
must "node.sh" scripts/launch/node.sh --nproc 2 --master 127.0.0.1:$port -- "$soulchat" $(args node)
same node "ranks: 2 over shm"
second() {
    scripts/launch/node.sh --nproc 1 --nodes 2 --node-rank 1 --master 127.0.0.1:$((port + 1)) \
        -- "$soulchat" $(args nodes)
}
second >"$scratch/second.log" 2>&1 &
must "node.sh, two machines" scripts/launch/node.sh --nproc 1 --nodes 2 --node-rank 0 \
    --master 127.0.0.1:$((port + 1)) -- "$soulchat" $(args nodes)
wait $! || { cat "$scratch/second.log" >&2; fail "node.sh: the second machine"; }
same nodes "ranks: 2 over shm"

# What ranks exchange, timed alone: every part ran, on both ranks.
scripts/launch/node.sh --nproc 2 --master 127.0.0.1:$((port + 4)) -- "$soulchat" bench comm --json \
    --bench.hidden=32 --bench.layers=3 --bench.heads=4 --bench.vocab=640 --bench.steps=2 \
    --train.threads=1 >"$scratch/comm.json" 2>"$scratch/log" ||
    { cat "$scratch/log" >&2; fail "bench comm"; }
grep -qE '"ranks":2,"kind":"shm".*"tree":0\.[0-9]+,"ring":0\.[0-9]+' "$scratch/comm.json" ||
    fail "bench comm: $(cat "$scratch/comm.json")"
echo "ok: bench comm"

# Each rank writes its own timeline, with the exchanges beside the computation.
must "traces" env SOULCHAT_TRACE="$scratch/step.json" "$soulchat" $(args traced) --ranks 2
same traced "ranks: 2 over shm"
for rank in 0 1; do
    trace=$scratch/step.json.rank$rank
    grep -q '"args":{"name":"exchanges"}' "$trace" || fail "trace $rank: no track"
    grep -q '"name":"alltoallv".*"tid":2}' "$trace" || fail "trace $rank: empty"
    if command -v python3 >/dev/null; then
        python3 -m json.tool "$trace" >/dev/null || fail "trace $rank: no JSON"
    fi
done
echo "ok: a trace of each rank"

# A failing rank is named, and its status is the script's.
status=0
scripts/launch/node.sh --nproc 2 --master 127.0.0.1:$((port + 2)) -- \
    "$soulchat" $(args none) --data.dir="$scratch/nowhere" >"$scratch/log" 2>&1 || status=$?
[ $status = 1 ] || { cat "$scratch/log" >&2; fail "node.sh: status $status, expected 1"; }
grep -q "node.sh: rank . ended with status 1" "$scratch/log" || fail "node.sh: no rank named"
echo "ok: node.sh ends as its rank did"

# A rank that is stopped and has to be killed is not the failure: it is the loss of the other (75).
mkdir "$scratch/bin"
printf '#!/bin/sh\nexec /bin/sleep 0.2\n' >"$scratch/bin/sleep"
chmod +x "$scratch/bin/sleep"
expect 75 "killed, still there after 15 s: rank 1" env PATH="$scratch/bin:$PATH" \
    scripts/launch/node.sh --nproc 2 -- bash -c '[ "$RANK" = 0 ] || kill -STOP $$; exit 75'
# One that ends in another way before that is.
expect 3 "rank 1 ended with status 3" \
    scripts/launch/node.sh --nproc 2 -- bash -c '[ "$RANK" = 0 ] || { sleep 0.3; exit 3; }; exit 75'

# Ctrl-C, which a terminal sends to all that run in it: each rank is asked once, and all save.
set -m # a process group for node.sh, as in a terminal
scripts/launch/node.sh --nproc 2 --master 127.0.0.1:$((port + 5)) -- "$soulchat" $(args asked) \
    --train.steps=100000 --train.log_every=1 >"$scratch/log" 2>&1 &
set +m
for ((i = 0; i < 600; i++)); do
    ! grep -q "/100000 steps" "$scratch/log" || break
    sleep 0.1
done
kill -INT -- -$!
status=0
wait $! || status=$?
[ $status = 130 ] || { cat "$scratch/log" >&2; fail "node.sh: status $status after Ctrl-C"; }
[ "$(grep -c "stopped after step" "$scratch/log")" = 1 ] && grep -q " saved " "$scratch/log" ||
    { cat "$scratch/log" >&2; fail "node.sh: nothing saved after Ctrl-C"; }
echo "ok: node.sh passes Ctrl-C on, once"

if command -v mpirun >/dev/null && [ -e "$(dirname "$soulchat")/../lib/libsoulchat_mpi.so" ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
        OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl=self,vader ASAN_OPTIONS=detect_leaks=0
    must "mpirun" mpirun -n 2 --bind-to none "$soulchat" $(args mpirun)
    same mpirun "ranks: 2 over mpi"
    must "mpirun.sh" scripts/launch/mpirun.sh localhost:2 2 "$soulchat" $(args mpirun-sh) \
        --train.zero=3
    same mpirun-sh "ranks: 2 over mpi"
else
    skip "mpirun: not installed, or this build has no MPI"
fi

torchrun=${TORCHRUN:-$(command -v torchrun || true)}
if [ -n "$torchrun" ]; then
    must "torchrun" "$torchrun" --standalone --no-python --nproc-per-node 2 "$soulchat" \
        $(args torchrun)
    same torchrun "ranks: 2 over shm"
else
    skip "torchrun: not in PATH"
fi

if command -v sinfo >/dev/null && timeout 5 sinfo -h >/dev/null 2>&1; then
    must "srun" srun --mpi=pmix --overcommit -n 2 "$soulchat" $(args srun)
    same srun "ranks: 2 over mpi"
else
    skip "srun: no Slurm is running"
fi

# srun without its part of MPI: a line that says what to do.
as_task() { # RANK
    SLURM_STEP_ID=0 SLURM_JOB_ID=1 SLURM_PROCID=$1 SLURM_NTASKS=2 SLURM_LOCALID=$1 \
        SLURM_STEP_NODELIST=localhost MASTER_PORT=$((port + 3)) "$soulchat" $(args no-mpi)
}
as_task 1 >"$scratch/second.log" 2>&1 &
if as_task 0 >"$scratch/log" 2>&1; then fail "srun without MPI: no error"; fi
wait $! && fail "srun without MPI: no error of rank 1"
cat "$scratch/second.log" >>"$scratch/log"
grep -qE "srun --mpi=pmix|libsoulchat_mpi" "$scratch/log" ||
    { cat "$scratch/log" >&2; fail "srun without MPI: no advice"; }
echo "ok: srun without MPI is told what is missing"

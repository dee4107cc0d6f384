#!/usr/bin/env bash
# The ranks of one machine, of a job on one or several: what torchrun does, without Python. Run it
# on every machine, with the same arguments but --node-rank; rank 0 is on machine 0.
#
#     scripts/launch/node.sh --nproc 8 --nodes 2 --node-rank 0 --master node0:29400 \
#         -- soulchat train --config configs/chatglm-6b-8x80gb.yaml
#
#     --nproc N       ranks on this machine, one for each GPU
#     --nodes N       machines (1)
#     --node-rank N   which of them this is (0)
#     --master H:P    where rank 0 listens (127.0.0.1:29400)
#
# SOULCHAT_JOB=name keeps jobs apart that use one port. CPU ranks of several machines need
# mpirun.sh. Signals are passed on to all ranks. When one rank fails, the others end by themselves;
# those that have not after 15 seconds are killed. The exit status is that of the first that failed.
# Needs bash 5.1.
set -um # each rank in a process group of its own: Ctrl-C reaches this script, and ranks once

nproc='' nodes=1 node_rank=0 master=127.0.0.1:29400
usage() {
  echo "usage: node.sh --nproc N [--nodes N --node-rank N --master HOST:PORT] -- COMMAND..." >&2
  exit 2
}
while (($# > 0)); do
  case $1 in
    --nproc) nproc=${2-} ;;
    --nodes) nodes=${2-} ;;
    --node-rank) node_rank=${2-} ;;
    --master) master=${2-} ;;
    --) shift; break ;;
    *) usage ;;
  esac
  shift 2 || usage
done
[[ $nproc =~ ^[1-9][0-9]*$ && $nodes =~ ^[1-9][0-9]*$ && $node_rank =~ ^[0-9]+$ ]] || usage
if [[ $master != *:* ]] || ((node_rank >= nodes || $# == 0)); then usage; fi

export WORLD_SIZE=$((nodes * nproc)) MASTER_ADDR=${master%:*} MASTER_PORT=${master##*:}
declare -A running # pid: rank
for ((local = 0; local < nproc; local++)); do
  RANK=$((node_rank * nproc + local)) LOCAL_RANK=$local "$@" &
  running[$!]=$((node_rank * nproc + local))
done
for signal in INT TERM HUP USR1 USR2; do
  trap "kill -$signal \"\${!running[@]}\" 2> /dev/null" "$signal"
done

status=0 timer='' killed=0
while ((${#running[@]} > 0)); do
  ended=''
  # -f: until it has ended; being stopped is not enough
  wait -fn -p ended "${!running[@]}" ${timer:+"$timer"} 2> /dev/null
  code=$?
  [[ -n ${ended-} ]] || continue # a signal came
  if [[ $ended == "$timer" ]]; then
    echo "node.sh: killed, still there after 15 s: rank ${running[*]}" >&2
    kill -KILL "${!running[@]}" 2> /dev/null
    timer='' killed=1
    continue
  fi
  rank=${running[$ended]}
  unset "running[$ended]"
  ((code != 0)) || continue
  echo "node.sh: rank $rank ended with status $code" >&2
  # Not those that ended because of another rank (75), or that were killed above.
  if ((!killed && (status == 0 || status == 75))); then status=$code; fi
  if [[ -z $timer ]] && ((!killed && ${#running[@]} > 0)); then
    sleep 15 > /dev/null 2>&1 &
    timer=$!
  fi
done
if [[ -n $timer ]]; then
  disown "$timer" # or its end would be told
  kill "$timer"
fi
exit "$status"

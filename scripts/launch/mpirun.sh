#!/usr/bin/env bash
# CPU ranks on several machines, over Open MPI. On one machine "soulchat train --ranks N" needs
# less.
#
#     scripts/launch/mpirun.sh HOSTS RANKS COMMAND...
#     scripts/launch/mpirun.sh node0:2,node1:2 4 soulchat train --config configs/tiny.yaml
#
# HOSTS as for mpirun --host; rank 0 runs on the first. The program, its settings and its data are
# at the same paths on all of them. GPU ranks start the same way, one for each GPU of a host. What
# Open MPI itself is to be told goes into MPIRUN_FLAGS.
set -euo pipefail

if (($# < 3)); then
  echo "usage: mpirun.sh HOST[:SLOTS],... RANKS COMMAND..." >&2
  exit 2
fi
hosts=$1 ranks=$2
shift 2
first=${hosts%%,*}
port=$((20000 + RANDOM % 10000))
read -r -a flags <<< "${MPIRUN_FLAGS-}"

exec mpirun --host "$hosts" -n "$ranks" --bind-to none \
  -x MASTER_ADDR="${MASTER_ADDR-${first%%:*}}" -x MASTER_PORT="${MASTER_PORT-$port}" \
  -x SOULCHAT_JOB="${SOULCHAT_JOB-mpirun-$$-$port}" -x OMP_WAIT_POLICY=passive \
  ${flags[@]+"${flags[@]}"} "$@"

# common.sh - sourced by the end-to-end tests: a scratch folder, the program, small checks.
# Usage: SOULCHAT=path/to/soulchat bash tests/e2e/NAME.sh        (from the project's root)
set -euo pipefail

# What nohup, & or a CI system ignores would be ignored by every program that is started here.
if [ -z "${e2e_signals:-}" ]; then e2e_signals=default exec env --default-signal bash "$0" "$@"; fi

soulchat=${SOULCHAT:?path of the soulchat program}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/soulchat-e2e-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
cd "$root"

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

# expect STATUS TEXT command...: the command ends with STATUS, and its one line of error has TEXT.
expect() {
    local status=$1 text=$2 got=0
    shift 2
    "$@" >"$scratch/out" 2>"$scratch/err" || got=$?
    [ "$got" = "$status" ] || { cat "$scratch/err" >&2; fail "exit $got, expected $status: $*"; }
    grep -qF -- "$text" "$scratch/err" || { cat "$scratch/err" >&2; fail "no \"$text\" from: $*"; }
    echo "ok: $(grep -F -- "$text" "$scratch/err" | tail -1)"
}

# A run small enough for a test: some seconds. `tiny_exec` replaces the shell it runs in, so that
# in the background $! is the program itself and signals reach it.
tiny_exec() {
    exec "$soulchat" "$1" --config configs/tiny.yaml --data.dir="$scratch/corpus" --batch.size=4 \
        --batch.micro_tokens=1024 --train.validate_samples=4 --train.warmup_steps=1 "${@:2}"
}
tiny() { (tiny_exec "$@"); }

# must NAME command...: the command succeeds; its output, in $scratch/log, is shown if it does not.
must() {
    local name=$1
    shift
    "$@" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; fail "$name"; }
}

prepare() { must prepare tiny prepare; }

# One digest over weights and optimizer state of a checkpoint.
digest() {
    (cd "$1" && sha256sum model.*.safetensors optim.*.safetensors | sha256sum | cut -c1-64)
}

# wait_until WHAT command...: until the command succeeds.
wait_until() {
    local what=$1
    shift
    for _ in $(seq 1000); do
        "$@" && return
        sleep 0.02
    done
    cat "$scratch/log" >&2
    fail "$what"
}
lines() { cat "$scratch/$1/metrics.jsonl" 2>/dev/null | wc -l; }
has_lines() { [ "$(lines "$1")" -ge "$2" ]; }
# wait_lines RUN N: until its metrics have N lines.
wait_lines() { wait_until "$1: no $2 lines of metrics" has_lines "$1" "$2"; }
# wait_more RUN: until there are two more.
wait_more() { wait_lines "$1" $(($(lines "$1") + 2)); }

# ends STATUS PID NAME: how a program in the background ends.
ends() {
    local status=0
    wait "$2" || status=$?
    [ $status = "$1" ] || { cat "$scratch/log" >&2; fail "$3: exit $status, expected $1"; }
    echo "ok: $3: exit $status"
}

#!/usr/bin/env bash
# Everything that needs a GPU, in one call that ends in time: builds, tests every operator and the
# network on the device, measures operators, whole training steps of ChatGLM-6B and the same in
# PyTorch, checks that runs repeat to the bit, runs NVIDIA's checkers; writes a dated JSON.
#     scripts/gpu_check.sh [--stages LIST] [--minutes M] [--out DIR] [--device NAME] [--tiny]
#                          [--build DIR] [--python PATH]
#   --stages   of: info build smoke tests bench step peer equal sanitize ncu   (default: all)
#   --minutes  ends within so many, stage by stage (default 9.5)
#   --out      folder for the JSON and the log (default tests/bench/results)
#   --device   cuda (default), or emu or cpu to try the script without a GPU
#   --tiny     sizes that take seconds; with emu and cpu always
#   --build    a build folder to use or make (default build-gpu)
#   --python   the python3 that has PyTorch (default python3)
# On a bare machine without a network, first run scripts/gpu_bundle.sh elsewhere and bring .gpu-deps
# along. Nothing of the card is changed: no clocks, no modes.
set -uo pipefail
shopt -s extglob
cd "$(dirname "$0")/.." || exit 1

all_stages="info build smoke tests bench step peer equal sanitize ncu"
stages=$all_stages minutes=9.5 device=cuda tiny=0 build=build-gpu python=python3
out=tests/bench/results
while (($# > 0)); do
  case $1 in
    --stages) stages=${2//,/ }; shift 2 ;;
    --minutes) minutes=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --tiny) tiny=1; shift ;;
    --build) build=$2; shift 2 ;;
    --python) python=$2; shift 2 ;;
    *) sed -n '2,17s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
for stage in $stages; do
  [[ " $all_stages " == *" $stage "* ]] || { echo "gpu_check: no stage $stage" >&2; exit 2; }
done
[[ $device == cuda* ]] || tiny=1
here=$PWD
mkdir -p "$out" && out=$(cd "$out" && pwd)
begin=$(date +%s) name=gpu-$(date -u +%Y%m%d-%H%M%S)
deadline=$(awk -v b="$begin" -v m="$minutes" 'BEGIN { printf "%d", b + 60 * m }')
work=$(mktemp -d "${TMPDIR:-/tmp}/gpu-check-XXXXXX")
status=0
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

remaining() { echo $((deadline - $(date +%s))); }
say() { printf '%5d s  %s\n' $(($(date +%s) - begin)) "$*"; }

# The report is written after every stage, so that a killed call leaves what it had.
report() {
  cat "$work"/*.log > "$out/$name.log" 2> /dev/null
  python3 scripts/gpu_report.py "$work" "$out/$name.json" "$@" || status=1
}

# run NAME SECONDS command...: one measurement or check with a log and a limit of its own.
run() {
  local what=$1 limit=$2 left started rc=0
  shift 2
  left=$(remaining)
  ((left - 5 < limit)) && limit=$((left - 5))
  if ((limit < 5)); then
    say "$what: no time left"
    echo "{\"check\":\"$what\",\"status\":\"no time\"}" >> "$work/checks.jsonl"
    return 1
  fi
  started=$(date +%s%N)
  echo "== $what: $*" > "$work/$stage-$what.log"
  timeout -k 5 "$limit" "$@" >> "$work/$stage-$what.log" 2>&1 || rc=$?
  local seconds=$((($(date +%s%N) - started) / 1000000))
  local text=ok
  ((rc == 77)) && text=skipped
  ((rc == 124 || rc == 137)) && text="stopped at $limit s"
  ((rc == 0 || rc == 77 || rc == 124 || rc == 137)) || text="failed ($rc)"
  echo "{\"check\":\"$what\",\"stage\":\"$stage\",\"status\":\"$text\",\"ms\":$seconds}" \
    >> "$work/checks.jsonl"
  say "$what: $text, $((seconds / 1000)).$((seconds / 100 % 10)) s"
  if ((rc != 0 && rc != 77)); then
    status=1
    grep -aE 'error|Error|FAILED|fail|soulchat:|ERROR' "$work/$stage-$what.log" | head -8 \
      | cut -c1-300 | sed 's/^/         /'
  fi
  return "$rc"
}

# ---- stages ----

stage_info() {
  {
    echo "date=$(date -u +%FT%TZ)"
    echo "commit=$(git rev-parse HEAD 2> /dev/null || cat .gpu-deps/git-id 2> /dev/null)"
    echo "device=$device"
    echo "tiny=$tiny"
    echo "host=$(uname -srm), $(nproc) cores"
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null \
      | sed 's/^/gpu=/'
    nvcc --version 2> /dev/null | sed -n 's/.*release /nvcc=/p'
    "$python" - 2> /dev/null << 'PY'
import torch
print("torch=" + torch.__version__)
print("torch_cudnn=" + str(torch.backends.cudnn.version()))
PY
  } > "$work/info.txt"
  sed 's/^/         /' "$work/info.txt"
}

# Where a toolkit comes as Python packages, its libraries lie there without the names linkers want.
find_cuda_libraries() {
  local site library header
  site=$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])' 2> /dev/null) || return 0
  mkdir -p "$build/cuda-shim"
  for library in cublasLt cublas cudart; do
    local file
    file=$(find "$site" -name "lib$library.so.*" 2> /dev/null | head -1)
    [[ -n $file ]] || continue
    ln -sf "$file" "$build/cuda-shim/lib$library.so"
    ln -sf "$file" "$build/cuda-shim/$(basename "$file")"
  done
  header=$(find "$site" -name cublasLt.h 2> /dev/null | head -1)
  if [[ ! -e $(dirname "$(command -v nvcc)")/../include/cublasLt.h && -n $header ]]; then
    export CPATH="$(dirname "$header")${CPATH:+:$CPATH}"
    cmake_more+=("-DCMAKE_LIBRARY_PATH=$here/$build/cuda-shim")
  fi
  local name
  for name in libcudnn.so.9 libnccl.so.2; do
    library=$(find "$site" -name "$name" 2> /dev/null | head -1)
    [[ -z $library ]] || export LD_LIBRARY_PATH="$(dirname "$library"):${LD_LIBRARY_PATH:-}"
  done
}

cmake_more=()
stage_build() {
  local cuda=OFF generator=()
  [[ $device == cuda* ]] && cuda=ON
  command -v ninja > /dev/null && generator=(-G Ninja)
  run configure 60 cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DSOULCHAT_CUDA=$cuda -DSOULCHAT_CUDA_ARCHS=90a-real -DSOULCHAT_WERROR=OFF \
    -DSOULCHAT_WITH_HDF5=OFF -DSOULCHAT_WITH_SENTENCEPIECE=OFF -DSOULCHAT_WITH_ONEDNN=OFF \
    -DCMAKE_PREFIX_PATH="$here/.gpu-deps" "${cmake_more[@]}" || return
  run compile 300 cmake --build "$build" -j "$(nproc)"
}

soulchat() { echo "$build/bin/soulchat"; }

stage_smoke() {
  run doctor 60 "$(soulchat)" doctor --device "$device"
  run parity-f32 60 "$build/tests/parity" tests/golden/chatglm-tiny --device "$device"
  [[ $device == cpu ]] ||
    run parity-bf16 60 "$build/tests/parity" tests/golden/chatglm-tiny --device "$device" \
      --dtype bf16
}

# Tests of operators, network and NCCL on the device alone; the host was tested elsewhere.
stage_tests() {
  local test
  for test in "$build"/tests/test_kernels_{dev,ops}* \
              "$build"/tests/test_model_{train,pack,decode} "$build"/tests/test_train_comm_gpu; do
    [[ -x $test ]] || continue
    run "$(basename "$test")" 90 env SOULCHAT_TEST_DEVICES="${device%%:*}" \
      SOULCHAT_TEST_GPU="$device" "$test"
    if grep -q "^SKIP: ${device%%:*}" "$work/$stage-$(basename "$test").log"; then
      say "$(basename "$test"): did not find the device"
      echo "{\"check\":\"$(basename "$test") on $device\",\"status\":\"no device\"}" \
        >> "$work/checks.jsonl"
      status=1
    fi
  done
}

stage_bench() {
  local seconds=0.3 dtype dtypes="bf16 f32"
  ((tiny)) && seconds=0.01
  [[ $device == cpu ]] && dtypes=f32
  if [[ $device == cuda* ]]; then
    run ceilings 40 "$python" tests/peer/ceilings_torch.py --json "$work/ceilings.json"
  fi
  for dtype in $dtypes; do
    local only=()
    ((tiny)) && only=(--only norm --sizes tiny)
    run "bench-ops-$dtype" 60 "$build/bin/bench_ops" --device "$device" --dtype "$dtype" \
      --seconds "$seconds" --json "$work/bench_ops.jsonl" "${only[@]}"
    grep -a "floor" "$work/$stage-bench-ops-$dtype.log" | sed 's/^/         /' | head -60
  done
}

# What a step is here: ours (sizes) and PyTorch's (peer_sizes).
set_sizes() {
  packs=()
  if ((tiny)); then
    sizes=(--bench.hidden=64 --bench.layers=2 --bench.heads=2 --bench.vocab=640 --bench.rows=256
      --bench.micro=2 --bench.steps=2 --bench.probe=64)
    peer_sizes=(--preset tiny --rows 256 --micro 2 --steps 2 --device cpu --threads 1
      --attention segments)
  else
    sizes=(--bench.hidden=4096 --bench.layers=28 --bench.heads=32 --bench.vocab=130528
      --bench.rows=16384 --bench.micro=4 --bench.steps=8 --bench.probe=8192)
    peer_sizes=(--preset 6b --rows 16384 --micro 4 --steps 6 --precision bf16)
    if [[ -r .gpu-deps/packs.safetensors ]]; then
      packs=(--bench.packs=.gpu-deps/packs.safetensors)
      peer_sizes+=(--packs .gpu-deps/packs.safetensors)
    fi
  fi
  precision=()
  [[ $device == cpu ]] || precision=(--train.precision=bf16)
}

# step NAME SECONDS settings...: measure steps; the JSON is kept as STAGE-NAME.json.
step() {
  local what=$1 limit=$2
  shift 2
  run "$what" "$limit" bash -c '"$@" > "$0"' "$work/$stage-$what.json" "$(soulchat)" bench step \
    --json --device "$device" "${sizes[@]}" "$@"
}

stage_step() {
  set_sizes
  if ((tiny)); then
    step tiny 60 "${precision[@]}"
    return
  fi
  step bf16-grads 110 "${packs[@]}" "${precision[@]}" --train.grad_dtype=bf16 \
    --train.activations=lean
  step f32-grads 110 "${precision[@]}" --train.activations=lean --bench.rows=8192 --bench.micro=8 \
    --bench.steps=4
}

stage_peer() {
  set_sizes
  if ! "$python" -c 'import torch' 2> /dev/null; then
    say "peer: $python has no PyTorch: skipped"
    return
  fi
  # An attention that breaks the device takes the program with it: then the plainest one.
  run peer 240 "$python" tests/peer/train_torch.py "${peer_sizes[@]}" --deadline 200 \
    --json "$work/peer.json" || ((tiny)) ||
    run peer-flash 150 "$python" tests/peer/train_torch.py "${peer_sizes[@]}" --deadline 120 \
      --attention flash --json "$work/peer.json"
}

# Two runs of the same steps have the same losses to the last digit.
stage_equal() {
  set_sizes
  local run_number
  ((tiny)) || sizes=(--bench.hidden=1024 --bench.layers=8 --bench.heads=8 --bench.vocab=32000
    --bench.rows=8192 --bench.micro=2 --bench.steps=8 --bench.probe=1024)
  for run_number in 1 2; do step "steps-$run_number" 60 "${precision[@]}" || return; done
  run same-bits 10 python3 - "$work/equal-steps-1.json" "$work/equal-steps-2.json" << 'PY'
import json, sys
a, b = (json.load(open(name))["losses"] for name in sys.argv[1:])
print(a, b)
sys.exit(0 if a == b else "losses differ between two runs")
PY
}

stage_sanitize() {
  local tool test
  command -v compute-sanitizer > /dev/null || { say "sanitize: no compute-sanitizer here"; return; }
  for tool in memcheck racecheck synccheck initcheck; do
    for test in norm embed optim loss attn linear decode; do
      [[ -x $build/tests/test_kernels_ops_$test ]] || continue
      run "$tool-$test" 40 env SOULCHAT_TEST_DEVICES=cuda compute-sanitizer --tool "$tool" \
        --error-exitcode 9 --print-limit 5 "$build/tests/test_kernels_ops_$test"
    done
  done
}

stage_ncu() {
  local group share=avg.pct_of_peak_sustained_elapsed
  local metrics=gpu__time_duration.sum,dram__bytes.sum,dram__throughput.$share
  metrics+=,sm__throughput.$share
  command -v ncu > /dev/null || { say "ncu: not here"; return; }
  for group in norm optim rotary attn loss; do
    run "ncu-$group" 60 ncu --clock-control none --launch-skip 2 --launch-count 6 --csv \
      --metrics "$metrics" \
      "$build/bin/bench_ops" --device "$device" --dtype bf16 --only "$group" --seconds 0.01
  done
}

# ---- all of it ----

trap 'report --table; rm -rf "$work"' EXIT
trap 'exit 1' TERM INT
command -v nvcc > /dev/null || PATH=$PATH:/usr/local/cuda/bin
needs_gpu=${stages//@(info|build| )/}
if [[ -n $needs_gpu && $device == cuda* ]] && ! nvidia-smi > /dev/null 2>&1; then
  echo "gpu_check: no NVIDIA GPU answers here (nvidia-smi); --device emu or cpu tries the script"
  trap 'rm -rf "$work"' EXIT
  exit 77
fi
find_cuda_libraries
for stage in $stages; do
  say "---- $stage"
  "stage_$stage"
  report
done
exit "$status"

#!/usr/bin/env bash
# Everything that needs a GPU, in calls that end in time: builds, measures whole training steps of
# ChatGLM-6B and the same in PyTorch, operators, and what `soulchat plan` predicts; tests every
# operator and the network on the device; checks that runs repeat to the bit; trains a model from
# scratch beside PyTorch; provokes what can go wrong; runs NVIDIA's checkers. Writes a dated JSON,
# with a verdict for each of the project's bars, after every check, so that a killed call leaves
# what it had.
#     scripts/gpu_check.sh [--stages LIST] [--minutes M] [--out DIR] [--device NAME] [--tiny]
#                          [--build DIR] [--python PATH]
#   --stages   of: info build smoke step peer bench plan tests equal learn conditions step32
#              sanitize ncu (default: all)
#   --minutes  ends within so many, stage by stage (default 9.3)
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

all_stages="info build smoke step peer bench plan tests equal learn conditions step32"
all_stages+=" sanitize ncu"
stages=$all_stages minutes=9.3 device=cuda tiny=0 build=build-gpu python=python3
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
    *) sed -n '2,21s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
for stage in $stages; do
  [[ " $all_stages " == *" $stage "* ]] || { echo "gpu_check: no stage $stage" >&2; exit 2; }
done
[[ $device == cuda* ]] || tiny=1
mkdir -p "$out" "$build" && out=$(cd "$out" && pwd) && build=$(cd "$build" && pwd) || exit 1
begin=$(date +%s) name=gpu-$(date -u +%Y%m%d-%H%M%S)
deadline=$(awk -v b="$begin" -v m="$minutes" 'BEGIN { printf "%d", b + 60 * m }')
work=$(mktemp -d "${TMPDIR:-/tmp}/gpu-check-XXXXXX")
soulchat=$build/bin/soulchat deps=$PWD/.gpu-deps
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
export SOULCHAT_TUNE=$build/gemm.tune # chosen once for all that is run here

# What a stage may take at most, in seconds, whatever becomes of its parts.
declare -A share=([info]=40 [build]=240 [smoke]=70 [step]=150 [peer]=260 [bench]=130 [plan]=20
  [tests]=120 [equal]=60 [learn]=330 [conditions]=60 [step32]=100 [sanitize]=240 [ncu]=90)
stage_end=0

say() { printf '%5d s  %s\n' $(($(date +%s) - begin)) "$*"; }

report() {
  cat "$work"/*.log > "$out/$name.log" 2> /dev/null
  python3 scripts/gpu_report.py "$work" "$out/$name.json" "$@"
}

# note NAME STATUS MILLISECONDS: into the report.
note() {
  echo "{\"check\":\"$1\",\"stage\":\"$stage\",\"status\":\"$2\",\"ms\":$3}" >> "$work/checks.jsonl"
}

# What may run so many seconds: no more than is left to the stage and to the call.
limit_of() {
  local now
  now=$(date +%s)
  local left=$((deadline - now - 8)) stage_left=$((stage_end - now))
  local limit=$1
  ((left < limit)) && limit=$left
  ((stage_left < limit)) && limit=$stage_left
  echo "$limit"
}

# run NAME SECONDS command...: one measurement or check with a log and a limit of its own.
run() {
  local what=$1 limit started rc=0
  limit=$(limit_of "$2")
  shift 2
  if ((limit < 5)); then
    say "$what: no time left"
    note "$what" "no time" 0
    return 1
  fi
  started=$(date +%s%N)
  echo "== $what: $*" > "$work/$stage-$what.log"
  timeout -k 5 "$limit" "$@" >> "$work/$stage-$what.log" 2>&1 || rc=$?
  local ms=$((($(date +%s%N) - started) / 1000000)) text=ok
  ((rc == 77)) && text=skipped
  ((rc == 124 || rc == 137)) && text="stopped at $limit s"
  ((rc == 0 || rc == 77 || rc == 124 || rc == 137)) || text="failed ($rc)"
  note "$what" "$text" "$ms"
  say "$what: $text, $((ms / 1000)).$((ms / 100 % 10)) s"
  if ((rc != 0 && rc != 77)); then
    grep -aE 'error|Error|FAILED|fail|soulchat:|ERROR' "$work/$stage-$what.log" | head -8 \
      | cut -c1-300 | sed 's/^/         /'
  fi
  report
  return "$rc"
}

# Several at a time, two cores each: what they cost is mostly work of the host.
run_beside() {
  while (($(jobs -rp | wc -l) >= ($(nproc) + 1) / 2)); do wait -n; done
  OMP_NUM_THREADS=2 run "$@" &
}

# ---- what is here ----

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
    timeout 30 "$python" - 2> /dev/null << 'PY'
import torch
print("torch=" + torch.__version__)
print("torch_cudnn=" + str(torch.backends.cudnn.version()))
PY
  } > "$work/info.txt"
  sed 's/^/         /' "$work/info.txt"
}

# ---- building ----

# Where a toolkit comes as Python packages, its libraries lie there without the names linkers want.
# Sets cmake_more and the search path of libraries that are opened at run time.
find_cuda_libraries() {
  local site library file header name
  cmake_more=()
  site=$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])' 2> /dev/null) || return 0
  mkdir -p "$build/cuda-shim"
  for library in cublasLt cublas; do
    file=$(find "$site" -name "lib$library.so.*" 2> /dev/null | head -1)
    [[ -n $file ]] || continue
    ln -sf "$file" "$build/cuda-shim/lib$library.so"
    ln -sf "$file" "$build/cuda-shim/$(basename "$file")"
  done
  header=$(find "$site" -name cublasLt.h 2> /dev/null | head -1)
  if [[ ! -e $(dirname "$(command -v nvcc)")/../include/cublasLt.h && -n $header ]]; then
    export CPATH="$(dirname "$header")${CPATH:+:$CPATH}"
    cmake_more+=("-DCMAKE_LIBRARY_PATH=$build/cuda-shim")
  fi
  for name in CUDNN/cudnn_graph NCCL/nccl; do # of the libraries here, not the bundle's
    header=$(find "$site" -name "${name#*/}.h" 2> /dev/null | head -1)
    [[ -z $header ]] || cmake_more+=("-DSOULCHAT_${name%/*}_INCLUDE_DIR=$(dirname "$header")")
  done
  for name in libcudnn.so.9 libnccl.so.2; do
    library=$(find "$site" -name "$name" 2> /dev/null | head -1)
    [[ -z $library ]] || export LD_LIBRARY_PATH="$(dirname "$library"):${LD_LIBRARY_PATH:-}"
  done
}

tests_wanted() {
  echo test_kernels_dev test_kernels_dev_gpu test_kernels_self_test test_kernels_ops \
    test_kernels_ops_{norm,embed,optim,moments,loss,linear,attn,decode} \
    test_model_{grad,pack,decode,flight,units} test_train_comm_gpu test_train_device
}

stage_build() {
  local cuda=OFF generator=() hdf5=OFF target targets=(soulchat bench_ops parity)
  [[ $device == cuda* ]] && cuda=ON
  command -v ninja > /dev/null && [[ ! -e $build/Makefile ]] && generator=(-G Ninja)
  [[ -e $deps/lib/libhdf5.a ]] && hdf5=ON
  run configure 60 cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DSOULCHAT_CUDA=$cuda -DSOULCHAT_CUDA_ARCHS=90a-real -DSOULCHAT_WERROR=OFF \
    -DSOULCHAT_WITH_HDF5=$hdf5 -DSOULCHAT_WITH_SENTENCEPIECE=OFF -DSOULCHAT_WITH_ONEDNN=OFF \
    -DCMAKE_PREFIX_PATH="$deps" "${cmake_more[@]}" || return
  run compile 150 cmake --build "$build" -j "$(nproc)" --target "${targets[@]}" || return
  cmake --build "$build" --target help > "$work/targets.txt" 2> /dev/null
  targets=()
  for target in $(tests_wanted); do
    grep -qwF "$target" "$work/targets.txt" && targets+=("$target")
  done
  run compile-tests 120 cmake --build "$build" -j "$(nproc)" --target "${targets[@]}"
}

# ---- does it compute what it should ----

stage_smoke() {
  run doctor 50 "$soulchat" doctor --device "$device"
  if [[ $device == cuda* ]] && ! grep -q 'cuDNN 9' "$work/smoke-doctor.log"; then
    say "doctor: cuDNN was not found: attention runs on our own kernels"
    note cudnn "not found" 0
  fi
  run parity-f32 40 "$build/tests/parity" tests/golden/chatglm-tiny --device "$device"
  [[ $device == cpu ]] && return
  run parity-bf16 40 "$build/tests/parity" tests/golden/chatglm-tiny --device "$device" \
    --dtype bf16
  run parity-bf16-grads 40 "$build/tests/parity" tests/golden/chatglm-tiny --device "$device" \
    --dtype bf16 --grad-dtype bf16
}

# Tests of operators, network, NCCL and of failing calls on the device alone; the host was tested
# elsewhere.
stage_tests() {
  local test file gpu=$device
  [[ $device != cpu ]] || gpu=emu # the network in bf16
  for test in $(tests_wanted); do
    [[ -x $build/tests/$test ]] || continue
    run_beside "$test" 90 env SOULCHAT_TEST_DEVICES="${device%%:*}" SOULCHAT_TEST_GPU="$gpu" \
      "$build/tests/$test"
  done
  wait
  for file in "$work"/tests-*.log; do
    grep -q "^SKIP: ${device%%:*}" "$file" || continue
    say "$(basename "$file"): did not find the device"
    note "$(basename "$file" .log) on $device" "no device" 0
  done
}

# Two runs of the same settings have the same losses to the last digit, and two trainings, one of
# them stopped half way and resumed, the same checkpoint to the last bit.
stage_equal() {
  local number sizes=(--bench.hidden=1024 --bench.layers=8 --bench.heads=8 --bench.vocab=32000
    --bench.rows=8192 --bench.micro=2 --bench.steps=8 --bench.probe=1024)
  ((tiny)) && sizes=("${tiny_sizes[@]}")
  for number in 1 2; do
    step "steps-$number" 40 "${sizes[@]}" "${precision[@]}" || return
  done
  run same-losses 10 python3 - "$work/equal-steps-1.json" "$work/equal-steps-2.json" << 'PY'
import json, sys
a, b = (json.load(open(name))["losses"] for name in sys.argv[1:])
print(a, b)
sys.exit(0 if a == b else "losses differ between two runs")
PY
  open_corpus || return
  rm -rf "$learn"/equal-*
  run train-whole 60 "${train[@]}" --train.out="$learn/equal-1" --train.steps=6 || return
  run train-half 60 "${train[@]}" --train.out="$learn/equal-2" --train.steps=3 || return
  run train-resumed 60 "${train[@]}" --train.out="$learn/equal-2" --train.steps=6 --resume \
    || return
  run same-weights 60 "$soulchat" ckpt diff "$learn/equal-1" "$learn/equal-2"
  run same-bytes 60 diff -r "$learn"/equal-{1,2}/ckpt/step-00000006
}

# ---- how fast ----

# step NAME SECONDS settings...: measure steps; the JSON is kept as STAGE-NAME.json.
step() {
  local what=$1 limit=$2
  shift 2
  run "$what" "$limit" bash -c '"$@" > "$0"' "$work/$stage-$what.json" "$soulchat" bench step \
    --json --device "$device" "$@"
}

# What the card shows meanwhile: memory, clock, power, temperature.
watch_card() {
  command -v nvidia-smi > /dev/null || return 0
  nvidia-smi --query-gpu=memory.used,clocks.sm,power.draw,temperature.gpu \
    --format=csv,noheader,nounits -lms 500 > "$work/$stage-$1.card" 2> /dev/null &
  watcher=$!
}

unwatch_card() {
  [[ -z ${watcher:-} ]] || kill "$watcher" 2> /dev/null
  watcher=''
}

# Whole steps of ChatGLM-6B: 65,536 rows in four micro-batches.
stage_step() {
  if ((tiny)); then
    step tiny 60 "${tiny_sizes[@]}" "${precision[@]}"
    timeline "${tiny_sizes[@]}"
    return
  fi
  watch_card bf16-grads
  step bf16-grads 120 "${sizes_6b[@]}" "${precision[@]}" --train.grad_dtype=bf16 --bench.steps=5
  unwatch_card
  # A timeline for ui.perfetto.dev: a step and its surroundings, of four layers.
  timeline "${sizes_6b[@]}" --bench.layers=4 --train.grad_dtype=bf16
}

# The same with gradients in float32, which leaves room for half the rows.
stage_step32() {
  ((tiny)) && return
  step f32-grads 90 --bench.hidden=4096 --bench.layers=28 --bench.heads=32 --bench.vocab=130528 \
    --bench.rows=8192 --bench.micro=8 --bench.probe=8192 --bench.steps=4 "${precision[@]}" \
    --train.activations=lean
}

# timeline settings...: SOULCHAT_TRACE of a few steps, for the report and for ui.perfetto.dev.
timeline() {
  run timeline 40 env SOULCHAT_TRACE="$work/trace.json" "$soulchat" bench step --device "$device" \
    "$@" "${precision[@]}" --bench.steps=1
  gzip -c "$work/trace.json" > "$out/$name.trace.json.gz"
}

has_torch() { # without importing it, which takes long
  "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)'
}

stage_peer() {
  local sizes=(--preset 6b --rows 16384 --micro 4 --steps 6 --precision bf16)
  if ! has_torch; then
    say "peer: $python has no PyTorch: skipped"
    note peer skipped 0
    return
  fi
  [[ -r $deps/packs.safetensors ]] && sizes+=(--packs "$deps/packs.safetensors")
  if ((tiny)); then
    sizes=(--preset tiny --rows 256 --micro 2 --steps 2 --device cpu --threads 1
      --attention segments)
  fi
  # An attention that breaks the device takes the program with it: then the plainest one, and
  # without the compiler.
  run peer 210 "$python" tests/peer/train_torch.py "${sizes[@]}" --deadline 170 \
    --json "$work/peer.json"
  [[ -s $work/peer.json ]] || ((tiny)) ||
    run peer-flash 100 "$python" tests/peer/train_torch.py "${sizes[@]}" --deadline 80 \
      --attention flash --compile none --steps 3 --json "$work/peer.json"
}

stage_bench() {
  local seconds=0.3 only=()
  ((tiny)) && seconds=0.01 only=(--only norm --sizes tiny)
  if [[ $device == cuda* ]]; then
    run ceilings 30 "$python" tests/peer/ceilings_torch.py --json "$work/ceilings.json"
  fi
  if [[ $device != cpu ]]; then
    run bench-ops-bf16 90 "$build/bin/bench_ops" --device "$device" --dtype bf16 \
      --seconds "$seconds" --json "$work/bench_ops.jsonl" "${only[@]}"
    grep -ahE "% .*/s" "$work/$stage-bench-ops-bf16.log" | cut -c1-160 | sed 's/^/         /'
  fi
  ((tiny)) || only=(--only norm)
  run bench-ops-f32 40 "$build/bin/bench_ops" --device "$device" --dtype f32 \
    --seconds "$seconds" --json "$work/bench_ops.jsonl" "${only[@]}"
}

# What `soulchat plan` says of the step that was measured, at the rates that were.
stage_plan() {
  local card=(--plan.card=h200) settings=(--train.precision=bf16 --train.grad_dtype=bf16
    --train.activations=lean --batch.unit=tokens --batch.size=65536 --batch.micro_tokens=16384)
  if ! python3 scripts/gpu_report.py "$work" "$out/$name.json" --rates "$work/rates.json" \
    > "$work/plan-card.txt"; then
    say "plan: no rates measured in this call: the assumed ones"
  else
    card=("--plan.card=$(head -1 "$work/plan-card.txt")" --plan.rates="$work/rates.json")
    read -r -a settings <<< "${settings[*]} $(sed -n 2p "$work/plan-card.txt")"
  fi
  run plan 15 bash -c '"$@" > "$0"' "$work/plan.json" "$soulchat" plan --json "${card[@]}" \
    "${settings[@]}"
}

# ---- training from scratch ----

# Shards of the bundle's corpus, in $learn/shards, and how to train on them in `train`.
open_corpus() {
  local source=$deps/corpus.jsonl.zst
  learn=$build/learn
  if ((tiny)) || [[ ! -r $source ]]; then # a small one that comes with the sources
    source=data/sample/corpus.json
    model=data/sample/model
  else
    model=$deps/model
  fi
  mkdir -p "$learn"
  if grep -q 'SOULCHAT_WITH_HDF5:BOOL=OFF' "$build/CMakeCache.txt"; then
    say "$stage: this build has no HDF5, so it cannot train"
    note "training-$stage" skipped 0
    return 1
  fi
  [[ -e $learn/shards/prepared.json ]] || run prepare 60 "$soulchat" prepare \
    --data.source="$source" --data.tokenizer="$model" --data.dir="$learn/shards" \
    --data.client_name=用户 --data.counsellor_name=心理咨询师 || return
  batch=(--batch.unit=tokens --batch.size=65536 --batch.micro_tokens=16384)
  ((tiny)) && batch=(--batch.unit=tokens --batch.size=1024 --batch.micro_tokens=512
    --batch.pack_len=512 --batch.max_input=256 --batch.max_target=128)
  train=("$soulchat" train --data.dir="$learn/shards" --model.dir="$model" --model.init=random
    --train.device="$device" "${precision[@]}" "${batch[@]}" --train.schedule=constant
    --train.lr=6e-4 --train.beta2=0.95 --train.validate_every=0
    --train.save=wait --model.rotary=fp32_angle)
}

# A GLM of 230 million parameters learns SMILE from scratch, here and in PyTorch, from the same
# weights on the same batches at the same rates; then it answers.
stage_learn() {
  local steps=400 seconds=75 noise=60 warmup=20 peer_device=cuda attention=flash
  open_corpus || return
  rm -rf "$learn"/{model,first,first-hf,run,other,*.safetensors}
  ((tiny)) && steps=20 seconds=30 noise=10 warmup=2 attention=segments
  [[ $device == cuda* ]] || peer_device=cpu attention=segments
  mkdir -p "$learn/model" && cp "$model"/* "$learn/model/"
  ((tiny)) || python3 - "$learn/model/config.json" << 'PY' || return
import json, sys
c = json.load(open(sys.argv[1]))
c.update(hidden_size=1024, num_layers=18, num_attention_heads=16, inner_hidden_size=4096)
json.dump(c, open(sys.argv[1], "w"), indent=1)
PY
  train+=(--model.dir="$learn/model" --train.activations=keep)
  # The weights that both begin with: a step at rate 0.
  run first 60 "${train[@]}" --train.out="$learn/first" --train.steps=1 --train.lr=0 || return
  run first-hf 40 "$soulchat" export "$learn/first" "$learn/first-hf" --export.dtype=f32 || return
  rm -rf "$learn/first"
  run packs 40 "$soulchat" bench packs "$learn/packs.safetensors" "${batch[@]}" \
    --bench.corpus="$learn/shards" --bench.steps="$steps" || return
  train+=(--train.warmup_steps=$warmup)
  run ours $((seconds + 40)) bash -c '"$@" || [[ $? == 79 ]]' - "${train[@]}" \
    --train.out="$learn/run" --train.steps="$steps" --train.stop_after="$seconds"
  cp "$learn/run/metrics.jsonl" "$work/learn-ours.jsonl" || return
  run replies 40 bash -c 'for text in "$1" "$2" "$3"; do
      echo "用户：$text"; "${@:4}" --text "$text" || exit; done' - \
    最近工作压力很大，每天都失眠。 我和男朋友分手了，很难过。 孩子总是不听话，我该怎么办？ \
    "$soulchat" generate --generate.model="$learn/run" --generate.device="$device" \
    --generate.max_new_tokens=100 --generate.temperature=0.7 --generate.top_p=0.75
  has_torch && run theirs $((seconds + 50)) "$python" tests/peer/train_torch.py \
    --model "$learn/first-hf" --packs "$learn/packs.safetensors" \
    --rates "$work/learn-ours.jsonl" --beta2 0.95 --grads f32 --warmup 0 \
    --attention "$attention" --steps "$steps" \
    --deadline "$seconds" --device "$peer_device" --json "$work/learn-peer.json"
  # How far two runs of ours are apart that differ in rounding alone.
  [[ $device == cpu ]] ||
    run noise 60 "${train[@]}" --train.out="$learn/other" --train.steps="$noise" \
      --train.grad_dtype=bf16 --train.activations=lean
  cp "$learn/other/metrics.jsonl" "$work/learn-noise.jsonl" 2> /dev/null
}

# ---- what can go wrong ----

# condition NAME PATTERN command...: it fails, at once, and says why in one line that has PATTERN.
condition() {
  local what=$1 pattern=$2 log=$work/$stage-$1.log rc=0 limit
  limit=$(limit_of 40)
  shift 2
  ((limit >= 5)) || { note "$what" "no time" 0; return; }
  echo "== $what: $*" > "$log"
  timeout -k 5 "$limit" "$@" >> "$log" 2>&1 || rc=$?
  python3 - "$what" "$pattern" "$rc" "$log" >> "$work/conditions.jsonl" << 'PY'
import json, re, sys
what, pattern, rc, log = sys.argv[1:]
lines = [l.strip() for l in open(log, errors="replace").readlines()[1:] if l.strip()]
said = [l for l in lines if l.startswith("soulchat: ")]
ok = 0 < int(rc) < 120 and len(said) == 1 and re.search(pattern, said[0], re.I) is not None
print(json.dumps(dict(condition=what, status=int(rc), said=said or lines[-3:], ok=ok),
                 ensure_ascii=False))
PY
  if tail -1 "$work/conditions.jsonl" | grep -q '"ok": true'; then
    note "$what" ok 0
    say "$what: $(grep -a '^soulchat: ' "$log" | cut -c1-200)"
  else
    note "$what" "not as promised" 0
    say "$what: not as promised: $(tail -1 "$work/conditions.jsonl" | cut -c1-300)"
  fi
  report
}

stage_conditions() {
  local n
  [[ $device != cuda* ]] || condition no-device "no .*(gpu|device|cuda)|cuda" \
    env CUDA_VISIBLE_DEVICES= "$soulchat" bench step --device cuda "${tiny_sizes[@]}"
  condition no-such-device "cuda:99|emu:99|device" \
    "$soulchat" bench step --device "${device%%:*}:99" "${tiny_sizes[@]}"
  [[ $device != cuda* ]] || condition too-small "memory|GB|bytes" \
    "$soulchat" bench step --device "$device" "${sizes_6b[@]}" --bench.packs= --bench.rows=131072
  open_corpus || return
  rm -rf "$learn/broken"
  train+=(--train.out="$learn/broken" --train.save_every=2)
  run two-steps 40 "${train[@]}" --train.steps=2 || return
  if [[ $device != cpu ]]; then
    for n in 1 5 9; do
      condition "memory-$n" "memory|injected|bytes" env SOULCHAT_FAULT=gpu.malloc:$n \
        "${train[@]}" --train.steps=6 --resume
    done
    condition launch "injected|cuda" env SOULCHAT_FAULT=gpu.launch:100 "${train[@]}" \
      --train.steps=6 --resume
  fi
  run resumes 40 "${train[@]}" --train.steps=4 --resume
  # Weights that grow a hundredfold with each step.
  condition not-finite "finite" "${train[@]}" --train.steps=60 --train.save_every=1000 \
    --train.lr=10 --train.weight_decay=10 --resume
  run checkpoint-intact 20 "$soulchat" ckpt verify "$learn/broken"
}

# ---- NVIDIA's tools ----

stage_sanitize() {
  local tool test tests
  if ! command -v compute-sanitizer > /dev/null; then
    say "sanitize: no compute-sanitizer here"
    note compute-sanitizer "not here" 0
    return
  fi
  # Each in turn over all tests; the race checker, which is slow, over those that share memory.
  for tool in memcheck initcheck synccheck racecheck; do
    tests="norm embed optim moments loss attn linear decode"
    [[ $tool == racecheck ]] && tests="norm embed loss attn decode"
    for test in $tests; do
      [[ -x $build/tests/test_kernels_ops_$test ]] || continue
      run_beside "$tool-$test" 80 env SOULCHAT_TEST_DEVICES=cuda \
        SOULCHAT_TUNE=off compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 5 \
        "$build/tests/test_kernels_ops_$test"
    done
    wait
  done
  run memcheck-step 60 env SOULCHAT_TUNE=off compute-sanitizer --tool memcheck --error-exitcode 9 \
    --print-limit 5 "$soulchat" bench step --device "$device" "${tiny_sizes[@]}" "${precision[@]}"
}

stage_ncu() {
  local group unit=avg.pct_of_peak_sustained_elapsed
  local metrics=gpu__time_duration.sum,dram__bytes.sum,dram__throughput.$unit
  metrics+=,sm__throughput.$unit,launch__registers_per_thread
  if ! command -v ncu > /dev/null; then
    say "ncu: not here"
    note ncu "not here" 0
    return
  fi
  for group in norm optim rotary embed act attn loss; do
    run "ncu-$group" 40 ncu --clock-control none --launch-skip 2 --launch-count 6 --csv \
      --metrics "$metrics" \
      "$build/bin/bench_ops" --device "$device" --dtype bf16 --only "$group" --seconds 0.01
  done
}

# ---- all of it ----

# The network of the step benchmark, and the smallest there is.
sizes_6b=(--bench.hidden=4096 --bench.layers=28 --bench.heads=32 --bench.vocab=130528
  --bench.rows=16384 --bench.micro=4 --bench.probe=8192 --train.activations=lean)
[[ -r $deps/packs.safetensors ]] && sizes_6b+=(--bench.packs="$deps/packs.safetensors")
tiny_sizes=(--bench.hidden=64 --bench.layers=2 --bench.heads=2 --bench.vocab=640 --bench.rows=256
  --bench.micro=2 --bench.steps=2 --bench.probe=64)
precision=()
[[ $device == cpu ]] || precision=(--train.precision=bf16)

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
  stage_end=$(($(date +%s) + ${share[$stage]}))
  say "---- $stage"
  # In a shell of its own: what breaks in it is over with it.
  (trap - EXIT; "stage_$stage"; unwatch_card)
  report
done
report --verdict

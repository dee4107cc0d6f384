#!/usr/bin/env bash
# Compiles every CUDA kernel for each architecture and reads what the assembler says of it:
# registers, shared memory, stack and spills. Needs nvcc and no GPU.
#     scripts/cuda_check.sh [--archs "80 90a 100"] [--out DIR] [FILE.cu ...]
# Fails where a kernel does not compile, or one that kernels/cuda/hot_kernels.txt names spills
# registers or has a stack frame. Exit status 77 without nvcc.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

archs="80 90a 100" out='' files=()
while (($# > 0)); do
  case $1 in
    --archs) archs=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    -*) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    *) files+=("$1"); shift ;;
  esac
done
nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc) ||
  { echo "SKIP: no nvcc here"; exit 77; }
compile=("$nvcc") # what did not change since the last time need not be compiled again
command -v ccache > /dev/null && compile=(ccache "$nvcc")
all=()
((${#files[@]} > 0)) || { files=(kernels/cuda/*.cu); all=(--all); }
if [[ -z $out ]]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
mkdir -p "$out"

flags=(-std=c++17 -O3 -I. -D_GNU_SOURCE -DSOULCHAT_VERSION='"check"' -Xptxas -v
  -Xcompiler -Wno-missing-field-initializers --resource-usage -c)
jobs_running=0
for arch in $archs; do
  for file in "${files[@]}"; do
    log=$out/$(basename "$file" .cu).sm_$arch
    ("${compile[@]}" "${flags[@]}" -gencode "arch=compute_$arch,code=sm_$arch" -o "$log.o" "$file" \
      > "$log.log" 2>&1 || echo "nvcc failed" >> "$log.log") &
    ((++jobs_running >= $(nproc))) && { wait -n; jobs_running=$((jobs_running - 1)); }
  done
done
wait
python3 scripts/cuda_resources.py "${all[@]}" kernels/cuda/hot_kernels.txt "$out"/*.log

#!/usr/bin/env bash
# Gathers what a bare GPU machine without a network lacks, into .gpu-deps, which git ignores and
# scripts/gpu_check.sh finds: headers and static libraries of libyaml, jansson, cmocka, HDF5, zstd
# and zlib from Debian's packages; cuDNN's and NCCL's headers where this machine has them; the
# commit's id, since git's folder may stay behind. With --corpus and --model, a part of a corpus of
# dialogues for training from scratch there, and the micro-batches of the step benchmark.
#     scripts/gpu_bundle.sh [--corpus FILE.jsonl --model DIR [--every N]] [--soulchat PATH]
#   --model   folder with config.json and ice_text.model, as scripts/small_model.py makes it
#   --every   every so many-th dialogue travels (default 3)
# Needs a Debian-like system with apt-get and zstd; the result runs on any with the same or a newer
# glibc.
set -euo pipefail
cd "$(dirname "$0")/.."

corpus='' model='' every=3 soulchat=build/bin/soulchat
while (($# > 0)); do
  case $1 in
    --corpus) corpus=$(realpath "$2"); shift 2 ;;
    --model) model=$(realpath "$2"); shift 2 ;;
    --every) every=$2; shift 2 ;;
    --soulchat) soulchat=$2; shift 2 ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done
[[ -z $corpus || -n $model ]] || { echo "gpu_bundle: --corpus needs --model" >&2; exit 2; }

out=.gpu-deps
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$out"
mkdir -p "$out/include" "$out/lib"

# ---- libraries ----

packages=(libyaml-dev libyaml-0-2 libjansson-dev libjansson4 libcmocka-dev libcmocka0
  libhdf5-dev libzstd-dev zlib1g-dev libaec-dev)
(cd "$work" && apt-get -o APT::Sandbox::User=root download -qq "${packages[@]}")
for package in "$work"/*.deb; do dpkg -x "$package" "$work/root"; done
cp "$work"/root/usr/include/{yaml,jansson,jansson_config,cmocka,zstd,zlib,zconf}*.h "$out/include/"
cp "$work"/root/usr/include/hdf5/serial/*.h "$out/include/"
find "$work/root/usr/include" -name 'H5pubconf*.h' -exec cp {} "$out/include/" \;
lib=$(dirname "$(find "$work/root" -name libz.a | head -1)")
for library in yaml jansson cmocka zstd z; do
  if [[ -e $lib/lib$library.a ]]; then
    cp "$lib/lib$library.a" "$out/lib/"
  else # not packaged as an archive: the shared library under its three names
    find "$work/root" -name "lib$library.so*" -exec cp -L {} "$out/lib/" \;
  fi
done
# Jansson's inner names, such as utf8_encode, are hidden from other code in a shared library alone.
ld -r --whole-archive "$out/lib/libjansson.a" -o "$work/jansson.o"
objcopy --wildcard --keep-global-symbol='json*' "$work/jansson.o"
rm "$out/lib/libjansson.a"
ar rcs "$out/lib/libjansson.a" "$work/jansson.o"
# HDF5 with the compression that it was built with, as one archive.
printf '%s\n' "create $out/lib/libhdf5.a" "addlib $lib/libhdf5_serial.a" "addlib $lib/libsz.a" \
  "addlib $lib/libaec.a" save end | ar -M

# Opened at run time, where the GPU is; a build needs the headers alone.
for folder in /usr/local/cuda/include /usr/local/include /usr/include; do
  [[ -e $folder/cudnn_graph.h && ! -e $out/include/cudnn_graph.h ]] \
    && cp "$folder"/cudnn*.h "$out/include/"
  [[ -e $folder/nccl.h && ! -e $out/include/nccl.h ]] && cp "$folder/nccl.h" "$out/include/"
done
[[ -e $out/include/cudnn_graph.h ]] || echo "gpu_bundle: no cuDNN headers here" >&2

id=$(git rev-parse HEAD)
git diff --quiet HEAD -- || id+="-changed"
echo "$id" > "$out/git-id"

# ---- a corpus ----

if [[ -n $corpus ]]; then
  mkdir "$out/model"
  cp "$model"/{config.json,ice_text.model} "$out/model/"
  awk -v n="$every" 'NR % n == 1 || n == 1' "$corpus" > "$work/corpus.jsonl"
  zstd -q -10 -o "$out/corpus.jsonl.zst" "$work/corpus.jsonl"
  "$soulchat" prepare --data.source="$work/corpus.jsonl" --data.tokenizer="$model" \
    --data.dir="$work/shards" --data.client_name=用户 --data.counsellor_name=心理咨询师 > /dev/null
  "$soulchat" bench packs "$out/packs.safetensors" --bench.corpus="$work/shards" --bench.steps=1 \
    --batch.unit=tokens --batch.size=65536 --batch.micro_tokens=16384
fi
du -sh "$out"

#!/usr/bin/env bash
# Gathers what a bare GPU machine without a network lacks for building: headers and static libraries
# of libyaml, jansson and cmocka, from Debian's packages, into .gpu-deps, which git ignores and
# scripts/gpu_check.sh finds. Also the commit's id, since git's folder may stay behind; and, with
# --corpus, micro-batches of a prepared corpus for the benchmarks.
#     scripts/gpu_bundle.sh [--corpus DIR] [--soulchat PATH]
# Needs a Debian-like system with apt-get; the result runs on any with the same or a newer glibc.
set -euo pipefail
cd "$(dirname "$0")/.."

corpus='' soulchat=build/bin/soulchat
while (($# > 0)); do
  case $1 in
    --corpus) corpus=$(realpath "$2"); shift 2 ;;
    --soulchat) soulchat=$2; shift 2 ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
done

out=.gpu-deps
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$out"
mkdir -p "$out/include" "$out/lib"
(cd "$work" && apt-get -o APT::Sandbox::User=root download -qq \
    libyaml-dev libyaml-0-2 libjansson-dev libjansson4 libcmocka-dev libcmocka0)
for package in "$work"/*.deb; do dpkg -x "$package" "$work/root"; done
cp "$work"/root/usr/include/{yaml,jansson,jansson_config,cmocka,cmocka_pbc}.h "$out/include/" \
  2> /dev/null || cp "$work"/root/usr/include/{yaml,jansson,jansson_config,cmocka}.h "$out/include/"
for library in yaml jansson cmocka; do
  archive=$(find "$work/root" -name "lib$library.a" | head -1)
  if [[ -n $archive ]]; then
    cp "$archive" "$out/lib/"
  else # not packaged as an archive: the shared library under its three names
    find "$work/root" -name "lib$library.so*" -exec cp -L {} "$out/lib/" \;
  fi
done

id=$(git rev-parse HEAD)
git diff --quiet HEAD -- || id+="-changed"
echo "$id" > "$out/git-id"
if [[ -n $corpus ]]; then
  "$soulchat" bench packs "$out/packs.safetensors" --bench.corpus="$corpus" --bench.steps=1 \
    --batch.unit=tokens --batch.size=65536 --batch.micro_tokens=16384
fi
du -sh "$out"

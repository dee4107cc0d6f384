#!/usr/bin/env bash
# From a fresh clone to a reply: install, build, prepare the bundled sample, train a tiny model,
# export, answer.
# Some minutes on two cores; downloads nothing but packages.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }
started=$SECONDS

say "Packages"
scripts/deps.sh

say "Build (build-quick/)"
cmake -S . -B build-quick -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF >/dev/null
cmake --build build-quick --target soulchat
soulchat=build-quick/bin/soulchat

say "Prepare data/sample/corpus.json"
$soulchat prepare --config configs/tiny.yaml

say "Train a ChatGLM of one million parameters from scratch (runs/tiny)"
$soulchat train --config configs/tiny.yaml --resume

say "Export as a Hugging Face folder (runs/tiny-hf)"
$soulchat export runs/tiny runs/tiny-hf --export.replace=true

# A million parameters learn the sample corpus by heart and little else, so: a question from it.
say "Ask it something"
question=晚上躺在床上我总忍不住刷手机，一刷就到凌晨，第二天后悔得要命。
echo "用户：$question"
printf '心理咨询师：'
$soulchat generate --config configs/tiny.yaml --generate.model=runs/tiny-hf --text "$question"

say "Done in $((SECONDS - started)) s. Talk to it:"
echo "    $soulchat chat --config configs/tiny.yaml"

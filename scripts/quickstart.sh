#!/usr/bin/env bash
# From a fresh clone to a reply: install, build, prepare the bundled sample, train a tiny model,
# export, answer. Downloads nothing but packages. Stopped at any time, it goes on when started
# again.
set -euo pipefail
cd "$(dirname "$0")/.."

step=
say() { step=$*; printf '\n== %s\n' "$step"; }
started=$SECONDS
trap 'status=$?; if ((status)); then
  echo "quickstart.sh: status $status in: $step. The same command goes on from there." >&2
fi' EXIT

say "Packages"
scripts/deps.sh

say "Build (build-quick/)"
cmake -S . -B build-quick -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF >/dev/null
cmake --build build-quick --target soulchat
soulchat=build-quick/bin/soulchat

say "Prepare data/sample/corpus.json (runs/tiny-corpus)"
$soulchat prepare --config configs/tiny.yaml

say "Train a ChatGLM of one million parameters from scratch (runs/tiny)"
echo "This takes most of the time; each line ends with what is left. Ctrl-C saves and stops."
$soulchat train --config configs/tiny.yaml --resume

say "Export as a Hugging Face folder (runs/tiny-hf)"
$soulchat export runs/tiny runs/tiny-hf --export.replace=true

# A million parameters learn the sample corpus by heart and little else, so: a question from it.
say "Ask it something"
question=晚上躺在床上我总忍不住刷手机，一刷就到凌晨，第二天后悔得要命。
echo "用户：$question"
printf '心理咨询师：'
$soulchat generate --config configs/tiny.yaml --generate.model=runs/tiny-hf --text "$question"

say "Done in $((SECONDS - started)) s"
echo "So small a model has learnt the 260 sample dialogues by heart, and little else. Talk to it:"
echo "    $soulchat chat --config configs/tiny.yaml"

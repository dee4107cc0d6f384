#!/usr/bin/env bash
# What goes wrong for a user: one clear line, exit 1 or 2, nothing lost, nothing half-written.
. "$(dirname "$0")/common.sh"
prepare

expect 2 "there is no command \"trian\"; the nearest is train" "$soulchat" trian
expect 2 "stands before the command" "$soulchat" --config configs/tiny.yaml train
expect 2 "the nearest is train" "$soulchat" help trian
"$soulchat" help train | cmp - <("$soulchat" train --help) || fail "help train is not train --help"
expect 2 "train.steps" tiny train --train.out="$scratch/a" --train.stepz=3
expect 2 "the nearest is --train.steps" tiny train --train.out="$scratch/a" --steps=3
expect 2 "the nearest is --batch.size" tiny train --train.out="$scratch/a" --train.size=3
expect 2 "write --generate.top_p=0.5" "$soulchat" generate generate.top_p=0.5
expect 2 "train.steps" tiny train --train.out="$scratch/a" --train.steps=many
expect 2 "train.beta1" tiny train --train.out="$scratch/a" --train.beta1=2
printf 'train:\n  stepz: 3\n' >"$scratch/bad.yaml"
expect 2 "bad.yaml:2" "$soulchat" train --config "$scratch/bad.yaml"
expect 1 "nowhere.yaml" "$soulchat" train --config "$scratch/nowhere.yaml"
expect 1 "expected a folder that soulchat prepare has written" \
    tiny train --train.out="$scratch/a" --data.dir="$scratch/nowhere"
expect 1 "nowhere/config.json: no such file; expected the folder of a model" \
    tiny train --train.out="$scratch/a" --model.dir="$scratch/nowhere"
expect 1 "nowhere: no such file or folder; expected a model's" \
    tiny prepare --data.tokenizer="$scratch/nowhere"

# Help fits the width of a page, for every command; its examples are whole.
"$soulchat" --help >"$scratch/lines"
awk 'length > 100 { print; bad = 1 } END { exit bad }' "$scratch/lines" || fail "wide --help"
for command in $("$soulchat" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'); do
    "$soulchat" "$command" --help >"$scratch/help" || fail "$command --help"
    grep -v '^  [a-zA-Z]' "$scratch/help" >"$scratch/lines" # all but the examples
    awk 'length > 100 { print; bad = 1 } END { exit bad }' "$scratch/lines" ||
        fail "$command --help has long lines"
    grep -q '^Example:' "$scratch/help" || fail "$command --help has no example"
done

# Output that cannot be written is a failure, and closed streams are no file's place.
if [ -e /dev/full ]; then
    for words in --version --help "train --help" "plan --config configs/tiny.yaml"; do
        # shellcheck disable=SC2086 # the words are several
        expect 1 "standard output: " bash -c '"$@" >/dev/full' bash "$soulchat" $words
    done
fi
expect 1 "standard output: " bash -c '"$@" >&-' bash "$soulchat" plan --config configs/tiny.yaml
expect 1 "File too large" bash -c 'ulimit -f 20; "$@"' bash "$soulchat" prepare \
    --config configs/tiny.yaml --data.dir="$scratch/b"
rm -rf "$scratch"/b.work
expect 1 "data.replace: true" tiny prepare --data.replace=false

# Corpus: empty, no counsellor, cut.
echo '[]' >"$scratch/empty.json"
expect 1 "empty.json" tiny prepare --data.source="$scratch/empty.json" --data.dir="$scratch/b"
echo '[{"id":1,"topic":"x","messages":[{"role":"user","content":"你好"}]}]' >"$scratch/alone.json"
expect 1 "none of 1 dialogues" tiny prepare --data.source="$scratch/alone.json" \
    --data.dir="$scratch/b"
head -c 3000 data/sample/corpus.json >"$scratch/cut.json"
expect 1 "cut.json" tiny prepare --data.source="$scratch/cut.json" --data.dir="$scratch/b"
[ ! -e "$scratch/b" ] && [ ! -e "$scratch/b.tmp" ] || fail "a failed prepare left something"

# A shard cut short, a byte flipped.
cp -r "$scratch/corpus" "$scratch/cut"
truncate -s -100 "$scratch/cut/shard-00000.h5"
expect 1 "shard-00000.h5" tiny train --train.out="$scratch/a" --data.dir="$scratch/cut"
cp "$scratch/corpus/shard-00000.h5" "$scratch/cut/shard-00000.h5"
printf 'x' | dd of="$scratch/cut/shard-00000.h5" bs=1 seek=3000 conv=notrunc status=none
expect 1 "shard-00000.h5" tiny train --train.out="$scratch/a" --data.dir="$scratch/cut"

# Tokenizer and weights that are not there or cut.
cp -r data/sample/model "$scratch/model"
truncate -s 1000 "$scratch/model/ice_text.model"
expect 1 "ice_text.model" tiny prepare --data.tokenizer="$scratch/model" --data.dir="$scratch/b"
expect 1 "model" tiny train --train.out="$scratch/a" --model.init=weights

# A run folder in use; settings that would change the numbers.
must train tiny train --train.out="$scratch/run" --train.steps=2
expect 2 "--resume" tiny train --train.out="$scratch/run" --train.steps=4
expect 2 "batch.seed" tiny train --train.out="$scratch/run" --train.steps=4 --resume --batch.seed=7
expect 0 "train.lr" tiny train --train.out="$scratch/run" --train.steps=3 --resume --train.lr=1e-4

# A checkpoint of another version is neither resumed nor exported.
cp -r "$scratch/run" "$scratch/newer"
sed -i 's/"version": 1/"version": 2/' "$scratch/newer/ckpt/step-00000003/MANIFEST.json"
expect 1 "version 2" tiny train --train.out="$scratch/newer" --train.steps=4 --resume
expect 1 "version 2" "$soulchat" export "$scratch/newer" "$scratch/exported"
[ ! -e "$scratch/exported" ] || fail "a failed export left something"

# A run that has saved nothing is no model; and nothing is warned of before a refusal.
cp -r "$scratch/run" "$scratch/young"
rm -r "$scratch"/young/ckpt/*
expect 1 "young: this run has no finished checkpoint yet; train on (--resume)" \
    "$soulchat" export "$scratch/young" "$scratch/exported"
expect 1 "young: this run has no finished checkpoint yet" \
    "$soulchat" generate --generate.model="$scratch/young" --text 你好
expect 1 "empty: neither a config.json nor a finished checkpoint in it" \
    bash -c 'mkdir "$2/empty"; "$1" export "$2/empty" "$2/exported"' bash "$soulchat" "$scratch"
expect 1 "exported: no such folder" "$soulchat" export "$scratch/exported" "$scratch/again"
must export "$soulchat" export "$scratch/run" "$scratch/exported"
grep -q "float32 rotary" "$scratch/log" || fail "no word on the rotary angles"
expect 1 "exported exists; choose another name" \
    "$soulchat" export "$scratch/run" "$scratch/exported/"
[ "$(wc -l <"$scratch/err")" = 1 ] || fail "warnings before a refusal"

# A disk that fills up during a checkpoint: the previous one survives.
if mkdir -p "$scratch/disk" && mount -t tmpfs -o size=40m tmpfs "$scratch/disk" 2>/dev/null; then
    trap 'umount "$scratch/disk" 2>/dev/null || true; rm -rf "$scratch"' EXIT
    must "train on a small disk" tiny train --train.out="$scratch/disk/run" --train.steps=2
    before=$(digest "$scratch/disk/run/ckpt/step-00000002")
    free=$(df -k --output=avail "$scratch/disk" | tail -1)
    dd if=/dev/zero of="$scratch/disk/ballast" bs=1024 count=$((free - 2000)) status=none
    expect 1 "GB free" tiny train --train.out="$scratch/disk/run" --train.steps=4 --resume
    grep -q "4 steps in" "$scratch/err" && fail "it trained what it could not save"
    # The same while it trains.
    rm "$scratch/disk/ballast"
    (tiny_exec train --train.out="$scratch/disk/run" --train.steps=1000000 --resume \
        --train.schedule=constant) >"$scratch/log" 2>&1 & pid=$!
    wait_more disk/run
    free=$(df -k --output=avail "$scratch/disk" | tail -1)
    dd if=/dev/zero of="$scratch/disk/ballast" bs=1024 count=$((free - 2000)) status=none
    kill -USR1 $pid
    ends 1 $pid "a disk that is full when it saves"
    grep -q "GB free" "$scratch/log" || fail "no word on the disk"
    after=$(digest "$scratch/disk/run/ckpt/step-00000002")
    [ "$after" = "$before" ] || fail "the old checkpoint was harmed"
    [ "$(ls "$scratch/disk/run/ckpt")" = step-00000002 ] || fail "a half-written checkpoint is left"
    umount "$scratch/disk"
else
    echo "not run here: full disk (mounting a small one needs root)"
fi

# The same by injected faults, at every write, sync and rename of a save (builds with fault points).
if SOULCHAT_FAULT=file.write:1 "$soulchat" --version >/dev/null 2>&1; then
    for n in 1 2 5 9 14; do
        rm -rf "$scratch/faulty"
        cp -r "$scratch/run" "$scratch/faulty"
        before=$(digest "$scratch/faulty/ckpt/step-00000003")
        status=0
        SOULCHAT_FAULT=file:$n tiny train --train.out="$scratch/faulty" --train.steps=4 --resume \
            >"$scratch/log" 2>&1 || status=$?
        after=$(digest "$scratch/faulty/ckpt/step-00000003")
        [ "$after" = "$before" ] || fail "fault $n harmed the checkpoint"
        echo "ok: fault $n: exit $status, the checkpoint before it is whole"
    done
fi

# Weights that run away: the run stops before it saves what is broken; what was saved stays.
expect 1 "not finite" tiny train --train.out="$scratch/away" --train.steps=40 --train.lr=10 \
    --train.weight_decay=10 --train.save_every=2 --train.keep_last=9
[ -d "$scratch/away/ckpt/step-00000002" ] || fail "the checkpoints before it are gone"
expect 0 "nothing to do" tiny train --train.out="$scratch/away" --train.steps=2 --resume

# Generation.
expect 2 "generate.model" "$soulchat" generate --text 你好
expect 2 "not UTF-8 from byte 1 on" "$soulchat" generate --generate.model="$scratch/run" \
    --text "$(printf 'a\377')"
expect 1 "nowhere" "$soulchat" generate --generate.model="$scratch/nowhere" --text 你好

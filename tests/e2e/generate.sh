#!/usr/bin/env bash
# Replies: the same from a run, its checkpoint and its export; alone, together, stopped and gone on
# with; chat in a pipe; and what goes wrong for a user.
. "$(dirname "$0")/common.sh"
prepare
tiny train --train.out="$scratch/run" --train.steps=2 >"$scratch/log" 2>&1 ||
    { cat "$scratch/log" >&2; fail train; }
"$soulchat" export "$scratch/run" "$scratch/hf" --export.dtype=f32 >"$scratch/log" 2>&1 ||
    { cat "$scratch/log" >&2; fail export; }
corpus=data/sample/corpus.json
short=(--generate.max_new_tokens=12 --generate.model="$scratch/run")

# generate OUTPUT arguments...: standard output to a file.
generate() {
    "$soulchat" generate "${short[@]}" "${@:2}" >"$1" 2>"$scratch/log" ||
        { cat "$scratch/log" >&2; fail "generate ${*:2}"; }
}

# One model, whatever it is called; one reply, whatever it is answered with.
generate "$scratch/want" "$corpus" --limit 20
[ "$(wc -l <"$scratch/want")" = 20 ] || fail "20 replies wanted"
for model in "$scratch/hf" "$scratch/run/ckpt/step-00000002"; do
    generate "$scratch/got" "$corpus" --limit 20 --generate.model="$model"
    cmp "$scratch/want" "$scratch/got" || fail "other replies from $model"
done
for batch in 1 3; do
    generate "$scratch/got" "$corpus" --limit 20 --generate.batch=$batch
    cmp "$scratch/want" "$scratch/got" || fail "other replies, $batch at a time"
done
generate "$scratch/got" "$corpus" --limit 7
generate "$scratch/rest" "$corpus" --skip 7 --limit 13
cat "$scratch/rest" >>"$scratch/got"
cmp "$scratch/want" "$scratch/got" || fail "other replies with --skip"
echo "ok: the same from run, checkpoint and export, in any batch, in parts"

# Stopped on request: whole lines are there, and the message says how to go on.
generate "$scratch/want" "$corpus" --generate.max_new_tokens=40 --limit 80
"$soulchat" generate "${short[@]}" --generate.max_new_tokens=40 "$corpus" --limit 80 \
    >"$scratch/got" 2>"$scratch/err" &
pid=$!
for _ in $(seq 1000); do [ "$(wc -l <"$scratch/got")" -ge 3 ] && break; sleep 0.01; done
kill -TERM $pid
status=0; wait $pid || status=$?
done_count=$(wc -l <"$scratch/got")
if [ $status = 130 ]; then
    grep -q -- "--skip $done_count" "$scratch/err" || fail "no word on how to go on"
    generate "$scratch/rest" "$corpus" --generate.max_new_tokens=40 --skip "$done_count" \
        --limit $((80 - done_count))
    cat "$scratch/rest" >>"$scratch/got"
else
    [ $status = 0 ] || fail "stopped: exit $status"
fi
cmp "$scratch/want" "$scratch/got" || fail "other replies after a stop"
echo "ok: stopped after $done_count replies, gone on with"

# Chat in a pipe: the first reply is that of generate; the last line needs no end.
generate "$scratch/want" --text '  我最近总是失眠 '
printf '\n  \n　\n我最近总是失眠\r\n/help\n/nope\n/reset\n你好' |
    "$soulchat" chat "${short[@]}" >"$scratch/got" 2>"$scratch/err" || fail chat
cmp <(head -1 "$scratch/got") <(head -1 "$scratch/want") || fail "chat and generate differ"
[ "$(grep -c "/reset begins" "$scratch/err")" = 2 ] || fail "no help"
[ "$(wc -l <"$scratch/got")" -ge 2 ] || fail "no reply to a last line without an end"
printf '/quit\n你好\n' | "$soulchat" chat "${short[@]}" >"$scratch/got" 2>"$scratch/err" || fail quit
[ ! -s "$scratch/got" ] || fail "a reply after /quit"
# Asked to stop while it waits for a line: at once.
mkfifo "$scratch/lines"
exec 3<>"$scratch/lines"
for signal in INT TERM HUP; do
    # Started with & in a script, a program has SIGINT ignored, and chat would heed that.
    env --default-signal=INT "$soulchat" chat "${short[@]}" <"$scratch/lines" >"$scratch/got" \
        2>"$scratch/err" &
    pid=$!
    echo 你好 >&3
    for _ in $(seq 1000); do [ "$(wc -l <"$scratch/got")" -ge 1 ] && break; sleep 0.02; done
    sleep 0.2
    kill -$signal $pid
    for _ in $(seq 500); do kill -0 $pid 2>/dev/null || break; sleep 0.02; done
    kill -9 $pid 2>/dev/null && fail "SIG$signal: chat waits for a line all the same"
    status=0; wait $pid || status=$?
    [ $status = 130 ] || fail "SIG$signal: chat ended with $status"
done
exec 3>&-
echo "ok: chat stops while it waits"
# Bytes that are no text, a special token's name, a line far too long.
{ printf '\0\xff\xfe\n<sop>\n'; head -c 1000000 /dev/zero | tr '\0' a; } |
    "$soulchat" chat "${short[@]}" >"$scratch/got" 2>"$scratch/err" || fail "chat with odd bytes"
grep -q "too long" "$scratch/err" || fail "nothing said about a line that was cut"
echo "ok: chat in a pipe"

# A conversation longer than the prompt: the oldest turns go.
for i in $(seq 30); do echo "今天是失眠的第${i}天，真的很累很难受"; done |
    "$soulchat" chat "${short[@]}" --generate.max_input=100 >"$scratch/got" 2>"$scratch/err" ||
    fail "a long chat"
grep -q "oldest turns" "$scratch/err" || fail "nothing said about turns left out"

# What goes wrong.
expect 2 "--text is empty" "$soulchat" generate "${short[@]}" --text ' '
expect 2 "--limit" "$soulchat" generate "${short[@]}" --limit 0 "$corpus"
expect 2 "--skip" "$soulchat" generate "${short[@]}" --skip many "$corpus"
expect 2 "either a FILE" "$soulchat" generate "${short[@]}"
expect 2 "512 positions" "$soulchat" generate "${short[@]}" --text 你好 \
    --generate.max_new_tokens=510
expect 1 "nowhere.json" "$soulchat" generate "${short[@]}" "$scratch/nowhere.json"
expect 1 "chatglm2/tokenizer.model" "$soulchat" chat "${short[@]}" \
    --generate.tokenizer=tests/golden/chatglm2/tokenizer.model
expect 0 "nothing to do" "$soulchat" generate "${short[@]}" "$corpus" --skip 1000
program=$(realpath "$soulchat")
(cd / && expect 1 "generate.tokenizer" "$program" generate "${short[@]}" --text 你好)
(cd / && expect 0 "new tokens" "$program" generate "${short[@]}" --text 你好 \
    --generate.tokenizer="$root/data/sample/model")
[ ! -e /dev/full ] || {
    status=0
    "$soulchat" generate "${short[@]}" "$corpus" >/dev/full 2>"$scratch/err" || status=$?
    [ $status = 1 ] && grep -q "standard output" "$scratch/err" || fail "a full disk went unseen"
}
set +o pipefail
"$soulchat" generate "${short[@]}" "$corpus" 2>"$scratch/err" | head -1 >"$scratch/got"
grep -q "reader has closed it" "$scratch/err" || fail "a closed pipe went unseen"
echo "ok: full disk, closed pipe"

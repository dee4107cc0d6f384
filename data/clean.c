#include "data/clean.h"

#include "base/check.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---- one text ---- */

/* "\r\n" and a lone "\r" become "\n". */
static bool fix_line_ends(struct clean_turn *t)
{
    char *out = t->text;
    if (memchr(t->text, '\r', (size_t)t->size) == NULL) return false;
    for (int64_t i = 0; i < t->size; i++) {
        const bool pair = t->text[i] == '\r' && i + 1 < t->size && t->text[i + 1] == '\n';
        if (!pair) *out++ = t->text[i] == '\r' ? '\n' : t->text[i];
    }
    t->size = out - t->text;
    return true;
}

static bool collapse_newlines(struct clean_turn *t)
{
    int64_t out = 0;
    for (int64_t i = 0; i < t->size; i++)
        if (out == 0 || t->text[i] != '\n' || t->text[out - 1] != '\n') t->text[out++] = t->text[i];
    const bool changed = out != t->size;
    t->size = out;
    return changed;
}

/* What Unicode calls white space, and the information separators that Python's str.strip() takes
 * too. */
static bool is_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool strip(struct clean_turn *t)
{
    const int64_t before = t->size;
    int64_t length;
    while (t->size > 0 && is_space(utf8_decode(&length, t->text, t->size))) {
        t->text += length;
        t->size -= length;
    }
    while (t->size > 0) {
        int64_t start = t->size - 1;
        while (start > 0 && ((unsigned char)t->text[start] & 0xc0) == 0x80) start--;
        if (!is_space(utf8_decode(&length, t->text + start, t->size - start))) break;
        t->size = start;
    }
    return t->size != before;
}

char *clean_text(char *text, int64_t *size)
{
    struct clean_turn t = { .text = text, .size = *size };
    fix_line_ends(&t);
    collapse_newlines(&t);
    strip(&t);
    *size = t.size;
    return t.text;
}

/* ---- rules ---- */

static int64_t for_each_turn(struct clean_dialogue *d, bool (*change)(struct clean_turn *t))
{
    int64_t changed = 0;
    for (int64_t i = 0; i < d->turn_count; i++) changed += change(&d->turns[i]);
    return changed;
}

static int64_t rule_line_ends(struct clean_dialogue *d) { return for_each_turn(d, fix_line_ends); }

static int64_t rule_newlines(struct clean_dialogue *d)
{
    return for_each_turn(d, collapse_newlines);
}

static int64_t rule_strip(struct clean_dialogue *d) { return for_each_turn(d, strip); }

/* Keep the turns for which `drop` is false; returns how many went. */
static int64_t remove_turns(struct clean_dialogue *d, bool (*drop)(const struct clean_turn *t))
{
    int64_t kept = 0;
    for (int64_t i = 0; i < d->turn_count; i++)
        if (!drop(&d->turns[i])) d->turns[kept++] = d->turns[i];
    const int64_t removed = d->turn_count - kept;
    d->turn_count = kept;
    return removed;
}

static bool is_system(const struct clean_turn *t) { return t->role == ROLE_SYSTEM; }
static bool is_empty(const struct clean_turn *t) { return t->size == 0; }

static int64_t rule_system(struct clean_dialogue *d) { return remove_turns(d, is_system); }
static int64_t rule_empty(struct clean_dialogue *d) { return remove_turns(d, is_empty); }

/* Texts lie one after another with a byte between them, so that a neighbour can be moved up. */
static int64_t rule_merge(struct clean_dialogue *d)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < d->turn_count; i++) {
        struct clean_turn *t = &d->turns[i];
        struct clean_turn *last = kept > 0 ? &d->turns[kept - 1] : NULL;
        if (last == NULL || last->role != t->role) {
            d->turns[kept++] = *t;
            continue;
        }
        ASSERT(last->text + last->size < t->text);
        last->text[last->size++] = '\n';
        memmove(last->text + last->size, t->text, (size_t)t->size);
        last->size += t->size;
    }
    const int64_t merged = d->turn_count - kept;
    d->turn_count = kept;
    return merged;
}

/* A reply is a counsellor's turn with something before it. */
static int64_t rule_no_reply(struct clean_dialogue *d)
{
    for (int64_t i = 1; i < d->turn_count; i++)
        if (d->turns[i].role == ROLE_COUNSELLOR) return 0;
    d->dropped = true;
    return 1;
}

static int64_t rule_counsellor_first(struct clean_dialogue *d)
{
    return d->turns[0].role == ROLE_COUNSELLOR;
}

static int64_t rule_client_last(struct clean_dialogue *d)
{
    return d->turns[d->turn_count - 1].role == ROLE_CLIENT;
}

static const struct clean_rule rules[] = {
    { "system_turn", rule_system, "turns", "system turns removed" },
    { "line_end", rule_line_ends, "turns", "line ends \\r\\n and \\r turned into \\n" },
    { "newlines", rule_newlines, "turns", "repeated newlines turned into one" },
    { "strip", rule_strip, "turns", "surrounding white space removed" },
    { "empty_turn", rule_empty, "turns", "empty turns removed" },
    { "merge", rule_merge, "turns", "turns joined to the same person's turn before, by a newline" },
    { "no_reply", rule_no_reply, "dialogues", "dialogues dropped: no reply of the counsellor" },
    { "counsellor_first", rule_counsellor_first, "dialogues",
      "dialogues that the counsellor begins, kept" },
    { "client_last", rule_client_last, "dialogues",
      "dialogues that end with the client, kept; the last turn trains nothing" },
};
STATIC_ASSERT(sizeof rules / sizeof rules[0] <= CLEAN_RULES_MAX, "counters for every rule");

int64_t clean_rule_count(void) { return COUNT_OF(rules); }

const struct clean_rule *clean_rule_at(int64_t index)
{
    ASSERT(index >= 0 && index < COUNT_OF(rules));
    return &rules[index];
}

void clean_rules_sha256(char hex[SHA256_HEX_SIZE])
{
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    sha256_init(&sum);
    for (int64_t i = 0; i < COUNT_OF(rules); i++)
        sha256_update(&sum, rules[i].name, strlen(rules[i].name) + 1);
    sha256_final(&sum, digest);
    sha256_hex(hex, digest);
}

/* ---- dialogues ---- */

err_t clean_load(struct clean_dialogue *d, const struct dialogue_text *from)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < from->turn_count; i++) bytes += from->turns[i].size + 1;
    buf_reset(&d->text);
    TRY(buf_reserve(&d->text, (size_t)bytes + 1));
    if (from->turn_count > d->turn_capacity) {
        void *turns = realloc(d->turns, (size_t)from->turn_count * sizeof *d->turns);
        if (turns == NULL) RAISE(NOMEM, "%lld turns", (long long)from->turn_count);
        d->turns = turns;
        d->turn_capacity = from->turn_count;
    }
    d->turn_count = from->turn_count;
    d->dropped = false;
    for (int64_t i = 0; i < from->turn_count; i++) {
        const struct turn_text *t = &from->turns[i];
        d->turns[i] = (struct clean_turn){ t->role, d->text.data + d->text.size, t->size };
        TRY(buf_append(&d->text, t->text, (size_t)t->size));
        TRY(buf_append(&d->text, "\n", 1));
    }
    return ERR_OK;
}

void clean_apply(struct clean_dialogue *d, int64_t counts[CLEAN_RULES_MAX])
{
    for (int64_t i = 0; i < COUNT_OF(rules) && !d->dropped; i++) counts[i] += rules[i].apply(d);
}

void clean_clear(struct clean_dialogue *d)
{
    buf_clear(&d->text);
    free(d->turns);
    *d = (struct clean_dialogue){ 0 };
}

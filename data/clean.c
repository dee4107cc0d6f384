#include "data/clean.h"

#include "base/check.h"
#include "base/num.h"
#include "base/utf8.h"
#include "data/clean_rules.h"
#include "data/clean_text.h"
#include "data/clean_words.h"
#include "data/pii.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEFORE_BYTES 4096 /* of a turn, kept to show what a rule changed */
#define SPANS_MAX    32

/* ---- findings ---- */

/* One dialogue on its way through the rules. */
struct work {
    const struct clean_rules *rules;
    struct clean_dialogue *d;
    struct clean_found *found; /* NULL: nothing is counted */
};

static bool is_on(const struct work *w, enum clean_rule_id rule)
{
    return w->rules->action[rule] != CLEAN_OFF;
}

static bool wants_example(const struct work *w, enum clean_rule_id rule)
{
    return w->found != NULL && w->found->example_count[rule] < CLEAN_EXAMPLES_MAX;
}

/* Some characters from about 16 before `at` on, on one line. */
static void copy_snippet(char out[CLEAN_SNIPPET_MAX], const char *text, int64_t size, int64_t at)
{
    int64_t from = max_i64(0, at - 48), bytes;
    while (from < size && ((unsigned char)text[from] & 0xc0) == 0x80) from++;
    bytes = utf8_valid_prefix(text + from, min_i64(size - from, CLEAN_SNIPPET_MAX - 1));
    memcpy(out, text + from, (size_t)bytes);
    out[bytes] = '\0';
    for (int64_t i = 0; i < bytes; i++)
        if (out[i] == '\n' || out[i] == '\r') out[i] = ' ';
}

static void add_example(const struct work *w, enum clean_rule_id rule, const char *before,
                        int64_t before_size, int64_t before_at, const struct clean_turn *after,
                        int64_t after_at)
{
    struct clean_example *e = &w->found->example[rule][w->found->example_count[rule]++];
    *e = (struct clean_example){ "", "" };
    copy_snippet(e->before, before, before_size, before_at);
    if (after != NULL) copy_snippet(e->after, after->text, after->size, after_at);
}

/* Count a place of a turn that is not rewritten, and do what the rule's action says. */
static void find_in_turn(const struct work *w, enum clean_rule_id rule, struct clean_turn *t,
                         int64_t at)
{
    w->found->count[rule]++;
    if (wants_example(w, rule)) add_example(w, rule, t->text, t->size, at, NULL, 0);
    if (w->rules->action[rule] == CLEAN_DROP) w->d->dropped = true;
    if (w->rules->action[rule] == CLEAN_CONTEXT) t->flags |= CLEAN_TURN_CONTEXT;
    if (w->rules->action[rule] == CLEAN_TAG) t->flags |= CLEAN_TURN_CRISIS;
}

/* Let a rule rewrite a turn; count it, and show it if examples are wanted. */
static void rewrite(const struct work *w, enum clean_rule_id rule, struct clean_turn *t,
                    bool (*change)(struct clean_turn *t))
{
    char before[BEFORE_BYTES];
    const int64_t before_size = min_i64(t->size, BEFORE_BYTES);
    if (!is_on(w, rule)) return;
    const bool show = wants_example(w, rule);
    if (show) memcpy(before, t->text, (size_t)before_size);
    if (!change(t)) return;
    w->found->count[rule]++;
    if (!show) return;
    int64_t same = 0;
    while (same < before_size && same < t->size && before[same] == t->text[same]) same++;
    add_example(w, rule, before, before_size, same, t, same);
}

/* ---- rules for one turn: its form ---- */

/* The speaker's own name goes, wherever it is a label; a turn is counted once. */
static void remove_own_names(const struct work *w, struct clean_turn *t)
{
    const char *const names[2] = { w->rules->name[0], w->rules->name[1] };
    struct clean_example *shown = NULL;
    struct speaker s;
    bool counted = false;
    for (int64_t at = 0; speaker_find(&s, t->text, t->size, t->role, names, &at);) {
        if (s.role != t->role || !s.label) continue;
        if (!counted) {
            struct clean_found *f = w->found;
            if (wants_example(w, CLEAN_ROLE_NAME))
                shown = &f->example[CLEAN_ROLE_NAME][f->example_count[CLEAN_ROLE_NAME]];
            find_in_turn(w, CLEAN_ROLE_NAME, t, s.begin);
        }
        if (w->rules->action[CLEAN_ROLE_NAME] != CLEAN_FIX) return;
        memmove(t->text + s.begin, t->text + s.end, (size_t)(t->size - s.end));
        t->size -= s.end - s.begin;
        at = s.begin;
        if (shown != NULL && !counted) copy_snippet(shown->after, t->text, t->size, s.begin);
        counted = true;
    }
}

static void tidy_form(const struct work *w, struct clean_turn *t)
{
    unsigned traits = text_traits(t->text, t->size);
    if (traits & TRAIT_RETURN) rewrite(w, CLEAN_LINE_END, t, text_line_ends);
    if (traits & TRAIT_LATIN) {
        rewrite(w, CLEAN_MOJIBAKE, t, text_mojibake);
        traits |= text_traits(t->text, t->size);
    }
    if ((traits & TRAIT_GARBLED) && is_on(w, CLEAN_GARBLED) && text_garbled(t))
        find_in_turn(w, CLEAN_GARBLED, t, 0);
    if (traits & TRAIT_MARKUP) {
        rewrite(w, CLEAN_HTML, t, text_html);
        traits |= text_traits(t->text, t->size);
    }
    if (traits & TRAIT_CONTROL) rewrite(w, CLEAN_CONTROL, t, text_control);
    if (traits & (TRAIT_NEWLINES | TRAIT_RETURN | TRAIT_CONTROL))
        rewrite(w, CLEAN_NEWLINES, t, text_newlines);
    if ((traits & TRAIT_COLON) && is_on(w, CLEAN_ROLE_NAME)) remove_own_names(w, t);
    rewrite(w, CLEAN_STRIP, t, text_strip);
    t->traits = traits; /* may say more than is left in the text, never less */
}

/* ---- rules for one turn: its content ---- */

static void find_other_speaker(const struct work *w, struct clean_turn *t)
{
    const char *const names[2] = { w->rules->name[0], w->rules->name[1] };
    struct speaker s;
    if (!(t->traits & TRAIT_COLON)) return;
    for (int64_t at = 0; speaker_find(&s, t->text, t->size, t->role, names, &at);)
        if (s.role != t->role || !s.label) {
            find_in_turn(w, CLEAN_ROLE_OTHER, t, s.begin);
            return;
        }
}

STATIC_ASSERT(CLEAN_ADDRESS - CLEAN_ID_CARD == PII_ADDRESS - PII_ID_CARD &&
                  PII_KIND_COUNT == CLEAN_ADDRESS - CLEAN_ID_CARD + 1,
              "the rules on personal data are in the order of enum pii_kind");

/* Replace the masked ones among the spans; returns by how much the text became shorter. */
static int64_t mask_spans(const struct work *w, struct clean_turn *t, const struct pii_span *spans,
                          int64_t count)
{
    int64_t out = 0, from = 0;
    for (int64_t i = 0; i < count; i++) {
        const struct pii_span *span = &spans[i];
        if (w->rules->action[CLEAN_ID_CARD + span->kind] != CLEAN_MASK) continue;
        const char *mask = pii_mask(span->kind, span->end - span->begin);
        memmove(t->text + out, t->text + from, (size_t)(span->begin - from));
        out += span->begin - from;
        memcpy(t->text + out, mask, strlen(mask));
        out += (int64_t)strlen(mask);
        from = span->end;
    }
    memmove(t->text + out, t->text + from, (size_t)(t->size - from));
    t->size -= from - out;
    return from - out;
}

static void find_personal(const struct work *w, struct clean_turn *t)
{
    struct pii_span spans[SPANS_MAX];
    char before[BEFORE_BYTES];
    for (int64_t at = 0; at < t->size;) {
        const int64_t count = pii_find(spans, SPANS_MAX, &at, t->text, t->size);
        if (count == 0) continue; /* at is the end */
        const int64_t before_size = min_i64(t->size, BEFORE_BYTES);
        memcpy(before, t->text, (size_t)before_size);
        const int64_t shorter = mask_spans(w, t, spans, count);
        at -= shorter;
        for (int64_t i = 0; i < count; i++) {
            const enum clean_rule_id rule = (enum clean_rule_id)(CLEAN_ID_CARD + spans[i].kind);
            if (!is_on(w, rule)) continue;
            w->found->count[rule]++;
            if (w->rules->action[rule] == CLEAN_DROP) w->d->dropped = true;
            if (wants_example(w, rule) && spans[i].end <= before_size)
                add_example(w, rule, before, before_size, spans[i].begin, t,
                            min_i64(spans[i].begin, t->size));
        }
    }
}

static bool says_machine(const struct clean_turn *t, const struct word_hit *hit)
{
    return hit->kind == WORD_AI || ((hit->kind == WORD_I_AM || hit->kind == WORD_AS) &&
                                    word_names_machine(t->text, t->size, hit));
}

/* Each rule counts a turn once. */
static void find_words(const struct work *w, struct clean_turn *t)
{
    struct word_hit hit;
    bool crisis = !is_on(w, CLEAN_CRISIS);
    bool ai = t->role != ROLE_COUNSELLOR || !is_on(w, CLEAN_IDENTITY_AI);
    bool named = t->role != ROLE_COUNSELLOR || !is_on(w, CLEAN_IDENTITY_NAMED);
    for (int64_t at = 0; word_find(&hit, &w->rules->words, t->text, t->size, &at);) {
        if (hit.kind == WORD_CRISIS && !crisis) {
            find_in_turn(w, CLEAN_CRISIS, t, hit.begin);
            crisis = true;
        } else if (!ai && says_machine(t, &hit)) {
            find_in_turn(w, CLEAN_IDENTITY_AI, t, hit.begin);
            ai = true;
        } else if (hit.kind == WORD_I_AM && !named &&
                   word_names_counsellor(t->text, t->size, &hit)) {
            find_in_turn(w, CLEAN_IDENTITY_NAMED, t, hit.begin);
            named = true;
        }
    }
}

static void look_into(const struct work *w, struct clean_turn *t)
{
    if (is_on(w, CLEAN_LONG_TURN) && t->size > w->rules->long_turn &&
        text_char_count(t->text, t->size) > w->rules->long_turn)
        find_in_turn(w, CLEAN_LONG_TURN, t, 0);
    if (t->traits & TRAIT_PERSONAL) find_personal(w, t);
    find_words(w, t);
}

/* ---- rules for the turns of a dialogue ---- */

/* Where two turns meet: the end of one, `between`, the beginning of the other, on one line. Either
 * may be NULL. */
static void copy_meeting(char out[CLEAN_SNIPPET_MAX], const struct clean_turn *left,
                         const char *between, const struct clean_turn *right)
{
    enum { SIDE = 60 }; /* bytes of each */
    int64_t from = left ? max_i64(0, left->size - SIDE) : 0, to = right ? right->size : 0;
    while (left != NULL && from < left->size && ((unsigned char)left->text[from] & 0xc0) == 0x80)
        from++;
    if (to > SIDE) to = utf8_valid_prefix(right->text, SIDE);
    snprintf(out, CLEAN_SNIPPET_MAX, "%.*s%s%.*s", left ? (int)(left->size - from) : 0,
             left ? left->text + from : "", between, (int)to, right ? right->text : "");
    for (char *c = out; *c != '\0'; c++)
        if (*c == '\n' || *c == '\r') *c = ' ';
}

static void add_meeting(const struct work *w, enum clean_rule_id rule,
                        const struct clean_turn *left, const char *before, const char *after,
                        const struct clean_turn *right)
{
    if (!wants_example(w, rule)) return;
    struct clean_example *e = &w->found->example[rule][w->found->example_count[rule]++];
    copy_meeting(e->before, left, before, right);
    copy_meeting(e->after, left, after, right);
}

static void remove_system_turns(const struct work *w)
{
    struct clean_dialogue *d = w->d;
    int64_t kept = 0;
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct clean_turn *t = &d->turns[i];
        if (t->role != ROLE_SYSTEM)
            d->turns[kept++] = *t;
        else if (wants_example(w, CLEAN_SYSTEM_TURN))
            add_example(w, CLEAN_SYSTEM_TURN, t->text, t->size, 0, NULL, 0);
    }
    if (w->found != NULL) w->found->count[CLEAN_SYSTEM_TURN] += d->turn_count - kept;
    d->turn_count = kept;
}

static void remove_empty_turns(const struct work *w)
{
    struct clean_dialogue *d = w->d;
    int64_t kept = 0;
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct clean_turn *t = &d->turns[i];
        if (t->size > 0) {
            d->turns[kept++] = *t;
            continue;
        }
        const struct clean_turn *left = kept > 0 ? &d->turns[kept - 1] : NULL;
        const struct clean_turn *right = i + 1 < d->turn_count ? t + 1 : NULL;
        add_meeting(w, CLEAN_EMPTY_TURN, left,
                    t->role == ROLE_CLIENT ? " | client: | " : " | counsellor: | ", " | ", right);
    }
    if (w->found != NULL) w->found->count[CLEAN_EMPTY_TURN] += d->turn_count - kept;
    d->turn_count = kept;
}

/* Texts lie one after another with a byte between them, so that a neighbour can be moved up. */
static void merge_neighbours(const struct work *w)
{
    struct clean_dialogue *d = w->d;
    int64_t kept = 0;
    for (int64_t i = 0; i < d->turn_count; i++) {
        struct clean_turn *t = &d->turns[i];
        struct clean_turn *last = kept > 0 ? &d->turns[kept - 1] : NULL;
        if (last == NULL || last->role != t->role) {
            d->turns[kept++] = *t;
            continue;
        }
        ASSERT(last->text + last->size < t->text);
        add_meeting(w, CLEAN_MERGE, last, " | ", "\n", t);
        last->text[last->size++] = '\n';
        memmove(last->text + last->size, t->text, (size_t)t->size);
        last->size += t->size;
        last->flags |= t->flags;
        last->traits |= t->traits;
    }
    if (w->found != NULL) w->found->count[CLEAN_MERGE] += d->turn_count - kept;
    d->turn_count = kept;
}

/* A reply is a counsellor's turn with something before it that is not kept as context only. */
static bool has_reply(const struct clean_dialogue *d)
{
    for (int64_t i = 1; i < d->turn_count; i++)
        if (d->turns[i].role == ROLE_COUNSELLOR && !(d->turns[i].flags & CLEAN_TURN_CONTEXT))
            return true;
    return false;
}

/* A finding about the dialogue; the example is its first turn. */
static void find_in_dialogue(const struct work *w, enum clean_rule_id rule, int64_t turn)
{
    const struct clean_dialogue *d = w->d;
    w->found->count[rule]++;
    if (turn < d->turn_count && wants_example(w, rule))
        add_example(w, rule, d->turns[turn].text, d->turns[turn].size, 0, NULL, 0);
    if (w->rules->action[rule] == CLEAN_DROP) w->d->dropped = true;
}

static void look_at_ends(const struct work *w)
{
    struct clean_dialogue *d = w->d;
    if (d->turns[0].role == ROLE_COUNSELLOR) {
        find_in_dialogue(w, CLEAN_COUNSELLOR_FIRST, 0);
        if (w->rules->action[CLEAN_COUNSELLOR_FIRST] == CLEAN_FIX) {
            memmove(&d->turns[0], &d->turns[1], (size_t)(d->turn_count - 1) * sizeof *d->turns);
            d->turn_count--;
        }
    }
    if (d->turn_count > 0 && d->turns[d->turn_count - 1].role == ROLE_CLIENT) {
        find_in_dialogue(w, CLEAN_CLIENT_LAST, d->turn_count - 1);
        d->turn_count -= w->rules->action[CLEAN_CLIENT_LAST] == CLEAN_FIX;
    }
}

void clean_apply(const struct clean_rules *r, struct clean_dialogue *d, struct clean_found *found)
{
    const struct work w = { r, d, found };
    if (d->turn_count == 0) {
        find_in_dialogue(&w, CLEAN_NO_TURN, 0);
        return;
    }
    remove_system_turns(&w);
    for (int64_t i = 0; i < d->turn_count && !d->dropped; i++) tidy_form(&w, &d->turns[i]);
    remove_empty_turns(&w);
    for (int64_t i = 0; i < d->turn_count && !d->dropped && is_on(&w, CLEAN_ROLE_OTHER); i++)
        find_other_speaker(&w, &d->turns[i]);
    if (d->dropped) return;
    merge_neighbours(&w);
    for (int64_t i = 0; i < d->turn_count && !d->dropped; i++) look_into(&w, &d->turns[i]);
    if (d->dropped) return;
    if (!has_reply(d)) {
        find_in_dialogue(&w, CLEAN_NO_REPLY, 0);
        return;
    }
    look_at_ends(&w);
    if (!d->dropped && !has_reply(d)) find_in_dialogue(&w, CLEAN_NO_REPLY, 0);
}

void clean_tidy(struct clean_dialogue *d)
{
    const struct work w = { .d = d };
    remove_system_turns(&w);
    for (int64_t i = 0; i < d->turn_count; i++)
        d->turns[i].text = clean_text(d->turns[i].text, &d->turns[i].size);
    remove_empty_turns(&w);
    merge_neighbours(&w);
}

void clean_found_add(struct clean_found *to, const struct clean_found *from)
{
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) {
        to->count[i] += from->count[i];
        for (int64_t k = 0; k < from->example_count[i] && to->example_count[i] < CLEAN_EXAMPLES_MAX;
             k++)
            to->example[i][to->example_count[i]++] = from->example[i][k];
    }
}

/* ---- dialogues ---- */

err_t clean_load(struct clean_dialogue *d, const struct dialogue_text *from)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < from->turn_count; i++) bytes += from->turns[i].size + 1;
    buf_reset(&d->text);
    TRY(buf_reserve(&d->text, (size_t)bytes + 1));
    ARRAY_GROW(d->turns, d->turn_capacity, from->turn_count);
    d->turn_count = from->turn_count;
    d->dropped = false;
    for (int64_t i = 0; i < from->turn_count; i++) {
        const struct turn_text *t = &from->turns[i];
        d->turns[i] = (struct clean_turn){ .role = t->role,
                                           .text = d->text.data + d->text.size,
                                           .size = t->size };
        TRY(buf_append(&d->text, t->text, (size_t)t->size));
        TRY(buf_append(&d->text, "\n", 1));
    }
    return ERR_OK;
}

void clean_clear(struct clean_dialogue *d)
{
    buf_clear(&d->text);
    free(d->turns);
    *d = (struct clean_dialogue){ 0 };
}

#include "data/clean.h"

#include "base/check.h"
#include "base/num.h"
#include "data/clean_text.h"
#include "data/clean_words.h"
#include "data/pii.h"
#include "data/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEFORE_BYTES 4096 /* of a turn, kept to show what a rule changed */
#define SPANS_MAX    32

/* ---- the table ---- */

#define OFF     (1u << CLEAN_OFF)
#define KEEP    (1u << CLEAN_KEEP)
#define FIX     (1u << CLEAN_FIX)
#define MASK    (1u << CLEAN_MASK)
#define CONTEXT (1u << CLEAN_CONTEXT)
#define TAG     (1u << CLEAN_TAG)
#define DROP    (1u << CLEAN_DROP)

/* A rule that has one action only is what a shard's format or its meaning rests on. */
static const struct clean_rule rules[CLEAN_RULE_COUNT] = {
    [CLEAN_NO_TURN] = { "no_turn", "dialogues", "dialogues without a turn, dropped", CLEAN_DROP,
                        DROP },
    [CLEAN_SYSTEM_TURN] = { "system_turn", "turns", "system turns removed", CLEAN_FIX, FIX },
    [CLEAN_LINE_END] = { "line_end", "turns", "line ends \\r\\n and \\r turned into \\n", CLEAN_FIX,
                         FIX },
    [CLEAN_MOJIBAKE] = { "mojibake", "turns",
                         "UTF-8 that had been read as Latin-1 or Windows-1252 (ä½ å¥½) read again",
                         CLEAN_FIX, FIX | OFF },
    [CLEAN_GARBLED] = { "garbled", "turns",
                        "dialogues dropped: characters are lost (U+FFFD, 锟斤拷)", CLEAN_DROP,
                        DROP | CONTEXT | KEEP | OFF },
    [CLEAN_HTML] = { "html", "turns", "HTML tags removed, entities turned into their characters",
                     CLEAN_FIX, FIX | OFF },
    [CLEAN_CONTROL] = { "control", "turns",
                        "control characters, zero-width spaces and direction marks removed",
                        CLEAN_FIX, FIX | OFF },
    [CLEAN_NEWLINES] = { "newlines", "turns", "repeated newlines turned into one", CLEAN_FIX,
                         FIX | OFF },
    [CLEAN_ROLE_NAME] = { "role_name", "turns",
                          "the speaker's own name (支持者：) where a line or sentence begins "
                          "removed",
                          CLEAN_FIX, FIX | DROP | KEEP | OFF },
    [CLEAN_STRIP] = { "strip", "turns", "surrounding white space removed", CLEAN_FIX, FIX },
    [CLEAN_EMPTY_TURN] = { "empty_turn", "turns", "empty turns removed", CLEAN_FIX, FIX },
    [CLEAN_ROLE_OTHER] = { "role_other", "turns",
                           "dialogues dropped: a turn has lines of the other speaker in it",
                           CLEAN_DROP, DROP | CONTEXT | KEEP | OFF },
    [CLEAN_MERGE] = { "merge", "turns",
                      "turns joined to the same person's turn before, by a newline", CLEAN_FIX,
                      FIX },
    [CLEAN_LONG_TURN] = { "long_turn", "turns",
                          "turns of more characters than data.long_turn, kept", CLEAN_KEEP,
                          KEEP | CONTEXT | DROP | OFF },
    [CLEAN_ID_CARD] = { "id_card", "places", "identity card numbers masked", CLEAN_MASK,
                        MASK | KEEP | DROP | OFF },
    [CLEAN_PHONE] = { "phone", "places", "telephone numbers masked, but for public help lines",
                      CLEAN_MASK, MASK | KEEP | DROP | OFF },
    [CLEAN_EMAIL] = { "email", "places", "e-mail addresses masked", CLEAN_MASK,
                      MASK | KEEP | DROP | OFF },
    [CLEAN_URL] = { "url", "places", "web addresses masked", CLEAN_MASK, MASK | KEEP | DROP | OFF },
    [CLEAN_QQ] = { "qq", "places", "QQ numbers masked", CLEAN_MASK, MASK | KEEP | DROP | OFF },
    [CLEAN_WECHAT] = { "wechat", "places", "WeChat accounts masked", CLEAN_MASK,
                       MASK | KEEP | DROP | OFF },
    [CLEAN_ADDRESS] = { "address", "places", "street addresses with a house number masked",
                        CLEAN_MASK, MASK | KEEP | DROP | OFF },
    [CLEAN_IDENTITY_AI] = { "identity_ai", "turns",
                            "replies in which the counsellor says to be an AI, not trained",
                            CLEAN_CONTEXT, CONTEXT | DROP | KEEP | OFF },
    [CLEAN_IDENTITY_NAMED] = { "identity_named", "turns",
                               "replies that introduce a counsellor (我是…咨询师), not trained",
                               CLEAN_CONTEXT, CONTEXT | DROP | KEEP | OFF },
    [CLEAN_CRISIS] = { "crisis", "turns", "turns that speak of suicide or self-harm, flagged",
                       CLEAN_TAG, TAG | KEEP | DROP | OFF },
    [CLEAN_NO_REPLY] = { "no_reply", "dialogues", "dialogues dropped: no reply of the counsellor",
                         CLEAN_DROP, DROP },
    [CLEAN_COUNSELLOR_FIRST] = { "counsellor_first", "dialogues",
                                 "dialogues that the counsellor begins, kept", CLEAN_KEEP,
                                 KEEP | FIX | DROP },
    [CLEAN_CLIENT_LAST] = { "client_last", "dialogues",
                            "dialogues that end with the client, kept; the last turn trains "
                            "nothing",
                            CLEAN_KEEP, KEEP | FIX | DROP },
};

static const char *const action_names[CLEAN_ACTION_COUNT] = {
    [CLEAN_OFF] = "off",   [CLEAN_KEEP] = "keep",       [CLEAN_FIX] = "fix",
    [CLEAN_MASK] = "mask", [CLEAN_CONTEXT] = "context", [CLEAN_TAG] = "tag",
    [CLEAN_DROP] = "drop",
};

const struct clean_rule *clean_rule_at(int64_t index)
{
    ASSERT(index >= 0 && index < CLEAN_RULE_COUNT);
    return &rules[index];
}

const char *clean_action_name(enum clean_action action)
{
    ASSERT((unsigned)action < CLEAN_ACTION_COUNT);
    return action_names[action];
}

/* ---- switches ---- */

struct clean_rules {
    uint8_t action[CLEAN_RULE_COUNT]; /* enum clean_action */
    int64_t long_turn;
    char name[2][64]; /* of the template, by role */
    struct word_set words;
};

static int64_t find_name(const char *const *names, int64_t count, int64_t step, const char *text,
                         int64_t size)
{
    for (int64_t i = 0; i < count; i++) {
        const char *name = *(const char *const *)(const void *)((const char *)names + i * step);
        if ((int64_t)strlen(name) == size && memcmp(name, text, (size_t)size) == 0) return i;
    }
    return -1;
}

static err_t bad_action(int64_t rule, const char *text, int64_t size)
{
    char list[128] = "";
    for (int i = 0; i < CLEAN_ACTION_COUNT; i++)
        if (rules[rule].allowed >> i & 1)
            snprintf(list + strlen(list), sizeof list - strlen(list), " %s", action_names[i]);
    RAISE(USAGE, "data.rules: %s=%.*s; this rule has:%s", rules[rule].name, (int)size, text, list);
}

/* One "rule=action" of `size` bytes. */
static err_t set_action(struct clean_rules *r, bool *given, const char *text, int64_t size)
{
    const char *equals = memchr(text, '=', (size_t)size);
    if (equals == NULL)
        RAISE(USAGE, "data.rules: %.*s; expected rule=action, as in crisis=drop", (int)size, text);
    const int64_t name_size = equals - text, action_size = size - name_size - 1;
    const int64_t rule =
        find_name(&rules[0].name, CLEAN_RULE_COUNT, sizeof rules[0], text, name_size);
    if (rule < 0)
        RAISE(USAGE, "data.rules: there is no rule %.*s; soulchat prepare --list-rules names them",
              (int)name_size, text);
    const int64_t action = find_name(action_names, CLEAN_ACTION_COUNT, sizeof action_names[0],
                                     equals + 1, action_size);
    if (action < 0 || (rules[rule].allowed >> action & 1) == 0)
        return bad_action(rule, equals + 1, action_size);
    if (given[rule]) RAISE(USAGE, "data.rules names %s twice", rules[rule].name);
    given[rule] = true;
    r->action[rule] = (uint8_t)action;
    return ERR_OK;
}

static err_t set_actions(struct clean_rules *r, const char *text)
{
    bool given[CLEAN_RULE_COUNT] = { false };
    while (*text != '\0') {
        const size_t blank = strspn(text, " ,");
        const size_t size = strcspn(text + blank, " ,");
        if (size > 0) TRY(set_action(r, given, text + blank, (int64_t)size));
        text += blank + size;
    }
    return ERR_OK;
}

err_t clean_rules_open(struct clean_rules **out, const struct clean_spec *spec)
{
    *out = NULL;
    struct clean_rules *r = calloc(1, sizeof *r);
    if (r == NULL) RAISE(NOMEM, "the cleaning rules");
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) r->action[i] = (uint8_t)rules[i].standard;
    r->long_turn = spec->long_turn > 0 ? spec->long_turn : CLEAN_LONG_CHARS;
    if (spec->client_name != NULL)
        snprintf(r->name[ROLE_CLIENT], sizeof r->name[0], "%s", spec->client_name);
    if (spec->counsellor_name != NULL)
        snprintf(r->name[ROLE_COUNSELLOR], sizeof r->name[0], "%s", spec->counsellor_name);
    word_set_init(&r->words);
    const err_t rc = set_actions(r, spec->actions ? spec->actions : "");
    if (rc != ERR_OK) {
        clean_rules_close(r);
        return rc;
    }
    *out = r;
    return ERR_OK;
}

void clean_rules_close(struct clean_rules *r) { free(r); }

enum clean_action clean_rules_action(const struct clean_rules *r, int64_t index)
{
    ASSERT(index >= 0 && index < CLEAN_RULE_COUNT);
    return (enum clean_action)r->action[index];
}

void clean_rules_sha256(char hex[SHA256_HEX_SIZE], const struct clean_rules *r)
{
    struct sha256 sum;
    uint8_t digest[SHA256_BYTES];
    char text[128];
    sha256_init(&sum);
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) {
        int size = snprintf(text, sizeof text, "%s", rules[i].name);
        if (r->action[i] != rules[i].standard)
            size += snprintf(text + size, sizeof text - (size_t)size, "=%s",
                             action_names[r->action[i]]);
        if (i == CLEAN_LONG_TURN && r->long_turn != CLEAN_LONG_CHARS)
            size +=
                snprintf(text + size, sizeof text - (size_t)size, ">%lld", (long long)r->long_turn);
        sha256_update(&sum, text, (size_t)size + 1);
    }
    sha256_final(&sum, digest);
    sha256_hex(hex, digest);
}

/* ---- findings ---- */

/* One dialogue on its way through the rules. */
struct work {
    const struct clean_rules *rules;
    struct clean_dialogue *d;
    struct clean_found *found;
};

static bool is_on(const struct work *w, enum clean_rule_id rule)
{
    return w->rules->action[rule] != CLEAN_OFF;
}

static bool wants_example(const struct work *w, enum clean_rule_id rule)
{
    return w->found->example_count[rule] < CLEAN_EXAMPLES_MAX;
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

/* The speaker's own name goes; a name alone on a line takes the line with it. */
static void remove_own_names(const struct work *w, struct clean_turn *t)
{
    const char *const names[2] = { w->rules->name[0], w->rules->name[1] };
    const enum clean_action action = (enum clean_action)w->rules->action[CLEAN_ROLE_NAME];
    struct speaker s;
    bool counted = false;
    for (int64_t at = 0; speaker_find(&s, t->text, t->size, t->role, names, &at);) {
        if (s.role != t->role || !s.label) continue;
        if (!counted) find_in_turn(w, CLEAN_ROLE_NAME, t, s.begin);
        const int64_t shown = w->found->example_count[CLEAN_ROLE_NAME] - 1;
        const bool show = !counted && action == CLEAN_FIX;
        counted = true;
        if (action != CLEAN_FIX) return;
        memmove(t->text + s.begin, t->text + s.end, (size_t)(t->size - s.end));
        t->size -= s.end - s.begin;
        at = s.begin;
        if (show && w->found->count[CLEAN_ROLE_NAME] == shown + 1)
            copy_snippet(w->found->example[CLEAN_ROLE_NAME][shown].after, t->text, t->size,
                         s.begin);
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
}

/* ---- rules for one turn: its content ---- */

static void find_other_speaker(const struct work *w, struct clean_turn *t)
{
    const char *const names[2] = { w->rules->name[0], w->rules->name[1] };
    struct speaker s;
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

/* Each rule counts a turn once. */
static void find_words(const struct work *w, struct clean_turn *t)
{
    struct word_hit hit;
    int64_t end;
    bool crisis = !is_on(w, CLEAN_CRISIS);
    bool ai = t->role != ROLE_COUNSELLOR || !is_on(w, CLEAN_IDENTITY_AI);
    bool named = t->role != ROLE_COUNSELLOR || !is_on(w, CLEAN_IDENTITY_NAMED);
    for (int64_t at = 0; word_find(&hit, &w->rules->words, t->text, t->size, &at);) {
        if (hit.kind == WORD_CRISIS && !crisis) {
            find_in_turn(w, CLEAN_CRISIS, t, hit.begin);
            crisis = true;
        } else if (hit.kind == WORD_AI && !ai) {
            find_in_turn(w, CLEAN_IDENTITY_AI, t, hit.begin);
            ai = true;
        } else if (hit.kind == WORD_I_AM && !named &&
                   word_names_counsellor(&end, t->text, t->size, &hit)) {
            find_in_turn(w, CLEAN_IDENTITY_NAMED, t, hit.begin);
            named = true;
        }
    }
}

static void look_into(const struct work *w, struct clean_turn *t)
{
    const unsigned traits = text_traits(t->text, t->size);
    if (is_on(w, CLEAN_LONG_TURN) && t->size > w->rules->long_turn &&
        text_char_count(t->text, t->size) > w->rules->long_turn)
        find_in_turn(w, CLEAN_LONG_TURN, t, 0);
    if (traits & TRAIT_PERSONAL) find_personal(w, t);
    find_words(w, t);
}

/* ---- rules for the turns of a dialogue ---- */

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

/* Texts lie one after another with a byte between them, so that a neighbour can be moved up. */
static int64_t merge_neighbours(struct clean_dialogue *d)
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
        last->flags |= t->flags;
    }
    const int64_t merged = d->turn_count - kept;
    d->turn_count = kept;
    return merged;
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
    found->count[CLEAN_SYSTEM_TURN] += remove_turns(d, is_system);
    for (int64_t i = 0; i < d->turn_count && !d->dropped; i++) tidy_form(&w, &d->turns[i]);
    found->count[CLEAN_EMPTY_TURN] += remove_turns(d, is_empty);
    for (int64_t i = 0; i < d->turn_count && !d->dropped && is_on(&w, CLEAN_ROLE_OTHER); i++)
        find_other_speaker(&w, &d->turns[i]);
    if (d->dropped) return;
    found->count[CLEAN_MERGE] += merge_neighbours(d);
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
    remove_turns(d, is_system);
    for (int64_t i = 0; i < d->turn_count; i++)
        d->turns[i].text = clean_text(d->turns[i].text, &d->turns[i].size);
    remove_turns(d, is_empty);
    merge_neighbours(d);
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
        d->turns[i] = (struct clean_turn){ t->role, d->text.data + d->text.size, t->size, 0 };
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

#include "data/clean_rules.h"

#include "base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static bool is_name(const char *name, const char *text, int64_t size)
{
    return (int64_t)strlen(name) == size && memcmp(name, text, (size_t)size) == 0;
}

/* By name; the count of them where there is none. */
static int64_t find_rule(const char *text, int64_t size)
{
    int64_t i = 0;
    while (i < CLEAN_RULE_COUNT && !is_name(rules[i].name, text, size)) i++;
    return i;
}

static int64_t find_action(const char *text, int64_t size)
{
    int64_t i = 0;
    while (i < CLEAN_ACTION_COUNT && !is_name(action_names[i], text, size)) i++;
    return i;
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
    const int64_t rule = find_rule(text, name_size);
    if (rule == CLEAN_RULE_COUNT)
        RAISE(USAGE, "data.rules: there is no rule %.*s; soulchat prepare --list-rules names them",
              (int)name_size, text);
    const int64_t action = find_action(equals + 1, action_size);
    if (action == CLEAN_ACTION_COUNT || (rules[rule].allowed >> action & 1) == 0)
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

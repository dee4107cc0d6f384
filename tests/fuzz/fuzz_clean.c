/* layer: data */
/* Dialogues of any bytes: what the cleaning rules leave is a conversation, and cleaning it again
 * finds nothing more to put right. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "base/utf8.h"
#include "data/clean.h"
#include "data/corpus.h"

#include <string.h>

static void check_found(const struct clean_found *found)
{
    for (int64_t i = 0; i < CLEAN_RULE_COUNT; i++) {
        ASSERT(found->count[i] >= 0 && found->example_count[i] <= CLEAN_EXAMPLES_MAX);
        for (int64_t k = 0; k < found->example_count[i]; k++) {
            const char *sides[] = { found->example[i][k].before, found->example[i][k].after };
            for (int s = 0; s < 2; s++) {
                const int64_t size = (int64_t)strnlen(sides[s], CLEAN_SNIPPET_MAX);
                ASSERT(size < CLEAN_SNIPPET_MAX && utf8_valid_prefix(sides[s], size) == size);
                ASSERT(memchr(sides[s], '\n', (size_t)size) == NULL);
            }
        }
    }
}

static void check_cleaned(const struct clean_dialogue *d)
{
    ASSERT(d->turn_count >= 2);
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct clean_turn *t = &d->turns[i];
        ASSERT(t->size > 0 && t->role != ROLE_SYSTEM);
        ASSERT(memchr(t->text, '\r', (size_t)t->size) == NULL);
        ASSERT(memmem(t->text, (size_t)t->size, "\n\n", 2) == NULL);
        ASSERT(utf8_valid_prefix(t->text, t->size) == t->size);
        ASSERT(i == 0 || t->role != d->turns[i - 1].role);
    }
}

/* Rules of form have nothing left to do on what rules have left. */
static void check_tidy(const struct clean_dialogue *d)
{
    struct turn_text turns[64];
    struct clean_dialogue again = { 0 };
    if (d->turn_count > COUNT_OF(turns)) return;
    for (int64_t i = 0; i < d->turn_count; i++)
        turns[i] = (struct turn_text){ d->turns[i].role, d->turns[i].text, d->turns[i].size };
    const struct dialogue_text from = { .turns = turns, .turn_count = d->turn_count };
    ASSERT(clean_load(&again, &from) == ERR_OK);
    clean_tidy(&again);
    ASSERT(again.turn_count == d->turn_count);
    for (int64_t i = 0; i < d->turn_count; i++)
        ASSERT(again.turns[i].size == d->turns[i].size &&
               memcmp(again.turns[i].text, d->turns[i].text, (size_t)d->turns[i].size) == 0);
    clean_clear(&again);
}

static void clean_all(const uint8_t *bytes, size_t size, const char *actions)
{
    struct corpus *c = NULL;
    struct dialogue_text d;
    struct clean_dialogue cleaned = { 0 };
    struct clean_rules *rules = NULL;
    struct clean_found found;
    const struct clean_spec spec = { .actions = actions,
                                     .client_name = "用户",
                                     .counsellor_name = "心理咨询师" };
    bool more = true;
    memset(&found, 0, sizeof found);
    ASSERT(clean_rules_open(&rules, &spec) == ERR_OK);
    err_t rc = corpus_open_memory(&c, "fuzz", bytes, (int64_t)size, CORPUS_AUTO, CORPUS_SKIP);
    while (rc == ERR_OK && (rc = corpus_next(c, &d, &more)) == ERR_OK && more) {
        ASSERT(clean_load(&cleaned, &d) == ERR_OK);
        clean_apply(rules, &cleaned, &found);
        if (cleaned.dropped) continue;
        check_cleaned(&cleaned);
        check_tidy(&cleaned);
    }
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
    check_found(&found);
    clean_rules_close(rules);
    clean_clear(&cleaned);
    corpus_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    clean_all(bytes, size, "");
    clean_all(bytes, size,
              "role_other=keep,garbled=keep,crisis=drop,counsellor_first=fix,client_last=fix");
    return 0;
}

/* layer: data */
/* A corpus of any bytes: what is given out is UTF-8, and what the rules leave is a conversation. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "data/clean.h"
#include "data/corpus.h"
#include "data/utf8.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_dialogue(const struct dialogue_text *d)
{
    ASSERT(d->id != NULL && d->topic != NULL);
    ASSERT(d->turn_count >= 0 && d->turn_count <= CORPUS_TURNS_MAX);
    for (int64_t i = 0; i < d->turn_count; i++)
        ASSERT(utf8_valid_prefix(d->turns[i].text, d->turns[i].size) == d->turns[i].size);
}

static void check_cleaned(const struct clean_dialogue *d)
{
    if (d->dropped) return;
    ASSERT(d->turn_count >= 2);
    for (int64_t i = 0; i < d->turn_count; i++) {
        const struct clean_turn *t = &d->turns[i];
        ASSERT(t->size > 0 && t->role != ROLE_SYSTEM);
        ASSERT(memchr(t->text, '\r', (size_t)t->size) == NULL);
        ASSERT(utf8_valid_prefix(t->text, t->size) == t->size);
        ASSERT(i == 0 || t->role != d->turns[i - 1].role);
    }
}

static void read_all(const char *path, enum corpus_form form, enum corpus_on_bad_record on_bad)
{
    struct corpus *c = NULL;
    struct dialogue_text d;
    struct clean_dialogue cleaned = { 0 };
    struct clean_rules *rules = NULL;
    const struct clean_spec spec = { .client_name = "用户", .counsellor_name = "心理咨询师" };
    struct clean_found found;
    bool more = true;
    memset(&found, 0, sizeof found);
    ASSERT(clean_rules_open(&rules, &spec) == ERR_OK);
    err_t rc = corpus_open(&c, path, form, on_bad);
    while (rc == ERR_OK && more) {
        rc = corpus_next(c, &d, &more);
        if (rc != ERR_OK || !more) break;
        check_dialogue(&d);
        ASSERT(clean_load(&cleaned, &d) == ERR_OK);
        clean_apply(rules, &cleaned, &found);
        check_cleaned(&cleaned);
    }
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
    clean_rules_close(rules);
    clean_clear(&cleaned);
    corpus_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char path[64];
    const int fd = memfd_create("corpus", MFD_CLOEXEC);
    ASSERT(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    read_all(path, CORPUS_AUTO, CORPUS_FAIL);
    read_all(path, CORPUS_AUTO, CORPUS_SKIP);
    close(fd);
    return 0;
}

/* layer: data */
/* A corpus of any bytes: what is given out is UTF-8, whichever form and packing it has. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "base/utf8.h"
#include "data/corpus.h"

static void check_dialogue(const struct dialogue_text *d)
{
    ASSERT(d->id != NULL && d->topic != NULL);
    ASSERT(d->turn_count >= 0 && d->turn_count <= CORPUS_TURNS_MAX);
    for (int64_t i = 0; i < d->turn_count; i++)
        ASSERT(utf8_valid_prefix(d->turns[i].text, d->turns[i].size) == d->turns[i].size);
}

static void read_all(const uint8_t *bytes, size_t size, enum corpus_on_bad_record on_bad)
{
    struct corpus *c = NULL;
    struct dialogue_text d;
    int64_t done, total;
    bool found = true;
    err_t rc = corpus_open_memory(&c, "fuzz", bytes, (int64_t)size, CORPUS_AUTO, on_bad);
    while (rc == ERR_OK && found) {
        rc = corpus_next(c, &d, &found);
        corpus_position(c, &done, &total);
        ASSERT(done >= 0 && done <= total && total == (int64_t)size);
        if (rc != ERR_OK || !found) break;
        check_dialogue(&d);
    }
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
    corpus_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    read_all(bytes, size, CORPUS_FAIL);
    read_all(bytes, size, CORPUS_SKIP);
    return 0;
}

/* layer: data */
/* A text of any bytes, read as dialogues written down: what is given out is a dialogue, and the
 * reader goes on behind every mistake. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "base/utf8.h"
#include "data/blocks.h"

#include <string.h>

static void check_turns(const struct blocks *b, const struct turn_list *turns)
{
    ASSERT(turns->count >= 1 && turns->count <= CORPUS_TURNS_MAX);
    ASSERT(utf8_valid_prefix(b->id, (int64_t)strlen(b->id)) == (int64_t)strlen(b->id));
    for (int64_t i = 0; i < turns->count; i++) {
        const struct turn_text *t = &turns->turns[i];
        ASSERT(utf8_valid_prefix(t->text, t->size) == t->size);
        ASSERT(t->text[t->size] == '\0');
        ASSERT(t->size == 0 || t->text[t->size - 1] != '\n');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct window w;
    struct blocks b = { 0 };
    struct turn_list turns = { 0 };
    bool found = true;
    if (window_open_memory(&w, "fuzz", bytes, (int64_t)size) != ERR_OK) return 0;
    while (found) {
        const int64_t before = window_offset(&w);
        const err_t rc = blocks_next(&b, &w, &turns, &found);
        ASSERT(rc == ERR_OK || (rc == ERR_FORMAT && w.resumable));
        if (rc == ERR_OK && found) check_turns(&b, &turns);
        if (rc == ERR_FORMAT) found = true;
        ASSERT(!found || window_offset(&w) > before);
    }
    blocks_clear(&b);
    turn_list_clear(&turns);
    window_close(&w);
    return 0;
}

/* layer: data */
/* A table of any bytes: rows of the first row's width, of well-formed text; and the reader goes on
 * behind every mistake that it says can be passed over. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "base/utf8.h"
#include "data/csv.h"
#include "data/turn_list.h"

#include <string.h>

static void check_row(struct csv *c, struct turn_list *turns)
{
    ASSERT(c->count >= 1 && c->count <= CSV_COLUMNS_MAX && c->count == c->columns);
    for (int64_t i = 0; i < c->count; i++) {
        ASSERT(utf8_valid_prefix(csv_field(c, i), c->size[i]) == c->size[i]);
        ASSERT(csv_field(c, i)[c->size[i]] == '\0');
    }
    turns->count = 0;
    const err_t rc = turn_list_split(turns, csv_field(c, 0), c->size[0]);
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
    for (int64_t i = 0; rc == ERR_OK && i < turns->count; i++)
        ASSERT(turns->turns[i].text[turns->turns[i].size] == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct window w;
    struct csv c = { 0 };
    struct turn_list turns = { 0 };
    bool found = true;
    if (window_open_memory(&w, "fuzz", bytes, (int64_t)size) != ERR_OK) return 0;
    while (found) {
        const int64_t before = window_offset(&w);
        const err_t rc = csv_next(&c, &w, &found);
        ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
        if (rc == ERR_OK && found) check_row(&c, &turns);
        if (rc == ERR_FORMAT && !w.resumable) break;
        if (rc == ERR_FORMAT) found = true;
        ASSERT(!found || window_offset(&w) > before); /* or it would never end */
    }
    csv_clear(&c);
    turn_list_clear(&turns);
    window_close(&w);
    return 0;
}

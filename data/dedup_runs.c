#include "data/dedup_runs.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/num.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_ITEMS 4096

/* A sorted run on disk; its window is filled while merging. */
struct run {
    int64_t offset, count; /* items, in the spill file */
    int64_t read, at, window_count;
    struct runs_item *window; /* [READ_ITEMS] */
};

struct runs {
    char dir[FILE_PATH_MAX];
    struct runs_item *items, *scratch; /* [capacity], [scratch_capacity] */
    int64_t count, capacity, limit, at, total;
    int fd; /* of the spill file, -1 before the first run */
    struct run *run;
    int64_t run_count, spilled_items;
};

err_t runs_open(struct runs **out, const char *dir, int64_t bytes)
{
    *out = NULL;
    ASSERT(bytes >= 4096);
    struct runs *r = calloc(1, sizeof *r);
    if (r == NULL) RAISE(NOMEM, "a sorter");
    r->fd = -1;
    r->limit = bytes / (int64_t)(2 * sizeof(struct runs_item));
    const err_t rc = path_copy(r->dir, dir);
    if (rc != ERR_OK) {
        free(r);
        return rc;
    }
    *out = r;
    return ERR_OK;
}

void runs_close(struct runs *r)
{
    if (r == NULL) return;
    for (int64_t i = 0; i < r->run_count; i++) free(r->run[i].window);
    if (r->fd >= 0) close(r->fd);
    free(r->run);
    free(r->items);
    free(r->scratch);
    free(r);
}

int64_t runs_spilled(const struct runs *r) { return r->run_count; }

/* ---- in memory: radix sort, least significant byte first; bytes that all share are skipped ----
 */

static unsigned digit_of(const struct runs_item *item, int digit)
{
    const uint64_t word = digit < 8 ? item->value : item->key;
    return (unsigned)(word >> (8 * (digit & 7))) & 255;
}

static void sort_items(struct runs *r)
{
    for (int digit = 0; digit < 16; digit++) {
        int64_t place[256] = { 0 }, sum = 0;
        for (int64_t i = 0; i < r->count; i++) place[digit_of(&r->items[i], digit)]++;
        if (r->count == 0 || place[digit_of(&r->items[0], digit)] == r->count) continue;
        for (int d = 0; d < 256; d++) {
            const int64_t n = place[d];
            place[d] = sum;
            sum += n;
        }
        for (int64_t i = 0; i < r->count; i++)
            r->scratch[place[digit_of(&r->items[i], digit)]++] = r->items[i];
        struct runs_item *sorted = r->scratch;
        r->scratch = r->items;
        r->items = sorted;
    }
}

static err_t grow(struct runs *r)
{
    const int64_t capacity = min_i64(r->limit, max_i64(1024, 2 * r->capacity));
    struct runs_item *items = realloc(r->items, (size_t)capacity * sizeof *items);
    if (items != NULL) r->items = items;
    struct runs_item *scratch = realloc(r->scratch, (size_t)capacity * sizeof *scratch);
    if (scratch != NULL) r->scratch = scratch;
    if (items == NULL || scratch == NULL) RAISE(NOMEM, "sorting %lld items", (long long)capacity);
    r->capacity = capacity;
    return ERR_OK;
}

/* ---- on disk ---- */

static err_t open_spill(struct runs *r)
{
    char path[FILE_PATH_MAX];
    TRY(path_join(path, r->dir, "spill.XXXXXX"));
    r->fd = mkostemp(path, O_CLOEXEC);
    if (r->fd < 0) RAISE(IO, "create %s: %s", path, strerror(errno));
    if (unlink(path) != 0) RAISE(IO, "unlink %s: %s", path, strerror(errno));
    return ERR_OK;
}

static err_t spill(struct runs *r)
{
    if (r->fd < 0) TRY(open_spill(r));
    struct run *grown = realloc(r->run, (size_t)(r->run_count + 1) * sizeof *grown);
    if (grown == NULL) RAISE(NOMEM, "%lld sorted runs", (long long)r->run_count + 1);
    r->run = grown;
    sort_items(r);
    TRY(fault_point("runs.write"));
    const char *bytes = (const char *)r->items;
    const int64_t size = r->count * (int64_t)sizeof *r->items;
    const int64_t offset = r->spilled_items * (int64_t)sizeof *r->items;
    for (int64_t done = 0; done < size;) {
        const ssize_t n = pwrite(r->fd, bytes + done, (size_t)(size - done), offset + done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) RAISE(IO, "write a sorted run in %s: %s", r->dir, strerror(errno));
        done += n;
    }
    r->run[r->run_count++] = (struct run){ .offset = r->spilled_items, .count = r->count };
    r->spilled_items += r->count;
    r->count = 0;
    return ERR_OK;
}

static err_t refill(struct runs *r, struct run *run)
{
    const int64_t count = min_i64(READ_ITEMS, run->count - run->read);
    char *bytes = (char *)run->window;
    const int64_t size = count * (int64_t)sizeof *run->window;
    const int64_t offset = (run->offset + run->read) * (int64_t)sizeof *run->window;
    TRY(fault_point("runs.read"));
    for (int64_t done = 0; done < size;) {
        const ssize_t n = pread(r->fd, bytes + done, (size_t)(size - done), offset + done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            RAISE(IO, "read a sorted run in %s: %s", r->dir, n < 0 ? strerror(errno) : "cut short");
        done += n;
    }
    run->read += count;
    run->window_count = count;
    run->at = 0;
    return ERR_OK;
}

/* ---- the public part ---- */

err_t runs_add(struct runs *r, uint64_t key, uint64_t value)
{
    if (r->count == r->limit) TRY(spill(r));
    if (r->count == r->capacity) TRY(grow(r));
    r->items[r->count++] = (struct runs_item){ key, value };
    r->total++;
    return ERR_OK;
}

err_t runs_sort(struct runs *r)
{
    if (r->run_count == 0) {
        sort_items(r);
        return ERR_OK;
    }
    if (r->count > 0) TRY(spill(r));
    free(r->items);
    free(r->scratch);
    r->items = r->scratch = NULL;
    r->capacity = 0;
    for (int64_t i = 0; i < r->run_count; i++) {
        r->run[i].window = malloc(READ_ITEMS * sizeof *r->run[i].window);
        if (r->run[i].window == NULL) RAISE(NOMEM, "merging %lld runs", (long long)r->run_count);
    }
    TRY(runs_rewind(r));
    return ERR_OK;
}

err_t runs_rewind(struct runs *r)
{
    r->at = 0;
    for (int64_t i = 0; i < r->run_count; i++) {
        r->run[i].read = 0;
        TRY(refill(r, &r->run[i]));
    }
    return ERR_OK;
}

static bool is_less(const struct runs_item *a, const struct runs_item *b)
{
    return a->key != b->key ? a->key < b->key : a->value < b->value;
}

err_t runs_next(struct runs *r, struct runs_item *out, bool *found)
{
    struct run *best = NULL;
    *found = r->at < r->total;
    if (!*found) return ERR_OK;
    if (r->run_count == 0) {
        *out = r->items[r->at++];
        return ERR_OK;
    }
    for (int64_t i = 0; i < r->run_count; i++) {
        struct run *run = &r->run[i];
        if (run->at == run->window_count) continue;
        if (best == NULL || is_less(&run->window[run->at], &best->window[best->at])) best = run;
    }
    *out = best->window[best->at++];
    if (best->at == best->window_count && best->read < best->count) TRY(refill(r, best));
    r->at++;
    return ERR_OK;
}

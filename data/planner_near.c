#include "data/planner.h"

#include "base/num.h"
#include "base/utf8.h"
#include "data/prepare_batch.h"

#include <stdlib.h>
#include <string.h>

/* Of a bucket: the best ones, and those before, that one is compared with. */
#define NEIGHBOURS 16

/*
 * Nearly all bands are nobody else's, and sorting them would be most of the work. So they go
 * through a filter first: `once` and `again` have a bit for the hash of a band and its value, and
 * what was not met again is alone. Bits that several values share let some of those pass: one in
 * eight.
 */
#define FILTER_BITS_MAX 27 /* two sets of 16 MiB */

struct band_filter {
    uint64_t *once, *again;
    int bits;
    struct runs *bands; /* NULL: looking for what is met again */
};

static err_t filter_open(struct band_filter *f, int64_t items)
{
    *f = (struct band_filter){ .bits = 6 };
    while (f->bits < FILTER_BITS_MAX && INT64_C(1) << f->bits < 8 * items) f->bits++;
    const size_t words = (size_t)1 << (f->bits - 6);
    f->once = calloc(words, sizeof *f->once);
    f->again = calloc(words, sizeof *f->again);
    if (f->once == NULL || f->again == NULL)
        RAISE(NOMEM, "a filter of %lld signatures", (long long)items);
    return ERR_OK;
}

static void filter_close(struct band_filter *f)
{
    free(f->once);
    free(f->again);
    *f = (struct band_filter){ 0 };
}

static err_t filter_band(struct band_filter *f, uint64_t key, uint32_t rank)
{
    const uint64_t place = key * 0x9e3779b97f4a7c15u >> (64 - f->bits);
    const uint64_t word = place >> 6, bit = UINT64_C(1) << (place & 63);
    if (f->bands != NULL) return f->again[word] & bit ? runs_add(f->bands, key, rank) : ERR_OK;
    f->again[word] |= f->once[word] & bit;
    f->once[word] |= bit;
    return ERR_OK;
}

static err_t use_bands(struct planner *p, int64_t index, const struct spool_row *row, void *filter)
{
    if (p->equals[index]) return ERR_OK; /* the best of its group stands for it */
    for (uint64_t b = 0; b < DEDUP_BANDS; b++)
        TRY(filter_band(filter, b << 32 | row->band[b], p->rank[index]));
    return ERR_OK;
}

/* The bands that are not alone, by their values. */
static err_t sort_bands(struct planner *p, struct runs *bands)
{
    err_t rc = ERR_OK;
    struct band_filter filter;
    TRY_DONE(filter_open(&filter, p->rank_count * DEDUP_BANDS));
    TRY_DONE(planner_each_row(p, use_bands, &filter));
    filter.bands = bands;
    TRY_DONE(planner_each_row(p, use_bands, &filter));
done:
    filter_close(&filter);
    TRY(rc);
    return runs_sort(bands);
}

/* The last of a bucket against those before: all of them where they are few. */
static err_t add_pairs(struct runs *pairs, const uint32_t *bucket, int64_t count)
{
    const uint64_t worse = bucket[count - 1];
    for (int64_t i = 0; i < count - 1; i++) {
        if (i == NEIGHBOURS && count - 1 > 2 * NEIGHBOURS) i = count - 1 - NEIGHBOURS;
        TRY(runs_add(pairs, worse << 32 | bucket[i], 0));
    }
    return ERR_OK;
}

static err_t push_rank(uint32_t **ranks, int64_t *capacity, int64_t *count, uint32_t rank)
{
    ARRAY_GROW(*ranks, *capacity, *count + 1);
    (*ranks)[(*count)++] = rank;
    return ERR_OK;
}

/* Pairs that share a bucket: one band with one value. */
static err_t make_pairs(struct planner *p, struct runs *pairs)
{
    err_t rc = ERR_OK;
    struct runs *bands;
    struct runs_item item;
    uint32_t *bucket = NULL;
    int64_t count = 0, capacity = 0;
    uint64_t key = 0;
    bool found = true;
    TRY(runs_open(&bands, p->dir, RUNS_BYTES));
    TRY_DONE(sort_bands(p, bands));
    for (;;) {
        TRY_DONE(runs_next(bands, &item, &found));
        if (!found) break;
        if (item.key != key) count = 0;
        key = item.key;
        TRY_DONE(push_rank(&bucket, &capacity, &count, (uint32_t)item.value));
        TRY_DONE(add_pairs(pairs, bucket, count));
    }
    p->counts->duplicates.spilled_runs += runs_spilled(bands);
done:
    free(bucket);
    runs_close(bands);
    return rc;
}

/* The turns of a dialogue that was read, into p->turns. */
static err_t decode_compared(struct planner *p, const struct compared *c)
{
    const char *topic;
    int64_t topic_size;
    return spool_decode(p->turns, NULL, &topic, &topic_size, c->text.data, c->row.text_size,
                        c->row.turn_count);
}

static err_t load_compared(struct planner *p, struct compared *c, uint32_t rank)
{
    TRY(spool_rows(p->spool, &c->row, p->by_rank[rank], 1));
    TRY(spool_text(p->spool, &c->text, &c->row, 1));
    TRY(decode_compared(p, c));
    return shingle_set_fill(&c->set, &p->work, p->turns, c->row.turn_count);
}

/* The beginning of its first turn, on one line. */
static err_t copy_beginning(struct planner *p, char out[CLEAN_SNIPPET_MAX],
                            const struct compared *c)
{
    TRY(decode_compared(p, c));
    const struct turn_text *t = &p->turns[0];
    const int64_t size = utf8_valid_prefix(t->text, min_i64(t->size, CLEAN_SNIPPET_MAX - 1));
    memcpy(out, t->text, (size_t)size);
    out[size] = '\0';
    for (int64_t i = 0; i < size; i++)
        if (out[i] == '\n') out[i] = ' ';
    return ERR_OK;
}

static err_t near_example(struct planner *p, double similarity)
{
    struct prepare_duplicate_counts *d = &p->counts->duplicates;
    if (d->example_count == PREPARE_EXAMPLES_MAX) return ERR_OK;
    struct prepare_near_example *e = &d->example[d->example_count++];
    *e = (struct prepare_near_example){ .similarity = similarity,
                                        .kept_source = p->b.row.source,
                                        .other_source = p->a.row.source };
    TRY(copy_beginning(p, e->kept, &p->b));
    return copy_beginning(p, e->other, &p->a);
}

/* Compare a pair, the worse one in p->a already. Pairs come in the order of the worse one's rank,
 * so whether the better one stays is known. */
static err_t compare_pair(struct planner *p, uint32_t worse, uint32_t better, bool *is_near)
{
    uint8_t *fate = &p->plan->fate[p->by_rank[worse]];
    const bool drop = p->options->duplicates == DUPLICATES_DROP_NEAR;
    TRY(load_compared(p, &p->b, better));
    const double similarity = shingle_set_jaccard(&p->a.set, &p->b.set);
    p->counts->duplicates.compared++;
    if (similarity >= PLANNER_ALIKE)
        TRY(runs_add(p->alike, (uint64_t)worse << 32 | better, (uint64_t)(similarity * 1e9)));
    if (similarity < p->options->near_threshold) return ERR_OK;
    planner_join(p, worse, better);
    const bool stays = p->plan->fate[p->by_rank[better]] < SPLIT_COUNT;
    if (*is_near || (drop && !stays)) return ERR_OK;
    *is_near = true;
    p->counts->duplicates.near++;
    if (drop) {
        *fate = FATE_NEAR;
        p->counts->source[p->a.row.source].near++;
    }
    return near_example(p, similarity);
}

err_t planner_find_near(struct planner *p)
{
    err_t rc = ERR_OK;
    struct runs *pairs;
    struct runs_item item;
    uint64_t key = UINT64_MAX;
    bool found = true, is_near = false;
    TRY(runs_open(&pairs, p->dir, RUNS_BYTES));
    TRY_DONE(make_pairs(p, pairs));
    TRY_DONE(runs_sort(pairs));
    for (;;) {
        TRY_DONE(runs_next(pairs, &item, &found));
        if (!found) break;
        if (item.key == key) continue; /* the same pair from another band */
        const uint32_t worse = (uint32_t)(item.key >> 32), better = (uint32_t)item.key;
        if (key == UINT64_MAX || worse != (uint32_t)(key >> 32)) {
            TRY_DONE(prepare_check_stop(p->options));
            TRY_DONE(load_compared(p, &p->a, worse));
            is_near = false;
        }
        key = item.key;
        /* Known to go, and to which cluster: nothing more to learn. */
        if (is_near && planner_find_root(p, worse) == planner_find_root(p, better)) continue;
        TRY_DONE(compare_pair(p, worse, better, &is_near));
    }
    p->counts->duplicates.spilled_runs += runs_spilled(pairs);
done:
    runs_close(pairs);
    return rc;
}

#include "data/prepare_plan.h"

#include "base/num.h"
#include "data/dedup_runs.h"
#include "data/prepare_batch.h"
#include "data/split.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

#define ROWS_AT_ONCE 4096
#define NEIGHBOURS   16 /* of a bucket: the best ones, and those before, that one is compared with \
                         */
#define ALIKE 0.5       /* similarity from which held-out dialogues are reported */

/* A dialogue's shingles, kept while it is compared with several others. */
struct compared {
    struct shingle_set set;
    struct buf text;
    struct spool_row row;
};

/* Everything between the passes. Ranks number the dialogues that are not exact duplicates, or,
 * where those are kept, all of them: 0 is the best. */
struct planner {
    const struct prepare_options *options;
    struct prepare_counts *counts;
    const struct spool *spool;
    const char *dir;
    struct prepare_plan *plan;
    uint32_t *by_rank, *rank; /* [rank_count] index of a rank; [count] rank of an index */
    uint32_t *parent;         /* [rank_count] of the clusters' forest; a root is its best member */
    uint32_t *size;           /* [rank_count] written members, of a root */
    uint8_t *split;           /* [rank_count] enum split of a root */
    uint8_t *equals;          /* [count] 1: equals a better one (and is kept) */
    int64_t rank_count;
    struct runs *exact, *alike;
    struct compared a, b;
    struct dedup_work work;
    struct spool_turn *turns; /* [CORPUS_TURNS_MAX] */
    struct dedup_turn *dedup_turns;
    struct spool_row *rows; /* [ROWS_AT_ONCE] */
};

/* ---- clusters ---- */

static uint32_t find_root(struct planner *p, uint32_t r)
{
    while (p->parent[r] != r) r = p->parent[r] = p->parent[p->parent[r]];
    return r;
}

static void join(struct planner *p, uint32_t a, uint32_t b)
{
    const uint32_t x = find_root(p, a), y = find_root(p, b);
    p->parent[x > y ? x : y] = x > y ? y : x;
}

/* ---- rows ---- */

/* Call `use` for every row in order. */
static err_t for_each_row(struct planner *p,
                          err_t (*use)(struct planner *p, int64_t index,
                                       const struct spool_row *row, void *context),
                          void *context)
{
    for (int64_t first = 0; first < p->spool->count; first += ROWS_AT_ONCE) {
        const int64_t count = min_i64(ROWS_AT_ONCE, p->spool->count - first);
        TRY(prepare_check_stop(p->options));
        TRY(spool_rows(p->spool, p->rows, first, count));
        for (int64_t i = 0; i < count; i++) TRY(use(p, first + i, &p->rows[i], context));
    }
    return ERR_OK;
}

/* < 0: the dialogue of row a is better than that of row b. */
static int compare_rows(const struct planner *p, const struct spool_row *a,
                        const struct spool_row *b)
{
    const int by_hash = memcmp(a->hash, b->hash, sizeof a->hash);
    if (a->chars != b->chars) return a->chars > b->chars ? -1 : 1;
    if (by_hash != 0) return by_hash;
    const int by_name =
        strcmp(p->options->source[a->source].name, p->options->source[b->source].name);
    if (by_name != 0) return by_name;
    return (a->stratum > b->stratum) - (a->stratum < b->stratum);
}

/* ---- exact duplicates ---- */

static err_t add_exact(struct planner *p, int64_t index, const struct spool_row *row, void *context)
{
    (void)context;
    return runs_add(p->exact, row->exact, (uint64_t)index);
}

/* Walk over the groups of equal streams; all of a group but the best are marked. */
static err_t find_exact(struct planner *p)
{
    struct runs_item item;
    struct spool_row best = { 0 }, row;
    uint64_t key = 0;
    int64_t best_index = -1;
    bool found;
    TRY(for_each_row(p, add_exact, NULL));
    TRY(runs_sort(p->exact));
    for (;;) {
        TRY(runs_next(p->exact, &item, &found));
        if (!found) return ERR_OK;
        const int64_t index = (int64_t)item.value;
        if (best_index < 0 || item.key != key) {
            key = item.key;
            best_index = index;
            best.text_size = 0; /* not read yet: most groups have one member */
            continue;
        }
        if (best.text_size == 0) TRY(spool_rows(p->spool, &best, best_index, 1));
        TRY(spool_rows(p->spool, &row, index, 1));
        const bool better = compare_rows(p, &row, &best) < 0;
        p->equals[better ? best_index : index] = 1;
        p->counts->duplicates.exact++;
        if (better) {
            best = row;
            best_index = index;
        }
    }
}

/* ---- ranks ---- */

static uint32_t big_endian_u32(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static err_t add_rank(struct planner *p, int64_t index, const struct spool_row *row, void *runs)
{
    if (p->options->duplicates != DUPLICATES_KEEP && p->equals[index]) {
        p->plan->fate[index] = FATE_EXACT;
        p->counts->source[row->source].exact++;
        return ERR_OK;
    }
    const uint32_t shorter = UINT32_MAX - (uint32_t)row->chars;
    return runs_add(runs, (uint64_t)shorter << 32 | big_endian_u32(row->hash), (uint64_t)index);
}

/* The key of the sort has half of the hash: put the last one right among those with its key. */
static err_t settle_rank(struct planner *p, int64_t first)
{
    struct spool_row row, before;
    int64_t at = p->rank_count - 1;
    TRY(spool_rows(p->spool, &row, p->by_rank[at], 1));
    for (; at > first; at--) {
        TRY(spool_rows(p->spool, &before, p->by_rank[at - 1], 1));
        if (compare_rows(p, &row, &before) >= 0) break;
        const uint32_t index = p->by_rank[at];
        p->by_rank[at] = p->by_rank[at - 1];
        p->by_rank[at - 1] = index;
    }
    return ERR_OK;
}

static err_t make_ranks(struct planner *p)
{
    err_t rc = ERR_OK;
    struct runs *runs;
    struct runs_item item;
    bool found = true;
    uint64_t key = 0;
    int64_t first = 0;
    TRY(runs_open(&runs, p->dir, RUNS_BYTES));
    TRY_DONE(for_each_row(p, add_rank, runs));
    TRY_DONE(runs_sort(runs));
    for (;;) {
        TRY_DONE(runs_next(runs, &item, &found));
        if (!found) break;
        if (p->rank_count == 0 || item.key != key) first = p->rank_count;
        key = item.key;
        p->by_rank[p->rank_count++] = (uint32_t)item.value;
        if (p->rank_count - 1 > first) TRY_DONE(settle_rank(p, first));
    }
    for (int64_t r = 0; r < p->rank_count; r++) {
        p->rank[p->by_rank[r]] = (uint32_t)r;
        p->parent[r] = (uint32_t)r;
    }
    p->counts->duplicates.spilled_runs += runs_spilled(runs);
done:
    runs_close(runs);
    return rc;
}

/* Where exact duplicates stay, they join the best of them. */
static err_t join_exact(struct planner *p)
{
    struct runs_item item;
    uint64_t key = 0, first = 0;
    bool found, any = false;
    TRY(runs_rewind(p->exact));
    for (;;) {
        TRY(runs_next(p->exact, &item, &found));
        if (!found) return ERR_OK;
        if (any && item.key == key) join(p, p->rank[first], p->rank[item.value]);
        if (!any || item.key != key) first = item.value;
        key = item.key;
        any = true;
    }
}

/* ---- near duplicates ---- */

static err_t add_bands(struct planner *p, int64_t index, const struct spool_row *row, void *runs)
{
    if (p->equals[index]) return ERR_OK; /* the best of its group stands for it */
    for (uint64_t b = 0; b < DEDUP_BANDS; b++)
        TRY(runs_add(runs, b << 32 | row->band[b], p->rank[index]));
    return ERR_OK;
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
    TRY_DONE(for_each_row(p, add_bands, bands));
    TRY_DONE(runs_sort(bands));
    for (;;) {
        void *grown = bucket;
        TRY_DONE(runs_next(bands, &item, &found));
        if (!found) break;
        if (item.key != key) count = 0;
        key = item.key;
        TRY_DONE(grow_items(&grown, &capacity, count + 1, sizeof *bucket));
        bucket = grown;
        bucket[count++] = (uint32_t)item.value;
        TRY_DONE(add_pairs(pairs, bucket, count));
    }
    p->counts->duplicates.spilled_runs += runs_spilled(bands);
done:
    free(bucket);
    runs_close(bands);
    return rc;
}

static err_t load_compared(struct planner *p, struct compared *c, uint32_t rank)
{
    const char *topic;
    int64_t topic_size;
    TRY(spool_rows(p->spool, &c->row, p->by_rank[rank], 1));
    TRY(spool_text(p->spool, &c->text, &c->row, 1));
    TRY(spool_decode(p->turns, &topic, &topic_size, c->text.data, c->row.text_size,
                     c->row.turn_count));
    for (int64_t i = 0; i < c->row.turn_count; i++)
        p->dedup_turns[i] =
            (struct dedup_turn){ p->turns[i].role, p->turns[i].text, p->turns[i].size };
    return shingle_set_fill(&c->set, &p->work, p->dedup_turns, c->row.turn_count);
}

/* The beginning of its first turn, on one line. */
static err_t copy_beginning(struct planner *p, char out[CLEAN_SNIPPET_MAX],
                            const struct compared *c)
{
    const char *topic;
    int64_t topic_size;
    TRY(spool_decode(p->turns, &topic, &topic_size, c->text.data, c->row.text_size,
                     c->row.turn_count));
    const struct spool_turn *t = &p->turns[0];
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
    if (similarity >= ALIKE)
        TRY(runs_add(p->alike, (uint64_t)worse << 32 | better, (uint64_t)(similarity * 1e9)));
    if (similarity < p->options->near_threshold) return ERR_OK;
    join(p, worse, better);
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

static err_t find_near(struct planner *p)
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
        if (is_near && find_root(p, worse) == find_root(p, better)) continue;
        TRY_DONE(compare_pair(p, worse, better, &is_near));
    }
    p->counts->duplicates.spilled_runs += runs_spilled(pairs);
done:
    runs_close(pairs);
    return rc;
}

/* ---- splits ---- */

static err_t count_member(struct planner *p, int64_t index, const struct spool_row *row,
                          void *context)
{
    (void)row;
    (void)context;
    if (p->plan->fate[index] < SPLIT_COUNT) p->size[find_root(p, p->rank[index])]++;
    return ERR_OK;
}

static err_t add_cluster(struct planner *p, int64_t index, const struct spool_row *row, void *runs)
{
    if (p->plan->fate[index] >= SPLIT_COUNT || p->parent[p->rank[index]] != p->rank[index])
        return ERR_OK;
    const uint64_t place = split_place(p->options->split_seed, row->hash);
    p->split[p->rank[index]] = (uint8_t)split_by_place(place, p->options->validation_permyriad,
                                                       p->options->test_permyriad);
    /* Half of the stratum's number names it well enough: two that share it share their quota. */
    return runs_add(runs, row->stratum >> 32 << 32 | split_order(place), p->rank[index]);
}

/* Dialogues of each stratum, in order; the array is yours. */
static err_t count_strata(struct planner *p, struct runs *runs, int64_t **out)
{
    int64_t *strata = NULL, count = 0, capacity = 0;
    struct runs_item item;
    uint64_t key = 0;
    bool found;
    for (;;) {
        err_t rc = runs_next(runs, &item, &found);
        if (rc == ERR_OK && !found) break;
        if (rc == ERR_OK && (count == 0 || item.key >> 32 != key >> 32)) {
            void *grown = strata;
            rc = grow_items(&grown, &capacity, count + 1, sizeof *strata);
            strata = grown;
            if (rc == ERR_OK) strata[count++] = 0;
        }
        if (rc != ERR_OK) {
            free(strata);
            return rc;
        }
        key = item.key;
        strata[count - 1] += p->size[item.value];
    }
    *out = strata;
    return runs_rewind(runs);
}

static err_t split_strata(struct planner *p, struct runs *runs)
{
    err_t rc = ERR_OK;
    struct split_quota quota = { 0 };
    struct runs_item item;
    int64_t *strata = NULL, stratum = 0;
    uint64_t key = 0;
    bool found = true;
    TRY_DONE(count_strata(p, runs, &strata));
    for (;;) {
        TRY_DONE(runs_next(runs, &item, &found));
        if (!found) break;
        if (stratum == 0 || item.key >> 32 != key >> 32)
            split_quota_stratum(&quota, strata[stratum++], p->options->validation_permyriad,
                                p->options->test_permyriad);
        key = item.key;
        p->split[item.value] = (uint8_t)split_quota_take(&quota, p->size[item.value]);
    }
done:
    free(strata);
    return rc;
}

static err_t make_splits(struct planner *p)
{
    err_t rc = ERR_OK;
    struct runs *runs;
    TRY(runs_open(&runs, p->dir, RUNS_BYTES));
    TRY_DONE(for_each_row(p, count_member, NULL));
    TRY_DONE(for_each_row(p, add_cluster, runs));
    TRY_DONE(runs_sort(runs));
    if (p->options->split_rule == SPLIT_STRATIFIED) TRY_DONE(split_strata(p, runs));
    for (int64_t r = 0; r < p->rank_count; r++) {
        uint8_t *fate = &p->plan->fate[p->by_rank[r]];
        const uint32_t root = find_root(p, (uint32_t)r);
        if (*fate < SPLIT_COUNT) *fate = p->split[root];
        if (root == r || p->size[root] == UINT32_MAX) continue;
        p->counts->duplicates.clusters++;
        p->size[root] = UINT32_MAX; /* counted */
    }
done:
    runs_close(runs);
    return rc;
}

/* ---- the check of the result ---- */

static bool is_held_out(uint8_t fate) { return fate == FATE_VALIDATION || fate == FATE_TEST; }

/* Groups of equal streams with members in training and outside of it. */
static err_t check_exact(struct planner *p)
{
    struct runs_item item;
    uint64_t key = 0;
    int64_t held_out = 0, train = 0;
    bool found = true;
    TRY(runs_rewind(p->exact));
    while (found) {
        TRY(runs_next(p->exact, &item, &found));
        if (!found || item.key != key) {
            p->counts->duplicates.leaked_exact += train > 0 ? held_out : 0;
            held_out = train = 0;
        }
        if (!found) break;
        key = item.key;
        held_out += is_held_out(p->plan->fate[item.value]);
        train += p->plan->fate[item.value] == FATE_TRAIN;
    }
    return ERR_OK;
}

/* Pairs that were alike when compared, one in training and one outside of it. */
static err_t check_alike(struct planner *p)
{
    struct prepare_duplicate_counts *d = &p->counts->duplicates;
    const uint64_t near = (uint64_t)(p->options->near_threshold * 1e9);
    uint8_t *leaked = p->split; /* done with: 1 = alike, 2 = near */
    struct runs_item item;
    bool found;
    memset(leaked, 0, (size_t)p->rank_count);
    TRY(runs_sort(p->alike));
    for (;;) {
        TRY(runs_next(p->alike, &item, &found));
        if (!found) break;
        const uint32_t ranks[2] = { (uint32_t)(item.key >> 32), (uint32_t)item.key };
        for (int i = 0; i < 2; i++)
            if (is_held_out(p->plan->fate[p->by_rank[ranks[i]]]) &&
                p->plan->fate[p->by_rank[ranks[!i]]] == FATE_TRAIN)
                leaked[ranks[i]] = (uint8_t)(item.value >= near ? 2 : max_i64(1, leaked[ranks[i]]));
    }
    for (int64_t r = 0; r < p->rank_count; r++) {
        d->held_out += is_held_out(p->plan->fate[p->by_rank[r]]);
        d->leaked_near += leaked[r] == 2;
        d->leaked_alike += leaked[r] > 0;
    }
    return ERR_OK;
}

/* ---- the whole ---- */

static err_t open_planner(struct planner *p)
{
    const size_t count = (size_t)p->spool->count;
    if (p->spool->count >= UINT32_MAX)
        RAISE(UNSUPPORTED, "%lld dialogues in one run; at most 2^32 - 2",
              (long long)p->spool->count);
    p->plan->count = p->spool->count;
    p->plan->fate = calloc(count, 1);
    p->by_rank = malloc(count * sizeof *p->by_rank);
    p->rank = malloc(count * sizeof *p->rank);
    p->parent = malloc(count * sizeof *p->parent);
    p->size = calloc(count, sizeof *p->size);
    p->split = calloc(count, 1);
    p->equals = calloc(count, 1);
    p->turns = calloc(CORPUS_TURNS_MAX, sizeof *p->turns);
    p->dedup_turns = calloc(CORPUS_TURNS_MAX, sizeof *p->dedup_turns);
    p->rows = calloc(ROWS_AT_ONCE, sizeof *p->rows);
    if (!p->plan->fate || !p->by_rank || !p->rank || !p->parent || !p->size || !p->split ||
        !p->equals || !p->turns || !p->dedup_turns || !p->rows)
        RAISE(NOMEM, "a plan of %lld dialogues", (long long)p->spool->count);
    TRY(runs_open(&p->exact, p->dir, RUNS_BYTES));
    return runs_open(&p->alike, p->dir, RUNS_BYTES);
}

static void close_planner(struct planner *p)
{
    free(p->by_rank);
    free(p->rank);
    free(p->parent);
    free(p->size);
    free(p->split);
    free(p->equals);
    free(p->turns);
    free(p->dedup_turns);
    free(p->rows);
    runs_close(p->exact);
    runs_close(p->alike);
    shingle_set_clear(&p->a.set);
    shingle_set_clear(&p->b.set);
    buf_clear(&p->a.text);
    buf_clear(&p->b.text);
    dedup_work_clear(&p->work);
}

err_t prepare_plan_make(struct prepare_plan *out, struct prepare_counts *counts,
                        const struct prepare_options *o, const struct spool *spool, const char *dir)
{
    err_t rc = ERR_OK;
    struct planner p = { .options = o, .counts = counts, .spool = spool, .dir = dir, .plan = out };
    TRY_DONE(open_planner(&p));
    TRY_DONE(find_exact(&p));
    TRY_DONE(make_ranks(&p));
    if (o->duplicates == DUPLICATES_KEEP) TRY_DONE(join_exact(&p));
    TRY_DONE(find_near(&p));
    TRY_DONE(make_splits(&p));
    TRY_DONE(check_exact(&p));
    TRY_DONE(check_alike(&p));
    counts->duplicates.spilled_runs += runs_spilled(p.exact) + runs_spilled(p.alike);
done:
    close_planner(&p);
    return rc;
}

void prepare_plan_clear(struct prepare_plan *p)
{
    free(p->fate);
    *p = (struct prepare_plan){ 0 };
}

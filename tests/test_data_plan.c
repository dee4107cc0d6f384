/*
 * Which dialogues prepare drops as duplicates, and which share a split, against the definition
 * itself: every pair compared, in memory. Families of dialogues stand in all the ways to one
 * another that a corpus has: equal, equal but for signs, nearly equal, nearly equal to one that
 * goes, of one opening.
 */
#include "testing.h"

#include "prepare_fixture.h"

#include "base/check.h"
#include "base/file.h"
#include "base/num.h"
#include "base/rng.h"
#include "data/dedup.h"
#include "data/prepare_batch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAMILIES    120
#define MEMBERS_MAX (4 * FAMILIES + 40)
#define QUESTION    60  /* characters of the client's turn */
#define REPLY       140 /* of the counsellor's */
#define CHARS       (QUESTION + REPLY)
#define SOURCES     2

struct member {
    char text[2][3 * CHARS + 8]; /* question, reply */
    int64_t source;
    struct dedup_signature sign;
    struct shingle_set set;
    uint8_t hash[8];
    int64_t root;              /* of its cluster: the smallest index, with `parent` links */
    bool is_equal, is_near;    /* to a better one; to a better one that stays */
};

struct corpus_of {
    struct member *m; /* [count] */
    int64_t count;
};

/* ---- texts ---- */

/* A text of its own for each seed, in which characters from..to-1 are another seed's. */
static void fill_text(char *out, int64_t first, int64_t count, uint64_t seed, int64_t from,
                      int64_t to)
{
    for (int64_t i = first; i < first + count; i++) {
        const uint64_t s = i >= from && i < to ? seed + 1000000 + (uint64_t)from : seed;
        const int32_t c = 0x4e00 + (int32_t)(rng_u64(s, RNG_TEST, (uint64_t)i) % 6000);
        const int32_t length = snprintf(out, 4, "%c%c%c", 0xe0 | c >> 12, 0x80 | (c >> 6 & 63),
                                        0x80 | (c & 63));
        assert_int_equal(length, 3);
        out += 3;
    }
    *out = '\0';
}

static struct member *add(struct corpus_of *c, uint64_t seed, int64_t from, int64_t to)
{
    struct member *m = &c->m[c->count++];
    assert_true(c->count <= MEMBERS_MAX);
    *m = (struct member){ .source = (int64_t)(rng_u64(9, RNG_TEST, (uint64_t)c->count) % SOURCES) };
    fill_text(m->text[0], 0, QUESTION, seed, from, to);
    fill_text(m->text[1], QUESTION, REPLY, seed, from, to);
    return m;
}

/* The reply ends with a sign, which no comparison sees. */
static void add_sign(struct member *m) { strcat(m->text[1], "！"); }

/* Another reply to the same question. */
static void other_reply(struct member *m, uint64_t seed)
{
    fill_text(m->text[1], QUESTION, REPLY, seed + 2000000, 0, 0);
}

static void add_family(struct corpus_of *c, uint64_t seed)
{
    switch (seed % 8) {
    case 0: /* alone */
        add(c, seed, 0, 0);
        break;
    case 1: /* one text twice, once with a sign more: equal */
        add(c, seed, 0, 0);
        add_sign(add(c, seed, 0, 0));
        break;
    case 2: /* ten characters others: near */
        add(c, seed, 0, 0);
        add(c, seed, 190, 200);
        break;
    case 3: /* a chain: the ends differ in twenty, which is no longer near */
        add(c, seed, 60, 70);
        add(c, seed, 0, 0);
        add(c, seed, 120, 130);
        break;
    case 4: /* one question, two replies */
        add(c, seed, 0, 0);
        other_reply(add(c, seed, 0, 0), seed);
        break;
    case 5: /* one question, four replies, of which two are equal */
        add(c, seed, 0, 0);
        other_reply(add(c, seed, 0, 0), seed);
        other_reply(add(c, seed, 0, 0), seed + 500000);
        add_sign(add(c, seed, 0, 0));
        break;
    case 6: /* forty near to one, and so to one another: more than are all compared */
        add(c, seed, 0, 0);
        for (int64_t i = 0; i < (seed == 6 ? 40 : 1); i++) add(c, seed, 65 + 3 * i, 67 + 3 * i);
        break;
    default: /* two near to one, and one equal to one of them */
        add(c, seed, 0, 0);
        add(c, seed, 100, 105);
        add(c, seed, 100, 105);
        break;
    }
}

static void write_sources(char list[2 * FILE_PATH_MAX], const struct corpus_of *c)
{
    size_t size = 0;
    for (int64_t s = 0; s < SOURCES; s++) {
        struct buf text = { 0 };
        char name[32];
        snprintf(name, sizeof name, "part%lld.jsonl", (long long)s);
        for (int64_t i = 0; i < c->count; i++)
            if (c->m[i].source == s)
                assert_ok(buf_printf(&text, "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"},"
                                            "{\"role\":\"assistant\",\"content\":\"%s\"}]}\n",
                                     c->m[i].text[0], c->m[i].text[1]));
        const char *path = testing_path(name);
        assert_ok(file_replace(path, text.data, (int64_t)text.size));
        size += (size_t)snprintf(list + size, 2 * FILE_PATH_MAX - size, "%s%s", s ? "," : "", path);
        buf_clear(&text);
    }
}

/* ---- the definition ---- */

static void measure(struct corpus_of *c)
{
    struct dedup_work work = { 0 };
    struct clean_dialogue d = { 0 };
    for (int64_t i = 0; i < c->count; i++) {
        struct member *m = &c->m[i];
        const struct turn_text turns[2] = {
            { ROLE_CLIENT, m->text[0], (int64_t)strlen(m->text[0]) },
            { ROLE_COUNSELLOR, m->text[1], (int64_t)strlen(m->text[1]) },
        };
        const struct dialogue_text dialogue = { .turns = turns, .turn_count = 2 };
        assert_ok(clean_load(&d, &dialogue));
        prepare_hash(m->hash, &d);
        assert_ok(dedup_sign(&m->sign, &work, turns, 2));
        assert_ok(shingle_set_fill(&m->set, &work, turns, 2));
    }
    clean_clear(&d);
    dedup_work_clear(&work);
}

/* The longer first, then the smaller hash, then the source's name. */
static int by_rank(const void *a, const void *b)
{
    const struct member *x = a, *y = b;
    const int hash = memcmp(x->hash, y->hash, 8);
    if (x->sign.chars != y->sign.chars) return x->sign.chars > y->sign.chars ? -1 : 1;
    return hash != 0 ? hash : (x->source > y->source) - (x->source < y->source);
}

static int64_t root_of(const struct corpus_of *c, int64_t i)
{
    while (c->m[i].root != i) i = c->m[i].root;
    return i;
}

static void join(struct corpus_of *c, int64_t a, int64_t b)
{
    const int64_t x = root_of(c, a), y = root_of(c, b);
    c->m[max_i64(x, y)].root = min_i64(x, y);
}

/* Members in the order of their ranks: whether a better one stays is known. */
static void judge(struct corpus_of *c, double threshold, bool drops_near, bool keeps_all)
{
    for (int64_t i = 0; i < c->count; i++) {
        struct member *m = &c->m[i];
        m->root = i;
        m->is_equal = m->is_near = false;
        for (int64_t k = 0; k < i; k++) m->is_equal |= c->m[k].sign.exact == m->sign.exact;
        for (int64_t k = 0; k < i; k++) {
            const struct member *better = &c->m[k];
            if (m->is_equal || better->is_equal) {
                if (keeps_all && better->sign.exact == m->sign.exact) join(c, k, i);
                continue;
            }
            if (shingle_set_jaccard(&m->set, &better->set) < threshold) continue;
            join(c, k, i);
            m->is_near |= !(drops_near && better->is_near);
        }
    }
}

static int64_t count_clusters(const struct corpus_of *c)
{
    int64_t clusters = 0;
    for (int64_t i = 0; i < c->count; i++) {
        bool first = root_of(c, i) != i;
        for (int64_t k = 0; k < i && first; k++)
            first = c->m[k].root == k || root_of(c, k) != root_of(c, i);
        clusters += first;
    }
    return clusters;
}

/* ---- what prepare makes of it ---- */

enum mode { DROP_NEAR, DROP_EXACT, KEEP };
static const char *const mode_settings[] = { "data.duplicates=drop_near",
                                             "data.duplicates=drop_exact", "data.duplicates=keep" };

static bool stays(const struct member *m, enum mode mode)
{
    return mode == KEEP || (!m->is_equal && (mode == DROP_EXACT || !m->is_near));
}

/* The members that stay and no others are there; -1 where a member went. */
static void find_splits(int *split, const struct corpus_of *c, enum mode mode, const char *out)
{
    struct shards *s;
    assert_ok(shards_open(&s, out, true));
    const int64_t written = shards_dialogue_count(s);
    int64_t found = 0;
    bool *taken = calloc((size_t)written, sizeof *taken);
    for (int64_t i = 0; i < c->count; i++) {
        split[i] = -1;
        if (!stays(&c->m[i], mode)) continue;
        for (int64_t d = 0; d < written && split[i] < 0; d++) {
            if (taken[d] || memcmp(shards_dialogue(s, d)->hash, c->m[i].hash, 8) != 0) continue;
            taken[d] = true;
            split[i] = shards_dialogue(s, d)->split;
            found++;
        }
        assert_true(split[i] >= 0);
    }
    assert_int_equal(found, written);
    free(taken);
    shards_close(s);
}

/* Whether two members that stay must have one split: of one cluster, or of one opening with one of
 * its members that stay. */
static void check_together(const struct corpus_of *c, const int *split, bool openings)
{
    for (int64_t i = 0; i < c->count; i++)
        for (int64_t k = 0; k < i; k++) {
            const bool one = root_of(c, i) == root_of(c, k) ||
                             (openings && c->m[i].sign.opening == c->m[k].sign.opening);
            if (one && split[i] >= 0 && split[k] >= 0) assert_int_equal(split[i], split[k]);
        }
}

static int64_t count_openings(const struct corpus_of *c, const int *split)
{
    int64_t shared = 0;
    for (int64_t i = 0; i < c->count; i++) {
        bool other = false;
        for (int64_t k = 0; k < c->count && split[i] >= 0; k++)
            other |= k != i && split[k] >= 0 && c->m[k].sign.opening == c->m[i].sign.opening;
        shared += other;
    }
    return shared;
}

/* Whole characters of the beginning of a first turn, which is longer. */
static void check_example(const struct corpus_of *c, const char *text)
{
    const size_t size = (CLEAN_SNIPPET_MAX - 1) / 3 * 3;
    bool found = false;
    assert_int_equal(strlen(text), size);
    for (int64_t i = 0; i < c->count; i++) found |= memcmp(c->m[i].text[0], text, size) == 0;
    assert_true(found);
}

static void check_mode(struct corpus_of *c, const char *sources, enum mode mode, bool openings)
{
    static struct prepare_counts counts;
    int split[MEMBERS_MAX];
    int64_t equal = 0, near = 0, held_out = 0;
    const char *const settings[] = { mode_settings[mode],
                                     openings ? "data.openings=together" : "data.openings=apart",
                                     "data.validation_permyriad=1000",
                                     "data.test_permyriad=1000",
                                     "data.replace=true",
                                     NULL };
    const char *out = testing_path("plan");
    judge(c, 0.8, mode == DROP_NEAR, mode == KEEP);
    assert_ok(prepare_with(&counts, sources, out, settings));
    find_splits(split, c, mode, out);
    check_together(c, split, openings);
    for (int64_t i = 0; i < c->count; i++) {
        equal += c->m[i].is_equal;
        near += c->m[i].is_near;
        held_out += split[i] > SPLIT_TRAIN;
    }
    assert_true(equal > 30 && near > 40 && held_out > 20);
    assert_int_equal(counts.duplicates.exact, equal);
    assert_int_equal(counts.duplicates.near, near);
    assert_int_equal(counts.duplicates.clusters, count_clusters(c));
    assert_int_equal(counts.duplicates.same_opening, count_openings(c, split));
    assert_int_equal(counts.duplicates.held_out, held_out);
    assert_int_equal(counts.duplicates.leaked_exact, 0);
    assert_int_equal(counts.duplicates.leaked_near, 0);
    assert_int_equal(counts.duplicates.example_count, PREPARE_EXAMPLES_MAX);
    for (int64_t i = 0; i < PREPARE_EXAMPLES_MAX; i++) {
        check_example(c, counts.duplicates.example[i].kept);
        check_example(c, counts.duplicates.example[i].other);
    }
}

static struct corpus_of make_corpus(void)
{
    struct corpus_of c = { .m = calloc(MEMBERS_MAX, sizeof *c.m) };
    assert_non_null(c.m);
    for (uint64_t seed = 0; seed < FAMILIES; seed++) add_family(&c, seed);
    measure(&c);
    qsort(c.m, (size_t)c.count, sizeof *c.m, by_rank);
    return c;
}

static void clear_corpus(struct corpus_of *c)
{
    for (int64_t i = 0; i < c->count; i++) shingle_set_clear(&c->m[i].set);
    free(c->m);
}

static void test_every_pair(void **state)
{
    (void)state;
    char sources[2 * FILE_PATH_MAX];
    struct corpus_of c = make_corpus();
    write_sources(sources, &c);
    for (int mode = DROP_NEAR; mode <= KEEP; mode++)
        for (int openings = 0; openings < 2; openings++)
            check_mode(&c, sources, (enum mode)mode, openings);
    clear_corpus(&c);
}

/* At the threshold they are near, by the smallest step beyond it they are not. */
static void test_threshold(void **state)
{
    (void)state;
    static struct prepare_counts counts;
    char sources[2 * FILE_PATH_MAX];
    struct corpus_of c = { .m = calloc(MEMBERS_MAX, sizeof *c.m) };
    add(&c, 1, 0, 0)->source = 0;
    add(&c, 1, 100, 110)->source = 1;
    measure(&c);
    write_sources(sources, &c);
    const double similarity = shingle_set_jaccard(&c.m[0].set, &c.m[1].set);
    assert_true(similarity > 0.8 && similarity < 0.9);
    for (int beyond = 0; beyond < 2; beyond++) {
        char setting[64];
        snprintf(setting, sizeof setting, "data.near_threshold=%.17g",
                 beyond ? nextafter(similarity, 1) : similarity);
        const char *const settings[] = { setting, "data.replace=true", NULL };
        assert_ok(prepare_with(&counts, sources, testing_path("threshold"), settings));
        assert_int_equal(counts.duplicates.compared, 1);
        assert_int_equal(counts.duplicates.near, !beyond);
        assert_int_equal(counts.dialogues, 1 + beyond);
    }
    clear_corpus(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair),
        cmocka_unit_test(test_threshold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

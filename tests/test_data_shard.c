/* Shards: what is written comes back, a directory appears whole or not at all, damage is found. */
#include "batch_fixture.h"
#include "testing.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/file.h"
#include "data/shard.h"
#include "data/shard_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A missing special token and a seed of 64 bits come back as well. */
static struct shard_info make_info(void)
{
    struct shard_info info = fixture_info(TOK_CHATGLM);
    info.specials.eos = -1;
    info.split_seed = 0x123456789abcdef0u;
    return info;
}

/* Token k of run `kind` of a turn: a value that tells where it belongs. */
static int32_t token(int64_t dialogue, int64_t turn, int64_t kind, int64_t k)
{
    return (int32_t)((dialogue * 31 + turn * 7 + kind * 3 + k) % 900);
}

static int32_t run_len(int64_t dialogue, int64_t turn, int64_t kind)
{
    return (int32_t)(1 + (dialogue * 5 + turn * 3 + kind * 11) % 40);
}

static int64_t turn_count(int64_t dialogue) { return 2 + dialogue % 5; }
static bool has_first(int64_t dialogue, int64_t turn) { return (dialogue + turn) % 3 == 0; }

static void fill(int32_t *run, int64_t dialogue, int64_t turn, int64_t kind)
{
    for (int64_t k = 0; k < run_len(dialogue, turn, kind); k++)
        run[k] = token(dialogue, turn, kind, k);
}

static void add_dialogue(struct shard_writer *w, int64_t d)
{
    int32_t ids[8][3][40];
    struct turn_runs turns[8];
    uint8_t hash[8];
    char topic[32], source[32];
    for (int64_t t = 0; t < turn_count(d); t++) {
        for (int kind = 0; kind < 3; kind++) fill(ids[t][kind], d, t, kind);
        turns[t] = (struct turn_runs){
            .role = t % 2 ? ROLE_COUNSELLOR : ROLE_CLIENT,
            .ctx = ids[t][0],
            .ctx_len = run_len(d, t, 0),
            .first = has_first(d, t) ? ids[t][1] : NULL,
            .first_len = run_len(d, t, 1),
            .target = t % 2 ? ids[t][2] : NULL,
            .target_len = run_len(d, t, 2),
        };
    }
    memset(hash, (int)d, sizeof hash);
    snprintf(topic, sizeof topic, "topic %d", (int)(d % 4));
    snprintf(source, sizeof source, "source-%d.json", (int)(d % 2));
    assert_ok(shard_writer_add(w, turns, turn_count(d), (enum split)(d % 3), source, topic, hash));
}

static struct shard_writer *begin(const char *dir, int64_t tokens_per_shard, bool replace)
{
    struct shard_writer *w;
    const struct shard_info info = make_info();
    const struct shard_writer_spec spec = { .tokens_per_shard = tokens_per_shard,
                                            .replace = replace };
    assert_ok(shard_writer_open(&w, dir, &info, &spec));
    assert_ok(shard_writer_source(w, "source-0.json", "CC0-1.0", "someone"));
    return w;
}

static void write_corpus(const char *dir, int64_t dialogues, int64_t tokens_per_shard)
{
    struct shard_writer *w = begin(dir, tokens_per_shard, false);
    for (int64_t d = 0; d < dialogues; d++) add_dialogue(w, d);
    assert_ok(shard_writer_commit(w, "{\"note\":\"a test\"}"));
    shard_writer_close(w);
}

static void check_run(struct shards *s, int64_t d, int64_t t, int64_t kind, int64_t offset,
                      int64_t len)
{
    int32_t got[40];
    assert_int_equal(len, run_len(d, t, kind));
    assert_ok(shards_tokens(s, got, d, offset, len));
    for (int64_t k = 0; k < len; k++) assert_int_equal(got[k], token(d, t, kind, k));
}

static void check_corpus(struct shards *s, int64_t dialogues)
{
    const struct shard_info info = make_info();
    assert_memory_equal(shards_info(s), &info, sizeof info);
    assert_int_equal(shards_dialogue_count(s), dialogues);
    for (int64_t d = 0; d < dialogues; d++) {
        const struct shard_dialogue *row = shards_dialogue(s, d);
        assert_int_equal(row->turn_count, turn_count(d));
        assert_int_equal(row->split, d % 3);
        assert_int_equal(row->hash[7], d & 255);
        assert_int_equal(shards_topic(s, d)[6], '0' + d % 4);
        assert_int_equal(shards_source(s, d)[7], '0' + d % 2);
        for (int64_t t = 0; t < row->turn_count; t++) {
            const struct shard_turn *turn = shards_turn(s, d, t);
            assert_int_equal(turn->role, t % 2 ? ROLE_COUNSELLOR : ROLE_CLIENT);
            check_run(s, d, t, 0, turn->ctx_off, turn->ctx_len);
            assert_int_equal(turn->flags, has_first(d, t) ? TURN_FIRST_STORED : 0);
            if (has_first(d, t))
                check_run(s, d, t, 1, turn->first_off, turn->first_len);
            else
                assert_true(turn->first_off == -1 && turn->first_len == 0);
            if (t % 2)
                check_run(s, d, t, 2, turn->target_off, turn->target_len);
            else
                assert_true(turn->target_off == -1 && turn->target_len == 0);
        }
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    struct shards *s;
    char sha256[2][SHA256_HEX_SIZE];
    for (int i = 0; i < 2; i++) {
        const char *dir = testing_path(i ? "one" : "many");
        write_corpus(dir, 300, i ? 0 : 2000);
        for (int verify = 0; verify < 2; verify++) {
            assert_ok(shards_open(&s, dir, verify));
            check_corpus(s, 300);
            strcpy(sha256[i], shards_sha256(s));
            shards_close(s);
        }
    }
    assert_string_not_equal(sha256[0], sha256[1]);
    assert_true(file_exists(testing_path("many/shard-00012.h5")));
    assert_false(file_exists(testing_path("one/shard-00001.h5")));
    assert_false(dir_exists(testing_path("many.tmp")));
}

/* The same content gives the same bytes: no times, no uninitialised padding. */
static void test_same_bytes(void **state)
{
    (void)state;
    struct buf a = { 0 }, b = { 0 };
    write_corpus(testing_path("same-a"), 50, 0);
    usleep(1100000); /* times in a file would have the resolution of a second */
    write_corpus(testing_path("same-b"), 50, 0);
    assert_ok(file_read_all(&a, testing_path("same-a/shard-00000.h5"), 1 << 20));
    assert_ok(file_read_all(&b, testing_path("same-b/shard-00000.h5"), 1 << 20));
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    buf_clear(&a);
    buf_clear(&b);
}

/* A run longer than a chunk, and rows over several chunks. */
static void test_large(void **state)
{
    (void)state;
    enum { TOKENS = 200000, DIALOGUES = 20000 };
    struct shards *s;
    struct shard_writer *w = begin(testing_path("large"), 0, false);
    int32_t *ids = malloc(TOKENS * sizeof *ids), *got = malloc(TOKENS * sizeof *got);
    for (int64_t i = 0; i < TOKENS; i++) ids[i] = (int32_t)(i * 7919 % FIXTURE_VOCAB);
    const struct turn_runs turns[2] = {
        { .role = ROLE_CLIENT, .ctx = ids, .ctx_len = TOKENS },
        { .role = ROLE_COUNSELLOR, .ctx = ids, .ctx_len = 5, .target = ids, .target_len = 3 },
    };
    assert_ok(shard_writer_add(w, turns, 2, SPLIT_TRAIN, "s", "", (const uint8_t *)"12345678"));
    for (int64_t d = 0; d < DIALOGUES; d++)
        assert_ok(
            shard_writer_add(w, &turns[1], 1, SPLIT_TEST, "s", "", (const uint8_t *)"12345678"));
    assert_ok(shard_writer_commit(w, NULL));
    shard_writer_close(w);

    assert_ok(shards_open(&s, testing_path("large"), true));
    assert_int_equal(shards_dialogue_count(s), 1 + DIALOGUES);
    assert_ok(shards_tokens(s, got, 0, shards_turn(s, 0, 0)->ctx_off, TOKENS));
    assert_memory_equal(got, ids, TOKENS * sizeof *ids);
    assert_ok(shards_tokens(s, got, DIALOGUES, shards_turn(s, DIALOGUES, 0)->target_off, 3));
    assert_memory_equal(got, ids, 3 * sizeof *ids);
    shards_close(s);
    free(ids);
    free(got);
}

static void test_existing_directories(void **state)
{
    (void)state;
    struct shard_writer *w;
    const struct shard_info info = make_info();
    struct shard_writer_spec spec = { 0 };
    struct shards *s;
    write_corpus(testing_path("there"), 3, 0);
    assert_err(shard_writer_open(&w, testing_path("there"), &info, &spec), ARG, "exists");
    spec.replace = true;
    assert_ok(dir_create(testing_path("foreign")));
    assert_err(shard_writer_open(&w, testing_path("foreign"), &info, &spec), ARG,
               "no prepared corpus");
    assert_ok(dir_create(testing_path("mine.tmp")));
    assert_ok(file_replace(testing_path("mine.tmp/thesis.txt"), "x", 1));
    assert_err(shard_writer_open(&w, testing_path("mine"), &info, &spec), ARG, "thesis.txt");
    assert_true(file_exists(testing_path("mine.tmp/thesis.txt")));
    assert_null(w);

    /* Replacing: the old corpus is readable until the new one is there. */
    w = begin(testing_path("there/"), 0, true);
    for (int64_t d = 0; d < 5; d++) add_dialogue(w, d);
    assert_ok(shards_open(&s, testing_path("there"), true));
    assert_int_equal(shards_dialogue_count(s), 3);
    shards_close(s);
    assert_ok(shard_writer_commit(w, NULL));
    shard_writer_close(w);
    assert_ok(shards_open(&s, testing_path("there"), true));
    check_corpus(s, 5);
    shards_close(s);
    assert_false(dir_exists(testing_path("there.tmp")));

    /* What a killed run left behind is no obstacle. */
    assert_ok(dir_create(testing_path("killed.tmp")));
    assert_ok(file_replace(testing_path("killed.tmp/shard-00000.h5.tmp"), "x", 1));
    write_corpus(testing_path("killed"), 3, 0);

    w = begin(testing_path("nothing"), 0, false);
    assert_err(shard_writer_commit(w, NULL), ARG, "no dialogue");
    shard_writer_close(w);
    assert_false(dir_exists(testing_path("nothing.tmp")));
}

/* One attempt to replace the corpus of `dir` by 8 dialogues in as many files. */
static err_t replace_corpus(const char *dir, int fault)
{
    char cause[ERR_TEXT_MAX];
    const int32_t ids[150] = { 1, 2, 3 };
    const struct turn_runs turn = { .role = ROLE_CLIENT, .ctx = ids, .ctx_len = 150 };
    struct shard_writer *w = begin(dir, 200, true);
    err_t rc = ERR_OK;
    fault_arm("", fault);
    for (int64_t d = 0; d < 8 && rc == ERR_OK; d++)
        rc = shard_writer_add(w, &turn, 1, SPLIT_TRAIN, "s", "t", (const uint8_t *)"12345678");
    if (rc == ERR_OK) rc = shard_writer_commit(w, NULL);
    strcpy(cause, err_last()->text);
    shard_writer_close(w);
    if (rc != ERR_OK) assert_string_equal(err_last()->text, cause); /* cleaning up hides nothing */
    return rc;
}

/* The n-th step fails, for every n: the old corpus is there until the new one is, and a failure
 * leaves nothing else. The last steps come after the new corpus took its place: making that
 * durable, and removing the old one. */
static void test_faults(void **state)
{
    (void)state;
    struct shards *s;
    int n = 1, failed = 0;
    for (;; n++) {
        assert_true(n < 1000);
        if (dir_exists(testing_path("faulty"))) assert_ok(dir_remove(testing_path("faulty")));
        write_corpus(testing_path("faulty"), 2, 0);
        const err_t rc = replace_corpus(testing_path("faulty"), n);
        const int hits = fault_hits();
        fault_arm("", 0);
        assert_ok(shards_open(&s, testing_path("faulty"), true));
        const int64_t count = shards_dialogue_count(s);
        shards_close(s);
        failed += rc != ERR_OK;
        assert_true(rc == ERR_OK ? count == 8 : count == 2 || strstr(err_last()->text, "dirsync"));
        if (rc != ERR_OK && count == 2) assert_false(dir_exists(testing_path("faulty.tmp")));
        if (hits < n) break;
    }
    assert_true(failed > 50);
    assert_false(dir_exists(testing_path("faulty.tmp")));
}

/* Change prepared.json by one replacement and expect an error. */
static void expect_prepared(const char *from, const char *to, err_t code, const char *part)
{
    struct buf text = { 0 }, changed = { 0 };
    struct shards *s;
    char path[FILE_PATH_MAX];
    strcpy(path, testing_path("hostile/prepared.json"));
    assert_ok(file_read_all(&text, path, 1 << 20));
    const char *at = strstr(text.data, from);
    assert_non_null(at);
    assert_ok(buf_append(&changed, text.data, (size_t)(at - text.data)));
    assert_ok(buf_puts(&changed, to));
    assert_ok(buf_puts(&changed, at + strlen(from)));
    assert_ok(file_replace(path, changed.data, (int64_t)changed.size));
    testing_assert_code(shards_open(&s, testing_path("hostile"), true), code, part, to, __FILE__,
                        __LINE__);
    shards_close(s);
    assert_ok(file_replace(path, text.data, (int64_t)text.size));
    buf_clear(&text);
    buf_clear(&changed);
}

static void test_hostile_prepared(void **state)
{
    (void)state;
    struct shards *s;
    assert_err(shards_open(&s, testing_path("absent"), true), NOTFOUND, "prepared.json");
    write_corpus(testing_path("hostile"), 30, 500);
    expect_prepared("\"soulchat-prepared\"", "\"other\"", ERR_FORMAT, "soulchat-prepared");
    expect_prepared("\"format_version\": 1", "\"format_version\": 2", ERR_FORMAT, "version 2");
    expect_prepared("shard-00000.h5", "../../x.h5", ERR_FORMAT, "shard-00000.h5");
    expect_prepared("\"turns\": ", "\"turns\": 9", ERR_OK, ""); /* the total is for people */
    expect_prepared("\"bytes\": ", "\"bytes\": 9", ERR_CHECKSUM, "bytes");
    expect_prepared("\"sha256\": \"", "\"sha256\": \"z", ERR_CHECKSUM, "sha256");
    expect_prepared("\"shards\": [", "\"shards\": [],\"x\": [", ERR_FORMAT, "0 shards");
    expect_prepared("{", "[", ERR_FORMAT, "prepared.json");
    assert_int_equal(unlink(testing_path("hostile/shard-00001.h5")), 0);
    assert_err(shards_open(&s, testing_path("hostile"), false), NOTFOUND, "shard-00001.h5");
}

/* Read as a reader would; damage must end in an error or in valid ids, never in a crash. */
static void exercise(struct shard_file *f)
{
    const struct shard_turn *last = &f->turns[f->turn_count - 1];
    int32_t *ids = malloc((size_t)last->ctx_len * sizeof *ids);
    const err_t rc = shard_file_tokens(f, ids, last->ctx_off, last->ctx_len);
    assert_true(rc == ERR_OK || rc == ERR_FORMAT);
    free(ids);
}

/* The plain build takes every byte. Of those, sanitizers take one in seven, so that each part of
 * the file has its turn: opening one costs them a megabyte of shadow. */
#if defined(__SANITIZE_ADDRESS__)
#define FLIP_STEP 7
#else
#define FLIP_STEP 1
#endif

/* Every byte of a small shard flipped: `verify` finds it by the digest; without, never a crash. */
static void test_every_byte(void **state)
{
    (void)state;
    struct buf image = { 0 };
    struct shard_file f;
    struct shards *s;
    char path[FILE_PATH_MAX];
    int64_t opened = 0;
    write_corpus(testing_path("bytes"), 2, 0);
    strcpy(path, testing_path("bytes/shard-00000.h5"));
    assert_ok(file_read_all(&image, path, 65536));
    for (size_t i = 0; i < image.size; i += FLIP_STEP) {
        const char was = image.data[i];
        const uint8_t masks[3] = { 0xff, 0x01, 0x80 };
        image.data[i] = (char)((uint8_t)was ^ masks[i % 3]);
        if (shard_file_open_image(&f, image.data, (int64_t)image.size, "flipped") == ERR_OK) {
            opened++;
            exercise(&f);
            shard_file_close(&f);
        }
        /* The directory way, at some places: it reads and hashes the file. */
        if (i % (64 * FLIP_STEP) == 0) {
            assert_ok(file_replace(path, image.data, (int64_t)image.size));
            assert_err(shards_open(&s, testing_path("bytes"), true), CHECKSUM, "sha256");
        }
        image.data[i] = was;
    }
    printf("%zu bytes; %lld of the flipped files could be opened\n", image.size, (long long)opened);
    for (int64_t size = 0; size < (int64_t)image.size; size += 97) {
        if (size > 0 && shard_file_open_image(&f, image.data, size, "cut") == ERR_OK) {
            exercise(&f);
            shard_file_close(&f);
        }
    }
    buf_clear(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_large),      cmocka_unit_test(test_existing_directories),
        cmocka_unit_test(test_faults),     cmocka_unit_test(test_hostile_prepared),
        cmocka_unit_test(test_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* ckpt.h: what is saved comes back to the bit; nothing that goes wrong harms what was saved before;
 * no damage goes unseen. */
#include "ckpt_fixture.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/digest.h"
#include "base/log.h"
#include "base/num.h"
#include "base/stop.h"
#include "train/ckpt_impl.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct ckpt_keep one = { .last = 1 };

/* ---- damage to a file ---- */

static void damage(const char *dir, const char *name)
{
    char path[FILE_PATH_MAX];
    struct stat st;
    assert_ok(path_join(path, dir, name));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 1), 0);
}

/* ---- saving and loading ---- */

static void assert_same_state(struct ckpt_rig *a, struct ckpt_rig *b)
{
    const struct tensor x = glm_weights(a->glm), y = glm_weights(b->glm);
    assert_memory_equal(x.data, y.data, (size_t)tensor_count(&x) * sizeof(float));
    for (int part = OPTIM_EXP_AVG; part <= OPTIM_EXP_AVG_SQ; part++) {
        int64_t count;
        double *in_a = micro_state(a->optim, (enum optim_part)part, &count);
        double *in_b = micro_state(b->optim, (enum optim_part)part, &count);
        assert_int_equal(count, glm_params(a->glm)->element_count);
        assert_memory_equal(in_a, in_b, (size_t)count * sizeof *in_a);
        free(in_a);
        free(in_b);
    }
}

static void test_round_trip(void **state)
{
    (void)state;
    const struct glm_config config = micro_config();
    struct ckpt_rig a, b;
    struct ckpt_state back;
    int64_t newest = 0;
    const char *dir = ckpt_step_dir("trip", 1200);
    ckpt_rig_open(&a, &config);
    ckpt_rig_open(&b, &config);
    assert_ok(ckpt_newest(&newest, testing_path("trip"), NULL));
    assert_int_equal(newest, -1);
    a.state.updates = 0;
    assert_ok(ckpt_rig_save(&a, "trip", 1200, 3));
    assert_string_equal(ckpt_names_in("trip/step-00001200"),
                        "MANIFEST.json model.0000.safetensors optim.0000.safetensors state.json ");

    assert_ok(ckpt_newest(&newest, testing_path("trip"), NULL));
    assert_int_equal(newest, 1200);
    assert_ok(ckpt_load(dir, &b.state.formats, b.optim, NULL));
    assert_same_state(&a, &b);

    char text[128];
    assert_ok(ckpt_state_read(&back, dir));
    assert_int_equal(back.step, 1200);
    assert_int_equal(back.updates, 1200);
    assert_int_equal(back.samples, 96000);
    assert_int_equal(back.stream_index, 96000);
    assert_int_equal(back.lanes, 1);
    assert_int_equal(back.seed, 42);
    assert_string_equal(back.program, SOULCHAT_VERSION);
    assert_string_equal(back.corpus_sha256, a.state.corpus_sha256);
    assert_string_equal(back.tokenizer_dir, "models/chatglm");
    assert_string_equal(back.settings.data, a.state.settings.data);
    assert_string_equal(back.tuning.data, a.state.tuning.data);
    assert_null(glm_config_difference(&back.model, &config, text, sizeof text));
    ckpt_state_clear(&back);

    /* The same state has the same bytes, wherever and however often it is saved. */
    assert_ok(ckpt_rig_save(&a, "again", 1200, 3));
    ckpt_assert_same(ckpt_step_dir("trip", 1200), ckpt_step_dir("again", 1200));
    assert_ok(ckpt_rig_save(&a, "again", 1200, 3));
    ckpt_assert_same(ckpt_step_dir("trip", 1200), ckpt_step_dir("again", 1200));
    assert_string_equal(ckpt_names_in("again"), "step-00001200 ");
    ckpt_rig_close(&a);
    ckpt_rig_close(&b);
}

/* However the arenas are padded, a state has one set of ckpt_files, and every padding can load it.
 */
static void check_layouts(enum optim_moments moments)
{
    static const int64_t paddings[][2] = { { 1, 1 }, { 3, 1 }, { 4, 1 }, { 1, 64 }, { 3, 64 } };
    const struct glm_config config = micro_config();
    char root[COUNT_OF(paddings)][16];
    for (int64_t i = 0; i < COUNT_OF(paddings); i++) {
        struct ckpt_rig from, to;
        const int64_t *next = paddings[(i + 1) % COUNT_OF(paddings)];
        snprintf(root[i], sizeof root[i], "layout%d-%d", (int)i, (int)moments);
        ckpt_rig_open_padded(&from, &config, moments, paddings[i][0], paddings[i][1]);
        assert_ok(ckpt_rig_save(&from, root[i], 7, 1));
        ckpt_assert_same(ckpt_step_dir(root[0], 7), ckpt_step_dir(root[i], 7));

        ckpt_rig_open_padded(&to, &config, moments, next[0], next[1]);
        assert_ok(ckpt_load(ckpt_step_dir(root[i], 7), &to.state.formats, to.optim, NULL));
        assert_ok(ckpt_save(testing_path("relaid"), &from.state, to.optim, &one, NULL));
        ckpt_assert_same(ckpt_step_dir(root[0], 7), ckpt_step_dir("relaid", 7));
        ckpt_rig_close(&from);
        ckpt_rig_close(&to);
    }
}

static void test_layouts_share_one_format(void **state)
{
    (void)state;
    check_layouts(OPTIM_MOMENTS_F32);
    check_layouts(OPTIM_MOMENTS_8BIT);
}

static void test_load_into_another_model(void **state)
{
    (void)state;
    struct glm_config config = grain_config();
    struct ckpt_rig r, other;
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "other", 1, 1));
    config.ffn_size = 16;
    ckpt_rig_open(&other, &config);
    assert_err(ckpt_load(ckpt_step_dir("other", 1), &other.state.formats, other.optim, NULL),
               FORMAT, "is f32 [8, 8]");
    ckpt_rig_close(&other);
    config = grain_config();
    config.layer_count = 2;
    ckpt_rig_open(&other, &config);
    assert_err(ckpt_load(ckpt_step_dir("other", 1), &other.state.formats, other.optim, NULL),
               FORMAT, "has no tensor transformer.layers.1.");
    assert_err(ckpt_load(testing_path("other"), &other.state.formats, other.optim, NULL), NOTFOUND,
               "model.0000");
    assert_ok(ckpt_rig_save(&other, "two", 1, 1));
    assert_err(ckpt_load(ckpt_step_dir("two", 1), &r.state.formats, r.optim, NULL), FORMAT,
               "tensors; this model has");
    ckpt_rig_close(&other);
    ckpt_rig_close(&r);
}

/* The published model: every row is in one file, none is above the limit. */
static void test_parts_of_the_published_model(void **state)
{
    (void)state;
    struct glm_params params;
    assert_ok(glm_params_create(&params, &glm_chatglm_6b));
    int64_t files_count = 0, total = 0;
    for (int64_t first = 0, end; first < params.count; first = end, files_count++) {
        int64_t bytes = 0;
        end = ckpt_part_end(&params, first);
        assert_true(end > first && end <= params.count);
        for (int64_t i = first; i < end; i++) bytes += 4 * params.row[i].count;
        assert_true(bytes <= CKPT_PART_BYTES_MAX || end == first + 1);
        if (end < params.count)
            assert_true(bytes + 4 * params.row[end].count > CKPT_PART_BYTES_MAX);
        total += bytes;
    }
    assert_int_equal(total, 4 * params.element_count);
    assert_int_equal(files_count, 13); /* 2.14 GB of embedding alone, then 22.5 GB */
    glm_params_clear(&params);
}

/* A file that is exactly as large as it may be is not cut. */
static void test_part_that_is_full(void **state)
{
    (void)state;
    struct glm_param row[3] = { { .count = CKPT_PART_BYTES_MAX / 8 },
                                { .count = CKPT_PART_BYTES_MAX / 8 },
                                { .count = 1 } };
    const struct glm_params params = { .count = 3, .row = row };
    assert_int_equal(ckpt_part_end(&params, 0), 2);
    row[1].count++;
    assert_int_equal(ckpt_part_end(&params, 0), 1);
    assert_int_equal(ckpt_part_end(&params, 1), 3);
}

/* A file has a sum for each block, the last of which may be short. */
static void test_sums_of_blocks(void **state)
{
    (void)state;
    static const int64_t sizes[] = { 0, 1, CKPT_BLOCK_BYTES, CKPT_BLOCK_BYTES + 1,
                                     2 * CKPT_BLOCK_BYTES };
    static const int64_t blocks[] = { 0, 1, 1, 2, 2 };
    uint8_t *bytes = malloc((size_t)(2 * CKPT_BLOCK_BYTES));
    assert_non_null(bytes);
    for (int64_t i = 0; i < 2 * CKPT_BLOCK_BYTES; i++) bytes[i] = (uint8_t)(i * 7 + i / 4096);
    for (int64_t k = 0; k < COUNT_OF(sizes); k++) {
        struct ckpt_manifest m = { .step = 1 };
        assert_ok(file_replace(testing_path("blocks"), bytes, sizes[k]));
        assert_ok(ckpt_manifest_measure(&m, testing_dir(), "blocks"));
        assert_int_equal(m.file[0].bytes, sizes[k]);
        assert_int_equal(m.file[0].block_count, blocks[k]);
        for (int64_t i = 0; i < blocks[k]; i++) {
            const int64_t first = i * CKPT_BLOCK_BYTES;
            const int64_t size = min_i64(CKPT_BLOCK_BYTES, sizes[k] - first);
            assert_int_equal(m.file[0].crc32c[i], crc32c(0, bytes + first, (size_t)size));
        }
        ckpt_manifest_clear(&m);
    }
    free(bytes);
}

/* ---- failures ---- */

static bool has_leftover(const char *root) { return strstr(ckpt_names_in(root), ".tmp") != NULL; }

/* Whether the checkpoint of this very state is in place. */
static bool is_published(const struct ckpt_rig *r, const char *root)
{
    struct ckpt_state saved;
    const err_t rc = ckpt_state_read(&saved, ckpt_step_dir(root, r->state.step));
    const bool same = rc == ERR_OK && saved.samples == r->state.samples;
    ckpt_state_clear(&saved);
    return same;
}

/* Every step of a save fails once. `resave`: over a checkpoint of the same step. */
static void check_faults(const char *root, bool resave)
{
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    const int64_t step = resave ? 1 : 2;
    bool done = false;
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "reference", 1, 1));
    for (int n = 1; !done; n++) {
        assert_ok(dir_remove(testing_path(root)));
        assert_ok(ckpt_rig_save(&r, root, 1, 1));
        ckpt_rig_set(&r, step);
        if (resave) r.state.samples++; /* to tell new from old */
        fault_arm("", n);
        const err_t rc = ckpt_save(testing_path(root), &r.state, r.optim, &one, NULL);
        done = fault_hits() < n;
        fault_arm("", 0);

        if (rc != ERR_OK) {
            /* A buffer that cannot grow is out of memory; everything else names the fault. */
            if (rc != ERR_NOMEM) assert_err(rc, IO, "injected fault at");
            assert_ok(ckpt_verify(ckpt_step_dir(root, 1)));
            if (!resave) ckpt_assert_same(ckpt_step_dir(root, 1), ckpt_step_dir("reference", 1));
        } else {
            assert_ok(ckpt_verify(ckpt_step_dir(root, step)));
        }
        /* What it replaced is left where the last fsync or the pruning failed, not before. */
        if (!is_published(&r, root)) assert_false(has_leftover(root));
        if (done) {
            assert_int_equal(rc, ERR_OK);
            assert_string_equal(ckpt_names_in(root), resave ? "step-00000001 " : "step-00000002 ");
            assert_true(n > 20); /* else this loop failed nothing */
        }
        /* Whatever happened, the next save succeeds and cleans up. */
        assert_ok(ckpt_rig_save(&r, root, 3, 1));
        assert_string_equal(ckpt_names_in(root), "step-00000003 ");
    }
    ckpt_rig_close(&r);
}

static void test_every_step_fails_once(void **state)
{
    (void)state;
    check_faults("faulty", false);
    check_faults("faulty-again", true);
}

/* A limit on the size of files: the operating system itself refuses to write on. */
static void test_write_refused(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    struct rlimit before, tight;
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "refused", 1, 1));
    assert_ok(ckpt_rig_save(&r, "kept", 1, 1));
    getrlimit(RLIMIT_FSIZE, &before);
    tight = before;
    tight.rlim_cur = 3000;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &tight);
    const err_t rc = ckpt_rig_save(&r, "refused", 2, 1);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_err(rc, IO, "step-00000002.tmp/model.0000.safetensors");
    assert_string_equal(ckpt_names_in("refused"), "step-00000001 ");
    ckpt_assert_same(ckpt_step_dir("refused", 1), ckpt_step_dir("kept", 1));
    ckpt_rig_close(&r);
}

static void test_file_in_the_way(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    ckpt_rig_open(&r, &config);
    assert_ok(dir_create(testing_path("way")));
    assert_ok(file_replace(ckpt_step_dir("way", 2), "x", 1));
    assert_err(ckpt_rig_save(&r, "way", 2, 1), IO, "step-00000002");
    assert_string_equal(ckpt_names_in("way"), "step-00000002 ");
    assert_err(ckpt_rig_save(&r, "way/step-00000002", 1, 1), IO, "a file of this name");
    ckpt_rig_close(&r);
}

/* ---- damage ---- */

/* Change one byte in place, verify, restore. */
static void flip(const char *path, int64_t at, char mask, char was, const char *dir)
{
    FILE *f = fopen(path, "r+b");
    const char flipped = (char)(was ^ mask);
    assert_non_null(f);
    assert_int_equal(pwrite(fileno(f), &flipped, 1, at), 1);
    const err_t rc = ckpt_verify(dir);
    if (rc == ERR_OK) fail_msg("%s: byte %lld ^ %#x goes unseen", path, (long long)at, mask & 255);
    assert_true(rc == ERR_FORMAT || rc == ERR_CHECKSUM || rc == ERR_NOTFOUND ||
                rc == ERR_UNSUPPORTED);
    assert_int_equal(pwrite(fileno(f), &was, 1, at), 1);
    fclose(f);
}

static void test_every_byte_flipped(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "flip", 7, 1));
    const char *dir = ckpt_step_dir("flip", 7);
    for (int64_t i = 0; i < COUNT_OF(ckpt_files); i++) {
        struct buf text = { 0 };
        char path[FILE_PATH_MAX];
        const bool is_manifest = i == 0; /* no digest covers it: try every bit */
        assert_ok(path_join(path, dir, ckpt_files[i]));
        ckpt_read_file(&text, dir, ckpt_files[i]);
        for (int64_t at = 0; at < (int64_t)text.size; at++)
            for (int bit = 0; bit < (is_manifest ? 8 : 1); bit++)
                flip(path, at, (char)(1 << (is_manifest ? bit : at % 8)), text.data[at], dir);
        buf_clear(&text);
    }
    assert_ok(ckpt_verify(dir));
    ckpt_rig_close(&r);
}

/* Files that are large enough for several threads: the first damaged one is named, each time. */
static void test_large_files(void **state)
{
    (void)state;
    struct glm_config config = grain_config();
    struct ckpt_rig r;
    config.vocab_size = 80000;
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "large", 7, 1));
    const char *dir = ckpt_step_dir("large", 7);
    assert_ok(ckpt_verify(dir));
    damage(dir, "state.json");
    assert_err(ckpt_verify(dir), FORMAT, "state.json");
    damage(dir, "model.0000.safetensors");
    damage(dir, "optim.0000.safetensors");
    for (int i = 0; i < 20; i++) assert_err(ckpt_verify(dir), FORMAT, "model.0000.safetensors");
    ckpt_rig_close(&r);
}

static void test_every_length(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "cut", 7, 1));
    const char *dir = ckpt_step_dir("cut", 7);
    for (int64_t i = 0; i < COUNT_OF(ckpt_files); i++) {
        struct buf text = { 0 };
        char path[FILE_PATH_MAX];
        assert_ok(path_join(path, dir, ckpt_files[i]));
        ckpt_read_file(&text, dir, ckpt_files[i]);
        /* The manifest's last newline carries nothing. */
        const int64_t whole = (int64_t)text.size - (i == 0 ? 1 : 0);
        for (int64_t size = whole - 1; size >= 0; size -= 1 + size / 64) {
            assert_int_equal(truncate(path, size), 0);
            assert_err(ckpt_verify(dir), FORMAT, ckpt_files[i]);
        }
        assert_int_equal(unlink(path), 0);
        assert_err(ckpt_verify(dir), NOTFOUND, ckpt_files[i]);
        assert_ok(file_replace(path, text.data, (int64_t)text.size));
        assert_ok(ckpt_verify(dir));
        buf_clear(&text);
    }
    ckpt_rig_close(&r);
}

static void test_step_of_another_state(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    struct ckpt_manifest m = { .step = 8 };
    struct buf text = { 0 };
    char path[FILE_PATH_MAX];
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "step", 7, 1));
    for (int64_t i = 1; i < COUNT_OF(ckpt_files); i++)
        assert_ok(ckpt_manifest_measure(&m, ckpt_step_dir("step", 7), ckpt_files[i]));
    assert_ok(ckpt_manifest_write(&text, &m));
    assert_ok(path_join(path, ckpt_step_dir("step", 7), "MANIFEST.json"));
    assert_ok(file_replace(path, text.data, (int64_t)text.size));
    assert_err(ckpt_verify(ckpt_step_dir("step", 7)), FORMAT, "step 7; its manifest says 8");
    ckpt_manifest_clear(&m);
    buf_clear(&text);
    ckpt_rig_close(&r);
}

/* ---- which one ---- */

static void assert_newest(const char *root, int64_t step)
{
    int64_t newest;
    assert_ok(ckpt_newest(&newest, testing_path(root), NULL));
    assert_int_equal(newest, step);
}

static void test_newest(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    int64_t newest;
    ckpt_rig_open(&r, &config);
    for (int64_t step = 8; step <= 12; step += 2) assert_ok(ckpt_rig_save(&r, "newest", step, 9));
    const char *const others[] = { "newest/step-13",  "newest/step-00000014.tmp",
                                   "newest/step-",    "newest/step-00000015x",
                                   "newest/stepping", "newest/step-99999999999999999999999" };
    for (int64_t i = 0; i < COUNT_OF(others); i++) assert_ok(dir_create(testing_path(others[i])));
    assert_newest("newest", 12);
    damage(ckpt_step_dir("newest", 12), "optim.0000.safetensors");
    assert_newest("newest", 10);
    assert_ok(dir_remove(ckpt_step_dir("newest", 10)));
    assert_ok(dir_create(ckpt_step_dir("newest", 10))); /* empty */
    assert_newest("newest", 8);
    damage(ckpt_step_dir("newest", 8), "state.json");
    assert_err(ckpt_newest(&newest, testing_path("newest"), NULL), FORMAT,
               "none of its 3 checkpoints is whole");
    ckpt_rig_close(&r);
}

/* What the machine cannot do at present is no damage: neither an older checkpoint nor none at all
 * is taken instead. */
static void test_newest_out_of_reach(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    int64_t newest;
    char path[FILE_PATH_MAX];
    ckpt_rig_open(&r, &config);
    for (int64_t step = 1; step <= 2; step++) assert_ok(ckpt_rig_save(&r, "reach", step, 9));
    fault_arm("file.read", 1);
    const err_t rc = ckpt_newest(&newest, testing_path("reach"), NULL);
    fault_arm("", 0);
    assert_err(rc, IO, "injected fault at file.read");
    assert_newest("reach", 2);

    for (int64_t i = 0; i < COUNT_OF(ckpt_files); i++) { /* a loop: open and stat fail */
        char aside[FILE_PATH_MAX];
        assert_ok(path_join(path, ckpt_step_dir("reach", 2), ckpt_files[i]));
        assert_ok(path_join(aside, testing_path("reach"), "aside"));
        assert_int_equal(rename(path, aside), 0);
        assert_int_equal(symlink(path, path), 0);
        assert_err(ckpt_newest(&newest, testing_path("reach"), NULL), IO, "symbolic links");
        assert_non_null(strstr(err_last()->text, "to resume from an older one, move it away"));
        assert_int_equal(rename(aside, path), 0);
        assert_newest("reach", 2);
    }
    assert_ok(ckpt_path(path, testing_path("reach"), 3));
    assert_int_equal(symlink(path, path), 0);
    assert_err(ckpt_newest(&newest, testing_path("reach"), NULL), IO, "symbolic links");
    ckpt_rig_close(&r);
}

static void test_other_versions(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    struct buf text = { 0 };
    struct ckpt_state parsed;
    char path[FILE_PATH_MAX];
    int64_t newest;
    ckpt_rig_open(&r, &config);
    for (int64_t step = 1; step <= 2; step++) assert_ok(ckpt_rig_save(&r, "version", step, 9));
    assert_ok(path_join(path, ckpt_step_dir("version", 2), "MANIFEST.json"));
    assert_ok(file_read_all(&text, path, 1 << 20));
    *(strstr(text.data, "\"version\": 1") + 11) = '2';
    assert_ok(file_replace(path, text.data, (int64_t)text.size));
    assert_err(ckpt_newest(&newest, testing_path("version"), NULL), UNSUPPORTED, "version 2");

    buf_reset(&text);
    ckpt_read_file(&text, ckpt_step_dir("version", 1), "state.json");
    *(strstr(text.data, "\"sampler_version\": 1") + 19) = '7';
    assert_err(ckpt_state_parse(&parsed, text.data, (int64_t)text.size, "s"), UNSUPPORTED,
               "sampler_version 7");
    ckpt_state_clear(&parsed);
    buf_clear(&text);
    ckpt_rig_close(&r);
}

static void test_pruning(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    ckpt_rig_open(&r, &config);
    for (int64_t step = 1; step <= 5; step++) assert_ok(ckpt_rig_save(&r, "prune", step, 2));
    assert_string_equal(ckpt_names_in("prune"), "step-00000004 step-00000005 ");

    /* A killed program's leftovers go; what is not ours stays. */
    assert_ok(dir_create(testing_path("prune/step-00000009.tmp/deep")));
    assert_ok(dir_create(testing_path("prune/best")));
    assert_ok(file_replace(testing_path("prune/step-00000003"), "x", 1));
    assert_ok(file_replace(testing_path("prune/step-notes.tmp"), "x", 1));
    for (int64_t step = 6; step <= 7; step++) assert_ok(ckpt_rig_save(&r, "prune", step, 2));
    assert_string_equal(ckpt_names_in("prune"),
                        "best step-00000003 step-00000006 step-00000007 step-notes.tmp ");
    assert_int_equal(unlink(testing_path("prune/step-00000003")), 0);
    assert_int_equal(unlink(testing_path("prune/step-notes.tmp")), 0);
    assert_ok(dir_remove(ckpt_step_dir("prune", 7)));

    /* A newer one that was passed over must not push out what is saved now. */
    assert_ok(ckpt_rig_save(&r, "prune", 20, 2));
    damage(ckpt_step_dir("prune", 20), "model.0000.safetensors");
    assert_newest("prune", 6);
    assert_ok(ckpt_rig_save(&r, "prune", 7, 1));
    assert_string_equal(ckpt_names_in("prune"), "best step-00000007 step-00000020 ");
    assert_newest("prune", 7);
    assert_ok(ckpt_rig_save(&r, "prune", 20, 1)); /* takes its place */
    assert_string_equal(ckpt_names_in("prune"), "best step-00000020 ");
    assert_ok(ckpt_verify(ckpt_step_dir("prune", 20)));
    ckpt_rig_close(&r);
}

/* ---- hostile texts ---- */

static void assert_bad_manifest(const char *files_text, const char *part)
{
    struct ckpt_manifest m;
    struct buf text = { 0 };
    assert_ok(buf_printf(&text, "{\"version\":1,\"step\":3,\"files\":%s}", files_text));
    assert_err(ckpt_manifest_parse(&m, text.data, (int64_t)text.size, "M"), FORMAT, part);
    ckpt_manifest_clear(&m);
    buf_clear(&text);
}

#define DIGEST "\"sha256\":\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\""
#define STATE  "\"state.json\":{\"bytes\":1," DIGEST ",\"crc32c\":[5]}"

static void test_bad_manifests(void **state)
{
    (void)state;
    struct ckpt_manifest m;
    const char good[] = "{\"version\":1,\"step\":3,\"files\":{" STATE "}}";
    assert_ok(ckpt_manifest_parse(&m, good, sizeof good - 1, "M"));
    assert_int_equal(m.file_count, 1);
    assert_int_equal(m.file[0].crc32c[0], 5);
    ckpt_manifest_clear(&m);
    assert_bad_manifest("{}", "without state.json");
    assert_bad_manifest("[1]", "without state.json");
    assert_bad_manifest("{" STATE ",\"../x\":{\"bytes\":0," DIGEST ",\"crc32c\":[]}}", "\"../x\"");
    assert_bad_manifest("{" STATE ",\".x\":{\"bytes\":0," DIGEST ",\"crc32c\":[]}}", "\".x\"");
    assert_bad_manifest("{" STATE ",\"\":{\"bytes\":0," DIGEST ",\"crc32c\":[]}}", "no name");
    assert_bad_manifest("{" STATE ",\"x\":7}", "x: Expected object");
    assert_bad_manifest("{" STATE ",\"x\":{\"bytes\":-1," DIGEST ",\"crc32c\":[]}}", "bytes -1");
    assert_bad_manifest("{" STATE ",\"x\":{\"bytes\":0,\"sha256\":\"0\",\"crc32c\":[]}}", "sha256");
    assert_bad_manifest("{" STATE ",\"x\":{\"bytes\":1," DIGEST ",\"crc32c\":[]}}", "1 numbers");
    assert_bad_manifest("{" STATE ",\"x\":{\"bytes\":9223372036854775807," DIGEST
                        ",\"crc32c\":[1]}}",
                        "549755813888 numbers");
    assert_bad_manifest("{" STATE ",\"x\":{\"bytes\":1," DIGEST ",\"crc32c\":[4294967296]}}",
                        "crc32c[0]");
    assert_bad_manifest("{" STATE ",\"x\":{\"bytes\":1," DIGEST ",\"crc32c\":[0.5]}}", "crc32c[0]");
    assert_bad_manifest("{" STATE ",\"x\":{\"bytes\":1," DIGEST ",\"crc32c\":[1],\"y\":1}}", "x: ");
}

/* state.json with one piece of its text replaced. */
static void assert_bad_state(const struct buf *good, const char *piece, const char *other,
                             const char *part)
{
    struct ckpt_state s;
    struct buf text = { 0 };
    const char *at = strstr(good->data, piece);
    assert_non_null(at);
    assert_ok(buf_append(&text, good->data, (size_t)(at - good->data)));
    assert_ok(buf_puts(&text, other));
    assert_ok(buf_puts(&text, at + strlen(piece)));
    assert_err(ckpt_state_parse(&s, text.data, (int64_t)text.size, "S"), FORMAT, part);
    ckpt_state_clear(&s);
    buf_clear(&text);
}

static void test_bad_states(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    struct buf good = { 0 };
    ckpt_rig_open(&r, &config);
    ckpt_rig_set(&r, 3);
    assert_ok(ckpt_state_write(&good, &r.state));
    assert_bad_state(&good, "\"version\": 1", "\"version\": \"1\"", "version is missing");
    assert_bad_state(&good, "\"step\": 3", "\"step\": -3", "step is -3");
    assert_bad_state(&good, "\"step\": 3", "\"step\": 2", "updates is 3; expected 0 to 2");
    assert_bad_state(&good, "\"step\": 3", "\"step\": 3.0", "S: ");
    assert_bad_state(&good, "\"step\": 3", "\"step\": 99999999999999999999", "S: ");
    assert_bad_state(&good, "\"step\": 3", "\"step\": 3, \"step\": 3", "duplicate");
    assert_bad_state(&good, "\"lanes\": 1", "\"lanes\": 0", "lanes is 0");
    assert_bad_state(&good, "\"crc32c\": 0", "\"crc32c\": 4294967296", "crc32c is 4294967296");
    assert_bad_state(&good, "\"seed\": 42", "\"seed\": 42, \"more\": 1", "S: ");
    assert_bad_state(&good, "\"tied\": true", "\"tied\": false", "tied false; its model_config");
    assert_bad_state(&good, "\"rotary\": \"fp32", "\"rotary\": \"fp16", "rotary fp16");
    assert_bad_state(&good, "\"corpus_sha256\": \"", "\"corpus_sha256\": \"0", "64 are expected");
    assert_bad_state(&good, "hidden_size", "hidden", "hidden_size");
    strcpy(r.state.tokenizer_dir, "models/\xff");
    assert_err(ckpt_state_write(&good, &r.state), ARG, "not UTF-8");
    buf_clear(&good);
    ckpt_rig_close(&r);
}

/* Reading ends where it is asked to, and no checkpoint is passed over for that; a save is finished.
 */
static void test_stopped(void **state)
{
    (void)state;
    const struct glm_config config = micro_config();
    struct ckpt_rig r;
    int64_t newest;
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "stopped", 1, 9));
    testing_signal(SIGTERM);
    assert_ok(ckpt_rig_save(&r, "stopped", 2, 9));
    assert_err(ckpt_verify(ckpt_step_dir("stopped", 2)), INTERRUPTED, "was verified");
    assert_err(ckpt_newest(&newest, testing_path("stopped"), NULL), INTERRUPTED, "step-00000002");
    assert_err(ckpt_load(ckpt_step_dir("stopped", 2), &r.state.formats, r.optim, NULL), INTERRUPTED,
               "was loaded");
    stop_reset();
    assert_ok(ckpt_verify(ckpt_step_dir("stopped", 2)));
    ckpt_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_layouts_share_one_format),
        cmocka_unit_test(test_load_into_another_model),
        cmocka_unit_test(test_parts_of_the_published_model),
        cmocka_unit_test(test_part_that_is_full),
        cmocka_unit_test(test_sums_of_blocks),
        cmocka_unit_test(test_every_step_fails_once),
        cmocka_unit_test(test_write_refused),
        cmocka_unit_test(test_file_in_the_way),
        cmocka_unit_test(test_every_byte_flipped),
        cmocka_unit_test(test_large_files),
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_step_of_another_state),
        cmocka_unit_test(test_newest),
        cmocka_unit_test(test_newest_out_of_reach),
        cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_pruning),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_bad_manifests),
        cmocka_unit_test(test_bad_states),
    };
    assert_ok(log_init("off")); /* some hundred warnings are provoked here */
    return cmocka_run_group_tests(tests, NULL, NULL);
}

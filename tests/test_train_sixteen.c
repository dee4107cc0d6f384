/* Twelve lanes on 1 to 4 ranks and ZeRO 0 to 3, as the program runs them: 16 runs save the same
 * bytes, and 16 runs that go on from one of their checkpoints end in those bytes again. */
#include "ckpt_fixture.h"
#include "ranked_runs.h"

#include "base/digest.h"

#include <stdio.h>
#include <string.h>

#define RANKS  4
#define STAGES 4
#define LAYERS 5 /* more than the two slots of stage 3 hold */
#define MIDDLE 10
#define END    20
#define FIRST  "first" /* one rank; what all are compared with */

/* "run-3-ranks-zero-2"; good until the next call. */
static const char *name_of(const char *kind, int64_t ranks, int stage)
{
    static char name[64];
    snprintf(name, sizeof name, "%s-%lld-ranks-zero-%d", kind, (long long)ranks, stage);
    return name;
}

static void train(const char *out, int64_t ranks, int stage, bool resume)
{
    const char stage_text[] = { (char)('0' + stage), '\0' };
    struct ranked_run run = {
        .size = ranks,
        .out = out,
        .resume = resume,
        .settings =
            SETTINGS("model.dir", testing_path("deep"), "batch.lanes", "12", "batch.size", "24",
                     "batch.micro_tokens", "128", "train.steps", "20", "train.weight_decay", "0.1",
                     "train.save_every", "10", "train.validate_every", "10", "train.keep_best",
                     "true", "train.check_every", "5", "train.zero", stage_text),
    };
    ranked_run_well(&run);
}

static const char *step_dir(const char *run, int64_t step)
{
    char root[128];
    snprintf(root, sizeof root, "%s/ckpt", run);
    return ckpt_step_dir(root, step);
}

/* One digest of every byte of a checkpoint; there is nothing else in its folder. */
static void digest_of(char hex[SHA256_HEX_SIZE], const char *run, int64_t step)
{
    struct buf all = { 0 };
    char below[128];
    uint8_t digest[32];
    snprintf(below, sizeof below, "%s/ckpt/step-%08lld", run, (long long)step);
    assert_string_equal(ckpt_names_in(below), "MANIFEST.json model.0000.safetensors "
                                              "optim.0000.safetensors state.json ");
    for (int i = 0; i < CKPT_FILES; i++) {
        struct buf file = { 0 };
        ckpt_read_file(&file, step_dir(run, step), ckpt_files[i]);
        assert_ok(buf_append(&all, file.data, file.size));
        buf_clear(&file);
    }
    sha256_of(digest, all.data, all.size);
    sha256_hex(hex, digest);
    buf_clear(&all);
}

static void expect_same(const char *run, int64_t step)
{
    char got[SHA256_HEX_SIZE], want[SHA256_HEX_SIZE];
    digest_of(got, run, step);
    digest_of(want, FIRST, step);
    if (strcmp(got, want) != 0) ckpt_assert_same(step_dir(run, step), step_dir(FIRST, step));
    assert_string_equal(got, want);
}

static void expect_same_best(const char *run)
{
    struct buf a = { 0 }, b = { 0 };
    char root[2][128];
    snprintf(root[0], sizeof root[0], "%s/ckpt", run);
    snprintf(root[1], sizeof root[1], "%s/ckpt", FIRST);
    ckpt_read_file(&a, testing_path(root[0]), "best.json");
    ckpt_read_file(&b, testing_path(root[1]), "best.json");
    assert_int_equal(a.size, b.size);
    assert_memory_equal(a.data, b.data, a.size);
    buf_clear(&a);
    buf_clear(&b);
}

static void test_sixteen_saves(void **state)
{
    (void)state;
    char hex[2][SHA256_HEX_SIZE];
    for (int64_t ranks = 1; ranks <= RANKS; ranks++) {
        for (int stage = 0; stage < STAGES; stage++) {
            const char *run = ranks + stage == 1 ? FIRST : name_of("run", ranks, stage);
            train(run, ranks, stage, false);
            expect_same(run, MIDDLE);
            expect_same(run, END);
            expect_same_best(run);
        }
    }
    digest_of(hex[0], FIRST, MIDDLE);
    digest_of(hex[1], FIRST, END);
    assert_string_not_equal(hex[0], hex[1]);
    print_message("16 runs: step %d has sha256 %s, step %d %s\n", MIDDLE, hex[0], END, hex[1]);
}

/* A run folder that holds the first run's checkpoint in the middle, and no other. */
static void put_middle(const char *run)
{
    char path[FILE_PATH_MAX];
    assert_ok(dir_create(step_dir(run, MIDDLE)));
    for (int i = 0; i < CKPT_FILES; i++) {
        struct buf file = { 0 };
        ckpt_read_file(&file, step_dir(FIRST, MIDDLE), ckpt_files[i]);
        assert_ok(path_join(path, step_dir(run, MIDDLE), ckpt_files[i]));
        assert_ok(file_replace(path, file.data, (int64_t)file.size));
        buf_clear(&file);
    }
}

static void test_sixteen_resumes(void **state)
{
    (void)state;
    for (int64_t ranks = 1; ranks <= RANKS; ranks++) {
        for (int stage = 0; stage < STAGES; stage++) {
            const char *run = name_of("on", ranks, stage);
            put_middle(run);
            train(run, ranks, stage, true);
            expect_same(run, MIDDLE);
            expect_same(run, END);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sixteen_saves),
        cmocka_unit_test(test_sixteen_resumes),
    };
    struct glm_config config = micro_config();
    config.layer_count = LAYERS;
    micro_corpus(RUNS_CORPUS, 30, 8);
    (void)micro_model("deep", &config);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* snapshot.h: what is saved behind training's back is what it was; and the mark of the best one. */
#include "ckpt_fixture.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/log.h"
#include "train/snapshot.h"

#include <math.h>
#include <string.h>

/* In the background: the state of the call, whatever happens to it after; one at a time. */
static void test_snapshot(void **state)
{
    (void)state;
    const struct glm_config config = micro_config();
    struct ckpt_rig r;
    struct snapshot *snapshot;
    const struct ckpt_keep two = { .last = 2 };
    ckpt_rig_open(&r, &config);
    assert_ok(ckpt_rig_save(&r, "waited", 5, 9));
    assert_ok(ckpt_rig_save(&r, "waited", 6, 9));
    assert_ok(snapshot_open(&snapshot, r.optim, true, NULL));
    for (int64_t step = 4; step <= 6; step++) {
        ckpt_rig_set(&r, step);
        assert_ok(snapshot_save(snapshot, testing_path("behind"), &r.state, &two));
        ckpt_rig_set(&r, 77);
        assert_ok(snapshot_poll(snapshot));
    }
    assert_ok(snapshot_wait(snapshot));
    assert_string_equal(ckpt_names_in("behind"), "step-00000005 step-00000006 ");
    ckpt_assert_same(ckpt_step_dir("waited", 5), ckpt_step_dir("behind", 5));
    ckpt_assert_same(ckpt_step_dir("waited", 6), ckpt_step_dir("behind", 6));

    /* The failure of one comes with the next call, which saves nothing; then it goes on. */
    fault_arm("file.sync", 1);
    assert_ok(snapshot_save(snapshot, testing_path("behind"), &r.state, &two));
    assert_err(snapshot_save(snapshot, testing_path("behind"), &r.state, &two), IO,
               "injected fault at file.sync");
    fault_arm("", 0);
    assert_string_equal(ckpt_names_in("behind"), "step-00000005 step-00000006 ");
    assert_ok(snapshot_save(snapshot, testing_path("behind"), &r.state, &two));
    snapshot_close(snapshot); /* waits */
    assert_string_equal(ckpt_names_in("behind"), "step-00000006 step-00000077 ");
    assert_ok(ckpt_verify(ckpt_step_dir("behind", 77)));

    /* As large as the ckpt_files, but for headers and alignment. */
    int64_t bytes, files_bytes = 0;
    struct ckpt_manifest m;
    assert_ok(snapshot_bytes(&bytes, glm_params(r.glm), &r.state.formats));
    assert_ok(ckpt_manifest_read(&m, ckpt_step_dir("behind", 77)));
    for (int64_t i = 0; i < 2; i++) files_bytes += m.file[i].bytes;
    assert_in_range(bytes, files_bytes * 9 / 10, files_bytes * 11 / 10);
    ckpt_manifest_clear(&m);
    ckpt_rig_close(&r);
}

/* The lowest loss so far stays beside the newest, whatever is saved after it. */
static void test_best(void **state)
{
    (void)state;
    static const struct {
        double loss;
        const char *names;
        int64_t best;
    } saves[] = {
        { 2.5, "best.json step-00000001 ", 1 },
        { NAN, "best.json step-00000001 step-00000002 ", 1 },
        { 2.0, "best.json step-00000003 ", 3 },
        { 2.0, "best.json step-00000003 step-00000004 ", 3 },
        { 2.2, "best.json step-00000003 step-00000005 ", 3 },
        { 1.5, "best.json step-00000006 ", 6 },
    };
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    int64_t best;
    double loss;
    ckpt_rig_open(&r, &config);
    for (int64_t i = 0; i < COUNT_OF(saves); i++) {
        const struct ckpt_keep keep = { .last = 1, .best = true, .validation_loss = saves[i].loss };
        ckpt_rig_set(&r, i + 1);
        assert_ok(ckpt_save(testing_path("best"), &r.state, r.optim, &keep, NULL));
        assert_string_equal(ckpt_names_in("best"), saves[i].names);
        assert_ok(ckpt_best(&best, &loss, testing_path("best")));
        assert_int_equal(best, saves[i].best);
    }
    assert_true(loss == 1.5);
    /* A run that went back behind the best one leaves it alone, until it has come as far. */
    const struct ckpt_keep unmeasured = { .last = 1, .best = true, .validation_loss = NAN };
    ckpt_rig_set(&r, 4);
    assert_ok(ckpt_save(testing_path("best"), &r.state, r.optim, &unmeasured, NULL));
    assert_string_equal(ckpt_names_in("best"), "best.json step-00000004 step-00000006 ");
    ckpt_rig_set(&r, 7);
    assert_ok(ckpt_save(testing_path("best"), &r.state, r.optim, &unmeasured, NULL));
    assert_string_equal(ckpt_names_in("best"), "best.json step-00000006 step-00000007 ");
    /* A mark that cannot be read, or of what is gone, is none. */
    /* Another in the place of the best one is not the best for that. */
    ckpt_rig_set(&r, 6);
    assert_ok(ckpt_save(testing_path("best"), &r.state, r.optim, &unmeasured, NULL));
    assert_ok(ckpt_best(&best, &loss, testing_path("best")));
    assert_int_equal(best, -1);

    assert_ok(file_replace(testing_path("best/best.json"), "{\"step\": tru", 12));
    assert_ok(ckpt_best(&best, &loss, testing_path("best")));
    assert_int_equal(best, -1);
    assert_ok(
        file_replace(testing_path("best/best.json"), "{\"step\": 5, \"validation_loss\": 1}", 33));
    assert_ok(ckpt_best(&best, &loss, testing_path("best")));
    assert_int_equal(best, -1);
    ckpt_rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot),
        cmocka_unit_test(test_best),
    };
    assert_ok(log_init("off"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}

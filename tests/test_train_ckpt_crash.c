/* ckpt.h when power is lost, calls fail and memory ends: the checkpoint before the save, or the new
 * one, is there and whole, and nothing else is taken for one.
 *
 *     test_train_ckpt_crash              5,000 crash states, and all failures
 *     test_train_ckpt_crash 100000 [S]   so many crash states, from seed S on, alone
 */
#include "ckpt_fixture.h"
#include "crash_shim.h"
#include "crash_states.h"

#include "base/check.h"
#include "base/log.h"
#include "train/ckpt_impl.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CI_STATES 5000

/* ---- saves that are recorded ---- */

/* Folders are made by the steps before, one after the other; then `step` is saved and recorded. */
static const struct scenario {
    const char *name;
    int64_t before[3]; /* steps; 0: none */
    int64_t step, keep_last;
    bool damaged;     /* the newest before */
    int64_t previous; /* the newest whole one before */
} scenarios[] = {
    { "newer", { 1 }, 2, 1, false, 1 },           { "newer-of-two", { 1, 2 }, 3, 2, false, 2 },
    { "same-again", { 1, 2 }, 2, 2, false, 2 },   { "over-damaged", { 1, 2 }, 2, 1, true, 1 },
    { "below-damaged", { 1, 3 }, 2, 1, true, 1 },
};

static const char *const files[] = { "MANIFEST.json", "model.0000.safetensors",
                                     "optim.0000.safetensors", "state.json" };

/* What a whole checkpoint consists of. */
struct contents {
    struct buf file[COUNT_OF(files)];
};

static void read_contents(struct contents *c, const char *dir)
{
    for (int64_t i = 0; i < COUNT_OF(files); i++) {
        char path[FILE_PATH_MAX];
        assert_ok(path_join(path, dir, files[i]));
        c->file[i] = (struct buf){ 0 };
        assert_ok(file_read_all(&c->file[i], path, 1 << 20));
    }
}

static bool has_contents(const struct contents *c, const char *dir)
{
    bool same = true;
    for (int64_t i = 0; i < COUNT_OF(files) && same; i++) {
        struct buf found = { 0 };
        char path[FILE_PATH_MAX];
        same = path_join(path, dir, files[i]) == ERR_OK &&
               file_read_all(&found, path, 1 << 20) == ERR_OK && found.size == c->file[i].size &&
               memcmp(found.data, c->file[i].data, found.size) == 0;
        buf_clear(&found);
    }
    return same;
}

static void clear_contents(struct contents *c)
{
    for (int64_t i = 0; i < COUNT_OF(files); i++) buf_clear(&c->file[i]);
}

struct recorded {
    const struct scenario *s;
    char before[FILE_PATH_MAX]; /* a copy of the folder before the save */
    struct contents previous, saved;
};

static const char *step_dir(const char *root, int64_t step)
{
    static char dir[4][FILE_PATH_MAX];
    static int turn;
    char *out = dir[turn++ % 4];
    assert_ok(ckpt_path(out, root, step));
    return out;
}

static err_t save(struct ckpt_rig *r, const char *root, int64_t keep_last)
{
    const struct ckpt_keep keep = { .last = keep_last,
                                    .best = keep_last < 9,
                                    .validation_loss = 1.0 / (double)(1 + r->state.step) };
    return ckpt_save(root, &r->state, r->optim, &keep, NULL);
}

/* The state before, made anew: the same bytes each time. */
static void make_before(struct ckpt_rig *r, const struct scenario *s, const char *root)
{
    int64_t newest = 0;
    assert_ok(dir_remove(root));
    for (int64_t i = 0; i < COUNT_OF(s->before) && s->before[i] > 0; i++) {
        newest = s->before[i];
        ckpt_rig_set(r, newest);
        assert_ok(save(r, root, 9));
    }
    if (!s->damaged) return;
    char path[FILE_PATH_MAX];
    assert_ok(path_join(path, step_dir(root, newest), "model.0000.safetensors"));
    assert_int_equal(truncate(path, 100), 0);
}

/* What is saved differs from what was saved at this step before. */
static void set_new(struct ckpt_rig *r, const struct scenario *s)
{
    ckpt_rig_set(r, s->step);
    r->state.samples++;
}

static void record(struct recorded *out, struct ckpt_rig *r, const struct scenario *s)
{
    const char *root = testing_path("recorded");
    memset(out, 0, sizeof *out);
    out->s = s;
    strcpy(out->before, testing_path("before"));
    make_before(r, s, out->before);
    make_before(r, s, root);
    read_contents(&out->previous, step_dir(root, s->previous));
    set_new(r, s);
    shim_record(root);
    assert_ok(save(r, root, s->keep_last));
    shim_record(NULL);
    read_contents(&out->saved, step_dir(root, s->step));
    assert_true(shim_recorded()->count > 20);
}

static void recorded_clear(struct recorded *rec)
{
    clear_contents(&rec->previous);
    clear_contents(&rec->saved);
}

/* ---- crash states ---- */

struct tally {
    int64_t states, lost, bad, newer;
};

/* What the program finds in a state. `committed`: the save had returned. */
static void judge(struct tally *t, const struct recorded *rec, const char *root, bool committed)
{
    char dir[FILE_PATH_MAX] = "";
    int64_t newest = -1;
    const err_t rc = ckpt_newest(&newest, root, NULL);
    const bool found = rc == ERR_OK && newest >= 0;
    if (found) assert_ok(ckpt_path(dir, root, newest));
    const bool is_new = found && has_contents(&rec->saved, dir);
    const bool is_old = found && has_contents(&rec->previous, dir);
    t->states++;
    t->newer += is_new;
    if (!found || (committed && !is_new))
        t->lost++;
    else if (!is_new && !is_old)
        t->bad++;
}

static struct tally run_states(const struct recorded *rec, enum crash_carelessness care,
                               int64_t count, uint64_t seed)
{
    struct tally t = { .states = 0 };
    struct crash crash;
    char name[32];
    const char *root = testing_path("state");
    crash_open(&crash, rec->before, shim_recorded(), care);
    snprintf(name, sizeof name, "step-%08lld", (long long)rec->s->step);
    const int64_t durable = crash_durable_from(&crash, name);
    for (int64_t i = 0; i < count; i++) {
        assert_ok(dir_remove(root));
        const int64_t done = crash_state(&crash, root, seed + (uint64_t)i);
        judge(&t, rec, root, done >= durable || done == crash.change_count);
        if (i % 16 != 0) continue;
        /* What a start does first changes nothing of the verdict. */
        struct tally again = { .states = 0 };
        assert_ok(ckpt_remove_leftovers(root));
        judge(&again, rec, root, done >= durable);
        assert_int_equal(again.lost + again.bad, t.lost + t.bad > 0 ? again.lost + again.bad : 0);
    }
    crash_close(&crash);
    return t;
}

static void campaign(int64_t count, uint64_t seed)
{
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    ckpt_rig_open(&r, &config);
    for (int64_t i = 0; i < COUNT_OF(scenarios); i++) {
        struct recorded rec;
        record(&rec, &r, &scenarios[i]);
        const struct tally t = run_states(&rec, CRASH_AS_RECORDED, count / COUNT_OF(scenarios),
                                          seed + (uint64_t)(i * count));
        print_message("%s: %lld calls, %lld states: %lld lost, %lld bad, %lld the new one\n",
                      scenarios[i].name, (long long)shim_recorded()->count, (long long)t.states,
                      (long long)t.lost, (long long)t.bad, (long long)t.newer);
        assert_int_equal(t.lost, 0);
        assert_int_equal(t.bad, 0);
        assert_true(t.newer > 0 && t.newer < t.states);
        recorded_clear(&rec);
    }
    ckpt_rig_close(&r);
}

static void test_crash_states(void **state)
{
    (void)state;
    campaign(CI_STATES, 1);
}

/* The machinery sees what a careless program would do: without fsync of files, or of folders, the
 * previous checkpoint is pruned before the new one is durable. */
static void test_careless_program_is_caught(void **state)
{
    (void)state;
    static const enum crash_carelessness cares[] = { CRASH_NO_FILE_SYNC, CRASH_NO_FOLDER_SYNC };
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    struct recorded rec;
    ckpt_rig_open(&r, &config);
    record(&rec, &r, &scenarios[0]);
    for (int64_t i = 0; i < COUNT_OF(cares); i++)
        assert_true(run_states(&rec, cares[i], 500, 1).lost > 0);
    recorded_clear(&rec);
    ckpt_rig_close(&r);
}

/* ---- calls that fail ---- */

/* Every call that changes a file fails once, or from then on. */
static void check_failing_calls(struct ckpt_rig *r, const struct scenario *s, int error,
                                bool onwards)
{
    const char *root = testing_path("failing");
    struct contents previous;
    bool done = false;
    int64_t n = 1;
    make_before(r, s, root);
    read_contents(&previous, step_dir(root, s->previous));
    for (; !done; n++) {
        char dir[FILE_PATH_MAX];
        int64_t newest;
        make_before(r, s, root);
        set_new(r, s);
        shim_record(root); /* close of files below it counts */
        shim_fail(&(struct shim_failure){ .calls = n, .error = error, .onwards = onwards });
        const err_t rc = save(r, root, s->keep_last);
        const struct err_record why = *err_last();
        done = shim_calls() < n;
        shim_fail(NULL);
        shim_record(NULL);
        if (rc != ERR_OK) {
            assert_int_equal(rc, ERR_IO);
            assert_non_null(strstr(why.text, strerror(error)));
            assert_non_null(strstr(why.text, root));
        }
        assert_ok(ckpt_newest(&newest, root, NULL));
        assert_true(newest >= 0);
        assert_ok(ckpt_path(dir, root, newest));
        struct ckpt_state saved;
        assert_ok(ckpt_state_read(&saved, dir));
        const bool is_new = saved.samples == r->state.samples;
        ckpt_state_clear(&saved);
        if (rc == ERR_OK) assert_true(is_new);
        if (!is_new) assert_true(has_contents(&previous, dir));
        /* Room again: training goes on and saves. */
        assert_ok(save(r, root, s->keep_last));
        assert_ok(ckpt_verify(step_dir(root, s->step)));
    }
    assert_true(n > 25);
    clear_contents(&previous);
}

static void test_failing_calls(void **state)
{
    (void)state;
    static const int errors[] = { ENOSPC, EIO };
    const struct glm_config config = grain_config();
    struct ckpt_rig r;
    ckpt_rig_open(&r, &config);
    for (int64_t s = 0; s < COUNT_OF(scenarios); s++)
        for (int64_t e = 0; e < COUNT_OF(errors); e++)
            for (int onwards = 0; onwards < 2; onwards++)
                check_failing_calls(&r, &scenarios[s], errors[e], onwards);
    ckpt_rig_close(&r);
}

/* Writes that move fewer bytes than asked for, and a disk that is full in the midst of one. */
static void test_short_writes(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    const struct scenario *s = &scenarios[0];
    const char *root = testing_path("short");
    struct ckpt_rig r;
    struct contents whole;
    ckpt_rig_open(&r, &config);
    make_before(&r, s, root);
    set_new(&r, s);
    assert_ok(save(&r, root, 1));
    read_contents(&whole, step_dir(root, s->step));

    bool done = false;
    for (int64_t n = 0; !done; n++) { /* n = 0: none fails */
        make_before(&r, s, root);
        set_new(&r, s);
        shim_fail(&(struct shim_failure){
            .calls = n, .error = ENOSPC, .onwards = true, .shorten = true });
        const err_t rc = save(&r, root, 1);
        done = n > 0 && shim_calls() < n;
        shim_fail(NULL);
        if (rc == ERR_OK)
            assert_true(has_contents(&whole, step_dir(root, s->step)));
        else
            assert_true(has_contents(&whole, step_dir(root, s->step)) ||
                        ckpt_verify(step_dir(root, s->previous)) == ERR_OK);
        if (n == 0 || done) assert_int_equal(rc, ERR_OK);
    }
    clear_contents(&whole);
    ckpt_rig_close(&r);
}

/* Too small a disk is known before anything is written. */
static void test_free_space(void **state)
{
    (void)state;
    const struct glm_config config = grain_config();
    const struct scenario *s = &scenarios[0];
    const char *root = testing_path("small");
    struct ckpt_rig r;
    struct contents previous;
    int64_t low = 0, high = 64 << 20;
    ckpt_rig_open(&r, &config);
    make_before(&r, s, root);
    read_contents(&previous, step_dir(root, s->previous));
    set_new(&r, s);
    shim_free_space(0);
    shim_record(root);
    assert_err(save(&r, root, 1), IO, "the disk has 0.000 GB free; make room");
    for (int64_t i = 0; i < shim_recorded()->count; i++)
        assert_true(shim_recorded()->call[i].kind == SHIM_SYNC);
    shim_record(NULL);
    assert_true(has_contents(&previous, step_dir(root, s->previous)));
    while (high - low > 1) { /* what it asks for is enough, and not much more */
        const int64_t middle = low + (high - low) / 2;
        shim_free_space(-1);
        make_before(&r, s, root);
        set_new(&r, s);
        shim_free_space(middle);
        *(save(&r, root, 1) == ERR_OK ? &high : &low) = middle;
    }
    int64_t bytes = 0;
    struct ckpt_manifest m;
    shim_free_space(-1);
    make_before(&r, s, root);
    set_new(&r, s);
    assert_ok(save(&r, root, 1));
    assert_ok(ckpt_manifest_read(&m, step_dir(root, s->step)));
    for (int64_t i = 0; i < m.file_count; i++) bytes += m.file[i].bytes;
    ckpt_manifest_clear(&m);
    assert_in_range(high, bytes, bytes + (1 << 20));
    clear_contents(&previous);
    ckpt_rig_close(&r);
}

/* A run's folder must not be lost with the power, whatever was synced inside. */
static void test_new_folders_are_durable(void **state)
{
    (void)state;
    const char *root = testing_path("folders");
    static const char *const parents[] = { "", "runs", "runs/a" };
    char dir[FILE_PATH_MAX];
    assert_ok(dir_create(root));
    assert_ok(path_join(dir, root, "runs/a/ckpt"));
    shim_record(root);
    assert_ok(dir_create(dir));
    assert_ok(dir_create(dir)); /* there it is */
    shim_record(NULL);
    const struct shim_trace *t = shim_recorded();
    assert_int_equal(t->count, 2 * COUNT_OF(parents));
    for (int64_t i = 0; i < COUNT_OF(parents); i++) {
        assert_int_equal(t->call[2 * i].kind, SHIM_MKDIR);
        assert_int_equal(t->call[2 * i + 1].kind, SHIM_SYNC);
        assert_string_equal(t->call[2 * i + 1].path, parents[i]);
    }
}

/* ---- allocations that fail ---- */

static err_t save_again(struct ckpt_rig *r, const char *root) { return save(r, root, 1); }

static err_t find_newest(struct ckpt_rig *r, const char *root)
{
    int64_t newest;
    (void)r;
    TRY(ckpt_newest(&newest, root, NULL));
    if (newest != 2) RAISE(FORMAT, "a whole one was passed over");
    return ERR_OK;
}

static err_t load_newest(struct ckpt_rig *r, const char *root)
{
    struct ckpt_state state;
    err_t rc = ckpt_state_read(&state, step_dir(root, 2));
    if (rc == ERR_OK) rc = ckpt_load(step_dir(root, 2), &r->state.formats, r->optim, NULL);
    ckpt_state_clear(&state);
    return rc;
}

/* The n-th allocation fails, for all n: ERR_NOMEM, or success where it was not needed, and no more
 * is allocated after than before. */
static void test_failing_allocations(void **state)
{
    (void)state;
    static err_t (*const works[])(struct ckpt_rig *, const char *) = { save_again, find_newest,
                                                                       load_newest };
    const struct glm_config config = grain_config();
    const char *root = testing_path("allocations");
    struct ckpt_rig r;
    ckpt_rig_open(&r, &config);
    ckpt_rig_set(&r, 1);
    assert_ok(save(&r, root, 9));
    ckpt_rig_set(&r, 2);
    assert_ok(save(&r, root, 9));
    for (int64_t i = 0; i < COUNT_OF(works); i++) {
        bool done = false;
        int64_t n = 1;
        for (; !done; n++) {
            const int64_t live = shim_live();
            shim_fail_allocation(n);
            const err_t rc = works[i](&r, root);
            done = shim_allocations() < n;
            shim_fail_allocation(0);
            if (rc != ERR_OK && rc != ERR_NOMEM)
                fail_msg("work %d, allocation %d: %s", (int)i, (int)n, err_last()->text);
            if (shim_live() != live)
                fail_msg("work %d, allocation %d: %d leaked", (int)i, (int)n,
                         (int)(shim_live() - live));
            assert_ok(ckpt_verify(step_dir(root, 2)));
            if (done) assert_int_equal(rc, ERR_OK);
        }
        assert_true(n > 20);
    }
    ckpt_rig_close(&r);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash_states),
        cmocka_unit_test(test_careless_program_is_caught),
        cmocka_unit_test(test_failing_calls),
        cmocka_unit_test(test_short_writes),
        cmocka_unit_test(test_free_space),
        cmocka_unit_test(test_new_folders_are_durable),
        cmocka_unit_test(test_failing_allocations),
    };
    /* In memory where that is possible: thousands of saves would wait for a disk. */
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0);
    assert_ok(log_init("off"));
    if (argc > 1) {
        campaign(strtoll(argv[1], NULL, 10), argc > 2 ? strtoull(argv[2], NULL, 10) : 1);
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}

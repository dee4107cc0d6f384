#include "train_runs.h"

#include "base/fault.h"
#include "train/loop.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

struct cfg *runs_cfg(const char *out, const char *const *settings)
{
    struct cfg *cfg = micro_cfg(RUNS_CORPUS, out);
    for (; settings[0] != NULL; settings += 2) micro_set(cfg, settings[0], settings[1]);
    /* Where a GPU is to be tested, it is the one that settings mean. */
    if (strcmp(cfg_str(cfg, "train.device"), "emu") == 0)
        micro_set(cfg, "train.device", testing_gpu());
    return cfg;
}

err_t runs_open(struct cfg *cfg, bool resume)
{
    struct run run;
    const err_t rc = micro_run_start(&run, cfg, resume);
    run_close(&run);
    return rc;
}

bool runs_open_fails(struct cfg *cfg, const char *site, int n, const char *part)
{
    fault_arm(site, n);
    const err_t rc = runs_open(cfg, true);
    const bool reached = fault_hits() >= n;
    fault_arm("", 0);
    if (reached)
        assert_err(rc, NOMEM, part);
    else
        assert_ok(rc);
    return reached;
}

err_t runs_train(int64_t *step, const char *out, bool resume, const char *const *settings)
{
    struct run run;
    struct cfg *cfg = runs_cfg(out, settings);
    err_t rc = micro_run_start(&run, cfg, resume);
    if (rc == ERR_OK) rc = loop_run(&run);
    *step = run.state.step;
    run_close(&run);
    cfg_close(cfg);
    return rc;
}

void runs_read(struct buf *out, const char *path)
{
    buf_reset(out);
    assert_ok(file_read_all(out, testing_path(path), 1 << 26));
}

void runs_same_checkpoint(const char *run_a, const char *run_b, int64_t step)
{
    static const char *const names[] = { "model.0000.safetensors", "optim.0000.safetensors" };
    struct buf a = { 0 }, b = { 0 };
    char path[FILE_PATH_MAX];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/ckpt/step-%08lld/%s", run_a, (long long)step, names[i]);
        runs_read(&a, path);
        snprintf(path, sizeof path, "%s/ckpt/step-%08lld/%s", run_b, (long long)step, names[i]);
        runs_read(&b, path);
        assert_int_equal(a.size, b.size);
        if (memcmp(a.data, b.data, a.size) != 0) fail_msg("%s: other bits", path);
    }
    buf_clear(&a);
    buf_clear(&b);
}

bool runs_has_checkpoint(const char *run, int64_t step)
{
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/ckpt/step-%08lld/MANIFEST.json", run, (long long)step);
    return file_exists(testing_path(path));
}

struct runs_curve runs_curve(const char *run, const char *key)
{
    struct runs_curve c = { .count = 0 };
    struct buf text = { 0 };
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/metrics.jsonl", run);
    runs_read(&text, path);
    for (char *save, *line = strtok_r(text.data, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *object = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(object);
        const json_t *value = json_object_get(object, key);
        if (value != NULL) {
            assert_true(c.count < RUNS_CURVE_MAX);
            c.step[c.count] = json_integer_value(json_object_get(object, "step"));
            c.value[c.count++] = json_number_value(value);
        }
        json_decref(object);
    }
    buf_clear(&text);
    return c;
}

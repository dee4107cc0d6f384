#include "prepare_fixture.h"

#include "testing.h"

#include "data/settings.h"
#include "data/settings_batch.h"

#include <stdio.h>
#include <string.h>

struct cfg *prepare_cfg(const char *source, const char *out, const char *const *settings)
{
    struct cfg *cfg;
    const struct cfg_table tables[] = { data_settings, batch_settings };
    assert_ok(cfg_create(&cfg, tables, 2));
    assert_ok(cfg_set(cfg, "data.source", source, "test"));
    assert_ok(cfg_set(cfg, "data.tokenizer", SAMPLE_MODEL, "test"));
    assert_ok(cfg_set(cfg, "data.dir", out, "test"));
    for (; settings != NULL && *settings != NULL; settings++) {
        char key[CFG_KEY_MAX];
        const char *equals = strchr(*settings, '=');
        snprintf(key, sizeof key, "%.*s", (int)(equals - *settings), *settings);
        assert_ok(cfg_set(cfg, key, equals + 1, "test"));
    }
    return cfg;
}

err_t prepare_with(struct prepare_counts *counts, const char *source, const char *out,
                   const char *const *settings)
{
    struct prepare_options o;
    struct cfg *cfg = prepare_cfg(source, out, settings);
    err_t rc = prepare_options_from_cfg(&o, cfg);
    if (rc == ERR_OK) rc = prepare_run(counts, &o);
    const struct err_record kept = *err_last();
    prepare_options_clear(&o);
    cfg_close(cfg);
    if (rc != ERR_OK) err_adopt(&kept);
    return rc;
}

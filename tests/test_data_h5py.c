/* The Python program printed in docs/shard-format.md reads our shards, with the plugin, and prints
 * what they hold. */
#include "testing.h"

#include "base/file.h"
#include "data/prepare.h"
#include "data/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *python; /* one that has h5py */

static void find_python(void)
{
    const char *const candidates[] = { "/usr/bin/python3", "python3" };
    for (int i = 0; i < 2 && python == NULL; i++) {
        char command[128];
        snprintf(command, sizeof command, "%s -c 'import h5py' 2>/dev/null", candidates[i]);
        if (system(command) == 0) python = candidates[i];
    }
}

static void write_example(const char *path)
{
    struct buf text = { 0 };
    assert_ok(file_read_all(&text, "docs/shard-format.md", 1 << 20));
    char *begin = strstr(text.data, "```python\n");
    assert_non_null(begin);
    begin += strlen("```python\n");
    char *end = strstr(begin, "```");
    assert_non_null(end);
    assert_ok(file_replace(path, begin, end - begin));
    buf_clear(&text);
}

static void prepare_sample(const char *dir)
{
    struct cfg *cfg;
    struct prepare_options o;
    struct prepare_counts c;
    assert_ok(cfg_create(&cfg, &data_settings, 1));
    assert_ok(cfg_set(cfg, "data.source", "data/sample/corpus.json", "test"));
    assert_ok(cfg_set(cfg, "data.tokenizer", "data/sample/model", "test"));
    assert_ok(cfg_set(cfg, "data.dir", dir, "test"));
    assert_ok(prepare_options_from_cfg(&o, cfg));
    assert_ok(prepare_run(&c, &o));
    prepare_options_clear(&o);
    cfg_close(cfg);
}

static void print_run(struct buf *out, struct shards *s, int64_t d, int64_t offset, int64_t len,
                      int64_t skip)
{
    int32_t *ids = calloc((size_t)len, sizeof *ids);
    assert_ok(shards_tokens(s, ids, d, offset, len));
    for (int64_t i = skip; i < len; i++) assert_ok(buf_printf(out, " %d", ids[i]));
    free(ids);
}

static void expected_output(struct buf *out, struct shards *s, int64_t d)
{
    const struct shard_info *info = shards_info(s);
    const struct shard_turn *t = shards_turn(s, d, 0);
    int64_t reply = shards_dialogue(s, d)->turn_count - 1;
    while (shards_turn(s, d, reply)->target_off < 0) reply--;
    assert_ok(buf_puts(out, "prompt"));
    if (t->flags & TURN_FIRST_STORED) {
        print_run(out, s, d, t->first_off, t->first_len, 0);
    } else {
        assert_ok(buf_printf(out, " %d", info->specials.space));
        print_run(out, s, d, t->ctx_off, t->ctx_len, 1);
    }
    for (int64_t k = 1; k < reply; k++) {
        t = shards_turn(s, d, k);
        print_run(out, s, d, t->ctx_off, t->ctx_len, 0);
    }
    for (int i = 0; i < info->cue_len; i++) assert_ok(buf_printf(out, " %d", info->cue[i]));
    t = shards_turn(s, d, reply);
    assert_ok(buf_puts(out, "\nreply"));
    print_run(out, s, d, t->target_off, t->target_len, 0);
    assert_ok(buf_puts(out, "\n"));
}

static void test_example(void **state)
{
    (void)state;
    char script[FILE_PATH_MAX], dir[FILE_PATH_MAX], command[3 * FILE_PATH_MAX];
    struct shards *s;
    struct buf expected = { 0 };
    char got[65536];
    assert_ok(path_join(script, testing_dir(), "print_sample.py"));
    assert_ok(path_join(dir, testing_dir(), "prepared"));
    write_example(script);
    prepare_sample(dir);
    assert_ok(shards_open(&s, dir, true));
    for (int64_t d = 0; d < 260; d += 120) {
        snprintf(command, sizeof command, "%s %s %s/shard-00000.h5 %d", python, script, dir,
                 (int)d);
        FILE *pipe = popen(command, "r");
        assert_non_null(pipe);
        const size_t size = fread(got, 1, sizeof got - 1, pipe);
        got[size] = '\0';
        assert_int_equal(pclose(pipe), 0);
        buf_reset(&expected);
        expected_output(&expected, s, d);
        assert_string_equal(got, expected.data);
    }
    buf_clear(&expected);
    shards_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_example) };
    if (getenv("HDF5_PLUGIN_PATH") == NULL) testing_skip_all("HDF5_PLUGIN_PATH is not set");
    find_python();
    if (python == NULL) testing_skip_all("no Python with h5py");
    return cmocka_run_group_tests(tests, NULL, NULL);
}

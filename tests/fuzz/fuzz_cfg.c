/* layer: base */
/* Settings from YAML: whatever is accepted must survive being written and read again. */
#include "fuzz/fuzz.h"

#include "base/cfg.h"
#include "base/check.h"

#include <string.h>

static const struct cfg_row rows[] = {
    { "a.int", CFG_INT, "1", 0, 0, NULL, "any integer" },
    { "a.auto", CFG_INT, "auto", -1, 99, NULL, "an integer or auto" },
    { "a.text", CFG_STRING, "", 0, 0, NULL, "any text" },
    { "b.real", CFG_FLOAT, "0.5", -1, 1e30, NULL, "a number" },
    { "b.flag", CFG_BOOL, "true", 0, 0, NULL, "a flag" },
    { "b.mode", CFG_ENUM, "x", 0, 0, "x|yy|zzz", "a choice" },
};
static const struct cfg_table table = { rows, COUNT_OF(rows) };

/* What is read from a's text must be what is read from its dump. */
static void check_round_trip(const struct cfg *a)
{
    struct cfg *b = NULL;
    struct buf dump = { 0 };
    ASSERT(cfg_create(&b, &table, 1) == ERR_OK);
    ASSERT(cfg_dump_yaml(a, &dump, true) == ERR_OK);
    ASSERT(cfg_parse_yaml(b, dump.data, (int64_t)dump.size, "dump") == ERR_OK);
    ASSERT(cfg_int(a, "a.int") == cfg_int(b, "a.int"));
    ASSERT(cfg_int(a, "a.auto") == cfg_int(b, "a.auto"));
    ASSERT(strcmp(cfg_str(a, "a.text"), cfg_str(b, "a.text")) == 0);
    ASSERT(cfg_float(a, "b.real") == cfg_float(b, "b.real"));
    ASSERT(cfg_bool(a, "b.flag") == cfg_bool(b, "b.flag"));
    ASSERT(cfg_enum(a, "b.mode") == cfg_enum(b, "b.mode"));
    buf_clear(&dump);
    cfg_close(b);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct cfg *cfg = NULL;
    ASSERT(cfg_create(&cfg, &table, 1) == ERR_OK);
    const err_t rc = cfg_parse_yaml(cfg, (const char *)bytes, (int64_t)size, "fuzz");
    ASSERT(rc == ERR_OK || rc == ERR_USAGE || rc == ERR_FORMAT);
    check_round_trip(cfg); /* after an error too: what was taken before it is valid */
    cfg_close(cfg);
    return 0;
}

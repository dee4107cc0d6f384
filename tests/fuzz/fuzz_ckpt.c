/* layer: train */
/* state.json and MANIFEST.json: what is accepted must be written and read again as the same. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "train/ckpt.h"

#include <string.h>

static void same_text(const struct buf *a, const struct buf *b)
{
    ASSERT(a->size == b->size && memcmp(a->data, b->data, a->size) == 0);
}

static void try_state(const char *text, int64_t size)
{
    struct ckpt_state state, back;
    struct buf once = { 0 }, twice = { 0 };
    const err_t rc = ckpt_state_parse(&state, text, size, "fuzz");
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT || rc == ERR_UNSUPPORTED);
    if (rc == ERR_OK) {
        ASSERT(state.step >= state.updates && state.updates >= 0 && state.lanes >= 1);
        ASSERT(ckpt_state_write(&once, &state) == ERR_OK);
        ASSERT(ckpt_state_parse(&back, once.data, (int64_t)once.size, "written") == ERR_OK);
        ASSERT(strcmp(state.settings.data, back.settings.data) == 0);
        ASSERT(ckpt_state_write(&twice, &back) == ERR_OK);
        same_text(&once, &twice);
        ckpt_state_clear(&back);
    }
    ckpt_state_clear(&state);
    buf_clear(&once);
    buf_clear(&twice);
}

static void try_manifest(const char *text, int64_t size)
{
    struct ckpt_manifest manifest, back;
    struct buf once = { 0 }, twice = { 0 };
    const err_t rc = ckpt_manifest_parse(&manifest, text, size, "fuzz");
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT || rc == ERR_UNSUPPORTED);
    if (rc == ERR_OK) {
        for (int64_t i = 0; i < manifest.file_count; i++)
            ASSERT(strchr(manifest.file[i].name, '/') == NULL && manifest.file[i].bytes >= 0);
        ASSERT(ckpt_manifest_write(&once, &manifest) == ERR_OK);
        ASSERT(ckpt_manifest_parse(&back, once.data, (int64_t)once.size, "written") == ERR_OK);
        ASSERT(ckpt_manifest_write(&twice, &back) == ERR_OK);
        same_text(&once, &twice);
        ckpt_manifest_clear(&back);
    }
    ckpt_manifest_clear(&manifest);
    buf_clear(&once);
    buf_clear(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    try_state((const char *)bytes, (int64_t)size);
    try_manifest((const char *)bytes, (int64_t)size);
    return 0;
}

/* layer: data */
/* A shard of any bytes: what opens has every row checked, so every run can be asked for. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "data/shard_file.h"

#include <stdlib.h>

static void check_run(struct shard_file *f, int64_t offset, int64_t len)
{
    int32_t *ids = malloc((size_t)len * sizeof *ids);
    ASSERT(ids != NULL);
    const err_t rc = shard_file_tokens(f, ids, offset, len);
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
    for (int64_t i = 0; rc == ERR_OK && i < len; i++)
        ASSERT(ids[i] >= 0 && ids[i] < f->info.vocab_size);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct shard_file f;
    if (size == 0) return 0;
    const err_t rc = shard_file_open_image(&f, bytes, (int64_t)size, "fuzz");
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
    if (rc != ERR_OK) return 0;
    for (int64_t i = 0; i < f.turn_count && i < 64; i++) {
        check_run(&f, f.turns[i].ctx_off, f.turns[i].ctx_len);
        if (f.turns[i].target_off >= 0) check_run(&f, f.turns[i].target_off, f.turns[i].target_len);
    }
    shard_file_close(&f);
    return 0;
}

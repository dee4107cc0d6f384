/* layer: model */
/* config.json: what is accepted must be written and read again as the same configuration. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "model/glm_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct glm_config config, back;
    struct buf json = { 0 };
    char text[128];
    const err_t rc = glm_config_parse(&config, (const char *)bytes, (int64_t)size, "fuzz");
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT || rc == ERR_UNSUPPORTED);
    if (rc != ERR_OK) return 0;
    ASSERT(config.hidden_size % config.head_count == 0);
    ASSERT(config.eos_id < config.vocab_size);
    ASSERT(glm_config_write(&json, &config, "float16") == ERR_OK);
    ASSERT(glm_config_parse(&back, json.data, (int64_t)json.size, "written") == ERR_OK);
    ASSERT(glm_config_difference(&config, &back, text, sizeof text) == NULL);
    buf_clear(&json);
    return 0;
}

/* layer: data */
/* A JSON text of any bytes: what is parsed is a tree that can be walked, of well-formed strings. */
#include "fuzz/fuzz.h"

#include "base/check.h"
#include "base/utf8.h"
#include "data/jdoc.h"

/* The nodes of a value; spans must add up. */
static const struct jdoc_node *walk(const struct jdoc_node *node, int depth)
{
    const struct jdoc_node *at = node + 1;
    ASSERT(depth <= JDOC_DEPTH_MAX);
    if (node->type == JDOC_STRING) ASSERT(utf8_valid_prefix(node->text, node->size) == node->size);
    if (node->type == JDOC_STRING || node->type == JDOC_NUMBER)
        ASSERT(node->text[node->size] == '\0');
    for (int32_t i = 0; i < node->count; i++) {
        if (node->type == JDOC_OBJECT) {
            ASSERT(at->type == JDOC_STRING);
            at = walk(at, depth);
        }
        at = walk(at, depth + 1);
    }
    ASSERT(at == node + node->span);
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    struct jdoc d = { 0 };
    int64_t error_at = -1;
    const err_t rc = jdoc_parse(&d, (const char *)bytes, (int64_t)size, &error_at);
    ASSERT(rc == ERR_OK || rc == ERR_FORMAT);
    ASSERT(error_at >= 0 && error_at <= (int64_t)size);
    if (rc == ERR_OK) ASSERT(walk(jdoc_root(&d), 0) == d.nodes + d.count);
    jdoc_clear(&d);
    return 0;
}

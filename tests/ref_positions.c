#include "ref_positions.h"

static int64_t find_first(const int32_t *ids, int64_t len, int32_t id)
{
    for (int64_t r = 0; r < len; r++)
        if (ids[r] == id) return r;
    return -1;
}

err_t ref_positions(int64_t *ctx, int32_t *pos, int32_t *block, const int32_t *ids, int64_t len,
                    const struct tok_specials *specials)
{
    const int64_t sop = find_first(ids, len, specials->sop);
    if (sop < 0)
        RAISE(FORMAT, "%lld ids without <sop> (%d): the context has no end", (long long)len,
              specials->sop);

    /* [gMASK] wins wherever it stands; [MASK] counts only in its absence. */
    int64_t mask = find_first(ids, len, specials->gmask);
    if (mask < 0) mask = find_first(ids, len, specials->mask);
    if (mask < 0)
        RAISE(FORMAT, "%lld ids without [gMASK] (%d) or [MASK] (%d): positions need one",
              (long long)len, specials->gmask, specials->mask);
    if (mask > sop)
        RAISE(FORMAT, "mask token at row %lld comes after <sop> at row %lld; expected before it",
              (long long)mask, (long long)sop);

    *ctx = sop;
    for (int64_t r = 0; r < len; r++) {
        if (pos != NULL) pos[r] = (int32_t)(r < sop ? r : mask);
        if (block != NULL) block[r] = (int32_t)(r < sop ? 0 : r - sop + 1);
    }
    return ERR_OK;
}

#include "model/glm_find.h"

#include <string.h>

static err_t check_shape(const struct glm_param *row, const struct weight_info *info)
{
    char found[WEIGHT_SHAPE_TEXT_MAX], expected[WEIGHT_SHAPE_TEXT_MAX];
    const size_t bytes = (size_t)row->dims * sizeof row->dim[0];
    if (info->dims == row->dims && memcmp(info->dim, row->dim, bytes) == 0) return ERR_OK;
    RAISE(FORMAT, "weights: %s: shape %s; expected %s, by config.json", info->name,
          weight_shape_text(found, info->dims, info->dim),
          weight_shape_text(expected, row->dims, row->dim));
}

err_t glm_find(int64_t *index, const struct glm_param *row, struct weight_source *source)
{
    const bool is_tied = row->name_tied[0] != '\0';
    const int64_t first = weight_source_find(source, row->name);
    const int64_t second = is_tied ? weight_source_find(source, row->name_tied) : -1;
    const int64_t places[] = { first, second };
    for (int i = 0; i < 2; i++) {
        if (places[i] < 0) continue;
        const struct weight_info info = weight_source_info(source, places[i]);
        TRY(check_shape(row, &info));
    }
    *index = first >= 0 ? first : second;
    if (*index < 0)
        RAISE(FORMAT, "weights: %s: not in the files; is the download complete?", row->name);
    if (first < 0 || second < 0) return ERR_OK;

    int64_t differs = -1;
    TRY(weight_source_compare(&differs, source, first, second));
    if (differs >= 0)
        RAISE(FORMAT,
              "%s and %s are tied and differ first in row %lld; model.tie: false keeps both",
              row->name, row->name_tied, (long long)differs);
    return ERR_OK;
}

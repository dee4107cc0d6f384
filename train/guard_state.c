/* The guard's memory in state.json: numbers in a form that reads back to the same bits. */
#include "train/guard.h"

#include "base/check.h"
#include "base/file.h"
#include "model/json_in.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static json_t *series_to_json(const struct guard_series *s)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < s->count && list != NULL; i++)
        if (json_array_append_new(list, json_real(s->value[i])) != 0) {
            json_decref(list);
            list = NULL;
        }
    return list;
}

static json_t *ranges_to_json(const struct guard_state *s)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < s->rollbacks && list != NULL; i++) {
        json_t *range =
            json_pack("[I, I]", (json_int_t)s->range[i].first, (json_int_t)s->range[i].end);
        if (json_array_append_new(list, range) == 0) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

json_t *guard_state_to_json(const struct guard_state *s)
{
    return json_pack("{s:o, s:o, s:I, s:I, s:o}", "loss", series_to_json(&s->loss), "grad_norm",
                     series_to_json(&s->norm), "skips_in_row", (json_int_t)s->skips_in_row,
                     "rollbacks", (json_int_t)s->rollbacks, "passed_over", ranges_to_json(s));
}

static err_t read_series(struct guard_series *out, const json_t *list, const char *name)
{
    const size_t count = json_array_size(list);
    if (!json_is_array(list) || count > GUARD_WINDOW)
        RAISE(FORMAT, "%s: guard: a window is no list of at most %d numbers", name, GUARD_WINDOW);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_number(value)) RAISE(FORMAT, "%s: guard: a window holds no number", name);
        out->value[i] = json_number_value(value);
    }
    out->count = (int64_t)count;
    return ERR_OK;
}

static err_t read_ranges(struct guard_state *out, const json_t *list, const char *name)
{
    if (!json_is_array(list) || (int64_t)json_array_size(list) != out->rollbacks)
        RAISE(FORMAT, "%s: guard: passed_over is no list of %lld ranges, one for each rollback",
              name, (long long)out->rollbacks);
    for (int64_t i = 0; i < out->rollbacks; i++) {
        const json_t *range = json_array_get(list, (size_t)i);
        const json_t *from = json_array_get(range, 0), *to = json_array_get(range, 1);
        const json_int_t first = json_integer_value(from), end = json_integer_value(to);
        if (json_array_size(range) != 2 || !json_is_integer(from) || !json_is_integer(to) ||
            first < 0 || end <= first)
            RAISE(FORMAT, "%s: guard: passed_over holds no range of steps", name);
        out->range[i] = (struct guard_range){ first, end };
    }
    return ERR_OK;
}

err_t guard_state_from_json(struct guard_state *out, const json_t *json, const char *name)
{
    json_t *loss, *norm, *ranges;
    json_int_t skips, rollbacks;
    json_error_t error;
    char what[FILE_PATH_MAX + 16];
    memset(out, 0, sizeof *out);
    if (json == NULL) return ERR_OK;
    snprintf(what, sizeof what, "%s: guard", name);
    if (json_unpack_ex((json_t *)json, &error, 0, "{s:o, s:o, s:I, s:I, s:o !}", "loss", &loss,
                       "grad_norm", &norm, "skips_in_row", &skips, "rollbacks", &rollbacks,
                       "passed_over", &ranges) != 0)
        return json_in_failure(&error, what);
    if (skips < 0 || rollbacks < 0 || rollbacks > GUARD_RANGES_MAX)
        RAISE(FORMAT, "%s: guard: skips_in_row %lld, rollbacks %lld", name, (long long)skips,
              (long long)rollbacks);
    out->skips_in_row = skips;
    out->rollbacks = rollbacks;
    TRY(read_series(&out->loss, loss, name));
    TRY(read_series(&out->norm, norm, name));
    return read_ranges(out, ranges, name);
}

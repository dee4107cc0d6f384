/*
 * hf_join.h - several weight sources as one: a table of names, each pointing to a tensor of a part.
 * Internal to model/.
 */
#ifndef MODEL_HF_JOIN_H
#define MODEL_HF_JOIN_H

#include "base/arena.h"
#include "base/err.h"
#include "model/name_index.h"
#include "model/weights.h"

#include <stdint.h>

struct hf_part {
    const char *file; /* name inside the folder, in the arena */
    struct weight_source *source;
};

struct hf_row {
    const char *name; /* borrowed from the part, or in the arena */
    int64_t part, index;
};

struct hf_join {
    struct weight_source source; /* first: the interface's pointer is ours */
    struct arena arena;
    struct hf_part *part;
    int64_t part_count, part_capacity;
    struct hf_row *row;
    int64_t row_count, row_capacity;
    struct name_index index; /* after hf_join_finish */
};

/* Yours; weight_source_close(&j->source) closes it with its parts. */
MUST_USE err_t hf_join_create(struct hf_join **out);
/* Take over `source` (closed with the join, also after a failure of this call). */
MUST_USE err_t hf_join_add_part(struct hf_join *j, struct weight_source *source, const char *file);
MUST_USE err_t hf_join_add_row(struct hf_join *j, const char *name, int64_t part, int64_t index);
/* Every tensor of every part under its own name. */
MUST_USE err_t hf_join_add_all(struct hf_join *j);
/* Sort; ERR_FORMAT names a tensor that is in two files, and both. */
MUST_USE err_t hf_join_finish(struct hf_join *j, const char *dir);
/* The file that row `index` is in. */
const char *hf_join_file(const struct hf_join *j, int64_t index);

#endif

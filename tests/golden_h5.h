/*
 * golden_h5.h - the numbers of a golden.h5 file as float64 arrays. HDF5 is used by data/shard.c and
 * here alone.
 *
 *     TRY(golden_open(&golden, path));
 *     TRY_DONE(golden_read(&a, golden, "forward/logits", 3));   // a.value[a.count], a.dim[0..2]
 *     golden_array_clear(&a);
 *     golden_close(golden);
 *
 * Every error names the object and what was expected.
 */
#ifndef TESTS_GOLDEN_H5_H
#define TESTS_GOLDEN_H5_H

#include "base/err.h"

#include <stdint.h>

#define GOLDEN_DIMS_MAX 4

struct golden;

struct golden_array {
    double *value; /* [count]; integers are converted too */
    int64_t count;
    int64_t dim[GOLDEN_DIMS_MAX];
};

/* ERR_NOTFOUND: no such file; ERR_FORMAT: not HDF5. */
MUST_USE err_t golden_open(struct golden **out, const char *path);
void golden_close(struct golden *g);
/* A data set of exactly `dims` dimensions. ERR_NOTFOUND, ERR_FORMAT. Yours; golden_array_clear
 * it. */
MUST_USE err_t golden_read(struct golden_array *out, struct golden *g, const char *name, int dims);
void golden_array_clear(struct golden_array *a);
/* A scalar attribute of an object. */
MUST_USE err_t golden_attribute(double *out, struct golden *g, const char *object,
                                const char *name);
/* Members of a group. */
MUST_USE err_t golden_group_count(int64_t *out, struct golden *g, const char *group);

#endif

/*
 * golden.h - the numbers of a golden folder as float64 arrays, from golden.safetensors or, where
 * the build has HDF5, golden.h5.
 *
 *     TRY(golden_open(&golden, dir));
 *     TRY_DONE(golden_read(&a, golden, "forward/logits", 3));   // a.value[a.count], a.dim[0..2]
 *     golden_array_clear(&a);
 *     golden_close(golden);
 *
 * In safetensors an attribute is a scalar tensor: "forward@loss". Every error names the object and
 * what was expected.
 */
#ifndef TESTS_GOLDEN_H
#define TESTS_GOLDEN_H

#include "base/err.h"

#include <stdint.h>

#define GOLDEN_DIMS_MAX 4

struct golden {
    const struct golden_ops *ops;
};

struct golden_array {
    double *value; /* [count]; integers are converted too */
    int64_t count;
    int64_t dim[GOLDEN_DIMS_MAX];
};

/* What a file format implements; the functions below say what each promises. */
struct golden_ops {
    /* dims in any number up to GOLDEN_DIMS_MAX, into `dims`. */
    err_t (*read)(struct golden_array *out, int *dims, struct golden *g, const char *name);
    err_t (*attribute)(double *out, struct golden *g, const char *object, const char *name);
    err_t (*group_count)(int64_t *out, struct golden *g, const char *group);
    void (*close)(struct golden *g);
};

/* golden.safetensors of the folder, else golden.h5. ERR_NOTFOUND: neither; ERR_FORMAT;
 * ERR_UNSUPPORTED: only golden.h5 is there, and this build has no HDF5. */
MUST_USE err_t golden_open(struct golden **out, const char *dir);
void golden_close(struct golden *g); /* NULL allowed */
/* A data set of exactly `dims` dimensions. ERR_NOTFOUND, ERR_FORMAT. Yours; golden_array_clear
 * it. */
MUST_USE err_t golden_read(struct golden_array *out, struct golden *g, const char *name, int dims);
void golden_array_clear(struct golden_array *a);
/* A scalar attribute of an object. */
MUST_USE err_t golden_attribute(double *out, struct golden *g, const char *object,
                                const char *name);
/* Members of a group. */
MUST_USE err_t golden_group_count(int64_t *out, struct golden *g, const char *group);

/* One format each; golden_h5.c or golden_h5_none.c has the second. */
MUST_USE err_t golden_open_safetensors(struct golden **out, const char *path);
MUST_USE err_t golden_open_h5(struct golden **out, const char *path);

#endif

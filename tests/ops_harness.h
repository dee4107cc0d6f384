/*
 * ops_harness.h - runs the case tables of the operator tests against one backend.
 *
 * An operator is described once (struct ops_op): how many cases its table has, which operands a
 * case has (describe) and how they become a call (invoke). From that the harness
 *   - lays every operand into its own block of device memory, between canaries, with canaries in
 *     the gaps of strided rows, outputs filled with NaN, at addresses 16- but not 64-byte aligned;
 *   - runs the operator there and, on the same inputs widened to float64, in the reference table;
 *   - compares: values within the case's bound, everything that is no output bit-equal to before,
 *     a second run and every thread count bit-equal, no allocation during the call.
 * Device memory is reached through dev_upload and dev_download alone.
 */
#ifndef TESTS_OPS_HARNESS_H
#define TESTS_OPS_HARNESS_H

#include "ref_ops.h"
#include "testing.h"

#include <stdio.h>

enum { OPS_OPERANDS_MAX = 12 };

/* A backend under test: what every cmocka test gets as *state. */
struct ops_env {
    const char *name; /* that dev_open takes */
    struct dev *dev;
    dtype_t dtype;  /* T */
    struct dev ref; /* the judge */
    bool host;      /* dev->threads may be changed */
};

enum ops_role {
    ROLE_NONE,    /* a NULL pointer in this case */
    ROLE_IN,      /* unchanged by the call */
    ROLE_OUT,     /* overwritten; NaN before */
    ROLE_ACC,     /* added to */
    ROLE_INPLACE, /* read and overwritten */
};

/* What is wrong with an operand of its kind, beyond what is wrong with all (ops_check_refusals). */
enum ops_freedom {
    FREE_STRIDE = 1, /* rows may be strided */
    FREE_ROWS = 2,   /* dim[0] is not tied to any other tensor, or may be larger */
    FREE_COLS = 4,   /* so is the last dimension */
    FREE_DIMS = 8,   /* any number of dimensions */
};

struct operand {
    const char *name;
    enum ops_role role;
    dtype_t dtype;    /* on the device under test */
    bool fixed;       /* the reference takes the same dtype, not f64 */
    unsigned freedom; /* enum ops_freedom */
    int dims;
    int64_t dim[TENSOR_DIMS_MAX];
    int64_t gap;   /* elements between rows */
    double *value; /* initial contents, contiguous, rounded to dtype; NULL for outputs */
    double bound;  /* accepted |got - reference| beyond one rounding to dtype; 0: bit-equal */
    bool stored;   /* the bound has room for intermediate values that were rounded to T */
};

struct ops_call {
    const struct ops_op *op;
    const char *title; /* of the case */
    const void *row;   /* the case itself: scalars for invoke */
    dtype_t dtype;     /* T */
    bool rough;        /* too steep for central differences */
    struct operand o[OPS_OPERANDS_MAX];
};

struct ops_op {
    const char *name;
    int operand_count;
    int64_t case_count;
    /* Fill call->title, row and o[] for one case. */
    void (*describe)(struct ops_call *call, int64_t index);
    /* bytes != NULL: store the scratch wanted. Else call. t[i] is NULL for ROLE_NONE. */
    err_t (*invoke)(struct dev *dev, const struct ops_call *call, struct tensor *const t[],
                    struct scratch scratch, int64_t *bytes);
};

/* The tail of an invoke function: builds the args from designated initialisers. */
#define OPS_INVOKE(op, ...)                                                                     \
    do {                                                                                        \
        const struct op##_args args = { __VA_ARGS__ };                                          \
        if (bytes != NULL) {                                                                    \
            *bytes = op_##op##_scratch_bytes(dev, &args);                                       \
            return ERR_OK;                                                                      \
        }                                                                                       \
        return op_##op(dev, &args);                                                             \
    } while (0)

/* ---- describing ---- */

/* Add operand `slot`; cols = 0 makes it one-dimensional. Fill it with ops_fill_*. */
struct operand *ops_operand(struct ops_call *call, int slot, enum ops_role role, const char *name,
                            dtype_t dtype, int64_t rows, int64_t cols);
int64_t operand_count(const struct operand *o);
/* Normal values times `magnitude`, rounded to the operand's dtype; the same for a seed and name. */
void ops_fill_normal(struct operand *o, double magnitude);
/* Integers -limit .. limit: their sums are exact. */
void ops_fill_integer(struct operand *o, int64_t limit);
void ops_fill_constant(struct operand *o, double value);
void ops_fill_i32(struct operand *o, const int32_t *values);
/* bound = k * eps * sqrt(n) * scale: n roundings of values as large as `scale`, in the accumulator
 * dtype, that do not conspire; k is written in the tolerance table of the test file. */
void ops_bound(const struct ops_call *call, struct operand *o, double k, int64_t n, double scale);
/* After ops_bound: room for `k` intermediate values as large as `scale` that the contract rounds to
 * a 16-bit T before this one is computed from them. Nothing where T is its own accumulator. */
void ops_bound_stored(const struct ops_call *call, struct operand *o, double k, double scale);

/* ---- running by hand: for tests of one property ---- */

/* A call laid out in device memory. */
struct ops_laid {
    struct dev *dev;
    const struct ops_call *call;
    struct tensor tensor[OPS_OPERANDS_MAX];
    struct tensor *pointer[OPS_OPERANDS_MAX];
    void *block[OPS_OPERANDS_MAX];            /* device memory, canaries included */
    unsigned char *before[OPS_OPERANDS_MAX];  /* its contents at first, on the host */
    unsigned char *after[OPS_OPERANDS_MAX];   /* ops_fetch puts the contents here */
    int64_t block_bytes[OPS_OPERANDS_MAX];
    struct scratch scratch;
    void *scratch_block;
    int64_t scratch_block_bytes;
};

void ops_lay(struct ops_laid *laid, struct dev *dev, const struct ops_call *call);
void ops_reset(struct ops_laid *laid); /* every block as it was at first, scratch all NaN */
MUST_USE err_t ops_invoke(struct ops_laid *laid);
/* Bring all blocks to the host and check canaries, gaps and inputs. */
void ops_fetch(struct ops_laid *laid);
/* Element i (contiguous count) of an operand after ops_fetch. */
double ops_result(const struct ops_laid *laid, int slot, int64_t i);
/* Row r of an operand after ops_fetch, and how many bytes it has. */
const void *ops_result_row(const struct ops_laid *laid, int slot, int64_t r, size_t *bytes);
void ops_clear(struct ops_laid *laid);
/* Lay, invoke, fetch. */
void ops_run(struct ops_laid *laid, struct dev *dev, const struct ops_call *call);
struct ops_call ops_describe(const struct ops_op *op, dtype_t dtype, int64_t index);
void ops_call_clear(struct ops_call *call);

/* ---- whole tables ---- */

/* Every case: parity, sentinel, determinism over runs and threads, no allocation. */
void ops_check_table(struct ops_env *env, const struct ops_op *op);
/* One of them. */
void ops_check_case(struct ops_env *env, const struct ops_op *op, int64_t index);

/* Give row `r` of operand `in` other values: all other rows of `out` keep their bits, that one
 * changes. For operators that work row by row; on case `index`. */
void ops_check_rows(struct ops_env *env, const struct ops_op *op, int64_t index, int in, int out);

/* `out` in the memory of `in` (where the contract says that it may alias) gives the same bits. */
void ops_check_alias(struct ops_env *env, const struct ops_op *op, int64_t index, int in, int out);

/* A case row with a scalar that must be refused, and how. */
struct ops_bad {
    const void *row;
    err_t code;
};

/* The negative space of case `index`: each operand with a wrong dtype, shape, stride or address,
 * too little scratch, a backend without the operator, and each bad row in place of the case's. All
 * outputs stay untouched. */
void ops_check_refusals(struct ops_env *env, const struct ops_op *op, int64_t index,
                        const struct ops_bad bad[], int64_t bad_count);

/* The reference's backward pass against 4-point central differences of its forward pass. */
enum ops_link_kind { LINK_INPUT, LINK_OUTPUT, LINK_GRADIENT };

struct ops_link {
    enum ops_link_kind kind; /* bwd operand = fwd input | fwd output | gradient of fwd input */
    int bwd, fwd;
};

struct ops_gradient {
    const struct ops_op *fwd, *bwd; /* tables of the same length */
    int64_t link_count;
    struct ops_link links[8];
    /* The scalar whose gradient the backward pass gives, from the outputs of the forward pass and
     * the inputs of the backward pass. */
    double (*loss)(const struct ops_laid *fwd, const struct ops_call *bwd);
};

void ops_check_gradient(struct ops_env *env, const struct ops_gradient *g);
/* One case; false when it was left out: too large, too steep, or an operand is missing. */
bool ops_check_gradient_case(struct ops_env *env, const struct ops_gradient *g, int64_t index);
/* Sum over i of cotangent.value[i] * output element i: the usual loss. */
double ops_inner(const struct ops_laid *laid, int slot, const struct operand *cotangent);

/* Run the tests once per backend of this build ("cpu" in f32, "cuda" in f32 and bf16). */
int ops_main(const char *family, const struct CMUnitTest *tests, size_t count);

#endif

/* Scalars of an update; and the codes of 8-bit moments, made by the preprocessor from their
 * definition, so that no number is written twice. */
#include "kernels/adamw.h"

#include "base/check.h"

#include <math.h>

/* Centre of cell i of n in a decade that ends at `top`; below zero the order is reversed. */
#define CENTRE(top, n, i) ((top) * (0.1 + 0.9 * ((i) + 0.5) / (n)))
#define UP(top, n, i)     (float)CENTRE(top, n, i)
#define DOWN(top, n, i)   (float)-CENTRE(top, n, (n)-1 - (i))

/* Cells i, i+1, ... */
#define CELLS_1(one, top, n, i)   one(top, n, i)
#define CELLS_2(one, top, n, i)   CELLS_1(one, top, n, i), CELLS_1(one, top, n, (i) + 1)
#define CELLS_4(one, top, n, i)   CELLS_2(one, top, n, i), CELLS_2(one, top, n, (i) + 2)
#define CELLS_8(one, top, n, i)   CELLS_4(one, top, n, i), CELLS_4(one, top, n, (i) + 4)
#define CELLS_16(one, top, n, i)  CELLS_8(one, top, n, i), CELLS_8(one, top, n, (i) + 8)
#define CELLS_32(one, top, n, i)  CELLS_16(one, top, n, i), CELLS_16(one, top, n, (i) + 16)
#define CELLS_64(one, top, n, i)  CELLS_32(one, top, n, i), CELLS_32(one, top, n, (i) + 32)
#define CELLS_128(one, top, n, i) CELLS_64(one, top, n, i), CELLS_64(one, top, n, (i) + 64)

const float adamw_code_signed[] = {
    CELLS_64(DOWN, 1e0, 64, 0),  CELLS_32(DOWN, 1e-1, 32, 0),
    CELLS_16(DOWN, 1e-2, 16, 0), CELLS_8(DOWN, 1e-3, 8, 0),
    CELLS_4(DOWN, 1e-4, 4, 0),   CELLS_2(DOWN, 1e-5, 2, 0),
    CELLS_1(DOWN, 1e-6, 1, 0),   0.0f,
    CELLS_1(UP, 1e-6, 1, 0),     CELLS_2(UP, 1e-5, 2, 0),
    CELLS_4(UP, 1e-4, 4, 0),     CELLS_8(UP, 1e-3, 8, 0),
    CELLS_16(UP, 1e-2, 16, 0),   CELLS_32(UP, 1e-1, 32, 0),
    CELLS_64(UP, 1e0, 64, 0),    1.0f,
};

const float adamw_code_unsigned[] = {
    0.0f,
    CELLS_2(UP, 1e-6, 2, 0),
    CELLS_4(UP, 1e-5, 4, 0),
    CELLS_8(UP, 1e-4, 8, 0),
    CELLS_16(UP, 1e-3, 16, 0),
    CELLS_32(UP, 1e-2, 32, 0),
    CELLS_64(UP, 1e-1, 64, 0),
    CELLS_128(UP, 1e0, 128, 0),
    1.0f,
};

STATIC_ASSERT(sizeof adamw_code_signed == 256 * sizeof(float), "a code for every byte");
STATIC_ASSERT(sizeof adamw_code_unsigned == 256 * sizeof(float), "a code for every byte");

static void fill(float bounds[255], const float codes[256])
{
    for (int i = 0; i < 255; i++) {
        const double middle = ((double)codes[i] + (double)codes[i + 1]) / 2; /* exact */
        const float nearest = (float)middle;
        bounds[i] = (double)nearest > middle ? nextafterf(nearest, -2.0f) : nearest;
    }
}

void adamw_bounds_fill(struct adamw_bounds *out)
{
    fill(out->signed_codes, adamw_code_signed);
    fill(out->unsigned_codes, adamw_code_unsigned);
}

struct adamw_scalars adamw_scalars_of(const struct adamw_segments_args *a)
{
    const double t = (double)a->update;
    return (struct adamw_scalars){
        .decay = (float)(1.0 - a->lr * a->weight_decay),
        .beta1 = (float)a->beta1,
        .rest1 = (float)(1.0 - a->beta1),
        .beta2 = (float)a->beta2,
        .rest2 = (float)(1.0 - a->beta2),
        .step = (float)(a->lr / (1.0 - pow(a->beta1, t))),
        .root = (float)(1.0 / sqrt(1.0 - pow(a->beta2, t))),
        .eps = (float)a->eps,
        .grad_scale = (float)a->grad_scale,
    };
}

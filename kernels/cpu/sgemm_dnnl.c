#include "kernels/cpu/sgemm.h"

#include <dnnl.h>

bool sgemm(const struct sgemm_args *g)
{
    return dnnl_sgemm(g->a_transposed ? 'T' : 'N', g->b_transposed ? 'T' : 'N', g->m, g->n, g->k,
                      g->alpha, g->a, g->lda, g->b, g->ldb, g->beta, g->c, g->ldc) == dnnl_success;
}

const char *sgemm_name(void) { return "oneDNN"; }

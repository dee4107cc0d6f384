/* Several ranks around one checkpoint: who writes what, and one verdict for all. */
#include "train/ckpt_impl.h"

#include "base/check.h"
#include "base/num.h"

#include <stdlib.h>
#include <string.h>

int64_t ckpt_rank(const struct ckpt_ranks *ranks) { return ranks ? comm_rank(ranks->comm) : 0; }

int64_t ckpt_rank_count(const struct ckpt_ranks *ranks)
{
    return ranks ? comm_size(ranks->comm) : 1;
}

struct optim_range ckpt_owned(const struct ckpt_ranks *ranks, const struct ckpt_tensor *tensor)
{
    struct optim_range r = { 0, tensor->count };
    if (ranks == NULL) return r;
    ranks->owned(ranks->context, tensor->row, &r.first, &r.count);
    if (r.count > 0) {
        ASSERT(r.first % tensor->per == 0);
        r.first /= tensor->per;
        r.count = div_ceil(r.count, tensor->per);
    }
    ASSERT(r.first >= 0 && r.count >= 0 && (r.count == 0 || r.first + r.count <= tensor->count));
    return r;
}

/* ---- one verdict ---- */

struct verdict {
    int64_t code, sum;
};

/* The text of what failed on rank `from`, told to all. A rank that cannot take part ends it for
 * all. */
static err_t tell_failure(const struct ckpt_ranks *ranks, err_t code, int64_t from,
                          const struct err_record *mine)
{
    const int64_t size = comm_size(ranks->comm);
    char *texts = malloc((size_t)size * ERR_TEXT_MAX);
    if (texts == NULL) {
        comm_abort(ranks->comm, "no memory for the message of a failed checkpoint");
        RAISE(NOMEM, "checkpoint: rank %lld failed, and no memory for its message",
              (long long)from);
    }
    err_t rc = comm_gather_host(ranks->comm, texts, mine->text, ERR_TEXT_MAX);
    if (rc == ERR_OK && mine->code != ERR_OK) {
        rc = err_adopt(mine);
    } else if (rc == ERR_OK) {
        texts[(from + 1) * ERR_TEXT_MAX - 1] = '\0';
        rc = err_raise(code, __FILE__, __LINE__, "rank %lld: %s", (long long)from,
                       &texts[from * ERR_TEXT_MAX]);
    }
    free(texts);
    return rc;
}

err_t ckpt_agree(const struct ckpt_ranks *ranks, err_t rc, int64_t *sum)
{
    if (ranks == NULL) return rc;
    const int64_t size = comm_size(ranks->comm);
    struct err_record mine = { .code = ERR_OK };
    if (rc != ERR_OK) mine = *err_last();
    const struct verdict verdict = { rc, sum ? *sum : 0 };
    struct verdict all[COMM_SIZE_MAX];
    int64_t total = 0, from = -1;
    /* What a communicator says of itself is what the others will hear, too. */
    if (rc == ERR_COMM) return err_adopt(&mine);
    TRY(comm_gather_host(ranks->comm, all, &verdict, sizeof verdict));
    for (int64_t i = 0; i < size; i++) {
        total += all[i].sum;
        if (from < 0 && all[i].code != ERR_OK) from = i;
    }
    if (sum != NULL) *sum = total;
    return from < 0 ? ERR_OK : tell_failure(ranks, (err_t)all[from].code, from, &mine);
}

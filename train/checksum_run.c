#include "train/checksum_run.h"

#include "base/log.h"
#include "base/progress.h"
#include "train/checksum.h"
#include "train/run.h"

static err_t measure(uint32_t *total, struct run *r)
{
    int64_t bytes;
    const double begin_s = time_now_s();
    TRY(checksum_total(total, &bytes, r->optim, zero_ckpt(&r->zero)));
    LOG_D("train", "checksum %08x, %.3f GB here, in %.2f s", *total, (double)bytes / 1e9,
          time_now_s() - begin_s);
    return ERR_OK;
}

err_t checksum_run_saving(struct run *r)
{
    const struct ckpt_ranks *ranks = zero_ckpt(&r->zero);
    r->state.crc32c = 0;
    TRY(ckpt_agree(ranks, checksum_weights_finite(r->optim, ranks, r->state.step), NULL));
    return cfg_int(r->cfg, "train.check_every") > 0 ? measure(&r->state.crc32c, r) : ERR_OK;
}

err_t checksum_run_ranks(struct run *r)
{
    struct checksum sum;
    int what = 0;
    if (r->zero.stage < 3) what |= CHECKSUM_WEIGHTS;
    if (r->zero.stage == 0) what |= CHECKSUM_STATE;
    if (r->zero.comm == NULL || what == 0) return ERR_OK;
    const double begin_s = time_now_s();
    err_t rc = checksum_measure(&sum, r->optim, what);
    if (rc == ERR_OK) rc = checksum_compare_ranks(&sum, r->zero.comm, r->state.step);
    LOG_D("train", "step %lld: %.3f GB compared between ranks in %.3f s", (long long)r->state.step,
          (double)sum.bytes / 1e9, time_now_s() - begin_s);
    checksum_clear(&sum);
    return rc;
}

err_t checksum_run_loaded(struct run *r, const char *dir)
{
    const uint32_t saved = r->state.crc32c;
    uint32_t loaded;
    if (saved == 0 || cfg_int(r->cfg, "train.check_every") == 0) return ERR_OK;
    TRY(measure(&loaded, r));
    if (loaded != saved)
        RAISE(CHECKSUM,
              "%s: its values sum up to %08x in memory, and did to %08x before they were saved: "
              "memory or disk is at fault; with train.check_every: 0 they are loaded all the same",
              dir, loaded, saved);
    LOG_I("train", "checksum of weights and optimizer state: as saved");
    return ERR_OK;
}

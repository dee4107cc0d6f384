#include "train/record.h"

#include "base/log.h"
#include "base/progress.h"
#include "train/checksum.h"
#include "train/run.h"

err_t record_start(struct run *r, bool resumed)
{
    TRY(goodput_open(&r->goodput, r->metrics_path, r->step_first));
    TRY(metrics_open(&r->metrics, r->metrics_path));
    return metrics_clock(&r->metrics, r->step_first, resumed ? "resume" : "start",
                         r->goodput.begun_s);
}

static err_t measure(uint32_t *total, struct run *r)
{
    struct checksum sum;
    const double begin_s = time_now_s();
    const err_t rc = checksum_measure(&sum, r->optim, CHECKSUM_WEIGHTS | CHECKSUM_STATE);
    *total = sum.total;
    LOG_D("train", "checksum %08x of %.3f GB in %.2f s", sum.total, (double)sum.bytes / 1e9,
          time_now_s() - begin_s);
    checksum_clear(&sum);
    return rc;
}

err_t record_check(struct run *r)
{
    r->state.crc32c = 0;
    TRY(checksum_weights_finite(r->optim, r->state.step));
    return cfg_int(r->cfg, "train.check_every") > 0 ? measure(&r->state.crc32c, r) : ERR_OK;
}

err_t record_verify(struct run *r, const char *dir)
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

err_t record_save(struct run *r, double seconds)
{
    if (r->goodput.saves++ == 0)
        LOG_I("train",
              "a checkpoint takes %.1f s; a stop takes that and at most one micro-batch more",
              seconds);
    r->goodput.saved_s = r->goodput.useful_s;
    return metrics_save(&r->metrics, r->state.step, goodput_clock_s(), seconds,
                        r->goodput.useful_s);
}

err_t record_stop(struct run *r)
{
    return metrics_clock(&r->metrics, r->state.step, "stop", goodput_clock_s());
}

err_t record_end(struct run *r)
{
    const struct goodput_report g = goodput_now(&r->goodput);
    LOG_I("train",
          "goodput %.1f %%: %.1f s in steps that count, of %.1f s; %lld restarts, %lld steps "
          "repeated",
          100.0 * g.share, g.useful_s, g.wall_s, (long long)g.restarts, (long long)g.repeated);
    return metrics_goodput(&r->metrics, r->state.step, &g);
}

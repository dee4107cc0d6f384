#include "train/record.h"

#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "train/checksum.h"
#include "train/run.h"
#include "train/snapshot.h"

#include <math.h>

err_t record_start(struct run *r, bool resumed)
{
    TRY(goodput_open(&r->goodput, r->metrics_path, r->state.step));
    TRY(metrics_open(&r->metrics, r->metrics_path));
    return metrics_clock(&r->metrics, r->state.step, resumed ? "resume" : "start",
                         r->goodput.begun_s);
}

static err_t measure(uint32_t *total, struct run *r)
{
    int64_t bytes;
    const double begin_s = time_now_s();
    TRY(checksum_total(total, &bytes, r->optim, zero_ckpt(&r->zero)));
    LOG_D("train", "checksum %08x, %.3f GB here, in %.2f s", *total, (double)bytes / 1e9,
          time_now_s() - begin_s);
    return ERR_OK;
}

/* One rank's weights are reason enough for all. */
static err_t check_finite(struct run *r)
{
    const err_t rc = checksum_weights_finite(r->optim, zero_ckpt(&r->zero), r->state.step);
    const struct err_record first = *err_last();
    bool bad = rc != ERR_OK;
    TRY(zero_any(&r->zero, &bad));
    if (rc != ERR_OK) return err_adopt(&first);
    if (bad)
        RAISE(NUMERIC, "step %lld: another rank has weights that are not finite; nothing was saved",
              (long long)r->state.step);
    return ERR_OK;
}

err_t record_check(struct run *r)
{
    r->state.crc32c = 0;
    TRY(check_finite(r));
    return cfg_int(r->cfg, "train.check_every") > 0 ? measure(&r->state.crc32c, r) : ERR_OK;
}

err_t record_compare(struct run *r)
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
    r->goodput.here.saves++;
    r->goodput.here.paused_s += seconds;
    r->goodput.saved_s = r->goodput.useful_s;
    return metrics_save(&r->metrics, r->state.step, goodput_clock_s(), seconds,
                        r->goodput.useful_s);
}

err_t record_published(struct run *r, const struct snapshot_report *report)
{
    const struct goodput_here *here = &r->goodput.here;
    if (!r->announced)
        LOG_I("train",
              "a checkpoint is written in %.1f s and holds training up for %.1f s; a stop takes "
              "twice both at most, and one micro-batch more",
              report->seconds, here->paused_s / (double)max_i64(here->saves, 1));
    r->announced = true;
    return metrics_published(&r->metrics, report->step, goodput_clock_s(), report->seconds);
}

err_t record_stop(struct run *r)
{
    return metrics_clock(&r->metrics, r->state.step, "stop", goodput_clock_s());
}

err_t record_end(struct run *r)
{
    const struct goodput_report g = goodput_now(&r->goodput);
    LOG_I(
        "train",
        "goodput %.1f %%: %.1f s in steps that count, of %.1f s; %lld restarts, %lld steps "
        "repeated; %lld checkpoints held training up for %.1f s, samples for %.2f %% of the steps",
        100.0 * g.share, g.useful_s, g.wall_s, (long long)g.restarts, (long long)g.repeated,
        (long long)g.here.saves, g.here.paused_s,
        100.0 * g.here.waited_s / fmax(g.here.stepped_s, 1e-9));
    return metrics_goodput(&r->metrics, r->state.step, &g);
}

#include "train/record.h"

#include "base/log.h"
#include "base/num.h"
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

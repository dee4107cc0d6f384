#include "train/one_micro.h"

#include "base/num.h"

#define STEPS_MAX 1000000 /* to look at */

err_t one_micro_check(struct batcher *batcher, int64_t steps, int64_t micro_tokens)
{
    struct step_plan plan;
    for (int64_t step = 0; step < min_i64(steps, STEPS_MAX); step++) {
        TRY(batcher_plan(batcher, &plan, step));
        if (plan.micro_count[0] > 1)
            RAISE(USAGE,
                  "train.update is backward, and step %lld has %lld micro-batches of "
                  "batch.micro_tokens = %lld rows: it must be one; set a larger "
                  "batch.micro_tokens, a smaller batch.size, or train.update: step",
                  (long long)step + 1, (long long)plan.micro_count[0], (long long)micro_tokens);
    }
    return ERR_OK;
}

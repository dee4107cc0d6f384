/* A run as one of several ranks: lanes, device, meeting the others and leaving them. */
#include "base/check.h"
#include "base/digest.h"
#include "train/resume.h"
#include "train/run_impl.h"
#include "train/settings_kind.h"

#include <stdio.h>
#include <string.h>

err_t run_settle_lanes(struct run *r, bool resume, int64_t ranks)
{
    char text[32];
    int64_t lanes = cfg_int(r->cfg, "batch.lanes");
    if (lanes == 0 && resume) TRY(resume_lanes(&lanes, r->ckpt_root));
    if (lanes == 0) lanes = ranks;
    TRY(zero_check_lanes(lanes, ranks));
    snprintf(text, sizeof text, "%lld", (long long)lanes);
    return cfg_set(r->cfg, "batch.lanes", text, "batch.lanes");
}

err_t run_open_device(struct run *r, const struct ranks_place *place)
{
    char own[RANKS_DEVICE_MAX];
    const char *device = ranks_device(own, cfg_str(r->cfg, "train.device"), place);
    return dev_open(&r->dev, device, (int)cfg_int(r->cfg, "train.threads"));
}

/* What must be the same on all ranks: each setting, and the corpus. */
static int64_t list_parts(struct rendezvous_part parts[RENDEZVOUS_PARTS_MAX], const struct run *r)
{
    const char *corpus = shards_sha256(r->shards);
    int64_t count = 0;
    for (int64_t i = 0; i < cfg_row_count(r->cfg); i++) {
        const char *key = cfg_row_at(r->cfg, i)->key, *text = cfg_text(r->cfg, key);
        if (!settings_of_training(key)) continue;
        ASSERT(count < RENDEZVOUS_PARTS_MAX - 1);
        struct rendezvous_part *part = &parts[count++];
        snprintf(part->name, sizeof part->name, "%s", key);
        sha256_of(part->sha256, text, strlen(text));
    }
    parts[count] = (struct rendezvous_part){ .name = "the corpus" };
    sha256_of(parts[count].sha256, corpus, strlen(corpus));
    return count + 1;
}

err_t run_join_ranks(struct run *r, const struct ranks_place *place)
{
    struct rendezvous_part parts[RENDEZVOUS_PARTS_MAX] = { { .name = "" } };
    if (place->size == 1) return ERR_OK;
    const struct ranks_args args = { .place = place,
                                     .dev = r->dev,
                                     .parts = parts,
                                     .part_count = list_parts(parts, r),
                                     .join_s = cfg_float(r->cfg, "train.join_timeout"),
                                     .comm_s = cfg_float(r->cfg, "train.comm_timeout"),
                                     .silence_s = cfg_float(r->cfg, "train.silence") };
    return ranks_join(&r->ranks, &args);
}

/* A stop on request, and a loss that is not finite, are what all ranks have agreed on: each ends by
 * itself, and none is lost. */
err_t run_leave(struct run *r, err_t rc)
{
    struct ranks *ranks = r->ranks;
    zero_note(&r->zero, "end");
    r->ranks = NULL;
    if (rc != ERR_INTERRUPTED && rc != ERR_NUMERIC) return ranks_leave(ranks, rc);
    const struct err_record why = *err_last();
    TRY(ranks_leave(ranks, ERR_OK));
    return err_adopt(&why);
}

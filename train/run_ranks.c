/* A run as one of several ranks: lanes, device, meeting the others and leaving them. */
#include "base/check.h"
#include "base/digest.h"
#include "train/resume.h"
#include "train/run_impl.h"

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
    const char *device = cfg_str(r->cfg, "train.device");
    char numbered[32];
    snprintf(numbered, sizeof numbered, "cuda:%lld", (long long)place->local_rank);
    if (place->size > 1 && strcmp(device, "cuda") == 0) device = numbered;
    return dev_open(&r->dev, device, (int)cfg_int(r->cfg, "train.threads"));
}

err_t run_join_ranks(struct run *r, const struct ranks_place *place)
{
    struct rendezvous_part parts[] = { { .name = "settings" }, { .name = "corpus" } };
    const char *corpus = shards_sha256(r->shards);
    struct buf settings = { 0 };
    if (place->size == 1) return ERR_OK;
    const err_t rc = cfg_dump_yaml(r->cfg, &settings, false);
    if (rc == ERR_OK) sha256_of(parts[0].sha256, settings.data, settings.size);
    buf_clear(&settings);
    TRY(rc);
    sha256_of(parts[1].sha256, corpus, strlen(corpus));
    return ranks_join(&r->ranks, &(struct ranks_args){ .place = place,
                                                       .dev = r->dev,
                                                       .parts = parts,
                                                       .part_count = COUNT_OF(parts) });
}

/* A stop on request, and a loss that is not finite, are what all ranks have agreed on: each ends by
 * itself, and none is lost. */
err_t run_leave(struct run *r, err_t rc)
{
    struct ranks *ranks = r->ranks;
    r->ranks = NULL;
    if (rc != ERR_INTERRUPTED && rc != ERR_NUMERIC) return ranks_leave(ranks, rc);
    const struct err_record why = *err_last();
    TRY(ranks_leave(ranks, ERR_OK));
    return err_adopt(&why);
}

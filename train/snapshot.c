#include "train/snapshot.h"

#include "base/check.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "train/ckpt_impl.h"
#include "train/host_room.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define COPY_ALIGN 64 /* of every piece in the copy */

enum phase {
    IDLE,
    WRITING,    /* every rank's thread; of one rank also publishing */
    PUBLISHING, /* rank 0's thread, after all have written */
};

struct snapshot {
    struct optim *optim;
    const struct ckpt_ranks *ranks;
    bool background;
    char *copy; /* page-locked */
    int64_t copy_bytes;

    enum phase phase;
    struct ckpt_saving saving;
    int64_t written; /* of all ranks, for publishing */
    pthread_t thread;
    bool is_running; /* a thread is to be joined */
    atomic_bool done;
    double ended_s;           /* when the thread was, valid when done */
    struct err_record result; /* of the thread, valid when done */
    struct snapshot_report report;
    bool has_report;
};

/* ---- the copy ---- */

/* A thread's view: pieces lie one after the other in the order in which they are asked for. */
static err_t read_copy(struct ckpt_source *source, const void **out,
                       const struct ckpt_tensor *tensor, int64_t first, int64_t count)
{
    (void)first;
    source->at = align_up(source->at, COPY_ALIGN);
    *out = source->bytes + source->at;
    source->at += count * dtype_bytes(tensor->dtype);
    return ERR_OK;
}

/* Copy a tensor's part of this rank, or, where `copy` is NULL, only count its bytes. */
static err_t copy_tensor(int64_t *at, struct ckpt_source *device, char *copy,
                         const struct ckpt_ranks *ranks, const struct ckpt_tensor *tensor)
{
    const struct optim_range owned = ckpt_owned(ranks, tensor);
    const int64_t unit = dtype_bytes(tensor->dtype), per_piece = CKPT_PIECE_BYTES / unit;
    for (int64_t done = 0; done < owned.count; done += per_piece) {
        const int64_t count = min_i64(per_piece, owned.count - done);
        const void *piece;
        *at = align_up(*at, COPY_ALIGN);
        if (copy != NULL) {
            device->bytes = copy + *at;
            TRY(ckpt_read_device(device, &piece, tensor, owned.first + done, count));
        }
        *at += count * unit;
    }
    return ERR_OK;
}

static err_t copy_all(int64_t *at, struct ckpt_source *device, char *copy,
                      const struct ckpt_ranks *ranks, const struct ckpt_parts *parts)
{
    *at = 0;
    for (int64_t i = 0; i < parts->count; i++)
        for (int64_t t = 0; t < parts->part[i].count; t++)
            TRY(copy_tensor(at, device, copy, ranks, &parts->part[i].tensor[t]));
    return ERR_OK;
}

err_t snapshot_bytes(int64_t *out, const struct glm_params *params,
                     const struct stored_formats *formats)
{
    struct ckpt_parts parts;
    err_t rc = ckpt_parts_create(&parts, params, formats);
    if (rc == ERR_OK) rc = copy_all(out, NULL, NULL, NULL, &parts);
    ckpt_parts_clear(&parts);
    return rc;
}

/* Memory for the copy; the table and the formats of a run do not change. */
static err_t reserve(struct snapshot *s)
{
    static const char what[] = "copy for saving";
    struct dev *dev = optim_target(s->optim)->dev;
    if (s->copy != NULL) return ERR_OK;
    TRY(copy_all(&s->copy_bytes, NULL, NULL, s->ranks, &s->saving.parts));
    TRY(host_room_check(s->copy_bytes, s->ranks != NULL ? s->ranks->comm : NULL, what));
    return dev_host_alloc(dev, (void **)&s->copy, max_i64(s->copy_bytes, 1), what);
}

static err_t take_copy(struct snapshot *s)
{
    struct ckpt_source device = { .optim = s->optim, .ranks = s->ranks };
    int64_t at;
    TRY(dev_sync(optim_target(s->optim)->dev));
    TRY(copy_all(&at, &device, s->copy, s->ranks, &s->saving.parts));
    ASSERT(at == s->copy_bytes);
    return ERR_OK;
}

/* ---- the thread ---- */

static err_t work(struct snapshot *s)
{
    if (s->phase == PUBLISHING) return ckpt_saving_publish(&s->saving, s->written);
    struct ckpt_source copy = { .read = read_copy, .ranks = s->ranks, .bytes = s->copy };
    TRY(ckpt_saving_write(&s->saving, &copy));
    return s->ranks == NULL ? ckpt_saving_publish(&s->saving, s->saving.written) : ERR_OK;
}

static void *run_thread(void *arg)
{
    struct snapshot *s = arg;
    const err_t rc = work(s);
    if (rc != ERR_OK) s->result = *err_last();
    s->ended_s = time_now_s();
    atomic_store(&s->done, true);
    return NULL;
}

/* Where there can be no thread, the work is done at once. */
static void start(struct snapshot *s, enum phase phase)
{
    s->phase = phase;
    s->result = (struct err_record){ .code = ERR_OK };
    atomic_store(&s->done, false);
    s->is_running = pthread_create(&s->thread, NULL, run_thread, s) == 0;
    if (!s->is_running) run_thread(s);
}

static err_t join(struct snapshot *s)
{
    if (s->is_running) pthread_join(s->thread, NULL);
    s->is_running = false;
    return s->result.code == ERR_OK ? ERR_OK : err_adopt(&s->result);
}

/* ---- its end ---- */

static void note(struct snapshot *s)
{
    s->report = (struct snapshot_report){ .step = s->saving.step,
                                          .seconds = s->ended_s - s->saving.begin_s };
    s->has_report = true;
}

bool snapshot_take_report(struct snapshot *s, struct snapshot_report *out)
{
    const bool has = s->has_report;
    if (has) *out = s->report;
    s->has_report = false;
    return has;
}

/* On all ranks, which have agreed on `rc`. */
static err_t end(struct snapshot *s, err_t rc)
{
    if (rc == ERR_OK) note(s);
    s->phase = IDLE;
    return ckpt_saving_end(&s->saving, s->ranks, rc);
}

/* Whether all whose work this phase waits for are done with it; the same on every rank. */
static err_t all_done(bool *out, struct snapshot *s, bool wait)
{
    const bool works = s->phase == WRITING || s->saving.rank == 0;
    err_t rc = ERR_OK;
    if (wait && works) rc = join(s);
    (void)rc; /* told when all are done */
    int64_t count = works && atomic_load(&s->done) ? 1 : 0;
    TRY(ckpt_agree(s->ranks, ERR_OK, &count));
    *out = count == (s->phase == WRITING ? s->saving.rank_count : 1);
    return ERR_OK;
}

/* One phase further, where it is over. */
static err_t advance(struct snapshot *s, bool wait)
{
    bool done = false;
    err_t rc = all_done(&done, s, wait);
    if (rc != ERR_OK) {
        const struct err_record first = *err_last();
        const err_t ignored = join(s);
        (void)ignored;
        rc = err_adopt(&first);
        ckpt_saving_drop(&s->saving, rc);
        s->phase = IDLE;
        return rc;
    }
    if (!done) return ERR_OK;
    const bool works = s->phase == WRITING || s->saving.rank == 0;
    s->written = s->saving.written;
    rc = ckpt_agree(s->ranks, works ? join(s) : ERR_OK, s->phase == WRITING ? &s->written : NULL);
    if (rc != ERR_OK || s->ranks == NULL || s->phase == PUBLISHING) return end(s, rc);
    if (s->saving.rank == 0)
        start(s, PUBLISHING);
    else
        s->phase = PUBLISHING;
    return ERR_OK;
}

err_t snapshot_poll(struct snapshot *s) { return s->phase == IDLE ? ERR_OK : advance(s, false); }

err_t snapshot_wait(struct snapshot *s)
{
    while (s->phase != IDLE) TRY(advance(s, true));
    return ERR_OK;
}

/* ---- saving ---- */

/* Where any machine has no room for the copy, training waits from now on. */
static err_t reserve_everywhere(struct snapshot *s)
{
    const err_t rc = ckpt_agree(s->ranks, reserve(s), NULL);
    if (rc != ERR_NOMEM) return rc;
    LOG_W("ckpt", "training waits while a checkpoint is written: %s", err_last()->text);
    dev_host_free(optim_target(s->optim)->dev, s->copy);
    s->copy = NULL;
    s->background = false;
    return ERR_OK;
}

err_t snapshot_save(struct snapshot *s, const char *root, const struct ckpt_state *state,
                    const struct ckpt_keep *keep)
{
    TRY(snapshot_wait(s));
    err_t rc = ckpt_saving_begin(&s->saving, root, state, s->optim, keep, s->ranks);
    if (rc == ERR_OK && s->background) rc = reserve_everywhere(s);
    if (rc == ERR_OK && s->background) {
        rc = ckpt_agree(s->ranks, take_copy(s), NULL);
        if (rc == ERR_OK) {
            start(s, WRITING);
            return ERR_OK;
        }
    } else if (rc == ERR_OK) {
        rc = ckpt_saving_finish(&s->saving, s->optim, s->ranks);
        s->ended_s = time_now_s();
    }
    return end(s, rc);
}

err_t snapshot_open(struct snapshot **out, struct optim *optim, bool background,
                    const struct ckpt_ranks *ranks)
{
    struct snapshot *s = calloc(1, sizeof *s);
    if (s == NULL) RAISE(NOMEM, "no memory for snapshots");
    s->optim = optim;
    s->ranks = ranks;
    s->background = background;
    *out = s;
    return ERR_OK;
}

void snapshot_close(struct snapshot *s)
{
    if (s == NULL) return;
    if (s->phase != IDLE) {
        const struct err_record first = *err_last(); /* why it is closed now */
        err_t rc = join(s);
        if (rc == ERR_OK && s->saving.is_ours)
            rc = err_raise(ERR_INTERRUPTED, __FILE__, __LINE__, "%s: given up", s->saving.dir);
        if (rc != ERR_OK) LOG_W("ckpt", "not saved: %s", err_last()->text);
        ckpt_saving_drop(&s->saving, rc);
        rc = err_adopt(&first);
        (void)rc; /* said above */
    }
    dev_host_free(optim_target(s->optim)->dev, s->copy);
    free(s);
}

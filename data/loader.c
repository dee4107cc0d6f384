#include "data/loader.h"

#include "base/check.h"
#include "base/num.h"
#include "base/progress.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct slot {
    struct loaded loaded;
    struct step_plan plan; /* of its step */
    int64_t *micro_count;  /* [lane_count] of the plan */
    bool is_empty;         /* the step has nothing in these lanes: its plan alone */
};

/* Slots are used in turn: given_back <= taken <= filled <= given_back + slot_count. */
struct loader {
    struct batcher *batcher;
    struct loader_spec spec;
    pthread_t thread;
    bool thread_started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct slot *slots;
    int64_t slot_count, filled, taken, given_back;
    struct step_plan plan; /* with the caller */
    int64_t *micro_count;  /* [lane_count] of it */
    int64_t left;          /* of its micro-batches in these lanes: not taken yet */
    bool closing, paused, at_work, ended;
    err_t rc; /* of the thread, once it has ended */
    struct err_record error;
    double waited_s;
};

/* ---- the thread ---- */

/* Wait for a slot to fill; NULL when the loader is being closed. */
static struct slot *begin_slot(struct loader *l)
{
    pthread_mutex_lock(&l->lock);
    while (!l->closing && (l->paused || l->filled - l->taken == l->spec.ahead ||
                           l->filled - l->given_back == l->slot_count))
        pthread_cond_wait(&l->changed, &l->lock);
    struct slot *slot = l->closing ? NULL : &l->slots[l->filled % l->slot_count];
    l->at_work = slot != NULL;
    pthread_mutex_unlock(&l->lock);
    return slot;
}

static void end_slot(struct loader *l, bool filled)
{
    pthread_mutex_lock(&l->lock);
    l->at_work = false;
    l->filled += filled;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static void copy_plan(const struct loader *l, struct step_plan *to, int64_t *micro_count,
                      const struct step_plan *plan)
{
    memcpy(micro_count, plan->micro_count, (size_t)l->spec.lane_count * sizeof *micro_count);
    *to = *plan;
    to->micro_count = micro_count;
}

static err_t fill_slot(struct loader *l, struct slot *slot, const struct step_plan *plan,
                       int64_t lane, int64_t index)
{
    copy_plan(l, &slot->plan, slot->micro_count, plan);
    slot->loaded.lane = lane;
    slot->loaded.index = index;
    slot->is_empty = index < 0;
    return slot->is_empty ? ERR_OK : batcher_fill(l->batcher, &slot->loaded.micro, lane, index);
}

/* Hand over what was filled; the next slot, NULL when the loader is being closed. */
static err_t put(struct loader *l, struct slot **slot, const struct step_plan *plan, int64_t lane,
                 int64_t index)
{
    TRY(fill_slot(l, *slot, plan, lane, index));
    end_slot(l, true);
    *slot = begin_slot(l);
    return ERR_OK;
}

static int64_t count_own(const struct loader *l, const struct step_plan *plan)
{
    int64_t count = 0;
    for (int64_t lane = l->spec.lane_first; lane < l->spec.lane_end; lane++)
        count += plan->micro_count[lane];
    return count;
}

/* Planning reads what a pause promises to leave alone, so it happens with a slot in hand. */
static err_t run_step(struct loader *l, int64_t step, struct slot **slot)
{
    struct step_plan plan;
    TRY(batcher_plan(l->batcher, &plan, step));
    if (count_own(l, &plan) == 0) return put(l, slot, &plan, l->spec.lane_first, -1);
    for (int64_t lane = l->spec.lane_first; lane < l->spec.lane_end; lane++)
        for (int64_t i = 0; i < plan.micro_count[lane] && *slot != NULL; i++)
            TRY(put(l, slot, &plan, lane, i));
    return ERR_OK;
}

static void *run_loader(void *arg)
{
    struct loader *l = arg;
    err_t rc = ERR_OK;
    struct slot *slot = begin_slot(l);
    for (int64_t step = l->spec.step_first; step < l->spec.step_end; step++) {
        if (slot == NULL || rc != ERR_OK) break;
        rc = run_step(l, step, &slot);
    }
    pthread_mutex_lock(&l->lock);
    l->rc = rc;
    if (rc != ERR_OK) l->error = *err_last();
    l->ended = true;
    l->at_work = false;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- the caller ---- */

static err_t check_spec(const struct loader_spec *s)
{
    if (s->step_first < 0 || s->step_end < s->step_first || s->lane_first < 0 ||
        s->lane_end <= s->lane_first || (s->lane_count != 0 && s->lane_count < s->lane_end))
        RAISE(ARG, "a loader of steps %lld to %lld, lanes %lld to %lld of %lld",
              (long long)s->step_first, (long long)s->step_end, (long long)s->lane_first,
              (long long)s->lane_end, (long long)s->lane_count);
    if (s->ahead < 1 || s->held < 0 || s->ahead > LOADER_SLOTS_MAX ||
        s->held > LOADER_SLOTS_MAX - s->ahead)
        RAISE(ARG, "a loader that is %lld ahead with %lld held; at least 1 ahead, %d in all",
              (long long)s->ahead, (long long)s->held, LOADER_SLOTS_MAX);
    return ERR_OK;
}

static err_t allocate(struct loader *l)
{
    const size_t lanes = (size_t)l->spec.lane_count;
    l->slots = calloc((size_t)l->slot_count, sizeof *l->slots);
    l->micro_count = calloc(lanes, sizeof *l->micro_count);
    if (l->slots == NULL || l->micro_count == NULL)
        RAISE(NOMEM, "a loader of %lld slots", (long long)l->slot_count);
    for (int64_t i = 0; i < l->slot_count; i++) {
        struct slot *slot = &l->slots[i];
        slot->micro_count = calloc(lanes, sizeof *slot->micro_count);
        if (slot->micro_count == NULL) RAISE(NOMEM, "a loader of %zu lanes", lanes);
    }
    return ERR_OK;
}

static err_t start(struct loader *l)
{
    TRY(allocate(l));
    const int failed = pthread_create(&l->thread, NULL, run_loader, l);
    if (failed) RAISE(NOMEM, "the loader's thread: %s", strerror(failed));
    l->thread_started = true;
    return ERR_OK;
}

err_t loader_open(struct loader **out, struct batcher *batcher, const struct loader_spec *spec)
{
    *out = NULL;
    TRY(check_spec(spec));
    struct loader *l = calloc(1, sizeof *l);
    if (l == NULL) RAISE(NOMEM, "a loader");
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    l->batcher = batcher;
    l->spec = *spec;
    l->spec.held = max_i64(1, spec->held);
    l->slot_count = l->spec.ahead + l->spec.held;
    if (spec->lane_count == 0) l->spec.lane_count = spec->lane_end;
    const err_t rc = start(l);
    if (rc != ERR_OK) {
        loader_close(l);
        return rc;
    }
    *out = l;
    return ERR_OK;
}

/* Locked: the slot to take next, waited for; NULL where the thread has ended before it. */
static const struct slot *wait_slot(struct loader *l)
{
    if (l->taken == l->filled && !l->ended) {
        const double begin_s = time_now_s();
        while (l->taken == l->filled && !l->ended) pthread_cond_wait(&l->changed, &l->lock);
        l->waited_s += time_now_s() - begin_s;
    }
    return l->taken < l->filled ? &l->slots[l->taken % l->slot_count] : NULL;
}

/* Locked. */
static err_t end_of_thread(const struct loader *l)
{
    return l->rc != ERR_OK ? err_adopt(&l->error) : ERR_OK;
}

/* Locked. The plan comes with the first micro-batch of its step. */
static err_t next_plan(struct loader *l, const struct step_plan **out)
{
    const struct slot *slot = wait_slot(l);
    if (slot == NULL) return end_of_thread(l);
    copy_plan(l, &l->plan, l->micro_count, &slot->plan);
    l->left = count_own(l, &l->plan);
    *out = &l->plan;
    if (!slot->is_empty) return ERR_OK;
    l->taken++;
    l->given_back++;
    pthread_cond_broadcast(&l->changed);
    return ERR_OK;
}

err_t loader_plan(struct loader *l, const struct step_plan **out)
{
    *out = NULL;
    pthread_mutex_lock(&l->lock);
    ASSERT(l->left == 0 && l->given_back == l->taken);
    const err_t rc = next_plan(l, out);
    pthread_mutex_unlock(&l->lock);
    return rc;
}

err_t loader_take(struct loader *l, const struct loaded **out)
{
    err_t rc = ERR_OK;
    *out = NULL;
    pthread_mutex_lock(&l->lock);
    ASSERT(l->left > 0 && l->taken - l->given_back < l->spec.held);
    const struct slot *slot = wait_slot(l);
    if (slot != NULL) {
        *out = &slot->loaded;
        l->left--;
        l->taken++;
        pthread_cond_broadcast(&l->changed);
    } else {
        rc = end_of_thread(l);
    }
    pthread_mutex_unlock(&l->lock);
    return rc;
}

int64_t loader_left(const struct loader *l) { return l->left; }

void loader_give_back(struct loader *l)
{
    pthread_mutex_lock(&l->lock);
    ASSERT(l->given_back < l->taken);
    l->given_back++;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

void loader_pause(struct loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->paused = true;
    while (l->at_work) pthread_cond_wait(&l->changed, &l->lock);
    pthread_mutex_unlock(&l->lock);
}

void loader_resume(struct loader *l)
{
    pthread_mutex_lock(&l->lock);
    l->paused = false;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

double loader_waited_s(const struct loader *l) { return l->waited_s; }

void loader_close(struct loader *l)
{
    if (l == NULL) return;
    if (l->thread_started) {
        pthread_mutex_lock(&l->lock);
        l->closing = true;
        pthread_cond_broadcast(&l->changed);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    for (int64_t i = 0; l->slots != NULL && i < l->slot_count; i++) {
        micro_batch_clear(&l->slots[i].loaded.micro);
        free(l->slots[i].micro_count);
    }
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l->slots);
    free(l->micro_count);
    free(l);
}

#include "data/pool.h"

#include "base/check.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct slot {
    void *item;
    bool done;
    err_t rc;
    struct err_record error; /* of rc, which is another thread's */
};

/* Items are numbered; item n lies in slot n % slot_count. taken <= begun <= put <= taken +
 * slot_count. */
struct pool {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct slot *slots;
    int64_t slot_count, put, begun, taken;
    bool closing;
    pool_work work;
    const void *context;
    pthread_t *threads;
    int64_t thread_count;
};

static void *run_worker(void *arg)
{
    struct pool *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->closing && p->begun == p->put) pthread_cond_wait(&p->changed, &p->lock);
        if (p->closing) break;
        struct slot *slot = &p->slots[p->begun++ % p->slot_count];
        pthread_mutex_unlock(&p->lock);
        slot->rc = p->work(p->context, slot->item);
        if (slot->rc != ERR_OK) slot->error = *err_last();
        pthread_mutex_lock(&p->lock);
        slot->done = true;
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

err_t pool_open(struct pool **out, int64_t threads, int64_t slots, pool_work work,
                const void *context)
{
    err_t rc = ERR_OK;
    ASSERT(threads >= 1 && slots >= 1);
    *out = NULL;
    struct pool *p = calloc(1, sizeof *p);
    if (p == NULL) RAISE(NOMEM, "a pool of threads");
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, NULL);
    p->work = work;
    p->context = context;
    p->slot_count = slots;
    p->slots = calloc((size_t)slots, sizeof *p->slots);
    p->threads = calloc((size_t)threads, sizeof *p->threads);
    if (p->slots == NULL || p->threads == NULL)
        RAISE_DONE(NOMEM, "a pool of %lld threads", (long long)threads);
    for (; p->thread_count < threads; p->thread_count++) {
        const int failed = pthread_create(&p->threads[p->thread_count], NULL, run_worker, p);
        if (failed)
            RAISE_DONE(NOMEM, "thread %lld of %lld: %s", (long long)p->thread_count + 1,
                       (long long)threads, strerror(failed));
    }
    *out = p;
done:
    if (rc != ERR_OK) pool_close(p);
    return rc;
}

void pool_put(struct pool *p, void *item)
{
    pthread_mutex_lock(&p->lock);
    ASSERT(p->put - p->taken < p->slot_count);
    p->slots[p->put++ % p->slot_count] = (struct slot){ .item = item };
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

err_t pool_take(struct pool *p, void **item)
{
    ASSERT(p->taken < p->put);
    struct slot *slot = &p->slots[p->taken % p->slot_count];
    pthread_mutex_lock(&p->lock);
    while (!slot->done) pthread_cond_wait(&p->changed, &p->lock);
    p->taken++;
    pthread_mutex_unlock(&p->lock);
    *item = slot->item;
    if (slot->rc != ERR_OK) err_adopt(&slot->error);
    return slot->rc;
}

int64_t pool_in_flight(const struct pool *p) { return p->put - p->taken; }

void pool_close(struct pool *p)
{
    if (p == NULL) return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->lock);
    for (int64_t i = 0; i < p->thread_count; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p->slots);
    free(p->threads);
    free(p);
}

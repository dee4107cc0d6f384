/* Work on all files of a checkpoint, several at a time: digests are a matter of cores. */
#include "train/ckpt_impl.h"

#include "base/num.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#define CREW_MAX       16
#define CREW_BYTES_MIN (4 << 20) /* less is done sooner than threads start */

struct crew {
    struct ckpt_manifest *manifest;
    const char *dir;
    ckpt_file_work *work;
    atomic_llong next;
    atomic_bool failed;
    pthread_mutex_t lock;
    int64_t first; /* the first file that failed: the others' failures are not told */
    struct err_record error;
};

static void note_failure(struct crew *c, int64_t index)
{
    pthread_mutex_lock(&c->lock);
    if (c->error.code == ERR_OK || index < c->first) {
        c->first = index;
        c->error = *err_last();
    }
    pthread_mutex_unlock(&c->lock);
    atomic_store(&c->failed, true);
}

static void *run_member(void *arg)
{
    struct crew *c = arg;
    /* Files are taken in order, so those before one that fails are all done. */
    while (!atomic_load(&c->failed)) {
        const int64_t i = atomic_fetch_add(&c->next, 1);
        if (i >= c->manifest->file_count) break;
        if (c->work(&c->manifest->file[i], c->dir) != ERR_OK) note_failure(c, i);
    }
    return NULL;
}

err_t ckpt_each_file(struct ckpt_manifest *m, const char *dir, int64_t bytes, ckpt_file_work *work)
{
    struct crew c = { .manifest = m, .dir = dir, .work = work, .lock = PTHREAD_MUTEX_INITIALIZER };
    pthread_t thread[CREW_MAX];
    const int64_t cores = sysconf(_SC_NPROCESSORS_ONLN);
    const int64_t wanted = min_i64(min_i64(CREW_MAX, cores), m->file_count);
    int64_t started = 0;
    /* This thread is one of them, and does it all where no other can be had. */
    while (bytes >= CREW_BYTES_MIN && started + 1 < wanted &&
           pthread_create(&thread[started], NULL, run_member, &c) == 0)
        started++;
    run_member(&c);
    for (int64_t i = 0; i < started; i++) pthread_join(thread[i], NULL);
    return c.error.code == ERR_OK ? ERR_OK : err_adopt(&c.error);
}

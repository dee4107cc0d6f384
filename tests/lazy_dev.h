/*
 * lazy_dev.h - the host as a device whose queues run late and beside each other: what is queued is
 * done when an event forces it, or before, as a seed decides. A program that waits for the right
 * events computes the same bits as on a device that does everything at once.
 *
 *     struct dev *dev = lazy_dev_open(7);      // seed; 0: nothing runs before it must
 *     ... any code of kernels/, model/, train/ ...
 *     lazy_dev_close(dev);
 *
 * op_adamw_segments and copies are deferred. Other operators and uploads wait for the compute queue
 * and run at once, which a real device may do too. Whatever is not allowed fails the test: a copy
 * between queues that touches memory of neither dev_alloc nor dev_host_alloc, memory freed under
 * queued work.
 */
#ifndef TESTS_LAZY_DEV_H
#define TESTS_LAZY_DEV_H

#include "kernels/dev.h"

#include <stdint.h>

struct dev *lazy_dev_open(uint64_t seed);
void lazy_dev_close(struct dev *dev);
bool lazy_dev_is(const struct dev *dev);
/* Copies that ran later than they were queued, so far: a test that sees 0 has tested nothing. */
int64_t lazy_dev_late(const struct dev *dev);
/* Ignore what this queue is told to wait for, to see a test notice. */
void lazy_dev_deafen(struct dev *dev, enum dev_queue queue);
/* The n-th operation that is queued from now on fails with ERR_CUDA, when it runs; 0: none. */
void lazy_dev_fail(struct dev *dev, int64_t n);

#endif

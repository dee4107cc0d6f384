/*
 * host.h - the host as a device: memory and threads, shared by every backend that computes there.
 * Private to kernels/.
 */
#ifndef KERNELS_CPU_HOST_H
#define KERNELS_CPU_HOST_H

#include "kernels/dev.h"

extern const struct dev_memory host_memory;

/* OMP_NUM_THREADS where it is set, else the CPUs this process may run on. */
int host_thread_count(void);
void host_describe(struct dev_info *info);

#endif

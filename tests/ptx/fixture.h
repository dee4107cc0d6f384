/* fixture.h - a few lines of PTX run as a kernel. */
#ifndef TESTS_PTX_FIXTURE_H
#define TESTS_PTX_FIXTURE_H

#include "ptx/ptx.h"

#include <string>

/* `lines` between a header that declares %p, %h (16 bits), %r (32), %l (64), "s" of 4096 bytes of
 * shared memory and "d", dynamic, and `ret`. Before them %l0 is `data`, %r0 is %tid.x, %l9 the
 * thread's place: data + 16 * %tid.x. */
std::string ptx_text(const std::string &lines);

struct ptx_launch_shape {
    uint32_t grid = 1, block = 32;
    int64_t dynamic_bytes = 0;
    ptx::range (*owner)(void *context, uint64_t address) = nullptr;
    void *context = nullptr;
    bool same_bits = false;
};

/* What run() answers; load() must succeed. */
std::string ptx_run(const std::string &lines, void *data, const ptx_launch_shape &shape = {});

/* The answer must have this part. */
void assert_ptx_refused(const std::string &answer, const char *part);

#endif

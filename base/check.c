#include "base/check.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void check_failed(const char *file, int line, const char *expr)
{
    void *frames[32];
    fprintf(stderr, "%s:%d: ASSERT(%s) does not hold; this is a bug in soulchat\n", file, line,
            expr);
    const int count = backtrace(frames, 32);
    backtrace_symbols_fd(frames, count, STDERR_FILENO);
    abort();
}

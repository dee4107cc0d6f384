#include "eval/console.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void console_open(void) { signal(SIGPIPE, SIG_IGN); }

bool console_is_gone(int fd, int error)
{
    struct stat about;
    return error == EIO && fstat(fd, &about) == 0 && S_ISCHR(about.st_mode);
}

err_t console_write(const char *text, int64_t size)
{
    while (size > 0) {
        const ssize_t written = write(STDOUT_FILENO, text, (size_t)size);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0 && errno == EPIPE)
            RAISE(IO, "write to standard output: its reader has closed it");
        if (written < 0 && console_is_gone(STDOUT_FILENO, errno))
            RAISE(INTERRUPTED, "the terminal was closed");
        if (written <= 0) RAISE(IO, "write to standard output: %s", strerror(errno));
        text += written;
        size -= written;
    }
    return ERR_OK;
}

err_t console_puts(const char *text) { return console_write(text, (int64_t)strlen(text)); }

#include "testing.h"

#include "base/err.h"
#include "base/file.h"
#include "base/stop.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Read by AddressSanitizer: malloc of too much returns NULL, as elsewhere, so that ERR_NOMEM can be
 * tested in sanitizer builds too. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }

/*
 * In the place of the system's, which makes hundreds of saves wait for a disk: tests kill programs
 * and not machines, and a file system keeps what a killed program has written. What a loss of power
 * would leave is for crash_shim.h, which looks at each call. A wrong descriptor fails as it should.
 */
__attribute__((weak)) int fsync(int fd) { return fcntl(fd, F_GETFD) < 0 ? -1 : 0; }

void testing_assert_code(err_t got, err_t expected, const char *part, const char *expr,
                         const char *file, int line)
{
    const struct err_record *rec = err_last();
    const int text_matches = expected == ERR_OK || strstr(rec->text, part) != NULL;
    if (got == expected && text_matches) return;

    fprintf(stderr, "%s:%d: %s\n  gave %s, expected %s", file, line, expr, err_name(got),
            err_name(expected));
    if (!text_matches) fprintf(stderr, " with \"%s\" in its message", part);
    fprintf(stderr, "\n");
    if (got != ERR_OK) {
        fprintf(stderr, "  %s\n", rec->text);
        for (int i = 0; i < rec->frame_count; i++)
            fprintf(stderr, "    at %s:%d %s\n", rec->frames[i].file, rec->frames[i].line,
                    rec->frames[i].expr);
    }
    _fail(file, line);
}

/* Taken is noted: the thread that takes a signal notes it next, and gets the time for that. */
void testing_signal(int signal_number)
{
    sigset_t pending;
    assert_ok(stop_catch());
    signal(signal_number, SIG_DFL); /* whoever started this test may have had it ignored */
    assert_int_equal(kill(getpid(), signal_number), 0);
    do {
        usleep(10000);
        assert_int_equal(sigpending(&pending), 0);
    } while (sigismember(&pending, signal_number));
    usleep(10000);
}

static char test_dir[256];

static void remove_test_dir(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", test_dir);
    if (test_dir[0] != '\0' && system(command) != 0) fprintf(stderr, "left behind: %s\n", test_dir);
}

const char *testing_dir(void)
{
    if (test_dir[0] != '\0') return test_dir;
    const char *base = getenv("TMPDIR");
    snprintf(test_dir, sizeof test_dir, "%s/soulchat-test-XXXXXX", base ? base : "/tmp");
    if (mkdtemp(test_dir) == NULL) {
        perror(test_dir);
        exit(1);
    }
    atexit(remove_test_dir);
    return test_dir;
}

const char *testing_path(const char *name)
{
    static char path[8][FILE_PATH_MAX];
    static int turn;
    char *out = path[turn++ % 8];
    assert_ok(path_join(out, testing_dir(), name));
    return out;
}

const char *testing_shared(const char *relative)
{
    static char path[1024];
    const char *root = getenv("SOULCHAT_SHARED");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared", relative);
    return access(path, R_OK) == 0 ? path : NULL;
}

const char *testing_gpu(void)
{
    const char *gpu = getenv("SOULCHAT_TEST_GPU");
    return gpu == NULL || gpu[0] == '\0' ? "emu" : gpu;
}

int testing_wants(const char *device)
{
    const char *list = getenv("SOULCHAT_TEST_DEVICES");
    const size_t length = strlen(device);
    if (list == NULL || list[0] == '\0') return 1;
    for (; *list != '\0'; list += strcspn(list, ","), list += *list == ',')
        if (strcspn(list, ",") == length && strncmp(list, device, length) == 0) return 1;
    return 0;
}

void testing_skip_all(const char *reason)
{
    printf("SKIP: %s\n", reason);
    exit(77);
}

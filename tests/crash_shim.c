#include "crash_shim.h"

#include "base/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#define FDS_MAX 256

int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
ssize_t __real_pwrite(int fd, const void *bytes, size_t size, off_t offset);
int __real_ftruncate(int fd, off_t size);
int __real_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __real_renameat2(int dir_from, const char *from, int dir_to, const char *to, unsigned flags);
int __real_remove(const char *path);
int __real_unlink(const char *path);
int __real_mkdir(const char *path, mode_t mode);
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
char *__real_strdup(const char *text);
void __real_free(void *data);
ssize_t __real___getdelim(char **line, size_t *room, int end, FILE *file);

int __real_statvfs(const char *path, struct statvfs *out);
int __wrap_statvfs(const char *path, struct statvfs *out);
int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int fd);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t size, off_t offset);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_fsync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat2(int dir_from, const char *from, int dir_to, const char *to, unsigned flags);
int __wrap_remove(const char *path);
int __wrap_unlink(const char *path);
int __wrap_mkdir(const char *path, mode_t mode);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
char *__wrap_strdup(const char *text);
void __wrap_free(void *data);
ssize_t __wrap___getdelim(char **line, size_t *room, int end, FILE *file);
ssize_t __wrap_getline(char **line, size_t *room, FILE *file);

static struct {
    char root[512]; /* empty: not recording */
    struct shim_trace trace;
    char fd_path[FDS_MAX][SHIM_PATH_MAX]; /* of open ones below root; "?" others */
    struct shim_failure failure;
    int64_t calls;
    int64_t fail_allocation;
    int64_t said_free; /* 1 + bytes; 0: the truth */
    _Atomic int64_t allocations, live;
} shim;

void shim_free_space(int64_t bytes) { shim.said_free = bytes + 1; }

int __wrap_statvfs(const char *path, struct statvfs *out)
{
    const int rc = __real_statvfs(path, out);
    if (rc != 0 || shim.said_free == 0) return rc;
    out->f_frsize = 1;
    out->f_bavail = (fsblkcnt_t)(shim.said_free - 1);
    return 0;
}

/* ---- recording ---- */

void shim_record(const char *root)
{
    shim.root[0] = '\0';
    for (int i = 0; i < FDS_MAX; i++) strcpy(shim.fd_path[i], "?");
    if (root == NULL) return;
    for (int64_t i = 0; i < shim.trace.count; i++) __real_free(shim.trace.call[i].bytes);
    __real_free(shim.trace.call);
    shim.trace = (struct shim_trace){ .count = 0 };
    ASSERT(strlen(root) < sizeof shim.root);
    strcpy(shim.root, root);
}

const struct shim_trace *shim_recorded(void) { return &shim.trace; }

/* From root on; NULL for what does not lie below it. */
static const char *below_root(const char *path)
{
    const size_t size = strlen(shim.root);
    if (size == 0 || strncmp(path, shim.root, size) != 0) return NULL;
    while (path[size] == '/') path++;
    return path + size;
}

static void record(enum shim_kind kind, const char *path, const char *to, const void *bytes,
                   int64_t size, int64_t offset)
{
    struct shim_trace *t = &shim.trace;
    if (path == NULL) return;
    ASSERT(strlen(path) < SHIM_PATH_MAX && (to == NULL || strlen(to) < SHIM_PATH_MAX));
    t->call = __real_realloc(t->call, (size_t)(t->count + 1) * sizeof *t->call);
    ASSERT(t->call != NULL);
    struct shim_call *c = &t->call[t->count++];
    *c = (struct shim_call){ .kind = kind, .offset = offset, .size = size };
    strcpy(c->path, path);
    if (to != NULL) strcpy(c->to, to);
    if (bytes == NULL) return;
    c->bytes = __real_malloc((size_t)size + 1);
    ASSERT(c->bytes != NULL);
    memcpy(c->bytes, bytes, (size_t)size);
}

static const char *path_of_fd(int fd)
{
    if (fd < 0 || fd >= FDS_MAX || shim.root[0] == '\0' || strcmp(shim.fd_path[fd], "?") == 0)
        return NULL;
    return shim.fd_path[fd];
}

/* ---- failing ---- */

void shim_fail(const struct shim_failure *failure)
{
    shim.failure = failure ? *failure : (struct shim_failure){ .calls = 0 };
    shim.calls = 0;
}

int64_t shim_calls(void) { return shim.calls; }

static bool fails(void)
{
    const struct shim_failure *f = &shim.failure;
    shim.calls++;
    if (f->calls == 0 || shim.calls < f->calls || (shim.calls > f->calls && !f->onwards))
        return false;
    errno = f->error;
    return true;
}

/* ---- calls ---- */

int __wrap_open(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    const mode_t mode = (flags & O_CREAT) ? va_arg(list, mode_t) : 0;
    va_end(list);
    if ((flags & O_CREAT) && fails()) return -1;
    const int fd = __real_open(path, flags, mode);
    const char *below = below_root(path);
    if (fd >= 0 && fd < FDS_MAX) strcpy(shim.fd_path[fd], below ? below : "?");
    if (fd >= 0 && (flags & O_CREAT)) record(SHIM_CREATE, below, NULL, NULL, 0, 0);
    return fd;
}

/* A failing close still closes, as Linux does. */
int __wrap_close(int fd)
{
    const bool is_writer = path_of_fd(fd) != NULL;
    if (fd >= 0 && fd < FDS_MAX) strcpy(shim.fd_path[fd], "?");
    const int rc = __real_close(fd);
    return is_writer && fails() ? -1 : rc;
}

ssize_t __wrap_pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    if (shim.failure.shorten && size > 1) size = 1 + size / 3;
    if (fails()) return -1;
    const ssize_t n = __real_pwrite(fd, bytes, size, offset);
    if (n > 0) record(SHIM_WRITE, path_of_fd(fd), NULL, bytes, n, offset);
    return n;
}

int __wrap_ftruncate(int fd, off_t size)
{
    if (fails()) return -1;
    const int rc = __real_ftruncate(fd, size);
    if (rc == 0) record(SHIM_TRUNCATE, path_of_fd(fd), NULL, NULL, size, 0);
    return rc;
}

int __wrap_fsync(int fd)
{
    if (fails()) return -1;
    const int rc = __real_fsync(fd);
    if (rc == 0) record(SHIM_SYNC, path_of_fd(fd), NULL, NULL, 0, 0);
    return rc;
}

int __wrap_rename(const char *from, const char *to)
{
    if (fails()) return -1;
    const int rc = __real_rename(from, to);
    if (rc == 0) record(SHIM_RENAME, below_root(from), below_root(to), NULL, 0, 0);
    return rc;
}

int __wrap_renameat2(int dir_from, const char *from, int dir_to, const char *to, unsigned flags)
{
    if (fails()) return -1;
    const int rc = __real_renameat2(dir_from, from, dir_to, to, flags);
    if (rc == 0)
        record(flags != 0 ? SHIM_EXCHANGE : SHIM_RENAME, below_root(from), below_root(to), NULL, 0,
               0);
    return rc;
}

int __wrap_remove(const char *path)
{
    if (fails()) return -1;
    const int rc = __real_remove(path);
    if (rc == 0) record(SHIM_REMOVE, below_root(path), NULL, NULL, 0, 0);
    return rc;
}

int __wrap_unlink(const char *path)
{
    if (fails()) return -1;
    const int rc = __real_unlink(path);
    if (rc == 0) record(SHIM_REMOVE, below_root(path), NULL, NULL, 0, 0);
    return rc;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    struct stat st;
    if (stat(path, &st) != 0 && fails()) return -1; /* what is there changes nothing */
    const int rc = __real_mkdir(path, mode);
    if (rc == 0) record(SHIM_MKDIR, below_root(path), NULL, NULL, 0, 0);
    return rc;
}

/* ---- allocations ---- */

void shim_fail_allocation(int64_t n)
{
    shim.fail_allocation = n;
    shim.allocations = 0;
}

int64_t shim_allocations(void) { return shim.allocations; }

int64_t shim_live(void) { return shim.live; }

static bool allocation_fails(void)
{
    if (++shim.allocations != shim.fail_allocation) return false;
    errno = ENOMEM;
    return true;
}

static void *counted(void *data)
{
    shim.live += data != NULL;
    return data;
}

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : counted(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : counted(__real_calloc(count, size));
}

void *__wrap_realloc(void *data, size_t size)
{
    if (allocation_fails()) return NULL;
    return data == NULL ? counted(__real_realloc(data, size)) : __real_realloc(data, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
    return allocation_fails() ? NULL : counted(__real_aligned_alloc(align, size));
}

char *__wrap_strdup(const char *text)
{
    return allocation_fails() ? NULL : counted(__real_strdup(text));
}

void __wrap_free(void *data)
{
    shim.live -= data != NULL;
    __real_free(data);
}

/* The library's own allocation, which the program frees; getline may be either function. */
ssize_t __wrap___getdelim(char **line, size_t *room, int end, FILE *file)
{
    const bool had = *line != NULL;
    const ssize_t size = __real___getdelim(line, room, end, file);
    shim.live += !had && *line != NULL;
    return size;
}

ssize_t __wrap_getline(char **line, size_t *room, FILE *file)
{
    return __wrap___getdelim(line, room, '\n', file);
}

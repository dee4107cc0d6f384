#include "base/file.h"

#include "base/check.h"
#include "base/fault.h"
#include "base/num.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* One call moves at most this much: Linux itself stops at 2 GiB - 4 KiB. */
#define IO_PIECE_BYTES ((int64_t)1 << 30)

/* ---- writing ---- */

err_t file_writer_open(struct file_writer *w, const char *path)
{
    *w = (struct file_writer){ .fd = -1 };
    if (path[0] == '\0') RAISE(ARG, "cannot write a file with an empty name");
    if (snprintf(w->path_tmp, sizeof w->path_tmp, "%s.tmp", path) >= FILE_PATH_MAX) {
        w->path_tmp[0] = '\0';
        RAISE(ARG, "path of %zu bytes, at most %d: %.80s...", strlen(path), FILE_PATH_MAX - 5,
              path);
    }
    memcpy(w->path, path, strlen(path) + 1);

    err_t rc = ERR_OK;
    struct stat st;
    /* The rename would put a file in the place of /dev/null. */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        RAISE_DONE(IO, "%s: %s, where a file is to be written", path,
                   S_ISDIR(st.st_mode) ? "a directory" : "a pipe or a device");
    TRY_DONE(fault_point("file.open"));
    w->fd = open(w->path_tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) RAISE_DONE(IO, "open %s: %s", w->path_tmp, strerror(errno));
done:
    if (rc != ERR_OK) w->path_tmp[0] = '\0';
    return rc;
}

static err_t write_at(int fd, const char *path, const void *bytes, int64_t size, int64_t offset)
{
    ASSERT(size >= 0 && offset >= 0);
    for (int64_t done = 0; done < size;) {
        TRY(fault_point("file.write"));
        const int64_t piece = min_i64(size - done, IO_PIECE_BYTES);
        const ssize_t n = pwrite(fd, (const char *)bytes + done, (size_t)piece, offset + done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            RAISE(IO, "write %s, %lld bytes at %lld: %s", path, (long long)piece,
                  (long long)(offset + done), n < 0 ? strerror(errno) : "nothing was written");
        done += n;
    }
    return ERR_OK;
}

err_t file_writer_pwrite(struct file_writer *w, const void *bytes, int64_t size, int64_t offset)
{
    ASSERT(w->path_tmp[0] != '\0');
    return write_at(w->fd, w->path_tmp, bytes, size, offset);
}

err_t file_writer_append(struct file_writer *w, const void *bytes, int64_t size)
{
    TRY(file_writer_pwrite(w, bytes, size, w->offset));
    w->offset += size;
    return ERR_OK;
}

/* fsync of the directory that holds `path`. */
static err_t sync_parent(const char *path)
{
    char parent[FILE_PATH_MAX];
    ASSERT(strlen(path) < sizeof parent);
    memcpy(parent, path, strlen(path) + 1);
    char *slash = strrchr(parent, '/');
    if (slash == NULL) return dir_sync(".");
    slash[slash == parent] = '\0'; /* "/name" has the parent "/" */
    return dir_sync(parent);
}

err_t file_writer_commit(struct file_writer *w)
{
    ASSERT(w->path_tmp[0] != '\0');
    err_t rc = ERR_OK;
    TRY_DONE(fault_point("file.sync"));
    if (fsync(w->fd) != 0) RAISE_DONE(IO, "fsync %s: %s", w->path_tmp, strerror(errno));
    const int fd = w->fd;
    w->fd = -1;
    if (close(fd) != 0) RAISE_DONE(IO, "close %s: %s", w->path_tmp, strerror(errno));
    TRY_DONE(fault_point("file.rename"));
    if (rename(w->path_tmp, w->path) != 0)
        RAISE_DONE(IO, "rename %s to %s: %s", w->path_tmp, w->path, strerror(errno));
    w->path_tmp[0] = '\0'; /* nothing is left to remove */
    TRY_DONE(sync_parent(w->path));
done:
    file_writer_close(w);
    return rc;
}

void file_writer_close(struct file_writer *w)
{
    if (w->path_tmp[0] == '\0') return; /* also a zeroed writer, whose fd 0 is not ours */
    if (w->fd >= 0) close(w->fd);       /* nobody will read what is discarded */
    unlink(w->path_tmp);
    w->fd = -1;
    w->path_tmp[0] = '\0';
}

err_t file_replace(const char *path, const void *bytes, int64_t size)
{
    err_t rc = ERR_OK;
    struct file_writer w = { 0 };
    TRY_DONE(file_writer_open(&w, path));
    TRY_DONE(file_writer_append(&w, bytes, size));
    TRY_DONE(file_writer_commit(&w));
done:
    file_writer_close(&w);
    return rc;
}

/* ---- parts of a file ---- */

static err_t open_part(struct file_part *part, const char *path, int flags)
{
    *part = (struct file_part){ .fd = -1 };
    TRY(path_copy(part->path, path));
    err_t rc = ERR_OK;
    TRY_DONE(fault_point("file.open"));
    part->fd = open(path, flags | O_CLOEXEC, 0666);
    if (part->fd < 0) RAISE_DONE(IO, "open %s: %s", path, strerror(errno));
done:
    if (rc != ERR_OK) part->path[0] = '\0';
    return rc;
}

err_t file_part_create(const char *path, const void *head, int64_t head_bytes, int64_t bytes)
{
    err_t rc = ERR_OK;
    struct file_part part;
    TRY(open_part(&part, path, O_WRONLY | O_CREAT | O_TRUNC));
    TRY_DONE(fault_point("file.truncate"));
    if (ftruncate(part.fd, bytes) != 0)
        RAISE_DONE(IO, "write %s: %lld bytes: %s", path, (long long)bytes, strerror(errno));
    TRY_DONE(file_part_pwrite(&part, head, head_bytes, 0));
done:
    file_part_close(&part);
    return rc;
}

err_t file_part_open(struct file_part *part, const char *path)
{
    return open_part(part, path, O_WRONLY);
}

err_t file_part_pwrite(struct file_part *part, const void *bytes, int64_t size, int64_t offset)
{
    ASSERT(part->path[0] != '\0');
    return write_at(part->fd, part->path, bytes, size, offset);
}

err_t file_part_commit(struct file_part *part)
{
    err_t rc = ERR_OK;
    TRY_DONE(fault_point("file.sync"));
    if (fsync(part->fd) != 0) RAISE_DONE(IO, "fsync %s: %s", part->path, strerror(errno));
    const int fd = part->fd;
    part->fd = -1;
    if (close(fd) != 0) RAISE_DONE(IO, "close %s: %s", part->path, strerror(errno));
done:
    file_part_close(part);
    return rc;
}

void file_part_close(struct file_part *part)
{
    if (part->path[0] == '\0') return; /* also a zeroed one, whose fd 0 is not ours */
    if (part->fd >= 0) close(part->fd);
    part->fd = -1;
    part->path[0] = '\0';
}

/* ---- reading ---- */

static err_t open_for_reading(int *fd, struct stat *st, const char *path)
{
    *fd = -1;
    if (strlen(path) >= FILE_PATH_MAX)
        RAISE(ARG, "path of %zu bytes, at most %d: %.80s...", strlen(path), FILE_PATH_MAX - 1,
              path);
    TRY(fault_point("file.open"));
    const int opened = open(path, O_RDONLY | O_CLOEXEC);
    if (opened < 0 && (errno == ENOENT || errno == ENOTDIR))
        RAISE(NOTFOUND, "%s: no such file", path);
    if (opened < 0) RAISE(IO, "open %s: %s", path, strerror(errno));

    err_t rc = ERR_OK;
    if (fstat(opened, st) != 0) RAISE_DONE(IO, "stat %s: %s", path, strerror(errno));
    if (S_ISDIR(st->st_mode)) RAISE_DONE(IO, "%s: a directory, expected a file", path);
    *fd = opened;
done:
    if (rc != ERR_OK) close(opened);
    return rc;
}

err_t file_reader_open(struct file_reader *r, const char *path)
{
    *r = (struct file_reader){ .fd = -1 };
    struct stat st;
    /* Before it is opened: opening a pipe waits for a writer. */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        RAISE(IO, "%s: a pipe or a device, expected a regular file", path);
    TRY(open_for_reading(&r->fd, &st, path));
    r->size = st.st_size;
    memcpy(r->path, path, strlen(path) + 1);
    return ERR_OK;
}

err_t file_reader_pread(struct file_reader *r, void *bytes, int64_t size, int64_t offset)
{
    ASSERT(r->path[0] != '\0');
    ASSERT(size >= 0);
    if (offset < 0 || offset > r->size || size > r->size - offset)
        RAISE(FORMAT, "%s: %lld bytes wanted at %lld, the file has %lld", r->path, (long long)size,
              (long long)offset, (long long)r->size);
    for (int64_t done = 0; done < size;) {
        TRY(fault_point("file.read"));
        const int64_t piece = min_i64(size - done, IO_PIECE_BYTES);
        const ssize_t n = pread(r->fd, (char *)bytes + done, (size_t)piece, offset + done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            RAISE(IO, "read %s, %lld bytes at %lld: %s", r->path, (long long)piece,
                  (long long)(offset + done), strerror(errno));
        if (n == 0)
            RAISE(FORMAT, "%s: ends at %lld while being read; it had %lld bytes when opened",
                  r->path, (long long)(offset + done), (long long)r->size);
        done += n;
    }
    return ERR_OK;
}

void file_reader_close(struct file_reader *r)
{
    if (r->path[0] == '\0') return; /* also a zeroed reader, whose fd 0 is not ours */
    close(r->fd);
    r->fd = -1;
    r->path[0] = '\0';
}

/* Reads until the end instead of trusting the size, so that pipes and /proc work and a file that
 * grows meanwhile cannot exceed the limit. */
err_t file_read_all(struct buf *out, const char *path, int64_t bytes_max)
{
    ASSERT(bytes_max >= 0);
    err_t rc = ERR_OK;
    const size_t size_before = out->size;
    int fd = -1;
    struct stat st;
    TRY_DONE(open_for_reading(&fd, &st, path));
    if (st.st_size > bytes_max)
        RAISE_DONE(FORMAT, "%s: %lld bytes, at most %lld are read", path, (long long)st.st_size,
                   (long long)bytes_max);
    TRY_DONE(buf_reserve(out, (size_t)st.st_size + 1));
    for (;;) {
        TRY_DONE(fault_point("file.read"));
        if (out->capacity - out->size < 2) TRY_DONE(buf_reserve(out, 65536));
        const int64_t room = (int64_t)(out->capacity - out->size - 1);
        const ssize_t n = read(fd, out->data + out->size, (size_t)min_i64(room, IO_PIECE_BYTES));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) RAISE_DONE(IO, "read %s: %s", path, strerror(errno));
        if (n == 0) break;
        out->size += (size_t)n;
        if ((int64_t)(out->size - size_before) > bytes_max)
            RAISE_DONE(FORMAT, "%s: more than %lld bytes, which is the limit", path,
                       (long long)bytes_max);
    }
done:
    if (rc != ERR_OK) out->size = size_before;
    if (out->data != NULL) out->data[out->size] = '\0';
    if (fd >= 0) close(fd);
    return rc;
}

/* ---- paths and directories ---- */

err_t file_lock(int *fd, const char *path, bool wait)
{
    err_t rc = ERR_OK;
    int locked;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) RAISE(IO, "open %s: %s", path, strerror(errno));
    TRY_DONE(fault_point("file.lock"));
    do locked = flock(*fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB);
    while (locked != 0 && errno == EINTR);
    if (locked == 0) return ERR_OK;
    if (errno != EWOULDBLOCK) RAISE_DONE(IO, "lock %s: %s", path, strerror(errno));
done:
    close(*fd);
    *fd = -1;
    return rc;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

bool dir_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

err_t path_copy(char *out, const char *path)
{
    const size_t size = strlen(path);
    if (size >= FILE_PATH_MAX)
        RAISE(ARG, "path of %zu bytes, at most %d: %.80s...", size, FILE_PATH_MAX - 1, path);
    memcpy(out, path, size + 1);
    return ERR_OK;
}

err_t path_join(char *out, const char *dir, const char *name)
{
    const size_t dir_size = strlen(dir);
    const char *slash = dir_size > 0 && dir[dir_size - 1] != '/' ? "/" : "";
    if (snprintf(out, FILE_PATH_MAX, "%s%s%s", dir, slash, name) >= FILE_PATH_MAX) {
        out[0] = '\0';
        RAISE(ARG, "path of %zu bytes, at most %d: %.80s...", dir_size + 1 + strlen(name),
              FILE_PATH_MAX - 1, dir);
    }
    return ERR_OK;
}

err_t dir_create(const char *path)
{
    char part[FILE_PATH_MAX];
    TRY(path_join(part, path, ""));
    for (char *slash = part;;) {
        slash = strchr(slash + 1, '/');
        if (slash == NULL) return ERR_OK;
        *slash = '\0';
        TRY(fault_point("file.mkdir"));
        if (mkdir(part, 0777) == 0)
            TRY(sync_parent(part));
        else if (errno != EEXIST || !dir_exists(part))
            RAISE(IO, "mkdir %s: %s", part,
                  errno == EEXIST ? "there is a file of this name" : strerror(errno));
        *slash = '/';
    }
}

err_t dir_sync(const char *path)
{
    err_t rc = ERR_OK;
    const int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) RAISE_DONE(IO, "open directory %s: %s", path, strerror(errno));
    TRY_DONE(fault_point("file.dirsync"));
    /* EINVAL: a file system without directory sync (some network ones); no more can be done. */
    if (fsync(fd) != 0 && errno != EINVAL)
        RAISE_DONE(IO, "fsync directory %s: %s", path, strerror(errno));
done:
    if (fd >= 0) close(fd);
    return rc;
}

err_t dir_check_ours(const char *path, const char *what, bool (*is_ours)(const char *name))
{
    err_t rc = ERR_OK;
    DIR *dir = opendir(path);
    if (dir == NULL && errno == ENOENT) return ERR_OK;
    if (dir == NULL) RAISE(IO, "open directory %s: %s", path, strerror(errno));
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0)
            RAISE_DONE(IO, "read directory %s: %s", path, strerror(errno));
        if (entry == NULL) break;
        const char *name = entry->d_name;
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !is_ours(name))
            RAISE_DONE(ARG, "%s holds %s, so it is no %s; move it, or choose another folder", path,
                       name, what);
    }
done:
    closedir(dir);
    return rc;
}

static err_t remove_entry(const FTSENT *entry)
{
    switch (entry->fts_info) {
    case FTS_D:
        return ERR_OK; /* comes again, emptied, as FTS_DP */
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        RAISE(IO, "remove %s: %s", entry->fts_path, strerror(entry->fts_errno));
    default:
        TRY(fault_point("file.remove"));
        if (remove(entry->fts_accpath) != 0)
            RAISE(IO, "remove %s: %s", entry->fts_path, strerror(errno));
        return ERR_OK;
    }
}

err_t dir_remove(const char *path)
{
    struct stat st;
    if (lstat(path, &st) != 0 && errno == ENOENT) return ERR_OK;
    if (!dir_exists(path)) RAISE(IO, "remove %s: not a directory", path);

    err_t rc = ERR_OK;
    char *name = strdup(path);
    char *const roots[] = { name, NULL };
    FTS *walk = name ? fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL) : NULL;
    if (walk == NULL) RAISE_DONE(IO, "walk %s: %s", path, strerror(errno));
    for (;;) {
        errno = 0;
        const FTSENT *entry = fts_read(walk);
        if (entry == NULL && errno != 0) RAISE_DONE(IO, "walk %s: %s", path, strerror(errno));
        if (entry == NULL) break;
        TRY_DONE(remove_entry(entry));
    }
done:
    if (walk != NULL) fts_close(walk);
    free(name);
    return rc;
}

err_t file_free_space(int64_t *bytes, const char *path)
{
    char part[FILE_PATH_MAX];
    TRY(path_join(part, path[0] == '/' ? "" : ".", path));
    struct statvfs fs;
    while (statvfs(part, &fs) != 0) {
        char *slash = strrchr(part, '/');
        if ((errno != ENOENT && errno != ENOTDIR) || slash == NULL)
            RAISE(IO, "free space of %s: %s", path, strerror(errno));
        slash[slash == part] = '\0';
    }
    if (!checked_mul(bytes, (int64_t)fs.f_bavail, (int64_t)fs.f_frsize)) *bytes = INT64_MAX;
    return ERR_OK;
}

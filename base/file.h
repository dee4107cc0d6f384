/*
 * file.h - files that appear whole or not at all, and reads that are exact.
 *
 * Writing: everything goes to a temporary name beside the target; fsync, close, rename, fsync of
 * the directory. After any failure the temporary file is gone and the old file is as it was, with
 * one exception that no order of steps can avoid: when the last step, the directory's fsync, fails,
 * the new file is in place and whole, but the rename may not survive a loss of power.
 *
 *     struct file_writer w;
 *     TRY(file_writer_open(&w, "model.safetensors"));
 *     rc = file_writer_append(&w, bytes, size);
 *     rc = rc == ERR_OK ? file_writer_commit(&w) : rc;   // published here
 *     file_writer_close(&w);                             // discards what was not committed
 *
 * Reading: `struct file_reader` reads by offset (pread) in checked pieces; a file that was cut
 * short is ERR_FORMAT naming the offset, the bytes wanted and the bytes there.
 * Every step that can fail has a fault point (base/fault.h): file.open, file.truncate, file.write,
 * file.sync, file.rename, file.dirsync, file.read, file.mkdir, file.remove.
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/buf.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FILE_PATH_MAX 1024 /* bytes with the NUL; longer paths are ERR_ARG */

struct file_writer {
    int fd;
    char path[FILE_PATH_MAX];
    char path_tmp[FILE_PATH_MAX]; /* path + ".tmp"; empty when not open */
    int64_t offset;               /* bytes appended so far */
};

/* ERR_IO (the message has the OS's reason), also where `path` is a directory, a pipe or a device;
 * ERR_ARG for a path that is too long. */
MUST_USE err_t file_writer_open(struct file_writer *w, const char *path);
MUST_USE err_t file_writer_append(struct file_writer *w, const void *bytes, int64_t size);
/* Write at an offset, which may lie past the end; `offset` of the struct is not moved. */
MUST_USE err_t file_writer_pwrite(struct file_writer *w, const void *bytes, int64_t size,
                                  int64_t offset);
/* fsync, rename over `path`, fsync the directory; the writer is then closed, whatever happened. */
MUST_USE err_t file_writer_commit(struct file_writer *w);
/* Close; remove the temporary file unless committed. Safe on a zeroed or failed writer. */
void file_writer_close(struct file_writer *w);

/* Replace `path` by these bytes, by the way above. */
MUST_USE err_t file_replace(const char *path, const void *bytes, int64_t size);

/*
 * A file that several programs write together, inside a folder that is published as a whole. One
 * creates it in its full size, then each opens it and writes its parts; nothing is removed here.
 */
struct file_part {
    int fd;
    char path[FILE_PATH_MAX]; /* empty when not open */
};
/* `head` is written at its begin; what is written nowhere reads as zeros. An old file of this name
 * is emptied. */
MUST_USE err_t file_part_create(const char *path, const void *head, int64_t head_bytes,
                                int64_t bytes);
MUST_USE err_t file_part_open(struct file_part *part, const char *path);
MUST_USE err_t file_part_pwrite(struct file_part *part, const void *bytes, int64_t size,
                                int64_t offset);
/* fsync and close; what is closed otherwise is not durable. */
MUST_USE err_t file_part_commit(struct file_part *part);
/* Safe on a zeroed or failed part. */
void file_part_close(struct file_part *part);

struct file_reader {
    int fd;
    int64_t size;             /* at open */
    char path[FILE_PATH_MAX]; /* empty when not open */
};

/* ERR_NOTFOUND when there is no such file, ERR_IO otherwise (also for what is not a regular file:
 * a directory, a pipe). */
MUST_USE err_t file_reader_open(struct file_reader *r, const char *path);
/* Exactly `size` bytes at `offset`, or ERR_FORMAT (beyond the end) or ERR_IO. */
MUST_USE err_t file_reader_pread(struct file_reader *r, void *bytes, int64_t size, int64_t offset);
/* Safe on a zeroed or failed reader. */
void file_reader_close(struct file_reader *r);

/* The whole file, or pipe, appended to *out; ERR_NOTFOUND, ERR_IO, or ERR_FORMAT when larger than
 * `bytes_max`. After a failure *out is as it was. */
MUST_USE err_t file_read_all(struct buf *out, const char *path, int64_t bytes_max);

/*
 * A lock among programs: the file `path`, created if need be, is locked for this process until *fd
 * is closed or the process ends. `wait`: until whoever has it is done; else *fd = -1 where somebody
 * has it. ERR_IO, with *fd = -1.
 */
MUST_USE err_t file_lock(int *fd, const char *path, bool wait);

bool file_exists(const char *path); /* and is not a directory */
bool dir_exists(const char *path);
/* mkdir -p; what it makes is durable. */
MUST_USE err_t dir_create(const char *path);
/* fsync a directory so that renames in it are durable. */
MUST_USE err_t dir_sync(const char *path);
/* ERR_ARG where the directory holds a name that is_ours does not know: it is not `what`, and not to
 * be removed. Not an error when it is absent. */
MUST_USE err_t dir_check_ours(const char *path, const char *what,
                              bool (*is_ours)(const char *name));
/* Remove a directory and everything below it; not an error when it is absent. */
MUST_USE err_t dir_remove(const char *path);
/* Bytes free for us on the file system of `path` (its nearest existing parent). */
MUST_USE err_t file_free_space(int64_t *bytes, const char *path);
/* Copy a path to out[FILE_PATH_MAX]; ERR_ARG when too long. */
MUST_USE err_t path_copy(char *out, const char *path);
/* Write dir + "/" + name to out[FILE_PATH_MAX]; ERR_ARG when too long. */
MUST_USE err_t path_join(char *out, const char *dir, const char *name);

#ifdef __cplusplus
}
#endif
#endif

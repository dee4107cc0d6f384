/*
 * err.h - how every function in this project reports failure.
 *
 * A function that can fail returns err_t and nothing else; results leave through pointer
 * arguments, which come first. The code says what kind of failure it is (what a caller can
 * branch on), the message says what happened (what a person reads), the frames say how it
 * travelled. Broken invariants are not errors: they ASSERT (base/check.h) and crash.
 *
 *     err_t thing_load(struct thing *out, const char *path)
 *     {
 *         TRY(file_read_all(&bytes, path));          // pass failures on
 *         if (bytes.size < 8)
 *             RAISE(FORMAT, "%s: %zu bytes; a thing has at least 8", path, bytes.size);
 *         return ERR_OK;
 *     }
 *
 * The last-error record is thread-local. It is one of the few pieces of process state that this
 * project allows itself; STYLE.md has the list.
 */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

/*    code         for people                                  who is expected to branch on it */
#define ERR_LIST(X)                                                                             \
    X(OK,          "no error")                                                                  \
    X(ARG,         "argument outside its documented range")                                     \
    X(USAGE,       "wrong command line or setting")             /* main: exit status 2       */ \
    X(SHAPE,       "tensor shapes do not agree")                                                \
    X(DTYPE,       "dtype not accepted here")                                                   \
    X(UNSUPPORTED, "not available in this build, backend or model family") /* tests: skip    */ \
    X(NOMEM,       "out of host or device memory")              /* plan: shrink              */ \
    X(NOTFOUND,    "no such file, key or tensor")               /* resume: start fresh       */ \
    X(IO,          "read, write, sync or rename failed")                                        \
    X(FORMAT,      "file does not follow its format")                                           \
    X(CHECKSUM,    "stored and computed checksum differ")       /* ckpt: try the older one   */ \
    X(NUMERIC,     "non-finite value where finite is promised") /* loop: stop                */ \
    X(CUDA,        "CUDA runtime or library call failed")                                       \
    X(COMM,        "NCCL or MPI call failed")                   /* loop: abort all ranks     */ \
    X(INTERRUPTED, "stopped on request")                        /* main: exit status 130     */

typedef enum {
#define X(name, text) ERR_##name,
    ERR_LIST(X)
#undef X
    ERR_COUNT
} err_t;

#define ERR_FRAMES_MAX 8
#define ERR_TEXT_MAX   512

struct err_frame {
    const char *file;
    int line;
    const char *expr;
};

struct err_record {
    err_t code;
    char text[ERR_TEXT_MAX];                 /* one line, no trailing newline */
    int frame_count;                         /* frames[0] is where it was raised */
    struct err_frame frames[ERR_FRAMES_MAX]; /* the outermost are dropped when full */
};

#define MUST_USE          __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Start a new record and return `code`. Use RAISE(), which fills file and line. */
err_t err_raise(err_t code, const char *file, int line, const char *fmt, ...) PRINTF_LIKE(4, 5);

/* Append a frame to the current record and return `code` unchanged. Used by TRY(). */
err_t err_pass(err_t code, const char *file, int line, const char *expr);

/* The record of this thread's last failure; borrowed, valid until the next RAISE. */
const struct err_record *err_last(void);

/* Make `rec` this thread's record: how a worker's failure reaches the thread that joins it. */
err_t err_adopt(const struct err_record *rec);

/* "ERR_SHAPE" and so on; never NULL, also for values outside the enum. */
const char *err_name(err_t code);

/* The code is returned as a constant, so that the compiler sees which path failed. */
#define RAISE(code, ...)                                                                        \
    do {                                                                                        \
        err_raise(ERR_##code, __FILE__, __LINE__, __VA_ARGS__);                                 \
        return ERR_##code;                                                                      \
    } while (0)

#define TRY(call)                                                                               \
    do {                                                                                        \
        err_t try_rc_ = (call);                                                                 \
        if (try_rc_ != ERR_OK) {                                                                \
            err_pass(try_rc_, __FILE__, __LINE__, #call);                                       \
            return try_rc_;                                                                     \
        }                                                                                       \
    } while (0)

/* For functions that hold resources: they need a local `err_t rc` and a label `done`. */
#define TRY_DONE(call)                                                                          \
    do {                                                                                        \
        rc = (call);                                                                            \
        if (rc != ERR_OK) {                                                                     \
            err_pass(rc, __FILE__, __LINE__, #call);                                            \
            goto done;                                                                          \
        }                                                                                       \
    } while (0)

#define RAISE_DONE(code, ...)                                                                   \
    do {                                                                                        \
        err_raise(ERR_##code, __FILE__, __LINE__, __VA_ARGS__);                                 \
        rc = ERR_##code;                                                                        \
        goto done;                                                                              \
    } while (0)

#ifdef __cplusplus
}
#endif
#endif

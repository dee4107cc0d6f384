/*
 * torch_zip_machine.h - the stack machine of the pickle format, cut down to what tensors need: it
 * builds numbers, texts, tuples and dictionaries by itself; everything else comes from a fixed list
 * of globals and one function for storages, both given by the caller (torch_zip_pickle.c). Internal
 * to model/torch_zip*.c.
 *
 * Source: the opcodes' meaning is that of CPython's pickletools (protocol 2).
 */
#ifndef MODEL_TORCH_ZIP_MACHINE_H
#define MODEL_TORCH_ZIP_MACHINE_H

#include "base/arena.h"
#include "base/err.h"
#include "kernels/tensor.h"

#include <stdbool.h>
#include <stdint.h>

struct dict;
struct global;
struct machine;
struct torch_tensor; /* torch_zip_pickle.h */

enum value_kind {
    VALUE_MARK,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INT,
    VALUE_FLOAT, /* allowed, never used: the number is not kept */
    VALUE_TEXT,  /* count bytes at text, not terminated */
    VALUE_TUPLE, /* count values at item */
    VALUE_LIST,  /* allowed inside metadata, never used: the items are not kept */
    VALUE_DICT,
    VALUE_GLOBAL,
    VALUE_STORAGE,
    VALUE_TENSOR,
};

struct value {
    enum value_kind kind;
    int64_t count; /* also the number of a BOOL or an INT */
    union {
        const char *text;
        const struct value *item;
        struct dict *dict;
        const struct global *global;
        const struct torch_tensor *storage; /* a tensor without shape */
        const struct torch_tensor *tensor;
    };
};

struct dict {
    struct value *pair; /* key, value, key, value, ... */
    int64_t count, capacity;
};

/* Arguments are a tuple. Makes *out; what it needs comes from the machine's arena. */
typedef err_t (*machine_call)(struct machine *m, struct value *out, const struct value *args);

struct global {
    const char *module, *name;
    machine_call call; /* NULL: a storage class, with the two below */
    int64_t element_bytes;
    dtype_t dtype; /* DTYPE_COUNT for types without one of ours */
};

struct machine {
    /* From the caller. */
    struct arena *arena;
    const char *file; /* for messages */
    const uint8_t *bytes;
    int64_t size;
    const struct global *globals;
    int64_t global_count;
    machine_call make_storage; /* of a persistent id, which is a tuple */
    /* The machine's own; zero at the start. */
    int64_t at, op_at; /* next byte; byte of the running opcode */
    struct value *stack, *memo;
    int64_t stack_count, stack_capacity, memo_capacity;
    bool stopped;
};

/* Run to STOP, which must be the last byte. ERR_FORMAT names byte and opcode; ERR_NOMEM. */
MUST_USE err_t machine_run(struct machine *m);
void machine_clear(struct machine *m); /* stack and memo; values stay in the arena */

/* The value `depth` below the top (0 = top), of that kind; borrowed until the next push. */
MUST_USE err_t machine_peek(struct machine *m, struct value **out, int64_t depth,
                            enum value_kind kind, const char *what);

/* Raise ERR_FORMAT with the place in the pickle. */
void machine_refuse(const struct machine *m, const char *source, int line, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

#define REFUSE(m, ...)                                                                             \
    do {                                                                                           \
        machine_refuse((m), __FILE__, __LINE__, __VA_ARGS__);                                      \
        return ERR_FORMAT;                                                                         \
    } while (0)

#endif

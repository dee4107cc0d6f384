#include "model/torch_zip_machine.h"

#include "base/buf.h"
#include "base/num.h"
#include "model/torch_zip.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- errors, input, stack ---- */

void machine_refuse(const struct machine *m, const char *source, int line, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    err_raise(ERR_FORMAT, source, line, "%s: data.pkl, byte %lld (opcode 0x%02x): %s", m->file,
              (long long)m->op_at, m->op_at < m->size ? m->bytes[m->op_at] : 0, text);
}

/* The next `count` bytes, borrowed. */
static err_t take(struct machine *m, const uint8_t **out, int64_t count)
{
    if (count > m->size - m->at)
        REFUSE(m, "%lld bytes wanted, %lld left", (long long)count, (long long)(m->size - m->at));
    *out = m->bytes + m->at;
    m->at += count;
    return ERR_OK;
}

/* An unsigned little-endian number of 1, 2 or 4 bytes. */
static err_t take_uint(struct machine *m, int64_t *out, int bytes)
{
    const uint8_t *p = NULL;
    TRY(take(m, &p, bytes));
    *out = 0;
    for (int i = bytes - 1; i >= 0; i--) *out = *out << 8 | p[i];
    return ERR_OK;
}

static err_t push(struct machine *m, struct value v)
{
    if (m->stack_count == TORCH_STACK_MAX)
        REFUSE(m, "more than %d values on the stack", TORCH_STACK_MAX);
    ARRAY_GROW(m->stack, m->stack_capacity, m->stack_count + 1);
    m->stack[m->stack_count++] = v;
    return ERR_OK;
}

err_t machine_peek(struct machine *m, struct value **out, int64_t depth, enum value_kind kind,
                   const char *what)
{
    if (depth >= m->stack_count) REFUSE(m, "the stack is empty; %s is wanted", what);
    *out = &m->stack[m->stack_count - 1 - depth];
    if ((*out)->kind != kind) REFUSE(m, "%s is wanted on the stack", what);
    return ERR_OK;
}

static err_t pop(struct machine *m, struct value *out)
{
    if (m->stack_count == 0) REFUSE(m, "the stack is empty");
    *out = m->stack[--m->stack_count];
    if (out->kind == VALUE_MARK) REFUSE(m, "a mark where a value is wanted");
    return ERR_OK;
}

/* Everything above the last mark; the mark goes too. Items stay readable until the next push. */
static err_t pop_to_mark(struct machine *m, const struct value **items, int64_t *count)
{
    int64_t i = m->stack_count;
    while (i > 0 && m->stack[i - 1].kind != VALUE_MARK) i--;
    if (i == 0) REFUSE(m, "no mark on the stack");
    *items = m->stack + i;
    *count = m->stack_count - i;
    m->stack_count = i - 1;
    return ERR_OK;
}

static err_t push_tuple(struct machine *m, const struct value *items, int64_t count)
{
    void *copy = NULL;
    if (count > 0) {
        TRY(arena_push(m->arena, &copy, count * (int64_t)sizeof *items, 8));
        memcpy(copy, items, (size_t)count * sizeof *items);
    }
    TRY(push(m, (struct value){ .kind = VALUE_TUPLE, .count = count, .item = copy }));
    return ERR_OK;
}

/* ---- opcodes; `arg` is the row's number in the table below ---- */

static err_t op_proto(struct machine *m, int64_t arg)
{
    int64_t version = 0;
    (void)arg;
    TRY(take_uint(m, &version, 1));
    if (version != 2 || m->op_at != 0)
        REFUSE(m, "pickle protocol %lld; torch.save writes 2, once, at the start",
               (long long)version);
    return ERR_OK;
}

static err_t op_stop(struct machine *m, int64_t arg)
{
    (void)arg;
    m->stopped = true;
    return ERR_OK;
}

static err_t op_mark(struct machine *m, int64_t arg)
{
    (void)arg;
    TRY(push(m, (struct value){ .kind = VALUE_MARK }));
    return ERR_OK;
}

static err_t op_none(struct machine *m, int64_t arg)
{
    (void)arg;
    TRY(push(m, (struct value){ .kind = VALUE_NONE }));
    return ERR_OK;
}

static err_t op_bool(struct machine *m, int64_t arg)
{
    TRY(push(m, (struct value){ .kind = VALUE_BOOL, .count = arg }));
    return ERR_OK;
}

/* BININT, BININT1, BININT2: 4 bytes are signed, 1 and 2 are not. */
static err_t op_int(struct machine *m, int64_t bytes)
{
    int64_t number;
    TRY(take_uint(m, &number, (int)bytes));
    if (bytes == 4) number = (int32_t)(uint32_t)number;
    TRY(push(m, (struct value){ .kind = VALUE_INT, .count = number }));
    return ERR_OK;
}

/* LONG1: a byte count, then two's complement, least byte first. */
static err_t op_long1(struct machine *m, int64_t arg)
{
    int64_t count = 0;
    const uint8_t *p = NULL;
    uint64_t number = 0;
    (void)arg;
    TRY(take_uint(m, &count, 1));
    if (count > 8) REFUSE(m, "an integer of %lld bytes, at most 8", (long long)count);
    TRY(take(m, &p, count));
    for (int64_t i = 0; i < count; i++) number |= (uint64_t)p[i] << (8 * i);
    if (count > 0 && count < 8 && (p[count - 1] & 0x80)) number |= UINT64_MAX << (8 * count);
    TRY(push(m, (struct value){ .kind = VALUE_INT, .count = (int64_t)number }));
    return ERR_OK;
}

static err_t op_float(struct machine *m, int64_t bytes)
{
    const uint8_t *p = NULL;
    TRY(take(m, &p, bytes));
    TRY(push(m, (struct value){ .kind = VALUE_FLOAT }));
    return ERR_OK;
}

static err_t op_text(struct machine *m, int64_t arg)
{
    int64_t count = 0;
    const uint8_t *p = NULL;
    (void)arg;
    TRY(take_uint(m, &count, 4));
    TRY(take(m, &p, count));
    TRY(push(m, (struct value){ .kind = VALUE_TEXT, .count = count, .text = (const char *)p }));
    return ERR_OK;
}

static err_t op_empty(struct machine *m, int64_t kind)
{
    struct value v = { .kind = (enum value_kind)kind };
    if (v.kind == VALUE_DICT) {
        void *dict;
        TRY(arena_push(m->arena, &dict, (int64_t)sizeof *v.dict, 8));
        v.dict = dict;
    }
    TRY(push(m, v));
    return ERR_OK;
}

/* TUPLE1, TUPLE2, TUPLE3. */
static err_t op_tuple_of(struct machine *m, int64_t count)
{
    struct value items[3];
    for (int64_t i = count - 1; i >= 0; i--) TRY(pop(m, &items[i]));
    TRY(push_tuple(m, items, count));
    return ERR_OK;
}

static err_t op_tuple(struct machine *m, int64_t arg)
{
    const struct value *items;
    int64_t count;
    (void)arg;
    TRY(pop_to_mark(m, &items, &count));
    TRY(push_tuple(m, items, count));
    return ERR_OK;
}

static err_t dict_set(struct machine *m, struct dict *dict, const struct value *pairs,
                      int64_t count)
{
    if (count % 2 != 0) REFUSE(m, "%lld values are not pairs", (long long)count);
    if (count > dict->capacity - dict->count) {
        const int64_t capacity = max_i64(dict->count + count, 2 * dict->capacity);
        void *grown;
        TRY(arena_push(m->arena, &grown, capacity * (int64_t)sizeof *pairs, 8));
        if (dict->count > 0) memcpy(grown, dict->pair, (size_t)dict->count * sizeof *pairs);
        dict->pair = grown;
        dict->capacity = capacity;
    }
    if (count > 0) memcpy(dict->pair + dict->count, pairs, (size_t)count * sizeof *pairs);
    dict->count += count;
    return ERR_OK;
}

static err_t op_setitem(struct machine *m, int64_t arg)
{
    struct value pair[2], *dict;
    (void)arg;
    TRY(pop(m, &pair[1]));
    TRY(pop(m, &pair[0]));
    TRY(machine_peek(m, &dict, 0, VALUE_DICT, "a dictionary"));
    TRY(dict_set(m, dict->dict, pair, 2));
    return ERR_OK;
}

static err_t op_setitems(struct machine *m, int64_t arg)
{
    const struct value *items;
    struct value *dict;
    int64_t count;
    (void)arg;
    TRY(pop_to_mark(m, &items, &count));
    TRY(machine_peek(m, &dict, 0, VALUE_DICT, "a dictionary"));
    TRY(dict_set(m, dict->dict, items, count));
    return ERR_OK;
}

static err_t op_append(struct machine *m, int64_t arg)
{
    struct value item, *list;
    (void)arg;
    TRY(pop(m, &item));
    TRY(machine_peek(m, &list, 0, VALUE_LIST, "a list"));
    return ERR_OK;
}

static err_t op_appends(struct machine *m, int64_t arg)
{
    const struct value *items;
    struct value *list;
    int64_t count;
    (void)arg;
    TRY(pop_to_mark(m, &items, &count));
    TRY(machine_peek(m, &list, 0, VALUE_LIST, "a list"));
    return ERR_OK;
}

/* The attributes of an OrderedDict (`_metadata`: versions of modules) say nothing about tensors. */
static err_t op_build(struct machine *m, int64_t arg)
{
    struct value *attributes, *object;
    (void)arg;
    TRY(machine_peek(m, &attributes, 0, VALUE_DICT, "a dictionary of attributes"));
    TRY(machine_peek(m, &object, 1, VALUE_DICT, "the dictionary that has them"));
    m->stack_count--;
    return ERR_OK;
}

static err_t op_put(struct machine *m, int64_t bytes)
{
    int64_t key;
    TRY(take_uint(m, &key, (int)bytes));
    if (key >= TORCH_MEMO_MAX)
        REFUSE(m, "memo entry %lld, at most %d", (long long)key, TORCH_MEMO_MAX - 1);
    if (m->stack_count == 0) REFUSE(m, "the stack is empty");
    const int64_t known = m->memo_capacity;
    ARRAY_GROW(m->memo, m->memo_capacity, key + 1);
    for (int64_t i = known; i < m->memo_capacity; i++)
        m->memo[i] = (struct value){ .kind = VALUE_MARK }; /* a mark stands for: not set */
    m->memo[key] = m->stack[m->stack_count - 1];
    return ERR_OK;
}

static err_t op_get(struct machine *m, int64_t bytes)
{
    int64_t key;
    TRY(take_uint(m, &key, (int)bytes));
    if (key >= m->memo_capacity || m->memo[key].kind == VALUE_MARK)
        REFUSE(m, "memo entry %lld was never set", (long long)key);
    TRY(push(m, m->memo[key]));
    return ERR_OK;
}

/* The next line without its newline. */
static err_t take_line(struct machine *m, const char **line, int *bytes)
{
    const uint8_t *begin = m->bytes + m->at;
    const uint8_t *end = memchr(begin, '\n', (size_t)(m->size - m->at));
    if (!end || end - begin > 255) REFUSE(m, "a global's name without an end");
    *line = (const char *)begin;
    *bytes = (int)(end - begin);
    m->at += *bytes + 1;
    return ERR_OK;
}

static err_t op_global(struct machine *m, int64_t arg)
{
    const char *module, *name;
    int module_bytes, name_bytes;
    (void)arg;
    TRY(take_line(m, &module, &module_bytes));
    TRY(take_line(m, &name, &name_bytes));
    for (int64_t i = 0; i < m->global_count; i++) {
        const struct global *g = &m->globals[i];
        if ((int64_t)strlen(g->module) == module_bytes && (int64_t)strlen(g->name) == name_bytes &&
            memcmp(g->module, module, (size_t)module_bytes) == 0 &&
            memcmp(g->name, name, (size_t)name_bytes) == 0) {
            TRY(push(m, (struct value){ .kind = VALUE_GLOBAL, .global = g }));
            return ERR_OK;
        }
    }
    REFUSE(m, "global %.*s.%.*s is not one that tensors need", module_bytes, module, name_bytes,
           name);
}

/* A persistent id, always a storage, becomes what the caller makes of it. */
static err_t op_persid(struct machine *m, int64_t arg)
{
    struct value *id, storage = { .kind = VALUE_NONE };
    (void)arg;
    TRY(machine_peek(m, &id, 0, VALUE_TUPLE, "the tuple of a storage"));
    TRY(m->make_storage(m, &storage, id));
    *id = storage;
    return ERR_OK;
}

static err_t op_reduce(struct machine *m, int64_t arg)
{
    struct value *args, *function, result;
    (void)arg;
    TRY(machine_peek(m, &args, 0, VALUE_TUPLE, "a tuple of arguments"));
    TRY(machine_peek(m, &function, 1, VALUE_GLOBAL, "a function"));
    if (!function->global->call) REFUSE(m, "a storage class is not called");
    TRY(function->global->call(m, &result, args));
    m->stack_count -= 2;
    TRY(push(m, result));
    return ERR_OK;
}

/* ---- the machine ---- */

static const struct opcode {
    err_t (*run)(struct machine *m, int64_t arg);
    int64_t arg;
} opcodes[256] = {
    [0x80] = { op_proto, 0 },
    ['.'] = { op_stop, 0 },
    ['('] = { op_mark, 0 },
    ['N'] = { op_none, 0 },
    [0x88] = { op_bool, 1 },
    [0x89] = { op_bool, 0 },
    ['K'] = { op_int, 1 },
    ['M'] = { op_int, 2 },
    ['J'] = { op_int, 4 },
    [0x8a] = { op_long1, 0 },
    ['G'] = { op_float, 8 },
    ['X'] = { op_text, 0 },
    [')'] = { op_empty, VALUE_TUPLE },
    [']'] = { op_empty, VALUE_LIST },
    ['}'] = { op_empty, VALUE_DICT },
    [0x85] = { op_tuple_of, 1 },
    [0x86] = { op_tuple_of, 2 },
    [0x87] = { op_tuple_of, 3 },
    ['t'] = { op_tuple, 0 },
    ['s'] = { op_setitem, 0 },
    ['u'] = { op_setitems, 0 },
    ['a'] = { op_append, 0 },
    ['e'] = { op_appends, 0 },
    ['b'] = { op_build, 0 },
    ['q'] = { op_put, 1 },
    ['r'] = { op_put, 4 },
    ['h'] = { op_get, 1 },
    ['j'] = { op_get, 4 },
    ['c'] = { op_global, 0 },
    ['Q'] = { op_persid, 0 },
    ['R'] = { op_reduce, 0 },
};

err_t machine_run(struct machine *m)
{
    while (!m->stopped) {
        const uint8_t *op = NULL;
        m->op_at = m->at;
        TRY(take(m, &op, 1));
        if (m->op_at == 0 && *op != 0x80) REFUSE(m, "a pickle begins with its protocol");
        if (!opcodes[*op].run) REFUSE(m, "this opcode is not one that tensors need");
        TRY(opcodes[*op].run(m, opcodes[*op].arg));
    }
    if (m->at != m->size) REFUSE(m, "%lld bytes after the end", (long long)(m->size - m->at));
    return ERR_OK;
}

void machine_clear(struct machine *m)
{
    free(m->stack);
    free(m->memo);
    m->stack = m->memo = NULL;
    m->stack_count = m->stack_capacity = m->memo_capacity = 0;
}

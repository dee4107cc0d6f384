#include "model/torch_zip_pickle.h"

#include "base/check.h"
#include "base/num.h"
#include "model/torch_zip.h"
#include "model/weight_file.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct machine {
    struct arena *arena;
    const char *file;
    const uint8_t *bytes;
    int64_t size, at, op_at; /* next byte; byte of the running opcode */
    struct value *stack, *memo;
    int64_t stack_count, stack_capacity, memo_capacity;
    bool stopped;
};

/* ---- globals ---- */

typedef err_t (*call_fn)(struct machine *m, struct value *out, const struct value *args);

static err_t call_ordered_dict(struct machine *m, struct value *out, const struct value *args);
static err_t call_rebuild_tensor(struct machine *m, struct value *out, const struct value *args);
static err_t call_rebuild_parameter(struct machine *m, struct value *out, const struct value *args);

struct global {
    const char *module, *name;
    call_fn call; /* NULL: a storage class */
    int64_t element_bytes;
    dtype_t dtype;
};

static const struct global globals[] = {
    { "collections", "OrderedDict", call_ordered_dict, 0, DTYPE_COUNT },
    { "torch._utils", "_rebuild_tensor_v2", call_rebuild_tensor, 0, DTYPE_COUNT },
    { "torch._utils", "_rebuild_parameter", call_rebuild_parameter, 0, DTYPE_COUNT },
    { "torch", "HalfStorage", NULL, 2, DTYPE_F16 },
    { "torch", "BFloat16Storage", NULL, 2, DTYPE_BF16 },
    { "torch", "FloatStorage", NULL, 4, DTYPE_F32 },
    { "torch", "DoubleStorage", NULL, 8, DTYPE_F64 },
    { "torch", "LongStorage", NULL, 8, DTYPE_I64 },
    { "torch", "IntStorage", NULL, 4, DTYPE_I32 },
    { "torch", "ShortStorage", NULL, 2, DTYPE_COUNT },
    { "torch", "CharStorage", NULL, 1, DTYPE_COUNT },
    { "torch", "ByteStorage", NULL, 1, DTYPE_U8 },
    { "torch", "BoolStorage", NULL, 1, DTYPE_COUNT },
};

/* ---- errors, input, stack ---- */

#define REFUSE(m, ...)                                                                             \
    do {                                                                                           \
        refuse((m), __LINE__, __VA_ARGS__);                                                        \
        return ERR_FORMAT;                                                                         \
    } while (0)

static void refuse(const struct machine *m, int line, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void refuse(const struct machine *m, int line, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    err_raise(ERR_FORMAT, __FILE__, line, "%s: data.pkl, byte %lld (opcode 0x%02x): %s", m->file,
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
    if (m->stack_count == m->stack_capacity) {
        const int64_t capacity = max_i64(256, 2 * m->stack_capacity);
        struct value *stack = realloc(m->stack, (size_t)capacity * sizeof *stack);
        if (!stack) RAISE(NOMEM, "%s: a stack of %lld values", m->file, (long long)capacity);
        m->stack = stack;
        m->stack_capacity = capacity;
    }
    m->stack[m->stack_count++] = v;
    return ERR_OK;
}

/* The value `depth` below the top (0 = top), of that kind; borrowed until the next push. */
static err_t peek(struct machine *m, struct value **out, int64_t depth, enum value_kind kind,
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

static bool text_is(const struct value *v, const char *text)
{
    return v->kind == VALUE_TEXT && v->count == (int64_t)strlen(text) &&
           memcmp(v->text, text, (size_t)v->count) == 0;
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
    TRY(peek(m, &dict, 0, VALUE_DICT, "a dictionary"));
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
    TRY(peek(m, &dict, 0, VALUE_DICT, "a dictionary"));
    TRY(dict_set(m, dict->dict, items, count));
    return ERR_OK;
}

static err_t op_append(struct machine *m, int64_t arg)
{
    struct value item, *list;
    (void)arg;
    TRY(pop(m, &item));
    TRY(peek(m, &list, 0, VALUE_LIST, "a list"));
    return ERR_OK;
}

static err_t op_appends(struct machine *m, int64_t arg)
{
    const struct value *items;
    struct value *list;
    int64_t count;
    (void)arg;
    TRY(pop_to_mark(m, &items, &count));
    TRY(peek(m, &list, 0, VALUE_LIST, "a list"));
    return ERR_OK;
}

/* The attributes of an OrderedDict (`_metadata`: versions of modules) say nothing about tensors. */
static err_t op_build(struct machine *m, int64_t arg)
{
    struct value *attributes, *object;
    (void)arg;
    TRY(peek(m, &attributes, 0, VALUE_DICT, "a dictionary of attributes"));
    TRY(peek(m, &object, 1, VALUE_DICT, "the dictionary that has them"));
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
    if (key >= m->memo_capacity) {
        const int64_t capacity = max_i64(key + 1, max_i64(256, 2 * m->memo_capacity));
        struct value *memo = realloc(m->memo, (size_t)capacity * sizeof *memo);
        if (!memo) RAISE(NOMEM, "%s: a memo of %lld values", m->file, (long long)capacity);
        for (int64_t i = m->memo_capacity; i < capacity; i++)
            memo[i] = (struct value){ .kind = VALUE_MARK }; /* a mark stands for: not set */
        m->memo = memo;
        m->memo_capacity = capacity;
    }
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
    for (int64_t i = 0; i < COUNT_OF(globals); i++) {
        const struct global *g = &globals[i];
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

/* ('storage', class, key, location, element count) becomes a storage. */
static err_t op_persid(struct machine *m, int64_t arg)
{
    struct value *id;
    const struct value *item;
    void *storage;
    (void)arg;
    TRY(peek(m, &id, 0, VALUE_TUPLE, "the tuple of a storage"));
    item = id->item;
    if (id->count != 5 || !text_is(&item[0], "storage") || item[1].kind != VALUE_GLOBAL ||
        item[1].global->call || item[2].kind != VALUE_TEXT || item[3].kind != VALUE_TEXT ||
        item[4].kind != VALUE_INT || item[4].count < 0)
        REFUSE(m, "a storage is ('storage', class, key, location, count)");
    if (item[2].count >= WEIGHT_NAME_MAX || memchr(item[2].text, '\0', (size_t)item[2].count))
        REFUSE(m, "a storage key of %lld bytes or with a NUL", (long long)item[2].count);

    TRY(arena_push(m->arena, &storage, (int64_t)sizeof(struct torch_tensor), 8));
    void *key;
    TRY(arena_push(m->arena, &key, item[2].count + 1, 1));
    memcpy(key, item[2].text, (size_t)item[2].count);
    *(struct torch_tensor *)storage = (struct torch_tensor){
        .key = key,
        .dtype = item[1].global->dtype,
        .element_bytes = item[1].global->element_bytes,
        .storage_count = item[4].count,
    };
    *id = (struct value){ .kind = VALUE_STORAGE, .storage = storage };
    return ERR_OK;
}

static err_t op_reduce(struct machine *m, int64_t arg)
{
    struct value *args, *function, result;
    (void)arg;
    TRY(peek(m, &args, 0, VALUE_TUPLE, "a tuple of arguments"));
    TRY(peek(m, &function, 1, VALUE_GLOBAL, "a function"));
    if (!function->global->call) REFUSE(m, "a storage class is not called");
    TRY(function->global->call(m, &result, args));
    m->stack_count -= 2;
    TRY(push(m, result));
    return ERR_OK;
}

/* ---- the three calls ---- */

static err_t call_ordered_dict(struct machine *m, struct value *out, const struct value *args)
{
    void *dict;
    if (args->count != 0) REFUSE(m, "OrderedDict with arguments");
    TRY(arena_push(m->arena, &dict, (int64_t)sizeof(struct dict), 8));
    *out = (struct value){ .kind = VALUE_DICT, .dict = dict };
    return ERR_OK;
}

/* (storage, offset, size, stride, requires_grad, backward_hooks) */
static err_t call_rebuild_tensor(struct machine *m, struct value *out, const struct value *args)
{
    const struct value *a = args->item;
    if (args->count != 6 || a[0].kind != VALUE_STORAGE || a[1].kind != VALUE_INT ||
        a[2].kind != VALUE_TUPLE || a[3].kind != VALUE_TUPLE || a[4].kind != VALUE_BOOL)
        REFUSE(m, "a tensor is (storage, offset, size, stride, requires_grad, hooks)");
    if (a[2].count != a[3].count)
        REFUSE(m, "a tensor of %lld dimensions with %lld strides", (long long)a[2].count,
               (long long)a[3].count);
    if (a[2].count > WEIGHT_DIMS_MAX)
        RAISE(UNSUPPORTED, "%s: a tensor of %lld dimensions, at most %d are read here", m->file,
              (long long)a[2].count, WEIGHT_DIMS_MAX);
    if (a[1].count < 0 || a[1].count > a[0].storage->storage_count)
        REFUSE(m, "a tensor begins at element %lld of a storage of %lld", (long long)a[1].count,
               (long long)a[0].storage->storage_count);

    void *memory;
    TRY(arena_push(m->arena, &memory, (int64_t)sizeof(struct torch_tensor), 8));
    struct torch_tensor *t = memory;
    *t = *a[0].storage;
    t->offset = a[1].count;
    t->dims = (int)a[2].count;
    for (int i = 0; i < t->dims; i++) {
        if (a[2].item[i].kind != VALUE_INT || a[3].item[i].kind != VALUE_INT)
            REFUSE(m, "size and stride of a tensor are integers");
        t->dim[i] = a[2].item[i].count;
        t->stride[i] = a[3].item[i].count;
    }
    *out = (struct value){ .kind = VALUE_TENSOR, .tensor = t };
    return ERR_OK;
}

/* (tensor, requires_grad, backward_hooks) */
static err_t call_rebuild_parameter(struct machine *m, struct value *out, const struct value *args)
{
    if (args->count != 3 || args->item[0].kind != VALUE_TENSOR)
        REFUSE(m, "a parameter is (tensor, requires_grad, hooks)");
    *out = args->item[0];
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

static err_t run(struct machine *m)
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

/* The one value left must be a dictionary from names to tensors. */
static err_t collect(struct torch_pickle *out, struct machine *m)
{
    struct value *root;
    void *names, *tensors;
    TRY(peek(m, &root, 0, VALUE_DICT, "a dictionary of tensors"));
    if (m->stack_count != 1) REFUSE(m, "%lld values are left over", (long long)m->stack_count - 1);
    const int64_t count = root->dict->count / 2;
    TRY(arena_push(m->arena, &names, count * (int64_t)sizeof *out->name, 8));
    TRY(arena_push(m->arena, &tensors, count * (int64_t)sizeof *out->tensor, 8));
    out->name = names;
    out->tensor = tensors;
    for (int64_t i = 0; i < count; i++) {
        const struct value *key = &root->dict->pair[2 * i], *value = key + 1;
        void *name;
        if (key->kind != VALUE_TEXT || key->count >= WEIGHT_NAME_MAX ||
            memchr(key->text, '\0', (size_t)key->count))
            REFUSE(m, "key %lld is not a text of at most %d bytes", (long long)i,
                   WEIGHT_NAME_MAX - 1);
        if (value->kind != VALUE_TENSOR)
            REFUSE(m, "%.*s is not a tensor; a plain state_dict is wanted", (int)key->count,
                   key->text);
        TRY(arena_push(m->arena, &name, key->count + 1, 1));
        memcpy(name, key->text, (size_t)key->count);
        out->name[i] = name;
        out->tensor[i] = value->tensor;
    }
    out->count = count;
    return ERR_OK;
}

err_t torch_pickle_read(struct torch_pickle *out, const void *bytes, int64_t size, const char *file)
{
    err_t rc = ERR_OK;
    *out = (struct torch_pickle){ 0 };
    struct machine m = { .arena = &out->arena, .file = file, .bytes = bytes, .size = size };
    TRY_DONE(run(&m));
    TRY_DONE(collect(out, &m));
done:
    free(m.stack);
    free(m.memo);
    return rc;
}

void torch_pickle_clear(struct torch_pickle *p)
{
    arena_clear(&p->arena);
    *p = (struct torch_pickle){ 0 };
}

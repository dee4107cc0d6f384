/* Keys, choices and their file: text and integers only. */
#include "kernels/cuda/gemm_tune.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/env.h"
#include "base/file.h"
#include "base/log.h"
#include "base/num.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAGIC          "soulchat-tune 1\n"
#define FILE_BYTES_MAX (INT64_C(4) << 20)

/* ---- settings ---- */

/* ${XDG_CACHE_HOME:-$HOME/.cache}/soulchat/gemm.tune; "" where neither is set. */
static void default_path(char out[1024])
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = -1;
    if (cache != NULL && cache[0] == '/')
        length = snprintf(out, 1024, "%s/soulchat/gemm.tune", cache);
    else if (home != NULL && home[0] == '/')
        length = snprintf(out, 1024, "%s/.cache/soulchat/gemm.tune", home);
    if (length < 0 || length >= 1024) out[0] = '\0';
}

err_t tune_settings_read(struct tune_settings *out)
{
    const char *tune = env_get("SOULCHAT_TUNE"), *fuse = env_get("SOULCHAT_FUSE");
    *out = {};
    out->is_off = tune != NULL && strcmp(tune, "off") == 0;
    if (tune == NULL)
        default_path(out->path);
    else if (!out->is_off && strlen(tune) < sizeof out->path)
        strcpy(out->path, tune);
    if (fuse != NULL && strcmp(fuse, "dgelu") != 0)
        RAISE(USAGE, "SOULCHAT_FUSE=%s; expected dgelu", fuse);
    out->fuse_dgelu = fuse != NULL;
    return ERR_OK;
}

/* ---- keys ---- */

int64_t tune_bucket(int64_t size)
{
    ASSERT(size > 0);
    int64_t octave = 1;
    while (octave <= size / 2) octave *= 2;
    return align_up(size, max_i64(1, octave / 4));
}

int tune_alignment(const void *data, int64_t ld, dtype_t dtype)
{
    const uint64_t bits = (uint64_t)(uintptr_t)data | (uint64_t)(ld * dtype_bytes(dtype)) | 16;
    return (int)(bits & (~bits + 1));
}

int tune_epilogue_alignment(const struct gemm *g)
{
    if (g->epilogue == GEMM_BIAS) return tune_alignment(g->bias, 0, g->out_dtype);
    if (g->epilogue == GEMM_DGELU) return tune_alignment(g->pre.data, g->pre.ld, g->out_dtype);
    return 16;
}

static void describe(char out[TUNE_KEY_MAX], const struct gemm *g, int64_t m, int64_t n, int64_t k)
{
    static const char *const epilogues[] = { "", " bias", " dgelu" };
    const int aligned_epilogue = tune_epilogue_alignment(g);
    const int aligned_d = tune_alignment(g->d.data, g->d.ld, g->out_dtype);
    const int length =
        snprintf(out, TUNE_KEY_MAX, "%c%c %s>%s %" PRId64 "x%" PRId64 "x%" PRId64 "%s%s a%d,%d,%d",
                 g->a_transposed ? 't' : 'n', g->b_transposed ? 't' : 'n', dtype_name(g->in_dtype),
                 dtype_name(g->out_dtype), m, n, k, g->accumulate ? " add" : "",
                 epilogues[g->epilogue], tune_alignment(g->a.data, g->a.ld, g->in_dtype),
                 tune_alignment(g->b.data, g->b.ld, g->in_dtype),
                 aligned_d < aligned_epilogue ? aligned_d : aligned_epilogue);
    ASSERT(length > 0 && length < TUNE_KEY_MAX);
}

void tune_key(char out[TUNE_KEY_MAX], const struct gemm *g)
{
    describe(out, g, tune_bucket(g->m), tune_bucket(g->n), tune_bucket(g->k));
}

void tune_name(char out[TUNE_KEY_MAX], const struct gemm *g) { describe(out, g, g->m, g->n, g->k); }

/* ---- choices ---- */

void tune_book_init(struct tune_book *book, const char *path, const char *owner)
{
    *book = {};
    book->path = path != NULL && path[0] != '\0' ? path : NULL;
    snprintf(book->owner, sizeof book->owner, "%s", owner);
    for (char *c = book->owner; *c != '\0'; c++)
        if (*c == ';' || *c == '\n' || *c == '\r') *c = ',';
}

void tune_book_clear(struct tune_book *book)
{
    free(book->choices);
    *book = {};
}

static err_t append(struct tune_book *book, const struct tune_choice *choice)
{
    if (book->count == book->capacity) {
        const int64_t capacity = max_i64(64, 2 * book->capacity);
        void *grown = realloc(book->choices, (size_t)capacity * sizeof *choice);
        if (grown == NULL) RAISE(NOMEM, "tuned products: room for %" PRId64 " wanted", capacity);
        book->choices = (struct tune_choice *)grown;
        book->capacity = capacity;
    }
    book->choices[book->count++] = *choice;
    return ERR_OK;
}

/* Copy what stands before `end` to out[size]; false when it does not fit. */
static bool take_text(char *out, int64_t size, const char *begin, const char *end)
{
    if (end - begin >= size) return false;
    memcpy(out, begin, (size_t)(end - begin));
    out[end - begin] = '\0';
    return true;
}

/* One line, NUL-terminated: owner; key; time us; words. */
static bool parse_line(struct tune_choice *out, const char *line)
{
    *out = {};
    const char *key = strstr(line, "; "), *time = key == NULL ? NULL : strstr(key + 2, "; ");
    if (time == NULL || !take_text(out->owner, sizeof out->owner, line, key) ||
        !take_text(out->key, sizeof out->key, key + 2, time))
        return false;
    char *at;
    out->time_us = strtod(time + 2, &at);
    if (at == time + 2 || strncmp(at, " us;", 4) != 0 || !(out->time_us >= 0.0)) return false;
    at += 4;
    for (int w = 0; w < TUNE_WORDS; w++) {
        char *end;
        if (*at != ' ') return false;
        out->words[w] = strtoull(at + 1, &end, 16);
        if (end != at + 1 + 16) return false;
        at = end;
    }
    return *at == '\0';
}

/* The text between the first line and the checksum's, or NULL: not a whole file of this format. */
static char *checked_body(struct buf *text)
{
    static const char last[] = "crc32c 00000000\n";
    const size_t magic = strlen(MAGIC), tail = sizeof last - 1;
    if (text->size < magic + tail || memcmp(text->data, MAGIC, magic) != 0) return NULL;
    char *const end = text->data + text->size - tail;
    char expected[sizeof last];
    snprintf(expected, sizeof expected, "crc32c %08" PRIx32 "\n",
             crc32c(0, text->data, text->size - tail));
    if (memcmp(end, expected, tail) != 0) return NULL;
    *end = '\0';
    return text->data + magic;
}

static struct tune_choice *find(const struct tune_book *book, const char *owner, const char *key)
{
    for (int64_t i = 0; i < book->count; i++) {
        struct tune_choice *c = &book->choices[i];
        if (strcmp(c->key, key) == 0 && strcmp(c->owner, owner) == 0) return c;
    }
    return NULL;
}

/* Choices of a text, appended; *is_whole = false where it is none of this format. */
static err_t parse(struct tune_book *book, bool *is_whole, struct buf *text)
{
    char *line = checked_body(text);
    *is_whole = line != NULL;
    while (*is_whole && *line != '\0') {
        struct tune_choice choice;
        char *end = strchr(line, '\n');
        if (end != NULL) *end = '\0';
        *is_whole = end != NULL && parse_line(&choice, line);
        if (*is_whole) TRY(append(book, &choice));
        line = end == NULL ? line : end + 1;
    }
    return ERR_OK;
}

/* What `from` has and the book has not. */
static err_t merge(struct tune_book *book, const struct tune_book *from)
{
    for (int64_t i = 0; i < from->count; i++) {
        const struct tune_choice *c = &from->choices[i];
        if (find(book, c->owner, c->key) == NULL) TRY(append(book, c));
    }
    return ERR_OK;
}

/* *is_readable = false: the file may hold what we have not seen. */
static err_t load(struct tune_book *book, bool *is_readable)
{
    err_t rc = ERR_OK;
    struct buf text = {};
    struct tune_book file = {};
    bool is_whole = true;
    const err_t read = file_read_all(&text, book->path, FILE_BYTES_MAX);
    *is_readable = read == ERR_OK || read == ERR_NOTFOUND;
    if (!*is_readable) LOG_W("gemm", "%s; products will be timed again", err_last()->text);
    if (read != ERR_OK) goto done;
    TRY_DONE(parse(&file, &is_whole, &text));
    if (is_whole)
        TRY_DONE(merge(book, &file));
    else
        LOG_W("gemm", "%s is damaged or of another version; its products will be timed again",
              book->path);
done:
    tune_book_clear(&file);
    buf_clear(&text);
    return rc;
}

err_t tune_book_load(struct tune_book *book)
{
    bool is_readable;
    return book->path == NULL ? ERR_OK : load(book, &is_readable);
}

const struct tune_choice *tune_book_find(const struct tune_book *book, const char *key)
{
    return find(book, book->owner, key);
}

static err_t write_text(struct buf *out, const struct tune_book *book)
{
    const size_t begin = out->size;
    TRY(buf_puts(out, MAGIC));
    for (int64_t i = 0; i < book->count; i++) {
        const struct tune_choice *c = &book->choices[i];
        TRY(buf_printf(out, "%s; %s; %.1f us;", c->owner, c->key, c->time_us));
        for (int w = 0; w < TUNE_WORDS; w++) TRY(buf_printf(out, " %016" PRIx64, c->words[w]));
        TRY(buf_puts(out, "\n"));
    }
    return buf_printf(out, "crc32c %08" PRIx32 "\n",
                      crc32c(0, out->data + begin, out->size - begin));
}

static err_t make_folder(const char *path)
{
    char folder[FILE_PATH_MAX];
    TRY(path_copy(folder, path));
    char *slash = strrchr(folder, '/');
    if (slash == NULL || slash == folder) return ERR_OK;
    *slash = '\0';
    return dir_create(folder);
}

static err_t write_file(const struct tune_book *book)
{
    err_t rc = ERR_OK;
    struct buf text = {};
    TRY_DONE(write_text(&text, book));
    TRY_DONE(file_replace(book->path, text.data, (int64_t)text.size));
done:
    buf_clear(&text);
    return rc;
}

static err_t lock_file(int *fd, const struct tune_book *book)
{
    char path[FILE_PATH_MAX];
    *fd = -1;
    TRY(make_folder(book->path));
    if (snprintf(path, sizeof path, "%s.lock", book->path) >= (int)sizeof path)
        RAISE(ARG, "path is too long: %s", book->path);
    return file_lock(fd, path, true);
}

/* Under the lock nobody else changes the file. */
static err_t add_locked(struct tune_book *book, bool *is_written, const struct tune_choice *choice)
{
    bool is_readable;
    *is_written = true;
    TRY(load(book, &is_readable));
    if (find(book, choice->owner, choice->key) != NULL) return ERR_OK;
    TRY(append(book, choice));
    *is_written = is_readable && write_file(book) == ERR_OK;
    return ERR_OK;
}

static err_t add(struct tune_book *book, const struct tune_choice *choice)
{
    bool is_written = false;
    int lock;
    if (book->path == NULL) return append(book, choice);
    const bool is_locked = lock_file(&lock, book) == ERR_OK;
    const err_t rc = is_locked ? add_locked(book, &is_written, choice) : append(book, choice);
    if (is_locked) close(lock);
    if (rc != ERR_OK || is_written) return rc;
    LOG_W("gemm", "%s; the next run will time its products again", err_last()->text);
    book->path = NULL; /* said once */
    return ERR_OK;
}

err_t tune_book_add(struct tune_book *book, const char *key, const uint64_t words[TUNE_WORDS],
                    double time_us)
{
    struct tune_choice choice = {};
    ASSERT(strlen(key) < sizeof choice.key && strchr(key, ';') == NULL);
    ASSERT(isfinite(time_us) && time_us >= 0.0);
    memcpy(choice.owner, book->owner, sizeof choice.owner);
    strcpy(choice.key, key);
    memcpy(choice.words, words, sizeof choice.words);
    choice.time_us = time_us;
    return add(book, &choice);
}

/* ---- choices elsewhere than in the file ---- */

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct tune_choice *)a)->key, ((const struct tune_choice *)b)->key);
}

err_t tune_book_write(struct buf *out, const struct tune_book *book)
{
    err_t rc = ERR_OK;
    struct tune_book own = {};
    for (int64_t i = 0; i < book->count; i++)
        if (strcmp(book->choices[i].owner, book->owner) == 0)
            TRY_DONE(append(&own, &book->choices[i]));
    if (own.count == 0) goto done;
    qsort(own.choices, (size_t)own.count, sizeof *own.choices, by_key);
    TRY_DONE(write_text(out, &own));
done:
    tune_book_clear(&own);
    return rc;
}

err_t tune_book_adopt(struct tune_book *book, const char *text, int64_t size)
{
    err_t rc = ERR_OK;
    struct buf copy = {};
    struct tune_book from = {};
    bool is_whole = false;
    TRY_DONE(buf_append(&copy, text, (size_t)size));
    TRY_DONE(parse(&from, &is_whole, &copy));
    if (!is_whole) RAISE_DONE(FORMAT, "choices of product algorithms are damaged");
    for (int64_t i = 0; i < from.count; i++) {
        const struct tune_choice *c = &from.choices[i];
        struct tune_choice *own = find(book, book->owner, c->key);
        if (strcmp(c->owner, book->owner) != 0) continue;
        if (own != NULL)
            *own = *c;
        else
            TRY_DONE(append(book, c));
    }
done:
    tune_book_clear(&from);
    buf_clear(&copy);
    return rc;
}

/* ---- products seen ---- */

/* The finalizer of splitmix64 (Steele, Lea, Flood 2014) over 64-bit pieces. */
static uint64_t mix(uint64_t hash, uint64_t value)
{
    uint64_t x = (hash ^ value) + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void product_key(int64_t out[PRODUCT_WORDS], const struct gemm *g)
{
    const int64_t kinds = g->a_transposed | g->b_transposed << 1 | g->accumulate << 2 |
                          g->epilogue << 3 | g->in_dtype << 5 | g->out_dtype << 9;
    const int64_t aligned = tune_alignment(g->a.data, g->a.ld, g->in_dtype) |
                            tune_alignment(g->b.data, g->b.ld, g->in_dtype) << 5 |
                            tune_alignment(g->d.data, g->d.ld, g->out_dtype) << 10;
    const bool has_pre = g->epilogue == GEMM_DGELU;
    const int64_t key[PRODUCT_WORDS] = {
        g->m,
        g->n,
        g->k,
        g->a.ld,
        g->b.ld,
        g->d.ld,
        kinds,
        aligned,
        has_pre ? g->pre.ld : 0,
        tune_epilogue_alignment(g),
    };
    memcpy(out, key, sizeof key);
}

/* Where a key is, or would be: linear probing; a quarter of the slots is always free. */
static int64_t slot_of(const struct product_table *t, const int64_t key[PRODUCT_WORDS])
{
    uint64_t hash = 0;
    for (int w = 0; w < PRODUCT_WORDS; w++) hash = mix(hash, (uint64_t)key[w]);
    int64_t slot = (int64_t)(hash % PRODUCT_SLOTS);
    while (t->key[slot][0] != 0 && memcmp(t->key[slot], key, sizeof t->key[slot]) != 0)
        slot = (slot + 1) % PRODUCT_SLOTS;
    return slot;
}

int64_t product_find(const struct product_table *t, const int64_t key[PRODUCT_WORDS])
{
    const int64_t slot = slot_of(t, key);
    return t->key[slot][0] != 0 ? slot : -1;
}

bool product_is_full(const struct product_table *t) { return t->count >= PRODUCT_SLOTS / 4 * 3; }

int64_t product_add(struct product_table *t, const int64_t key[PRODUCT_WORDS])
{
    ASSERT(key[0] > 0 && !product_is_full(t));
    const int64_t slot = slot_of(t, key);
    ASSERT(t->key[slot][0] == 0);
    memcpy(t->key[slot], key, sizeof t->key[slot]);
    t->count++;
    return slot;
}

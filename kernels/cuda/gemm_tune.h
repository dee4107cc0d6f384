/*
 * gemm_tune.h - which algorithm computes which product: keys, the book of choices with its file,
 * and the table of products seen. Nothing of CUDA is in here.
 *
 *     struct tune_book book;
 *     tune_book_init(&book, path, "NVIDIA H200, cuBLASLt 130100");   // path NULL: no file
 *     tune_book_load(&book);
 *     tune_key(key, &product);
 *     const struct tune_choice *choice = tune_book_find(&book, key);
 *     if (choice == NULL) rc = tune_book_add(&book, key, algorithm, microseconds);
 *     choice = tune_book_find(&book, key);                           // which may be another's
 *     tune_book_clear(&book);
 *
 * The file is text, a line a choice, and ends in a checksum. It holds the choices of any number of
 * cards and library versions ("owners"): each uses its own and keeps the others'. A file that is
 * damaged, or of another format, is a warning, and what it held is tuned again.
 *
 * Programs share it: an add takes the lock beside it (PATH.lock), reads what others have added, and
 * replaces the file whole (base/file.h). Who adds a choice first decides for all, so that the ranks
 * of one run compute with the same algorithms.
 *
 *     soulchat-tune 1
 *     NVIDIA H200, cuBLASLt 130100; nt bf16>bf16 16384x12288x4096 bias a16,16,16; 2290.5 us; <64 B>
 *     crc32c 1a2b3c4d
 */
#ifndef KERNELS_CUDA_GEMM_TUNE_H
#define KERNELS_CUDA_GEMM_TUNE_H

#include "kernels/cuda/gemm.h"

#include "base/buf.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- settings ---- */

struct tune_settings {
    bool is_off;     /* SOULCHAT_TUNE=off: the library's first proposal, no timing, no file */
    bool fuse_dgelu; /* SOULCHAT_FUSE=dgelu */
    char path[1024]; /* SOULCHAT_TUNE, or soulchat/gemm.tune in the user's cache; "": none */
};

/* From the environment. ERR_USAGE: SOULCHAT_FUSE names something else. */
MUST_USE err_t tune_settings_read(struct tune_settings *out);

/* ---- keys ---- */

#define TUNE_KEY_MAX 96

/* `size` rounded up to one of four steps an octave: 16384, 20480, 24576, 28672, 32768. */
int64_t tune_bucket(int64_t size);
/* The alignment of a matrix's rows in bytes: 16, 8, 4, 2 or 1. */
int tune_alignment(const void *data, int64_t ld, dtype_t dtype);
/* The same of what the epilogue reads; 16 where it reads nothing. */
int tune_epilogue_alignment(const struct gemm *g);
/* What a choice is made for: kinds, dtypes, alignments and the bucket of each size. */
void tune_key(char out[TUNE_KEY_MAX], const struct gemm *g);
/* The same with exact sizes: for messages. */
void tune_name(char out[TUNE_KEY_MAX], const struct gemm *g);

/* ---- choices ---- */

#define TUNE_WORDS     8 /* an algorithm of cuBLASLt is 64 opaque bytes */
#define TUNE_OWNER_MAX 128

struct tune_choice {
    char owner[TUNE_OWNER_MAX];
    char key[TUNE_KEY_MAX];
    uint64_t words[TUNE_WORDS];
    double time_us;
};

struct tune_book {
    const char *path; /* borrowed; NULL: none */
    char owner[TUNE_OWNER_MAX];
    struct tune_choice *choices;
    int64_t count, capacity;
};

/* No semicolons or line ends in `owner`: they become commas. */
void tune_book_init(struct tune_book *book, const char *path, const char *owner);
void tune_book_clear(struct tune_book *book);
/* Take in what the file has and the book has not. What is wrong with it is logged; ERR_NOMEM alone
 * is an error. */
MUST_USE err_t tune_book_load(struct tune_book *book);
/* The owner's choice for a key; NULL: none. Valid until the book changes. */
const struct tune_choice *tune_book_find(const struct tune_book *book, const char *key);
/* Add a choice to book and file; where somebody else has added one for the key meanwhile, that one
 * is taken instead. A file that cannot be written is logged; ERR_NOMEM. */
MUST_USE err_t tune_book_add(struct tune_book *book, const char *key,
                             const uint64_t words[TUNE_WORDS], double time_us);

/* The owner's choices as the text of a file, by key, appended; nothing where there are none. */
MUST_USE err_t tune_book_write(struct buf *out, const struct tune_book *book);
/* Choices of such a text, the owner's alone, in the place of those that the book has. ERR_FORMAT.
 */
MUST_USE err_t tune_book_adopt(struct tune_book *book, const char *text, int64_t size);

/* ---- products seen ---- */

/* Exactly what a prepared call depends on. */
#define PRODUCT_WORDS 10
#define PRODUCT_SLOTS 1024 /* a power of two */

struct product_table {
    int64_t key[PRODUCT_SLOTS][PRODUCT_WORDS]; /* first word 0: free */
    int64_t count;
};

void product_key(int64_t out[PRODUCT_WORDS], const struct gemm *g);
/* The slot of a key, or -1. */
int64_t product_find(const struct product_table *t, const int64_t key[PRODUCT_WORDS]);
/* Three quarters of the slots are taken: empty the table before adding. It costs preparing calls
 * again, and only programs with endless shapes get there. */
bool product_is_full(const struct product_table *t);
/* The slot for a key that is not there, in a table that is not full. */
int64_t product_add(struct product_table *t, const int64_t key[PRODUCT_WORDS]);

#ifdef __cplusplus
}
#endif
#endif

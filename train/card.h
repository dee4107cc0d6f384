/*
 * card.h - what a plan knows about a GPU: its memory, and the rates it computes and copies at.
 *
 *     struct card card;
 *     TRY(card_find(&card, "l40s", "rates.json"));     // or NULL: the table's assumptions
 *
 * The table's memory is what the driver reports as the card's total, which is less than its name
 * says. Its rates are assumptions: part of what the data sheet says. Measured ones replace them.
 */
#ifndef TRAIN_CARD_H
#define TRAIN_CARD_H

#include "base/err.h"
#include "kernels/dev.h"

#include <stdbool.h>
#include <stdint.h>

#define CARD_NAME_MAX        80
#define CARD_RATES_BYTES_MAX (1 << 20) /* of a file of rates */

/* FLOP and bytes per second. */
struct card_rates {
    double gemm_bf16;          /* the largest products, float32 sums; 0: none */
    double gemm_f32;           /* the same in float32 */
    double gemm_share;         /* what a step's products reach of that, on average: at most 1 */
    double attn_fwd, attn_bwd; /* attention over visible pairs, in bf16 (in f32 where that is 0) */
    double copy;               /* bytes read and written by a large copy */
    double pcie;               /* bytes between host and card, each way; 0: nothing between */
};

struct card {
    char name[CARD_NAME_MAX]; /* of the setting plan.card: "l40s" */
    char gpu[CARD_NAME_MAX];  /* as the driver calls it, which may say more: "NVIDIA L40S" */
    int64_t memory_bytes;
    int capability;      /* 89 for compute capability 8.9; 0: the processor */
    const char *link;    /* between cards of a machine: a name of fabric.h; NULL: memory */
    int multiprocessors; /* some scratch is per multiprocessor; 0: the processor */
    struct card_rates rates;
    bool measured; /* the rates, in part at least; otherwise assumed */
};

/*
 * By the table's name, or by the driver's ("NVIDIA H100 80GB HBM3" is "NVIDIA H100" in the table).
 *
 * `rates_path` (NULL or "": none) is a file that benchmarks write, one object per GPU by the
 * driver's name; what it gives replaces the table's figure:
 *
 *     { "NVIDIA L40S": { "gemm_bf16": 2.4e14, "gemm_f32": 6e13, "gemm_share": 0.93,
 *                        "attn_fwd": 1.6e14, "attn_bwd": 1.2e14, "copy": 7.7e11, "pcie": 2.3e10,
 *                        "memory_bytes": 47697362944, "capability": 89,
 *                        "multiprocessors": 142 } }
 *
 * A GPU that only the file knows must have all of them. ERR_USAGE: neither knows the name;
 * ERR_NOTFOUND, ERR_FORMAT: the file.
 */
MUST_USE err_t card_find(struct card *out, const char *name, const char *rates_path);

/* Whether the table has this name, of either kind. */
bool card_is_known(const char *name);

/* A GPU that is there but in no table: the nearest compute capability's rates, scaled by the number
 * of multiprocessors. */
void card_guess(struct card *out, const struct dev_info *info);

/* Rows of the table. */
int64_t card_count(void);
void card_at(struct card *out, int64_t index);

#endif

#include "train/card.h"

#include "base/check.h"
#include "base/nearest.h"
#include "model/json_in.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A step has smaller products than the largest, and work behind some of them. */
#define GEMM_SHARE 0.94

/*
 * memory: the total that the driver reports, as programs print it when they run out of it (H200 139
 * GiB, H100 79.1, A100 79.15 and 39.38, H20 95, L40S 44.42, RTX A6000 47.4, RTX 5090 31.3, RTX 4090
 * 23.64, RTX 3090 23.5), rounded down.
 * products: some 0.8 of the data sheet's dense peak with float32 sums (989 TFLOP/s in bf16 for H200
 * and H100, 312 A100, 148 H20, 362 L40S, 155 A6000, 210, 165 and 71 for the RTX cards); less where
 * power limits them. attention: of the H200 from cuDNN's published figures at lengths up to 2,048,
 * of the others in the same proportion to their products. copy: 0.9 of the memory's peak. pcie: 16
 * lanes of generation 4 or 5.
 */
static const struct {
    const char *name, *gpu;
    double memory_gb; /* 1e9 bytes */
    int capability, multiprocessors;
    double gemm_bf16, gemm_f32, attn_fwd, attn_bwd; /* TFLOP/s */
    double copy_tb, pcie_gb;                        /* per second */
    const char *link;                               /* of forms without a bridge, but for SXM */
} cards[] = {
    { "h200", "NVIDIA H200", 149.0, 90, 132, 790, 50, 620, 480, 4.3, 50, "nvlink4" },
    { "h100", "NVIDIA H100", 84.9, 90, 132, 740, 50, 580, 450, 3.0, 50, "nvlink4" },
    { "h800", "NVIDIA H800", 84.9, 90, 132, 740, 50, 580, 450, 3.0, 50, "nvlink-h800" },
    { "h20", "NVIDIA H20", 102.0, 90, 78, 125, 35, 95, 75, 3.6, 50, "nvlink4" },
    { "a100-80gb", "NVIDIA A100-SXM4-80GB", 84.9, 80, 108, 255, 15, 190, 150, 1.8, 24, "nvlink3" },
    { "a800-80gb", "NVIDIA A800-SXM4-80GB", 84.9, 80, 108, 255, 15, 190, 150, 1.8, 24,
      "nvlink-a800" },
    { "a100-40gb", "NVIDIA A100-SXM4-40GB", 42.2, 80, 108, 255, 15, 190, 150, 1.4, 24, "nvlink3" },
    { "l40s", "NVIDIA L40S", 47.69, 89, 142, 240, 60, 170, 130, 0.77, 24, "pcie4" },
    { "a6000", "NVIDIA RTX A6000", 50.9, 86, 84, 115, 25, 85, 65, 0.69, 24, "pcie4" },
    { "rtx5090", "NVIDIA GeForce RTX 5090", 33.6, 120, 170, 190, 70, 140, 110, 1.6, 50, "pcie5" },
    { "rtx4090", "NVIDIA GeForce RTX 4090", 25.38, 89, 128, 150, 60, 110, 85, 0.9, 24, "pcie4" },
    { "rtx3090", "NVIDIA GeForce RTX 3090", 25.23, 86, 82, 62, 25, 46, 36, 0.84, 24, "pcie4" },
};

int64_t card_count(void) { return COUNT_OF(cards); }

void card_at(struct card *out, int64_t index)
{
    ASSERT(index >= 0 && index < COUNT_OF(cards));
    *out = (struct card){
        .memory_bytes = llround(cards[index].memory_gb * 1e9),
        .capability = cards[index].capability,
        .multiprocessors = cards[index].multiprocessors,
        .link = cards[index].link,
        .rates = { .gemm_bf16 = cards[index].gemm_bf16 * 1e12,
                   .gemm_f32 = cards[index].gemm_f32 * 1e12,
                   .gemm_share = GEMM_SHARE,
                   .attn_fwd = cards[index].attn_fwd * 1e12,
                   .attn_bwd = cards[index].attn_bwd * 1e12,
                   .copy = cards[index].copy_tb * 1e12,
                   .pcie = cards[index].pcie_gb * 1e9 },
    };
    snprintf(out->name, sizeof out->name, "%s", cards[index].name);
    snprintf(out->gpu, sizeof out->gpu, "%s", cards[index].gpu);
}

/* Whether `name` is `known`, or `known` with more words behind it. */
static bool begins_with(const char *name, const char *known)
{
    const size_t length = strlen(known);
    return strncmp(name, known, length) == 0 && (name[length] == '\0' || name[length] == ' ');
}

/* -1: none. */
static int64_t find_row(const char *name)
{
    for (int64_t i = 0; i < COUNT_OF(cards); i++)
        if (strcmp(name, cards[i].name) == 0 || begins_with(name, cards[i].gpu)) return i;
    return -1;
}

bool card_is_known(const char *name) { return find_row(name) >= 0; }

static err_t unknown(const char *name, bool has_rates)
{
    char list[CARD_NAME_MAX * COUNT_OF(cards)] = "";
    struct nearest nearest = { .word = name };
    for (int64_t i = 0, at = 0; i < COUNT_OF(cards); i++) {
        nearest_offer(&nearest, cards[i].name);
        at +=
            snprintf(list + at, sizeof list - (size_t)at, "%s%s", i > 0 ? ", " : "", cards[i].name);
    }
    RAISE(USAGE, "plan.card \"%s\" is not known%s; expected cpu, %s; the nearest is %s", name,
          has_rates ? " and not in plan.rates" : "", list, nearest.best);
}

/* The entry of this card: its gpu's name, or the one it was asked for by. */
static const json_t *find_entry(json_t *root, const char *gpu)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        if (begins_with(key, gpu) || begins_with(gpu, key)) return value;
    }
    return NULL;
}

/* A key that may be absent where the table has the value. */
static err_t read_int(int64_t *value, const json_t *entry, const char *key, int64_t min,
                      int64_t max, const char *where)
{
    if (json_object_get(entry, key) == NULL && *value != 0) return ERR_OK;
    return json_in_int(value, entry, key, min, max, where);
}

static err_t read_entry(struct card *card, const json_t *entry, const char *where)
{
    struct card_rates *r = &card->rates;
    const struct {
        const char *key;
        double *value, max;
    } fields[] = {
        { "gemm_bf16", &r->gemm_bf16, 1e18 }, { "gemm_f32", &r->gemm_f32, 1e18 },
        { "gemm_share", &r->gemm_share, 1 },  { "attn_fwd", &r->attn_fwd, 1e18 },
        { "attn_bwd", &r->attn_bwd, 1e18 },   { "copy", &r->copy, 1e15 },
        { "pcie", &r->pcie, 1e15 },
    };
    for (int64_t i = 0; i < COUNT_OF(fields); i++) {
        TRY(json_in_real_maybe(fields[i].value, entry, fields[i].key, where));
        if (*fields[i].value <= 0.0 || *fields[i].value > fields[i].max)
            RAISE(FORMAT, "%s: %s is %g; expected above 0, at most %g", where, fields[i].key,
                  *fields[i].value, fields[i].max);
    }
    int64_t capability = card->capability, multiprocessors = card->multiprocessors;
    TRY(read_int(&card->memory_bytes, entry, "memory_bytes", 1, INT64_MAX, where));
    TRY(read_int(&capability, entry, "capability", 10, 1000, where));
    TRY(read_int(&multiprocessors, entry, "multiprocessors", 1, 10000, where));
    card->capability = (int)capability;
    card->multiprocessors = (int)multiprocessors;
    card->measured = true;
    return ERR_OK;
}

static err_t read_rates(struct card *card, bool *found, const char *path)
{
    json_t *root;
    char where[ERR_TEXT_MAX / 2];
    TRY(json_in_file(&root, path, CARD_RATES_BYTES_MAX));
    const json_t *entry = find_entry(root, card->gpu);
    err_t rc = ERR_OK;
    *found = entry != NULL;
    snprintf(where, sizeof where, "%s: %s", path, card->gpu);
    if (entry != NULL && !json_is_object(entry))
        rc = err_raise(ERR_FORMAT, __FILE__, __LINE__, "%s is %s; an object is wanted", where,
                       json_in_type(entry));
    else if (entry != NULL)
        rc = read_entry(card, entry, where);
    json_decref(root);
    return rc;
}

err_t card_find(struct card *out, const char *name, const char *rates_path)
{
    const int64_t row = find_row(name);
    const bool has_rates = rates_path != NULL && rates_path[0] != '\0';
    struct card card = { 0 };
    bool found = false;
    if (strlen(name) >= CARD_NAME_MAX)
        RAISE(USAGE, "plan.card has %zu bytes; at most %d are possible", strlen(name),
              CARD_NAME_MAX - 1);
    if (row >= 0) {
        card_at(&card, row);
    } else {
        strcpy(card.name, name);
        strcpy(card.gpu, name);
    }
    if (has_rates) TRY(read_rates(&card, &found, rates_path));
    if (row < 0 && !found) return unknown(name, has_rates);
    *out = card;
    return ERR_OK;
}

void card_guess(struct card *out, const struct dev_info *info)
{
    int64_t nearest = 0;
    for (int64_t i = 1; i < COUNT_OF(cards); i++) {
        const int far = abs(cards[i].capability - info->capability);
        const int best = abs(cards[nearest].capability - info->capability);
        if (far < best) nearest = i;
    }
    card_at(out, nearest);
    const int multiprocessors = info->multiprocessors > 0 ? info->multiprocessors : 1;
    const double size = (double)multiprocessors / (double)out->multiprocessors;
    struct card_rates *r = &out->rates;
    double *const grows[] = { &r->gemm_bf16, &r->gemm_f32, &r->attn_fwd, &r->attn_bwd };
    for (int64_t i = 0; i < COUNT_OF(grows); i++) *grows[i] *= size;
    snprintf(out->name, sizeof out->name, "%s", info->name);
    snprintf(out->gpu, sizeof out->gpu, "%s", info->name);
    out->memory_bytes = info->memory_bytes;
    out->capability = info->capability;
    out->multiprocessors = multiprocessors;
}

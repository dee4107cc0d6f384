#include "train/card.h"

#include "base/check.h"
#include "base/nearest.h"
#include "model/json_in.h"

#include <stdio.h>
#include <string.h>

/*
 * memory_bytes: the total that cudaMemGetInfo reports, as PyTorch prints it in its out-of-memory
 * messages (H200 139 GiB, H100 79.1, A100 79.15 and 39.38, L40S 44.42, RTX A6000 47.4,
 * RTX 5090 31.3, RTX 4090 23.64, RTX 3090 23.5), rounded down.
 * gemm: some 0.8 of the data sheet's dense peak with float32 sums (989, 989, 312, 312, 362, 155,
 * 210, 165 and 71 TFLOP/s in bf16); on GPUs limited by their power, less.
 * attention: of the H200 from cuDNN's published figures at lengths up to 2,048; of the others in
 * the same proportion to their products. copy: 0.9 of the memory's peak. pcie: 4.0 and 5.0 by 16.
 */
#define SHARE 0.94 /* a step has smaller products than the largest, and epilogues */

static const struct card cards[] = {
    { "h200",
      "NVIDIA H200",
      INT64_C(149000000000),
      90,
      132,
      { 790e12, 50e12, SHARE, 620e12, 480e12, 4.3e12, 50e9 },
      false },
    { "h100",
      "NVIDIA H100",
      INT64_C(84900000000),
      90,
      132,
      { 740e12, 50e12, SHARE, 580e12, 450e12, 3.0e12, 50e9 },
      false },
    { "a100-80gb",
      "NVIDIA A100-SXM4-80GB",
      INT64_C(84900000000),
      80,
      108,
      { 255e12, 15e12, SHARE, 190e12, 150e12, 1.8e12, 24e9 },
      false },
    { "a100-40gb",
      "NVIDIA A100-SXM4-40GB",
      INT64_C(42200000000),
      80,
      108,
      { 255e12, 15e12, SHARE, 190e12, 150e12, 1.4e12, 24e9 },
      false },
    { "l40s",
      "NVIDIA L40S",
      INT64_C(47690000000),
      89,
      142,
      { 240e12, 60e12, SHARE, 170e12, 130e12, 0.77e12, 24e9 },
      false },
    { "a6000",
      "NVIDIA RTX A6000",
      INT64_C(50900000000),
      86,
      84,
      { 115e12, 25e12, SHARE, 85e12, 65e12, 0.69e12, 24e9 },
      false },
    { "rtx5090",
      "NVIDIA GeForce RTX 5090",
      INT64_C(33600000000),
      120,
      170,
      { 190e12, 70e12, SHARE, 140e12, 110e12, 1.6e12, 50e9 },
      false },
    { "rtx4090",
      "NVIDIA GeForce RTX 4090",
      INT64_C(25380000000),
      89,
      128,
      { 150e12, 60e12, SHARE, 110e12, 85e12, 0.9e12, 24e9 },
      false },
    { "rtx3090",
      "NVIDIA GeForce RTX 3090",
      INT64_C(25230000000),
      86,
      82,
      { 62e12, 25e12, SHARE, 46e12, 36e12, 0.84e12, 24e9 },
      false },
};

int64_t card_count(void) { return COUNT_OF(cards); }

const struct card *card_at(int64_t index)
{
    ASSERT(index >= 0 && index < COUNT_OF(cards));
    return &cards[index];
}

/* Whether `name` is `known`, or `known` with more words behind it. */
static bool begins_with(const char *name, const char *known)
{
    const size_t length = strlen(known);
    return strncmp(name, known, length) == 0 && (name[length] == '\0' || name[length] == ' ');
}

static const struct card *find_row(const char *name)
{
    for (int64_t i = 0; i < COUNT_OF(cards); i++)
        if (strcmp(name, cards[i].name) == 0 || begins_with(name, cards[i].gpu)) return &cards[i];
    return NULL;
}

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
static json_t *find_entry(const json_t *root, const char *gpu)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)root, key,
                        value) if (begins_with(key, gpu) || begins_with(gpu, key)) return value;
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
    const struct card *row = find_row(name);
    const bool has_rates = rates_path != NULL && rates_path[0] != '\0';
    struct card card = { 0 };
    bool found = false;
    if (strlen(name) >= CARD_NAME_MAX)
        RAISE(USAGE, "plan.card has %zu bytes; at most %d are possible", strlen(name),
              CARD_NAME_MAX - 1);
    if (row != NULL) {
        card = *row;
    } else {
        strcpy(card.name, name);
        strcpy(card.gpu, name);
    }
    if (has_rates) TRY(read_rates(&card, &found, rates_path));
    if (row == NULL && !found) return unknown(name, has_rates);
    *out = card;
    return ERR_OK;
}

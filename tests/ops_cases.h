/*
 * ops_cases.h - the shapes, flags and magnitudes every operator is tested with, one table per
 * family; the forward and the backward operator read the same rows, benchmarks too. The first row
 * of each table is the small one from which the refusals are made.
 */
#ifndef TESTS_OPS_CASES_H
#define TESTS_OPS_CASES_H

#include "kernels/ops_attn.h"
#include "kernels/ops_linear.h"
#include "kernels/ops_norm.h"

/* A weight format, or T itself. */
enum weight_format { W_T, W_F16, W_BF16 };

enum id_pattern { IDS_RANDOM, IDS_EQUAL };

struct embed_case {
    const char *title;
    int64_t R, C, V;
    enum id_pattern ids;
    int64_t gap;    /* of strided rows */
    bool integers;  /* sums are exact: bit-equal */
    enum weight_format table;
};

static const struct embed_case embed_cases[] = {
    { "small", 3, 8, 5, IDS_RANDOM, 0, false, W_T },
    { "no rows", 0, 8, 5, IDS_RANDOM, 0, false, W_T },
    { "one row", 1, 64, 3, IDS_RANDOM, 0, false, W_T },
    { "odd width", 5, 7, 9, IDS_RANDOM, 0, false, W_T },
    { "repeated ids", 129, 64, 4, IDS_RANDOM, 0, false, W_T },
    { "one id only", 1025, 8, 6, IDS_EQUAL, 0, false, W_T },
    { "one id, integers", 1025, 24, 6, IDS_EQUAL, 0, true, W_T },
    { "integers", 128, 64, 50, IDS_RANDOM, 3, true, W_T },
    { "strided", 127, 24, 11, IDS_RANDOM, 8, false, W_T },
    { "wide", 128, 4096, 17, IDS_RANDOM, 0, false, W_T },
    { "f16 table", 33, 40, 9, IDS_RANDOM, 8, false, W_F16 },
    { "bf16 table", 33, 40, 9, IDS_RANDOM, 0, false, W_BF16 },
    { "f16 table, odd width", 5, 7, 9, IDS_RANDOM, 0, false, W_F16 },
    { "bf16 table, odd width", 5, 7, 9, IDS_RANDOM, 0, false, W_BF16 },
};

struct norm_case {
    const char *title;
    enum norm_kind kind;
    enum residual_from from;
    int64_t R, C;
    bool residual, keeps_h, frozen; /* frozen: no dgamma, no dbeta */
    double alpha, magnitude, offset; /* x and residual = magnitude * normal + offset */
};

static const struct norm_case norm_cases[] = {
    { "small", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 3, 8, true, true, false, 7.48331477, 1, 0 },
    { "small rms", NORM_RMS, RESIDUAL_FROM_INPUT, 3, 8, true, true, false, 1, 1, 0 },
    { "no rows", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 0, 8, true, true, false, 2, 1, 0 },
    { "one row", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 1, 64, true, true, false, 7.5, 1, 0.5 },
    { "one row rms", NORM_RMS, RESIDUAL_FROM_INPUT, 1, 64, true, true, false, 1, 1, 0.5 },
    { "odd width", NORM_LAYER, RESIDUAL_FROM_INPUT, 5, 37, true, true, false, 0.5, 1, 0 },
    { "odd width, output", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 5, 37, true, true, false, 3, 1, 0 },
    { "rms, output", NORM_RMS, RESIDUAL_FROM_OUTPUT, 7, 24, true, true, false, 3, 1, 0 },
    { "no residual", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 127, 64, false, true, false, 1, 1, 0 },
    { "h not kept", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 128, 64, false, false, false, 1, 1, 0 },
    { "rms, h not kept", NORM_RMS, RESIDUAL_FROM_INPUT, 129, 64, false, false, false, 1, 1, 0 },
    { "frozen", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 9, 64, true, true, true, 2, 1, 0 },
    { "many rows", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 1025, 64, true, true, false, 7.5, 1, 0 },
    { "wide", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 129, 4096, true, true, false, 7.48331477, 1, 0 },
    { "wide rms", NORM_RMS, RESIDUAL_FROM_INPUT, 65, 4096, true, true, false, 1, 1, 0 },
    { "large", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 9, 256, true, true, false, 7.5, 1e3, 1e3 },
    { "large rms", NORM_RMS, RESIDUAL_FROM_INPUT, 9, 256, true, true, false, 1, 1e3, -1e3 },
    { "off centre", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 9, 512, false, true, false, 1, 1, 1e3 },
    { "zeros", NORM_LAYER, RESIDUAL_FROM_OUTPUT, 5, 64, true, true, false, 7.5, 0, 0 },
    { "zeros rms", NORM_RMS, RESIDUAL_FROM_INPUT, 5, 64, true, true, false, 1, 0, 0 },
};

struct linear_case {
    const char *title;
    int64_t R, K, N;
    enum act_kind act; /* forward: of the output; backward: the one that made x */
    bool bias, keeps_pre;
    bool wants_dx, wants_dw;
    int64_t gap;       /* of the strided operands */
    enum weight_format w;
    double magnitude;
    bool integers;     /* sums are exact: bit-equal (without activation) */
};

static const struct linear_case linear_cases[] = {
    { "small", 3, 8, 5, ACT_NONE, true, false, true, true, 0, W_T, 1, false },
    { "no rows", 0, 8, 16, ACT_NONE, true, false, true, true, 0, W_T, 1, false },
    { "one row", 1, 64, 24, ACT_NONE, true, false, true, true, 0, W_T, 1, false },
    { "one by one", 1, 1, 1, ACT_NONE, true, false, true, true, 0, W_T, 1, false },
    { "odd", 3, 33, 17, ACT_NONE, false, false, true, true, 0, W_T, 1, false },
    { "small gelu", 3, 8, 12, ACT_GELU_TANH, true, true, true, true, 0, W_T, 1, false },
    { "small swiglu", 3, 8, 6, ACT_SWIGLU, true, true, true, true, 0, W_T, 1, false },
    { "dx alone", 5, 16, 24, ACT_NONE, true, false, true, false, 0, W_T, 1, false },
    { "dw alone", 5, 16, 24, ACT_NONE, true, false, false, true, 0, W_T, 1, false },
    { "gelu", 129, 72, 65, ACT_GELU_TANH, true, true, true, true, 0, W_T, 1, false },
    { "gelu, lean", 127, 65, 72, ACT_GELU_TANH, true, false, true, true, 0, W_T, 1, false },
    { "swiglu", 127, 72, 65, ACT_SWIGLU, true, true, true, true, 0, W_T, 1, false },
    { "swiglu, lean", 128, 65, 33, ACT_SWIGLU, false, false, true, true, 0, W_T, 1, false },
    { "strided", 129, 40, 72, ACT_NONE, true, false, true, true, 24, W_T, 1, false },
    { "strided gelu", 33, 40, 72, ACT_GELU_TANH, true, true, true, true, 8, W_T, 1, false },
    { "odd stride", 9, 13, 7, ACT_NONE, true, false, true, true, 3, W_T, 1, false },
    { "many rows", 1025, 64, 40, ACT_NONE, true, false, true, true, 0, W_T, 1, false },
    { "tiles", 600, 33, 1100, ACT_NONE, true, false, true, true, 0, W_T, 1, false },
    { "deep", 9, 4096, 65, ACT_NONE, true, false, true, true, 0, W_T, 1, false },
    { "wide", 9, 65, 4096, ACT_GELU_TANH, true, true, true, true, 0, W_T, 1, false },
    { "large", 17, 64, 64, ACT_GELU_TANH, true, true, true, true, 0, W_T, 1e3, false },
    { "large swiglu", 17, 64, 64, ACT_SWIGLU, true, true, true, true, 0, W_T, 1e3, false },
    { "f16 weights", 129, 96, 65, ACT_NONE, true, false, true, true, 0, W_F16, 1, false },
    { "bf16 weights", 65, 96, 65, ACT_GELU_TANH, true, true, true, true, 8, W_BF16, 1, false },
    { "f16, one row", 1, 520, 1030, ACT_NONE, true, false, true, true, 0, W_F16, 1, false },
    { "integers", 129, 64, 65, ACT_NONE, true, false, true, true, 0, W_T, 1, true },
    { "integers, tall", 1025, 65, 33, ACT_NONE, true, false, true, true, 3, W_T, 1, true },
    { "zeros", 9, 64, 24, ACT_GELU_TANH, true, true, true, true, 0, W_T, 0, false },
};

struct ce_case {
    const char *title;
    int64_t R, C, V, Vv, N;
    bool wants_dx, wants_dw;
    enum weight_format w;
    double magnitude; /* of a logit, about */
};

static const struct ce_case ce_cases[] = {
    { "small", 5, 8, 12, 12, 3, true, true, W_T, 1 },
    { "no targets", 5, 8, 12, 12, 0, true, true, W_T, 1 },
    { "no rows", 0, 8, 12, 12, 0, true, true, W_T, 1 },
    { "padded vocabulary", 7, 16, 24, 19, 5, true, true, W_T, 1 },
    { "one word", 3, 8, 4, 1, 2, true, true, W_T, 1 },
    { "nll alone", 7, 16, 24, 19, 7, false, false, W_T, 1 },
    { "dx alone", 7, 16, 24, 19, 7, true, false, W_T, 1 },
    { "dw alone", 7, 16, 24, 19, 7, false, true, W_T, 1 },
    { "odd", 129, 33, 257, 251, 127, true, true, W_T, 1 },
    { "chunks", 1025, 24, 1030, 1025, 1025, true, true, W_T, 1 },
    { "wide", 17, 4096, 64, 60, 9, true, true, W_T, 1 },
    { "large vocabulary", 9, 16, 20000, 19990, 7, true, true, W_T, 1 },
    { "large logits", 33, 64, 130, 128, 30, true, true, W_T, 1e3 },
    { "zeros", 5, 16, 24, 20, 5, true, true, W_T, 0 },
    { "f16 weights", 33, 64, 130, 127, 30, true, true, W_F16, 1 },
    { "bf16 weights", 33, 64, 130, 127, 30, true, true, W_BF16, 1 },
    { "f16, pieces", 5, 64, 400, 390, 4, true, true, W_F16, 1 },
};

/* interleaved: kv_heads == heads and (q|k|v) per head; spare: columns beyond the layout's. */
struct heads {
    bool interleaved;
    int64_t heads, kv_heads, head_dim, spare;
};

struct rotary_case {
    const char *title;
    enum rotary_kind kind;
    struct heads heads;
    int64_t R, P;
    bool inverse;
};

static const struct rotary_case rotary_cases[] = {
    { "small", ROTARY_TWO_STREAM, { true, 2, 2, 8, 0 }, 3, 7, false },
    { "small interleaved", ROTARY_HALF_INTERLEAVED, { false, 4, 2, 8, 0 }, 3, 7, false },
    { "no rows", ROTARY_TWO_STREAM, { true, 2, 2, 8, 0 }, 0, 7, false },
    { "one row", ROTARY_TWO_STREAM, { true, 3, 3, 4, 0 }, 1, 3, false },
    { "inverse", ROTARY_TWO_STREAM, { true, 2, 2, 16, 0 }, 127, 40, true },
    { "inverse interleaved", ROTARY_HALF_INTERLEAVED, { false, 6, 2, 12, 0 }, 129, 40, true },
    { "spare columns", ROTARY_TWO_STREAM, { false, 4, 2, 8, 5 }, 9, 40, false },
    { "real heads", ROTARY_TWO_STREAM, { true, 4, 4, 128, 0 }, 1025, 300, false },
    { "real heads grouped", ROTARY_HALF_INTERLEAVED, { false, 8, 2, 128, 0 }, 128, 300, false },
};

enum { SEGMENTS_MAX = 6 };

struct attn_case {
    const char *title;
    struct heads heads;
    int64_t R, S;
    struct attn_segment segments[SEGMENTS_MAX];
    double magnitude; /* of q and k: scores have its square */
    double shift;     /* of all scores */
};

static const struct attn_case attn_cases[] = {
    { "small", { true, 2, 2, 4, 0 }, 7, 2, { { 0, 2, 4 }, { 4, 1, 3 } }, 1, 0 },
    { "small grouped", { false, 4, 2, 4, 0 }, 7, 2, { { 1, 0, 3 }, { 4, 2, 2 } }, 1, 0 },
    { "no segments", { true, 2, 2, 4, 0 }, 5, 0, { { 0, 0, 0 } }, 1, 0 },
    { "no rows", { true, 2, 2, 4, 0 }, 0, 0, { { 0, 0, 0 } }, 1, 0 },
    { "one token", { true, 1, 1, 8, 0 }, 1, 1, { { 0, 1, 1 } }, 1, 0 },
    { "one token, causal", { true, 3, 3, 8, 0 }, 2, 1, { { 1, 0, 1 } }, 1, 0 },
    { "padding between", { true, 2, 2, 16, 0 }, 20, 3,
      { { 2, 3, 5 }, { 9, 0, 4 }, { 14, 4, 4 } }, 1, 0 },
    { "spare columns", { false, 4, 2, 8, 6 }, 12, 2, { { 0, 2, 5 }, { 6, 1, 6 } }, 1, 0 },
    { "63, 64, 65", { true, 2, 2, 16, 0 }, 200, 3,
      { { 0, 0, 63 }, { 63, 1, 64 }, { 130, 65, 65 } }, 1, 0 },
    { "128, 129, 192", { true, 2, 2, 16, 0 }, 450, 3,
      { { 0, 127, 128 }, { 128, 128, 129 }, { 257, 0, 192 } }, 1, 0 },
    { "whole prefixes", { false, 4, 1, 16, 0 }, 300, 2,
      { { 0, 128, 128 }, { 130, 129, 129 } }, 1, 0 },
    { "causal", { false, 4, 4, 32, 0 }, 257, 2, { { 0, 0, 128 }, { 128, 0, 129 } }, 1, 0 },
    { "real head", { true, 2, 2, 128, 0 }, 130, 2, { { 0, 40, 65 }, { 65, 1, 64 } }, 1, 0 },
    { "steep", { true, 2, 2, 16, 0 }, 70, 2, { { 0, 3, 33 }, { 33, 0, 37 } }, 30, 0 },
    { "flat", { true, 2, 2, 16, 0 }, 70, 2, { { 0, 3, 33 }, { 33, 0, 37 } }, 0, 0 },
    { "shifted down", { true, 2, 2, 16, 0 }, 70, 2, { { 0, 3, 33 }, { 33, 0, 37 } }, 1, -120 },
    { "shifted up", { true, 2, 2, 16, 0 }, 70, 2, { { 0, 3, 33 }, { 33, 0, 37 } }, 1, 120 },
    { "width 12", { false, 4, 2, 12, 0 }, 40, 1, { { 1, 5, 37 } }, 1, 0 },
    { "width 256", { false, 2, 1, 256, 0 }, 40, 1, { { 1, 5, 37 } }, 1, 0 },
    /* Widths that matrix units take: every edge of tiles of 16, 32, 64 and 128. */
    { "64 wide: 1 .. 65", { true, 1, 1, 64, 0 }, 200, 5,
      { { 0, 0, 1 }, { 1, 1, 1 }, { 3, 1, 63 }, { 66, 64, 64 }, { 131, 64, 65 } }, 1, 0 },
    { "64 wide: causal", { true, 1, 1, 64, 0 }, 400, 4,
      { { 0, 0, 63 }, { 63, 0, 65 }, { 130, 0, 127 }, { 257, 0, 129 } }, 1, 0 },
    { "64 wide: prefixes", { true, 1, 1, 64, 0 }, 385, 3,
      { { 0, 127, 127 }, { 128, 127, 128 }, { 256, 1, 129 } }, 1, 0 },
    { "64 wide: flat", { true, 2, 2, 64, 0 }, 330, 2, { { 2, 70, 192 }, { 200, 17, 128 } }, 0, 0 },
    { "64 wide: steep", { true, 1, 1, 64, 0 }, 200, 2, { { 0, 30, 129 }, { 130, 0, 66 } }, 30, 0 },
    { "64 wide: down", { true, 1, 1, 64, 0 }, 270, 2, { { 0, 63, 192 }, { 200, 0, 65 } }, 1, -120 },
    { "64 wide: up", { true, 1, 1, 64, 0 }, 200, 2, { { 0, 1, 129 }, { 135, 65, 65 } }, 1, 120 },
    { "64 wide, apart", { false, 2, 2, 64, 8 }, 70, 1, { { 1, 20, 65 } }, 1, 0 },
    { "64 wide, grouped", { false, 4, 2, 64, 0 }, 70, 1, { { 1, 20, 65 } }, 1, 0 },
    { "64 wide: long", { true, 1, 1, 64, 0 }, 710, 1, { { 3, 100, 704 } }, 1, 0 },
    { "128 wide", { true, 2, 2, 128, 0 }, 200, 2, { { 0, 40, 129 }, { 130, 1, 65 } }, 1, 0 },
    { "128 wide: down", { true, 1, 1, 128, 0 }, 135, 1, { { 3, 128, 129 } }, 1, -120 },
};

struct decode_case {
    const char *title;
    struct heads heads;
    int64_t B, slots, T;
    int32_t slot[4], len[4];
    double magnitude;
};

static const struct decode_case decode_cases[] = {
    { "small", { true, 2, 2, 4, 0 }, 2, 3, 6, { 2, 0 }, { 3, 5 }, 1 },
    { "nobody", { true, 2, 2, 4, 0 }, 0, 3, 6, { 0 }, { 0 }, 1 },
    { "first token", { true, 2, 2, 8, 0 }, 1, 1, 1, { 0 }, { 0 }, 1 },
    { "grouped", { false, 6, 2, 8, 0 }, 4, 4, 70, { 3, 1, 0, 2 }, { 63, 0, 69, 64 }, 1 },
    { "spare columns", { false, 4, 4, 8, 5 }, 2, 2, 130, { 1, 0 }, { 127, 129 }, 1 },
    { "real heads", { true, 4, 4, 128, 0 }, 3, 3, 200, { 0, 1, 2 }, { 128, 191, 199 }, 1 },
    { "steep", { true, 2, 2, 16, 0 }, 2, 2, 40, { 0, 1 }, { 39, 7 }, 30 },
    /* Caches that a backend may read in pieces, and rows that end at their edges. */
    { "long", { true, 2, 2, 16, 0 }, 4, 4, 600, { 2, 0, 3, 1 }, { 255, 256, 599, 0 }, 1 },
    { "long, grouped", { false, 4, 2, 64, 0 }, 3, 3, 513, { 0, 2, 1 }, { 511, 512, 254 }, 1 },
    { "long, steep", { true, 1, 1, 32, 0 }, 2, 2, 300, { 1, 0 }, { 299, 258 }, 30 },
    { "width 6", { false, 4, 2, 6, 1 }, 2, 2, 270, { 1, 0 }, { 257, 31 }, 1 },
    { "width 256", { true, 1, 1, 256, 0 }, 2, 2, 40, { 1, 0 }, { 39, 33 }, 1 },
};

struct kv_case {
    const char *title;
    struct heads heads;
    int64_t R, slots, T, row_first, row_count, slot, position;
};

static const struct kv_case kv_cases[] = {
    { "small", { true, 2, 2, 4, 0 }, 5, 3, 6, 1, 3, 1, 2 },
    { "nothing", { true, 2, 2, 4, 0 }, 5, 3, 6, 5, 0, 1, 6 },
    { "whole slot", { false, 4, 2, 8, 0 }, 9, 2, 9, 0, 9, 1, 0 },
    { "spare columns", { false, 4, 2, 8, 3 }, 140, 2, 150, 5, 129, 0, 21 },
    { "real heads", { true, 4, 4, 128, 0 }, 128, 1, 128, 0, 128, 0, 0 },
};

#endif

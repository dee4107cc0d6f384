/*
 * parity_bf16.h - does this program lose as little in bf16 as PyTorch does?
 *
 * Three computations on the golden folder's weights, rounded to bf16: ours in bf16; ours in float64
 * (the reference operators), which is taken for exact; and PyTorch's in bf16, of which bf16.json
 * keeps the errors (scripts/ref_dump.py). With e(t) = RMS(bf16 - exact) / RMS(exact) over the
 * entries of tensor t:
 *
 *   pooled      logits, hidden states, gradients: the root of the mean over the quantity's tensors
 *               of e(t)^2 is at most 1.2 times that of PyTorch.
 *   per tensor  e(t) <= 1.2 * (1 + 3/sqrt(n)) * max(PyTorch's e(t), 2^-9/sqrt(3)), also for the
 *               losses (nll of each target).
 *
 * The allowance: an RMS over n independent errors has a relative standard deviation of 1/sqrt(2n),
 * a ratio of two such 1/sqrt(n); three of those are granted, which for a matrix is nothing (5 % at
 * 4096 entries) and for a bias of 64 entries 38 % (PyTorch with and without its fused attention
 * differs by 22 % there). The floor: half a unit in the last place of bf16 is at most 2^-9 of the
 * value, the RMS of an error that is uniform below that 2^-9/sqrt(3); no tensor kept in bf16 can be
 * asked to be better.
 *
 * The exact tensors must be PyTorch's own: their RMS agrees with that in bf16.json to 1e-6.
 */
#ifndef TESTS_PARITY_BF16_H
#define TESTS_PARITY_BF16_H

#include "parity_case.h"

#include <stdbool.h>

/* Prints one line per quantity, then JSON; *ok = all within the bars. how->dtype is BF16. */
MUST_USE err_t parity_bf16(bool *ok, const char *dir, const struct parity_how *how, bool verbose);

#endif

/*
 * fabric.h - what connects the cards of a run: links inside a machine and between machines.
 *
 *     struct fabric fabric = { .ranks_per_node = 8, .message_s = 5e-6 };
 *     TRY(fabric_link(&fabric.intra, "nvlink4", "plan.intra"));
 *     TRY(fabric_link(&fabric.inter, "12.5", "plan.inter"));       // GB/s, as measured
 */
#ifndef TRAIN_FABRIC_H
#define TRAIN_FABRIC_H

#include "base/err.h"

#include <stdint.h>

struct fabric {
    int64_t ranks_per_node; /* neighbours that `intra` connects */
    double intra, inter;    /* bytes per second of one card, each way at once */
    double message_s;       /* what a message takes beside its bytes */
};

/* Bytes per second of a link by its name ("nvlink4", "ndr", "100gbe"), or of so many GB/s. A name
 * stands for 0.8 of its data sheet, an assumption; a number is taken as it is. ERR_USAGE names
 * `setting` and the links known. */
MUST_USE err_t fabric_link(double *bytes_per_s, const char *text, const char *setting);

/* How long a card takes to exchange so many bytes with neighbours and with other machines, in so
 * many messages: both kinds of links work side by side. */
double fabric_seconds(const struct fabric *fabric, double intra_bytes, double inter_bytes,
                      double messages);

#endif

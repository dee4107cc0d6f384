#include "train/fabric.h"

#include "base/check.h"
#include "base/nearest.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What large messages reach of a link's data sheet. */
#define LINK_SHARE 0.8

/* Data sheets, GB/s each way. NVLink: all links of a card together, through a switch. */
static const struct {
    const char *name;
    double gb_per_s;
} links[] = {
    { "nvlink5", 900 },                             /* 18 links of 50 */
    { "nvlink4", 450 },                             /* 18 links of 25: H100, H200, H20 */
    { "nvlink3", 300 },                             /* 12 links of 25: A100 */
    { "nvlink-h800", 200 }, { "nvlink-a800", 200 }, /* 8 links of 25 */
    { "pcie5", 63 },                                /* 16 lanes of 32 GT/s */
    { "pcie4", 31.5 },                              /* 16 lanes of 16 GT/s */
    { "xdr", 100 },                                 /* InfiniBand, 800 Gbit/s */
    { "ndr", 50 },                                  /* 400 Gbit/s */
    { "hdr", 25 },                                  /* 200 Gbit/s */
    { "edr", 12.5 },                                /* 100 Gbit/s */
    { "400gbe", 50 },       { "200gbe", 25 },       { "100gbe", 12.5 },
    { "25gbe", 3.125 },     { "10gbe", 1.25 },
};

static err_t unknown(const char *text, const char *setting)
{
    char list[16 * COUNT_OF(links)] = "";
    struct nearest nearest = { .word = text };
    for (int64_t i = 0, at = 0; i < COUNT_OF(links); i++) {
        nearest_offer(&nearest, links[i].name);
        at +=
            snprintf(list + at, sizeof list - (size_t)at, "%s%s", i > 0 ? ", " : "", links[i].name);
    }
    RAISE(USAGE, "%s is \"%s\"; expected GB/s, or one of %s; the nearest is %s", setting, text,
          list, nearest.best);
}

err_t fabric_link(double *bytes_per_s, const char *text, const char *setting)
{
    char *end;
    const double number = strtod(text, &end);
    for (int64_t i = 0; i < COUNT_OF(links); i++)
        if (strcmp(text, links[i].name) == 0) {
            *bytes_per_s = links[i].gb_per_s * 1e9 * LINK_SHARE;
            return ERR_OK;
        }
    if (end == text || *end != '\0') return unknown(text, setting);
    if (!(number >= 1e-6 && number <= 1e6))
        RAISE(USAGE, "%s is %s GB/s; expected 1e-6 to 1e6", setting, text);
    *bytes_per_s = number * 1e9;
    return ERR_OK;
}

double fabric_seconds(const struct fabric *f, double intra_bytes, double inter_bytes,
                      double messages)
{
    const double intra_s = intra_bytes > 0.0 ? intra_bytes / f->intra : 0.0;
    const double inter_s = inter_bytes > 0.0 ? inter_bytes / f->inter : 0.0;
    return fmax(intra_s, inter_s) + messages * f->message_s;
}

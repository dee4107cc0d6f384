/*
 * rendezvous.h - the ranks of one job find each other over TCP, and make sure that they belong
 * together, before anything else is set up between them.
 *
 *     struct rendezvous *meeting;
 *     TRY(rendezvous_join(&meeting, &(struct rendezvous_args){ .rank = 2, .size = 4, ... }));
 *     TRY(rendezvous_gather(meeting, all, mine, sizeof mine));
 *     ... watchdog_start takes the connections over ...
 *
 * Rank 0 listens; every other rank connects, again and again until the deadline, and sends a hello:
 * protocol and program version, the job, its rank, the number of ranks, and a sha256 of each thing
 * that must be the same everywhere. Whoever does not belong to the job is turned away and does not
 * disturb it. A rank of the job that does not fit ends it for all, with one line that says which
 * rank and what.
 *
 * The hello, inside a frame of rendezvous_wire.h, little-endian:
 *
 *     0  protocol  4  rank  8  size  12  part count      each uint32
 *     16 sha256 of the job's name
 *     48 program version, 32 bytes
 *     80 host, 64 bytes
 *     144 parts, 160 of { name, 40 bytes; sha256, 32 bytes }
 *
 * The job's name keeps jobs apart that meet at one port by accident. It crosses the network in the
 * open: it is no protection from someone who can listen there.
 */
#ifndef TRAIN_RENDEZVOUS_H
#define TRAIN_RENDEZVOUS_H

#include "base/err.h"

#include <stdint.h>

#define RENDEZVOUS_PARTS_MAX  160
#define RENDEZVOUS_NAME_MAX   40 /* bytes of a part's name with the NUL */
#define RENDEZVOUS_HOST_MAX   64
#define RENDEZVOUS_GATHER_MAX 256 /* bytes of a rank's part in rendezvous_gather */

/* Something that must agree: "batch.size" and the sha256 of its text. */
struct rendezvous_part {
    char name[RENDEZVOUS_NAME_MAX];
    uint8_t sha256[32];
};

struct rendezvous_args {
    int64_t rank, size;
    const char *host; /* where rank 0 listens */
    int port;
    int listen_fd;       /* rank 0: already listening there; -1: not */
    const char *job;     /* any text, the same for all ranks of one job and for no other */
    const char *version; /* of the program */
    const struct rendezvous_part *parts;
    int64_t part_count;
    double timeout_s; /* until all have come */
};

struct rendezvous;

/*
 * Yours; rendezvous_close it (NULL allowed). `listen_fd` is taken over. Afterwards nobody listens.
 * ERR_COMM: not all came in time (who is missing is named on rank 0), a rank does not fit (named
 * everywhere), or the port is taken.
 */
MUST_USE err_t rendezvous_join(struct rendezvous **out, const struct rendezvous_args *args);
void rendezvous_close(struct rendezvous *meeting);

/* `all` [size * bytes] becomes every rank's `mine` [bytes], by rank; bytes <=
 * RENDEZVOUS_GATHER_MAX. Not once a watchdog has the connections. */
MUST_USE err_t rendezvous_gather(struct rendezvous *meeting, void *all, const void *mine,
                                 int64_t bytes, double timeout_s);

/* Tell those that this rank is connected to that it leaves, and why. Not once a watchdog has the
 * connections. */
void rendezvous_fail(const struct rendezvous *meeting, const char *cause);

int64_t rendezvous_rank(const struct rendezvous *meeting);
int64_t rendezvous_size(const struct rendezvous *meeting);
/* The name of the machine that a rank runs on. */
const char *rendezvous_host(const struct rendezvous *meeting, int64_t rank);
/* The connection to a rank: rank 0 has one to each other, the others to rank 0; -1: none. */
int rendezvous_fd(const struct rendezvous *meeting, int64_t rank);

#endif

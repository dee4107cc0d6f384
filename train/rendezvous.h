/*
 * rendezvous.h - the ranks of one job find each other over TCP, and make sure that they belong
 * together, before anything else is set up between them.
 *
 *     struct rendezvous *meeting;
 *     TRY(rendezvous_join(&meeting, &(struct rendezvous_args){
 *         .rank = 2, .size = 4, ..., .terms = &terms, .term_bytes = sizeof terms }));
 *     ... watchdog_start takes the connections over ...
 *
 * Rank 0 listens; every other rank connects, again and again until the deadline, and sends a hello:
 * protocol and program version, the job, its seat, the number of ranks, and a sha256 of each thing
 * that must be the same everywhere. Whoever does not belong to the job is turned away and does not
 * disturb it. A rank of the job that does not fit ends it for all, with one line that says which
 * rank and what.
 *
 * When all have come, rank 0 settles the terms of the job from everyone's seat, and sends them to
 * each in its welcome, which ends the meeting. Until then it tells those who wait that it lives;
 * when it falls silent, they give up. A rank that is stopped before its hello cannot be told from
 * one that was never started: for it the others wait until the deadline. One that is stopped later
 * gets its welcome, too, and is the watchdog's to find.
 *
 * The hello, inside a frame of rendezvous_wire.h, little-endian; of the same size, and with the
 * same first 80 bytes but `local rank`, in every protocol, so that two versions recognise each
 * other:
 *
 *     0  protocol  4  rank  8  size  12  part count      each uint32
 *     16 sha256 of the job's name
 *     48 program version, 28 bytes; local rank, uint32
 *     80 host, 64 bytes
 *     144 parts, 160 of { name, 40 bytes; sha256, 32 bytes }
 *
 * The welcome: rank 0's host, 64 bytes; the terms, 320 bytes.
 *
 * The job's name keeps jobs apart that meet at one port by accident. It crosses the network in the
 * open: it is no protection from someone who can listen there.
 */
#ifndef TRAIN_RENDEZVOUS_H
#define TRAIN_RENDEZVOUS_H

#include "base/err.h"

#include <stdint.h>

#define RENDEZVOUS_PARTS_MAX 160
#define RENDEZVOUS_NAME_MAX  40 /* bytes of a part's name with the NUL */
#define RENDEZVOUS_HOST_MAX  64
#define RENDEZVOUS_TERMS_MAX 320 /* bytes of what rank 0 settles */

/* Something that must agree: "batch.size" and the sha256 of its text. */
struct rendezvous_part {
    char name[RENDEZVOUS_NAME_MAX];
    uint8_t sha256[32];
};

/* Where a rank runs. */
struct rendezvous_seat {
    char host[RENDEZVOUS_HOST_MAX];
    int64_t local_rank; /* among those of this machine */
};

/* Rank 0's, when all have come: fills `terms`, all zeros, from where the ranks are; what it raises
 * is the others' error, too. They wait, and hear nothing, until it returns. */
typedef err_t rendezvous_settle(void *terms, const struct rendezvous_seat seats[], int64_t size,
                                void *arg);

struct rendezvous_args {
    int64_t rank, size, local_rank;
    const char *host; /* where rank 0 listens */
    int port;
    int listen_fd;       /* rank 0: already listening there; -1: not */
    const char *job;     /* any text, the same for all ranks of one job and for no other */
    const char *version; /* of the program */
    const struct rendezvous_part *parts;
    int64_t part_count;
    double timeout_s;          /* until all have come */
    double beat_s, silence_s;  /* rank 0 says that it lives, and is missed; 0: 1 s, 5 s */
    rendezvous_settle *settle; /* NULL: the terms are zeros */
    void *settle_arg;
    void *terms;        /* out, on every rank: what rank 0 has settled */
    int64_t term_bytes; /* the same everywhere, <= RENDEZVOUS_TERMS_MAX */
};

struct rendezvous;

/*
 * Yours; rendezvous_close it (NULL allowed). `listen_fd` is taken over. Afterwards nobody listens.
 * ERR_COMM: not all came in time (who is missing is named), a rank does not fit or left (named),
 * rank 0 fell silent, or the port is taken. Rank 0 gets what its `settle` raised as it is.
 * ERR_INTERRUPTED: stop_requested() while it waits for the others, who then fail.
 */
MUST_USE err_t rendezvous_join(struct rendezvous **out, const struct rendezvous_args *args);
void rendezvous_close(struct rendezvous *meeting);

int64_t rendezvous_rank(const struct rendezvous *meeting);
int64_t rendezvous_size(const struct rendezvous *meeting);
/* The name of the machine that a rank runs on. Rank 0 knows all of them; the others theirs and rank
 * 0's, and "" for the rest. */
const char *rendezvous_host(const struct rendezvous *meeting, int64_t rank);
/* The connection to a rank: rank 0 has one to each other, the others to rank 0; -1: none. */
int rendezvous_fd(const struct rendezvous *meeting, int64_t rank);

#endif

/* rendezvous_impl.h - a meeting, and what ranks say there. Private to train/rendezvous*.c. */
#ifndef TRAIN_RENDEZVOUS_IMPL_H
#define TRAIN_RENDEZVOUS_IMPL_H

#include "base/digest.h"
#include "train/rendezvous.h"
#include "train/rendezvous_wire.h"

#define RENDEZVOUS_TEXT_MAX    400 /* of why a rank leaves */
#define RENDEZVOUS_VERSION_MAX 28

struct rendezvous {
    int64_t rank, size;
    int *fds;                      /* [size] */
    struct rendezvous_seat *seats; /* [size] */
};

struct hello {
    uint32_t protocol, rank, size, part_count;
    uint8_t job[SHA256_BYTES];
    char version[RENDEZVOUS_VERSION_MAX];
    uint32_t local_rank;
    char host[RENDEZVOUS_HOST_MAX];
    struct rendezvous_part parts[RENDEZVOUS_PARTS_MAX];
};

struct welcome {
    char host[RENDEZVOUS_HOST_MAX];
    uint8_t terms[RENDEZVOUS_TERMS_MAX];
};

/* ---- rendezvous_hello.c ---- */

void hello_fill(struct hello *out, const struct rendezvous_args *args);
/* What another rank sent: its texts end where they should, and are of one line. */
void hello_clean(struct hello *its);
/* Whether a rank of rank 0's job fits: ERR_COMM says which does not, and in what. */
MUST_USE err_t hello_compare(const struct hello *mine, const struct hello *its);
/* The same for one text. */
void hello_clean_text(char *text, int64_t size);

/* ---- rendezvous_host.c ---- */

void rendezvous_take_seat(struct rendezvous *meeting, const struct hello *its);
/* Rank 0's part of rendezvous_join; args->listen_fd is taken over. */
MUST_USE err_t rendezvous_host_ranks(struct rendezvous *meeting, const struct rendezvous_args *args,
                                     const struct hello *mine);

#endif

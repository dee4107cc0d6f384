/*
 * rendezvous_wire.h - small messages over TCP, each with a deadline. Private to train/rendezvous*.c
 * and train/watchdog.c.
 *
 * A frame is 16 bytes, all little-endian, and its payload:
 *
 *     0        4        8        12       16
 *     | magic  | kind   | bytes  | crc32c | payload ...
 *
 * Sockets are non-blocking; SIGPIPE never comes. Errors hold the cause alone: ERR_IO when the other
 * side closed the connection, ERR_CHECKSUM for a damaged frame, ERR_COMM for the rest.
 */
#ifndef TRAIN_RENDEZVOUS_WIRE_H
#define TRAIN_RENDEZVOUS_WIRE_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define WIRE_PAYLOAD_MAX (INT64_C(1) << 14)
#define WIRE_FRAME_BYTES 16
#define WIRE_INBOX_BYTES 512 /* the longest payload of a frame but a hello */
#define WIRE_NAME_MAX    64  /* "10.0.0.1:29400", with the NUL */

/* Numbers stay: another version's hello is answered, and the answer understood. */
enum wire_kind {
    WIRE_HELLO = 1,
    WIRE_WELCOME = 2,
    WIRE_REFUSED = 3, /* a text: to another job's */
    WIRE_BEAT = 5,
    WIRE_FAILED = 6, /* a text: why the sender leaves */
    WIRE_BYE = 7
};

struct wire_frame {
    enum wire_kind kind;
    int64_t bytes;
};

/* Listen at `port` (0: any free one): on `host` where it is "localhost" or a loopback address, else
 * on all, since a name may mean the loopback on its own machine (Debian: 127.0.1.1). */
MUST_USE err_t wire_listen(int *fd, int *port_found, const char *host, int port);
/* ERR_NOTFOUND: nobody there yet, try again; the text says why. */
MUST_USE err_t wire_connect(int *fd, const char *host, int port, double deadline_s);
/* The next one who connected; *fd -1: nobody waits. */
MUST_USE err_t wire_accept(int *fd, char name[WIRE_NAME_MAX], int listen_fd);

MUST_USE err_t wire_send(int fd, enum wire_kind kind, const void *payload, int64_t bytes,
                         double deadline_s);
/* A frame that arrives in pieces, without waiting. */
struct wire_inbox {
    uint8_t header[WIRE_FRAME_BYTES];
    uint8_t *payload;
    int64_t room, got;
};
/* Empty, for frames of up to `room` bytes, which go to `payload`. */
struct wire_inbox wire_inbox_of(void *payload, int64_t room);
/* *complete: a frame is in the inbox and described; the next call starts on another. */
MUST_USE err_t wire_poll(int fd, struct wire_inbox *inbox, struct wire_frame *frame,
                         bool *complete);
/* The same until there is a frame. ERR_COMM: there is none at the deadline. */
MUST_USE err_t wire_wait(int fd, struct wire_inbox *inbox, struct wire_frame *frame,
                         double deadline_s);

#endif

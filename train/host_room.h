/* host_room.h - whether a machine has room for what its ranks are about to take: asked first,
 * because a system that overcommits grants anything and kills later. */
#ifndef TRAIN_HOST_ROOM_H
#define TRAIN_HOST_ROOM_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* One in so many available bytes stays free: the files' own pages need some. */
#define HOST_ROOM_SPARE 16

struct comm;

/* Called by every rank (comm NULL: one) with the bytes that it wants. ERR_NOMEM names `what`, on
 * those ranks whose machine has not as much for all of its ranks together: memory that is available
 * without swapping, within the limit of the process's control group. */
MUST_USE err_t host_room_check(int64_t bytes, struct comm *comm, const char *what);

/* Bytes available to this process in that sense; INT64_MAX where nobody says. */
int64_t host_room(void);

/* Whether `wanted` bytes leave the spare part of `room` free. */
bool host_room_holds(int64_t room, int64_t wanted);

#endif

/*
 * backend_load.h - find and load a backend's library. Private to kernels/, and
 * to train/comm_mpi.c, which loads another library in the same way.
 */
#ifndef KERNELS_BACKEND_LOAD_H
#define KERNELS_BACKEND_LOAD_H

#include "kernels/backend.h"

#include <stdbool.h>

enum { BACKEND_NAME_MAX = 16 };

/* The library of backend `name` ("cuda", "emu"), which stays loaded until the program ends; its
 * struct is the library's. ERR_UNSUPPORTED: no such library, with the folders searched; or one of
 * another build of the program. */
MUST_USE err_t backend_load(const struct backend **out, const char *name);

/* The function `entry` of libsoulchat_<name>.so, which stays loaded. False: not there, and `reason`
 * is empty, or says why a library that is there does not load. */
bool backend_library_open(void **out, const char *name, const char *entry,
                          char reason[ERR_TEXT_MAX]);

#endif

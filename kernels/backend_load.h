/* backend_load.h - find and load a backend's library. Private to kernels/. */
#ifndef KERNELS_BACKEND_LOAD_H
#define KERNELS_BACKEND_LOAD_H

#include "kernels/backend.h"

enum { BACKEND_NAME_MAX = 16 };

/* The library of backend `name` ("cuda", "emu"), which stays loaded until the program ends; its
 * struct is the library's. ERR_UNSUPPORTED: no such library, with the folders searched; or one of
 * another build of the program. */
MUST_USE err_t backend_load(const struct backend **out, const char *name);

#endif

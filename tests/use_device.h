/* use_device.h - everything that a program does with a device, by calls that can fail. */
#ifndef TESTS_USE_DEVICE_H
#define TESTS_USE_DEVICE_H

#include "base/err.h"

/* Opens the device of that name, uses it and closes it; after a failure nothing is left. */
MUST_USE err_t use_device(const char *name);

#endif

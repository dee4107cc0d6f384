/* batch_spec.h - the rules between the settings of a batch_spec, shared by its two users. */
#ifndef DATA_BATCH_SPEC_H
#define DATA_BATCH_SPEC_H

#include "data/batch.h"

/* ERR_USAGE names the settings that contradict each other, or the one out of range. */
MUST_USE err_t batch_spec_check(const struct batch_spec *spec);

#endif

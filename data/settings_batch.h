/* settings_batch.h - the settings of section `batch`: what a step is, limits of a sample. */
#ifndef DATA_SETTINGS_BATCH_H
#define DATA_SETTINGS_BATCH_H

#include "base/cfg.h"
#include "data/sample.h"

extern const struct cfg_table batch_settings;

/* batch.max_input, batch.max_target, batch.over_long_target. */
void sample_limits_from_cfg(struct sample_limits *out, const struct cfg *cfg);

#endif

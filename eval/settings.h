/* settings.h - the settings of this layer: section `generate`. */
#ifndef EVAL_SETTINGS_H
#define EVAL_SETTINGS_H

#include "base/cfg.h"

extern const struct cfg_table eval_settings;

#endif

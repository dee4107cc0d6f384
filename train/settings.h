/* settings.h - the settings of this layer: sections `train` and `bench`. */
#ifndef TRAIN_SETTINGS_H
#define TRAIN_SETTINGS_H

#include "base/cfg.h"

extern const struct cfg_table train_settings;

#endif

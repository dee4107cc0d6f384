/* settings.h - the settings of this layer: sections `model` and `export`. */
#ifndef MODEL_SETTINGS_H
#define MODEL_SETTINGS_H

#include "base/cfg.h"

extern const struct cfg_table model_settings;

#endif

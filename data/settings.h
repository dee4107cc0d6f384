/* settings.h - the settings of this layer: sections `data` (prepare, shards) and `batch` (steps, packs). */
#ifndef DATA_SETTINGS_H
#define DATA_SETTINGS_H

#include "base/cfg.h"

extern const struct cfg_table data_settings;

#endif

/* settings.h - the settings of section `data`: preparing a corpus. */
#ifndef DATA_SETTINGS_H
#define DATA_SETTINGS_H

#include "base/cfg.h"

extern const struct cfg_table data_settings;

#endif

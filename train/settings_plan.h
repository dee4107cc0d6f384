/* settings_plan.h - the settings of section `plan`. */
#ifndef TRAIN_SETTINGS_PLAN_H
#define TRAIN_SETTINGS_PLAN_H

#include "base/cfg.h"

extern const struct cfg_table plan_settings;

#endif

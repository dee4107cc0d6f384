/* cfg_impl.h - what cfg.c and cfg_yaml.c share; include base/cfg.h instead. */
#ifndef BASE_CFG_IMPL_H
#define BASE_CFG_IMPL_H

#include "base/cfg.h"

#include <locale.h>

struct cfg_value {
    char *text;       /* as written; owned */
    int64_t integer;  /* INT; position in choices for ENUM; 0 or 1 for BOOL */
    double real;      /* FLOAT */
    bool is_set;      /* by file or command line */
    int64_t load_set; /* number of the YAML text that last set it; 0 = none */
};

struct cfg {
    const struct cfg_row **rows;
    struct cfg_value *values; /* parallel to rows */
    int64_t count;
    int64_t load_count; /* YAML texts begun so far */
    locale_t c_locale;  /* numbers are read alike everywhere */
};

/* Row number of a key, or -1. */
int64_t cfg_index(const struct cfg *cfg, const char *key);

/* Whether the row's key is section + "." + anything. */
bool cfg_row_in_section(const struct cfg_row *row, const char *section);

#endif

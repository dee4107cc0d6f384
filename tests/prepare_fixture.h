/* prepare_fixture.h - preparations with the sample's tokenizer, as a person sets them up. */
#ifndef TESTS_PREPARE_FIXTURE_H
#define TESTS_PREPARE_FIXTURE_H

#include "base/cfg.h"
#include "data/prepare.h"

#define SAMPLE_CORPUS "data/sample/corpus.json"
#define SAMPLE_MODEL  "data/sample/model"

/* `settings`: "key=value" texts, ended by NULL, or NULL. Yours; cfg_close it. */
struct cfg *prepare_cfg(const char *source, const char *out, const char *const *settings);
/* prepare_run with them; the error's record stays. */
err_t prepare_with(struct prepare_counts *counts, const char *source, const char *out,
                   const char *const *settings);

#endif

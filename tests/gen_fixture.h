/*
 * gen_fixture.h - a small ChatGLM with random weights in a folder of its own, for the tests of
 * generation. Its tokenizer is the sample's.
 *
 *     gen_model_write(dir, &(struct gen_weights){ .end = 8 });
 *     struct cfg *cfg = gen_cfg(dir);
 *
 * Whatever fails here fails the test.
 */
#ifndef TESTS_GEN_FIXTURE_H
#define TESTS_GEN_FIXTURE_H

#include "testing.h"

#include "base/cfg.h"

#define GEN_TOKENIZER "data/sample/model"
#define GEN_POSITIONS 160
#define GEN_VOCAB     1984

struct gen_weights {
    double end;         /* added to the logit of <eop>: how soon a reply ends */
    const char *config; /* text of config.json; NULL: one that fits the sample's tokenizer */
    float broken;       /* added to one final norm value: NAN breaks every logit */
};

void gen_model_write(const char *dir, const struct gen_weights *w);
/* All settings; generate.model and generate.tokenizer are set. Yours. */
struct cfg *gen_cfg(const char *dir);
void gen_set(struct cfg *cfg, const char *key, const char *value);

#endif

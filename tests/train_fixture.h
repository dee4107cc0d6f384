/*
 * train_fixture.h - a small corpus, a small model and the settings to train it, for the tests of
 * train/.
 *
 *     micro_corpus("corpus", 10, 3);                   // shards below testing_dir()
 *     struct cfg *cfg = micro_cfg("corpus", "run");    // settings that train on them
 *     micro_set(cfg, "train.steps", "6");
 *
 * Through the program's own way (micro_run_start), or by hand on the float64 table:
 *
 *     micro_run_open(&run, cfg, "ref");
 *     assert_ok(step_run(&run, &memory, &result, 0));
 *     micro_run_close(&run);
 *
 * Whatever fails here fails the test.
 */
#ifndef TESTS_TRAIN_FIXTURE_H
#define TESTS_TRAIN_FIXTURE_H

#include "testing.h"

#include "train/run.h"

/* Two layers over the 1,000 ids of the fixture's corpora (batch_fixture.h). */
struct glm_config micro_config(void);
/* Hardly a model: its checkpoint is small enough to flip every byte. */
struct glm_config grain_config(void);
/* A folder below testing_dir() with the config.json of this model; borrowed until the next call. */
const char *micro_model(const char *name, const struct glm_config *config);

/* Dialogues of one to three samples each, of different lengths; validation ones are longer. */
void micro_corpus(const char *name, int64_t train_count, int64_t validation_count);

/* Settings for run_open: a model with random weights, steps of 4 samples, one thread. cfg_close it.
 */
struct cfg *micro_cfg(const char *corpus, const char *out);
void micro_set(struct cfg *cfg, const char *key, const char *value);

/* run_open as the only rank. */
MUST_USE err_t micro_run_start(struct run *run, struct cfg *cfg, bool resume);
/* What a step needs, without folders: "ref" is float64, "cpu" float32, "lazy:SEED" lazy_dev.h. */
void micro_run_open(struct run *run, struct cfg *cfg, const char *device);
/* The same with another model, as one of several ranks. */
void micro_run_open_ranked(struct run *run, struct cfg *cfg, const char *device,
                           const struct glm_config *config, struct comm *comm);
void micro_run_close(struct run *run);

/* Arena elements as float64, without the layout's padding, in table order; free them. */
double *micro_copy(const struct glm *glm, const struct tensor *arena, int64_t *count);

/* The same of one part of the optimizer's state, row by row. */
double *micro_state(struct optim *optim, enum optim_part part, int64_t *count);

#endif

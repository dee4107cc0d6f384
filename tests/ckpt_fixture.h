/*
 * ckpt_fixture.h - a model and an optimizer with any state in them, to be saved.
 *
 *     ckpt_rig_open(&r, &config);
 *     ckpt_rig_set(&r, 7);                       // weights, state and step: functions of 7
 *     assert_ok(ckpt_save(root, &r.state, r.optim, &keep, NULL));
 *     ckpt_rig_close(&r);
 */
#ifndef TESTS_CKPT_FIXTURE_H
#define TESTS_CKPT_FIXTURE_H

#include "train_fixture.h"

struct ckpt_rig {
    struct dev *dev;
    struct glm *glm;
    struct optim *optim;
    struct ckpt_state state;
};

void ckpt_rig_open(struct ckpt_rig *r, const struct glm_config *config);
/* Arenas padded for so many ranks and such a vocabulary. */
void ckpt_rig_open_padded(struct ckpt_rig *r, const struct glm_config *config,
                          enum optim_moments moments, int64_t ranks, int64_t vocab_multiple);
void ckpt_rig_close(struct ckpt_rig *r);
/* Step, weights and state become functions of `step`; padding is left alone. */
void ckpt_rig_set(struct ckpt_rig *r, int64_t step);
/* That, saved below testing_dir()/root. */
MUST_USE err_t ckpt_rig_save(struct ckpt_rig *r, const char *root, int64_t step, int64_t keep_last);

/* Of a checkpoint of such a model, in order. */
#define CKPT_FILES 4
extern const char *const ckpt_files[CKPT_FILES];

/* testing_dir()/root/step-XXXXXXXX; good for four calls. */
const char *ckpt_step_dir(const char *root, int64_t step);
/* The names in a folder, sorted, each followed by a blank; good until the next call. */
const char *ckpt_names_in(const char *root);
void ckpt_read_file(struct buf *out, const char *dir, const char *name);
void ckpt_assert_same(const char *dir_a, const char *dir_b);

#endif

/* The golden model, folders to compare with it, and checkpoints of it: for the tests of export. */
#ifndef TESTS_EXPORT_FIXTURE_H
#define TESTS_EXPORT_FIXTURE_H

#include "kernels/tensor.h"
#include "model/glm_config.h"
#include "model/weights.h"

#include <stdbool.h>
#include <stdint.h>

#define GOLDEN    "tests/golden/chatglm-tiny"
#define EMBEDDING "transformer.word_embeddings.weight"

/* A file of the test's folder. */
void export_put(const char *name, const char *text);

struct glm_config export_config(void);
struct weight_source *export_source(void); /* to be closed */
/* Elements of `name`, as float64; the caller frees. */
double *export_values(struct weight_source *s, const char *name, int64_t *count);
/* Every golden tensor is there with its shape, its dtype, and its values within `error` (relative).
 */
void export_assert_same(const char *dir, dtype_t dtype, double error);

/* Every parameter of the golden model under prefix + its name, in one file; returns its bytes. */
int64_t export_write_parameters(const char *dir, const char *file, const char *prefix,
                                dtype_t dtype);
/* state.json and, if wanted, the manifest of the two files. */
void export_write_records(const char *dir, const int64_t bytes[2], bool with_manifest);
/* A checkpoint of the golden model in float32; the embedding has a master that is twice the weight.
 */
void export_make_checkpoint(const char *dir, bool with_manifest);

#endif

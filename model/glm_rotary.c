#include "model/glm_rotary.h"

#include "base/check.h"
#include "base/num.h"

#include <math.h>

#define ROTARY_BASE 10000.0f

static float keep(float x) { return x; }
static float round_to_f16(float x) { return f16_to_f32(f32_to_f16(x)); }

float glm_rotary_frequency(int64_t j, int64_t pairs)
{
    return 1.0f / powf(ROTARY_BASE, (float)(2 * j) / (float)(2 * pairs));
}

void glm_rotary_table(float *cosine, float *sine, enum glm_rotary rounding, int64_t positions,
                      int64_t head_dim)
{
    ASSERT(head_dim > 0 && head_dim % 4 == 0);
    float (*const round)(float) = rounding == GLM_ROTARY_FP16_ANGLE ? round_to_f16 : keep;
    const int64_t pairs = head_dim / 4;
    for (int64_t j = 0; j < pairs; j++) {
        const float inv_freq = round_to_f16(glm_rotary_frequency(j, pairs));
        for (int64_t p = 0; p < positions; p++) {
            const float angle = round(round((float)p) * inv_freq);
            cosine[p * pairs + j] = round(cosf(angle));
            sine[p * pairs + j] = round(sinf(angle));
        }
    }
}

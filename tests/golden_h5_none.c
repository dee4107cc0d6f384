#include "golden.h"

#include <stddef.h>

err_t golden_open_h5(struct golden **out, const char *path)
{
    *out = NULL;
    RAISE(UNSUPPORTED,
          "%s: this build has no HDF5; scripts/golden_raw.py makes golden.safetensors of it", path);
}

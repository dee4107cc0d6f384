/* What HDF5 looks for in a plugin: the same filter as inside soulchat, so that h5py and h5dump can
 * read our files (HDF5_PLUGIN_PATH = the folder of this library). */
#include "data/h5z_zstd.h"

#include <H5PLextern.h>

H5PL_type_t H5PLget_plugin_type(void) { return H5PL_TYPE_FILTER; }

const void *H5PLget_plugin_info(void) { return &h5z_zstd_class; }

/*
 * h5z_zstd.h - zstd as an HDF5 filter (registered number 32015), inside this program and, as a
 * plugin (data/plugin), for other programs that read our files.
 *
 * Client values: [0] the level, [1] bytes of a whole chunk. Where [1] is given, a chunk that does
 * not unpack to exactly that size is refused: HDF5 itself does not check, and would read beyond it.
 */
#ifndef DATA_H5Z_ZSTD_H
#define DATA_H5Z_ZSTD_H

#include <hdf5.h>

#define H5Z_ZSTD_ID              32015
#define H5Z_ZSTD_CHUNK_BYTES_MAX (64 << 20)

extern const H5Z_class2_t h5z_zstd_class;

#endif

#include "golden.h"

#include <hdf5.h>
#include <stdlib.h>

#define VALUES_MAX ((int64_t)1 << 30)

struct golden_h5 {
    struct golden golden;
    hid_t file;
};

static hid_t file_of(const struct golden *g) { return ((const struct golden_h5 *)g)->file; }

static err_t read_shape(struct golden_array *out, int *dims, hid_t set, const char *name)
{
    hsize_t extent[GOLDEN_DIMS_MAX];
    const hid_t space = H5Dget_space(set);
    *dims = H5Sget_simple_extent_ndims(space);
    if (*dims >= 0 && *dims <= GOLDEN_DIMS_MAX) H5Sget_simple_extent_dims(space, extent, NULL);
    H5Sclose(space);
    if (*dims < 0 || *dims > GOLDEN_DIMS_MAX)
        RAISE(FORMAT, "%s: %d dimensions; at most %d are read here", name, *dims, GOLDEN_DIMS_MAX);

    out->count = 1;
    for (int i = 0; i < *dims; i++) {
        if (extent[i] < 1 || (int64_t)extent[i] > VALUES_MAX / out->count)
            RAISE(FORMAT, "%s: dimension %d is %lld", name, i, (long long)extent[i]);
        out->dim[i] = (int64_t)extent[i];
        out->count *= (int64_t)extent[i];
    }
    return ERR_OK;
}

static err_t h5_read(struct golden_array *out, int *dims, struct golden *g, const char *name)
{
    err_t rc = ERR_OK;
    const hid_t set = H5Dopen2(file_of(g), name, H5P_DEFAULT);
    if (set < 0) RAISE(NOTFOUND, "golden.h5 has no %s", name);
    TRY_DONE(read_shape(out, dims, set, name));
    out->value = malloc((size_t)out->count * sizeof *out->value);
    if (out->value == NULL) RAISE_DONE(NOMEM, "%s: %lld values", name, (long long)out->count);
    if (H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, out->value) < 0)
        RAISE_DONE(FORMAT, "%s: cannot be read as numbers", name);
done:
    H5Dclose(set);
    if (rc != ERR_OK) golden_array_clear(out);
    return rc;
}

static err_t h5_attribute(double *out, struct golden *g, const char *object, const char *name)
{
    const hid_t attribute = H5Aopen_by_name(file_of(g), object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0) RAISE(NOTFOUND, "golden.h5: %s has no attribute %s", object, name);
    const hid_t space = H5Aget_space(attribute);
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    const herr_t read = count == 1 ? H5Aread(attribute, H5T_NATIVE_DOUBLE, out) : -1;
    H5Sclose(space);
    H5Aclose(attribute);
    if (read < 0) RAISE(FORMAT, "golden.h5: attribute %s of %s is not a number", name, object);
    return ERR_OK;
}

static err_t h5_group_count(int64_t *out, struct golden *g, const char *group)
{
    H5G_info_t info;
    if (H5Gget_info_by_name(file_of(g), group, &info, H5P_DEFAULT) < 0)
        RAISE(NOTFOUND, "golden.h5 has no group %s", group);
    *out = (int64_t)info.nlinks;
    return ERR_OK;
}

static void h5_close(struct golden *g)
{
    H5Fclose(file_of(g));
    free(g);
}

static const struct golden_ops h5_ops = { h5_read, h5_attribute, h5_group_count, h5_close };

err_t golden_open_h5(struct golden **out, const char *path)
{
    *out = NULL;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* our errors are one line each */
    struct golden_h5 *g = calloc(1, sizeof *g);
    if (g == NULL) RAISE(NOMEM, "%s", path);
    g->golden.ops = &h5_ops;
    g->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (g->file < 0) {
        free(g);
        RAISE(FORMAT, "%s: not an HDF5 file", path);
    }
    *out = &g->golden;
    return ERR_OK;
}

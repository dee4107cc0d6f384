#include "golden_h5.h"

#include <hdf5.h>
#include <stdlib.h>
#include <unistd.h>

#define VALUES_MAX ((int64_t)1 << 30)

struct golden {
    hid_t file;
};

err_t golden_open(struct golden **out, const char *path)
{
    *out = NULL;
    if (access(path, R_OK) != 0) RAISE(NOTFOUND, "%s: no such file", path);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* our errors are one line each */
    struct golden *g = calloc(1, sizeof *g);
    if (g == NULL) RAISE(NOMEM, "%s", path);
    g->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (g->file < 0) {
        free(g);
        RAISE(FORMAT, "%s: not an HDF5 file", path);
    }
    *out = g;
    return ERR_OK;
}

void golden_close(struct golden *g)
{
    if (g == NULL) return;
    H5Fclose(g->file);
    free(g);
}

static err_t read_shape(struct golden_array *out, hid_t set, const char *name, int dims)
{
    hsize_t extent[GOLDEN_DIMS_MAX];
    const hid_t space = H5Dget_space(set);
    const int found = H5Sget_simple_extent_ndims(space);
    if (found == dims) H5Sget_simple_extent_dims(space, extent, NULL);
    H5Sclose(space);
    if (found != dims) RAISE(FORMAT, "%s: %d dimensions; expected %d", name, found, dims);

    out->count = 1;
    for (int i = 0; i < dims; i++) {
        if (extent[i] < 1 || (int64_t)extent[i] > VALUES_MAX / out->count)
            RAISE(FORMAT, "%s: dimension %d is %lld", name, i, (long long)extent[i]);
        out->dim[i] = (int64_t)extent[i];
        out->count *= (int64_t)extent[i];
    }
    return ERR_OK;
}

err_t golden_read(struct golden_array *out, struct golden *g, const char *name, int dims)
{
    err_t rc = ERR_OK;
    *out = (struct golden_array){ 0 };
    const hid_t set = H5Dopen2(g->file, name, H5P_DEFAULT);
    if (set < 0) RAISE(NOTFOUND, "golden.h5 has no %s", name);
    TRY_DONE(read_shape(out, set, name, dims));
    out->value = malloc((size_t)out->count * sizeof *out->value);
    if (out->value == NULL) RAISE_DONE(NOMEM, "%s: %lld values", name, (long long)out->count);
    if (H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, out->value) < 0)
        RAISE_DONE(FORMAT, "%s: cannot be read as numbers", name);
done:
    H5Dclose(set);
    if (rc != ERR_OK) golden_array_clear(out);
    return rc;
}

void golden_array_clear(struct golden_array *a)
{
    free(a->value);
    *a = (struct golden_array){ 0 };
}

err_t golden_attribute(double *out, struct golden *g, const char *object, const char *name)
{
    const hid_t attribute = H5Aopen_by_name(g->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (attribute < 0) RAISE(NOTFOUND, "golden.h5: %s has no attribute %s", object, name);
    const hid_t space = H5Aget_space(attribute);
    const hssize_t count = H5Sget_simple_extent_npoints(space);
    const herr_t read = count == 1 ? H5Aread(attribute, H5T_NATIVE_DOUBLE, out) : -1;
    H5Sclose(space);
    H5Aclose(attribute);
    if (read < 0) RAISE(FORMAT, "golden.h5: attribute %s of %s is not a number", name, object);
    return ERR_OK;
}

err_t golden_group_count(int64_t *out, struct golden *g, const char *group)
{
    H5G_info_t info;
    if (H5Gget_info_by_name(g->file, group, &info, H5P_DEFAULT) < 0)
        RAISE(NOTFOUND, "golden.h5 has no group %s", group);
    *out = (int64_t)info.nlinks;
    return ERR_OK;
}

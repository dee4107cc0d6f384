#include "data/h5.h"

#include "base/check.h"
#include "base/utf8.h"
#include "data/h5z_zstd.h"

#include <stdio.h>
#include <string.h>

err_t h5_init(void)
{
    if (H5Eset_auto2(H5E_DEFAULT, NULL, NULL) < 0) RAISE(NOMEM, "HDF5 did not start");
    if (H5Zregister(&h5z_zstd_class) < 0) RAISE(NOMEM, "HDF5 did not take the zstd filter");
    return ERR_OK;
}

/* The walk is upward, so the first visited is the innermost; the rest say only who called it. */
static herr_t keep_innermost(unsigned n, const H5E_error2_t *e, void *user)
{
    char *reason = user;
    if (n == 0) snprintf(reason, 160, "%s", e->desc != NULL ? e->desc : "no reason given");
    return 0;
}

err_t h5_raise(err_t code, const char *file, int line, const char *path, const char *what)
{
    char reason[160] = "no reason given";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, reason);
    H5Eclear2(H5E_DEFAULT);
    return err_raise(code, file, line, "%s: %s: HDF5: %s", path, what, reason);
}

static err_t write_attribute(hid_t file, const char *path, const char *name, hid_t type,
                             hid_t space, const void *data)
{
    err_t rc = ERR_OK;
    hid_t attribute = -1;
    H5_DONE(type, NOMEM, path, name);
    H5_DONE(space, NOMEM, path, name);
    attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5_DONE(attribute, NOMEM, path, name);
    H5_DONE(H5Awrite(attribute, type, data), NOMEM, path, name);
done:
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return rc;
}

/* Fixed-size strings with their NUL: variable-length data would lie in heaps of HDF5's own. */
err_t h5_write_text(hid_t file, const char *path, const char *name, const char *text)
{
    const hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0 || H5Tset_size(type, strlen(text) + 1) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        return h5_raise(ERR_NOMEM, __FILE__, __LINE__, path, name);
    const err_t rc = write_attribute(file, path, name, type, H5Screate(H5S_SCALAR), text);
    H5Tclose(type);
    return rc;
}

err_t h5_write_i32(hid_t file, const char *path, const char *name, const int32_t *values,
                   int64_t count)
{
    const hsize_t dims[1] = { (hsize_t)count };
    const hid_t space = count == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, dims, NULL);
    return write_attribute(file, path, name, H5T_STD_I32LE, space, values);
}

err_t h5_write_u64(hid_t file, const char *path, const char *name, uint64_t value)
{
    return write_attribute(file, path, name, H5T_STD_U64LE, H5Screate(H5S_SCALAR), &value);
}

/* An attribute opened for reading, with what must be known before a byte of it is read. */
struct attribute {
    hid_t id, type;
    H5T_class_t class;
    int64_t type_bytes, count;
};

static void attribute_close(struct attribute *a)
{
    if (a->type >= 0) H5Tclose(a->type);
    if (a->id >= 0) H5Aclose(a->id);
}

static err_t attribute_open(struct attribute *a, hid_t file, const char *path, const char *name)
{
    err_t rc = ERR_OK;
    hid_t space = -1;
    hssize_t count;
    *a = (struct attribute){ .id = -1, .type = -1 };
    a->id = H5Aopen(file, name, H5P_DEFAULT);
    H5_DONE(a->id, FORMAT, path, name);
    a->type = H5Aget_type(a->id);
    H5_DONE(a->type, FORMAT, path, name);
    space = H5Aget_space(a->id);
    H5_DONE(space, FORMAT, path, name);
    count = H5Sget_simple_extent_npoints(space);
    H5_DONE(count, FORMAT, path, name);
    a->class = H5Tget_class(a->type);
    a->type_bytes = (int64_t)H5Tget_size(a->type);
    a->count = (int64_t)count;
done:
    if (space >= 0) H5Sclose(space);
    if (rc != ERR_OK) attribute_close(a);
    return rc;
}

err_t h5_read_text(char *out, int64_t bytes, hid_t file, const char *path, const char *name)
{
    err_t rc = ERR_OK;
    struct attribute a;
    ASSERT(bytes > 0);
    memset(out, 0, (size_t)bytes);
    TRY(attribute_open(&a, file, path, name));
    if (a.class != H5T_STRING || H5Tis_variable_str(a.type) != 0 || a.count != 1)
        RAISE_DONE(FORMAT, "%s: %s: expected one string of fixed size", path, name);
    if (a.type_bytes > bytes)
        RAISE_DONE(FORMAT, "%s: %s: %lld bytes, expected at most %lld", path, name,
                   (long long)a.type_bytes, (long long)bytes);
    H5_DONE(H5Aread(a.id, a.type, out), FORMAT, path, name);
    if (out[bytes - 1] != '\0' || utf8_valid_prefix(out, bytes) != bytes)
        RAISE_DONE(FORMAT, "%s: %s: expected UTF-8 text that ends with NUL", path, name);
done:
    attribute_close(&a);
    return rc;
}

err_t h5_read_i32(int32_t *out, int32_t *count, int64_t count_max, hid_t file, const char *path,
                  const char *name)
{
    err_t rc = ERR_OK;
    struct attribute a;
    TRY(attribute_open(&a, file, path, name));
    if (a.class != H5T_INTEGER || a.type_bytes != 4 || a.count < 1 || a.count > count_max)
        RAISE_DONE(FORMAT, "%s: %s: %lld values of %lld bytes, expected 1 to %lld int32", path,
                   name, (long long)a.count, (long long)a.type_bytes, (long long)count_max);
    H5_DONE(H5Aread(a.id, H5T_NATIVE_INT32, out), FORMAT, path, name);
    *count = (int32_t)a.count;
done:
    attribute_close(&a);
    return rc;
}

err_t h5_read_u64(uint64_t *out, hid_t file, const char *path, const char *name)
{
    err_t rc = ERR_OK;
    struct attribute a;
    TRY(attribute_open(&a, file, path, name));
    if (a.class != H5T_INTEGER || a.type_bytes != 8 || a.count != 1)
        RAISE_DONE(FORMAT, "%s: %s: expected one uint64", path, name);
    H5_DONE(H5Aread(a.id, H5T_NATIVE_UINT64, out), FORMAT, path, name);
done:
    attribute_close(&a);
    return rc;
}

#include "model/json_in.h"

#include "base/buf.h"
#include "base/file.h"
#include "model/weights.h"

#include <string.h>

err_t json_in_parse(json_t **out, const char *text, int64_t size, const char *name)
{
    if (weight_is_lfs_pointer(text, size)) RAISE(FORMAT, "%s " WEIGHT_LFS_ADVICE, name);
    json_error_t error;
    json_t *value = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, &error);
    if (!value) RAISE(FORMAT, "%s:%d:%d: not JSON: %s", name, error.line, error.column, error.text);
    if (!json_is_object(value)) { /* jansson accepts an array or an object at the top */
        json_decref(value);
        RAISE(FORMAT, "%s is a JSON array; an object is wanted", name);
    }
    *out = value;
    return ERR_OK;
}

err_t json_in_file(json_t **out, const char *path, int64_t bytes_max)
{
    err_t rc = ERR_OK;
    struct buf text = { 0 };
    TRY_DONE(file_read_all(&text, path, bytes_max));
    TRY_DONE(json_in_parse(out, text.data ? text.data : "", (int64_t)text.size, path));
done:
    buf_clear(&text);
    return rc;
}

const char *json_in_type(const json_t *value)
{
    static const char *const names[] = {
        [JSON_OBJECT] = "an object",   [JSON_ARRAY] = "an array",     [JSON_STRING] = "a string",
        [JSON_INTEGER] = "an integer", [JSON_REAL] = "a real number", [JSON_TRUE] = "true",
        [JSON_FALSE] = "false",        [JSON_NULL] = "null",
    };
    return value ? names[json_typeof(value)] : "nothing";
}

err_t json_in_int(int64_t *out, const json_t *object, const char *key, int64_t min, int64_t max,
                  const char *name)
{
    const json_t *value = json_object_get(object, key);
    if (!value) RAISE(FORMAT, "%s: no key %s", name, key);
    if (!json_is_integer(value))
        RAISE(FORMAT, "%s: %s is %s; an integer is wanted", name, key, json_in_type(value));
    const int64_t number = json_integer_value(value);
    if (number < min || number > max)
        RAISE(FORMAT, "%s: %s is %lld; from %lld to %lld are allowed", name, key, (long long)number,
              (long long)min, (long long)max);
    *out = number;
    return ERR_OK;
}

err_t json_in_real(double *out, const json_t *object, const char *key, const char *name)
{
    const json_t *value = json_object_get(object, key);
    if (!value) RAISE(FORMAT, "%s: no key %s", name, key);
    if (!json_is_number(value))
        RAISE(FORMAT, "%s: %s is %s; a number is wanted", name, key, json_in_type(value));
    *out = json_number_value(value);
    return ERR_OK;
}

err_t json_in_real_maybe(double *out, const json_t *object, const char *key, const char *name)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return ERR_OK;
    TRY(json_in_real(out, object, key, name));
    return ERR_OK;
}

err_t json_in_bool_maybe(bool *out, const json_t *object, const char *key, const char *name)
{
    const json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value)) return ERR_OK;
    if (!json_is_boolean(value))
        RAISE(FORMAT, "%s: %s is %s; true or false is wanted", name, key, json_in_type(value));
    *out = json_is_true(value);
    return ERR_OK;
}

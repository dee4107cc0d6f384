#include "model/json_in.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/starved.h"
#include "model/weights.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* jansson without memory often says that the text is wrong, or leaves out a character. */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void note_allocations(void) { json_set_alloc_funcs(starved_malloc, free); }

err_t json_in_failure(const json_error_t *error, const char *name)
{
    if (starved()) RAISE(NOMEM, "%s: no memory to read it", name);
    if (error->line > 1) RAISE(FORMAT, "%s: line %d: %s", name, error->line, error->text);
    RAISE(FORMAT, "%s: %s", name, error->text);
}

json_t *json_in_load(json_error_t *error, const char *text, int64_t size)
{
    pthread_once(&once, note_allocations);
    json_t *value = NULL;
    if (starved_begin(size)) value = json_loadb(text, (size_t)size, JSON_REJECT_DUPLICATES, error);
    if (!starved_end()) return value;
    json_decref(value);
    return NULL;
}

err_t json_in_parse(json_t **out, const char *text, int64_t size, const char *name)
{
    if (weight_is_lfs_pointer(text, size)) RAISE(FORMAT, "%s " WEIGHT_LFS_ADVICE, name);
    json_error_t error;
    json_t *value = json_in_load(&error, text, size);
    if (!value && starved()) return json_in_failure(&error, name);
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

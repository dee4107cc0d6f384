#include "kernels/backend_load.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/env.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/trace.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef const struct backend *backend_entry(void);

/* What backends use of the program. The linker keeps of a static library only what is named. */
typedef void any_function(void);
__attribute__((used)) static any_function *const used_by_backends[] = {
    (any_function *)err_raise,   (any_function *)err_pass,   (any_function *)err_last,
    (any_function *)buf_puts,    (any_function *)buf_printf, (any_function *)env_get,
    (any_function *)trace_begin, (any_function *)trace_end,  (any_function *)fault_point,
    (any_function *)f32_to_f16,  (any_function *)dtype_name,
    (any_function *)log_line,    (any_function *)crc32c,     (any_function *)file_read_all,
    (any_function *)file_replace,
};

/* The folder of the running program; "." when the system does not say. */
static void program_folder(char out[FILE_PATH_MAX])
{
    const ssize_t length = readlink("/proc/self/exe", out, FILE_PATH_MAX - 1);
    out[length > 0 ? length : 0] = '\0';
    char *slash = strrchr(out, '/');
    if (slash == NULL)
        snprintf(out, FILE_PATH_MAX, ".");
    else
        *slash = '\0';
}

/* The library at `path`, or NULL. A file that exists and does not load is a better message than
 * one that is not there, so it is kept in `reason`. */
static void *try_library(const char *path, char reason[ERR_TEXT_MAX])
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *text = dlerror();
        if (reason[0] == '\0' && access(path, F_OK) == 0)
            snprintf(reason, ERR_TEXT_MAX, "%s", text);
    }
    return library;
}

static void *find_library(const char *name, char reason[ERR_TEXT_MAX])
{
    static const char *const folders[] = { "/../lib/", "/" };
    char program[FILE_PATH_MAX], file[64], path[2 * FILE_PATH_MAX];
    void *library = NULL;
    snprintf(file, sizeof file, "libsoulchat_%s.so", name);
    program_folder(program);
    for (int i = 0; i < (int)COUNT_OF(folders) && library == NULL; i++) {
        snprintf(path, sizeof path, "%s%s%s", program, folders[i], file);
        library = try_library(path, reason);
    }
    return library != NULL ? library : try_library(file, reason);
}

err_t backend_load(const struct backend **out, const char *name)
{
    char reason[ERR_TEXT_MAX] = "";
    ASSERT(strlen(name) < BACKEND_NAME_MAX);
    *out = NULL;
    void *library = find_library(name, reason);
    if (library == NULL && reason[0] != '\0')
        RAISE(UNSUPPORTED, "device %s: its library does not load: %.300s", name, reason);
    if (library == NULL)
        RAISE(UNSUPPORTED,
              "device %s: no libsoulchat_%s.so in ../lib beside the program; build it with "
              "cmake --preset cuda, or use cpu",
              name, name);

    backend_entry *entry;
    void *symbol = dlsym(library, "soulchat_backend");
    if (symbol == NULL)
        RAISE(UNSUPPORTED, "device %s: libsoulchat_%s.so is no backend", name, name);
    memcpy(&entry, &symbol, sizeof entry); /* C has no cast from data to function pointers */
    const struct backend *backend = entry();
    if (strcmp(backend->version, SOULCHAT_VERSION) != 0 ||
        backend->dev_bytes != (int64_t)sizeof(struct dev) ||
        backend->table_bytes != (int64_t)sizeof(struct ops_table))
        RAISE(UNSUPPORTED,
              "device %s: libsoulchat_%s.so %s belongs to another build than this program, %s; "
              "build both again",
              name, name, backend->version, SOULCHAT_VERSION);
    *out = backend;
    return ERR_OK;
}

#include "kernels/cuda/cudnn_lib.h"

#include "base/check.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char cudnn_lib_name[] = "libcudnn_graph.so.9";

static void describe_version(char text[32], int64_t version)
{
    snprintf(text, 32, "%" PRId64 ".%" PRId64 ".%" PRId64, version / 10000, version / 100 % 100,
             version % 100);
}

err_t cudnn_lib_check_version(int64_t version)
{
    char found[32];
    describe_version(found, version);
    if (version < CUDNN_LIB_VERSION_MIN || version >= 100000)
        RAISE(UNSUPPORTED,
              "cuDNN %s; expected 9.10.2 or a later 9: attention runs on our own kernels", found);
    return ERR_OK;
}

/* Never unloaded: these libraries keep threads and handlers of their own until the program ends. */
static void *load(const char *path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE); }

/* cuDNN loads the cuBLASLt of the CUDA that it was made for, and ends the program where there is
 * none: say so before it does. */
static err_t check_companion(const struct cudnn_lib *lib)
{
    const int cuda = (int)(lib->GetCudartVersion() / 1000);
    char found[32], name[32];
    describe_version(found, lib->version);
    snprintf(name, sizeof name, "libcublasLt.so.%d", cuda);
    void *companion = load(name);
    if (companion == NULL)
        RAISE(UNSUPPORTED,
              "cuDNN %s is made for CUDA %d and wants its %s, which does not load: attention runs "
              "on our own kernels",
              found, cuda, name);
    dlclose(companion);
    return ERR_OK;
}

static err_t find_functions(struct cudnn_lib *lib, const char *path)
{
#define X(name)                                                                                    \
    lib->name = (decltype(lib->name))dlsym(lib->library, "cudnn" #name);                           \
    if (lib->name == NULL)                                                                         \
        RAISE(UNSUPPORTED, "%s: no function cudnn" #name "; expected cuDNN 9.10.2 or later", path);
    CUDNN_FUNCTIONS(X)
#undef X
    lib->version = (int64_t)lib->GetVersion();
    TRY(cudnn_lib_check_version(lib->version));
    return check_companion(lib);
}

err_t cudnn_lib_open(struct cudnn_lib *lib, const char *path)
{
    memset(lib, 0, sizeof *lib);
    TRY(fault_point("cudnn.open"));
    if (path == NULL) path = cudnn_lib_name;
    lib->library = load(path);
    if (lib->library == NULL)
        RAISE(UNSUPPORTED, "no cuDNN (%s): attention runs on our own kernels", dlerror());
    const err_t rc = find_functions(lib, path);
    if (rc != ERR_OK) cudnn_lib_close(lib);
    return rc;
}

void cudnn_lib_close(struct cudnn_lib *lib)
{
    if (lib->library != NULL) dlclose(lib->library);
    memset(lib, 0, sizeof *lib);
}

err_t cudnn_lib_verdict(const struct cudnn_lib *lib, cudnnStatus_t status, const char *object,
                        const char *call)
{
    if (status == CUDNN_STATUS_SUCCESS) return ERR_OK;
    char detail[256] = "";
    lib->GetLastErrorString(detail, sizeof detail);
    detail[strcspn(detail, "\n")] = '\0';
    if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED)
        RAISE(UNSUPPORTED, "cuDNN %s of %s: %s: %s", call, object, lib->GetErrorString(status),
              detail);
    RAISE(CUDA, "cuDNN %s of %s: %s: %s", call, object, lib->GetErrorString(status), detail);
}

err_t cudnn_target_open(struct cudnn_target *target, const struct cudnn_lib *lib)
{
    memset(target, 0, sizeof *target);
    target->lib = lib;
    CUDNN_TRY(lib, "handle", Create, &target->handle);
    return ERR_OK;
}

static err_t read_properties(struct cudnn_target *target, const char *json)
{
    const char *object = "device properties";
    const struct cudnn_lib *lib = target->lib;
    CUDNN_TRY(lib, object, BackendCreateDescriptor, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR,
              &target->properties);
    CUDNN_TRY(lib, object, BackendSetAttribute, target->properties,
              CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json),
              json);
    CUDNN_TRY(lib, object, BackendFinalize, target->properties);
    return ERR_OK;
}

err_t cudnn_target_describe(struct cudnn_target *target, const struct cudnn_lib *lib,
                            const char *json)
{
    memset(target, 0, sizeof *target);
    target->lib = lib;
    const err_t rc = read_properties(target, json);
    if (rc != ERR_OK) cudnn_target_close(target);
    return rc;
}

void cudnn_target_close(struct cudnn_target *target)
{
    if (target->handle != NULL) (void)target->lib->Destroy(target->handle);
    if (target->properties != NULL) (void)target->lib->BackendDestroyDescriptor(target->properties);
    memset(target, 0, sizeof *target);
}

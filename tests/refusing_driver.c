/*
 * A libcuda.so.1 without a device, for tests on machines without a GPU: the CUDA runtime gets as
 * far as it does on a machine whose driver refuses, and cuDNN can load the code that it generates,
 * of which nothing runs, so that a plan can be finished and asked for its workspace.
 *
 * REFUSING_DRIVER=12080    the newest CUDA that it knows, 12.8; 13000 otherwise
 * REFUSING_INIT=802        what cuInit answers; otherwise what the toolkit's stub library does, 34
 */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define SUCCESS      0
#define STUB_LIBRARY 34
#define NOT_FOUND    500

/* What cuDNN looks for by name when it is loaded, and does not get far with. */
#define ABSENT(X)                                                                                  \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetCount)                                                                            \
    X(cuCtxGetCurrent)                                                                             \
    X(cuCtxGetLimit)                                                                               \
    X(cuCtxPopCurrent)                                                                             \
    X(cuCtxPushCurrent)                                                                            \
    X(cuStreamGetCtx)                                                                              \
    X(cuLinkCreate)                                                                                \
    X(cuLinkAddData)                                                                               \
    X(cuLinkComplete)                                                                              \
    X(cuLinkDestroy)                                                                               \
    X(cuLaunchKernel)                                                                              \
    X(cuLaunchKernelEx)                                                                            \
    X(cuLaunchCooperativeKernel)                                                                   \
    X(cuLibraryLoadFromFile)                                                                       \
    X(cuKernelGetAttribute)                                                                        \
    X(cuKernelSetAttribute)                                                                        \
    X(cuOccupancyMaxPotentialClusterSize)

#define X(name)                                                                                    \
    int name(void);                                                                                \
    int name(void) { return STUB_LIBRARY; }
ABSENT(X)
#undef X

int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);
int cuGetExportTable(const void **table, const void *id);
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        int *status);
int cuGetErrorString(int error, const char **text);
int cuGetErrorName(int error, const char **text);
int cuLibraryLoadData(void **library, const void *code);
int cuLibraryUnload(void *library);
int cuLibraryGetKernel(void **kernel, void *library, const char *name);
int cuKernelGetFunction(void **function, void *kernel);

/* Something to point to; nothing is read from it. */
static char handle[64];

static int number(const char *variable, int otherwise)
{
    const char *text = getenv(variable);
    return text == NULL ? otherwise : atoi(text);
}

int cuInit(unsigned flags)
{
    (void)flags;
    return number("REFUSING_INIT", STUB_LIBRARY);
}

int cuDriverGetVersion(int *version)
{
    *version = number("REFUSING_DRIVER", 13000);
    return SUCCESS;
}

int cuGetExportTable(const void **table, const void *id)
{
    (void)id;
    *table = NULL;
    return NOT_FOUND;
}

typedef void any_function(void);

/* The runtime wants every function to be there before it calls the first. */
static int absent(void) { return STUB_LIBRARY; }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        int *status)
{
    static const struct {
        const char *name;
        any_function *function;
    } functions[] = {
        { "cuInit", (any_function *)cuInit },
        { "cuDriverGetVersion", (any_function *)cuDriverGetVersion },
        { "cuGetExportTable", (any_function *)cuGetExportTable },
        { "cuGetProcAddress", (any_function *)cuGetProcAddress_v2 },
        { NULL, (any_function *)absent },
    };
    int i = 0;
    (void)version;
    (void)flags;
    while (functions[i].name != NULL && strcmp(functions[i].name, name) != 0) i++;
    memcpy(function, &functions[i].function, sizeof *function);
    if (status != NULL) *status = 0;
    return SUCCESS;
}

int cuGetErrorString(int error, const char **text)
{
    *text = error == STUB_LIBRARY ? "this driver has no device" : "no error";
    return SUCCESS;
}

int cuGetErrorName(int error, const char **text)
{
    *text = error == STUB_LIBRARY ? "CUDA_ERROR_STUB_LIBRARY" : "CUDA_SUCCESS";
    return SUCCESS;
}

/* The options that follow `code` are not looked at. */
int cuLibraryLoadData(void **library, const void *code)
{
    if (code == NULL) return STUB_LIBRARY;
    *library = handle;
    return SUCCESS;
}

int cuLibraryUnload(void *library) { return library == handle ? SUCCESS : STUB_LIBRARY; }

int cuLibraryGetKernel(void **kernel, void *library, const char *name)
{
    if (library != handle || name == NULL) return STUB_LIBRARY;
    *kernel = handle;
    return SUCCESS;
}

int cuKernelGetFunction(void **function, void *kernel)
{
    *function = kernel;
    return SUCCESS;
}

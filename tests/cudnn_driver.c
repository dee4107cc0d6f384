/*
 * A libcuda.so.1 without a device, for tests on machines without a GPU. It takes the code that
 * cuDNN generates and runs nothing; of all else it says what the toolkit's stub library says, that
 * it is a stub. With it a plan can be finished, and so be asked for its workspace.
 */
#include <stddef.h>

#define SUCCESS      0
#define STUB_LIBRARY 34

/* What cuDNN looks for by name when it is loaded, and does not get far with. */
#define ABSENT(X)                                                                                  \
    X(cuInit)                                                                                      \
    X(cuDeviceGet)                                                                                 \
    X(cuDeviceGetCount)                                                                            \
    X(cuGetProcAddress)                                                                            \
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

int cuDriverGetVersion(int *version);
int cuGetErrorString(int error, const char **text);
int cuGetErrorName(int error, const char **text);
int cuLibraryLoadData(void **library, const void *code);
int cuLibraryUnload(void *library);
int cuLibraryGetKernel(void **kernel, void *library, const char *name);
int cuKernelGetFunction(void **function, void *kernel);

/* Something to point to; nothing is read from it. */
static char handle[64];

int cuDriverGetVersion(int *version)
{
    *version = 13000;
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

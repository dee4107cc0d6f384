/* nccl_api.h against nccl.h, where this build finds one: nothing to run. */
#if defined(__has_include)
#if __has_include(<nccl.h>)

#include "kernels/cuda/nccl_api.h"

#include <nccl.h>
#include <type_traits>

static_assert(sizeof(nccl_id) == sizeof(ncclUniqueId), "ncclUniqueId");
static_assert(NCCL_SUCCESS == (int)ncclSuccess, "ncclSuccess");
static_assert(NCCL_REMOTE_ERROR == (int)ncclRemoteError, "ncclRemoteError");
static_assert(NCCL_IN_PROGRESS == (int)ncclInProgress, "ncclInProgress");
static_assert(NCCL_UINT8 == (int)ncclUint8, "ncclUint8");
static_assert(NCCL_UNDEFINED == NCCL_CONFIG_UNDEF_INT, "NCCL_CONFIG_UNDEF_INT");
static_assert(NCCL_OLDEST == NCCL_VERSION(2, 18, 1), "NCCL_VERSION");
#define SAME_PLACE(ours, theirs)                                                                   \
    static_assert(offsetof(nccl_config, ours) == offsetof(ncclConfig_t, theirs), #theirs)
SAME_PLACE(size, size);
SAME_PLACE(magic, magic);
SAME_PLACE(version, version);
SAME_PLACE(blocking, blocking);
SAME_PLACE(cga_cluster_size, cgaClusterSize);
SAME_PLACE(min_ctas, minCTAs);
SAME_PLACE(max_ctas, maxCTAs);
SAME_PLACE(net_name, netName);
SAME_PLACE(split_share, splitShare);

/* The number of parameters, their sizes and what they point at. */
template <class A, class B>
constexpr bool alike = sizeof(A) == sizeof(B) && std::is_pointer_v<A> == std::is_pointer_v<B>;
template <class A, class B> struct same_call : std::false_type {
};
template <class R1, class... A1, class R2, class... A2>
struct same_call<R1 (*)(A1...), R2 (*)(A2...)> {
    static constexpr bool compare()
    {
        if constexpr (sizeof...(A1) != sizeof...(A2))
            return false;
        else
            return alike<R1, R2> && (alike<A1, A2> && ...);
    }
    static constexpr bool value = compare();
};
#define X(type, name, parameters)                                                                  \
    static_assert(same_call<decltype(nccl_api::name), decltype(&::name)>::value, #name);
NCCL_FUNCTIONS(X)
#undef X

#endif
#endif

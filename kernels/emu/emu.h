/*
 * emu.h - the CUDA language as plain C++, so that the CUDA backend's own kernels run on any machine
 * under AddressSanitizer and a debugger: each thread of a block is a fiber, one block at a time.
 *
 * What it is strict about:
 *   - the order of blocks, and of threads between two meeting points, is shuffled, so that a
 *     missing barrier shows as a wrong result (SOULCHAT_EMU_SEED picks the shuffle);
 *   - shared memory is filled with NaN when a block starts, with forbidden zones around arrays;
 *   - a barrier or warp operation that some threads do not reach ends the program with a line that
 *     names the kernel, the block and where threads wait; so do a warp operation of a warp that is
 *     not whole or whose mask leaves lanes out, and grids and blocks beyond a card's limits;
 *   - rows that ldmatrix reads at once must lie in different banks;
 *   - an asynchronous copy arrives at the wait for it, and its place is NaN until then; one that is
 *     never waited for ends the program.
 * What it cannot show: races inside one warp's lock step, memory order, other bank conflicts,
 * speed.
 */
#ifndef KERNELS_EMU_EMU_H
#define KERNELS_EMU_EMU_H

#include "base/fault.h"
#include "kernels/emu/guard.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <tuple>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

struct gpu;

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

/* Other types' memory is copied by it. */
struct __attribute__((may_alias, aligned(16))) int4 {
    int x, y, z, w;
};

namespace emu
{

/* What a kernel reads as built-in variables. */
struct builtins {
    dim3 thread, block, block_dim, grid_dim;
};
extern const builtins *now; /* of the fiber that runs */

/* A launch, as the emulator and as a card's driver see it. */
struct parameter {
    const void *data;
    size_t bytes;
};
struct request {
    const char *name;
    dim3 grid, block;
    int64_t shared_bytes;
    void (*body)(const void *); /* one thread, of the context */
    const void *context;
    const void *kernel; /* its function, which has the name of the one on a card */
    const parameter *params;
    size_t param_count;
    void (*run)(const request &);
    bool (*device_block)(uintptr_t address, uintptr_t *begin, uintptr_t *end); /* as launch_block */
};

/* Run body(context) once per thread of every block; one kernel at a time in the whole program. */
void run(const request &);

/* run(), unless the program has a function of this name that executes the request otherwise. */
void start(const request &);

/* Work of the compute queue: launch_emu.cc does it at once, tests/softgpu when it must. */
void queue(const struct gpu *gpu, std::function<void()> work);

/* The block of memory, of the device that queue() serves, that an address lies in. false: none. */
bool launch_block(uintptr_t address, uintptr_t *begin, uintptr_t *end);

/* Barrier of the block. */
void block_barrier();
/* Every lane of the warp hands in `bytes` <= 16 and gets lane `source`'s. `kind` names the
 * operation: all lanes must call the same. */
void warp_exchange(void *out, const void *in, size_t bytes, int source, const char *kind);

/* Every lane of a whole warp hands in the address of its part; the last one to come runs `work`
 * over all 32, in the order of lanes, and then all go on. */
void warp_together(void *part, void (*work)(void *const parts[32]), const char *kind);

/* A copy into shared memory that arrives when its thread waits for it and not before; until then
 * its place holds NaN. `from` NULL: zeros. */
void copy_later(void *to, const void *from, size_t bytes);
void copy_commit();         /* the copies since the last commit are one group */
void copy_wait(int latest); /* all groups but the latest so many arrive */

/* Ends the program unless the mask of a warp operation names all lanes. */
void require_all(unsigned mask, const char *kind);

/* Ends the program unless 8 rows of 16 bytes in shared memory lie in different banks. */
void require_banks(const void *const rows[8], const char *kind);

/* Ends the program unless `bytes` at p, a multiple of it, lie in the block's shared memory. */
void require_shared(const void *p, size_t bytes, const char *kind);

/* The block's shared array of this call site, the same for every thread. */
void *shared_array(const void *site, size_t bytes);
void *shared_dynamic();

int lane();

/* What an approximate instruction may give instead of x: one unit in the last place more, where the
 * last bit is set, and zero for subnormal numbers. */
float about(float x);

#if __has_builtin(__builtin_clear_padding)
template <class A> bool clear_padding(A *x)
{
    __builtin_clear_padding(x);
    return true;
}
#else
template <class A> bool clear_padding(A *) { return std::is_pointer_v<A>; }
#endif

/* A structure only where the compiler can tell its members from what lies between them. */
template <class A> void require_device_parameter(const char *kernel, A x)
{
    if (clear_padding(&x)) require_device_pointers(kernel, &x, sizeof x);
}

template <class A> A exchange(A x, int source, const char *kind)
{
    static_assert(sizeof(A) <= 16, "one exchange moves at most 16 bytes");
    A out;
    warp_exchange(&out, &x, sizeof x, source, kind);
    return out;
}

} // namespace emu

#define threadIdx (emu::now->thread)
#define blockIdx  (emu::now->block)
#define blockDim  (emu::now->block_dim)
#define gridDim   (emu::now->grid_dim)

/* A template instance has its own lambda, hence its own site. */
#define SHARED_ARRAY(type, name, count)                                                            \
    type *const name = static_cast<type *>(emu::shared_array(                                      \
        [] {                                                                                       \
            static const char site = 0;                                                            \
            return static_cast<const void *>(&site);                                               \
        }(),                                                                                       \
        sizeof(type) * static_cast<size_t>(count)))
#define DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(emu::shared_dynamic())

inline void __syncthreads() { emu::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    emu::require_all(mask, "__syncwarp");
    (void)emu::exchange(0, 0, "__syncwarp");
}

template <class A> A __shfl_sync(unsigned mask, A x, int source)
{
    emu::require_all(mask, "__shfl_sync");
    return emu::exchange(x, source & 31, "__shfl_sync");
}
template <class A> A __shfl_xor_sync(unsigned mask, A x, int step)
{
    emu::require_all(mask, "__shfl_xor_sync");
    return emu::exchange(x, emu::lane() ^ step, "__shfl_xor_sync");
}
template <class A> A __shfl_down_sync(unsigned mask, A x, unsigned step)
{
    emu::require_all(mask, "__shfl_down_sync");
    const int source = emu::lane() + static_cast<int>(step);
    return emu::exchange(x, source < 32 ? source : emu::lane(), "__shfl_down_sync");
}
template <class A> A __shfl_up_sync(unsigned mask, A x, unsigned step)
{
    emu::require_all(mask, "__shfl_up_sync");
    const int source = emu::lane() - static_cast<int>(step);
    return emu::exchange(x, source >= 0 ? source : emu::lane(), "__shfl_up_sync");
}

inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

inline float __fdividef(float a, float b)
{
    return fabsf(b) > 0x1p126f && !std::isinf(b) ? a * 0.0f : emu::about(a / b);
}
template <class A> void __stwb(A *p, A x) { *p = x; }
#include "kernels/cuda/gpu.h"

/* See launch.cuh. */
template <class... Params, class... Args>
err_t gpu_launch(struct dev *dev, const char *name, void (*kernel)(Params...), dim3 grid,
                 dim3 block, int64_t shared_bytes, Args... args)
{
    if (grid.x == 0 || grid.y == 0 || grid.z == 0) return ERR_OK;
    TRY(gpu_shared_require(gpu_of(dev), name, shared_bytes));
    if (fault_point("gpu.launch") != ERR_OK) RAISE(CUDA, "kernel %s: %s", name, err_last()->text);
    static_assert(sizeof(std::tuple<Params...>) <= 4096, "parameters of a kernel: 4 KiB at most");
    const struct call {
        void (*kernel)(Params...);
        std::tuple<Params...> params;
    } call = { kernel, std::tuple<Params...>(static_cast<Params>(args)...) };
    (emu::require_device_parameter(name, static_cast<Params>(args)), ...);
    emu::queue(gpu_of(dev), [=] {
        const auto body = [](const void *context) {
            const struct call *c = static_cast<const struct call *>(context);
            std::apply(c->kernel, c->params);
        };
        std::apply(
            [&](const Params &...params) {
                const emu::parameter list[] = { { &params, sizeof params }..., { nullptr, 0 } };
                const emu::device_at_work at_work;
                emu::start({ name, grid, block, shared_bytes, body, &call,
                             reinterpret_cast<const void *>(kernel), list, sizeof...(Params),
                             emu::run, emu::launch_block });
            },
            call.params);
    });
    return ERR_OK;
}

#endif

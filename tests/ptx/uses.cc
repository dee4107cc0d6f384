/* Who used memory when. */
#include "ptx/uses.h"

namespace ptx
{

namespace
{

constexpr int WARP_LANES = 32;
/* Beyond any thread: several of one warp, which is added, or of more. */
constexpr uint16_t SEVERAL = 0x1000, MANY = 0x2000;

int warp_of(uint16_t thread) { return thread < SEVERAL ? thread / WARP_LANES : thread - SEVERAL; }

} // namespace

std::string user_of(use u)
{
    return u.thread < SEVERAL ? "thread " + std::to_string(u.thread)
           : u.thread < MANY  ? "warp " + std::to_string(warp_of(u.thread))
                              : "several warps";
}

barrier_clock::barrier_clock(int threads)
    : warp_times(static_cast<size_t>((threads + WARP_LANES - 1) / WARP_LANES))
{
}

void barrier_clock::begin_block()
{
    block_barrier();
    first = time;
}

void barrier_clock::block_barrier()
{
    time++;
    for (uint16_t &t : warp_times) t = 0;
}

void barrier_clock::warp_barrier(int warp) { warp_times[static_cast<size_t>(warp)]++; }

bool barrier_clock::over(use u, int thread) const
{
    if (u.time < time || u.thread == thread) return true;
    return u.thread < MANY && warp_of(u.thread) == thread / WARP_LANES &&
           u.warp_time < warp_times[static_cast<size_t>(thread / WARP_LANES)];
}

void join_readers(use *u, use own)
{
    if (u->thread == own.thread)
        *u = own;
    else if (u->thread < MANY && warp_of(u->thread) == warp_of(own.thread))
        *u = { own.time, own.warp_time, static_cast<uint16_t>(SEVERAL + warp_of(own.thread)) };
    else
        u->thread = MANY;
}

} // namespace ptx

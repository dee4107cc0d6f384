/*
 * uses.h - when a thread of a block used some memory, and whether that is over for another one: two
 * threads that use the same bytes, one of them writing, need a barrier between, of the block, or of
 * the warp where both are in it.
 */
#ifndef TESTS_PTX_USES_H
#define TESTS_PTX_USES_H

#include <cstdint>
#include <string>
#include <vector>

namespace ptx
{

struct use {
    uint32_t time;      /* of the launch's barriers; 0: no use at all */
    uint16_t warp_time; /* since then */
    uint16_t thread;    /* or several, of a warp or of the block */
};

/* "thread 7", "warp 2" or "several warps". */
std::string user_of(use);

/* Time in the block that runs: barriers so far, those of the blocks before it included. */
class barrier_clock
{
  public:
    explicit barrier_clock(int threads);
    void begin_block();
    void block_barrier();
    void warp_barrier(int warp);

    use now(int thread) const
    {
        return { time, warp_times[static_cast<size_t>(thread) / 32],
                 static_cast<uint16_t>(thread) };
    }
    /* Whether what `u` did is over for this thread. */
    bool over(use u, int thread) const;
    /* Of another block; that, too, is over. */
    bool before_block(use u) const { return u.time < first; }
    bool before_barrier(use u) const { return u.time < time; }

  private:
    std::vector<uint16_t> warp_times;
    uint32_t time = 0, first = 0;
};

/* *u, of one or several readers, by one more of the same time. */
void join_readers(use *u, use own);
/* The same, at any time. */
inline void add_reader(use *u, use own)
{
    if (u->time < own.time)
        *u = own;
    else
        join_readers(u, own);
}

} // namespace ptx

#endif

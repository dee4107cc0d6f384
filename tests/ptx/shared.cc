/* Shared memory and its history. */
#include "ptx/shared.h"

#include <algorithm>
#include <cstring>

namespace ptx
{

namespace
{

constexpr uint64_t CELL_BYTES = 2;
constexpr int WARP_LANES = 32;
/* Beyond any thread. */
constexpr uint16_t SEVERAL = 0x1000, MANY = 0x2000, EXPECTED = 0x4000;

int warp_of(uint16_t thread) { return thread < SEVERAL ? thread / WARP_LANES : thread - SEVERAL; }

} // namespace

void shared_memory::resize(int64_t bytes, int threads)
{
    const size_t cells = (static_cast<size_t>(bytes) + CELL_BYTES - 1) / CELL_BYTES;
    data.resize(static_cast<size_t>(bytes));
    written.assign(cells, use{});
    read_by.assign(cells, use{});
    warp_times.resize(static_cast<size_t>((threads + WARP_LANES - 1) / WARP_LANES));
}

/* Bytes of 0xff are NaN in every format. */
void shared_memory::begin()
{
    std::fill(data.begin(), data.end(), static_cast<unsigned char>(0xff));
    block_barrier();
    first = time;
}

void shared_memory::block_barrier()
{
    time++;
    for (uint16_t &t : warp_times) t = 0;
}

void shared_memory::warp_barrier(int warp) { warp_times[static_cast<size_t>(warp)]++; }

bool shared_memory::fits(uint64_t at, uint64_t bytes)
{
    return ((at & (bytes - 1)) == 0 && at <= data.size() && bytes <= data.size() - at) ||
           misplaced(at, bytes);
}

bool shared_memory::misplaced(uint64_t at, uint64_t bytes)
{
    error = "shared address " + std::to_string(at) +
            ((at & (bytes - 1)) != 0
                 ? " is no multiple of " + std::to_string(bytes)
                 : " is outside the block's " + std::to_string(data.size()) + " bytes");
    return false;
}

shared_memory::use shared_memory::now(int thread) const
{
    return { time, warp_times[static_cast<size_t>(thread / WARP_LANES)],
             static_cast<uint16_t>(thread) };
}

/* Whether what `u` did is over for this thread. */
bool shared_memory::over(use u, int thread) const
{
    if (u.time < time || u.thread == thread) return true;
    return u.thread < MANY && warp_of(u.thread) == thread / WARP_LANES &&
           u.warp_time < warp_times[static_cast<size_t>(thread / WARP_LANES)];
}

bool shared_memory::clash(const char *what, uint16_t thread, uint64_t at)
{
    const std::string who = thread < SEVERAL ? " thread " + std::to_string(thread)
                            : thread < MANY  ? " warp " + std::to_string(warp_of(thread))
                                             : " several warps";
    error = "shared address " + std::to_string(at) + " " + what + who + " with no barrier between";
    return false;
}

bool shared_memory::check_read(uint64_t at, use w, int thread)
{
    if (w.thread & EXPECTED)
        return clash("read while a copy is on its way, of", w.thread & (EXPECTED - 1), at);
    if (w.time < first) {
        error = "shared address " + std::to_string(at) + " read before anything was written";
        return false;
    }
    return over(w, thread) || clash("read, written by", w.thread, at);
}

void shared_memory::add_reader(use *r, use own)
{
    if (r->time < own.time || r->thread == own.thread)
        *r = own;
    else if (r->thread < MANY && warp_of(r->thread) == warp_of(own.thread))
        *r = { own.time, own.warp_time, static_cast<uint16_t>(SEVERAL + warp_of(own.thread)) };
    else
        r->thread = MANY;
}

/* Most of an interpreter's time: the size is known to the compiler. */
template <int BYTES> bool shared_memory::read_some(void *out, uint64_t at, int thread)
{
    constexpr uint64_t CELLS = (BYTES + CELL_BYTES - 1) / CELL_BYTES;
    if (!fits(at, BYTES)) return false;
    const use own = now(thread), *const w = &written[at / CELL_BYTES];
    use *const r = &read_by[at / CELL_BYTES];
    for (uint64_t c = 0; c < CELLS; c++) {
        const bool is_settled = w[c].time < time && w[c].time >= first && w[c].thread < EXPECTED;
        if (!is_settled && !check_read(at, w[c], thread)) return false;
        if (r[c].time < time)
            r[c] = own;
        else if (r[c].thread != MANY)
            add_reader(&r[c], own);
    }
    memcpy(out, &data[at], BYTES);
    return true;
}

bool shared_memory::read(void *out, uint64_t at, uint64_t bytes, int thread)
{
    return bytes == 16  ? read_some<16>(out, at, thread)
           : bytes == 8 ? read_some<8>(out, at, thread)
           : bytes == 4 ? read_some<4>(out, at, thread)
                        : read_some<2>(out, at, thread);
}

/* The same value written by two threads at once is no clash: it is what memory then holds. */
bool shared_memory::check_write(uint64_t at, uint64_t cell, int thread, bool same)
{
    const use w = written[cell], r = read_by[cell];
    if (w.thread & EXPECTED)
        return clash("written while a copy is on its way, of", w.thread & (EXPECTED - 1), at);
    if (!same && !over(w, thread)) return clash("written, written by", w.thread, at);
    return over(r, thread) || clash("written, read by", r.thread, at);
}

bool shared_memory::write(uint64_t at, const void *in, uint64_t bytes, int thread)
{
    if (!fits(at, bytes)) return false;
    const bool same = memcmp(data.data() + at, in, bytes) == 0;
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++) {
        if (!check_write(at, c, thread, same)) return false;
        written[c] = now(thread);
    }
    memcpy(data.data() + at, in, bytes);
    return true;
}

bool shared_memory::expect(uint64_t at, uint64_t bytes, int thread)
{
    unsigned char nan[16];
    memset(nan, 0xff, sizeof nan);
    if (!write(at, nan, bytes, thread)) return false;
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++)
        written[c].thread |= EXPECTED;
    return true;
}

void shared_memory::arrive(uint64_t at, const void *in, uint64_t bytes, int thread)
{
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++) written[c] = now(thread);
    memcpy(data.data() + at, in, bytes);
}

} // namespace ptx

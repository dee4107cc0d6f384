/* Shared memory and its history. */
#include "ptx/shared.h"

#include <cstring>

namespace ptx
{

namespace
{

constexpr uint64_t CELL_BYTES = 2;
constexpr int WARP_LANES = 32;
constexpr int16_t SEVERAL = -1, MANY = -2;

} // namespace

void shared_memory::resize(int64_t bytes, int threads)
{
    data.assign(static_cast<size_t>(bytes), 0xff);
    cells.assign((static_cast<size_t>(bytes) + CELL_BYTES - 1) / CELL_BYTES, cell{});
    warp_times.assign(static_cast<size_t>((threads + WARP_LANES - 1) / WARP_LANES), 0);
}

/* Bytes of 0xff are NaN in every format. */
void shared_memory::begin()
{
    memset(data.data(), 0xff, data.size());
    first = ++time;
}

void shared_memory::block_barrier() { time++; }

void shared_memory::warp_barrier(int warp) { warp_times[static_cast<size_t>(warp)]++; }

std::string shared_memory::check_place(uint64_t at, uint64_t bytes) const
{
    if (at % bytes != 0) return "shared address " + std::to_string(at) + " is misaligned";
    if (at > data.size() || bytes > data.size() - at)
        return "shared address " + std::to_string(at) + " is outside the block's " +
               std::to_string(data.size()) + " bytes";
    return {};
}

shared_memory::use shared_memory::now(int thread) const
{
    const int warp = thread / WARP_LANES;
    return { time, warp_times[static_cast<size_t>(warp)], static_cast<int16_t>(thread),
             static_cast<int16_t>(warp) };
}

/* Whether what `u` did is over for this thread. */
bool shared_memory::before(const use &u, int thread) const
{
    if (u.time < time || u.thread == thread) return true;
    const int warp = thread / WARP_LANES;
    return u.thread != MANY && u.warp == warp && u.warp_time < warp_times[static_cast<size_t>(warp)];
}

std::string shared_memory::clash(const char *what, const use &u, uint64_t at) const
{
    const std::string who = u.thread >= 0        ? "thread " + std::to_string(u.thread)
                            : u.thread == SEVERAL ? "warp " + std::to_string(u.warp)
                                                  : "several warps";
    return "shared address " + std::to_string(at) + " " + what + " " + who +
           " with no barrier between";
}

std::string shared_memory::read(void *out, uint64_t at, uint64_t bytes, int thread)
{
    std::string wrong = check_place(at, bytes);
    if (!wrong.empty()) return wrong;
    const use own_use = now(thread);
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++) {
        cell &own = cells[c];
        if (own.expected) return clash("read while a copy is on its way, of", own.written, at);
        if (own.written.time < first)
            return "shared address " + std::to_string(at) + " read before anything was written";
        if (!before(own.written, thread)) return clash("read, written by", own.written, at);
        use &r = own.read;
        if (r.time < time || r.thread == thread)
            r = own_use;
        else if (r.warp == own_use.warp && r.thread != MANY)
            r = { time, own_use.warp_time, SEVERAL, r.warp };
        else
            r.thread = MANY;
    }
    memcpy(out, data.data() + at, bytes);
    return {};
}

/* The same value written by two threads at once is no clash: it is what memory then holds. */
std::string shared_memory::write(uint64_t at, const void *in, uint64_t bytes, int thread)
{
    std::string wrong = check_place(at, bytes);
    if (!wrong.empty()) return wrong;
    const bool same = memcmp(data.data() + at, in, bytes) == 0;
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++) {
        cell &own = cells[c];
        if (own.expected) return clash("written while a copy is on its way, of", own.written, at);
        if (!same && !before(own.written, thread))
            return clash("written, written by", own.written, at);
        if (!before(own.read, thread)) return clash("written, read by", own.read, at);
        own.written = now(thread);
    }
    memcpy(data.data() + at, in, bytes);
    return {};
}

std::string shared_memory::expect(uint64_t at, uint64_t bytes, int thread)
{
    const unsigned char nan[16] = { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff };
    std::string wrong = write(at, nan, bytes, thread);
    if (!wrong.empty()) return wrong;
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++) cells[c].expected = true;
    return {};
}

void shared_memory::arrive(uint64_t at, const void *in, uint64_t bytes, int thread)
{
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++) {
        cells[c].expected = false;
        cells[c].written = now(thread);
    }
    memcpy(data.data() + at, in, bytes);
}

} // namespace ptx

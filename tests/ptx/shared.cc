/* Shared memory and its history. */
#include "ptx/shared.h"

#include <algorithm>
#include <cstring>

namespace ptx
{

namespace
{

constexpr uint64_t CELL_BYTES = 2;
constexpr uint16_t EXPECTED = 0x4000; /* beyond any thread */

bool is_expected(use u) { return (u.thread & EXPECTED) != 0; }

} // namespace

shared_memory::shared_memory(int64_t bytes, const barrier_clock &clock_)
    : clock(clock_), data(static_cast<size_t>(bytes)),
      written((data.size() + CELL_BYTES - 1) / CELL_BYTES), read_by(written.size())
{
}

/* Bytes of 0xff are NaN in every format. */
void shared_memory::begin()
{
    std::fill(data.begin(), data.end(), static_cast<unsigned char>(0xff));
}

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

bool shared_memory::clash(const char *what, use u, uint64_t at)
{
    u.thread &= static_cast<uint16_t>(~EXPECTED);
    error = "shared address " + std::to_string(at) + " " + what + " " + user_of(u) +
            " with no barrier between";
    return false;
}

bool shared_memory::check_read(uint64_t at, use w, int thread)
{
    if (is_expected(w)) return clash("read while a copy is on its way, of", w, at);
    if (clock.before_block(w)) {
        error = "shared address " + std::to_string(at) + " read before anything was written";
        return false;
    }
    return clock.over(w, thread) || clash("read, written by", w, at);
}

/* Most of an interpreter's time: the size is known to the compiler. */
template <int BYTES> bool shared_memory::read_some(void *out, uint64_t at, int thread)
{
    constexpr uint64_t CELLS = (BYTES + CELL_BYTES - 1) / CELL_BYTES;
    if (!fits(at, BYTES)) return false;
    const use own = clock.now(thread), *const w = &written[at / CELL_BYTES];
    use *const r = &read_by[at / CELL_BYTES];
    for (uint64_t c = 0; c < CELLS; c++) {
        const bool is_settled =
            clock.before_barrier(w[c]) && !clock.before_block(w[c]) && !is_expected(w[c]);
        if (!is_settled && !check_read(at, w[c], thread)) return false;
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
    if (is_expected(w)) return clash("written while a copy is on its way, of", w, at);
    if (!same && !clock.over(w, thread)) return clash("written, written by", w, at);
    return clock.over(r, thread) || clash("written, read by", r, at);
}

bool shared_memory::write(uint64_t at, const void *in, uint64_t bytes, int thread)
{
    if (!fits(at, bytes)) return false;
    const bool same = memcmp(data.data() + at, in, bytes) == 0;
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++) {
        if (!check_write(at, c, thread, same)) return false;
        written[c] = clock.now(thread);
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
    for (uint64_t c = at / CELL_BYTES; c * CELL_BYTES < at + bytes; c++)
        written[c] = clock.now(thread);
    memcpy(data.data() + at, in, bytes);
}

} // namespace ptx

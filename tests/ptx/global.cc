/* Global memory's history, of one launch. */
#include "ptx/global.h"

#include "ptx/machine.h"

#include <algorithm>
#include <cstring>

namespace ptx
{

global_uses::global_uses(const barrier_clock &clock_, bool same_bits_)
    : clock(clock_), same_bits(same_bits_)
{
    known.fill({ UINT64_MAX, nullptr });
}

void global_uses::begin_block(const uint32_t at[3])
{
    blocks.push_back({ clock.now(0).time, { at[0], at[1], at[2] } });
}

global_uses::page *global_uses::find_page(uint64_t number)
{
    std::unique_ptr<page> &p = pages[number];
    if (p == nullptr) p = std::make_unique<page>();
    known[number % known.size()] = { number, p.get() };
    return p.get();
}

bool global_uses::clash(uint64_t at, const char *what, use u)
{
    error =
        "global address " + hex(at) + " " + what + " " + user_of(u) + " with no barrier between";
    return false;
}

bool global_uses::clash_of_blocks(uint64_t at, const char *what, uint32_t time)
{
    const auto is_later = [](uint32_t t, const started &b) { return t < b.time; };
    const uint32_t *b = (std::upper_bound(blocks.begin(), blocks.end(), time, is_later) - 1)->block;
    error = "global address " + hex(at) + " " + what + " block (" + std::to_string(b[0]) + "," +
            std::to_string(b[1]) + "," + std::to_string(b[2]) + ")";
    return false;
}

bool global_uses::check_read(uint64_t at, const cell &c, int thread)
{
    if (c.written.time != 0 && clock.before_block(c.written))
        return clash_of_blocks(at, "read, written by", c.written.time);
    return clock.over(c.written, thread) || clash(at, "read, written by", c.written);
}

bool global_uses::read(uint64_t at, uint64_t bytes, int thread)
{
    const use own = clock.now(thread);
    cell *const cells = cells_of(at);
    for (uint64_t k = 0; k * CELL_BYTES < bytes; k++) {
        cell &c = cells[k];
        if (c.written.time != 0) {
            if (!check_read(at, c, thread)) return false;
        } else if (c.alien == 0) {
            c.alien = own.time;
        }
        add_reader(&c.read_by, own);
    }
    return true;
}

bool global_uses::check_write(uint64_t at, const cell &c, int thread, bool same)
{
    if (c.alien != 0 && clock.before_block({ c.alien, 0, 0 }))
        return clash_of_blocks(at, "written, read by", c.alien);
    if (!(same && same_bits) && c.written.time != 0 && clock.before_block(c.written))
        return clash_of_blocks(
            at, same ? "written, the same bits written by" : "written, written by", c.written.time);
    if (!same && !clock.over(c.written, thread)) return clash(at, "written, written by", c.written);
    return clock.over(c.read_by, thread) || clash(at, "written, read by", c.read_by);
}

bool global_uses::write(uint64_t at, const void *in, uint64_t bytes, int thread)
{
    const bool same = memcmp(reinterpret_cast<const void *>(at), in, bytes) == 0;
    const use own = clock.now(thread);
    cell *const cells = cells_of(at);
    for (uint64_t k = 0; k * CELL_BYTES < bytes; k++) {
        if (!check_write(at, cells[k], thread, same)) return false;
        cells[k].written = own;
    }
    return true;
}

} // namespace ptx

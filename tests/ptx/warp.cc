/* What lanes do together, and where they go. */
#include "ptx/operations.h"

namespace ptx
{

namespace
{

/* Lanes that must take part, the mask of a warp operation: one for all. */
uint32_t members(const warp &w, uint32_t place)
{
    uint32_t mask = 0;
    bool first = true;
    each_lane(w.lanes, [&](int lane) {
        const uint32_t own = get<uint32_t>(w, place, lane);
        if (!first && own != mask) fault(w, lane, "lanes name different members");
        mask = own;
        first = false;
    });
    if ((w.lanes & ~mask) != 0) fault(w, -1, "a lane that is no member takes part");
    if ((mask & ~w.alive) != 0) fault(w, -1, "a member has ended: " + hex(mask & ~w.alive));
    return mask;
}

/* shfl.sync: d|p, a, b, c, members. c: the last lane of a segment, and the segments' bits. */
enum class way { UP, DOWN, BFLY, INDEX };

template <way W> int source_of(int lane, int b, int last, int segment, bool *inside)
{
    const int end = (lane & segment) | (last & ~segment), begin = lane & segment;
    int from;
    if constexpr (W == way::UP) {
        from = lane - b;
        *inside = from >= end; /* where c is 0: the segment's first lane */
    } else if constexpr (W == way::DOWN) {
        from = lane + b;
        *inside = from <= end;
    } else if constexpr (W == way::BFLY) {
        from = lane ^ b;
        *inside = from <= end;
    } else {
        from = begin | (b & ~segment);
        *inside = from <= end;
    }
    return *inside ? from : lane;
}

template <way W> void shuffle(warp &w, const inst &i)
{
    const uint32_t all = members(w, i.at[5]);
    if (!together(w, all)) return;
    uint32_t out[WARP], inside = 0;
    each_lane(w.lanes, [&](int lane) {
        const int b = static_cast<int>(get<uint32_t>(w, i.at[3], lane) & 31);
        const uint32_t c = get<uint32_t>(w, i.at[4], lane);
        bool is_inside;
        const int from = source_of<W>(lane, b, static_cast<int>(c & 31),
                                      static_cast<int>(c >> 8 & 31), &is_inside);
        if ((w.lanes >> from & 1) == 0) fault(w, lane, "reads a lane that takes no part");
        out[lane] = get<uint32_t>(w, i.at[2], from);
        inside |= static_cast<uint32_t>(is_inside) << lane;
    });
    each_lane(w.lanes, [&](int lane) { put(w, i.at[0], lane, out[lane]); });
    put_mask(w, i.at[1], inside);
}

void warp_barrier(warp &w, const inst &i)
{
    if (together(w, members(w, i.at[0]))) w.home->clock.warp_barrier(w.index);
}

void block_barrier(warp &w, const inst &i)
{
    if (!together(w, w.alive)) return;
    w.state = warp_state::AT_BARRIER;
    w.barrier = i.number;
}

void branch(warp &w, const inst &i)
{
    const uint32_t others = w.now.lanes & ~w.lanes;
    if (others != 0) w.others.push_back({ w.now.pc, others, false });
    w.now = { i.number, w.lanes, false };
    w.frontier = -1; /* look where the others are */
}

void end(warp &w, const inst &i)
{
    (void)i;
    each_lane(w.lanes, [&](int lane) {
        if (!w.copies[lane].empty()) fault(w, lane, "ends with copies that it never waited for");
    });
    w.alive &= ~w.lanes;
    w.now.lanes &= ~w.lanes;
    w.frontier = -1;
}

} // namespace

void add_warp(operation_table &t)
{
    t.emplace("shfl.sync.up.b32", operation{ "wpwwww", shuffle<way::UP> });
    t.emplace("shfl.sync.down.b32", operation{ "wpwwww", shuffle<way::DOWN> });
    t.emplace("shfl.sync.bfly.b32", operation{ "wpwwww", shuffle<way::BFLY> });
    t.emplace("shfl.sync.idx.b32", operation{ "wpwwww", shuffle<way::INDEX> });
    t.emplace("bar.warp.sync", operation{ "w", warp_barrier });
    t.emplace("bar.sync", operation{ "i", block_barrier });
    t.emplace("bra", operation{ "L", branch });
    t.emplace("bra.uni", operation{ "L", branch });
    t.emplace("ret", operation{ "", end });
}

} // namespace ptx

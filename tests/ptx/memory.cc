/* Loads, stores, and copies that go on beside computation. */
#include "ptx/operations.h"

namespace ptx
{

namespace
{

enum class space { GLOBAL, SHARED, PARAM };

int thread_of(const warp &w, int lane) { return w.index * WARP + lane; }

void require_shared(const warp &w, int lane, bool is_right)
{
    if (!is_right) fault(w, lane, w.home->shared.wrong());
}

void read_global(warp &w, int lane, void *out, uint64_t at, uint64_t bytes)
{
    global_uses &uses = w.home->global;
    if (!uses.read(at, bytes, thread_of(w, lane))) fault(w, lane, uses.wrong());
    memcpy(out, reinterpret_cast<const void *>(at), bytes);
}

void write_global(warp &w, int lane, uint64_t at, const void *in, uint64_t bytes)
{
    require_global(w, lane, at, bytes);
    global_uses &uses = w.home->global;
    if (!uses.write(at, in, bytes, thread_of(w, lane))) fault(w, lane, uses.wrong());
    memcpy(reinterpret_cast<void *>(at), in, bytes);
}

template <space S> void load_bytes(warp &w, int lane, void *out, uint64_t at, uint64_t bytes)
{
    if constexpr (S == space::GLOBAL) {
        require_global(w, lane, at, bytes);
        read_global(w, lane, out, at, bytes);
    } else if constexpr (S == space::SHARED) {
        require_shared(w, lane, w.home->shared.read(out, at, bytes, thread_of(w, lane)));
    } else {
        const launch &call = *w.home->call;
        const uint64_t size = static_cast<uint64_t>(call.code->param_bytes);
        if (at % bytes != 0 || at > size || bytes > size - at)
            fault(w, lane,
                  "offset " + std::to_string(at) +
                      " of the parameters is misaligned or "
                      "outside their " +
                      std::to_string(size) + " bytes");
        memcpy(out, static_cast<const unsigned char *>(call.params) + at, bytes);
    }
}

/* COUNT numbers M, each widened to a register R. */
template <space S, class R, class M, int COUNT> void load(warp &w, const inst &i)
{
    each_lane(w.lanes, [&](int lane) {
        M x[COUNT];
        load_bytes<S>(w, lane, x, address(w, i, i.at[COUNT], lane), sizeof x);
        for (int k = 0; k < COUNT; k++) put(w, i.at[k], lane, static_cast<R>(x[k]));
    });
}

template <space S, class R, class M, int COUNT> void store(warp &w, const inst &i)
{
    each_lane(w.lanes, [&](int lane) {
        M x[COUNT];
        for (int k = 0; k < COUNT; k++) x[k] = static_cast<M>(get<R>(w, i.at[k + 1], lane));
        const uint64_t at = address(w, i, i.at[0], lane);
        if constexpr (S == space::SHARED) {
            require_shared(w, lane, w.home->shared.write(at, x, sizeof x, thread_of(w, lane)));
        } else {
            write_global(w, lane, at, x, sizeof x);
        }
    });
}

template <space S, class R, class M, int COUNT>
void add_access(operation_table &t, const std::string &where, const std::string &type)
{
    const std::string registers(COUNT, shape_letter<R>());
    const std::string vector = COUNT == 1 ? "" : COUNT == 2 ? "v2." : "v4.";
    t.emplace("ld." + where + vector + type, operation{ registers + "m", load<S, R, M, COUNT> });
    if constexpr (S != space::PARAM)
        t.emplace("st." + where + vector + type,
                  operation{ "m" + registers, store<S, R, M, COUNT> });
}

/* Registers R may be wider than M in memory, which is of their signedness. */
template <space S, class M, class... R>
void add_type(operation_table &t, const std::string &where, const char *type)
{
    (add_access<S, R, M, 1>(t, where, type), ...);
    (add_access<S, R, M, 2>(t, where, type), ...);
    if constexpr (sizeof(M) <= 4) (add_access<S, R, M, 4>(t, where, type), ...);
}

template <space S> void add_space(operation_table &t, const std::string &where)
{
    add_type<S, uint16_t, uint16_t, uint32_t, uint64_t>(t, where, "u16");
    add_type<S, int16_t, int16_t, int32_t, int64_t>(t, where, "s16");
    add_type<S, uint32_t, uint32_t, uint64_t>(t, where, "u32");
    add_type<S, int32_t, int32_t, int64_t>(t, where, "s32");
    add_type<S, uint32_t, uint32_t>(t, where, "f32");
    for (const char *type : { "u64", "s64", "f64" })
        add_type<S, uint64_t, uint64_t>(t, where, type);
    /* Of shared memory two bytes have one history. */
    if constexpr (S != space::SHARED) {
        add_type<S, uint8_t, uint16_t, uint32_t, uint64_t>(t, where, "u8");
        add_type<S, int8_t, int16_t, int32_t, int64_t>(t, where, "s8");
    }
}

/* ---- asynchronous copies ---- */

/* [to], [from], width, bytes that are read: zeros after them. */
void copy_later(warp &w, const inst &i)
{
    each_lane(w.lanes, [&](int lane) {
        const uint32_t to = get<uint32_t>(w, i.at[0], lane);
        const uint64_t from = get<uint64_t>(w, i.at[1], lane);
        const uint32_t width = get<uint32_t>(w, i.at[2], lane);
        const uint32_t real = get<uint32_t>(w, i.at[3], lane);
        if (width > 16 || real > width) fault(w, lane, "copies more than its width");
        if (from % width != 0) fault(w, lane, "source " + hex(from) + " is misaligned");
        late_copy copy = { to, width, real, from, w.groups[lane], {} };
        if (real > 0) {
            require_global(w, lane, from, width);
            read_global(w, lane, copy.data, from, real);
        }
        require_shared(w, lane, w.home->shared.expect(to, width, thread_of(w, lane)));
        w.copies[lane].push_back(copy);
    });
}

void commit_copies(warp &w, const inst &i)
{
    (void)i;
    each_lane(w.lanes, [&](int lane) { w.groups[lane]++; });
}

/* All groups but the latest so many arrive, as late as they may. */
void wait_copies(warp &w, const inst &i)
{
    each_lane(w.lanes, [&](int lane) {
        std::vector<late_copy> &copies = w.copies[lane];
        size_t left = 0;
        for (const late_copy &c : copies) {
            if (c.group >= w.groups[lane] - i.number) {
                copies[left++] = c;
                continue;
            }
            if (memcmp(c.data, reinterpret_cast<const void *>(c.from), c.from_bytes) != 0)
                fault(w, lane, "source " + hex(c.from) + " of a copy changed on its way");
            w.home->shared.arrive(c.to, c.data, c.bytes, thread_of(w, lane));
        }
        copies.resize(left);
    });
}

template <class A> A same(A a) { return a; }

} // namespace

void add_memory(operation_table &t)
{
    add_space<space::GLOBAL>(t, "global.");
    add_space<space::SHARED>(t, "shared.");
    add_space<space::PARAM>(t, "param.");
    /* Global memory's generic addresses are its own. */
    add<same<uint64_t>>(t, "cvta.to.global.u64");
    t.emplace("cp.async.cg.shared.global", operation{ "sgww", copy_later });
    t.emplace("cp.async.ca.shared.global", operation{ "sgww", copy_later });
    t.emplace("cp.async.commit_group", operation{ "", commit_copies });
    t.emplace("cp.async.wait_group", operation{ "i", wait_copies });
}

} // namespace ptx

/* Blocks one after another, their warps in turns from barrier to barrier. */
#include "ptx/machine.h"

#include "ptx/module.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <stdexcept>

namespace ptx
{

namespace
{

constexpr int64_t SHARED_BYTES_MAX = 227 << 10; /* of a block, on compute capability 9.0 */
constexpr int64_t NOWHERE = INT64_MAX;

/* xorshift64*: Vigna 2016, arXiv:1402.6246. */
struct shuffler {
    uint64_t state;

    template <class T> void operator()(std::vector<T> &x)
    {
        for (size_t i = x.size(); i > 1; i--) {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            std::swap(x[i - 1], x[(state * UINT64_C(2685821657736338717) >> 33) % i]);
        }
    }
};

std::string line_of(const warp &w, const inst &i)
{
    const std::vector<std::string> &files = *w.home->program->files;
    std::string out = "line " + std::to_string(i.line);
    if (i.file_line > 0 && static_cast<size_t>(i.file) < files.size())
        out += " (" + files[static_cast<size_t>(i.file)] + ":" + std::to_string(i.file_line) + ")";
    return out;
}

[[noreturn]] void fail(const warp &w, const std::string &where, const std::string &what)
{
    const uint32_t *at = w.home->at;
    char block[64];
    snprintf(block, sizeof block, ", block (%" PRIu32 ",%" PRIu32 ",%" PRIu32 "), ", at[0], at[1],
             at[2]);
    throw std::runtime_error(w.home->program->name + block + where + ": " + what);
}

/* ---- lanes that went apart ---- */

/* Lanes that ended may have been the ones that the others wait for. */
void wake_or_fail(warp &w)
{
    if (w.alive_then != w.alive) {
        w.alive_then = w.alive;
        for (group &g : w.others) g.waits = false;
        return;
    }
    std::string what = "lanes wait for each other:";
    for (const group &g : w.others)
        what += " " + hex(g.lanes) + " at " +
                line_of(w, w.home->program->insts[static_cast<size_t>(g.pc)]);
    fail(w, "warp " + std::to_string(w.index), what);
}

/* The group that goes on is the one furthest behind, all that are there together. */
void choose_group(warp &w)
{
    if (w.now.lanes != 0) w.others.push_back(w.now);
    w.now.lanes = 0;
    w.frontier = NOWHERE;
    if (w.others.empty()) {
        w.state = warp_state::ENDED;
        return;
    }
    const auto runs = [](const group &g) { return !g.waits; };
    if (std::none_of(w.others.begin(), w.others.end(), runs)) wake_or_fail(w);
    w.now.pc = NOWHERE;
    for (const group &g : w.others)
        if (!g.waits) w.now.pc = std::min(w.now.pc, g.pc);
    size_t left = 0;
    for (const group &g : w.others)
        if (g.pc == w.now.pc) {
            w.now.lanes |= g.lanes;
        } else {
            if (g.pc > w.now.pc) w.frontier = std::min(w.frontier, g.pc);
            w.others[left++] = g;
        }
    w.others.resize(left);
}

/* Until a barrier or the end. */
int64_t run_warp(warp &w)
{
    const inst *const insts = w.home->program->insts.data();
    int64_t count = 0;
    while (w.state == warp_state::READY) {
        if (w.now.pc >= w.frontier || w.now.lanes == 0) {
            choose_group(w);
            continue;
        }
        const inst &i = insts[w.now.pc++];
        w.lanes = w.now.lanes;
        if (i.guard != NO_GUARD) {
            const uint32_t bits = get_mask(w, i.guard);
            w.lanes &= i.guard_not ? ~bits : bits;
        }
        count += __builtin_popcount(w.now.lanes);
        w.current = &i;
        if (w.lanes != 0) i.run(w, i);
    }
    return count;
}

/* ---- blocks ---- */

uint32_t special_value(const special_register &r, const block &b, uint32_t thread)
{
    const uint32_t *size = b.call->block;
    const uint32_t tid[3] = { thread % size[0], thread / size[0] % size[1],
                              thread / (size[0] * size[1]) };
    switch (r.kind) {
    case special::TID:
        return tid[r.axis];
    case special::NTID:
        return size[r.axis];
    case special::CTAID:
        return b.at[r.axis];
    case special::NCTAID:
        return b.call->grid[r.axis];
    }
    return 0;
}

void set_specials(warp &w)
{
    for (const special_register &r : w.home->program->specials)
        for (int lane = 0; lane < WARP; lane++)
            put(w, r.place, lane,
                special_value(r, *w.home, static_cast<uint32_t>(w.index * WARP + lane)));
}

void set_constants(warp &w)
{
    for (const constant &c : w.home->program->constants)
        for (uint32_t lane = 0; lane < WARP; lane++)
            memcpy(w.registers + c.place + lane * c.bytes, &c.bits, c.bytes);
}

void start_warp(warp &w, uint32_t threads)
{
    const uint32_t rest = threads - static_cast<uint32_t>(w.index) * WARP;
    w.alive = rest >= WARP ? ALL_LANES : (1u << rest) - 1;
    w.alive_then = w.alive;
    w.now = { 0, w.alive, false };
    w.frontier = NOWHERE;
    w.others.clear();
    w.state = warp_state::READY;
    for (int64_t &g : w.groups) g = 0;
    set_specials(w);
}

/* All warps that have not ended are at a barrier, the same one. */
void release_barrier(block &b, std::vector<warp> &warps)
{
    const warp *first = nullptr;
    for (warp &w : warps) {
        if (w.state == warp_state::ENDED) continue;
        if (first == nullptr) first = &w;
        if (w.barrier != first->barrier) fault(w, -1, "another barrier than other warps'");
    }
    for (warp &w : warps)
        if (w.state == warp_state::AT_BARRIER) w.state = warp_state::READY;
    b.clock.block_barrier();
}

int64_t run_block(block &b, std::vector<warp> &warps, uint32_t threads, shuffler &shuffle)
{
    int64_t count = 0;
    b.clock.begin_block();
    b.shared.begin();
    b.global.begin_block(b.at);
    std::vector<warp *> order;
    for (warp &w : warps) {
        start_warp(w, threads);
        order.push_back(&w);
    }
    const auto ended = [](const warp &w) { return w.state == warp_state::ENDED; };
    while (!std::all_of(warps.begin(), warps.end(), ended)) {
        shuffle(order);
        for (warp *w : order) count += run_warp(*w);
        release_barrier(b, warps);
    }
    return count;
}

void check_launch(const launch &call, uint64_t threads)
{
    const std::string name = call.code->name + ": ";
    const int64_t shared = call.code->shared_bytes + call.dynamic_bytes;
    if (threads == 0 || threads > static_cast<uint64_t>(call.code->threads_max))
        throw std::runtime_error(name + std::to_string(threads) + " threads in a block, at most " +
                                 std::to_string(call.code->threads_max));
    if (call.grid[0] == 0 || call.grid[0] > INT32_MAX || call.grid[1] == 0 ||
        call.grid[1] > 65535 || call.grid[2] == 0 || call.grid[2] > 65535)
        throw std::runtime_error(name + "a grid outside 1..2147483647 x 1..65535 x 1..65535");
    if (shared > SHARED_BYTES_MAX)
        throw std::runtime_error(name + std::to_string(shared) +
                                 " bytes of shared memory in a block");
}

void run_grid(module &m, const launch &call)
{
    const uint64_t threads = static_cast<uint64_t>(call.block[0]) * call.block[1] * call.block[2];
    check_launch(call, threads);
    const code &program = static_cast<const code &>(*call.code);
    block b(call, program, static_cast<int>(threads));
    if (call.owner == nullptr) b.known = { 0, UINT64_MAX };

    const size_t warp_count = (threads + WARP - 1) / WARP, words = program.register_bytes / 8;
    std::vector<uint64_t> registers(warp_count * words, UINT64_MAX);
    std::vector<warp> warps(warp_count);
    for (size_t k = 0; k < warp_count; k++) {
        warps[k].home = &b;
        warps[k].index = static_cast<int>(k);
        warps[k].registers = reinterpret_cast<unsigned char *>(registers.data() + k * words);
        set_constants(warps[k]);
    }

    const uint64_t blocks = static_cast<uint64_t>(call.grid[0]) * call.grid[1] * call.grid[2];
    std::vector<uint64_t> order(blocks);
    for (uint64_t k = 0; k < blocks; k++) order[k] = k;
    shuffler shuffle = { call.seed * UINT64_C(0x9e3779b97f4a7c15) | 1 };
    shuffle(order);
    for (const uint64_t k : order) {
        b.at[0] = static_cast<uint32_t>(k % call.grid[0]);
        b.at[1] = static_cast<uint32_t>(k / call.grid[0] % call.grid[1]);
        b.at[2] = static_cast<uint32_t>(k / call.grid[0] / call.grid[1]);
        m.instructions += run_block(b, warps, static_cast<uint32_t>(threads), shuffle);
    }
}

} // namespace

std::string hex(uint64_t x)
{
    char text[24];
    snprintf(text, sizeof text, "%#" PRIx64, x);
    return text;
}

void fault(const warp &w, int lane, const std::string &what)
{
    const std::string who = lane < 0 ? "warp " + std::to_string(w.index)
                                     : "thread " + std::to_string(w.index * WARP + lane);
    fail(w, who + ", " + line_of(w, *w.current), what);
}

void require_global(warp &w, int lane, uint64_t address, uint64_t bytes)
{
    if ((address & (bytes - 1)) != 0)
        fault(w, lane, "address " + hex(address) + " is no multiple of " + std::to_string(bytes));
    range &known = w.home->known;
    if (address >= known.begin && address < known.end && bytes <= known.end - address) return;
    const launch &call = *w.home->call;
    const range own = call.owner == nullptr ? range{ 0, 0 } : call.owner(call.context, address);
    if (address < own.begin || address >= own.end || bytes > own.end - address)
        fault(w, lane,
              std::to_string(bytes) + " bytes at " + hex(address) +
                  " are outside the device's memory");
    known = own;
}

bool together(warp &w, uint32_t lanes)
{
    if ((lanes & ~w.lanes) == 0) return true;
    if (w.lanes != w.now.lanes) fault(w, -1, "lanes that must take part pass by");
    w.others.push_back({ w.now.pc - 1, w.now.lanes, true });
    w.now.lanes = 0;
    return false;
}

std::string run(module &m, const launch &call)
{
    try {
        run_grid(m, call);
        return {};
    } catch (const std::runtime_error &e) {
        return std::string("PTX ") + e.what();
    }
}

} // namespace ptx

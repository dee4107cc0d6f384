/*
 * machine.h - what an instruction works on: a warp of 32 lanes in lock step, and its block.
 *
 * A warp's registers are one stretch of bytes, each register an array over the lanes (a predicate:
 * one word with a bit for each lane); constants and special registers lie there too, so that an
 * operand is nothing but a place. Lanes that branched apart are groups, each with its own next
 * instruction; the group that is furthest behind runs, and groups that meet become one.
 */
#ifndef TESTS_PTX_MACHINE_H
#define TESTS_PTX_MACHINE_H

#include "ptx/global.h"
#include "ptx/ptx.h"
#include "ptx/shared.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace ptx
{

constexpr int WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffffu;
constexpr uint32_t NO_GUARD = UINT32_MAX;
constexpr int OPERANDS_MAX = 14; /* mma */

struct warp;
struct inst;
struct code;
using handler = void (*)(warp &, const inst &);

struct inst {
    handler run;
    uint32_t at[OPERANDS_MAX]; /* the operands' places */
    int64_t number;            /* offset of the address, target of the branch, or immediate */
    uint32_t guard;            /* the predicate's place */
    bool guard_not;
    bool narrow;         /* the address is of 32 bits */
    int line;            /* of the text */
    int file, file_line; /* of the source; 0: not known */
};

/* A number that is the same in all lanes, for the whole launch. */
struct constant {
    uint32_t place, bytes;
    uint64_t bits;
};

/* %tid.x and the like: one word for each lane. */
enum class special { TID, NTID, CTAID, NCTAID };
struct special_register {
    uint32_t place;
    special kind;
    int axis;
};

/* A kernel, decoded. */
struct code : kernel {
    std::vector<inst> insts;
    std::vector<constant> constants;
    std::vector<special_register> specials;
    uint32_t register_bytes;
    const std::vector<std::string> *files; /* of the sources, by their number */
};

/* Lanes that are at the same instruction. */
struct group {
    int64_t pc;
    uint32_t lanes;
    bool waits; /* for other lanes, at pc */
};

/* A copy under way, of one lane. */
struct late_copy {
    uint32_t to, bytes, from_bytes; /* zeros after from_bytes */
    uint64_t from;
    int64_t group;
    unsigned char data[16]; /* of `from` when it began */
};

enum class warp_state { READY, AT_BARRIER, ENDED };

struct block;

struct warp {
    block *home;
    unsigned char *registers;
    int index;      /* in the block */
    uint32_t alive; /* lanes that have not ended */
    const inst *current;
    group now;        /* runs; its pc is already that of the next instruction */
    uint32_t lanes;   /* of `now`, those that the guard lets execute */
    int64_t frontier; /* the next instruction at which other lanes may be */
    std::vector<group> others;
    uint32_t alive_then; /* when all were last seen waiting */
    warp_state state;
    int64_t barrier;
    std::vector<late_copy> copies[WARP];
    int64_t groups[WARP]; /* of copies, committed so far */
};

struct block {
    block(const launch &call_, const code &program_, int threads)
        : call(&call_), program(&program_), clock(threads),
          shared(program_.shared_bytes + call_.dynamic_bytes, clock), global(clock, call_.same_bits)
    {
    }
    block(const block &) = delete;
    block &operator=(const block &) = delete;

    const launch *call;
    const code *program;
    barrier_clock clock;
    shared_memory shared;
    global_uses global;
    uint32_t at[3] = {};
    range known = {}; /* of the last global access */
};

/* Ends the run: `what` in the words of the instruction; `lane` < 0: the whole warp. */
[[noreturn]] void fault(const warp &w, int lane, const std::string &what);

std::string hex(uint64_t);

template <class T> T get(const warp &w, uint32_t place, int lane)
{
    T x;
    memcpy(&x, w.registers + place + sizeof(T) * static_cast<size_t>(lane), sizeof x);
    return x;
}

template <class T> void put(warp &w, uint32_t place, int lane, T x)
{
    memcpy(w.registers + place + sizeof(T) * static_cast<size_t>(lane), &x, sizeof x);
}

inline uint32_t get_mask(const warp &w, uint32_t place) { return get<uint32_t>(w, place, 0); }

inline void put_mask(warp &w, uint32_t place, uint32_t bits)
{
    put(w, place, 0, (get_mask(w, place) & ~w.lanes) | (bits & w.lanes));
}

template <class F> void each_lane(uint32_t lanes, F f)
{
    if (lanes == ALL_LANES)
        for (int lane = 0; lane < WARP; lane++) f(lane);
    else
        for (; lanes != 0; lanes &= lanes - 1) f(__builtin_ctz(lanes));
}

/* The address in the operand at `place`, the offset added. */
inline uint64_t address(const warp &w, const inst &i, uint32_t place, int lane)
{
    if (i.narrow) return static_cast<uint32_t>(get<uint32_t>(w, place, lane) + i.number);
    return get<uint64_t>(w, place, lane) + static_cast<uint64_t>(i.number);
}

/* Faults unless the lane may use so many bytes, a power of two, at a multiple of them. */
void require_global(warp &w, int lane, uint64_t address, uint64_t bytes);

/* Whether all of `lanes` that are alive are here; if not, the group waits for them and the
 * instruction comes again. Faults where they cannot come any more. */
bool together(warp &w, uint32_t lanes);

} // namespace ptx

#endif

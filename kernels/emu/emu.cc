/*
 * The scheduler of one block: runs its threads as fibers in shuffled order until all are done.
 * A thread that waits for others leaves; the one that completes a meeting wakes the rest.
 */
#include "kernels/emu/emu.h"

#include "base/env.h"
#include "kernels/emu/fiber.h"

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes)   ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace emu
{

namespace
{

constexpr int WARP = 32;
constexpr unsigned THREADS_MAX = 1024;
constexpr size_t EXCHANGE_BYTES = 16;
constexpr size_t SHARED_BYTES_MAX = 227 << 10; /* what a block may have on compute capability 9.0 */
constexpr size_t RED_ZONE = 64;

struct late_copy {
    void *to;
    const void *from; /* NULL: zeros */
    size_t bytes;
    int group;
};

struct thread {
    emu::fiber fiber;
    builtins vars;
    const char *waits_in; /* NULL: not waiting */
    unsigned meetings;    /* warp operations so far */
    int groups;           /* of copies, committed so far */
    std::vector<late_copy> copies;
};

/* A warp operation under way: lanes hand in, the last one wakes the others. Two sets of slots take
 * turns, since a lane may reach the next operation before the others have read this one. */
struct warp {
    int lanes, arrived;
    const char *kind;
    unsigned char slot[2][WARP][EXCHANGE_BYTES];
    void *part[WARP]; /* of warp_together */
};

struct shared_site {
    const void *site;
    size_t offset, bytes;
};

struct scheduler {
    std::vector<thread> threads;
    std::vector<warp> warps;
    std::vector<int> ready;
    std::vector<shared_site> sites;
    std::vector<unsigned char> shared; /* dynamic part first */
    size_t shared_used;                /* by the block that runs, or ran last */
    int64_t dynamic_bytes;
    const char *kernel;
    dim3 at; /* the block */
    unsigned count, live, at_barrier;
    int running;
    uint64_t random;
    void (*body)(const void *);
    const void *context;
};

scheduler s;
std::mutex one_kernel; /* held while `s` is in use */

/* xorshift64*: Vigna 2016, arXiv:1402.6246. */
uint64_t next_random()
{
    s.random ^= s.random >> 12;
    s.random ^= s.random << 25;
    s.random ^= s.random >> 27;
    return s.random * UINT64_C(2685821657736338717);
}

unsigned below(unsigned n) { return static_cast<unsigned>((next_random() >> 33) % n); }

void seed()
{
    const char *text = env_get("SOULCHAT_EMU_SEED");
    s.random =
        UINT64_C(0x9e3779b97f4a7c15) * (text == nullptr ? 1 : strtoull(text, nullptr, 10) + 1);
    if (s.random == 0) s.random = 1;
}

[[noreturn]] void fail(const char *what)
{
    fprintf(stderr, "emu: kernel %s, block (%u,%u,%u): %s\n", s.kernel, s.at.x, s.at.y, s.at.z,
            what);
    for (unsigned t = 0; t < s.count; t++)
        if (!s.threads[t].fiber.done)
            fprintf(stderr, "emu:   thread %u: %s\n", t,
                    s.threads[t].waits_in == nullptr ? "running" : s.threads[t].waits_in);
    abort();
}

thread &self() { return s.threads[static_cast<size_t>(s.running)]; }

void wait_in(const char *what)
{
    self().waits_in = what;
    fiber_leave();
}

void wake(unsigned t)
{
    s.threads[t].waits_in = nullptr;
    s.ready.push_back(static_cast<int>(t));
}

void release_barrier()
{
    s.at_barrier = 0;
    for (unsigned t = 0; t < s.count; t++)
        if (s.threads[t].waits_in != nullptr) wake(t);
}

void thread_main(void *argument)
{
    (void)argument;
    s.body(s.context);
}

/* Undefined contents: bytes of 0xff are NaN in every float format. What no array has taken is
 * forbidden. */
void poison_shared()
{
    unsigned char *const begin = s.shared.data();
    const size_t dynamic = static_cast<size_t>(s.dynamic_bytes);
    const size_t touched = s.shared_used > dynamic ? s.shared_used : dynamic;
    ASAN_UNPOISON_MEMORY_REGION(begin, s.shared.size());
    memset(begin, 0xff, touched);
    ASAN_POISON_MEMORY_REGION(begin + dynamic, s.shared.size() - dynamic);
    s.shared_used = dynamic;
    s.sites.clear();
}

/* What a launch on a card refuses. */
void check_sizes(dim3 grid, dim3 block)
{
    const uint64_t count = static_cast<uint64_t>(block.x) * block.y * block.z;
    if (count == 0 || count > THREADS_MAX || block.z > 64) fail("block size outside 1..1024");
    if (grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535)
        fail("a grid of more than 2147483647 x 65535 x 65535 blocks");
}

void prepare_threads(dim3 block)
{
    const unsigned count = block.x * block.y * block.z;
    s.count = count;
    while (s.threads.size() < s.count) {
        s.threads.emplace_back();
        fiber_make_stack(&s.threads.back().fiber);
    }
    s.warps.assign((s.count + WARP - 1) / WARP, warp{});
}

void start_block(dim3 at, dim3 block, dim3 grid)
{
    s.at = at;
    s.live = s.count;
    s.at_barrier = 0;
    s.ready.clear();
    poison_shared();
    for (unsigned t = 0; t < s.count; t++) {
        thread &own = s.threads[t];
        own.vars = { dim3(t % block.x, t / block.x % block.y, t / (block.x * block.y)), at, block,
                     grid };
        own.waits_in = nullptr;
        own.meetings = 0;
        own.groups = 0;
        fiber_reset(&own.fiber, thread_main, nullptr);
        s.ready.push_back(static_cast<int>(t));
    }
    for (size_t w = 0; w < s.warps.size(); w++) {
        const unsigned rest = s.count - static_cast<unsigned>(w) * WARP;
        s.warps[w].lanes = static_cast<int>(rest < WARP ? rest : WARP);
        s.warps[w].arrived = 0;
    }
}

void run_block(dim3 at, dim3 block, dim3 grid)
{
    start_block(at, block, grid);
    while (s.live > 0) {
        if (s.ready.empty())
            fail("no thread can go on: a barrier or warp operation that some "
                 "threads never reach");
        const unsigned pick = below(static_cast<unsigned>(s.ready.size()));
        s.running = s.ready[pick];
        s.ready[pick] = s.ready.back();
        s.ready.pop_back();
        now = &self().vars;
        fiber_enter(&self().fiber);
        if (!self().fiber.done) continue;
        if (!self().copies.empty()) fail("a thread ended with copies that it never waited for");
        s.live--;
        if (s.live > 0 && s.at_barrier == s.live) release_barrier();
    }
    s.running = -1;
}

} // namespace

const builtins *now;

int lane() { return s.running % WARP; }

float about(float x)
{
    if (x != x || std::isinf(x)) return x;
    if (fabsf(x) < 0x1p-126f) return 0.0f * x;
    const unsigned bits = __float_as_uint(x);
    return __uint_as_float(bits + (bits & 1));
}

void block_barrier()
{
    if (++s.at_barrier == s.live) {
        release_barrier();
        return;
    }
    wait_in("__syncthreads");
}

/* The lane has handed in its share of `kind`. true: it is the last, and the others are awake. */
static bool arrive(warp &w, const char *kind)
{
    if (++w.arrived < w.lanes) {
        w.kind = kind;
        wait_in(kind);
        return false;
    }
    const unsigned first = static_cast<unsigned>(s.running / WARP) * WARP;
    w.arrived = 0;
    for (unsigned t = first; t < first + static_cast<unsigned>(w.lanes); t++)
        if (static_cast<int>(t) != s.running) wake(t);
    return true;
}

static void check_kind(const warp &w, const char *kind)
{
    if (w.arrived > 0 && w.kind != kind && strcmp(w.kind, kind) != 0)
        fail("lanes of a warp in different operations");
}

static void require_whole(const warp &w)
{
    if (w.lanes != WARP) fail("a warp of fewer than 32 lanes in an operation of whole warps");
}

void require_all(unsigned mask, const char *kind)
{
    if (mask == 0xffffffffu) return;
    fprintf(stderr, "emu: %s with mask %08x\n", kind, mask);
    fail("a warp operation that leaves lanes out");
}

void require_banks(const void *const rows[8], const char *kind)
{
    unsigned taken = 0; /* of the 8 groups of banks that 16 bytes can be in */
    for (int r = 0; r < 8; r++) taken |= 1u << (reinterpret_cast<uintptr_t>(rows[r]) / 16 % 8);
    if (taken == 0xff) return;
    fprintf(stderr, "emu: %s\n", kind);
    fail("rows that are read at once lie in the same banks");
}

void warp_exchange(void *out, const void *in, size_t bytes, int source, const char *kind)
{
    warp &w = s.warps[static_cast<size_t>(s.running / WARP)];
    const unsigned set = self().meetings++ % 2;
    check_kind(w, kind);
    require_whole(w);
    if (source < 0 || source >= WARP) fail("warp operation reads a lane that does not exist");
    memcpy(w.slot[set][lane()], in, bytes);
    (void)arrive(w, kind);
    memcpy(out, w.slot[set][source], bytes);
}

/* The last one works before the others run: their parts stay where they are until then. */
void warp_together(void *part, void (*work)(void *const parts[32]), const char *kind)
{
    warp &w = s.warps[static_cast<size_t>(s.running / WARP)];
    check_kind(w, kind);
    require_whole(w);
    w.part[lane()] = part;
    if (arrive(w, kind)) work(w.part);
}

void require_shared(const void *p, size_t bytes, const char *kind)
{
    const unsigned char *const at = static_cast<const unsigned char *>(p);
    if (reinterpret_cast<uintptr_t>(p) % bytes != 0 || at < s.shared.data() ||
        at + bytes > s.shared.data() + s.shared_used) {
        fprintf(stderr, "emu: %s at %p\n", kind, p);
        fail("an address that is misaligned or outside shared memory");
    }
}

void copy_later(void *to, const void *from, size_t bytes)
{
    require_shared(to, bytes, "asynchronous copy");
    if (reinterpret_cast<uintptr_t>(from) % bytes != 0) fail("asynchronous copy from misaligned");
    memset(to, 0xff, bytes);
    self().copies.push_back({ to, from, bytes, self().groups });
}

void copy_commit() { self().groups++; }

void copy_wait(int latest)
{
    std::vector<late_copy> &copies = self().copies;
    size_t left = 0;
    for (const late_copy &c : copies) {
        if (c.group >= self().groups - latest) {
            copies[left++] = c;
            continue;
        }
        if (c.from == nullptr)
            memset(c.to, 0, c.bytes);
        else
            memcpy(c.to, c.from, c.bytes);
    }
    copies.resize(left);
}

void *shared_array(const void *site, size_t bytes)
{
    for (const shared_site &known : s.sites)
        if (known.site == site) return s.shared.data() + known.offset;
    const size_t offset = (s.shared_used + RED_ZONE + 15) / 16 * 16;
    if (offset + bytes > SHARED_BYTES_MAX) fail("more shared memory than a block may have");
    if (offset + bytes + RED_ZONE > s.shared.size()) fail("shared memory arena is too small");
    ASAN_UNPOISON_MEMORY_REGION(s.shared.data() + offset, bytes);
    s.sites.push_back({ site, offset, bytes });
    s.shared_used = offset + bytes;
    return s.shared.data() + offset;
}

void *shared_dynamic() { return s.shared.data(); }

void run(const request &call)
{
    const dim3 grid = call.grid, block = call.block;
    const std::lock_guard<std::mutex> lock(one_kernel);
    s.kernel = call.name;
    s.count = 0;
    s.running = -1;
    s.body = call.body;
    s.context = call.context;
    s.dynamic_bytes = (call.shared_bytes + 15) / 16 * 16;
    if (call.shared_bytes > static_cast<int64_t>(SHARED_BYTES_MAX))
        fail("more dynamic shared memory than a block may have");
    if (s.shared.empty()) s.shared.resize(2 * SHARED_BYTES_MAX, 0xff);
    if (s.random == 0) seed();
    s.at = dim3(0, 0, 0);
    check_sizes(grid, block);
    prepare_threads(block);

    const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    std::vector<uint32_t> order(blocks);
    for (uint32_t i = 0; i < blocks; i++) {
        const uint32_t j = below(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (const uint32_t b : order)
        run_block(dim3(b % grid.x, b / grid.x % grid.y, b / (grid.x * grid.y)), block, grid);
}

void start(const request &call) { run(call); }

} // namespace emu

#include "kernels/emu/guard.h"

#include "base/env.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace emu
{

namespace
{

/* Below lies nobody's memory but AddressSanitizer's shadow, and two 32-bit numbers side by side
 * look like an address there. */
const uintptr_t HOST_BEGIN = uintptr_t(1) << 45;

struct block {
    unsigned char *data;
    size_t bytes, total; /* asked for, taken */
    bool is_guarded;
};

std::mutex lock;
std::vector<block> blocks;
int at_work; /* how many are */

bool is_on()
{
    const char *text = env_get("SOULCHAT_EMU_GUARD");
    return text != nullptr && strcmp(text, "1") == 0;
}

size_t page_bytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

void allow(const block &b, bool access)
{
    if (mprotect(b.data, b.total, access ? PROT_READ | PROT_WRITE : PROT_NONE) == 0) return;
    perror("emu: mprotect");
    abort();
}

void change(int step)
{
    const std::lock_guard<std::mutex> held(lock);
    const int before = at_work;
    at_work += step;
    if ((before == 0) == (at_work == 0)) return;
    for (const block &b : blocks)
        if (b.is_guarded) allow(b, at_work > 0);
}

bool is_device(uintptr_t address)
{
    for (const block &b : blocks) {
        const uintptr_t begin = reinterpret_cast<uintptr_t>(b.data);
        if (address >= begin && address <= begin + b.total) return true;
    }
    return false;
}

bool is_mapped(uintptr_t address)
{
    const uintptr_t page = address / page_bytes() * page_bytes();
    unsigned char resident;
    return page != 0 && mincore(reinterpret_cast<void *>(page), 1, &resident) == 0;
}

} // namespace

void *device_alloc(size_t bytes)
{
    const bool guard = is_on();
    const size_t page = guard ? page_bytes() : 256, total = (bytes + page - 1) / page * page;
    if (total < bytes) return nullptr;
    const std::lock_guard<std::mutex> held(lock);
    void *data = guard ? mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
                       : aligned_alloc(256, total);
    if (data == MAP_FAILED || data == nullptr) return nullptr;
    blocks.push_back({ static_cast<unsigned char *>(data), bytes, total, guard });
    if (guard && at_work > 0) allow(blocks.back(), true);
    return data;
}

void device_free(void *data)
{
    const std::lock_guard<std::mutex> held(lock);
    for (size_t i = 0; i < blocks.size(); i++) {
        if (blocks[i].data != data) continue;
        if (blocks[i].is_guarded)
            munmap(data, blocks[i].total);
        else
            free(data);
        blocks.erase(blocks.begin() + static_cast<ptrdiff_t>(i));
        return;
    }
}

bool device_block(uintptr_t address, uintptr_t *begin, uintptr_t *end)
{
    const std::lock_guard<std::mutex> held(lock);
    for (const block &b : blocks) {
        *begin = reinterpret_cast<uintptr_t>(b.data);
        *end = *begin + b.bytes;
        if (address >= *begin && address < *end) return true;
    }
    return false;
}

device_at_work::device_at_work() { change(1); }
device_at_work::~device_at_work() { change(-1); }

void require_device_pointers(const char *kernel, const void *words, size_t bytes)
{
    if (!is_on()) return;
    const std::lock_guard<std::mutex> held(lock);
    for (size_t at = 0; at + sizeof(uintptr_t) <= bytes; at += sizeof(uintptr_t)) {
        uintptr_t word;
        memcpy(&word, static_cast<const char *>(words) + at, sizeof word);
        if (word < HOST_BEGIN || is_device(word) || !is_mapped(word)) continue;
        fprintf(stderr, "emu: kernel %s: byte %zu of a parameter points to the host's memory\n",
                kernel, at);
        abort();
    }
}

} // namespace emu

/*
 * global.h - who used which global memory in a launch. Threads of a block need a barrier between
 * (uses.h). Blocks run in any order, at any time: what one of them writes no other may use, but
 * where the launch says that several write the same bits; who wrote them may read them. Kept for
 * every two bytes that were touched.
 */
#ifndef TESTS_PTX_GLOBAL_H
#define TESTS_PTX_GLOBAL_H

#include "ptx/uses.h"

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace ptx
{

class global_uses
{
  public:
    global_uses(const barrier_clock &clock, bool same_bits);
    void begin_block(const uint32_t at[3]);

    /* False where something is wrong, and then wrong() says what. Before memory is changed. */
    bool read(uint64_t at, uint64_t bytes, int thread);
    bool write(uint64_t at, const void *in, uint64_t bytes, int thread);
    const std::string &wrong() const { return error; }

  private:
    struct cell {
        use written, read_by;
        uint32_t alien; /* when a block that had not written it first read it; 0: none did */
    };
    static constexpr uint64_t PAGE_BYTES = 4096, CELL_BYTES = 2;
    struct page {
        cell cells[PAGE_BYTES / CELL_BYTES];
    };
    struct known_page {
        uint64_t number;
        page *data;
    };
    struct started {
        uint32_t time;
        uint32_t block[3];
    };

    cell *cells_of(uint64_t at)
    {
        const uint64_t number = at / PAGE_BYTES;
        const known_page &k = known[number % known.size()];
        page *const p = k.number == number ? k.data : find_page(number);
        return &p->cells[at % PAGE_BYTES / CELL_BYTES];
    }
    page *find_page(uint64_t number);
    bool check_read(uint64_t at, const cell &, int thread);
    bool check_write(uint64_t at, const cell &, int thread, bool same);
    bool clash(uint64_t at, const char *what, use);
    bool clash_of_blocks(uint64_t at, const char *what, uint32_t time);

    const barrier_clock &clock;
    const bool same_bits;
    std::unordered_map<uint64_t, std::unique_ptr<page>> pages;
    std::array<known_page, 64> known;
    std::vector<started> blocks;
    std::string error;
};

} // namespace ptx

#endif

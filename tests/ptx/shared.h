/*
 * shared.h - a block's shared memory, and who used which of its bytes when: two threads that use
 * the same bytes, one of them writing, need a barrier between, of the block, or of the warp where
 * both are in it. Kept for every two bytes.
 */
#ifndef TESTS_PTX_SHARED_H
#define TESTS_PTX_SHARED_H

#include <cstdint>
#include <string>
#include <vector>

namespace ptx
{

class shared_memory
{
public:
    /* For blocks of so many threads. */
    void resize(int64_t bytes, int threads);
    /* A new block: its contents are undefined. */
    void begin();
    void block_barrier();
    void warp_barrier(int warp);

    /* All: empty, or what is wrong. Addresses are offsets. */
    std::string read(void *out, uint64_t at, uint64_t bytes, int thread);
    std::string write(uint64_t at, const void *in, uint64_t bytes, int thread);
    /* A copy that will arrive: nobody may use the bytes until it has. */
    std::string expect(uint64_t at, uint64_t bytes, int thread);
    void arrive(uint64_t at, const void *in, uint64_t bytes, int thread);

private:
    struct use {
        int32_t time; /* of the block's barriers; one before `first` is no use at all */
        int32_t warp_time;
        int16_t thread; /* or SEVERAL of one warp, or MANY */
        int16_t warp;
    };
    struct cell {
        use written, read;
        bool expected;
    };

    std::string check_place(uint64_t at, uint64_t bytes) const;
    use now(int thread) const;
    bool before(const use &, int thread) const;
    std::string clash(const char *what, const use &, uint64_t at) const;

    std::vector<unsigned char> data;
    std::vector<cell> cells;
    std::vector<int32_t> warp_times;
    int32_t time = 1, first = 1;
};

} // namespace ptx

#endif

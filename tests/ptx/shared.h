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

    /* `bytes`: 2, 4, 8 or 16. All: false where something is wrong, and then wrong() says what.
     * Addresses are offsets. */
    bool read(void *out, uint64_t at, uint64_t bytes, int thread);
    bool write(uint64_t at, const void *in, uint64_t bytes, int thread);
    /* A copy that will arrive: nobody may use the bytes until it has. */
    bool expect(uint64_t at, uint64_t bytes, int thread);
    void arrive(uint64_t at, const void *in, uint64_t bytes, int thread);
    const std::string &wrong() const { return error; }

  private:
    struct use {
        uint32_t time;      /* of the block's barriers; one before `first` is no use at all */
        uint16_t warp_time; /* since then */
        uint16_t thread;    /* or SEVERAL + its warp, or MANY; of a write perhaps | EXPECTED */
    };

    template <int BYTES> bool read_some(void *out, uint64_t at, int thread);
    bool fits(uint64_t at, uint64_t bytes);
    bool misplaced(uint64_t at, uint64_t bytes);
    use now(int thread) const;
    bool over(use, int thread) const;
    bool check_read(uint64_t at, use written, int thread);
    bool check_write(uint64_t at, uint64_t cell, int thread, bool same);
    bool clash(const char *what, uint16_t thread, uint64_t at);
    static void add_reader(use *read, use own);

    std::vector<unsigned char> data;
    std::vector<use> written, read_by;
    std::vector<uint16_t> warp_times;
    uint32_t time = 1, first = 1;
    std::string error;
};

} // namespace ptx

#endif

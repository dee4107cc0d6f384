/*
 * shared.h - a block's shared memory, and who used which of its bytes when (uses.h), kept for every
 * two bytes.
 */
#ifndef TESTS_PTX_SHARED_H
#define TESTS_PTX_SHARED_H

#include "ptx/uses.h"

#include <cstdint>
#include <string>
#include <vector>

namespace ptx
{

class shared_memory
{
  public:
    shared_memory(int64_t bytes, const barrier_clock &clock);
    /* A new block: its contents are undefined. */
    void begin();

    /* `bytes`: 2, 4, 8 or 16. All: false where something is wrong, and then wrong() says what.
     * Addresses are offsets. */
    bool read(void *out, uint64_t at, uint64_t bytes, int thread);
    bool write(uint64_t at, const void *in, uint64_t bytes, int thread);
    /* A copy that will arrive: nobody may use the bytes until it has. */
    bool expect(uint64_t at, uint64_t bytes, int thread);
    void arrive(uint64_t at, const void *in, uint64_t bytes, int thread);
    const std::string &wrong() const { return error; }

  private:
    template <int BYTES> bool read_some(void *out, uint64_t at, int thread);
    bool fits(uint64_t at, uint64_t bytes);
    bool misplaced(uint64_t at, uint64_t bytes);
    bool check_read(uint64_t at, use written, int thread);
    bool check_write(uint64_t at, uint64_t cell, int thread, bool same);
    bool clash(const char *what, use, uint64_t at);

    const barrier_clock &clock;
    std::vector<unsigned char> data;
    std::vector<use> written, read_by; /* thread of a write perhaps | EXPECTED */
    std::string error;
};

} // namespace ptx

#endif

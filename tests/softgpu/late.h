/*
 * late.h - work of a pretended stream that is not the runtime's own: a kernel that the emulator
 * runs, a product of the stand-in for cuBLASLt. Names nothing of CUDA, whose types the emulator has
 * too.
 */
#ifndef TESTS_SOFTGPU_LATE_H
#define TESTS_SOFTGPU_LATE_H

#include <cstdint>
#include <functional>

namespace soft
{

/* Run `work` when the stream gets to it. */
void later(void *stream, std::function<void()> work);

/* The block of memory that a kernel may use and that an address lies in. false: none. */
bool device_block(uintptr_t address, uintptr_t *begin, uintptr_t *end);

} // namespace soft

#endif

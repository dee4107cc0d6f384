/*
 * guard.h - device memory that the host cannot touch, as on a card: with SOULCHAT_EMU_GUARD=1 the
 * emulated device's memory has no access rights but while a kernel, a copy or a product is at work.
 * Host code that follows a pointer into it ends with a segmentation fault, which a GPU would answer
 * with the same; a kernel whose parameters point into the host's memory ends the program with its
 * name.
 *
 * Not for several ranks over shared memory, which use the emulated device's memory as their own.
 */
#ifndef KERNELS_EMU_GUARD_H
#define KERNELS_EMU_GUARD_H

#include <cstddef>
#include <cstdint>

namespace emu
{

/* At least `bytes`, at a multiple of 256; nullptr: there is no more. */
void *device_alloc(size_t bytes);
void device_free(void *data); /* NULL-safe */

/* The device is at work as long as one of these lives, in any thread. */
struct device_at_work {
    device_at_work();
    ~device_at_work();
    device_at_work(const device_at_work &) = delete;
    device_at_work &operator=(const device_at_work &) = delete;
};

/* The block of device memory that an address lies in: the bytes that were asked for. false: none.
 */
bool device_block(uintptr_t address, uintptr_t *begin, uintptr_t *end);

/* Ends the program if a word of a kernel's parameter is an address of the host's memory. */
void require_device_pointers(const char *kernel, const void *words, size_t bytes);

} // namespace emu

#endif

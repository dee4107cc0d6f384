/* Kernels that the emulator runs, when their stream gets to them. */
#include "kernels/emu/emu.h"
#include "softgpu/late.h"

void emu::queue(const struct gpu *gpu, std::function<void()> work)
{
    soft::later(gpu->queue[DEV_COMPUTE], std::move(work));
}

bool emu::launch_block(uintptr_t address, uintptr_t *begin, uintptr_t *end)
{
    return soft::device_block(address, begin, end);
}

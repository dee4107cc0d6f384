#include "kernels/emu/emu.h"

void emu::queue(const struct gpu *gpu, std::function<void()> work)
{
    (void)gpu;
    work();
}

bool emu::launch_block(uintptr_t address, uintptr_t *begin, uintptr_t *end)
{
    return device_block(address, begin, end);
}

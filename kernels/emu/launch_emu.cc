#include "kernels/emu/emu.h"

void emu::queue(const struct gpu *gpu, std::function<void()> work)
{
    (void)gpu;
    work();
}

#include "kernels/cuda/launch.cuh"

void emu::queue(const struct gpu *gpu, std::function<void()> work)
{
    (void)gpu;
    work();
}

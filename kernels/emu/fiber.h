/*
 * fiber.h - stacks that take turns on one thread: what the emulator's CUDA threads run on.
 *
 *     fiber_enter(&f);   // run f until it calls fiber_leave, or its function returns
 */
#ifndef KERNELS_EMU_FIBER_H
#define KERNELS_EMU_FIBER_H

#include <cstddef>

namespace emu
{

struct fiber {
    void *stack;      /* lowest address; FIBER_STACK_BYTES above a guard page */
    void *sp;         /* where to go on */
    void *fake_stack; /* AddressSanitizer's */
    void (*function)(void *);
    void *argument;
    bool done;
};

constexpr size_t FIBER_STACK_BYTES = 256 << 10;

/* One for each fiber, for good; reserved, not touched. Aborts when memory is out. */
void fiber_make_stack(fiber *f);
/* Ready to run function(argument) from the start. */
void fiber_reset(fiber *f, void (*function)(void *), void *argument);
void fiber_enter(fiber *f);
void fiber_leave(); /* called on a fiber: back to who entered it */

} // namespace emu

#endif

/*
 * Switching stacks. On x86-64 twelve instructions save what the calling convention says a function
 * must keep; elsewhere ucontext does the same at the price of two system calls a switch.
 */
#include "kernels/emu/fiber.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#ifdef FIBER_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu
{

namespace
{

/* Of this thread: who runs now, and how to get back to who entered it. Read at every switch: the
 * general way to a thread's variable would show. */
#define THREAD_OWN __attribute__((tls_model("initial-exec"))) thread_local
THREAD_OWN fiber *current;
THREAD_OWN void *home_sp;
#ifdef FIBER_ASAN
THREAD_OWN const void *home_stack;
THREAD_OWN size_t home_bytes;
#endif

void switch_begin(void **fake_stack, const void *stack, size_t bytes)
{
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(fake_stack, stack, bytes);
#else
    (void)fake_stack;
    (void)stack;
    (void)bytes;
#endif
}

void switch_end(void *fake_stack, bool from_home)
{
#ifdef FIBER_ASAN
    if (from_home)
        __sanitizer_finish_switch_fiber(fake_stack, &home_stack, &home_bytes);
    else
        __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
    (void)fake_stack;
    (void)from_home;
#endif
}

} // namespace

#if defined(__x86_64__)
/* Push what a callee keeps, exchange stack pointers, pop the other side's. */
extern "C" void emu_fiber_switch(void **save_sp, void *load_sp);
__asm__(".text\n"
        ".globl emu_fiber_switch\n"
        ".hidden emu_fiber_switch\n"
        ".type emu_fiber_switch, @function\n"
        "emu_fiber_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size emu_fiber_switch, .-emu_fiber_switch\n");
#else
extern "C" void emu_fiber_switch(void **save_sp, void *load_sp)
{
    ucontext_t here;
    *save_sp = &here;
    swapcontext(&here, static_cast<ucontext_t *>(load_sp));
}
#endif

static void leave_to_home(void **fake_stack)
{
    fiber *self = current;
#ifdef FIBER_ASAN
    switch_begin(fake_stack, home_stack, home_bytes);
#else
    switch_begin(fake_stack, nullptr, 0);
#endif
    emu_fiber_switch(&self->sp, home_sp);
    switch_end(self->fake_stack, true);
}

static void start()
{
    switch_end(nullptr, true);
    fiber *self = current;
    self->function(self->argument);
    self->done = true;
    leave_to_home(nullptr); /* NULL: this stack's frames are gone */
    abort();
}

void fiber_make_stack(fiber *f)
{
    const size_t guard = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void *memory = mmap(nullptr, FIBER_STACK_BYTES + guard, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, guard, PROT_NONE) != 0) {
        fprintf(stderr, "emu: no memory for a thread's stack\n");
        abort();
    }
    f->stack = static_cast<char *>(memory) + guard;
}

void fiber_reset(fiber *f, void (*function)(void *), void *argument)
{
    f->function = function;
    f->argument = argument;
    f->done = false;
    f->fake_stack = nullptr;
#if defined(__x86_64__)
    /* As if `start` had been called: an address to return to, and six saved registers. The stack
     * pointer is 8 below a multiple of 16 where a function begins. */
    void **top = reinterpret_cast<void **>(static_cast<char *>(f->stack) + FIBER_STACK_BYTES);
    top -= 2;
    top[0] = reinterpret_cast<void *>(start);
    top[1] = nullptr;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f->sp = top;
#else
    ucontext_t *context = static_cast<ucontext_t *>(f->stack); /* at the far end of the stack */
    getcontext(context);
    context->uc_stack.ss_sp = context + 1;
    context->uc_stack.ss_size = FIBER_STACK_BYTES - sizeof *context;
    context->uc_link = nullptr;
    makecontext(context, start, 0);
    f->sp = context;
#endif
}

void fiber_enter(fiber *f)
{
    void *fake_stack = nullptr;
    current = f;
    switch_begin(&fake_stack, f->stack, FIBER_STACK_BYTES);
    emu_fiber_switch(&home_sp, f->sp);
    switch_end(fake_stack, false);
    current = nullptr;
}

void fiber_leave() { leave_to_home(&current->fake_stack); }

} // namespace emu

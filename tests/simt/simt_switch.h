/* The switch between fibers: callee-saved registers and the stack pointer, nothing else.
 * swapcontext() would do, at two system calls a switch; it is the fallback where there is no
 * assembly below. */
#ifndef SIMT_SWITCH_H
#define SIMT_SWITCH_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)

/* Saves the running context's stack pointer in *save and goes on with that of `load`. */
extern "C" void simt_swap(void **save, void *load);
asm(R"(
.text
.p2align 4
.globl simt_swap
.hidden simt_swap
.type simt_swap,@function
simt_swap:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size simt_swap, .-simt_swap
)");

struct simt_context {
    void *sp = nullptr;
    void prepare(char *stack, size_t size, void (*entry)())
    {
        /* six registers, the entry point where `ret` finds it, and a zero that ends backtraces; the
         * stack pointer is 8 past a multiple of 16 at entry, as after a call */
        uintptr_t top = (uintptr_t)(stack + size) & ~(uintptr_t)15;
        void **frame = (void **)(top - 8 * 8 - 16);
        for (int i = 0; i < 10; i++) {
            frame[i] = nullptr;
        }
        frame[6] = (void *)entry;
        sp = frame;
    }
    void swap_to(simt_context &other)
    {
        simt_swap(&sp, other.sp);
    }
};

#elif defined(__aarch64__) && !defined(SIMT_UCONTEXT)

extern "C" void simt_swap(void **save, void *load);
asm(R"(
.text
.p2align 4
.globl simt_swap
.hidden simt_swap
.type simt_swap,%function
simt_swap:
    sub sp, sp, #160
    stp x19, x20, [sp]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size simt_swap, .-simt_swap
)");

struct simt_context {
    void *sp = nullptr;
    void prepare(char *stack, size_t size, void (*entry)())
    {
        uintptr_t top = (uintptr_t)(stack + size) & ~(uintptr_t)15;
        void **frame = (void **)(top - 160);
        for (int i = 0; i < 20; i++) {
            frame[i] = nullptr;
        }
        frame[11] = (void *)entry; /* x30 */
        sp = frame;
    }
    void swap_to(simt_context &other)
    {
        simt_swap(&sp, other.sp);
    }
};

#else

#include <ucontext.h>

struct simt_context {
    ucontext_t u;
    void prepare(char *stack, size_t size, void (*entry)())
    {
        getcontext(&u);
        u.uc_stack.ss_sp = stack;
        u.uc_stack.ss_size = size;
        u.uc_link = nullptr;
        makecontext(&u, entry, 0);
    }
    void swap_to(simt_context &other)
    {
        swapcontext(&u, &other.u);
    }
};

#endif

#endif

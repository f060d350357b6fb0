/*
 * Fibers on ucontext; fiber.h. The stack has a guard page at its end; AddressSanitizer is told of
 * every switch, since it knows the stacks of threads only.
 */
#include "proxy/ssh/fiber.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

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

#define STACK_LEN (512u * 1024u) /* address space; what is not touched costs nothing */
#define GUARD_LEN 65536u         /* whole pages on every machine */

struct fiber {
    ucontext_t inside, outside;
    void (*run)(void *arg);
    void *arg;
    uint8_t *stack;
    bool has_begun, is_done;
    void *fake_inside, *fake_outside; /* AddressSanitizer's */
    const void *outside_stack;
    size_t outside_len;
};

static struct fiber *running; /* a relay has one thread */

#ifdef FIBER_ASAN
static void leave(void **keep, const void *stack, size_t len)
{
    __sanitizer_start_switch_fiber(keep, stack, len);
}

static void arrive(void *kept, const void **from, size_t *len)
{
    __sanitizer_finish_switch_fiber(kept, from, len);
}
#else
static void leave(void **keep, const void *stack, size_t len)
{
    (void)keep, (void)stack, (void)len;
}

static void arrive(void *kept, const void **from, size_t *len)
{
    (void)kept, (void)from, (void)len;
}
#endif

static void body(void)
{
    struct fiber *f = running;

    arrive(f->fake_inside, &f->outside_stack, &f->outside_len);
    f->run(f->arg);
    f->is_done = true;
    leave(NULL, f->outside_stack, f->outside_len); /* NULL: this stack is not come back to */
    (void)swapcontext(&f->inside, &f->outside);
    abort(); /* nobody resumes what is done */
}

/* Apart, since getcontext() may return twice as far as a compiler knows. */
static bool set_up(struct fiber *f)
{
    if (getcontext(&f->inside) < 0)
        return false;
    f->inside.uc_stack.ss_sp = f->stack + GUARD_LEN;
    f->inside.uc_stack.ss_size = STACK_LEN - GUARD_LEN;
    f->inside.uc_link = NULL;
    makecontext(&f->inside, body, 0);
    return true;
}

struct fiber *fiber_create(void (*run)(void *arg), void *arg)
{
    struct fiber *f = calloc(1, sizeof(*f));
    void *stack;

    if (!f)
        return NULL;
    stack = mmap(NULL, STACK_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    f->run = run;
    f->arg = arg;
    f->stack = stack;
    if (stack == MAP_FAILED || mprotect(stack, GUARD_LEN, PROT_NONE) < 0 || !set_up(f)) {
        if (stack != MAP_FAILED)
            (void)munmap(stack, STACK_LEN);
        free(f);
        return NULL;
    }
    return f;
}

void fiber_resume(struct fiber *f)
{
    if (running || f->is_done)
        abort(); /* our own mistake, and not one to go on after */
    f->has_begun = true;
    running = f;
    leave(&f->fake_outside, f->stack + GUARD_LEN, STACK_LEN - GUARD_LEN);
    (void)swapcontext(&f->outside, &f->inside);
    arrive(f->fake_outside, NULL, NULL);
    running = NULL;
}

void fiber_yield(void)
{
    struct fiber *f = running;

    leave(&f->fake_inside, f->outside_stack, f->outside_len);
    (void)swapcontext(&f->inside, &f->outside);
    arrive(f->fake_inside, &f->outside_stack, &f->outside_len);
}

bool fiber_is_done(const struct fiber *f)
{
    return f->is_done || !f->has_begun;
}

void fiber_destroy(struct fiber *f)
{
    if (!f)
        return;
    (void)munmap(f->stack, STACK_LEN);
    free(f);
}

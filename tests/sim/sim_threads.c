/* The product's own threads (the driver of moves, the worker that reads the disk) as coroutines of
 * the world.
 *
 * Each has a stack of its own, and the world's thread runs all of them: it hands over to one and
 * goes on when that one waits or ends. So the order is the world's, hence the seed's. None of what
 * the product keeps in thread-local variables lives across a wait.
 *
 *     pthread_create      runs for the first time in an event
 *     pthread_cond_wait   gives the mutex back and returns to the world
 *     ... _signal         plans an event in which all who wait go on: a wake-up without a reason is
 *                         allowed by the interface
 *     pthread_join        lets the world go on until the thread has ended
 *
 * The world itself - the test, the life of a process - waits by letting one event happen; it must
 * not be inside a callback. */
#include "base/assert.h"
#include "base/bytes.h"
#include "sim/sim.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_BYTES (1024 * 1024) /* reserved; what is not touched costs nothing */
#define GUARD_BYTES (64 * 1024)   /* below it */

/* Also the world's own, of which only where it stands and its stack's place are known. */
struct stack {
    ucontext_t at; /* while another one runs */
    const void *bottom;
    size_t size;
    void *fake; /* AddressSanitizer's */
};

struct sim_thread {
    struct sim_thread *next;
    uint64_t number;
    struct sim_host *host;
    struct stack stack;
    void *(*run)(void *context);
    void *context;
    const pthread_cond_t *waiting_on; /* NULL: runs, or its event is planned */
    uint64_t wait_number;             /* grows with every wait: an old alarm means nothing */
    bool timed_out;
    bool ended;
};

struct free_stack {
    struct free_stack *next;
};

/* Process-wide, as what it replaces. */
static struct sim_thread *threads;
static uint64_t thread_count;   /* created, ever */
static struct sim_thread *self; /* NULL: the world's */
static struct stack world_stack;
static struct free_stack *free_stacks; /* each written down at its own bottom */

int __real_sem_wait(sem_t *semaphore);

/* ---- stacks ---- */

static void *stack_take(void)
{
    void *bottom = free_stacks;
    if (bottom != NULL) {
        free_stacks = free_stacks->next;
        return bottom;
    }
    uint8_t *all = mmap(NULL, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(all != MAP_FAILED);
    int failed = mprotect(all, GUARD_BYTES, PROT_NONE);
    ASSERT(failed == 0);
    return all + GUARD_BYTES;
}

static void stack_give(void *bottom)
{
#ifdef WITH_ASAN
    ASAN_UNPOISON_MEMORY_REGION(bottom, STACK_BYTES); /* its last frames never returned */
#endif
    struct free_stack *stack = bottom;
    stack->next = free_stacks;
    free_stacks = stack;
}

/* Alone, because getcontext is said to return twice; this one does not. */
static void __attribute__((noinline)) stack_prepare(struct stack *stack, void (*run)(void))
{
    int failed = getcontext(&stack->at);
    ASSERT(failed == 0);
    stack->at.uc_stack.ss_sp = (void *)(uintptr_t)stack->bottom;
    stack->at.uc_stack.ss_size = stack->size;
    makecontext(&stack->at, run, 0);
}

/* `from` stands still here until somebody switches to it. `ends`: nobody will. */
static void stack_switch(struct stack *from, struct stack *to, bool ends)
{
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(ends ? NULL : &from->fake, to->bottom, to->size);
#endif
    int failed = swapcontext(&from->at, &to->at);
    ASSERT(failed == 0 && !ends);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(from->fake, NULL, NULL);
#endif
}

/* Back to the world, until it is this thread's turn again. */
static void yield(void)
{
    struct sim_thread *thread = self;
    self = NULL;
    stack_switch(&thread->stack, &world_stack, thread->ended);
}

static void trampoline(void)
{
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &world_stack.bottom, &world_stack.size);
#endif
    (void)self->run(self->context);
    self->ended = true;
    yield();
    UNREACHABLE();
}

static void resume(void *context, void *payload)
{
    (void)payload;
    ASSERT(self == NULL);
    self = context;
    stack_switch(&world_stack, &self->stack, false);
    ASSERT(self == NULL);
}

static void plan_resume(struct sim_thread *thread)
{
    sim_after(thread->host, sim_between(1, 20) * SIM_US, resume, NULL, thread, NULL);
}

static void wake_all(const pthread_cond_t *condition)
{
    for (struct sim_thread *thread = threads; thread != NULL; thread = thread->next) {
        if (thread->waiting_on == condition) {
            thread->waiting_on = NULL;
            plan_resume(thread);
        }
    }
}

struct alarm {
    uint64_t thread;
    uint64_t wait_number;
};

static void alarm_drop(void *context, void *payload)
{
    (void)context;
    free(payload);
}

/* The thread may be gone: it is looked for, not followed. */
static void alarm_run(void *context, void *payload)
{
    (void)context;
    struct alarm *alarm = payload;
    for (struct sim_thread *thread = threads; thread != NULL; thread = thread->next) {
        if (thread->number == alarm->thread && thread->waiting_on != NULL &&
            thread->wait_number == alarm->wait_number) {
            thread->waiting_on = NULL;
            thread->timed_out = true;
            resume(thread, NULL);
            break;
        }
    }
    free(alarm);
}

/* ---- what is replaced at link time ---- */

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context)
{
    (void)attributes;
    struct sim_thread *created = mem_calloc(1, sizeof *created);
    created->host = sim_world()->current;
    created->run = run;
    created->context = context;
    created->number = ++thread_count;
    created->stack.bottom = stack_take();
    created->stack.size = STACK_BYTES;
    stack_prepare(&created->stack, trampoline);
    created->next = threads;
    threads = created;
    *thread = (pthread_t)(uintptr_t)created;
    plan_resume(created);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result)
{
    struct sim_thread *joined = (struct sim_thread *)(uintptr_t)thread;
    ASSERT(result == NULL);
    ASSERT(self == NULL);
    while (!joined->ended) {
        sim_step();
    }
    struct sim_thread **at = &threads;
    while (*at != joined) {
        at = &(*at)->next;
    }
    *at = joined->next;
    stack_give((void *)(uintptr_t)joined->stack.bottom);
    free(joined);
    return 0;
}

/* They have no names. */
int __wrap_pthread_setname_np(pthread_t thread, const char *name);
int __wrap_pthread_setname_np(pthread_t thread, const char *name)
{
    (void)thread;
    (void)name;
    return 0;
}

int __wrap_pthread_cond_signal(pthread_cond_t *condition);
int __wrap_pthread_cond_signal(pthread_cond_t *condition)
{
    wake_all(condition);
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *condition);
int __wrap_pthread_cond_broadcast(pthread_cond_t *condition)
{
    wake_all(condition);
    return 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    pthread_mutex_unlock(mutex);
    if (self == NULL) {
        sim_step();
    } else {
        self->wait_number++;
        self->waiting_on = condition;
        yield();
    }
    return pthread_mutex_lock(mutex);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                                  const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex,
                                  const struct timespec *until)
{
    uint64_t until_ns = (uint64_t)until->tv_sec * SIM_S + (uint64_t)until->tv_nsec;
    if (sim_now_ns() >= until_ns) {
        return ETIMEDOUT;
    }
    if (self == NULL) {
        return __wrap_pthread_cond_wait(condition, mutex);
    }
    struct alarm *alarm = mem_alloc(sizeof *alarm);
    *alarm = (struct alarm){.thread = self->number, .wait_number = self->wait_number + 1};
    self->timed_out = false;
    sim_after(self->host, until_ns - sim_now_ns(), alarm_run, alarm_drop, NULL, alarm);
    int failed = __wrap_pthread_cond_wait(condition, mutex);
    return failed == 0 && self->timed_out ? ETIMEDOUT : failed;
}

int __wrap_sem_wait(sem_t *semaphore);
int __wrap_sem_wait(sem_t *semaphore)
{
    ASSERT(self == NULL);
    while (sem_trywait(semaphore) != 0) {
        sim_step();
    }
    return 0;
}

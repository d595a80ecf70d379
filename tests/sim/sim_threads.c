/* The product's own threads (the driver of moves, the worker that reads the disk) as coroutines of
 * the world.
 *
 * Each is a real thread, but only one of all ever runs: the world hands over to it and waits until
 * it waits or ends. So its thread-local variables are its own, the sanitizers see an ordinary
 * thread, and the order is the world's, hence the seed's.
 *
 *     pthread_create      runs for the first time in an event
 *     pthread_cond_wait   gives the mutex back and returns to the world
 *     ... _signal         plans an event in which all who wait go on: a wake-up without a reason is
 *                         allowed by the interface
 *     pthread_join        lets the world go on until the thread has ended
 *
 * The world's own thread - the test, the life of a process - waits by letting one event happen; it
 * must not be inside a callback. */
#include "base/assert.h"
#include "base/bytes.h"
#include "sim/sim.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

struct sim_thread {
    struct sim_thread *next;
    struct sim_host *host;
    pthread_t real;
    void *(*run)(void *context);
    void *context;
    sem_t go;
    sem_t back;
    const pthread_cond_t *waiting_on; /* NULL: runs, or its event is planned */
    uint64_t wait_number;             /* grows with every wait: an old alarm means nothing */
    bool timed_out;
    bool ended;
};

/* Process-wide, as what it replaces. */
static struct sim_thread *threads;
static _Thread_local struct sim_thread *self; /* NULL: the world's */

int __real_sem_wait(sem_t *semaphore);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context);
int __real_pthread_join(pthread_t thread, void **result);

static void take_turn(sem_t *semaphore)
{
    while (__real_sem_wait(semaphore) != 0) {
        ASSERT(errno == EINTR);
    }
}

/* Back to the world, until it is this thread's turn again. */
static void yield(void)
{
    sem_post(&self->back);
    take_turn(&self->go);
}

static void *trampoline(void *context)
{
    self = context;
    take_turn(&self->go);
    void *result = self->run(self->context);
    self->ended = true;
    sem_post(&self->back);
    return result;
}

static void resume(void *context, void *payload)
{
    (void)payload;
    struct sim_thread *thread = context;
    ASSERT(self == NULL);
    sem_post(&thread->go);
    take_turn(&thread->back);
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
    struct sim_thread *thread;
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
        if (thread == alarm->thread && thread->waiting_on != NULL &&
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
    struct sim_thread *created = mem_calloc(1, sizeof *created);
    created->host = sim_world()->current;
    created->run = run;
    created->context = context;
    sem_init(&created->go, 0, 0);
    sem_init(&created->back, 0, 0);
    int failed = __real_pthread_create(&created->real, attributes, trampoline, created);
    ASSERT(failed == 0);
    created->next = threads;
    threads = created;
    *thread = created->real;
    plan_resume(created);
    return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result);
int __wrap_pthread_join(pthread_t thread, void **result)
{
    struct sim_thread **at = &threads;
    while (*at != NULL && !pthread_equal((*at)->real, thread)) {
        at = &(*at)->next;
    }
    ASSERT(*at != NULL);
    ASSERT(self == NULL);
    struct sim_thread *joined = *at;
    while (!joined->ended) {
        sim_step();
    }
    int failed = __real_pthread_join(thread, result);
    at = &threads; /* others may have come and gone meanwhile */
    while (*at != joined) {
        at = &(*at)->next;
    }
    *at = joined->next;
    sem_destroy(&joined->go);
    sem_destroy(&joined->back);
    free(joined);
    return failed;
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
    *alarm = (struct alarm){.thread = self, .wait_number = self->wait_number + 1};
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

/* Timers: one thread, one binary heap by deadline, one condition variable. The thread sleeps until
 * the first deadline or for ever when there is none.
 *
 * Invariants under the lock: heap[i]->at == i for every timer in the heap, SIZE_MAX for others;
 * `running` is the timer whose `fire` is being called (without the lock), and only the thread sets
 * or clears it. A timer being destroyed is closing: it never enters the heap again. */
#include "base/thread.h"
#include "rpc/rpc_internal.h"

struct rpc_timer {
    struct rpc__timers *timers;
    void (*fire)(void *context);
    void *context;
    /* Under the lock. */
    uint64_t deadline_ns;
    size_t at;
    bool closing;
    bool free_after_fire; /* destroyed from within its own `fire` */
};

struct rpc__timers {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;  /* the heap's first deadline, or stopping */
    pthread_cond_t finished; /* a `fire` returned */
    struct rpc_timer **heap;
    size_t count;
    size_t capacity;
    size_t timer_count; /* created and not yet destroyed */
    struct rpc_timer *running;
    bool stopping;
};

static void heap_place(struct rpc__timers *timers, size_t at, struct rpc_timer *timer)
{
    timers->heap[at] = timer;
    timer->at = at;
}

static void heap_up(struct rpc__timers *timers, size_t at)
{
    struct rpc_timer *timer = timers->heap[at];
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (timers->heap[parent]->deadline_ns <= timer->deadline_ns) {
            break;
        }
        heap_place(timers, at, timers->heap[parent]);
        at = parent;
    }
    heap_place(timers, at, timer);
}

static void heap_down(struct rpc__timers *timers, size_t at)
{
    struct rpc_timer *timer = timers->heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= timers->count) {
            break;
        }
        if (child + 1 < timers->count &&
            timers->heap[child + 1]->deadline_ns < timers->heap[child]->deadline_ns) {
            child++;
        }
        if (timer->deadline_ns <= timers->heap[child]->deadline_ns) {
            break;
        }
        heap_place(timers, at, timers->heap[child]);
        at = child;
    }
    heap_place(timers, at, timer);
}

static void heap_remove(struct rpc__timers *timers, struct rpc_timer *timer)
{
    size_t at = timer->at;
    ASSERT_CMP(at, <, timers->count);
    ASSERT(timers->heap[at] == timer);
    timer->at = SIZE_MAX;
    timers->count--;
    if (at == timers->count) {
        return;
    }
    heap_place(timers, at, timers->heap[timers->count]);
    heap_down(timers, at);
    heap_up(timers, at);
}

static void heap_add(struct rpc__timers *timers, struct rpc_timer *timer)
{
    if (timers->count == timers->capacity) {
        timers->capacity = timers->capacity == 0 ? 16 : timers->capacity * 2;
        timers->heap = mem_realloc(timers->heap, timers->capacity * sizeof(timers->heap[0]));
    }
    timers->count++;
    heap_place(timers, timers->count - 1, timer);
    heap_up(timers, timers->count - 1);
}

static void wait_until(struct rpc__timers *timers, uint64_t deadline_ns)
{
    struct timespec time;
    time.tv_sec = (time_t)(deadline_ns / NS_PER_S);
    time.tv_nsec = (long)(deadline_ns % NS_PER_S);
    pthread_cond_timedwait(&timers->changed, &timers->lock, &time);
}

static void fire_locked(struct rpc__timers *timers, struct rpc_timer *timer)
{
    heap_remove(timers, timer);
    timers->running = timer;
    pthread_mutex_unlock(&timers->lock);
    timer->fire(timer->context);
    pthread_mutex_lock(&timers->lock);
    timers->running = NULL;
    if (timer->free_after_fire) {
        free(timer);
    }
    pthread_cond_broadcast(&timers->finished);
}

static void *timers_main(void *argument)
{
    struct rpc__timers *timers = argument;
    pthread_mutex_lock(&timers->lock);
    while (!timers->stopping) {
        if (timers->count == 0) {
            pthread_cond_wait(&timers->changed, &timers->lock);
            continue;
        }
        struct rpc_timer *first = timers->heap[0];
        if (first->deadline_ns > clock_now_ns(clock_system())) {
            wait_until(timers, first->deadline_ns);
            continue;
        }
        fire_locked(timers, first);
    }
    pthread_mutex_unlock(&timers->lock);
    return NULL;
}

struct rpc__timers *rpc__timers_create(void)
{
    struct rpc__timers *timers = mem_calloc(1, sizeof(*timers));
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&timers->lock, NULL);
    pthread_cond_init(&timers->changed, &monotonic);
    pthread_cond_init(&timers->finished, NULL);
    pthread_condattr_destroy(&monotonic);
    int error = thread_start(&timers->thread, "rpc-timers", timers_main, timers);
    ASSERT_CMP(error, ==, ERR_OK); /* as rpc_create's */
    return timers;
}

void rpc__timers_destroy(struct rpc__timers *timers)
{
    pthread_mutex_lock(&timers->lock);
    ASSERT_CMP(timers->timer_count, ==, 0);
    timers->stopping = true;
    pthread_cond_signal(&timers->changed);
    pthread_mutex_unlock(&timers->lock);
    pthread_join(timers->thread, NULL);
    ASSERT_CMP(timers->count, ==, 0);
    pthread_cond_destroy(&timers->changed);
    pthread_cond_destroy(&timers->finished);
    pthread_mutex_destroy(&timers->lock);
    free(timers->heap);
    free(timers);
}

struct rpc_timer *rpc_timer_create(struct rpc *rpc, void (*fire)(void *context), void *context)
{
    struct rpc_timer *timer = mem_calloc(1, sizeof(*timer));
    timer->timers = rpc->timers;
    timer->fire = fire;
    timer->context = context;
    timer->at = SIZE_MAX;
    pthread_mutex_lock(&rpc->timers->lock);
    rpc->timers->timer_count++;
    pthread_mutex_unlock(&rpc->timers->lock);
    return timer;
}

void rpc_timer_set(struct rpc_timer *timer, uint64_t deadline_ns)
{
    struct rpc__timers *timers = timer->timers;
    pthread_mutex_lock(&timers->lock);
    if (timer->at != SIZE_MAX) {
        heap_remove(timers, timer);
    }
    if (deadline_ns != UINT64_MAX && !timer->closing) {
        timer->deadline_ns = deadline_ns;
        heap_add(timers, timer);
        if (timer->at == 0) {
            pthread_cond_signal(&timers->changed);
        }
    }
    pthread_mutex_unlock(&timers->lock);
}

void rpc_timer_destroy(struct rpc_timer *timer)
{
    struct rpc__timers *timers = timer->timers;
    pthread_mutex_lock(&timers->lock);
    ASSERT(!timer->closing);
    timer->closing = true;
    if (timer->at != SIZE_MAX) {
        heap_remove(timers, timer);
    }
    timers->timer_count--;
    if (timers->running == timer && pthread_equal(pthread_self(), timers->thread)) {
        timer->free_after_fire = true;
        pthread_mutex_unlock(&timers->lock);
        return;
    }
    while (timers->running == timer) {
        pthread_cond_wait(&timers->finished, &timers->lock);
    }
    pthread_mutex_unlock(&timers->lock);
    free(timer);
}

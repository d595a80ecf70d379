/* A queue of jobs and one thread. */
#include "shardkv/worker.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/queue.h"
#include "base/thread.h"

#include <stdatomic.h>
#include <stdlib.h>

struct worker {
    struct queue *queue;
    pthread_t thread;
    atomic_bool stopping;
};

struct job {
    worker_job_fn run;
    void *context;
};

static void *worker_run(void *context)
{
    struct worker *worker = context;
    void *item = NULL;
    while (queue_pop(worker->queue, &item, 1, UINT64_MAX) == 1) {
        struct job *job = item;
        /* One that is not done goes behind the others; when the queue is closed it runs to its end
         * at once. */
        while (!job->run(job->context, atomic_load(&worker->stopping))) {
            if (queue_push_always(worker->queue, job, 1) == 0) {
                job = NULL;
                break;
            }
        }
        free(job);
    }
    return NULL;
}

int worker_create(struct worker **out)
{
    struct worker *worker = mem_calloc(1, sizeof *worker);
    worker->queue =
        queue_create((struct queue_limits){.items_max = WORKER_JOBS_MAX, .bytes_max = UINT64_MAX});
    atomic_init(&worker->stopping, false);
    int error = thread_start(&worker->thread, "kv-worker", worker_run, worker);
    if (error != 0) {
        queue_destroy(worker->queue);
        free(worker);
        return error;
    }
    *out = worker;
    return 0;
}

int worker_add(struct worker *worker, worker_job_fn run, void *context)
{
    struct job *job = mem_alloc(sizeof *job);
    *job = (struct job){run, context};
    int error = queue_push(worker->queue, job, 1);
    if (error != 0) {
        free(job);
    }
    return error;
}

void worker_destroy(struct worker *worker)
{
    if (worker == NULL) {
        return;
    }
    atomic_store(&worker->stopping, true);
    queue_close(worker->queue);
    int failed = pthread_join(worker->thread, NULL);
    ASSERT(failed == 0);
    queue_destroy(worker->queue);
    free(worker);
}

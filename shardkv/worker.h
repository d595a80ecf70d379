/* One thread for jobs that read the disk and must not block an rpc thread: status, rows of a move,
 * totals of a frozen shard. Jobs run in order; a long one does a slice and puts itself behind the
 * others again. */
#ifndef SHARDKV_WORKER_H
#define SHARDKV_WORKER_H

#include "base/error.h"
#include <stdbool.h>

struct worker;

enum { WORKER_JOBS_MAX = 1024 };

/* A job ends with true, or returns false to be run again after the others. It owns `context`.
 * `stopping`: the worker is being destroyed: the job must end now, with an answer that says so. */
typedef bool (*worker_job_fn)(void *context, bool stopping);

int worker_create(struct worker **out) MUST_USE; /* gives */
/* ERR_BUSY: too many jobs wait; ERR_SHUTDOWN: it is being destroyed; then `job` never runs. Any
 * thread. */
int worker_add(struct worker *worker, worker_job_fn job, void *context) MUST_USE;
/* Waits: every job that was added gets to its end. */
void worker_destroy(struct worker *worker);

#endif

/* The threads of a node: the loop, which feeds the replica, and its three workers, which run its
 * jobs.
 *
 * The loop is a turn, not a thread. Its own thread takes one when ticks are due, when it is woken,
 * and again as long as something has arrived meanwhile. But to wake a sleeping thread costs 40 µs,
 * so a thread that has brought something takes the turn itself, if nobody has it: a queue's thread
 * of rpc when it has taken all that has arrived, a worker when its job is done. One round each:
 * with more to do the loop's thread comes in, and the two work side by side.
 *
 * One round: take what is in the mailbox; peers' frames and finished jobs first, then the ticks
 * that are due, then commands and reads, then one replica_poll. Ticks come before reads because a
 * leader whose process was stopped for a while must find its lease expired before it serves from
 * it; frames come before ticks because a follower in the same place would otherwise campaign
 * against a leader whose heartbeats lie in its mailbox.
 *
 * Stopping: leadership is handed over (for one election timeout at most), then the replica stops,
 * then the loop goes on only until every job is back. */
#include "raft/node/node_internal.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/thread.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- workers
 * --------------------------------------------------------------------------------------------- */

static void job_back(struct node *node, struct node_event *event)
{
    int error = queue_push_always(node->mailbox, event, 0);
    ASSERT_CMP(error, ==, ERR_OK); /* the mailbox is closed only when every job is back */
}

/* The persist worker takes all that waits, to sync once; the others one at a time, so that what is
 * done is told at once. */
static size_t jobs_per_run(const struct worker *worker)
{
    return worker->kind == REPLICA_PERSIST ? NODE_PERSIST_JOBS_PER_SYNC : 1;
}

/* A disk that was slow for one will be for the next: whoever ran it, those to come are the
 * worker's for a while. */
static void mind_slowness(struct node *node, enum replica_worker kind, uint64_t begun_ns)
{
    uint64_t ended_ns = clock_now_ns(node->options.clock);
    uint64_t took_ns = ended_ns - begun_ns;
    uint64_t until_ns = ended_ns + took_ns * NODE_PASSING_PAUSE;
    _Atomic uint64_t *not_before_ns = &node->in_passing[kind].not_before_ns;
    if (took_ns > NODE_PASSING_SLOW_NS &&
        until_ns > atomic_load_explicit(not_before_ns, memory_order_relaxed)) {
        atomic_store_explicit(not_before_ns, until_ns, memory_order_relaxed);
    }
}

static void *worker_main(void *context)
{
    struct worker *worker = context;
    void *items[NODE_PERSIST_JOBS_PER_SYNC];
    size_t count;
    while ((count = queue_pop(worker->jobs, items, jobs_per_run(worker), UINT64_MAX)) > 0) {
        struct replica_job *jobs[NODE_PERSIST_JOBS_PER_SYNC];
        for (size_t i = 0; i < count; i++) {
            jobs[i] = ((struct node_event *)items[i])->as.job;
        }
        uint64_t begun_ns = clock_now_ns(worker->node->options.clock);
        replica_jobs_run(jobs, count);
        if (worker->kind != REPLICA_APPLY) { /* that one is slow when there is much to apply */
            mind_slowness(worker->node, worker->kind, begun_ns);
        }
        for (size_t i = 0; i < count; i++) {
            job_back(worker->node, items[i]);
        }
        node__take_turn(worker->node, false);
    }
    return NULL;
}

static void hand_to_worker(struct node *node, struct node_event *event)
{
    int error = queue_push_always(node->workers[event->as.job->worker].jobs, event, 0);
    ASSERT_CMP(error, ==, ERR_OK);
}

/* A leader syncs while its followers do, so it leaves that to its worker and goes on listening. */
static bool may_run_in_passing(const struct node *node, const struct replica_job *job)
{
    const struct in_passing *passing = &node->in_passing[job->worker];
    return node->may_run_jobs && job->is_small &&
           !(job->worker == REPLICA_PERSIST && replica_role(node->replica) == NODE_LEADER) &&
           clock_now_ns(node->options.clock) >=
               atomic_load_explicit(&passing->not_before_ns, memory_order_relaxed);
}

void node__submit(void *context, struct replica_job *job)
{
    struct node *node = context;
    struct node_event *event = mem_calloc(1, sizeof(*event));
    event->kind = EVENT_JOB;
    event->as.job = job;
    *node->submitted_end = event;
    node->submitted_end = &event->next;
}

static void route(struct node *node, struct node_event *event)
{
    struct worker *worker = &node->workers[event->as.job->worker];
    struct in_passing *passing = &node->in_passing[event->as.job->worker];
    bool alone = worker->out == 0;
    worker->out++;
    if (passing->running || passing->next != NULL) {
        *passing->behind_end = event;
        passing->behind_end = &event->next;
    } else if (alone && may_run_in_passing(node, event->as.job)) {
        passing->next = event;
    } else {
        hand_to_worker(node, event);
    }
}

/* At the end of a round: on a machine with few cores a worker that is woken earlier takes the core
 * from under the frames to the followers, and they are what the round was for. */
static void route_submitted(struct node *node)
{
    struct node_event *event = node->submitted;
    node->submitted = NULL;
    node->submitted_end = &node->submitted;
    while (event != NULL) {
        struct node_event *next = event->next;
        event->next = NULL;
        route(node, event);
        event = next;
    }
}

/* A job is back from where it ran. What waited behind one that was run in passing follows. */
static void job_taken_back(struct node *node, const struct replica_job *job)
{
    struct in_passing *passing = &node->in_passing[job->worker];
    node->workers[job->worker].out--;
    if (!passing->running) {
        return;
    }
    passing->running = false;
    struct node_event *event = passing->behind;
    passing->behind = NULL;
    passing->behind_end = &passing->behind;
    while (event != NULL) {
        struct node_event *next = event->next;
        hand_to_worker(node, event);
        event = next;
    }
}

/* ---- events
 * ---------------------------------------------------------------------------------------------- */

static void frame_event(struct node *node, struct node_event *event)
{
    struct blob *bytes = event->as.frame.bytes;
    uint64_t from = replica_receive(node->replica, bytes);
    if (from != 0) {
        transport_learn(node->transport, from, event->as.frame.stream);
    }
}

static void event_free(struct node *node, struct node_event *event)
{
    switch (event->kind) {
    case EVENT_FRAME:
        atomic_fetch_sub_explicit(&node->frames_bytes, blob_view(event->as.frame.bytes).size,
                                  memory_order_relaxed);
        blob_unref(event->as.frame.bytes);
        rpc_stream_unref(event->as.frame.stream);
        break;
    case EVENT_PROPOSE:
        blob_unref(event->as.propose.owner);
        break;
    case EVENT_TRANSFER:
    case EVENT_CHANGE:
    case EVENT_HASH:
        atomic_fetch_sub_explicit(&node->admin_count, 1, memory_order_relaxed);
        break;
    case EVENT_JOB:
    case EVENT_WAKE:
    case EVENT_STOP:
    case EVENT_READ:
        break;
    }
    free(event);
}

void node__event_refuse(struct node *node, struct node_event *event)
{
    struct raft_position nowhere = {0, 0};
    switch (event->kind) {
    case EVENT_PROPOSE:
        event->as.propose.done(event->as.propose.context, ERR_SHUTDOWN, nowhere, BYTES_EMPTY);
        break;
    case EVENT_READ:
        event->as.read.serve(event->as.read.context, ERR_SHUTDOWN);
        break;
    case EVENT_TRANSFER:
    case EVENT_CHANGE:
        event->as.admin.done(event->as.admin.context, ERR_SHUTDOWN);
        break;
    case EVENT_HASH:
        event->as.hash.done(event->as.hash.context, ERR_SHUTDOWN, 0, nowhere);
        break;
    case EVENT_JOB:
        UNREACHABLE();
    case EVENT_FRAME:
    case EVENT_WAKE:
    case EVENT_STOP:
        break;
    }
    event_free(node, event);
}

static void begin_stop(struct node *node);

/* What changes what the replica knows. */
static void take_news(struct node *node, struct node_event *event)
{
    struct transport_loss losses[TRANSPORT_PEERS_MAX];
    size_t count;
    switch (event->kind) {
    case EVENT_FRAME:
        frame_event(node, event);
        break;
    case EVENT_JOB:
        job_taken_back(node, event->as.job);
        replica_job_done(event->as.job);
        break;
    case EVENT_WAKE:
        count = transport_losses(node->transport, losses);
        for (size_t i = 0; i < count; i++) {
            if (losses[i].unreachable) {
                replica_unreachable(node->replica, losses[i].peer);
            }
            if (losses[i].closed) {
                replica_peer_closed(node->replica, losses[i].peer);
            }
        }
        break;
    case EVENT_STOP:
        begin_stop(node);
        break;
    case EVENT_PROPOSE:
    case EVENT_READ:
    case EVENT_TRANSFER:
    case EVENT_CHANGE:
    case EVENT_HASH:
        return; /* take_request's */
    }
    event_free(node, event);
}

/* What asks for something. */
static void take_request(struct node *node, struct node_event *event)
{
    switch (event->kind) {
    case EVENT_PROPOSE:
        replica_propose(node->replica, event->as.propose.payload, event->as.propose.owner,
                        event->as.propose.done, event->as.propose.context);
        break;
    case EVENT_READ:
        replica_read(node->replica, event->as.read.serve, event->as.read.context);
        break;
    case EVENT_TRANSFER:
        replica_transfer(node->replica, event->as.admin.target, event->as.admin.done,
                         event->as.admin.context);
        break;
    case EVENT_CHANGE:
        event->as.admin.change.address = event->as.admin.address;
        replica_change_member(node->replica, &event->as.admin.change, event->as.admin.done,
                              event->as.admin.context);
        break;
    case EVENT_HASH:
        replica_hash(node->replica, event->as.hash.done, event->as.hash.context);
        break;
    case EVENT_FRAME:
    case EVENT_JOB:
    case EVENT_WAKE:
    case EVENT_STOP:
        return; /* taken before, and freed: never here */
    }
    event_free(node, event);
}

static bool is_request(const struct node_event *event)
{
    return event->kind >= EVENT_PROPOSE;
}

/* ---- time
 * ------------------------------------------------------------------------------------------------
 * */

/* A leader lives through every tick that has passed: its lease and its contact with a majority are
 * counted in them. For anybody else catching up would only make a slow moment look like a dead
 * leader. */
static void run_ticks(struct node *node)
{
    uint64_t now_ns = clock_now_ns(node->options.clock);
    if (now_ns < node->next_tick_ns) {
        return;
    }
    uint64_t due = (now_ns - node->next_tick_ns) / node->options.tick_ns + 1;
    node->next_tick_ns += due * node->options.tick_ns;
    bool leads = atomic_load_explicit(&node->leader, memory_order_relaxed);
    uint64_t most = leads ? 2 * (uint64_t)node->options.election_ticks
                          : NODE_IDLE_TICKS_MAX + (uint64_t)node->options.election_ticks / 8;
    due = due < most ? due : most;
    for (uint64_t i = 0; i < due; i++) {
        replica_tick(node->replica);
    }
}

/* ---- stopping
 * -------------------------------------------------------------------------------------------- */

static void handed_over(void *context, int error)
{
    struct node *node = context;
    node->handing_over = false;
    log_event(LOG_INFO, "node.handed_over", "group=%" PRIu64 " replica=%" PRIu64 " error=%s",
              node->options.group_id, node->options.replica_id, err_name(error));
}

static void begin_stop(struct node *node)
{
    uint64_t patience_ns = node->options.tick_ns * node->options.election_ticks;
    node->stop_deadline_ns = clock_now_ns(node->options.clock) + patience_ns;
    if (replica_role(node->replica) == NODE_LEADER) {
        node->handing_over = true;
        replica_transfer(node->replica, 0, handed_over, node);
    }
}

/* True when the loop has nothing to wait for any more. */
static bool go_on_stopping(struct node *node)
{
    if (node->stop_deadline_ns == 0) {
        return false;
    }
    if (!node->replica_stopped &&
        (!node->handing_over || clock_now_ns(node->options.clock) >= node->stop_deadline_ns)) {
        node->replica_stopped = true;
        replica_stop(node->replica); /* answers handed_over too, if it still waits */
    }
    return node->replica_stopped && replica_is_idle(node->replica);
}

/* ---- loop
 * ------------------------------------------------------------------------------------------------
 * */

void node__publish(struct node *node)
{
    struct node_status status;
    replica_status(node->replica, &status);
    atomic_store_explicit(&node->leader, status.role == NODE_LEADER, memory_order_release);
    pthread_mutex_lock(&node->lock);
    node->published = status;
    pthread_mutex_unlock(&node->lock);
}

/* With nothing else to do, ticks are run a few at a time: a third of the wake-ups of an idle
 * replica, and its heartbeats late by a third at most. Whatever wakes the loop earlier runs those
 * that are due by then. */
static uint64_t sleep_until_ns(const struct node *node)
{
    uint32_t ticks = node->options.heartbeat_ticks / 3;
    ticks = ticks > NODE_IDLE_TICKS_MAX ? NODE_IDLE_TICKS_MAX : ticks;
    bool stopping = node->stop_deadline_ns != 0;
    if (node->next_tick_ns == UINT64_MAX || ticks <= 1 || stopping) {
        return node->next_tick_ns;
    }
    return node->next_tick_ns + (ticks - 1) * node->options.tick_ns;
}

/* With the turn. */
static void run_round(struct node *node)
{
    size_t count = queue_pop(node->mailbox, node->items, NODE_EVENTS_PER_ROUND, 0);
    size_t requests = 0;
    for (size_t i = 0; i < count; i++) {
        struct node_event *event = node->items[i];
        if (is_request(event)) {
            node->items[requests++] = event;
        } else {
            take_news(node, event);
        }
    }
    if (!node->replica_stopped) {
        run_ticks(node);
    }
    for (size_t i = 0; i < requests; i++) {
        take_request(node, node->items[i]);
    }
    node->ended = go_on_stopping(node);
    if (!node->replica_stopped) {
        replica_poll(node->replica);
    } else {
        node->next_tick_ns = UINT64_MAX;
    }
    route_submitted(node);
    node__publish(node);
}

static void wake_loop(struct node *node)
{
    pthread_mutex_lock(&node->sleep_lock);
    bool was = node->woken;
    node->woken = true;
    pthread_mutex_unlock(&node->sleep_lock);
    if (!was) {
        pthread_cond_signal(&node->woken_changed);
    }
}

void node__pushed(struct node *node)
{
    if (!rpc_turn_follows(node->rpc)) {
        wake_loop(node);
    }
}

static void run_in_passing(struct node *node, struct node_event *event)
{
    struct replica_job *const jobs[] = {event->as.job};
    uint64_t begun_ns = clock_now_ns(node->options.clock);
    replica_jobs_run(jobs, 1);
    mind_slowness(node, event->as.job->worker, begun_ns);
    job_back(node, event);
}

void node__take_turn(struct node *node, bool may_run_jobs)
{
    bool ended = false;
    bool runs;
    do {
        /* Whoever has the turn looks into the mailbox after he has given it up. */
        if (pthread_mutex_trylock(&node->turn) != 0) {
            return;
        }
        if (!node->ended) {
            node->may_run_jobs = may_run_jobs;
            run_round(node);
            node->may_run_jobs = false;
        }
        ended = node->ended;
        struct node_event *events[REPLICA_WORKER_COUNT];
        runs = false;
        for (uint32_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
            struct in_passing *passing = &node->in_passing[i];
            events[i] = passing->next;
            passing->next = NULL;
            passing->running = passing->running || events[i] != NULL;
            runs = runs || events[i] != NULL;
        }
        pthread_mutex_unlock(&node->turn);
        if (runs && queue_count(node->mailbox) > 0) {
            wake_loop(node); /* what came meanwhile need not wait for the jobs */
        }
        for (uint32_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
            if (events[i] != NULL) {
                run_in_passing(node, events[i]);
            }
        }
    } while (runs);
    if (ended || queue_count(node->mailbox) > 0) {
        wake_loop(node); /* its thread ends with the loop */
    }
}

static void turn_end(void *context)
{
    struct node *node = context;
    if (queue_count(node->mailbox) > 0) {
        node__take_turn(node, true);
    }
}

static void sleep_until(struct node *node, uint64_t deadline_ns)
{
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / NS_PER_S),
                                .tv_nsec = (long)(deadline_ns % NS_PER_S)};
    pthread_mutex_lock(&node->sleep_lock);
    int waited = 0;
    while (!node->woken && waited == 0) {
        waited = deadline_ns == UINT64_MAX
                     ? pthread_cond_wait(&node->woken_changed, &node->sleep_lock)
                     : pthread_cond_timedwait(&node->woken_changed, &node->sleep_lock, &deadline);
    }
    node->woken = false;
    pthread_mutex_unlock(&node->sleep_lock);
}

static void *loop_main(void *context)
{
    struct node *node = context;
    bool ended = false;
    while (!ended) {
        pthread_mutex_lock(&node->turn);
        run_round(node);
        ended = node->ended;
        uint64_t deadline_ns = sleep_until_ns(node);
        pthread_mutex_unlock(&node->turn);
        if (!ended && queue_count(node->mailbox) == 0) {
            sleep_until(node, deadline_ns);
        }
    }
    return NULL;
}

/* ---- starting and joining
 * ---------------------------------------------------------------------------------- */

int node__threads_start(struct node *node)
{
    static const char *const names[REPLICA_WORKER_COUNT] = {
        [REPLICA_PERSIST] = "raft-persist",
        [REPLICA_APPLY] = "raft-apply",
        [REPLICA_BACKGROUND] = "raft-background",
    };
    int error = ERR_OK;
    node->next_tick_ns = clock_now_ns(node->options.clock) + node->options.tick_ns;
    for (size_t i = 0; i < REPLICA_WORKER_COUNT && error == ERR_OK; i++) {
        error = thread_start(&node->workers[i].thread, names[i], worker_main, &node->workers[i]);
        node->workers[i].running = error == ERR_OK;
    }
    if (error == ERR_OK) {
        error = thread_start(&node->loop_thread, "raft-loop", loop_main, node);
    }
    node->started = error == ERR_OK;
    if (error == ERR_OK) {
        rpc_set_turn_end(node->rpc, turn_end, node);
    } else {
        node__threads_join(node);
    }
    return error;
}

void node__threads_join(struct node *node)
{
    if (node->started && !node->joined) {
        pthread_join(node->loop_thread, NULL);
    }
    node->joined = true;
    for (size_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
        queue_close(node->workers[i].jobs);
        if (node->workers[i].running) {
            pthread_join(node->workers[i].thread, NULL);
            node->workers[i].running = false;
        }
    }
}

void node__locks_init(struct node *node)
{
    pthread_mutex_init(&node->lock, NULL);
    pthread_mutex_init(&node->turn, NULL);
    pthread_mutex_init(&node->sleep_lock, NULL);
    /* Deadlines are of the monotonic clock: a step of the wall clock must not hold the loop. */
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&node->woken_changed, &attributes);
    pthread_condattr_destroy(&attributes);
    node->submitted_end = &node->submitted;
    for (uint32_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
        node->in_passing[i].behind_end = &node->in_passing[i].behind;
        atomic_init(&node->in_passing[i].not_before_ns, 0);
    }
}

void node__locks_deinit(struct node *node)
{
    pthread_cond_destroy(&node->woken_changed);
    pthread_mutex_destroy(&node->sleep_lock);
    pthread_mutex_destroy(&node->turn);
    pthread_mutex_destroy(&node->lock);
}

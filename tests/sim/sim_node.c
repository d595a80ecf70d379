/* See sim_node.h. Thread: one.
 *
 *     mailbox --loop event--> replica_*, replica_poll --submit--> queue of a worker
 *        ^                                                              |
 *        '--------------- replica_jobs_run <--latency-------------------'
 *
 * A job's effect happens at the end of its latency: a crash before finds nothing of it, but for a
 * write, of which any part may be there. What can be asked of the loop goes through the mailbox, so
 * nothing is answered inside a call. */
#include "sim/sim_node.h"

#include "base/assert.h"
#include "proto/messages.h"
#include "sim/sim_net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PERSIST_JOBS_PER_SYNC = 64 }; /* as node_threads.c */

enum mail_kind {
    MAIL_FRAME = 1,
    MAIL_JOB,
    MAIL_PROPOSE,
    MAIL_READ,
    MAIL_TRANSFER,
    MAIL_CHANGE,
    MAIL_HASH
};

struct mail {
    struct mail *next;
    enum mail_kind kind;
    struct blob *blob; /* FRAME; PROPOSE: the owner */
    struct sim_host *from;
    struct replica_job *job;
    struct bytes payload;
    node_done_fn done;
    node_read_fn serve;
    node_change_fn changed;
    node_hash_fn hashed;
    void *context;
    uint64_t target;
    struct raft_change change;
    char address[RAFT_ADDRESS_BYTES_MAX];
};

struct node_worker {
    struct replica_job *first, *last;
    struct replica_job *running[PERSIST_JOBS_PER_SYNC];
    size_t running_count;
};

struct peer {
    uint64_t id;
    struct sim_host *host;
};

struct node {
    struct sim_host *host;
    struct node_options options;
    struct replica *replica;
    struct node_observer observer;
    struct mail *first, *last;
    uint32_t mail_count;
    bool loop_planned;
    uint64_t tick_ns; /* this host's idea of a tick */
    uint64_t next_tick_ns;
    bool started;
    bool stopped;
    bool killed;
    struct node_worker workers[REPLICA_WORKER_COUNT];
    struct raft_membership members;
    struct peer
        heard[RAFT_MEMBERS_MAX]; /* whoever spoke to us, for those not in the membership yet */
    uint32_t heard_count;
    struct node_status published;
};

struct replica *sim_node_replica(struct node *node)
{
    return node->replica;
}

const struct node_options *sim_node_options(const struct node *node)
{
    return &node->options;
}

void sim_node_set_clock(struct node *node, uint32_t percent)
{
    node->tick_ns = node->options.tick_ns * percent / 100;
}

/* ---- mail ---- */

static void mail_free(struct mail *mail)
{
    blob_unref(mail->blob);
    free(mail);
}

static void mail_refuse(struct mail *mail)
{
    struct raft_position nowhere = {0, 0};
    switch (mail->kind) {
    case MAIL_PROPOSE:
        mail->done(mail->context, ERR_SHUTDOWN, nowhere, BYTES_EMPTY);
        break;
    case MAIL_READ:
        mail->serve(mail->context, ERR_SHUTDOWN);
        break;
    case MAIL_TRANSFER:
    case MAIL_CHANGE:
        mail->changed(mail->context, ERR_SHUTDOWN);
        break;
    case MAIL_HASH:
        mail->hashed(mail->context, ERR_SHUTDOWN, 0, nowhere);
        break;
    case MAIL_JOB:
        replica_job_discard(mail->job);
        break;
    case MAIL_FRAME:
        break;
    }
    mail_free(mail);
}

static void loop_run(void *context, void *payload);

static void loop_plan(struct node *node)
{
    if (!node->loop_planned && node->started) {
        node->loop_planned = true;
        sim_after(node->host, sim_between(1, 20) * SIM_US, loop_run, NULL, node, NULL);
    }
}

static void mail_post(struct node *node, struct mail *mail)
{
    if (node->last != NULL) {
        node->last->next = mail;
    } else {
        node->first = mail;
    }
    node->last = mail;
    node->mail_count++;
    loop_plan(node);
}

static struct mail *mail_create(enum mail_kind kind, void *context)
{
    struct mail *mail = mem_calloc(1, sizeof *mail);
    mail->kind = kind;
    mail->context = context;
    return mail;
}

static void hear(struct node *node, uint64_t id, struct sim_host *host)
{
    for (uint32_t i = 0; i < node->heard_count; i++) {
        if (node->heard[i].id == id) {
            node->heard[i].host = host;
            return;
        }
    }
    if (node->heard_count < RAFT_MEMBERS_MAX) {
        node->heard[node->heard_count++] = (struct peer){id, host};
    }
}

static bool mail_is_request(const struct mail *mail)
{
    return mail->kind >= MAIL_PROPOSE;
}

static void mail_take(struct node *node, struct mail *mail)
{
    struct replica *replica = node->replica;
    uint64_t from = 0;
    switch (mail->kind) {
    case MAIL_FRAME:
        from = replica_receive(replica, mail->blob);
        if (from != 0) {
            hear(node, from, mail->from);
        }
        break;
    case MAIL_JOB:
        replica_job_done(mail->job);
        break;
    case MAIL_PROPOSE:
        replica_propose(replica, mail->payload, mail->blob, mail->done, mail->context);
        break;
    case MAIL_READ:
        replica_read(replica, mail->serve, mail->context);
        break;
    case MAIL_TRANSFER:
        replica_transfer(replica, mail->target, mail->changed, mail->context);
        break;
    case MAIL_CHANGE:
        mail->change.address = mail->address;
        replica_change_member(replica, &mail->change, mail->changed, mail->context);
        break;
    case MAIL_HASH:
        replica_hash(replica, mail->hashed, mail->context);
        break;
    }
    mail_free(mail);
}

/* ---- the loop ---- */

static void poll(struct node *node)
{
    replica_poll(node->replica);
    replica_check(node->replica);
    replica_status(node->replica, &node->published);
    sim_oracle_polled(node->host, node);
}

/* As run_ticks of node_threads.c: a leader lives through every tick that has passed, others catch
 * up a little. */
static void run_ticks(struct node *node)
{
    uint64_t now_ns = sim_now_ns();
    if (now_ns < node->next_tick_ns) {
        return;
    }
    uint64_t due = (now_ns - node->next_tick_ns) / node->tick_ns + 1;
    node->next_tick_ns += due * node->tick_ns;
    uint64_t most = node->published.role == NODE_LEADER
                        ? 2 * (uint64_t)node->options.election_ticks
                        : 1 + (uint64_t)node->options.election_ticks / 8;
    due = due < most ? due : most;
    for (uint64_t i = 0; i < due; i++) {
        replica_tick(node->replica);
    }
}

/* What changes what the replica knows comes before the ticks, what asks for something after them:
 * see node_threads.c. Gives the requests. */
static struct mail *take_news(struct node *node)
{
    struct mail *mail = node->first;
    struct mail *requests = NULL;
    struct mail **requests_end = &requests;
    node->first = NULL;
    node->last = NULL;
    node->mail_count = 0;
    while (mail != NULL) {
        struct mail *next = mail->next;
        mail->next = NULL;
        if (mail_is_request(mail)) {
            *requests_end = mail;
            requests_end = &mail->next;
        } else {
            mail_take(node, mail);
        }
        mail = next;
    }
    return requests;
}

static void loop_round(struct node *node)
{
    struct sim_host *former = sim_callback_enter(node->host);
    struct mail *requests = take_news(node);
    run_ticks(node);
    while (requests != NULL) {
        struct mail *next = requests->next;
        mail_take(node, requests);
        requests = next;
    }
    poll(node);
    sim_callback_leave(former);
}

static void loop_run(void *context, void *payload)
{
    (void)payload;
    struct node *node = context;
    node->loop_planned = false;
    if (!node->host->dying && !node->killed) {
        loop_round(node);
    }
}

static void tick_run(void *context, void *payload)
{
    (void)payload;
    struct node *node = context;
    if (node->host->dying || node->killed || node->stopped) {
        return;
    }
    loop_round(node);
    sim_after(node->host, node->next_tick_ns - sim_now_ns(), tick_run, NULL, node, NULL);
}

/* ---- workers ---- */

static uint64_t persist_latency_ns(const struct sim_host *host)
{
    uint64_t now_ns = sim_now_ns();
    uint64_t stall_ns =
        host->disk_stalled_until_ns > now_ns ? host->disk_stalled_until_ns - now_ns : 0;
    /* Now and then a disk takes its time by itself. */
    return stall_ns + (sim_between(1, 100) == 1 ? sim_between(5, 20) * SIM_MS
                                                : sim_between(100, 400) * SIM_US);
}

static uint64_t job_latency_ns(const struct sim_host *host, const struct replica_job *job)
{
    switch (job->worker) {
    case REPLICA_PERSIST:
        return persist_latency_ns(host);
    case REPLICA_APPLY:
        return sim_between(5, 80) * SIM_US;
    case REPLICA_BACKGROUND:
        return sim_between(200, 3000) * SIM_US;
    case REPLICA_WORKER_COUNT:
        break;
    }
    UNREACHABLE();
}

static void worker_run(void *context, void *payload);

static void worker_start(struct node *node, struct node_worker *worker)
{
    size_t most = worker->first->worker == REPLICA_PERSIST ? PERSIST_JOBS_PER_SYNC : 1;
    uint64_t latency_ns = job_latency_ns(node->host, worker->first);
    while (worker->first != NULL && worker->running_count < most) {
        struct replica_job *job = worker->first;
        worker->first = job->next;
        worker->running[worker->running_count++] = job;
    }
    if (worker->first == NULL) {
        worker->last = NULL;
    }
    sim_after(node->host, latency_ns, worker_run, NULL, node, worker);
}

static void worker_run(void *context, void *payload)
{
    struct node *node = context;
    struct node_worker *worker = payload;
    if (node->host->dying || node->killed) {
        return;
    }
    struct sim_host *former = sim_callback_enter(node->host);
    replica_jobs_run(worker->running, worker->running_count);
    for (size_t i = 0; i < worker->running_count; i++) {
        struct mail *mail = mail_create(MAIL_JOB, NULL);
        mail->job = worker->running[i];
        sim_world()->counters.snapshots_restored += strcmp(mail->job->name, "restore") == 0;
        mail_post(node, mail);
    }
    worker->running_count = 0;
    sim_oracle_polled(node->host, node);
    sim_callback_leave(former);
    if (worker->first != NULL) {
        worker_start(node, worker);
    }
}

/* ---- what the replica calls ---- */

static void env_submit(void *context, struct replica_job *job)
{
    struct node *node = context;
    struct node_worker *worker = &node->workers[job->worker];
    job->next = NULL;
    if (worker->last != NULL) {
        worker->last->next = job;
    } else {
        worker->first = job;
    }
    worker->last = job;
    if (worker->running_count == 0 && worker->first == job) {
        worker_start(node, worker);
    }
}

static struct sim_host *peer_host(const struct node *node, uint64_t id)
{
    const struct raft_member *member = raft_membership_find(&node->members, id);
    if (member != NULL) {
        return sim_host_find(member->address);
    }
    for (uint32_t i = 0; i < node->heard_count; i++) {
        if (node->heard[i].id == id) {
            return node->heard[i].host;
        }
    }
    return NULL;
}

static void env_send(void *context, uint64_t peer, struct buf *frame)
{
    struct node *node = context;
    struct sim_host *host = peer_host(node, peer);
    if (host == NULL) {
        buf_deinit(frame);
    } else {
        datagram_send(node->host, host, frame);
    }
}

static void env_members_changed(void *context, const struct raft_membership *membership)
{
    struct node *node = context;
    node->members = *membership;
}

static void env_fatal(void *context, const char *what)
{
    struct node *node = context;
    if (!node->host->dying) {
        SIM_FAIL("%s ended itself: %s", node->host->address, what);
    }
}

void node_frame_arrived(struct sim_host *from, struct sim_host *to, struct blob *frame)
{
    if (to->node != NULL && to->node->started && !to->node->killed) {
        struct mail *mail = mail_create(MAIL_FRAME, NULL);
        mail->blob = blob_ref(frame);
        mail->from = from;
        mail_post(to->node, mail);
    }
}

/* ---- node.h ---- */

int __wrap_node_create(const struct node_options *options, const struct state_machine *sm,
                       const struct node_observer *observer, struct rpc *rpc, struct node **out,
                       char *why, size_t why_size);
int __wrap_node_create(const struct node_options *options, const struct state_machine *sm,
                       const struct node_observer *observer, struct rpc *rpc, struct node **out,
                       char *why, size_t why_size)
{
    (void)rpc;
    struct node *node = mem_calloc(1, sizeof *node);
    node->host = sim_world()->current;
    node->options = *options;
    if (observer != NULL) {
        node->observer = *observer;
    }
    struct replica_options replica = replica_options_default();
    replica.cluster_id = options->cluster_id;
    replica.group_id = options->group_id;
    replica.replica_id = options->replica_id;
    replica.dir = options->dir;
    replica.members = options->members;
    replica.member_count = options->member_count;
    replica.election_ticks = options->election_ticks;
    replica.heartbeat_ticks = options->heartbeat_ticks;
    replica.lease_reads = options->lease_reads;
    replica.entry_bytes_max = options->entry_bytes_max;
    replica.flush_log_bytes = options->flush_log_bytes;
    replica.segment_bytes = options->segment_bytes;
    replica.cache_bytes_max = options->cache_bytes_max;
    replica.seed = options->seed;
    replica.prewrite_segments = false;
    struct replica_env env = {
        .context = node,
        .clock = options->clock,
        .vfs = options->vfs,
        .send = env_send,
        .submit = env_submit,
        .members_changed = env_members_changed,
        .fatal = env_fatal,
    };
    int error = replica_create(&replica, sm, &node->observer, &env, &node->replica, why, why_size);
    if (error != ERR_OK) {
        free(node);
        return error;
    }
    replica_status(node->replica, &node->published);
    ASSERT(node->host->node == NULL);
    node->host->node = node;
    *out = node;
    return ERR_OK;
}

int __wrap_node_add_methods(struct node *node, struct rpc_server *server);
int __wrap_node_add_methods(struct node *node, struct rpc_server *server)
{
    (void)node; /* frames are datagrams here, and nobody calls Admin */
    (void)server;
    return ERR_OK;
}

int __wrap_node_start(struct node *node);
int __wrap_node_start(struct node *node)
{
    node->started = true;
    loop_plan(node);
    node->tick_ns = node->options.tick_ns * node->host->tick_percent / 100;
    node->next_tick_ns = sim_now_ns() + sim_between(1, node->tick_ns);
    sim_after(node->host, node->next_tick_ns - sim_now_ns(), tick_run, NULL, node, NULL);
    return ERR_OK;
}

static void workers_discard(struct node *node)
{
    for (size_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
        struct node_worker *worker = &node->workers[i];
        for (size_t j = 0; j < worker->running_count; j++) {
            replica_job_discard(worker->running[j]);
        }
        worker->running_count = 0;
        while (worker->first != NULL) {
            struct replica_job *job = worker->first;
            worker->first = job->next;
            replica_job_discard(job);
        }
        worker->last = NULL;
    }
}

static void mail_refuse_all(struct node *node)
{
    while (node->first != NULL) {
        struct mail *mail = node->first;
        node->first = mail->next;
        mail_refuse(mail);
    }
    node->last = NULL;
}

void sim_node_kill(struct node *node)
{
    struct node_worker *persist = &node->workers[REPLICA_PERSIST];
    struct sim_host *host = node->host;
    ASSERT(host->dying);
    if (persist->running_count > 0 && sim_between(0, 1) == 0) {
        /* The write was under way: the disk took some of its steps. */
        fake_vfs_halt_at(host->disk, sim_between(1, 8));
        replica_jobs_run(persist->running, persist->running_count);
        fake_vfs_halt(host->disk);
    }
    node->killed = true;
    mail_refuse_all(node);
    workers_discard(node);
    replica_stop(node->replica); /* answers what waits; the answers go nowhere */
}

static void stop_transferred(void *context, int error)
{
    (void)error;
    *(bool *)context = true;
}

void __wrap_node_stop(struct node *node);
void __wrap_node_stop(struct node *node)
{
    if (node->stopped) {
        return;
    }
    if (!node->killed && node->started) {
        bool transferred = replica_role(node->replica) != NODE_LEADER;
        uint64_t until_ns = sim_now_ns() + node->options.tick_ns * node->options.election_ticks;
        if (!transferred) {
            replica_transfer(node->replica, 0, stop_transferred, &transferred);
            poll(node);
        }
        while (!transferred && sim_now_ns() < until_ns) {
            sim_step();
        }
        replica_stop(node->replica);
        while (!replica_is_idle(node->replica)) {
            sim_step();
        }
    }
    node->stopped = true;
    node->killed = true;
    mail_refuse_all(node);
}

void __wrap_node_destroy(struct node *node);
void __wrap_node_destroy(struct node *node)
{
    if (node == NULL) {
        return;
    }
    __wrap_node_stop(node);
    node->host->node = NULL;
    replica_destroy(node->replica);
    free(node);
}

int __wrap_node_propose(struct node *node, struct bytes payload, struct blob *owner,
                        node_done_fn done, void *context);
int __wrap_node_propose(struct node *node, struct bytes payload, struct blob *owner,
                        node_done_fn done, void *context)
{
    if (payload.size > NODE_COMMAND_BYTES_MAX) {
        return ERR_TOO_LARGE;
    }
    if (node->stopped || node->killed) {
        return ERR_SHUTDOWN;
    }
    if (node->mail_count >= node->options.mailbox_items_max) {
        return ERR_BUSY;
    }
    struct mail *mail = mail_create(MAIL_PROPOSE, context);
    mail->payload = payload;
    mail->blob = blob_ref(owner);
    mail->done = done;
    mail_post(node, mail);
    return ERR_OK;
}

/* For what asks and carries no payload. */
static int post_request(struct node *node, struct mail *mail)
{
    if (node->stopped || node->killed) {
        mail_free(mail);
        return ERR_SHUTDOWN;
    }
    mail_post(node, mail);
    return ERR_OK;
}

int __wrap_node_read(struct node *node, node_read_fn serve, void *context);
int __wrap_node_read(struct node *node, node_read_fn serve, void *context)
{
    struct mail *mail = mail_create(MAIL_READ, context);
    mail->serve = serve;
    return post_request(node, mail);
}

int __wrap_node_transfer(struct node *node, uint64_t target, node_change_fn done, void *context);
int __wrap_node_transfer(struct node *node, uint64_t target, node_change_fn done, void *context)
{
    struct mail *mail = mail_create(MAIL_TRANSFER, context);
    mail->target = target;
    mail->changed = done;
    return post_request(node, mail);
}

int __wrap_node_change_member(struct node *node, const struct raft_change *change,
                              node_change_fn done, void *context);
int __wrap_node_change_member(struct node *node, const struct raft_change *change,
                              node_change_fn done, void *context)
{
    struct mail *mail = mail_create(MAIL_CHANGE, context);
    mail->change = *change;
    (void)snprintf(mail->address, sizeof mail->address, "%s",
                   change->address == NULL ? "" : change->address);
    mail->changed = done;
    return post_request(node, mail);
}

int __wrap_node_hash(struct node *node, node_hash_fn done, void *context);
int __wrap_node_hash(struct node *node, node_hash_fn done, void *context)
{
    struct mail *mail = mail_create(MAIL_HASH, context);
    mail->hashed = done;
    return post_request(node, mail);
}

void __wrap_node_status(struct node *node, struct node_status *out);
void __wrap_node_status(struct node *node, struct node_status *out)
{
    *out = node->published;
}

bool __wrap_node_is_leader(struct node *node);
bool __wrap_node_is_leader(struct node *node)
{
    return node->published.role == NODE_LEADER;
}

void __wrap_node_fill_status(struct node *node, struct msg_status_response *out);
void __wrap_node_fill_status(struct node *node, struct msg_status_response *out)
{
    /* Nobody asks a simulated server for its Status: the tests look inside. */
    out->cluster_id = node->options.cluster_id;
    out->group_id = node->options.group_id;
    out->replica_id = node->options.replica_id;
    out->commit = node->published.raft.commit;
    out->applied = node->published.raft.applied;
}

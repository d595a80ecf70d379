/* See sim_node.h. Thread: one.
 *
 *     mailbox --loop event--> replica_*, replica_poll --submit--> queue of a worker
 *        ^                                                              |
 *        '--------------- replica_jobs_run <--latency-------------------'
 *
 * A job's effect happens at the end of its latency: a crash before finds nothing of it, but for a
 * write, of which any part may be there. What can be asked of the loop goes through the mailbox, so
 * nothing is answered inside a call. */
#include "sim/sim_node_internal.h"

#include "base/assert.h"
#include "raft/node/replica_internal.h"
#include "sim/sim_net.h"
#include "sim/sometimes.h"

#include <stdlib.h>
#include <string.h>

struct replica *sim_node_replica(struct node *node)
{
    return node->replica;
}

const struct node_options *sim_node_options(const struct node *node)
{
    return &node->options;
}

const struct raft_status *sim_node_raft(const struct node *node)
{
    return &node->replica->status;
}

void sim_node_set_clock(struct node *node, uint32_t percent)
{
    node->tick_ns = node->options.tick_ns * percent / 100;
}

/* ---- mail ---- */

void sim_mail_free(struct mail *mail)
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
    case MAIL_CLOSED:
        break;
    }
    sim_mail_free(mail);
}

static void loop_run(void *context, void *payload);

static void loop_plan(struct node *node)
{
    if (!node->loop_planned && node->started) {
        node->loop_planned = true;
        sim_after(node->host, sim_between(1, 20) * SIM_US, loop_run, NULL, node, NULL);
    }
}

void sim_mail_post(struct node *node, struct mail *mail)
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

struct mail *sim_mail_create(enum mail_kind kind, void *context)
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
    case MAIL_CLOSED:
        replica_peer_closed(replica, mail->target);
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
    sim_mail_free(mail);
}

/* ---- the loop ---- */

void sim_node_poll(struct node *node)
{
    replica_poll(node->replica);
    replica_check(node->replica);
    node->role = replica_role(node->replica);
    node->published_is_old = true;
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
    uint64_t most = node->role == NODE_LEADER
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
    if (!node->replica_stopped) {
        run_ticks(node);
    }
    while (requests != NULL) {
        struct mail *next = requests->next;
        mail_take(node, requests);
        requests = next;
    }
    if (!node->replica_stopped) {
        sim_node_poll(node);
    }
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
    if (node->host->dying || node->killed || node->stopped || node->replica_stopped) {
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
        return sim_between(5, 80) * SIM_US + host->apply_delay_ns;
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
        struct mail *mail = sim_mail_create(MAIL_JOB, NULL);
        mail->job = worker->running[i];
        sim_world()->counters.snapshots_restored += strcmp(mail->job->name, "restore") == 0;
        sim_mail_post(node, mail);
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
    sim_host_doom(node->host, what);
}

struct replica_env sim_node_env(struct node *node)
{
    return (struct replica_env){
        .context = node,
        .clock = node->options.clock,
        .vfs = node->options.vfs,
        .send = env_send,
        .submit = env_submit,
        .members_changed = env_members_changed,
        .fatal = env_fatal,
    };
}

void node_frame_arrived(struct sim_host *from, struct sim_host *to, struct blob *frame)
{
    if (to->node != NULL && to->node->started && !to->node->killed) {
        struct mail *mail = sim_mail_create(MAIL_FRAME, NULL);
        mail->blob = blob_ref(frame);
        mail->from = from;
        sim_mail_post(to->node, mail);
    }
}

/* ---- beginning and end ---- */

static void core_traced(void *context, const char *line)
{
    const struct node *node = context;
    sim_hash_bytes(line, strlen(line));
    sim_sometimes_traced(node->host->index, line);
    sim_trace("%s %s", node->host->address, line);
}

void sim_node_begin(struct node *node)
{
    replica_set_trace(node->replica, core_traced, node);
    node->started = true;
    loop_plan(node);
    node->tick_ns = node->options.tick_ns * node->host->tick_percent / 100;
    node->next_tick_ns = sim_now_ns() + sim_between(1, node->tick_ns);
    sim_after(node->host, node->next_tick_ns - sim_now_ns(), tick_run, NULL, node, NULL);
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

void sim_mail_refuse_all(struct node *node)
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
    sim_mail_refuse_all(node);
    workers_discard(node);
    replica_stop(node->replica); /* answers what waits; the answers go nowhere */
}

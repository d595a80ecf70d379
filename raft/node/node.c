/* A replica with real threads and real streams: what other rooms call. The threads are in
 * node_threads.c, the machine in replica*.c. */
#include "raft/node/node_internal.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/rng.h"
#include "proto/messages.h"
#include "proto/methods.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct node_options node_options_default(void)
{
    return (struct node_options){
        .tick_ns = 10 * NS_PER_MS,
        .election_ticks = 30,
        .heartbeat_ticks = 10,
        .mailbox_bytes_max = 64ull * 1024 * 1024,
        .mailbox_items_max = 65536,
        .entry_bytes_max = 1024 * 1024,
        .flush_log_bytes = 64ull * 1024 * 1024,
        .segment_bytes = 16ull * 1024 * 1024,
        .cache_bytes_max = 8ull * 1024 * 1024,
    };
}

/* ---- what the replica calls
 * -------------------------------------------------------------------------------- */

static void env_send(void *context, uint64_t peer, struct buf *frame)
{
    struct node *node = context;
    transport_send(node->transport, peer, frame);
}

static void env_members_changed(void *context, const struct raft_membership *membership)
{
    struct node *node = context;
    transport_set_members(node->transport, membership);
}

static void env_fatal(void *context, const char *what)
{
    struct node *node = context;
    log_event(LOG_ERROR, "node.fatal", "group=%" PRIu64 " replica=%" PRIu64 " what=\"%s\"",
              node->options.group_id, node->options.replica_id, what);
    fprintf(stderr, "error: %s\n", what);
    _exit(NODE_EXIT_FATAL); /* at once: nothing more may be acknowledged or written by anybody */
}

/* ---- the mailbox
 * ------------------------------------------------------------------------------------------- */

static struct node_event *event_create(enum node_event_kind kind)
{
    struct node_event *event = mem_calloc(1, sizeof(*event));
    event->kind = kind;
    return event;
}

static void transport_received(void *context, struct rpc_stream *stream, struct bytes frame,
                               struct blob *owner)
{
    struct node *node = context;
    (void)frame; /* the whole of `owner` */
    uint64_t size = blob_view(owner).size;
    uint64_t before = atomic_fetch_add_explicit(&node->frames_bytes, size, memory_order_relaxed);
    if (before > NODE_FRAMES_BYTES_MAX) { /* lost, as a network may lose it */
        atomic_fetch_sub_explicit(&node->frames_bytes, size, memory_order_relaxed);
        return;
    }
    struct node_event *event = event_create(EVENT_FRAME);
    event->as.frame.bytes = blob_ref(owner);
    event->as.frame.stream = rpc_stream_ref(stream);
    if (queue_push_always(node->mailbox, event, 0) != ERR_OK) {
        node__event_refuse(node, event);
        return;
    }
    node__pushed(node);
}

static void transport_wake(void *context)
{
    struct node *node = context;
    struct node_event *event = event_create(EVENT_WAKE);
    if (queue_push_always(node->mailbox, event, 0) != ERR_OK) {
        node__event_refuse(node, event);
        return;
    }
    node__pushed(node);
}

int node_propose(struct node *node, struct bytes payload, struct blob *owner, node_done_fn done,
                 void *context)
{
    if (payload.size > NODE_COMMAND_BYTES_MAX) {
        return ERR_TOO_LARGE;
    }
    struct node_event *event = event_create(EVENT_PROPOSE);
    event->as.propose.payload = payload;
    event->as.propose.owner = blob_ref(owner);
    event->as.propose.done = done;
    event->as.propose.context = context;
    int error = queue_push(node->mailbox, event, payload.size + sizeof(*event));
    if (error != ERR_OK) {
        blob_unref(owner);
        free(event);
        return error;
    }
    node__pushed(node);
    return ERR_OK;
}

int node_read(struct node *node, node_read_fn serve, void *context)
{
    struct node_event *event = event_create(EVENT_READ);
    event->as.read.serve = serve;
    event->as.read.context = context;
    int error = queue_push(node->mailbox, event, sizeof(*event));
    if (error != ERR_OK) {
        free(event);
        return error;
    }
    node__pushed(node);
    return ERR_OK;
}

/* Few and important: a mailbox full of commands must not keep an administrator out. */
static int push_admin(struct node *node, struct node_event *event)
{
    uint32_t before = atomic_fetch_add_explicit(&node->admin_count, 1, memory_order_relaxed);
    int error =
        before < NODE_ADMIN_EVENTS_MAX ? queue_push_always(node->mailbox, event, 0) : ERR_BUSY;
    if (error != ERR_OK) {
        atomic_fetch_sub_explicit(&node->admin_count, 1, memory_order_relaxed);
        free(event);
        return error;
    }
    node__pushed(node);
    return ERR_OK;
}

int node_transfer(struct node *node, uint64_t target, node_change_fn done, void *context)
{
    struct node_event *event = event_create(EVENT_TRANSFER);
    event->as.admin.target = target;
    event->as.admin.done = done;
    event->as.admin.context = context;
    return push_admin(node, event);
}

int node_change_member(struct node *node, const struct raft_change *change, node_change_fn done,
                       void *context)
{
    if (change->address != NULL && strlen(change->address) >= RAFT_ADDRESS_BYTES_MAX) {
        return ERR_INVALID;
    }
    struct node_event *event = event_create(EVENT_CHANGE);
    event->as.admin.change = *change;
    snprintf(event->as.admin.address, sizeof(event->as.admin.address), "%s",
             change->address == NULL ? "" : change->address);
    event->as.admin.done = done;
    event->as.admin.context = context;
    return push_admin(node, event);
}

int node_hash(struct node *node, node_hash_fn done, void *context)
{
    struct node_event *event = event_create(EVENT_HASH);
    event->as.hash.done = done;
    event->as.hash.context = context;
    return push_admin(node, event);
}

/* ---- streams that peers open
 * ------------------------------------------------------------------------------- */

static bool peer_message(void *context, struct rpc_stream *stream, struct bytes message,
                         struct blob *owner)
{
    transport_received(context, stream, message, owner);
    return true;
}

static void peer_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    struct node *node = context;
    (void)error;
    (void)text;
    transport_forget(node->transport, stream);
}

int node_add_methods(struct node *node, struct rpc_server *server)
{
    static const struct rpc_stream_events events = {.message = peer_message, .closed = peer_closed};
    int error = rpc_server_add_stream(server, METHOD_PEER_MESSAGES, &events, node);
    return error == ERR_OK ? node__admin_add_methods(node, server) : error;
}

/* ---- lifecycle
 * --------------------------------------------------------------------------------------------- */

static int lock_dir(const struct node_options *options, char *why, size_t why_size)
{
    char path[VFS_PATH_BYTES_MAX];
    const struct vfs *vfs = options->vfs;
    int error = vfs_make_dirs(vfs, options->dir);
    if (error == ERR_OK) {
        error = vfs_path(path, options->dir, "lock");
    }
    if (error == ERR_OK) {
        error = vfs->lock(vfs->context, path);
    }
    if (error == ERR_BUSY) {
        snprintf(why, why_size,
                 "%s is in use by another process: stop it, or give another directory",
                 options->dir);
    } else if (error != ERR_OK) {
        snprintf(why, why_size, "cannot open the directory %s: %s", options->dir, err_text(error));
    }
    return error;
}

static int check_options(const struct node_options *options, char *why, size_t why_size)
{
    if (options->tick_ns == 0 || options->mailbox_items_max == 0 ||
        options->entry_bytes_max > NODE_COMMAND_BYTES_MAX) {
        snprintf(why, why_size, "tick, mailbox or entry size out of range");
        return ERR_INVALID;
    }
    return ERR_OK;
}

static void create_parts(struct node *node)
{
    struct queue_limits mailbox = {node->options.mailbox_items_max,
                                   node->options.mailbox_bytes_max};
    node->mailbox = queue_create(mailbox);
    for (size_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
        /* pushed always: their number is bounded by the replica */
        struct queue_limits jobs = {1, 1};
        node->workers[i] = (struct worker){
            .node = node, .kind = (enum replica_worker)i, .jobs = queue_create(jobs)};
    }
    struct transport_options transport = {
        .rpc = node->rpc,
        .clock = node->options.clock,
        .self = node->options.replica_id,
        .seed = node->options.seed ^ 0x7472616e73706f72ull, /* not the core's numbers again */
        .context = node,
        .received = transport_received,
        .wake = transport_wake,
    };
    node->transport = transport_create(&transport);
}

int node_create(const struct node_options *options, const struct state_machine *sm,
                const struct node_observer *observer, struct rpc *rpc, struct node **out, char *why,
                size_t why_size)
{
    int error = check_options(options, why, why_size);
    error = error != ERR_OK ? error : lock_dir(options, why, why_size);
    if (error != ERR_OK) {
        return error;
    }
    struct node *node = mem_calloc(1, sizeof(*node));
    node->options = *options;
    node->options.members = NULL; /* borrowed for this call */
    node->rpc = rpc;
    node__locks_init(node);
    create_parts(node);
    struct replica_env env = {
        .context = node,
        .clock = options->clock,
        .vfs = options->vfs,
        .send = env_send,
        .submit = node__submit,
        .members_changed = env_members_changed,
        .fatal = env_fatal,
    };
    struct replica_options replica = replica_options_of(options);
    error = replica_create(&replica, sm, observer, &env, &node->replica, why, why_size);
    if (error != ERR_OK) {
        node_destroy(node);
        return error;
    }
    node->options.dir = NULL;
    node__publish(node);
    *out = node;
    return ERR_OK;
}

int node_start(struct node *node)
{
    ASSERT(!node->started);
    return node__threads_start(node);
}

void node_stop(struct node *node)
{
    if (node->joined) {
        return;
    }
    if (node->started) {
        rpc_set_turn_end(node->rpc, NULL, NULL);
        struct node_event *event = event_create(EVENT_STOP);
        int error = queue_push_always(node->mailbox, event, 0);
        ASSERT_CMP(error, ==, ERR_OK);
        node__pushed(node);
    }
    node__threads_join(node);
    queue_close(node->mailbox);
    void *item;
    while (queue_pop(node->mailbox, &item, 1, 0) == 1) {
        node__event_refuse(node, item);
    }
    transport_stop(node->transport);
}

void node_destroy(struct node *node)
{
    if (node == NULL) {
        return;
    }
    node_stop(node);
    if (node->replica != NULL) {
        replica_destroy(node->replica);
    }
    transport_destroy(node->transport);
    for (size_t i = 0; i < REPLICA_WORKER_COUNT; i++) {
        queue_destroy(node->workers[i].jobs);
    }
    queue_destroy(node->mailbox);
    node__locks_deinit(node);
    free(node);
}

/* ---- looking in
 * -------------------------------------------------------------------------------------------- */

void node_status(struct node *node, struct node_status *out)
{
    pthread_mutex_lock(&node->lock);
    *out = node->published;
    pthread_mutex_unlock(&node->lock);
}

bool node_is_leader(struct node *node)
{
    return atomic_load_explicit(&node->leader, memory_order_acquire);
}

static const char *role_text(enum node_role role)
{
    switch (role) {
    case NODE_FOLLOWER:
        return "follower";
    case NODE_CANDIDATE:
        return "candidate";
    case NODE_LEADER:
        return "leader";
    case NODE_LEARNER:
        return "learner";
    }
    UNREACHABLE();
}

static void fill_member(const struct node_status *status, const struct raft_member *member,
                        struct msg_member *out)
{
    memset(out, 0, sizeof(*out));
    out->id = member->id;
    snprintf(out->address, sizeof(out->address), "%s", member->address);
    out->learner = member->role == RAFT_LEARNER;
    if (member->id == status->raft.id) {
        out->match = status->raft.durable;
        out->active = true;
    }
    for (size_t i = 0; i < status->progress_count; i++) {
        if (status->progress[i].id == member->id && member->id != status->raft.id) {
            out->match = status->progress[i].match;
            out->active = status->progress[i].active;
        }
    }
}

_Static_assert((int)ADDRESS_BYTES_MAX == (int)RAFT_ADDRESS_BYTES_MAX,
               "an address fits both rooms' structs");
_Static_assert((int)GROUP_REPLICAS_MAX == (int)RAFT_MEMBERS_MAX, "so do the members of a group");

void node_fill_status(struct node *node, struct msg_status_response *out)
{
    struct node_status status;
    node_status(node, &status);
    out->cluster_id = node->options.cluster_id;
    out->group_id = node->options.group_id;
    out->replica_id = node->options.replica_id;
    snprintf(out->role, sizeof(out->role), "%s", role_text(status.role));
    out->term = status.raft.term;
    out->leader_id = status.raft.leader;
    memcpy(out->leader_address, status.leader_address, sizeof(out->leader_address));
    out->commit = status.raft.commit;
    out->applied = status.raft.applied;
    out->log_first = status.raft.log_start.index + 1;
    out->log_last = status.raft.last.index;
    out->log_bytes = status.log_bytes;
    out->member_count = status.raft.membership.count;
    for (uint32_t i = 0; i < status.raft.membership.count; i++) {
        fill_member(&status, &status.raft.membership.members[i], &out->members[i]);
    }
}

/* node.h, as the linker gives it to the product in place of node.c: see sim_node.c. Thread: one. */
#include "sim/sim_node_internal.h"

#include "base/assert.h"
#include "proto/messages.h"
#include "sim/applied.h"
#include "sim/sometimes.h"

#include <stdio.h>
#include <stdlib.h>

static int apply_watched(void *sm, const struct sm_batch *batch)
{
    const struct node *node = sim_world()->current->node;
    applied_check(node->options.group_id, batch);
    return node->sm->apply(sm, batch);
}

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
    struct replica_options replica = replica_options_of(options);
    replica.prewrite_segments = false;
    struct replica_env env = sim_node_env(node);
    node->sm = sm->ops;
    node->watched = *sm->ops;
    node->watched.apply = apply_watched;
    const struct state_machine watched = {&node->watched, sm->sm};
    int error =
        replica_create(&replica, &watched, &node->observer, &env, &node->replica, why, why_size);
    if (error != ERR_OK) {
        free(node);
        return error;
    }
    node->role = replica_role(node->replica);
    node->published_is_old = true;
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
    sim_node_begin(node);
    return ERR_OK;
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
            sim_node_poll(node);
        }
        while (!transferred && sim_now_ns() < until_ns && !node->host->dying) {
            sim_step();
        }
        if (!node->host->dying) {
            node->replica_stopped = true;
            replica_stop(node->replica);
        }
        while (!replica_is_idle(node->replica) && !node->host->dying) {
            sim_step();
        }
        if (node->host->dying) { /* it ended itself meanwhile: its jobs never come back */
            sim_node_kill(node);
        }
    }
    node->stopped = true;
    node->killed = true;
    sim_mail_refuse_all(node);
}

void __wrap_node_destroy(struct node *node);
void __wrap_node_destroy(struct node *node)
{
    if (node == NULL) {
        return;
    }
    __wrap_node_stop(node);
    sim_sometimes_ended(node->host->index);
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
    struct mail *mail = sim_mail_create(MAIL_PROPOSE, context);
    mail->payload = payload;
    mail->blob = blob_ref(owner);
    mail->done = done;
    sim_mail_post(node, mail);
    return ERR_OK;
}

/* For what asks and carries no payload. */
static int post_request(struct node *node, struct mail *mail)
{
    if (node->stopped || node->killed) {
        sim_mail_free(mail);
        return ERR_SHUTDOWN;
    }
    sim_mail_post(node, mail);
    return ERR_OK;
}

int __wrap_node_read(struct node *node, node_read_fn serve, void *context);
int __wrap_node_read(struct node *node, node_read_fn serve, void *context)
{
    struct mail *mail = sim_mail_create(MAIL_READ, context);
    mail->serve = serve;
    return post_request(node, mail);
}

int __wrap_node_transfer(struct node *node, uint64_t target, node_change_fn done, void *context);
int __wrap_node_transfer(struct node *node, uint64_t target, node_change_fn done, void *context)
{
    struct mail *mail = sim_mail_create(MAIL_TRANSFER, context);
    mail->target = target;
    mail->changed = done;
    return post_request(node, mail);
}

void sim_node_peer_closed(struct node *node, uint64_t peer)
{
    struct mail *mail = sim_mail_create(MAIL_CLOSED, NULL);
    mail->target = peer;
    sim_mail_post(node, mail);
}

int __wrap_node_change_member(struct node *node, const struct raft_change *change,
                              node_change_fn done, void *context);
int __wrap_node_change_member(struct node *node, const struct raft_change *change,
                              node_change_fn done, void *context)
{
    struct mail *mail = sim_mail_create(MAIL_CHANGE, context);
    mail->change = *change;
    (void)snprintf(mail->address, sizeof mail->address, "%s",
                   change->address == NULL ? "" : change->address);
    mail->changed = done;
    return post_request(node, mail);
}

int __wrap_node_hash(struct node *node, node_hash_fn done, void *context);
int __wrap_node_hash(struct node *node, node_hash_fn done, void *context)
{
    struct mail *mail = sim_mail_create(MAIL_HASH, context);
    mail->hashed = done;
    return post_request(node, mail);
}

/* Only a round of the loop changes it, so asking for it afterwards gives what it was then. */
static const struct node_status *published(struct node *node)
{
    if (node->published_is_old) {
        replica_status(node->replica, &node->published);
        node->published_is_old = false;
    }
    return &node->published;
}

void __wrap_node_status(struct node *node, struct node_status *out);
void __wrap_node_status(struct node *node, struct node_status *out)
{
    *out = *published(node);
}

bool __wrap_node_is_leader(struct node *node);
bool __wrap_node_is_leader(struct node *node)
{
    return node->role == NODE_LEADER;
}

void __wrap_node_fill_status(struct node *node, struct msg_status_response *out);
void __wrap_node_fill_status(struct node *node, struct msg_status_response *out)
{
    /* Nobody asks a simulated server for its Status: the tests look inside. */
    out->cluster_id = node->options.cluster_id;
    out->group_id = node->options.group_id;
    out->replica_id = node->options.replica_id;
    out->commit = published(node)->raft.commit;
    out->applied = published(node)->raft.applied;
}

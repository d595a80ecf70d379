/* Admin.Transfer and Admin.ChangeMember, for controllers and shard groups alike. (Admin.Status
 * knows shards, so it belongs to the programs; node_fill_status helps.) Handlers run on rpc's
 * threads; the answers come from the loop or the apply thread. */
#include "raft/node/node_internal.h"

#include "base/assert.h"
#include "proto/messages.h"
#include "proto/methods.h"

#include <stdlib.h>
#include <string.h>

/* Takes `call`. */
static void reply(struct rpc_call *call, struct node *node, int error)
{
    struct msg_admin_response *response = mem_calloc(1, sizeof(*response));
    struct buf bytes;
    buf_init(&bytes);
    msg_response_header_set(&response->header, error, NULL);
    if (error == ERR_NOT_LEADER) {
        struct node_status status;
        node_status(node, &status);
        response->header.has_route = true;
        response->header.route.group_id = node->options.group_id;
        memcpy(response->header.route.leader_address, status.leader_address,
               sizeof(status.leader_address));
    }
    msg_admin_response_encode(response, &bytes);
    rpc_call_reply(call, &bytes);
    buf_deinit(&bytes);
    free(response);
}

struct admin_call {
    struct node *node;
    struct rpc_call *call;
};

static void admin_done(void *context, int error)
{
    struct admin_call *admin = context;
    reply(admin->call, admin->node, error);
    free(admin);
}

static struct admin_call *admin_call_create(struct node *node, struct rpc_call *call)
{
    struct admin_call *admin = mem_calloc(1, sizeof(*admin));
    admin->node = node;
    admin->call = call;
    return admin;
}

static int check_cluster(const struct node *node, uint64_t cluster_id)
{
    return cluster_id == 0 || cluster_id == node->options.cluster_id ? ERR_OK : ERR_WRONG_CLUSTER;
}

static void transfer_call(void *context, struct rpc_call *call, struct bytes request,
                          struct blob *owner)
{
    struct node *node = context;
    struct msg_transfer_request message;
    (void)owner;
    int error = msg_transfer_request_decode(request, &message);
    if (error == ERR_OK) {
        error = check_cluster(node, message.cluster_id);
    }
    struct admin_call *admin = admin_call_create(node, call);
    if (error == ERR_OK) {
        error = node_transfer(node, message.target_id, admin_done, admin);
    }
    if (error != ERR_OK) {
        admin_done(admin, error);
    }
}

static enum raft_change_kind change_kind(enum msg_member_change kind)
{
    switch (kind) {
    case MSG_MEMBER_ADD_LEARNER:
        return RAFT_ADD_LEARNER;
    case MSG_MEMBER_PROMOTE:
        return RAFT_PROMOTE;
    case MSG_MEMBER_ADD_VOTER:
        return RAFT_ADD_VOTER;
    case MSG_MEMBER_REMOVE:
        return RAFT_REMOVE;
    case MSG_MEMBER_NONE: /* refused by the decoder */
        break;
    }
    UNREACHABLE();
}

static void change_call(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    struct node *node = context;
    struct msg_change_member_request message;
    (void)owner;
    int error = msg_change_member_request_decode(request, &message);
    if (error == ERR_OK) {
        error = check_cluster(node, message.cluster_id);
    }
    struct admin_call *admin = admin_call_create(node, call);
    if (error == ERR_OK) {
        struct raft_change change = {
            .kind = change_kind(message.kind), .id = message.id, .address = message.address};
        error = node_change_member(node, &change, admin_done, admin);
    }
    if (error != ERR_OK) {
        admin_done(admin, error);
    }
}

int node__admin_add_methods(struct node *node, struct rpc_server *server)
{
    int error = rpc_server_add_unary(server, METHOD_ADMIN_TRANSFER, transfer_call, node);
    if (error == ERR_OK) {
        error = rpc_server_add_unary(server, METHOD_ADMIN_CHANGE_MEMBER, change_call, node);
    }
    return error;
}

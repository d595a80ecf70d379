/* See service.h. A change is proposed with the request's own bytes and answered with what the state
 * machine wrote; a query is a linearizable read. Each call in flight is one heap object that holds
 * its rpc_call. */
#include "shardctrler/service.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/log.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "rpc/rpc.h"
#include "shardctrler/watch.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct service {
    struct service_options options;
    struct config_machine *machine;
    struct watch_hub *hub;
    struct node *node;
};

/* ---- shared
 * -------------------------------------------------------------------------------------------------
 */

static void fill_header(struct service *service, struct msg_response_header *header, int error,
                        const char *why)
{
    msg_response_header_set(header, error, why);
    if (error == 0) {
        header->message[0] = '\0';
    }
    if (error == ERR_NOT_LEADER || error == ERR_LEADER_LOST) {
        struct node_status status;
        node_status(service->node, &status);
        header->has_route = true;
        snprintf(header->route.leader_address, sizeof header->route.leader_address, "%s",
                 status.leader_address);
    }
}

static void reply_change(struct service *service, struct rpc_call *call, int error, const char *why)
{
    struct msg_change_response response = {0};
    fill_header(service, &response.header, error, why);
    struct buf bytes;
    buf_init(&bytes);
    msg_change_response_encode(&response, &bytes);
    rpc_call_reply(call, &bytes);
    buf_deinit(&bytes);
}

static int check_cluster(const struct service *service, uint64_t cluster_id)
{
    return cluster_id == 0 || cluster_id == service->options.cluster_id ? 0 : ERR_WRONG_CLUSTER;
}

/* ---- changes
 * -------------------------------------------------------------------------------------------------
 */

struct change_call {
    struct service *service;
    struct rpc_call *call;
};

static void change_done(void *context, int error, struct raft_position position,
                        struct bytes result)
{
    (void)position;
    struct change_call *change = context;
    if (error != 0) {
        reply_change(change->service, change->call, error, NULL);
    } else {
        struct buf bytes;
        buf_init(&bytes);
        buf_append_bytes(&bytes, result);
        rpc_call_reply(change->call, &bytes);
        buf_deinit(&bytes);
    }
    free(change);
}

static void propose_change(struct service *service, struct rpc_call *call, enum config_command kind,
                           const struct msg_request_header *header, struct bytes request)
{
    int error = check_cluster(service, header->cluster_id);
    if (error == 0 && header->client_id != 0 && header->sequence == 0) {
        reply_change(service, call, ERR_INVALID, "a client_id needs a sequence from 1");
        return;
    }
    if (error != 0) {
        reply_change(service, call, error, NULL);
        return;
    }
    struct buf payload;
    buf_init(&payload);
    put_u8(&payload, (uint8_t)kind);
    buf_append_bytes(&payload, request);
    struct blob *owner = blob_take_buf(&payload);
    struct change_call *change = mem_calloc(1, sizeof *change);
    *change = (struct change_call){.service = service, .call = call};
    error = node_propose(service->node, blob_view(owner), owner, change_done, change);
    blob_unref(owner);
    if (error != 0) {
        free(change);
        reply_change(service, call, error, NULL);
    }
}

static void handle_join(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    (void)owner;
    struct msg_join_request message;
    int error = msg_join_request_decode(request, &message);
    if (error != 0) {
        reply_change(context, call, error, NULL);
        return;
    }
    propose_change(context, call, CONFIG_COMMAND_JOIN, &message.header, request);
    msg_join_request_deinit(&message);
}

static void handle_leave(void *context, struct rpc_call *call, struct bytes request,
                         struct blob *owner)
{
    (void)owner;
    struct msg_leave_request message;
    int error = msg_leave_request_decode(request, &message);
    if (error != 0) {
        reply_change(context, call, error, NULL);
        return;
    }
    propose_change(context, call, CONFIG_COMMAND_LEAVE, &message.header, request);
}

static void handle_move(void *context, struct rpc_call *call, struct bytes request,
                        struct blob *owner)
{
    (void)owner;
    struct msg_move_request message;
    int error = msg_move_request_decode(request, &message);
    if (error != 0) {
        reply_change(context, call, error, NULL);
        return;
    }
    propose_change(context, call, CONFIG_COMMAND_MOVE, &message.header, request);
}

static void handle_update_members(void *context, struct rpc_call *call, struct bytes request,
                                  struct blob *owner)
{
    (void)owner;
    struct msg_update_members_request message;
    int error = msg_update_members_request_decode(request, &message);
    if (error != 0) {
        reply_change(context, call, error, NULL);
        return;
    }
    propose_change(context, call, CONFIG_COMMAND_UPDATE_MEMBERS, &message.header, request);
}

/* ---- query
 * ----------------------------------------------------------------------------------------------------
 */

struct query_call {
    struct service *service;
    struct rpc_call *call;
    uint64_t number;
    bool latest;
};

static void reply_query(struct service *service, struct rpc_call *call, int error,
                        const struct config *config)
{
    struct msg_query_response response = {.config = config};
    fill_header(service, &response.header, error, NULL);
    struct buf bytes;
    buf_init(&bytes);
    msg_query_response_encode(&response, &bytes);
    rpc_call_reply(call, &bytes);
    buf_deinit(&bytes);
}

static void query_serve(void *context, int error)
{
    struct query_call *query = context;
    struct config *config = NULL;
    if (error == 0) {
        error = query->latest ? config_machine_latest(query->service->machine, &config)
                              : config_machine_get(query->service->machine, query->number, &config);
    }
    reply_query(query->service, query->call, error, config);
    if (config != NULL) {
        config_free(config);
    }
    free(query);
}

static void handle_query(void *context, struct rpc_call *call, struct bytes request,
                         struct blob *owner)
{
    (void)owner;
    struct service *service = context;
    struct msg_query_request message;
    int error = msg_query_request_decode(request, &message);
    if (error == 0) {
        error = check_cluster(service, message.header.cluster_id);
    }
    if (error != 0) {
        reply_query(service, call, error, NULL);
        return;
    }
    struct query_call *query = mem_calloc(1, sizeof *query);
    *query = (struct query_call){
        .service = service, .call = call, .number = message.number, .latest = message.latest};
    error = node_read(service->node, query_serve, query);
    if (error != 0) {
        free(query);
        reply_query(service, call, error, NULL);
    }
}

/* ---- status
 * ----------------------------------------------------------------------------------------------------
 */

static void handle_status(void *context, struct rpc_call *call, struct bytes request,
                          struct blob *owner)
{
    (void)owner;
    struct service *service = context;
    struct msg_status_request message;
    struct msg_status_response *response = mem_calloc(1, sizeof *response);
    int error = msg_status_request_decode(request, &message);
    if (error == 0) {
        error = check_cluster(service, message.cluster_id);
    }
    if (error == 0) {
        node_fill_status(service->node, response);
        response->config_number = config_machine_latest_number(service->machine);
        snprintf(response->version, sizeof response->version, "%s", SHARDKV_VERSION);
        if (message.with_hash) {
            const struct state_machine sm = config_machine_interface(service->machine);
            struct raft_position position;
            error = sm.ops->hash(sm.sm, &response->state_hash, &position);
            response->state_hash_applied = position.index;
        }
    }
    msg_response_header_set(&response->header, error, NULL);
    struct buf bytes;
    buf_init(&bytes);
    msg_status_response_encode(response, &bytes);
    rpc_call_reply(call, &bytes);
    buf_deinit(&bytes);
    free(response);
}

/* ---- role
 * ------------------------------------------------------------------------------------------------------
 */

static void create_done(void *context, int error, struct raft_position position,
                        struct bytes result)
{
    (void)context;
    (void)position;
    (void)result;
    if (error != 0) {
        LOG_DBG("cluster.create.failed", "error=%s", err_name(error)); /* the next leader does it */
    }
}

static void propose_create(struct service *service)
{
    struct buf payload;
    buf_init(&payload);
    put_u8(&payload, CONFIG_COMMAND_CREATE);
    put_varint(&payload, service->options.shard_count);
    struct blob *owner = blob_take_buf(&payload);
    int error = node_propose(service->node, blob_view(owner), owner, create_done, NULL);
    blob_unref(owner);
    if (error != 0) {
        create_done(NULL, error, (struct raft_position){0, 0}, BYTES_EMPTY);
    }
}

static void role_changed(void *context, enum node_role role, uint64_t term, uint64_t leader_id,
                         const char *leader_address)
{
    (void)term;
    (void)leader_id;
    struct service *service = context;
    watch_hub_set_leading(service->hub, role == NODE_LEADER, leader_address);
    if (role != NODE_LEADER) {
        return;
    }
    uint32_t shard_count = config_machine_shard_count(service->machine);
    if (shard_count == 0) {
        propose_create(service);
    } else if (shard_count != service->options.shard_count) {
        log_event(LOG_WARN, "shards.flag.ignored",
                  "given=%u cluster=%u reason=\"fixed when the cluster was created\"",
                  service->options.shard_count, shard_count);
    }
}

static void configs_changed(void *context)
{
    struct service *service = context;
    watch_hub_push(service->hub);
}

/* ---- life
 * ------------------------------------------------------------------------------------------------------
 */

struct service *service_create(const struct service_options *options,
                               struct config_machine *machine)
{
    struct service *service = mem_calloc(1, sizeof *service);
    service->options = *options;
    service->machine = machine;
    service->hub = watch_hub_create(machine, options->cluster_id);
    config_machine_on_change(machine, configs_changed, service);
    return service;
}

struct node_observer service_observer(struct service *service)
{
    return (struct node_observer){.role_changed = role_changed, .context = service};
}

int service_attach(struct service *service, struct node *node, struct rpc_server *server)
{
    service->node = node;
    const struct {
        const char *method;
        rpc_unary_fn handler;
    } methods[] = {
        {METHOD_CONTROLLER_JOIN, handle_join},
        {METHOD_CONTROLLER_LEAVE, handle_leave},
        {METHOD_CONTROLLER_MOVE, handle_move},
        {METHOD_CONTROLLER_QUERY, handle_query},
        {METHOD_CONTROLLER_UPDATE_MEMBERS, handle_update_members},
        {METHOD_ADMIN_STATUS, handle_status},
    };
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        int error = rpc_server_add_unary(server, methods[i].method, methods[i].handler, service);
        if (error != 0) {
            return error;
        }
    }
    struct rpc_stream_events events = watch_hub_events();
    return rpc_server_add_stream(server, METHOD_CONTROLLER_WATCH, &events, service->hub);
}

void service_destroy(struct service *service)
{
    if (service == NULL) {
        return;
    }
    watch_hub_destroy(service->hub);
    free(service);
}

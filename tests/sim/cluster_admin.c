/* Administrators of a simulated cluster. Thread: one. */
#include "sim/cluster.h"

#include "base/assert.h"
#include "client/controller_client.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "rpc/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADMIN_NS (60 * SIM_S)

struct admin {
    struct cluster *cluster;
    struct sim_host *host;
    struct rpc *rpc;
    struct controller_client *client;
};

struct admin *admin_create(struct cluster *cluster, const char *name)
{
    struct admin *admin = mem_calloc(1, sizeof *admin);
    struct rpc_options options = rpc_options_default();
    char address[SIM_NAME_BYTES_MAX];
    char why[256] = "";
    (void)snprintf(address, sizeof address, "%s:1", name);
    admin->cluster = cluster;
    admin->host = sim_host_create(address, false);
    sim_host_boot(admin->host);
    struct sim_host *former = sim_enter(admin->host);
    int error = rpc_create(&options, &admin->rpc);
    SIM_CHECK_EQ(error, 0);
    error = controller_client_create(admin->rpc, clock_system(), cluster->controller_addresses,
                                     cluster_id_of_name(CLUSTER_NAME), rng_seed_from_system(),
                                     &admin->client, why, sizeof why);
    SIM_CHECK_EQ(error, 0);
    sim_leave(former);
    return admin;
}

void admin_destroy(struct admin *admin)
{
    struct sim_host *former = sim_enter(admin->host);
    controller_client_destroy(admin->client);
    rpc_destroy(admin->rpc);
    sim_leave(former);
    sim_host_die(admin->host);
    sim_host_dead(admin->host, FAKE_CRASH_KEEP);
    free(admin);
}

struct sim_host *admin_host(struct admin *admin)
{
    return admin->host;
}

static struct msg_request_header admin_header(struct admin *admin)
{
    struct msg_request_header header = {.cluster_id = cluster_id_of_name(CLUSTER_NAME)};
    controller_client_next_ids(admin->client, &header.client_id, &header.sequence);
    header.acked_below = header.sequence;
    return header;
}

/* ---- changes ---- */

static void change_done(void *context, int error, const char *text, struct bytes reply)
{
    struct admin_change *change = context;
    change->ended = true;
    change->error = error;
    (void)snprintf(change->text, sizeof change->text, "%s", text);
    if (error == 0) {
        struct msg_change_response response;
        change->error = msg_change_response_decode(reply, &response);
        change->number = change->error == 0 ? response.config_number : 0;
    }
    sim_trace("a change ended: %s, config %llu", err_name(change->error),
              (unsigned long long)change->number);
}

/* takes `request` */
static void begin(struct admin *admin, const char *method, struct buf *request,
                  struct admin_change *change)
{
    *change = (struct admin_change){0};
    sim_trace("%s by %s", method, admin->host->address);
    struct sim_host *former = sim_enter(admin->host);
    int error = controller_client_call(admin->client, method, request, sim_now_ns() + ADMIN_NS,
                                       change_done, change);
    sim_leave(former);
    SIM_CHECK_EQ(error, 0);
}

static void describe_group(const struct group *group, struct config_group *out)
{
    memset(out, 0, sizeof *out);
    out->id = group->id;
    for (uint32_t i = 0; i < group->server_count; i++) {
        if (!group->servers[i].retired) {
            struct config_replica *replica = &out->replicas[out->replica_count++];
            replica->id = group->servers[i].replica_id;
            (void)snprintf(replica->address, sizeof replica->address, "%s",
                           group->servers[i].host->address);
        }
    }
}

void admin_begin_join(struct admin *admin, const uint64_t *ids, size_t count,
                      struct admin_change *change)
{
    struct config_group *groups = mem_calloc(count, sizeof *groups);
    for (size_t i = 0; i < count; i++) {
        describe_group(cluster_group(admin->cluster, ids[i]), &groups[i]);
    }
    struct msg_join_request request = {
        .header = admin_header(admin), .group_count = (uint32_t)count, .groups = groups};
    struct buf bytes = {0};
    msg_join_request_encode(&request, &bytes);
    free(groups);
    begin(admin, METHOD_CONTROLLER_JOIN, &bytes, change);
}

void admin_begin_leave(struct admin *admin, const uint64_t *ids, size_t count,
                       struct admin_change *change)
{
    struct msg_leave_request *request = mem_calloc(1, sizeof *request);
    request->header = admin_header(admin);
    request->force = true;
    request->group_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        request->group_ids[i] = ids[i];
    }
    struct buf bytes = {0};
    msg_leave_request_encode(request, &bytes);
    free(request);
    begin(admin, METHOD_CONTROLLER_LEAVE, &bytes, change);
}

void admin_begin_move(struct admin *admin, uint32_t shard, uint64_t id, struct admin_change *change)
{
    struct msg_move_request request = {
        .header = admin_header(admin), .shard = shard, .group_id = id};
    struct buf bytes = {0};
    msg_move_request_encode(&request, &bytes);
    begin(admin, METHOD_CONTROLLER_MOVE, &bytes, change);
}

static bool change_has_ended(void *context)
{
    return ((const struct admin_change *)context)->ended;
}

bool admin_wait(struct admin_change *change, uint64_t timeout_ns)
{
    return sim_run_until(timeout_ns, change_has_ended, change);
}

/* ---- blocking ---- */

static uint64_t finish(struct admin_change *change)
{
    bool ended = admin_wait(change, ADMIN_NS);
    SIM_CHECK(ended);
    if (change->error != 0) {
        SIM_FAIL("a change of the config failed: %s: %s", err_name(change->error), change->text);
    }
    return change->number;
}

uint64_t cluster_join(struct cluster *cluster, const uint64_t *ids, size_t count)
{
    struct admin_change change;
    admin_begin_join(cluster->admin, ids, count, &change);
    return finish(&change);
}

uint64_t cluster_leave(struct cluster *cluster, const uint64_t *ids, size_t count)
{
    struct admin_change change;
    admin_begin_leave(cluster->admin, ids, count, &change);
    return finish(&change);
}

uint64_t cluster_move(struct cluster *cluster, uint32_t shard, uint64_t id)
{
    struct admin_change change;
    admin_begin_move(cluster->admin, shard, id, &change);
    return finish(&change);
}

uint64_t cluster_join_one(struct cluster *cluster, uint64_t id)
{
    return cluster_join(cluster, &id, 1);
}

uint64_t cluster_leave_one(struct cluster *cluster, uint64_t id)
{
    return cluster_leave(cluster, &id, 1);
}

struct config *cluster_query(struct cluster *cluster)
{
    struct admin *admin = cluster->admin;
    struct msg_query_request request = {.header = {.cluster_id = cluster_id_of_name(CLUSTER_NAME)},
                                        .latest = true};
    struct msg_query_response response = {0};
    struct buf bytes = {0};
    struct buf reply = {0};
    char text[256] = "";
    msg_query_request_encode(&request, &bytes);
    struct sim_host *former = sim_enter(admin->host);
    int error = controller_client_call_wait(admin->client, METHOD_CONTROLLER_QUERY, &bytes,
                                            sim_now_ns() + ADMIN_NS, &reply, text, sizeof text);
    sim_leave(former);
    if (error != 0) {
        SIM_FAIL("the config cannot be read: %s: %s", err_name(error), text);
    }
    error = msg_query_response_decode(buf_view(&reply), &response);
    SIM_CHECK_EQ(error, 0);
    SIM_CHECK(response.config != NULL);
    struct config *config = config_clone(response.config);
    msg_query_response_deinit(&response);
    buf_deinit(&reply);
    buf_deinit(&bytes);
    return config;
}

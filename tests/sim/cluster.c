/* See cluster.h. Thread: one. */
#include "sim/cluster.h"

#include "base/assert.h"
#include "client/controller_client.h"
#include "lib/fake_store.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "shardkv/kv_machine.h"
#include "sim/oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEADER_NS (5 * SIM_S)  /* the course's limit for a new leader */
#define ADMIN_NS  (30 * SIM_S)
#define QUIET_NS  (20 * SIM_S) /* after the last heal, for replicas to become equal */

/* ---- life --------------------------------------------------------------------------------------------------- */

static void group_init(struct cluster *cluster, struct group *group, uint64_t id, const char *prefix,
                       uint32_t count)
{
    group->id = id;
    group->server_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct server *server = &group->servers[i];
        char address[SIM_NAME_BYTES_MAX];
        (void)snprintf(address, sizeof address, "%s-%u:7000", prefix, i + 1);
        server->cluster = cluster;
        server->group_id = id;
        server->replica_id = i + 1;
        server->host = sim_host_create(address, true);
        if (id != CONTROLLER_GROUP) {
            server->store = fake_store_create(fake_vfs_vfs(server->host->disk));
        }
    }
}

static void init_groups(struct cluster *cluster)
{
    group_init(cluster, &cluster->controllers, CONTROLLER_GROUP, "ctrler",
               cluster->options.controllers);
    size_t used = 0;
    for (uint32_t i = 0; i < cluster->options.controllers; i++) {
        int written = snprintf(cluster->controller_addresses + used,
                               sizeof cluster->controller_addresses - used, "%s%s",
                               i == 0 ? "" : ",", cluster->controllers.servers[i].host->address);
        used += (size_t)written;
    }
    for (uint32_t i = 0; i < cluster->options.groups; i++) {
        char prefix[16];
        (void)snprintf(prefix, sizeof prefix, "g%u", 100 + i);
        cluster->group_count++;
        group_init(cluster, &cluster->groups[i], 100 + i, prefix, cluster->options.replicas);
    }
    cluster->admin_host = sim_host_create("admin:1", false);
    sim_host_boot(cluster->admin_host);
}

struct cluster *cluster_create(const struct cluster_options *options)
{
    struct cluster *cluster = mem_calloc(1, sizeof *cluster);
    cluster->options = *options;
    init_groups(cluster);
    cluster->oracle = oracle_create(cluster);
    if (options->unreliable) {
        sim_world()->net = sim_net_unreliable();
    }
    group_start(&cluster->controllers);
    for (uint32_t i = 0; i < cluster->group_count; i++) {
        group_start(&cluster->groups[i]);
    }
    (void)group_wait_leader(&cluster->controllers);
    for (uint32_t i = 0; i < cluster->group_count; i++) {
        (void)group_wait_leader(&cluster->groups[i]);
    }
    if (options->joined) {
        (void)cluster_join(cluster, &cluster->groups[0].id, 1);
        cluster_wait_settled(cluster, 10 * SIM_S);
    }
    return cluster;
}

static void group_end(struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        server_crash(&group->servers[i]);
        if (group->servers[i].store != NULL) {
            fake_store_destroy(group->servers[i].store);
        }
    }
}

static void client_host_end(struct sim_host *host)
{
    if (host->up) {
        sim_host_die(host);
        sim_host_dead(host, FAKE_CRASH_KEEP);
    }
}

void cluster_destroy(struct cluster *cluster)
{
    sim_heal();
    sim_world()->net = sim_net_reliable();
    oracle_check_equal(cluster->oracle, QUIET_NS);
    oracle_destroy(cluster->oracle);
    for (uint32_t i = 0; i < cluster->group_count; i++) {
        group_end(&cluster->groups[i]);
    }
    group_end(&cluster->controllers);
    for (uint32_t i = 0; i < cluster->client_host_count; i++) {
        client_host_end(cluster->client_hosts[i]);
    }
    client_host_end(cluster->admin_host);
    free(cluster);
}

struct group *cluster_group(struct cluster *cluster, uint64_t id)
{
    for (uint32_t i = 0; i < cluster->group_count; i++) {
        if (cluster->groups[i].id == id) {
            return &cluster->groups[i];
        }
    }
    return NULL;
}

/* ---- groups ------------------------------------------------------------------------------------------------- */

void group_crash(struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        server_crash(&group->servers[i]);
    }
}

void group_start(struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        server_start(&group->servers[i]);
    }
}

struct server *group_leader(const struct group *group)
{
    const struct server *leader = NULL;
    uint64_t term = 0;
    for (uint32_t i = 0; i < group->server_count; i++) {
        struct node *node = server_node(&group->servers[i]);
        if (node != NULL && node_is_leader(node)) {
            struct node_status status;
            node_status(node, &status);
            if (status.raft.term >= term) {
                term = status.raft.term;
                leader = &group->servers[i];
            }
        }
    }
    return (struct server *)leader;
}

static bool has_leader(void *context)
{
    return group_leader(context) != NULL;
}

struct server *group_wait_leader(struct group *group)
{
    if (!sim_run_until(LEADER_NS, has_leader, group)) {
        SIM_FAIL("group %llu has no leader after %.0f s", (unsigned long long)group->id,
                 (double)LEADER_NS / 1e9);
    }
    return group_leader(group);
}

void group_partition(struct group *group, uint32_t mask)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        for (uint32_t j = 0; j < group->server_count; j++) {
            sim_cut(group->servers[i].host, group->servers[j].host,
                    ((mask >> i) & 1) != ((mask >> j) & 1));
        }
    }
}

void group_heal(struct group *group)
{
    group_partition(group, 0);
}

void server_isolate(struct cluster *cluster, struct server *server, bool isolated)
{
    (void)cluster;
    struct sim_world *world = sim_world();
    for (uint32_t i = 0; i < world->host_count; i++) {
        if (world->hosts[i] != server->host) {
            sim_cut_both(server->host, world->hosts[i], isolated);
        }
    }
}

/* ---- administration ------------------------------------------------------------------------------------------ */

struct admin {
    struct cluster *cluster;
    struct rpc *rpc;
    struct controller_client *client;
    struct sim_host *former;
};

static void admin_open(struct cluster *cluster, struct admin *admin)
{
    struct rpc_options options = rpc_options_default();
    char why[256] = "";
    admin->cluster = cluster;
    admin->former = sim_enter(cluster->admin_host);
    int error = rpc_create(&options, &admin->rpc);
    SIM_CHECK_EQ(error, 0);
    error = controller_client_create(admin->rpc, clock_system(), cluster->controller_addresses,
                                     cluster_id_of_name(CLUSTER_NAME), rng_seed_from_system(),
                                     &admin->client, why, sizeof why);
    SIM_CHECK_EQ(error, 0);
}

static void admin_close(struct admin *admin)
{
    controller_client_destroy(admin->client);
    rpc_destroy(admin->rpc);
    sim_leave(admin->former);
}

static struct msg_request_header admin_header(struct admin *admin)
{
    struct msg_request_header header = {.cluster_id = cluster_id_of_name(CLUSTER_NAME)};
    controller_client_next_ids(admin->client, &header.client_id, &header.sequence);
    header.acked_below = header.sequence;
    return header;
}

/* takes `request`; gives what was answered. */
static struct buf admin_call(struct admin *admin, const char *method, struct buf *request)
{
    struct buf reply = {0};
    char text[256] = "";
    int error = controller_client_call_wait(admin->client, method, request, sim_now_ns() + ADMIN_NS,
                                            &reply, text, sizeof text);
    if (error != 0) {
        SIM_FAIL("%s failed: %s: %s", method, err_name(error), text);
    }
    buf_deinit(request);
    return reply;
}

static uint64_t admin_change(struct admin *admin, const char *method, struct buf *request)
{
    struct msg_change_response response;
    struct buf reply = admin_call(admin, method, request);
    int error = msg_change_response_decode(buf_view(&reply), &response);
    SIM_CHECK_EQ(error, 0);
    SIM_CHECK_EQ(response.header.error, 0);
    buf_deinit(&reply);
    admin_close(admin);
    sim_trace("%s: config %llu", method, (unsigned long long)response.config_number);
    return response.config_number;
}

static void describe_group(const struct group *group, struct config_group *out)
{
    memset(out, 0, sizeof *out);
    out->id = group->id;
    out->replica_count = group->server_count;
    for (uint32_t i = 0; i < group->server_count; i++) {
        out->replicas[i].id = group->servers[i].replica_id;
        (void)snprintf(out->replicas[i].address, sizeof out->replicas[i].address, "%s",
                       group->servers[i].host->address);
    }
}

uint64_t cluster_join(struct cluster *cluster, const uint64_t *ids, size_t count)
{
    struct admin admin;
    admin_open(cluster, &admin);
    struct config_group *groups = mem_calloc(count, sizeof *groups);
    for (size_t i = 0; i < count; i++) {
        describe_group(cluster_group(cluster, ids[i]), &groups[i]);
    }
    struct msg_join_request request = {
        .header = admin_header(&admin), .group_count = (uint32_t)count, .groups = groups};
    struct buf bytes = {0};
    msg_join_request_encode(&request, &bytes);
    free(groups);
    return admin_change(&admin, METHOD_CONTROLLER_JOIN, &bytes);
}

uint64_t cluster_leave(struct cluster *cluster, const uint64_t *ids, size_t count)
{
    struct admin admin;
    admin_open(cluster, &admin);
    struct msg_leave_request *request = mem_calloc(1, sizeof *request);
    request->header = admin_header(&admin);
    request->group_count = (uint32_t)count;
    request->force = true;
    for (size_t i = 0; i < count; i++) {
        request->group_ids[i] = ids[i];
    }
    struct buf bytes = {0};
    msg_leave_request_encode(request, &bytes);
    free(request);
    return admin_change(&admin, METHOD_CONTROLLER_LEAVE, &bytes);
}

uint64_t cluster_move(struct cluster *cluster, uint32_t shard, uint64_t id)
{
    struct admin admin;
    admin_open(cluster, &admin);
    struct msg_move_request request = {
        .header = admin_header(&admin), .shard = shard, .group_id = id};
    struct buf bytes = {0};
    msg_move_request_encode(&request, &bytes);
    return admin_change(&admin, METHOD_CONTROLLER_MOVE, &bytes);
}

struct config *cluster_query(struct cluster *cluster)
{
    struct admin admin;
    admin_open(cluster, &admin);
    struct msg_query_request request = {.header = {.cluster_id = cluster_id_of_name(CLUSTER_NAME)},
                                        .latest = true};
    struct buf bytes = {0};
    msg_query_request_encode(&request, &bytes);
    struct buf reply = admin_call(&admin, METHOD_CONTROLLER_QUERY, &bytes);
    struct msg_query_response response = {0};
    int error = msg_query_response_decode(buf_view(&reply), &response);
    SIM_CHECK_EQ(error, 0);
    SIM_CHECK(response.config != NULL);
    struct config *config = config_clone(response.config);
    msg_query_response_deinit(&response);
    buf_deinit(&reply);
    admin_close(&admin);
    return config;
}

struct settle_wait {
    struct cluster *cluster;
    uint64_t number;
};

static bool table_is_quiet(const struct kv_table *table, uint64_t number)
{
    if (table->config_number != number || table->pending_count > 0 || !kv_table_is_settled(table)) {
        return false;
    }
    for (uint32_t i = 0; i < table->shard_count; i++) {
        enum shard_state state = table->shards[i].state;
        if (state == SHARD_PULLING || state == SHARD_DROPPING) {
            return false;
        }
    }
    return true;
}

static bool all_settled(void *context)
{
    struct settle_wait *wait = context;
    for (uint32_t i = 0; i < wait->cluster->group_count; i++) {
        struct group *group = &wait->cluster->groups[i];
        struct server *leader = group_leader(group);
        if (leader == NULL) {
            bool any_up = false;
            for (uint32_t j = 0; j < group->server_count; j++) {
                any_up = any_up || server_is_up(&group->servers[j]);
            }
            if (any_up) {
                return false;
            }
            continue;
        }
        struct kv_table *table = kv_machine_table(server_machine(leader));
        bool quiet = table_is_quiet(table, wait->number);
        kv_table_unref(table);
        if (!quiet) {
            return false;
        }
    }
    return true;
}

void cluster_wait_settled(struct cluster *cluster, uint64_t timeout_ns)
{
    struct config *config = cluster_query(cluster);
    struct settle_wait wait = {.cluster = cluster, .number = config->number};
    config_free(config);
    if (!sim_run_until(timeout_ns, all_settled, &wait)) {
        SIM_FAIL("the groups have not settled config %llu after %.0f s",
                 (unsigned long long)wait.number, (double)timeout_ns / 1e9);
    }
}

/* ---- clients ------------------------------------------------------------------------------------------------- */

struct sim_host *cluster_client_host(struct cluster *cluster)
{
    ASSERT_CMP(cluster->client_host_count, <, CLUSTER_CLIENTS_MAX);
    char address[SIM_NAME_BYTES_MAX];
    (void)snprintf(address, sizeof address, "client%u:1", cluster->client_host_count);
    struct sim_host *host = sim_host_create(address, false);
    cluster->client_hosts[cluster->client_host_count++] = host;
    sim_host_boot(host);
    return host;
}

struct skv_client *cluster_client_open(struct cluster *cluster, struct sim_host *host)
{
    struct skv_client *client = NULL;
    char why[SKV_ERROR_TEXT_BYTES] = "";
    struct skv_options options = {.controllers = cluster->controller_addresses,
                                  .cluster = CLUSTER_NAME,
                                  .open_timeout_ms = 30000};
    struct sim_host *former = sim_enter(host);
    int code = skv_open(&options, &client, why, sizeof why);
    sim_leave(former);
    if (code != SKV_OK) {
        SIM_FAIL("a client cannot open: %s: %s", skv_code_text(code), why);
    }
    return client;
}

void cluster_client_close(struct sim_host *host, struct skv_client *client)
{
    struct sim_host *former = sim_enter(host);
    skv_close(client);
    sim_leave(former);
}

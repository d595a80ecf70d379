/* See cluster.h. Thread: one. */
#include "sim/cluster.h"

#include "base/assert.h"
#include "lib/fake_store.h"
#include "raft/node/node.h"
#include "shardkv/kv_machine.h"
#include "sim/applied.h"
#include "sim/oracle.h"
#include "sim/sometimes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEADER_NS (5 * SIM_S)  /* the course's limit for a new leader */
#define QUIET_NS  (20 * SIM_S) /* after the last heal, for replicas to become equal */

/* ---- life ---- */

static void group_address(const struct group *group, uint64_t replica_id,
                          char out[SIM_NAME_BYTES_MAX])
{
    if (group->id == CONTROLLER_GROUP) {
        (void)snprintf(out, SIM_NAME_BYTES_MAX, "ctrler-%llu:7000", (unsigned long long)replica_id);
    } else {
        (void)snprintf(out, SIM_NAME_BYTES_MAX, "g%llu-%llu:7000", (unsigned long long)group->id,
                       (unsigned long long)replica_id);
    }
}

/* `host` NULL: a new one. */
static struct server *add_server(struct cluster *cluster, struct group *group,
                                 struct sim_host *host)
{
    ASSERT_CMP(group->server_count, <, CLUSTER_SERVERS_MAX);
    struct server *server = &group->servers[group->server_count++];
    char address[SIM_NAME_BYTES_MAX];
    server->cluster = cluster;
    server->group_id = group->id;
    server->replica_id = group->server_count;
    group_address(group, server->replica_id, address);
    server->host = host != NULL ? host : sim_host_create(address, true);
    if (group->id != CONTROLLER_GROUP) {
        server->store = fake_store_create(fake_vfs_vfs(server->host->disk));
    }
    return server;
}

static void group_init(struct cluster *cluster, struct group *group, uint64_t id, uint32_t count)
{
    group->id = id;
    group->founder_count = count;
    for (uint32_t i = 0; i < count; i++) {
        (void)add_server(cluster, group, NULL);
    }
}

/* What clients and servers that start from now on are told. */
static void list_controllers(struct cluster *cluster)
{
    size_t used = 0;
    for (uint32_t i = 0; i < cluster->controllers.server_count; i++) {
        const struct server *server = &cluster->controllers.servers[i];
        if (!server->retired) {
            int written = snprintf(cluster->controller_addresses + used,
                                   sizeof cluster->controller_addresses - used, "%s%s",
                                   used == 0 ? "" : ",", server->host->address);
            used += (size_t)written;
        }
    }
}

static void init_groups(struct cluster *cluster)
{
    group_init(cluster, &cluster->controllers, CONTROLLER_GROUP, cluster->options.controllers);
    list_controllers(cluster);
    for (uint32_t i = 0; i < cluster->options.groups; i++) {
        cluster->group_count++;
        group_init(cluster, &cluster->groups[i], 100 + i, cluster->options.replicas);
    }
}

struct server *group_add_server(struct group *group)
{
    struct cluster *cluster = group->servers[0].cluster;
    struct server *server = add_server(cluster, group, NULL);
    list_controllers(cluster);
    return server;
}

struct server *group_add_server_at(struct group *group, const struct server *retired)
{
    struct sim_host *host = retired->host;
    ASSERT(retired->retired && !host->up);
    fake_vfs_destroy(host->disk);
    host->disk = fake_vfs_create(rng_next(&sim_world()->rng));
    host->damaged = false;
    host->disk_fails = false;
    struct cluster *cluster = group->servers[0].cluster;
    struct server *server = add_server(cluster, group, host);
    list_controllers(cluster);
    return server;
}

void server_retire(struct server *server)
{
    server_crash(server);
    server->retired = true;
    list_controllers(server->cluster);
}

struct cluster *cluster_create(const struct cluster_options *options)
{
    struct cluster *cluster = mem_calloc(1, sizeof *cluster);
    cluster->options = *options;
    init_groups(cluster);
    cluster->admin = admin_create(cluster, "admin");
    cluster->oracle = oracle_create(cluster);
    applied_begin();
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
    sim_sometimes_add(S_ENTRY_COMPARED, applied_compared());
    applied_end();
    admin_destroy(cluster->admin);
    for (uint32_t i = 0; i < cluster->group_count; i++) {
        group_end(&cluster->groups[i]);
    }
    group_end(&cluster->controllers);
    for (uint32_t i = 0; i < cluster->client_host_count; i++) {
        client_host_end(cluster->client_hosts[i]);
    }
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

/* ---- groups ---- */

void server_wipe(struct server *server)
{
    server_kill(server);
    fake_vfs_destroy(server->host->disk);
    server->host->disk = fake_vfs_create(rng_next(&sim_world()->rng));
    if (server->store != NULL) {
        fake_store_destroy(server->store);
        server->store = fake_store_create(fake_vfs_vfs(server->host->disk));
    }
}

void group_wipe(struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        server_wipe(&group->servers[i]);
    }
    oracle_forget(group->servers[0].cluster->oracle, group);
    applied_forget(group->id);
}

void cluster_suspend(struct cluster *cluster, uint64_t duration_ns)
{
    (void)cluster;
    struct sim_world *world = sim_world();
    for (uint32_t i = 0; i < world->host_count; i++) {
        if (world->hosts[i]->up && !world->hosts[i]->dying) {
            sim_host_pause(world->hosts[i], duration_ns);
        }
    }
    world->limit_ns += duration_ns;
    sim_run(duration_ns);
}

void group_crash(struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        server_crash(&group->servers[i]);
    }
}

void group_start(struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        if (!group->servers[i].retired) {
            server_start(&group->servers[i]);
        }
    }
}

uint32_t group_server_count(const struct group *group)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < group->server_count; i++) {
        count += !group->servers[i].retired;
    }
    return count;
}

uint32_t group_up_count(const struct group *group)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < group->server_count; i++) {
        count += server_is_up(&group->servers[i]);
    }
    return count;
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

/* ---- settling ---- */

struct settle_wait {
    struct cluster *cluster;
    const struct config *config;
};

/* A group that was never in a config may have taken none. A later config than that one was made by
 * a group that has other replicas since. */
static bool table_is_quiet(const struct kv_table *table, const struct config *config)
{
    if (table->config_number == 0 && config_find_group(config, table->group_id) == NULL) {
        return true;
    }
    if (table->config_number < config->number || table->pending_count > 0 ||
        !kv_table_is_settled(table)) {
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
            if (group_up_count(group) > 0) {
                return false;
            }
            continue;
        }
        struct kv_table *table = kv_machine_table(server_machine(leader));
        bool quiet = table_is_quiet(table, wait->config);
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
    struct settle_wait wait = {.cluster = cluster, .config = config};
    if (!sim_run_until(timeout_ns, all_settled, &wait)) {
        SIM_FAIL("the groups have not settled config %llu after %.0f s",
                 (unsigned long long)config->number, (double)timeout_ns / 1e9);
    }
    config_free(config);
}

/* ---- clients ---- */

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

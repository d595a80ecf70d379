/* One server of the simulated cluster: what shardctrler/main.c and shardkv/main.c put together, in
 * their order, on a simulated host; and its ends. Thread: one. */
#include "sim/cluster.h"

#include "base/assert.h"
#include "lib/fake_store.h"
#include "proto/shard_hash.h"
#include "rpc/rpc.h"
#include "shardctrler/config_machine.h"
#include "shardctrler/service.h"
#include "shardkv/kv_machine.h"
#include "shardkv/move_service.h"
#include "shardkv/mover_runtime.h"
#include "shardkv/service.h"
#include "shardkv/write_buffer.h"
#include "sim/sim_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WHY_BYTES = 512,
    BUFFER_TABLE_BYTES = 64 * 1024, /* some hundred rows */
};

struct controller_process {
    struct rpc *rpc;
    struct rpc_server *rpc_server;
    struct config_machine *machine;
    struct service *service;
    struct node *node;
};

struct kv_process {
    struct rpc *rpc;
    struct rpc_server *rpc_server;
    struct store tables; /* what the disk holds */
    struct store store;  /* the write buffer over it: dies with the process */
    struct mover_runtime *mover;
    struct kv_machine *machine;
    struct node *node;
    struct worker *worker;
    struct kv_service *service;
    struct move_service *moves;
};

bool server_is_up(const struct server *server)
{
    return server->host->up && !server->retired; /* another may run on its machine */
}

struct node *server_node(const struct server *server)
{
    return server->controller != NULL ? server->controller->node
           : server->kv != NULL       ? server->kv->node
                                      : NULL;
}

struct kv_machine *server_machine(const struct server *server)
{
    return server->kv == NULL ? NULL : server->kv->machine;
}

struct state_machine server_state(const struct server *server)
{
    ASSERT(server->kv != NULL || server->controller != NULL);
    return server->kv != NULL ? kv_machine_ops(server->kv->machine)
                              : config_machine_interface(server->controller->machine);
}

/* ---- start ---- */

static struct group *group_of(const struct server *server)
{
    return server->group_id == CONTROLLER_GROUP ? &server->cluster->controllers
                                                : cluster_group(server->cluster, server->group_id);
}

static struct node_options node_options_of(const struct server *server,
                                           struct node_member members[CLUSTER_REPLICAS_MAX])
{
    const struct group *group = group_of(server);
    bool founder = server->replica_id <= group->founder_count;
    for (uint32_t i = 0; i < group->founder_count; i++) {
        members[i] = (struct node_member){.id = group->servers[i].replica_id,
                                          .address = group->servers[i].host->address};
    }
    struct node_options options = node_options_default();
    options.cluster_id = cluster_id_of_name(CLUSTER_NAME);
    options.group_id = server->group_id;
    options.replica_id = server->replica_id;
    options.dir = "data";
    options.members = members;
    options.member_count = founder ? group->founder_count : 0; /* who is added waits for it */
    options.segment_bytes = 256ull * 1024;
    options.cache_bytes_max = 64ull * 1024;
    options.clock = clock_system();
    options.vfs = fake_vfs_vfs(server->host->disk);
    options.seed = rng_next(&sim_world()->rng);
    options.lease_reads = server->cluster->options.lease_reads;
    uint64_t flush_bytes = server->cluster->options.flush_log_bytes;
    if (flush_bytes != 0) {
        options.flush_log_bytes = flush_bytes;
        options.segment_bytes = 64ull * 1024;
    }
    return options;
}

static void make_rpc(const struct server *server, struct rpc **rpc, struct rpc_server **rpc_server)
{
    struct rpc_options rpc_options = rpc_options_default();
    struct rpc_server_options options = rpc_server_options_default(server->host->address);
    int error = rpc_create(&rpc_options, rpc);
    SIM_CHECK_EQ(error, 0);
    error = rpc_server_create(*rpc, &options, rpc_server);
    SIM_CHECK_EQ(error, 0);
}

/* The process says why and ends; what it made until then goes with it in server_reap. */
static void start_failed(struct server *server, int error, const char *why)
{
    server->host->damaged = server->host->damaged || error == ERR_CORRUPT;
    sim_host_doom(server->host, why);
}

static void controller_start(struct server *server)
{
    struct controller_process *process = mem_calloc(1, sizeof *process);
    struct node_member members[CLUSTER_REPLICAS_MAX];
    struct node_options options = node_options_of(server, members);
    char why[WHY_BYTES] = "";
    make_rpc(server, &process->rpc, &process->rpc_server);
    int error = config_machine_open(options.vfs, options.dir, &process->machine, why, sizeof why);
    if (error == 0) {
        process->service = service_create(
            &(struct service_options){.cluster_id = options.cluster_id,
                                      .shard_count = server->cluster->options.shards},
            process->machine);
        struct state_machine machine = config_machine_interface(process->machine);
        struct node_observer observer = service_observer(process->service);
        error = node_create(&options, &machine, &observer, process->rpc, &process->node, why,
                            sizeof why);
    }
    server->controller = process;
    if (error != 0) {
        start_failed(server, error, why);
        return;
    }
    error = node_add_methods(process->node, process->rpc_server);
    SIM_CHECK_EQ(error, 0);
    error = service_attach(process->service, process->node, process->rpc_server);
    SIM_CHECK_EQ(error, 0);
    error = rpc_server_start(process->rpc_server);
    SIM_CHECK_EQ(error, 0);
    error = node_start(process->node);
    SIM_CHECK_EQ(error, 0);
}

static int kv_open(struct server *server, struct kv_process *process,
                   const struct node_options *options, char *why, size_t why_size)
{
    struct mover_runtime_options mover = {
        .cluster_id = options->cluster_id,
        .group_id = server->group_id,
        .clock = options->clock,
        .rpc = process->rpc,
        .controllers = server->cluster->controller_addresses,
        .seed = options->seed ^ 0x6d6f766572ull,
    };
    int error = mover_runtime_create(&mover, &process->mover, why, why_size);
    if (error != 0) {
        return error;
    }
    process->tables = fake_store_as_store(server->store);
    struct write_buffer_options buffer = {.table_bytes_max = BUFFER_TABLE_BYTES,
                                          .without_thread = true};
    error = write_buffer_open(&process->tables, &buffer, &process->store);
    if (error != 0) {
        return error;
    }
    struct kv_machine_options machine = {
        .group_id = server->group_id,
        .store = &process->store,
        .vfs = options->vfs,
        .changed = mover_runtime_table_changed,
        .context = process->mover,
    };
    error = kv_machine_create(&machine, &process->machine, why, why_size);
    if (error != 0) {
        return error;
    }
    struct state_machine state = kv_machine_ops(process->machine);
    struct node_observer observer = {.role_changed = mover_runtime_role_changed,
                                     .members_committed = mover_runtime_members_committed,
                                     .context = process->mover};
    return node_create(options, &state, &observer, process->rpc, &process->node, why, why_size);
}

static int kv_serve(struct kv_process *process, const struct node_options *options)
{
    int error = worker_create(&process->worker);
    if (error != 0) {
        return error;
    }
    process->service = kv_service_create(&(struct kv_service_options){
        .cluster_id = options->cluster_id,
        .version = "sim",
        .node = process->node,
        .machine = process->machine,
        .worker = process->worker,
    });
    process->moves = move_service_create(&(struct move_service_options){
        .cluster_id = options->cluster_id,
        .group_id = options->group_id,
        .node = process->node,
        .machine = process->machine,
        .worker = process->worker,
    });
    error = node_add_methods(process->node, process->rpc_server);
    error = error != 0 ? error : kv_service_add_methods(process->service, process->rpc_server);
    error = error != 0 ? error : move_service_add_methods(process->moves, process->rpc_server);
    error = error != 0 ? error
                       : mover_runtime_start(process->mover, process->node, process->machine,
                                             process->service);
    error = error != 0 ? error : rpc_server_start(process->rpc_server);
    return error != 0 ? error : node_start(process->node);
}

static void kv_start(struct server *server)
{
    struct kv_process *process = mem_calloc(1, sizeof *process);
    struct node_member members[CLUSTER_REPLICAS_MAX];
    struct node_options options = node_options_of(server, members);
    char why[WHY_BYTES] = "";
    make_rpc(server, &process->rpc, &process->rpc_server);
    int error = kv_open(server, process, &options, why, sizeof why);
    server->kv = process;
    if (error != 0) {
        start_failed(server, error, why);
        return;
    }
    error = kv_serve(process, &options);
    SIM_CHECK_EQ(error, 0);
}

void server_start(struct server *server)
{
    if (server_is_up(server)) {
        return;
    }
    sim_trace("start %s", server->host->address);
    sim_host_boot(server->host);
    struct sim_host *former = sim_enter(server->host);
    if (server->group_id == CONTROLLER_GROUP) {
        controller_start(server);
    } else {
        kv_start(server);
    }
    sim_leave(former);
    sim_world()->counters.restarts += server->host->incarnation > 0;
    server_reap(server); /* it may have ended itself at once */
}

/* ---- end ---- */

static void controller_end(struct server *server)
{
    struct controller_process *process = server->controller;
    if (process->node != NULL) {
        node_stop(process->node);
    }
    rpc_server_shutdown(process->rpc_server, 0);
    server->controller = NULL;
    node_destroy(process->node);
    service_destroy(process->service);
    if (process->machine != NULL) {
        config_machine_close(process->machine);
    }
    rpc_server_destroy(process->rpc_server);
    rpc_destroy(process->rpc);
    free(process);
}

static void kv_end(struct server *server)
{
    struct kv_process *process = server->kv;
    if (process->node != NULL) {
        node_stop(process->node);
    }
    rpc_server_shutdown(process->rpc_server, 0);
    server->kv = NULL;
    mover_runtime_destroy(process->mover);
    worker_destroy(process->worker);
    kv_service_destroy(process->service);
    move_service_destroy(process->moves);
    node_destroy(process->node);
    kv_machine_destroy(process->machine);
    write_buffer_abandon(&process->store);
    rpc_server_destroy(process->rpc_server);
    rpc_destroy(process->rpc);
    free(process);
}

static void process_end(struct server *server)
{
    struct sim_host *former = sim_enter(server->host);
    if (server->controller != NULL) {
        controller_end(server);
    } else {
        kv_end(server);
    }
    sim_leave(former);
}

/* The kernel closes a dead process's connections, and its peers see that soon, unless the network
 * is cut just then. And connections break for other reasons too: somebody is told the same of a
 * server that lives. */
static void tell_peers(struct server *server)
{
    struct cluster *cluster = server->cluster;
    struct group *group = server->group_id == CONTROLLER_GROUP
                              ? &cluster->controllers
                              : cluster_group(cluster, server->group_id);
    uint64_t wrong = 1 + sim_between(0, group->server_count - 1);
    for (uint32_t i = 0; i < group->server_count; i++) {
        struct server *other = &group->servers[i];
        struct node *node = other != server && server_is_up(other) ? server_node(other) : NULL;
        if (node != NULL && sim_between(0, 3) > 0) {
            sim_node_peer_closed(node, server->replica_id);
        }
        if (node != NULL && wrong != other->replica_id && sim_between(0, 7) == 0) {
            sim_node_peer_closed(node, wrong);
        }
    }
}

static void end_now(struct server *server, enum fake_crash lose)
{
    tell_peers(server);
    sim_world()->counters.crashes++;
    sim_host_die(server->host);
    process_end(server);
    sim_host_dead(server->host, lose);
    if (server->store != NULL) {
        fake_store_crash(server->store,
                         (size_t)sim_between(0, fake_store_unflushed(server->store)));
    }
}

void server_crash(struct server *server)
{
    if (server_is_up(server)) {
        sim_trace("crash %s", server->host->address);
        end_now(server, FAKE_CRASH_ANY);
    }
}

void server_kill(struct server *server)
{
    if (server_is_up(server)) {
        sim_trace("kill %s", server->host->address);
        end_now(server, FAKE_CRASH_KEEP);
    }
}

void server_reap(struct server *server)
{
    if (server_is_up(server) && server->host->dying) {
        sim_trace("%s has ended itself", server->host->address);
        end_now(server, sim_between(0, 1) == 0 ? FAKE_CRASH_KEEP : FAKE_CRASH_ANY);
    }
}

void cluster_reap(struct cluster *cluster)
{
    for (uint32_t i = 0; i <= cluster->group_count; i++) {
        struct group *group =
            i == cluster->group_count ? &cluster->controllers : &cluster->groups[i];
        for (uint32_t j = 0; j < group->server_count; j++) {
            server_reap(&group->servers[j]);
        }
    }
}

/* The product's store_failure_stop does not return: the process ends. */
int __wrap_store_failure_stop(int error, const char *where);
int __wrap_store_failure_stop(int error, const char *where)
{
    if (error == ERR_IO || error == ERR_CORRUPT || error == ERR_NO_SPACE) {
        sim_host_doom(sim_world()->current, where);
    }
    return error;
}

void server_stop(struct server *server)
{
    if (!server_is_up(server)) {
        return;
    }
    sim_trace("stop %s", server->host->address);
    process_end(server);
    sim_host_die(server->host);
    sim_host_dead(server->host, FAKE_CRASH_KEEP);
    if (server->store != NULL) { /* what was not flushed is replayed from the log */
        fake_store_crash(server->store, 0);
    }
}

/* ---- looking in ---- */

struct sizes {
    struct fake_vfs *disk;
    uint64_t bytes;
};

static void add_size(void *context, const char *name)
{
    struct sizes *sizes = context;
    char path[VFS_PATH_BYTES_MAX];
    uint64_t size = 0;
    int error = vfs_path(path, "data/wal", name);
    SIM_CHECK_EQ(error, 0);
    if (fake_vfs_file_size(sizes->disk, path, &size)) {
        sizes->bytes += size;
    }
}

uint64_t server_log_bytes(const struct server *server)
{
    struct sizes sizes = {.disk = server->host->disk};
    const struct vfs *vfs = fake_vfs_vfs(server->host->disk);
    int error = vfs->list(vfs->context, "data/wal", add_size, &sizes);
    SIM_CHECK_EQ(error, 0);
    return sizes.bytes;
}

uint64_t server_store_bytes(const struct server *server)
{
    struct store store =
        server->kv != NULL ? server->kv->store : fake_store_as_store(server->store);
    struct store_iterator *iterator =
        store.ops->iterator_create(store.store, NULL, BYTES_EMPTY, BYTES_EMPTY);
    uint64_t bytes = 0;
    for (; store.ops->iterator_valid(iterator); store.ops->iterator_next(iterator)) {
        bytes += store.ops->iterator_key(iterator).size + store.ops->iterator_value(iterator).size;
    }
    store.ops->iterator_destroy(iterator);
    return bytes;
}

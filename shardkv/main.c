/* shardkv: one replica of one shard group. See server_main.h for what every server does. */
#include "base/log.h"
#include "base/rng.h"
#include "raft/node/server_main.h"
#include "shardkv/move_service.h"
#include "shardkv/mover_runtime.h"
#include "shardkv/service.h"
#include "shardkv/write_buffer.h"

#include <stdio.h>
#include <string.h>

enum { WHY_BYTES = 512 };

struct program {
    struct server server;
    uint64_t group_id;
    const char *controllers;
    struct store_rocksdb_options store_options;

    struct store tables; /* on disk */
    struct store store;  /* what is newest in memory, over `tables` */
    struct kv_machine *machine;
    struct worker *worker;
    struct mover_runtime *mover;
    struct node *node;
    struct kv_service *service;
    struct move_service *moves;
};

/* The state machine's own folder within --data. */
static enum server_exit open_machine(struct program *program)
{
    char path[VFS_PATH_BYTES_MAX];
    char why[WHY_BYTES] = "";
    int error = vfs_path(path, program->server.settings.data, "state");
    if (error == 0) {
        error =
            store_rocksdb_open(path, &program->store_options, &program->tables, why, sizeof why);
    }
    if (error == 0) {
        struct write_buffer_options options = {
            .table_bytes_max = program->store_options.memtable_bytes,
            .seed = rng_seed_from_system(),
        };
        error = write_buffer_open(&program->tables, &options, &program->store);
    }
    if (error == 0) {
        struct kv_machine_options options = {
            .group_id = program->group_id,
            .store = &program->store,
            .vfs = vfs_system(),
            .changed = mover_runtime_table_changed,
            .context = program->mover,
        };
        error = kv_machine_create(&options, &program->machine, why, sizeof why);
    }
    if (error != 0) {
        if (strstr(why, "/LOCK: ") != NULL) { /* RocksDB has words for it, no code */
            server_main_complain("--data=%s: in use by another process",
                                 program->server.settings.data);
            return SERVER_EXIT_LOCKED;
        }
        server_main_complain("--data=%s: cannot open the state: %s", program->server.settings.data,
                             why[0] != '\0' ? why : err_text(error));
        return server_exit_of_error(error);
    }
    return SERVER_EXIT_OK;
}

static enum server_exit open_mover(struct program *program)
{
    char why[WHY_BYTES] = "";
    struct mover_runtime_options options = {
        .cluster_id = program->server.cluster_id,
        .group_id = program->group_id,
        .clock = clock_system(),
        .rpc = program->server.rpc,
        .controllers = program->controllers,
        .seed = program->server.node.seed ^
                0x6d6f766572ull, /* not the sequence of the election's timeouts */
    };
    int error = mover_runtime_create(&options, &program->mover, why, sizeof why);
    if (error != 0) {
        server_main_complain("--controllers: %s", why[0] != '\0' ? why : err_text(error));
        return SERVER_EXIT_USAGE;
    }
    return SERVER_EXIT_OK;
}

static enum server_exit open_node(struct program *program)
{
    char why[WHY_BYTES] = "";
    struct state_machine machine = kv_machine_ops(program->machine);
    struct node_observer observer = {.role_changed = mover_runtime_role_changed,
                                     .members_committed = mover_runtime_members_committed,
                                     .context = program->mover};
    int error = node_create(&program->server.node, &machine, &observer, program->server.rpc,
                            &program->node, why, sizeof why);
    if (error != 0) {
        server_main_complain("--data=%s: %s", program->server.settings.data,
                             why[0] != '\0' ? why : err_text(error));
        return server_exit_of_error(error);
    }
    return SERVER_EXIT_OK;
}

static enum server_exit open_services(struct program *program)
{
    int error = worker_create(&program->worker);
    if (error == 0) {
        program->service = kv_service_create(&(struct kv_service_options){
            .cluster_id = program->server.cluster_id,
            .version = SHARDKV_VERSION,
            .node = program->node,
            .machine = program->machine,
            .worker = program->worker,
        });
        program->moves = move_service_create(&(struct move_service_options){
            .cluster_id = program->server.cluster_id,
            .group_id = program->group_id,
            .node = program->node,
            .machine = program->machine,
            .worker = program->worker,
        });
        error = node_add_methods(program->node, program->server.rpc_server);
    }
    error =
        error != 0 ? error : kv_service_add_methods(program->service, program->server.rpc_server);
    error =
        error != 0 ? error : move_service_add_methods(program->moves, program->server.rpc_server);
    error = error != 0 ? error
                       : mover_runtime_start(program->mover, program->node, program->machine,
                                             program->service);
    if (error != 0) {
        server_main_complain("cannot start: %s", err_text(error));
        return SERVER_EXIT_FAILURE;
    }
    return SERVER_EXIT_OK;
}

/* In the order that lets everyone still find what he may call: what answers last goes last. */
static void close_all(struct program *program)
{
    mover_runtime_destroy(program->mover);
    worker_destroy(program->worker);
    kv_service_destroy(program->service);
    move_service_destroy(program->moves);
    if (program->node != NULL) {
        node_destroy(program->node);
    }
    kv_machine_destroy(program->machine);
    write_buffer_close(&program->store);
    store_rocksdb_close(&program->tables);
    server_main_close(&program->server);
}

int main(int argc, char **argv)
{
    static struct program program; /* not on a stack that may be small */
    const uint64_t mib = 1024 * 1024;
    program.store_options =
        (struct store_rocksdb_options){.memtable_bytes = 16 * mib, .block_cache_bytes = 8 * mib};
    const struct flag flags[] = {
        {"group", FLAG_UINT, &program.group_id, 1, UINT64_MAX, true, "SHARDKV_GROUP", "N",
         "id of the group this replica belongs to"},
        {"controllers", FLAG_STRING, &program.controllers, 0, 0, true, "SHARDKV_CONTROLLERS",
         "LIST", "addresses of the shard controllers: HOST:PORT,HOST:PORT,..."},
        {"memtable-size", FLAG_BYTES, &program.store_options.memtable_bytes, mib, 1024 * mib, false,
         NULL, "SIZE",
         "newest rows kept in memory before they are written to a table; there may be two of them"},
        {"block-cache-size", FLAG_BYTES, &program.store_options.block_cache_bytes, mib, 65536 * mib,
         false, NULL, "SIZE", "table blocks, indexes and filters kept in memory"},
    };
    const struct server_program description = {
        .name = "shardkv",
        .summary = "One replica of a shard group: stores keys of the shards its group owns.",
        .version = SHARDKV_VERSION,
        .flags = flags,
        .flag_count = sizeof flags / sizeof flags[0],
    };
    enum server_exit code = SERVER_EXIT_OK;
    if (!server_main_parse(&description, argc, argv, &program.server, &code)) {
        return (int)code;
    }
    code = server_main_open(&program.server, program.group_id);
    if (code != SERVER_EXIT_OK) {
        return (int)code;
    }
    code = open_mover(&program);
    code = code != SERVER_EXIT_OK ? code : open_machine(&program);
    code = code != SERVER_EXIT_OK ? code : open_node(&program);
    code = code != SERVER_EXIT_OK ? code : open_services(&program);
    if (code == SERVER_EXIT_OK) {
        code = server_main_run(&program.server, program.node);
    }
    close_all(&program);
    return (int)code;
}

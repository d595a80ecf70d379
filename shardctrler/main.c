/* shardctrler: one replica of the shard controller. */
#include "base/log.h"
#include "proto/limits.h"
#include "raft/node/server_main.h"
#include "shardctrler/config_machine.h"
#include "shardctrler/service.h"

enum {
    CONTROLLER_GROUP_ID = 0, /* groups of shards start at 1 */
    SHARDS_DEFAULT = 64,
};

static enum server_exit run(struct server *server, struct config_machine *machine,
                            struct service *service)
{
    char why[512] = "";
    struct state_machine sm = config_machine_interface(machine);
    struct node_observer observer = service_observer(service);
    struct node *node = NULL;
    int error = node_create(&server->node, &sm, &observer, server->rpc, &node, why, sizeof why);
    if (error != 0) {
        server_main_complain("%s", why);
        return server_exit_of_error(error);
    }
    error = node_add_methods(node, server->rpc_server);
    if (error == 0) {
        error = service_attach(service, node, server->rpc_server);
    }
    enum server_exit exit_code;
    if (error != 0) {
        server_main_complain("adding methods: %s", err_text(error));
        exit_code = SERVER_EXIT_FAILURE;
    } else {
        exit_code = server_main_run(server, node);
    }
    node_destroy(node);
    return exit_code;
}

int main(int argc, char **argv)
{
    uint64_t shards = SHARDS_DEFAULT;
    const struct flag flags[] = {
        {.name = "shards",
         .kind = FLAG_UINT,
         .value = &shards,
         .min = 1,
         .max = SHARD_COUNT_MAX,
         .placeholder = "N",
         .help = "number of shards of a new cluster; never changes after it was created"},
    };
    const struct server_program program = {
        .name = "shardctrler",
        .summary = "one replica of the shard controller, which says which group owns which shard",
        .version = SHARDKV_VERSION,
        .details = "Start three of them with the same --cluster and --peers, each with its own "
                   "--id and --data.\n"
                   "Then join groups with shardctl.",
        .flags = flags,
        .flag_count = sizeof flags / sizeof flags[0],
    };
    struct server server;
    enum server_exit exit_code;
    if (!server_main_parse(&program, argc, argv, &server, &exit_code)) {
        return (int)exit_code;
    }
    exit_code = server_main_open(&server, CONTROLLER_GROUP_ID);
    if (exit_code != SERVER_EXIT_OK) {
        return (int)exit_code;
    }
    char why[512] = "";
    struct config_machine *machine = NULL;
    int error = config_machine_open(server.node.vfs, server.node.dir, &machine, why, sizeof why);
    if (error != 0) {
        server_main_complain("%s", why);
        exit_code = server_exit_of_error(error);
    } else {
        struct service *service =
            service_create(&(struct service_options){.cluster_id = server.cluster_id,
                                                     .shard_count = (uint32_t)shards},
                           machine);
        exit_code = run(&server, machine, service);
        service_destroy(service);
        config_machine_close(machine);
    }
    server_main_close(&server);
    return (int)exit_code;
}

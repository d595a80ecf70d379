/* The Controller service (proto/shardkv.proto) and Admin.Status over one node. Thread-safe; nothing
 * here blocks. */
#ifndef SHARDCTRLER_SERVICE_H
#define SHARDCTRLER_SERVICE_H

#include "base/error.h"
#include "raft/node/node.h"
#include "shardctrler/config_machine.h"

struct rpc_server;
struct service;

struct service_options {
    uint64_t cluster_id;
    uint32_t shard_count; /* proposed when this replica leads a cluster that is not created yet */
};

struct service *service_create(const struct service_options *options,
                               struct config_machine *machine); /* gives */
/* What the node tells of its role; pass it to node_create. */
struct node_observer service_observer(struct service *service);
/* Adds the methods. Before the server starts. The node must outlive every call. */
int service_attach(struct service *service, struct node *node, struct rpc_server *server) MUST_USE;
/* After the node stopped and the server was shut down. */
void service_destroy(struct service *service);

#endif

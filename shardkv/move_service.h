/* The source's side of moves: ShardMove.Open, Read, Freeze, Drop. Answered by the leader; Open and
 * Freeze after a ReadIndex, so that a deposed leader does not speak for the group; Drop through the
 * log. Reading rows is the worker's.
 *
 * Threads: handlers on rpc threads; answers on the apply thread, the loop thread and the worker. */
#ifndef SHARDKV_MOVE_SERVICE_H
#define SHARDKV_MOVE_SERVICE_H

#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "shardkv/kv_machine.h"
#include "shardkv/worker.h"

struct move_service;

struct move_service_options {
    uint64_t cluster_id;
    uint64_t group_id;
    struct node *node;
    struct kv_machine *machine;
    struct worker *worker;
};

enum {
    MOVE_TOTALS_KEPT = 256, /* totals of frozen shards, so that a repeated Freeze costs nothing */
    MOVE_SCAN_ROWS = 8192,  /* rows counted before others get their turn */
};

struct move_service *move_service_create(const struct move_service_options *options); /* gives */
int move_service_add_methods(struct move_service *service, struct rpc_server *server) MUST_USE;
/* After the node and the server have stopped and the worker is gone. */
void move_service_destroy(struct move_service *service);

#endif

/* What clients reach: Kv (unary and Batch) and Admin.Status. Decodes, checks bounds and ownership,
 * and hands the very bytes of a block to the node; ownership is checked again when it is applied or
 * served.
 *
 * Threads: handlers on rpc threads, answers on the node's apply, loop and background threads;
 * nothing blocks. Every request is one heap object that ends in exactly one answer. The service
 * must outlive the node's and the server's last callback. */
#ifndef SHARDKV_SERVICE_H
#define SHARDKV_SERVICE_H

#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "shardkv/kv_machine.h"
#include "shardkv/worker.h"

struct kv_service;

struct kv_service_options {
    uint64_t cluster_id;
    const char *version;
    struct node *node;
    struct kv_machine *machine;
    struct worker *worker; /* for what reads the disk */
};

enum {
    STREAM_BLOCKS_MAX =
        256, /* blocks of one stream without an answer; over it the stream is not read */
    STREAM_BYTES_MAX = 32 * 1024 * 1024, /* their bytes */
};

struct kv_service *kv_service_create(const struct kv_service_options *options); /* gives */
int kv_service_add_methods(struct kv_service *service, struct rpc_server *server) MUST_USE;
/* A config newer than the group's own, for routes. Copied when it is newer than what is known. Any
 * thread. */
void kv_service_learn_config(struct kv_service *service, const struct config *config);
/* After the node and the server have stopped. */
void kv_service_destroy(struct kv_service *service);

#endif

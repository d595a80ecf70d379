/* The driver of moves at run time: one thread that feeds the pure driver (mover.h) with what
 * happens and carries out what it says, over the node, gRPC and the controllers. */
#ifndef SHARDKV_MOVER_RUNTIME_H
#define SHARDKV_MOVER_RUNTIME_H

#include "raft/node/node.h"
#include "rpc/rpc.h"
#include "shardkv/kv_machine.h"
#include "shardkv/service.h"

struct mover_runtime;

struct mover_runtime_options {
    uint64_t cluster_id;
    uint64_t group_id;
    const struct clock *clock;
    struct rpc *rpc;
    const char *controllers; /* "host:port,host:port" */
    uint64_t seed;
};

enum { MOVER_CHANNELS_MAX = 64 };

/* ERR_INVALID: `why` names the bad controller address. gives *out. Nothing runs yet, but the
 * notifications below are welcome. */
int mover_runtime_create(const struct mover_runtime_options *options, struct mover_runtime **out,
                         char *why, size_t why_size) MUST_USE;
/* Starts the thread and the watch on the controllers; newer configs are told to `service` too. */
int mover_runtime_start(struct mover_runtime *runtime, struct node *node,
                        struct kv_machine *machine, struct kv_service *service) MUST_USE;
/* Waits until nothing of it runs. After node_stop, so that what was proposed has been answered.
 * NULL is fine. */
void mover_runtime_destroy(struct mover_runtime *runtime);

/* For kv_machine_options.changed and node_observer; any thread, never block. `context` is the
 * runtime. */
void mover_runtime_table_changed(void *context);
void mover_runtime_members_committed(void *context, const struct raft_membership *membership);
void mover_runtime_role_changed(void *context, enum node_role role, uint64_t term,
                                uint64_t leader_id, const char *leader_address);

#endif

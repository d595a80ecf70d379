/* Pushes configs to those who watch: each gets every config from a number on, in order (or only the
 * newest ones). Only a leader has watchers; when it stops leading, each is told and its stream
 * ends, so that it looks for the new one. Thread-safe. */
#ifndef SHARDCTRLER_WATCH_H
#define SHARDCTRLER_WATCH_H

#include "rpc/rpc.h"
#include "shardctrler/config_machine.h"

struct watch_hub;

enum {
    WATCHERS_MAX = 1024,
    WATCH_CONFIGS_PER_TURN = 64, /* sent to one watcher before the next one has its turn */
};

struct watch_hub *watch_hub_create(struct config_machine *machine, uint64_t cluster_id); /* gives */
void watch_hub_destroy(
    struct watch_hub *hub); /* after the server was shut down: no stream is left */
struct rpc_stream_events watch_hub_events(void); /* the context is the hub */
/* A config was made, or one may have been. */
void watch_hub_push(struct watch_hub *hub);
/* leading false: every watcher is told NOT_LEADER with `leader_address` ("" if unknown) and ended.
 */
void watch_hub_set_leading(struct watch_hub *hub, bool leading, const char *leader_address);

#endif

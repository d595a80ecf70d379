/* The controller's replicated state: the history of configs and the sessions of those who changed
 * it. Implements struct state_machine over memory; what must survive is one file, written at a
 * flush and replayed from the log otherwise.
 *
 * Commands (payload: u8 kind, then the body)
 *   CREATE  varint shard_count                the first leader's; later ones change nothing
 *   JOIN, LEAVE, MOVE, UPDATE_MEMBERS         the request message's bytes, as the client sent them
 * Results: the bytes of a ChangeResponse (none for CREATE).
 *
 * Thread-safe: one mutex; apply holds it for one batch. */
#ifndef SHARDCTRLER_CONFIG_MACHINE_H
#define SHARDCTRLER_CONFIG_MACHINE_H

#include "base/vfs.h"
#include "proto/config.h"
#include "raft/node/state_machine.h"

enum config_command {
    CONFIG_COMMAND_CREATE = 1,
    CONFIG_COMMAND_JOIN,
    CONFIG_COMMAND_LEAVE,
    CONFIG_COMMAND_MOVE,
    CONFIG_COMMAND_UPDATE_MEMBERS,
};

enum {
    /* Live sessions; about 100 bytes each, so 1.6 MB. Idle ones are forgotten after SESSION_TTL_MS.
     */
    CONFIG_SESSIONS_MAX = 16384,
};

struct config_machine;

/* Opens the state in `dir` (made when missing). ERR_CORRUPT, ERR_IO with `why`. gives *out. */
int config_machine_open(const struct vfs *vfs, const char *dir, struct config_machine **out,
                        char *why, size_t why_size) MUST_USE;
void config_machine_close(struct config_machine *machine);
struct state_machine config_machine_interface(struct config_machine *machine);

/* Runs on the apply thread, outside the mutex, after a batch (or a restore) that made at least one
 * config. */
typedef void (*config_machine_changed_fn)(void *context);
void config_machine_on_change(struct config_machine *machine, config_machine_changed_fn changed,
                              void *context); /* before the node starts */

/* 0 until CREATE is applied. */
uint32_t config_machine_shard_count(struct config_machine *machine);
uint64_t config_machine_latest_number(struct config_machine *machine);
/* gives a copy. ERR_CONFIG_UNKNOWN; ERR_BUSY before CREATE. */
int config_machine_get(struct config_machine *machine, uint64_t number,
                       struct config **out) MUST_USE;
int config_machine_latest(struct config_machine *machine, struct config **out) MUST_USE;

#endif

/* What config_machine.c guards: the state itself, its commands and its encoding. Pure; not
 * thread-safe. */
#ifndef SHARDCTRLER_CONFIG_STATE_H
#define SHARDCTRLER_CONFIG_STATE_H

#include "base/error.h"
#include "raft/core/types.h"
#include "raft/node/session.h"
#include "raft/node/state_machine.h"
#include "shardctrler/history.h"

struct client_session {
    uint64_t client_id;
    struct session session;
};

struct config_state {
    struct raft_position applied;
    struct history *history;         /* NULL until CREATE */
    struct client_session *sessions; /* by ascending client_id */
    size_t session_count;
    size_t session_capacity;
};

void config_state_init(struct config_state *state);
void config_state_deinit(struct config_state *state);

/* One command; the answer goes to command->result. True when a config was made. */
bool config_state_apply(struct config_state *state, const struct sm_command *command);

/* Appends everything; equal states give equal bytes. */
void config_state_encode(const struct config_state *state, struct buf *out);
/* Into an inited state, replacing what it holds. ERR_CORRUPT, and ERR_UNSUPPORTED for what another
 * version of this program wrote, leave it as it was. */
int config_state_decode(struct bytes bytes, struct config_state *state) MUST_USE;

#endif

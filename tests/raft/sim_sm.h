/* The simulator's state machine: the list of applied commands. Volatile; a snapshot is the whole
 * list, encoded. */
#ifndef TESTS_RAFT_SIM_SM_H
#define TESTS_RAFT_SIM_SM_H

#include "base/error.h"
#include "raft/core/types.h"

struct sim_command {
    struct raft_position position;
    uint64_t value;
    uint32_t checksum; /* of the whole payload */
};

struct sim_sm {
    struct raft_position applied;
    struct sim_command *commands;
    size_t count;
    size_t capacity;
};

void sim_sm_init(struct sim_sm *sm);
void sim_sm_deinit(struct sim_sm *sm);
/* The payload of a command: the value, then padding up to `size` (at least 8) that depends on it.
 * gives */
struct blob *sim_command_make(uint64_t value, size_t size);
/* The entry after `applied`. */
void sim_sm_apply(struct sim_sm *sm, const struct raft_entry *entry);
/* NULL: no command was applied at `index`. */
const struct sim_command *sim_sm_find(const struct sim_sm *sm, uint64_t index);
struct blob *sim_sm_encode(const struct sim_sm *sm); /* gives */
/* ERR_CORRUPT, sm unchanged, when the bytes are not what sim_sm_encode made. */
int sim_sm_restore(struct sim_sm *sm, struct bytes bytes) MUST_USE;

#endif

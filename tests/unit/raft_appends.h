/* Appends made by hand, and a follower that has taken one: what the tests of replication and of
 * durability share. */
#ifndef TESTS_UNIT_RAFT_APPENDS_H
#define TESTS_UNIT_RAFT_APPENDS_H

#include "unit/raft_pump.h"

/* `from` leads `term`; `previous` is what comes before the entries. */
static inline struct raft_message append_of(uint64_t from, uint64_t to, uint64_t term,
                                            struct raft_position previous,
                                            const struct raft_entry *entries, size_t count,
                                            uint64_t commit)
{
    struct raft_message message = pump_message(RAFT_MSG_APPEND, from, to, term);
    message.position = previous;
    message.entries = entries;
    message.entry_count = count;
    message.commit = commit;
    return message;
}

/* Replica 1 of three follows 2 in term 3 and holds entries 1, 2, 3 of terms 1, 1, 2; nothing
 * committed. */
static inline struct pump *follower_with_three(void)
{
    struct pump *pump = pump_create(3, NULL);
    struct raft_entry entries[] = {pump_entry(1, 1, "a"), pump_entry(2, 1, "b"),
                                   pump_entry(3, 2, "c")};
    struct raft_message message = append_of(2, 1, 3, (struct raft_position){0, 0}, entries, 3, 0);
    pump_step(pump, &message);
    pump_sync(pump, 1, 9);
    pump_drop_wire(pump);
    return pump;
}

#endif

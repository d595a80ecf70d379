/* The oracle of committed entries: what one replica of a group applied at an index, with that term,
 * every other applies there too, now and after any restart. It stands between the node and its
 * state machine, so it sees what was really applied, also what was replayed. Snapshots take a
 * replica past entries; those it does not apply are not compared. One cluster at a time. */
#ifndef TESTS_SIM_APPLIED_H
#define TESTS_SIM_APPLIED_H

#include "raft/node/state_machine.h"

void applied_begin(void);
void applied_end(void);
/* Fails the run when the batch contradicts what was applied before. */
void applied_check(uint64_t group_id, const struct sm_batch *batch);
void applied_forget(uint64_t group_id); /* all its disks were wiped */
/* Entries compared with what another replica, or the same before a restart, applied. */
uint64_t applied_compared(void);

#endif

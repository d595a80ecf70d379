/* raft/node/node.h without threads: the same replica (raft/node/replica.h), driven in virtual time.
 * And what the oracles and the tests look at. */
#ifndef TESTS_SIM_SIM_NODE_H
#define TESTS_SIM_SIM_NODE_H

#include "raft/node/node.h"
#include "raft/node/replica.h"
#include "sim/sim.h"

struct replica *sim_node_replica(struct node *node);
const struct node_options *sim_node_options(const struct node *node);
/* The core's status as of the last poll; until the next one. */
const struct raft_status *sim_node_raft(const struct node *node);
/* Refuses what waits and throws away every job: the process is dying, its disk does not know yet. A
 * write that was under way may be on the disk in part. */
void sim_node_kill(struct node *node);

/* The node sees its connection with that peer closed: because the peer died, or for another reason.
 */
void sim_node_peer_closed(struct node *node, uint64_t peer);

/* From now on the replica's ticks are so long, in percent of what they should be. */
void sim_node_set_clock(struct node *node, uint32_t percent);

/* Given by oracle.c: after every poll, and after every run of jobs. */
void sim_oracle_polled(struct sim_host *host, struct node *node);

#endif

/* What must hold at every moment of a simulated cluster, watched from inside:
 *
 *   - every replica's own invariants (replica_check, in sim_node.c)
 *   - at most one leader a (group, term)
 *   - at most one group serves a shard: what a group's furthest replica shows as SERVING, no other
 *     group's furthest replica may
 *   - a shard's config number never goes back in one group; nothing is written to a frozen shard
 *   - a shard is installed only while its source holds it frozen, under the same config, and no
 *     older than there; and dropped only after it was installed
 *
 * and at the end, when all is quiet: replicas of a group that applied the same position hold the
 * same state. One cluster at a time. */
#ifndef TESTS_SIM_ORACLE_H
#define TESTS_SIM_ORACLE_H

#include "sim/cluster.h"

struct oracle;

struct oracle *oracle_create(struct cluster *cluster); /* gives; watches from now on */
void oracle_destroy(struct oracle *oracle);
/* All disks of the group were wiped: it begins anew. */
void oracle_forget(struct oracle *oracle, const struct group *group);
/* Fails unless every running replica of every group comes to the same position and state within
 * `timeout_ns`. */
void oracle_check_equal(struct oracle *oracle, uint64_t timeout_ns);

#endif

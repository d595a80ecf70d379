/* From one config to the next: what Join, Leave, Move and UpdateMembers make of it. Pure. Each
 * validates first, and on an error makes nothing and says in `why` what was wrong. */
#ifndef SHARDCTRLER_TRANSITION_H
#define SHARDCTRLER_TRANSITION_H

#include "base/error.h"
#include "proto/config.h"

/* give *out, number one higher. */
int transition_join(const struct config *config, const struct config_group *groups,
                    size_t group_count, struct config **out, char *why, size_t why_size) MUST_USE;
int transition_leave(const struct config *config, const uint64_t *group_ids, size_t group_count,
                     bool force, struct config **out, char *why, size_t why_size) MUST_USE;
int transition_move(const struct config *config, uint32_t shard, uint64_t group_id,
                    struct config **out, char *why, size_t why_size) MUST_USE;

/* The replicas of `members`, and where in that group's log they stand, become those of the listed
 * group, which may have left. One that has left and is not listed any more is listed again, if
 * `members` says departed. *out NULL: there is nothing to change, since the config's own are as new
 * or newer, or the same. */
int transition_update_members(const struct config *config, const struct config_group *members,
                              struct config **out, char *why, size_t why_size) MUST_USE;

/* The part the first three share, and how the history is replayed: the config after `config` with
 * these owners and these groups (active ones, ascending). Sources and departed groups follow from
 * `config`. gives. */
struct config *transition_make(const struct config *config, const uint64_t *owners,
                               const struct config_group *groups, size_t group_count);
/* The same for the fourth: one group has other replicas, or is listed again as one that has left
 * (there is room for it); all else stays. gives. */
struct config *transition_make_members(const struct config *config,
                                       const struct config_group *members);

#endif

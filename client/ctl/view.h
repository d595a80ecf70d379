/* What every server of the cluster says of itself, asked all at once. Thread: main; answers come on
 * rpc's. */
#ifndef CLIENT_CTL_VIEW_H
#define CLIENT_CTL_VIEW_H

#include "client/ctl/ctl.h"

struct view_replica {
    uint64_t group_id; /* 0: a controller */
    uint64_t id;       /* as the config or the server says; 0: unknown */
    char address[ADDRESS_BYTES_MAX];
    int error; /* 0: `status` is there */
    char text[TEXT_BYTES_MAX];
    struct msg_status_response *status;
};

struct view {
    struct config *config;
    struct view_replica *replicas; /* controllers first, then groups by id */
    size_t count;
};

/* Asks the controllers for the config, then everybody for their status; who does not answer within
 * `timeout_ns` has an error. CTL_DONE, or said already. Members that the config does not name
 * (added since) are found through the others. */
int view_take(struct ctl *ctl, uint64_t timeout_ns, struct view *out);
void view_deinit(struct view *view);
/* The leader of a group (0: the controllers) as the replicas see it; NULL: none answered as one. */
const struct view_replica *view_leader(const struct view *view, uint64_t group_id);

/* One server; the same fields. `replica->address` is given. */
void view_ask(struct ctl *ctl, uint64_t timeout_ns, struct view_replica *replicas, size_t count);
void view_replica_deinit(struct view_replica *replica);

/* Is the shard, as the group's leader says it is, where the config wants it? */
bool view_shard_is_settled(const struct config *config, uint64_t group_id,
                           const struct msg_shard_status *shard);
/* How far the groups are from the config they were given. */
struct settling {
    uint32_t shards_moving; /* not yet where the newest config wants them, or leftovers not yet
                               dropped */
    uint64_t moved_bytes;   /* by those that are being pulled */
    uint32_t groups_silent; /* groups without a leader's answer: nothing is known of them */
    uint32_t groups_behind; /* have not taken the newest config yet */
};
struct settling view_settling(const struct view *view);
static inline bool settling_is_over(const struct settling *settling)
{
    return settling->shards_moving == 0 && settling->groups_silent == 0 &&
           settling->groups_behind == 0;
}

#endif

/* The administrator of replicas: hands leadership about, adds replicas, removes them, and replaces
 * one by another, as docs/OPERATIONS.md says. Thread: one.
 *
 *     NONE --> ADD (a learner, on an empty machine) --> PROMOTE --> REMOVE --> RETIRE --> NONE
 *                                                          '------> NONE     (grown)
 *     NONE --------------------------------------------> REMOVE             (shrunk)
 *     NONE --> REMOVE --> RETIRE --> ADD --> PROMOTE --> NONE               (in place: a machine
 *                                        whose files are damaged, at its address, with another id)
 *
 * Whether a step was done is read from the committed membership, never from what the change
 * answered: an answer may be lost, and an administrator who believes it would add a replica twice.
 * The machine of a removed replica runs on for a while: it must do no harm. */
#include "sim/storm.h"

#include "base/assert.h"
#include "raft/node/node.h"
#include "sim/sometimes.h"

enum {
    VOTERS_MIN = 3,
    VOTERS_MAX = 5,
    CONTROLLERS_REPLACED_MAX = 1, /* clients were given a list of them once and for all */
};

/* ---- transfers ---- */

static void transferred(void *context, int error)
{
    (void)context;
    sim_trace("a transfer ended: %s", err_name(error));
}

/* To whoever is best, to a member that is up, to one that is down. */
void storm_transfer_something(struct storm *storm)
{
    struct group *group = storm_any_group(storm);
    struct server *leader = group_leader(group);
    if (leader == NULL) {
        return;
    }
    uint64_t target = 0;
    if (sim_between(0, 3) != 0) {
        target = group->servers[sim_between(0, group->server_count - 1)].replica_id;
    }
    sim_trace("transfer of group %llu from %s to %llu", (unsigned long long)group->id,
              leader->host->address, (unsigned long long)target);
    int error = node_transfer(server_node(leader), target, transferred, NULL);
    (void)error; /* a leader that is just ending refuses */
}

/* ---- plans ---- */

static uint32_t plan_count(const struct storm *storm)
{
    return storm->cluster->group_count + 1;
}

/* What the leader knows to be committed. False: nobody leads, or a change is under way. */
static bool committed_membership(const struct group *group, struct raft_membership *out)
{
    struct server *leader = group_leader(group);
    if (leader == NULL) {
        return false;
    }
    struct node_status status;
    node_status(server_node(leader), &status);
    *out = status.raft.membership;
    return status.raft.membership.position.index <= status.raft.commit;
}

struct member_plan *storm_idle_plan(struct storm *storm, struct group *group)
{
    const struct cluster *cluster = storm->cluster;
    bool controllers = group == &cluster->controllers;
    uint32_t number = controllers ? cluster->group_count : (uint32_t)(group - cluster->groups);
    struct member_plan *plan = &storm->plans[number];
    plan->group = group;
    bool idle = plan->step == PLAN_NONE &&
                !(controllers && plan->done_count == CONTROLLERS_REPLACED_MAX) &&
                group->server_count < CLUSTER_SERVERS_MAX;
    return idle ? plan : NULL;
}

static void plan_begin(struct member_plan *plan, bool adds, struct server *removed)
{
    plan->added = adds ? group_add_server(plan->group) : NULL;
    plan->removed = removed;
    plan->in_place = false;
    plan->repairs = false;
    plan->step = adds ? PLAN_ADD : removed != NULL ? PLAN_REMOVE : PLAN_NONE;
    if (adds) {
        server_start(plan->added);
    }
    sim_trace("plan for group %llu: add %s, remove %s", (unsigned long long)plan->group->id,
              adds ? plan->added->host->address : "nobody",
              removed != NULL ? removed->host->address : "nobody");
}

void storm_replace(struct member_plan *plan, struct server *damaged)
{
    bool in_place = sim_between(0, 1) == 0;
    plan_begin(plan, !in_place, damaged);
    plan->in_place = in_place;
    plan->repairs = true;
}

void storm_change_members(struct storm *storm)
{
    struct group *group = storm_any_group(storm);
    bool controllers = group == &storm->cluster->controllers;
    struct member_plan *plan = storm_idle_plan(storm, group);
    struct raft_membership members;
    if (plan == NULL || !committed_membership(group, &members)) {
        return;
    }
    uint32_t voters = raft_membership_voter_count(&members);
    bool adds = voters < VOTERS_MAX || sim_between(0, 1) == 0;
    bool removes = voters > VOTERS_MIN ? voters >= VOTERS_MAX || sim_between(0, 1) == 0
                                       : adds && (controllers || sim_between(0, 3) != 0);
    uint64_t id = members.members[sim_between(0, members.count - 1)].id;
    plan_begin(plan, adds, removes ? &group->servers[id - 1] : NULL);
}

static bool plan_step_is_done(const struct member_plan *plan, const struct raft_membership *members)
{
    const struct raft_member *added =
        plan->added == NULL ? NULL : raft_membership_find(members, plan->added->replica_id);
    switch (plan->step) {
    case PLAN_ADD:
        return added != NULL;
    case PLAN_PROMOTE:
        return added != NULL && added->role == RAFT_VOTER;
    case PLAN_REMOVE:
        return raft_membership_find(members, plan->removed->replica_id) == NULL;
    case PLAN_NONE:
    case PLAN_RETIRE:
        break;
    }
    UNREACHABLE();
}

static void plan_next(struct member_plan *plan)
{
    switch (plan->step) {
    case PLAN_ADD:
        plan->step = PLAN_PROMOTE;
        break;
    case PLAN_PROMOTE:
        plan->step = plan->removed != NULL && !plan->in_place ? PLAN_REMOVE : PLAN_NONE;
        break;
    case PLAN_REMOVE:
        plan->step = PLAN_RETIRE;
        plan->again_ns = sim_now_ns() + sim_between(0, 3000) * SIM_MS;
        break;
    case PLAN_RETIRE:
        server_retire(plan->removed);
        plan->step = PLAN_NONE;
        if (plan->in_place) {
            plan->added = group_add_server_at(plan->group, plan->removed);
            server_start(plan->added);
            plan->step = PLAN_ADD;
        }
        break;
    case PLAN_NONE:
        break;
    }
    if (plan->step == PLAN_NONE) {
        plan->done_count++;
        sim_sometimes_add(S_REPLICA_REPAIRED, plan->repairs);
    }
}

static void changed(void *context, int error)
{
    struct member_plan *plan = context;
    plan->waiting = false;
    plan->again_ns = sim_now_ns() + sim_between(5, 200) * SIM_MS;
    sim_sometimes(error == 0 ? S_MEMBER_CHANGED : S_MEMBER_CHANGE_REFUSED);
    sim_trace("a change of group %llu's members ended: %s", (unsigned long long)plan->group->id,
              err_name(error));
}

static void plan_ask(struct member_plan *plan)
{
    struct server *leader = group_leader(plan->group);
    bool adds = plan->step == PLAN_ADD;
    bool removes = plan->step == PLAN_REMOVE;
    const struct raft_change change = {
        .kind = adds      ? RAFT_ADD_LEARNER
                : removes ? RAFT_REMOVE
                          : RAFT_PROMOTE,
        .id = removes ? plan->removed->replica_id : plan->added->replica_id,
        .address = adds ? plan->added->host->address : NULL,
    };
    plan->waiting = true;
    int error = node_change_member(server_node(leader), &change, changed, plan);
    if (error != 0) {
        changed(plan, error);
    }
}

static void plan_advance(struct member_plan *plan)
{
    struct raft_membership members;
    if (plan->step == PLAN_NONE || plan->waiting || sim_now_ns() < plan->again_ns) {
        return;
    }
    if (plan->step == PLAN_RETIRE) {
        plan_next(plan);
    } else if (committed_membership(plan->group, &members)) {
        if (plan_step_is_done(plan, &members)) {
            plan_next(plan);
        } else {
            plan_ask(plan);
        }
    }
}

void storm_members_advance(struct storm *storm)
{
    for (uint32_t i = 0; i < plan_count(storm); i++) {
        plan_advance(&storm->plans[i]);
    }
}

bool storm_members_are_quiet(const struct storm *storm)
{
    for (uint32_t i = 0; i < plan_count(storm); i++) {
        if (storm->plans[i].step != PLAN_NONE) {
            return false;
        }
    }
    return true;
}

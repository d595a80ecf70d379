/* A storm: one simulated cluster to which everything happens that its seed has switched on, and
 * what the files of the swarm share. suite_swarm.c begins and ends it, storm_faults.c breaks
 * things, storm_members.c is its administrator of replicas. */
#ifndef TESTS_SIM_STORM_H
#define TESTS_SIM_STORM_H

#include "sim/clerk.h"

enum {
    STORM_SHARDS = 10,
    STORM_CLIENTS = 5,
    STORM_LOOPS_PER_CLIENT = 2, /* so that several commands of one session are under way */
    STORM_LOOPS = STORM_CLIENTS * STORM_LOOPS_PER_CLIENT,
};

#define STORM_CALM_NS (40 * SIM_S) /* after the faults end, for all that must end then */

/* What may happen in this storm. Each is drawn. */
struct storm_switches {
    bool dense; /* five times as much happens */
    bool large; /* shards and snapshots of several chunks */
    bool transfers;
    bool members;
    bool lease; /* reads by lease; then clocks differ by no more than leases allow */
    bool drift; /* clocks differ by much more */
    bool disks; /* fail, fill up */
    bool flips; /* bits of one replica's files, while it is down */
    bool clogs;
    bool wall; /* clocks on the wall are set */
    bool hour; /* once, everything stands still for longer than sessions live */
};

/* What is being done to the replicas of one group, one step at a time; see storm_members.c. */
enum plan_step {
    PLAN_NONE = 0,
    PLAN_ADD,
    PLAN_PROMOTE,
    PLAN_REMOVE,
    PLAN_RETIRE,
};
struct member_plan {
    struct group *group;
    enum plan_step step;
    struct server *added;   /* NULL: nobody */
    struct server *removed; /* NULL: nobody */
    bool in_place;          /* `removed` goes first; `added`, not made yet, gets its machine */
    bool repairs;           /* `removed` was damaged */
    bool waiting;           /* for the answer to a change */
    uint64_t again_ns;      /* not before */
    uint32_t done_count;    /* plans that ended */
};

struct storm {
    struct cluster *cluster;
    struct storm_switches on;
    struct linear_history *history;
    struct clerk clerks[STORM_CLIENTS];
    struct loop loops[STORM_LOOPS];
    struct admin_change change;
    bool changing;
    bool joined[CLUSTER_GROUPS_MAX]; /* for sure */
    bool *joining;                   /* the one of these that `change` is about; or NULL */
    struct member_plan plans[CLUSTER_GROUPS_MAX + 1]; /* the last: of the controllers */
};

struct group *storm_any_group(struct storm *storm); /* or the controllers */
struct server *storm_any_server(struct storm *storm);
void storm_start_everything(struct storm *storm);

/* ---- storm_faults.c ---- */

void storm_crash_something(struct storm *storm);
void storm_partition_something(struct storm *storm);
void storm_change_network(void);
void storm_pause_something(struct storm *storm);
void storm_stall_disk(struct storm *storm);
/* A write, a sync or the store of some server fails soon, or its disk is full. */
void storm_break_disk(struct storm *storm);
/* A link, or all that one host sends, holds everything for a while. */
void storm_clog_something(struct storm *storm);
void storm_set_wall_clock(struct storm *storm);
/* Room is made and disks are replaced: nothing that was asked for will fail any more. */
void storm_mend_disk(struct server *server);
/* Kills a server, flips a bit of its files and starts it again. When that finds the damage, the
 * replica is replaced: see storm_members.c. */
void storm_flip_bit(struct storm *storm);

/* ---- storm_members.c ---- */

void storm_transfer_something(struct storm *storm);
/* Begins to add, remove or replace a replica of some group, unless one is at it. */
void storm_change_members(struct storm *storm);
/* The plan of a group, idle; NULL while something is under way there. */
struct member_plan *storm_idle_plan(struct storm *storm, struct group *group);
/* A member that will never start again: another replica takes its place. */
void storm_replace(struct member_plan *plan, struct server *damaged);
/* Takes what is under way a step further, where it can go on. */
void storm_members_advance(struct storm *storm);
bool storm_members_are_quiet(const struct storm *storm);

#endif

/* One replica of the simulated group: the real core, over a fake disk, a list for a state machine
 * and the simulated network. Does what the contract in raft/core/core.h asks of an owner, in
 * virtual time:
 *
 *      input -> core -> (raft_core_check, global invariants) -> pump: raft_ready
 *                         messages -> network        write -> disk queue -> persisted, held
 * messages commit -> apply event -> applied, snapshots    loads -> disk -> entries_loaded
 *
 * Inputs of one instant share a pump, as a mailbox drained in one go does. One thread. */
#ifndef TESTS_RAFT_SIM_REPLICA_H
#define TESTS_RAFT_SIM_REPLICA_H

#include "raft/core/core.h"
#include "raft/sim_disk.h"
#include "raft/sim_net.h"
#include "raft/sim_sm.h"

struct sim_cluster;

/* Faults planted on purpose, to see that the checks see them. */
enum sim_plant {
    SIM_PLANT_NONE = 0,
    SIM_PLANT_EARLY_PERSISTED, /* the disk says 'durable' before it is */
    SIM_PLANT_FORGOTTEN_VOTE,  /* a restart finds the term without its vote */
    SIM_PLANT_LOST_TAIL,       /* a restart finds the last synced entry gone */
    SIM_PLANT_WIPED,           /* a restart finds an empty disk */
    SIM_PLANT_READ_AT_ONCE,    /* a read is served with the leader's own commit, without a round */
    SIM_PLANT_SKIPPED_APPLY,   /* one entry never reaches the state machine */
    SIM_PLANT_COUNT,
};

struct sim_replica_options {
    struct raft_core_options core; /* id and seed are set for each */
    uint64_t tick_ns;
    int32_t skew_permille_max; /* replica clocks differ by up to this, either way */
    uint64_t pump_delay_ns;
    uint64_t sync_min_ns, sync_max_ns;
    uint32_t stall_permille; /* of syncs take stall_ns */
    uint64_t stall_ns;
    uint64_t apply_delay_max_ns;
    uint64_t apply_bytes_max;
    uint64_t load_delay_max_ns;
    uint64_t
        snapshot_interval; /* 0: none; else one at every index with (index + 1) % interval == 0 */
    uint64_t snapshot_delay_max_ns;
    bool snapshot_lazy;     /* offered to the core only when it wants one */
    uint64_t snapshot_keep; /* entries the log keeps behind a snapshot */
    uint32_t
        damage_permille; /* of streamed snapshots are not intact when they are to be installed */
    size_t recovery_tail_max;
    bool recovery_base_form; /* now and then, recover from the log's base and a durable state
                                machine */
    enum sim_plant plant;
};

struct sim_snapshot {
    struct raft_snapshot snapshot;
    struct blob *bytes;
};

struct sim_read {
    uint64_t context;
    uint64_t floor; /* newest index acknowledged before the read was asked for */
    uint64_t asked_ns;
};

enum { SIM_HEARTBEATS_PER_S_MAX = 10 };

struct sim_replica {
    struct sim_cluster *cluster;
    uint32_t slot;
    uint64_t id;
    uint64_t tick_ns; /* with this replica's skew */
    struct rng rng;
    struct sim_disk disk;

    struct raft_core *core; /* NULL: down */
    uint64_t incarnation;
    struct raft_status status; /* after the newest input */
    struct sim_sm sm;
    bool pump_planned;
    bool apply_planned;
    bool disk_busy;
    bool snapshot_planned;
    uint32_t installs_pending;
    struct sim_write *writes; /* not yet completed, oldest first */
    struct sim_write **writes_end;
    size_t writes_in_flight;        /* of them, those being written now */
    struct sim_snapshot *snapshots; /* that can be sent, newest last */
    size_t snapshot_count;
    size_t snapshot_capacity;
    struct raft_position *proposals; /* accepted here, not yet applied here */
    size_t proposal_count;
    size_t proposal_capacity;
    struct sim_read *reads; /* asked for, not yet answered */
    size_t read_count;
    size_t read_capacity;

    uint64_t timeout_now_term; /* of the newest TIMEOUT_NOW that arrived */

    /* The last heartbeats sent to each peer in heartbeat_term, for the limit on their rate. */
    uint64_t heartbeats_ns[SIM_REPLICAS_MAX][SIM_HEARTBEATS_PER_S_MAX];
    uint32_t heartbeat_count[SIM_REPLICAS_MAX];
    uint64_t heartbeat_term;
};

void sim_replica_init(struct sim_replica *replica, struct sim_cluster *cluster, uint32_t slot,
                      const struct raft_membership *bootstrap);
void sim_replica_deinit(struct sim_replica *replica);
void sim_replica_start(struct sim_replica *replica); /* when down */
void sim_replica_crash(struct sim_replica *replica); /* when up */
static inline bool sim_replica_is_up(const struct sim_replica *replica)
{
    return replica->core != NULL;
}

/* Inputs; the replica is up. */
void sim_replica_receive(struct sim_replica *replica, const struct raft_message *message);
void sim_replica_unreachable(struct sim_replica *replica, uint64_t peer);
int sim_replica_propose(struct sim_replica *replica, struct blob *payload,
                        struct raft_position *position) MUST_USE;
int sim_replica_change(struct sim_replica *replica, const struct raft_change *change,
                       struct raft_position *position) MUST_USE;
int sim_replica_transfer(struct sim_replica *replica, uint64_t target) MUST_USE;
int sim_replica_read(struct sim_replica *replica) MUST_USE;

/* For sim_replica_*.c only. */
void sim_replica__observe(struct sim_replica *replica); /* after every input */
void sim_replica__check_promise(const struct sim_replica *replica,
                                const struct raft_message *message);
void sim_replica__check_heartbeat_rate(struct sim_replica *replica,
                                       const struct raft_message *message);
void sim_replica__after_input(struct sim_replica *replica); /* checks, and plans a pump */
void sim_replica__plan(struct sim_replica *replica, uint64_t delay_ns, sim_event_fn run,
                       void *payload, sim_event_fn drop);
/* The event is of this life of the replica. */
bool sim_replica__is_current(const struct sim_replica *replica, uint64_t tag);
void sim_replica__disk_plan(struct sim_replica *replica);
void sim_replica__apply_plan(struct sim_replica *replica);
void sim_replica__send(struct sim_replica *replica, const struct raft_message *message);
void sim_replica__load_plan(struct sim_replica *replica, const struct raft_load *load);
void sim_replica__snapshot_saved(struct sim_replica *replica);
void sim_replica__snapshots_prune(struct sim_replica *replica);
void sim_replica__snapshot_if_wanted(struct sim_replica *replica);
void sim_replica__restore(struct sim_replica *replica);

#endif

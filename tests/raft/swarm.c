/* A random run: faults and work drawn step by step, then healing. Thread: one.
 * Invariants: those of the replicas and the checker at every step; logs match (paper 5.3) whenever
 * looked at; after healing a proposal commits, every member applies the same commands, and no read
 * stays unanswered. */
#include "raft/swarm.h"

#include "base/assert.h"
#include "raft/sim_report.h"

#include <inttypes.h>
#include <string.h>

#define HEAL_LIMIT_NS (20 * SIM_S)

struct swarm {
    struct rng rng;
    struct swarm_features features;
    struct sim_cluster *cluster;
    uint64_t quiet_steps; /* without proposals: logs become equal, and anybody may be elected */
    bool started[SIM_REPLICAS_MAX]; /* ever; those stay part of the world, members or not */
};

static uint32_t any_slot(struct swarm *swarm)
{
    return (uint32_t)rng_below(&swarm->rng, swarm->cluster->options.servers);
}

/* Somebody who believes to lead; any slot when there is none. */
static uint32_t some_leader(struct swarm *swarm)
{
    uint32_t servers = swarm->cluster->options.servers;
    uint32_t first = any_slot(swarm);
    for (uint32_t i = 0; i < servers; i++) {
        uint64_t term;
        if (sim_leads(swarm->cluster, (first + i) % servers, &term)) {
            return (first + i) % servers;
        }
    }
    return first;
}

static void start(struct swarm *swarm, uint32_t slot)
{
    struct sim_cluster *cluster = swarm->cluster;
    if (!sim_is_up(cluster, slot)) {
        cluster->counters.restarts += swarm->started[slot];
        sim_replica_start(&cluster->replicas[slot]);
        swarm->started[slot] = true;
    }
    sim_connect(cluster, slot);
}

/* ---- work ---- */

static void propose(struct swarm *swarm)
{
    uint32_t slot = rng_chance(&swarm->rng, 1, 10) ? any_slot(swarm) : some_leader(swarm);
    uint64_t count = rng_chance(&swarm->rng, 1, 8) ? 20 : rng_between(&swarm->rng, 1, 3);
    for (uint64_t i = 0; i < count; i++) {
        size_t size = 8 + (size_t)rng_below(&swarm->rng, rng_chance(&swarm->rng, 1, 10) ? 900 : 60);
        (void)sim_propose(swarm->cluster, slot, sim_value(swarm->cluster), size, NULL);
    }
}

static void read_at(struct swarm *swarm, uint32_t slot)
{
    if (sim_is_up(swarm->cluster, slot)) {
        int error = sim_replica_read(&swarm->cluster->replicas[slot]);
        if (error != 0 && error != ERR_NOT_LEADER && error != ERR_BUSY) {
            sim_fail("a read was refused with %s", err_name(error));
        }
    }
}

static void read_somewhere(struct swarm *swarm)
{
    read_at(swarm, rng_chance(&swarm->rng, 1, 10) ? any_slot(swarm) : some_leader(swarm));
}

/* A leader of an older term than the newest that still believes to lead: where stale reads come
 * from. */
static bool has_deposed(struct sim_cluster *cluster, const void *context)
{
    uint32_t *found = *(uint32_t *const *)context;
    for (uint32_t slot = 0; slot < cluster->options.servers; slot++) {
        uint64_t term;
        if (sim_leads(cluster, slot, &term) && term < cluster->checker.term_max) {
            *found = slot;
            return true;
        }
    }
    return false;
}

/* Writes at the new leader and reads at the old one, in turns, as long as the old one does not
 * know. */
static void provoke_stale_reads(struct swarm *swarm)
{
    struct sim_cluster *cluster = swarm->cluster;
    uint32_t deposed = 0;
    uint32_t *found = &deposed;
    for (unsigned i = 0; i < 20 && has_deposed(cluster, &found); i++) {
        for (uint32_t slot = 0; slot < cluster->options.servers; slot++) {
            uint64_t term;
            if (sim_leads(cluster, slot, &term) && term == cluster->checker.term_max) {
                (void)sim_propose(cluster, slot, sim_value(cluster), sizeof(uint64_t), NULL);
            }
        }
        read_at(swarm, deposed);
        cluster->counters.reads_at_deposed++;
        sim_cluster_run(cluster, 3 * SIM_MS);
    }
}

/* Lets time pass, and makes use of it when there are two leaders. */
static void pass_time(struct swarm *swarm, uint64_t duration_ns)
{
    uint32_t deposed = 0;
    uint32_t *found = &deposed;
    if (swarm->features.reads &&
        sim_cluster_run_until(swarm->cluster, duration_ns, has_deposed, &found)) {
        provoke_stale_reads(swarm);
    } else if (!swarm->features.reads) {
        sim_cluster_run(swarm->cluster, duration_ns);
    }
}

static void change_membership(struct swarm *swarm)
{
    uint32_t slot = some_leader(swarm);
    uint32_t subject = any_slot(swarm);
    if (!sim_is_up(swarm->cluster, slot)) {
        return;
    }
    const struct raft_membership *membership = &swarm->cluster->replicas[slot].status.membership;
    const struct raft_member *member = raft_membership_find(membership, subject + 1);
    struct raft_change change = {.id = subject + 1, .address = "replica:again"};
    if (member == NULL) {
        if (swarm->started[subject]) {
            return; /* an id is never used again after its removal */
        }
        change.kind = rng_chance(&swarm->rng, 2, 3) ? RAFT_ADD_LEARNER : RAFT_ADD_VOTER;
    } else {
        bool promote = member->role == RAFT_LEARNER && rng_chance(&swarm->rng, 3, 4);
        change.kind = promote ? RAFT_PROMOTE : RAFT_REMOVE;
    }
    struct raft_position position;
    int error = sim_replica_change(&swarm->cluster->replicas[slot], &change, &position);
    if (error == 0 && member == NULL) {
        start(swarm, subject);
    }
    if (error != 0 && error != ERR_NOT_LEADER && error != ERR_BUSY &&
        error != ERR_MEMBERSHIP_BUSY && error != ERR_MEMBERSHIP_BAD) {
        sim_fail("a membership change was refused with %s", err_name(error));
    }
}

static void isolate(struct swarm *swarm, uint32_t slot)
{
    struct sim_cluster *cluster = swarm->cluster;
    cluster->counters.partitions++;
    sim_trace("isolate %u", slot + 1);
    for (uint32_t other = 0; other < cluster->options.servers; other++) {
        cluster->net.cut[slot][other] = true;
        cluster->net.cut[other][slot] = true;
    }
}

static bool timeout_now_arrived(struct sim_cluster *cluster, const void *context)
{
    const uint64_t *term = context;
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        if (sim_is_up(cluster, i) && cluster->replicas[i].timeout_now_term == *term) {
            return true;
        }
    }
    return false;
}

static void transfer(struct swarm *swarm)
{
    struct sim_cluster *cluster = swarm->cluster;
    uint32_t slot = some_leader(swarm);
    if (!sim_is_up(cluster, slot)) {
        return;
    }
    uint64_t term = cluster->replicas[slot].status.term;
    uint64_t target = rng_chance(&swarm->rng, 1, 3) ? 0 : any_slot(swarm) + 1;
    int error = sim_replica_transfer(&cluster->replicas[slot], target);
    if (error != 0 && error != ERR_NOT_LEADER && error != ERR_TRANSFER_FAILED &&
        error != ERR_BUSY) {
        sim_fail("a transfer was refused with %s", err_name(error));
    }
    /* Cut off just after its successor was told, it leads on without knowing better. */
    if (error == 0 && swarm->features.partitions && rng_chance(&swarm->rng, 1, 2) &&
        sim_cluster_run_until(cluster, 300 * SIM_MS, timeout_now_arrived, &term)) {
        isolate(swarm, slot);
    }
}

static void work(struct swarm *swarm)
{
    if (swarm->quiet_steps > 0) {
        swarm->quiet_steps--;
    } else if (rng_chance(&swarm->rng, 1, 40)) {
        swarm->quiet_steps = rng_between(&swarm->rng, 5, 40);
    } else if (rng_chance(&swarm->rng, 2, 3)) {
        propose(swarm);
    }
    if (swarm->features.reads && rng_chance(&swarm->rng, 1, 2)) {
        read_somewhere(swarm);
    }
    if (swarm->features.membership && rng_chance(&swarm->rng, 1, 12)) {
        change_membership(swarm);
    }
    if (swarm->features.transfers && rng_chance(&swarm->rng, 1, 15)) {
        transfer(swarm);
    }
}

/* ---- faults ---- */

static void partition(struct swarm *swarm)
{
    struct sim_cluster *cluster = swarm->cluster;
    uint32_t servers = cluster->options.servers;
    cluster->counters.partitions++;
    bool side[SIM_REPLICAS_MAX];
    uint32_t alone = rng_chance(&swarm->rng, 1, 3) ? some_leader(swarm) : servers;
    for (uint32_t i = 0; i < servers; i++) {
        side[i] = alone < servers ? i == alone : rng_chance(&swarm->rng, 1, 2);
    }
    for (uint32_t from = 0; from < servers; from++) {
        for (uint32_t to = 0; to < servers; to++) {
            cluster->net.cut[from][to] = side[from] != side[to];
        }
    }
}

static void cut_one_way(struct swarm *swarm)
{
    struct sim_cluster *cluster = swarm->cluster;
    cluster->counters.one_way_cuts++;
    uint32_t subject = rng_chance(&swarm->rng, 1, 2) ? some_leader(swarm) : any_slot(swarm);
    bool deaf = rng_chance(&swarm->rng, 1, 2);
    for (uint32_t other = 0; other < cluster->options.servers; other++) {
        if (rng_chance(&swarm->rng, 2, 3)) {
            uint32_t from = deaf ? other : subject;
            uint32_t to = deaf ? subject : other;
            cluster->net.cut[from][to] = true;
        }
    }
}

/* One link: everybody else still hears both ends. */
static void cut_link(struct swarm *swarm)
{
    struct sim_cluster *cluster = swarm->cluster;
    uint32_t one = some_leader(swarm);
    uint32_t other = any_slot(swarm);
    cluster->counters.link_cuts++;
    cluster->net.cut[one][other] = true;
    cluster->net.cut[other][one] = true;
}

static bool is_writing(struct sim_cluster *cluster, const void *context)
{
    const uint32_t *slot = context;
    return cluster->replicas[*slot].writes != NULL;
}

static void crash_or_restart(struct swarm *swarm)
{
    uint32_t slot = any_slot(swarm);
    if (!swarm->started[slot]) {
        return;
    }
    if (sim_is_up(swarm->cluster, slot)) {
        if (rng_chance(&swarm->rng, 1, 3)) {
            if (rng_chance(&swarm->rng, 2, 3)) { /* better in the middle of a write */
                (void)sim_cluster_run_until(swarm->cluster, 50 * SIM_MS, is_writing, &slot);
            }
            sim_crash(swarm->cluster, slot);
            if (rng_chance(&swarm->rng, 1, 3)) {
                start(swarm, slot);
            }
        }
    } else {
        start(swarm, slot);
    }
}

/* Somebody has just made a vote durable for another in a term that has no leader yet. */
static bool has_voter(struct sim_cluster *cluster, const void *context)
{
    uint32_t *found = *(uint32_t *const *)context;
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        const struct sim_replica *replica = &cluster->replicas[i];
        uint64_t term = replica->disk.hard_state.term;
        uint64_t vote = replica->disk.hard_state.voted_for;
        if (sim_replica_is_up(replica) && term > cluster->checker.term_max && vote != 0 &&
            vote != replica->id) {
            *found = i;
            return true;
        }
    }
    return false;
}

/* Takes the leader away, and in the election that follows restarts one who has just voted
 * (scenarios 1 - 4). */
static void crash_voter(struct swarm *swarm)
{
    struct sim_cluster *cluster = swarm->cluster;
    uint32_t leader = some_leader(swarm);
    if (!sim_is_up(cluster, leader)) {
        return;
    }
    isolate(swarm, leader);
    uint32_t voter = 0;
    uint32_t *found = &voter;
    if (sim_cluster_run_until(cluster, 500 * SIM_MS, has_voter, &found)) {
        cluster->counters.voters_crashed++;
        sim_crash(cluster, voter);
        start(swarm, voter);
    }
    sim_net_heal(&cluster->net);
}

static void faults(struct swarm *swarm)
{
    if (swarm->features.crashes && rng_chance(&swarm->rng, 1, 40)) {
        crash_voter(swarm);
    }
    if (swarm->features.partitions && rng_chance(&swarm->rng, 1, 30)) {
        partition(swarm);
    }
    if (swarm->features.one_way && rng_chance(&swarm->rng, 1, 30)) {
        cut_one_way(swarm);
    }
    if (swarm->features.links && rng_chance(&swarm->rng, 1, 20)) {
        cut_link(swarm);
    }
    if (rng_chance(&swarm->rng, 1, 20)) {
        sim_net_heal(&swarm->cluster->net);
    }
    if (swarm->features.crashes && rng_chance(&swarm->rng, 1, 10)) {
        crash_or_restart(swarm);
    }
}

/* ---- checks over all replicas ---- */

/* Log matching: same index and term means the same entries up to there, as far as both still have
 * them. */
static void check_logs_match(const struct sim_cluster *cluster)
{
    for (uint32_t a = 0; a < cluster->options.servers; a++) {
        for (uint32_t b = a + 1; b < cluster->options.servers; b++) {
            const struct sim_disk *one = &cluster->replicas[a].disk;
            const struct sim_disk *two = &cluster->replicas[b].disk;
            uint64_t low = one->base.index > two->base.index ? one->base.index : two->base.index;
            uint64_t high = sim_disk_last(one).index < sim_disk_last(two).index
                                ? sim_disk_last(one).index
                                : sim_disk_last(two).index;
            bool matched = false;
            for (uint64_t index = high; index > low; index--) {
                const struct raft_entry *left = sim_disk_entry(one, index);
                const struct raft_entry *right = sim_disk_entry(two, index);
                bool same_term = left->position.term == right->position.term;
                if ((matched && !same_term) ||
                    (same_term && !bytes_equal(left->data, right->data))) {
                    sim_fail("logs of %u and %u differ at %" PRIu64 " below where they match",
                             a + 1, b + 1, index);
                }
                matched = matched || same_term;
            }
        }
    }
}

/* ---- healing ---- */

static void heal(struct swarm *swarm)
{
    struct sim_cluster *cluster = swarm->cluster;
    sim_trace("heal");
    sim_net_heal(&cluster->net);
    cluster->net.options = sim_net_reliable();
    struct sim_replica_options *replica = &cluster->options.replica;
    replica->sync_max_ns = replica->sync_max_ns < 5 * SIM_MS ? replica->sync_max_ns : 5 * SIM_MS;
    replica->apply_delay_max_ns = 100 * SIM_US;
    replica->load_delay_max_ns = 1 * SIM_MS;
    replica->pump_delay_ns = 20 * SIM_US;
    replica->stall_permille = 0;
    replica->damage_permille = 0;
    for (uint32_t slot = 0; slot < cluster->options.servers; slot++) {
        if (swarm->started[slot]) {
            start(swarm, slot);
        }
    }
}

/* The slot of the leader of the newest term, -1 when nobody leads. */
static int newest_leader(const struct sim_cluster *cluster)
{
    int leader = -1;
    uint64_t newest = 0;
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        uint64_t term;
        if (sim_leads(cluster, i, &term) && term > newest) {
            newest = term;
            leader = (int)i;
        }
    }
    return leader;
}

static bool same_state(const struct sim_sm *a, const struct sim_sm *b)
{
    if (!raft_position_equal(a->applied, b->applied) || a->count != b->count) {
        return false;
    }
    for (size_t i = 0; i < a->count; i++) {
        if (!raft_position_equal(a->commands[i].position, b->commands[i].position) ||
            a->commands[i].value != b->commands[i].value ||
            a->commands[i].checksum != b->commands[i].checksum) {
            sim_fail("replicas at the same index hold different commands");
        }
    }
    return true;
}

/* Every member has applied all the leader has, and the leader has committed all it has. */
static bool converged(struct swarm *swarm, uint64_t at_least)
{
    struct sim_cluster *cluster = swarm->cluster;
    int slot = newest_leader(cluster);
    if (slot < 0) {
        return false;
    }
    const struct sim_replica *leader = &cluster->replicas[slot];
    if (leader->status.commit < at_least || leader->status.commit != leader->status.last.index) {
        return false;
    }
    for (uint32_t i = 0; i < leader->status.membership.count; i++) {
        uint32_t other = (uint32_t)leader->status.membership.members[i].id - 1;
        if (!sim_is_up(cluster, other) ||
            cluster->replicas[other].sm.applied.index != leader->status.last.index ||
            !same_state(&cluster->replicas[other].sm, &leader->sm)) {
            return false;
        }
    }
    return true;
}

static void report_stuck(const struct sim_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        const struct sim_replica *replica = &cluster->replicas[i];
        const struct raft_status *status = &replica->status;
        sim_trace("[%u] up %d state %d term %" PRIu64 " leader %" PRIu64 " commit %" PRIu64
                  " applied %" PRIu64 " last %" PRIu64 " durable %" PRIu64 " start %" PRIu64
                  " members %u",
                  i + 1, sim_replica_is_up(replica), (int)status->state, status->term,
                  status->leader, status->commit, replica->sm.applied.index, status->last.index,
                  status->durable, status->log_start.index, status->membership.count);
    }
}

static void check_liveness(struct swarm *swarm)
{
    struct sim_cluster *cluster = swarm->cluster;
    uint64_t until_ns = cluster->clock.now_ns + HEAL_LIMIT_NS;
    struct raft_position position = {0, 0};
    uint64_t value = sim_value(cluster);
    uint64_t proposed_ns = 0;
    bool committed = false;
    while (!committed || !converged(swarm, position.index)) {
        if (cluster->clock.now_ns > until_ns) {
            report_stuck(cluster);
            sim_fail("after healing: %s within %.0f s",
                     committed ? "replicas do not converge" : "nothing commits",
                     (double)HEAL_LIMIT_NS / 1e9);
        }
        int leader = newest_leader(cluster);
        uint64_t found = 0;
        committed = committed ||
                    (position.index > 0 &&
                     sim_committed_count(cluster, position.index, &found) > 0 && found == value);
        bool again = proposed_ns == 0 || cluster->clock.now_ns - proposed_ns > SIM_S;
        if (!committed && leader >= 0 && again &&
            sim_propose(cluster, (uint32_t)leader, value, sizeof value, &position)) {
            proposed_ns = cluster->clock.now_ns; /* else BUSY while the backlog drains */
        }
        sim_cluster_run(cluster, 50 * SIM_MS);
    }
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        const struct sim_replica *replica = &cluster->replicas[i];
        for (size_t k = 0; k < replica->read_count; k++) {
            if (cluster->clock.now_ns - replica->reads[k].asked_ns > 5 * SIM_S) {
                sim_fail("replica %u never answered a read asked for %.3f s ago", i + 1,
                         (double)(cluster->clock.now_ns - replica->reads[k].asked_ns) / 1e9);
            }
        }
    }
}

void swarm_run(uint64_t seed, enum sim_plant plant, struct swarm_result *sum)
{
    struct swarm swarm = {0};
    rng_init(&swarm.rng, seed);
    struct sim_cluster_options options;
    swarm_draw(&swarm.rng, seed, plant, &swarm.features, &options);
    struct sim_cluster *cluster = sim_cluster_create(&options);
    swarm.cluster = cluster;
    sim_report_begin("Swarm", seed, &cluster->clock);
    for (uint32_t i = 0; i < options.voters; i++) {
        start(&swarm, i);
    }
    uint64_t steps = rng_between(&swarm.rng, 100, 300);
    for (uint64_t i = 0; i < steps; i++) {
        pass_time(&swarm, rng_below(&swarm.rng, 40 * SIM_MS));
        work(&swarm);
        faults(&swarm);
        if (i % 32 == 0) {
            check_logs_match(cluster);
        }
    }
    heal(&swarm);
    check_liveness(&swarm);
    check_logs_match(cluster);

    cluster->counters.messages_lost += cluster->net.counters.lost;
    cluster->counters.messages_duplicated += cluster->net.counters.duplicated;
    cluster->counters.messages_reordered += cluster->net.counters.reordered;
    sim_counters_add(&sum->counters, &cluster->counters);
    sum->virtual_ns += cluster->clock.now_ns;
    sum->rpcs += cluster->net.counters.requests;
    sum->bytes += cluster->net.counters.bytes;
    sum->commands += cluster->checker.commands;
    sum->events += cluster->clock.events_run;
    sim_report_begin(NULL, 0, NULL);
    sim_cluster_destroy(cluster);
}

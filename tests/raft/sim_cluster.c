/* The group and the course's vocabulary. Thread: one. Invariant: time moves only in
 * sim_cluster_run*. */
#include "raft/sim_cluster.h"

#include "base/assert.h"
#include "raft/sim_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static_assert((int)SIM_REPLICAS_MAX <= (int)RAFT_MEMBERS_MAX, "every slot may be a member");

struct sim_cluster_options sim_cluster_options_course(uint32_t servers, uint64_t seed,
                                                      bool unreliable, bool snapshots)
{
    struct sim_cluster_options options = {.servers = servers,
                                          .voters = servers,
                                          .seed = seed,
                                          .limit_ns = SIM_TEST_LIMIT_NS,
                                          .heartbeat_rate_checked = true};
    options.net = unreliable ? sim_net_unreliable() : sim_net_reliable();
    options.net.report_losses = seed % 2 == 0; /* a core must do without, and may be told */
    struct sim_replica_options *replica = &options.replica;
    replica->core = raft_core_options_default(1, 1);
    replica->core.election_ticks = 30;
    replica->core.heartbeat_ticks = 10;
    replica->core.chunk_bytes_max = 256;
    replica->core.lease_reads = false;
    replica->tick_ns = 10 * SIM_MS;
    replica->pump_delay_ns = 20 * SIM_US;
    replica->sync_min_ns = 100 * SIM_US;
    replica->sync_max_ns = 1 * SIM_MS;
    replica->apply_delay_max_ns = 100 * SIM_US;
    replica->apply_bytes_max = 64 * 1024;
    replica->load_delay_max_ns = 1 * SIM_MS;
    replica->snapshot_interval = snapshots ? 10 : 0;
    replica->recovery_tail_max = 1000;
    return options;
}

static void deliver(void *context, uint32_t to, const struct raft_message *message)
{
    struct sim_cluster *cluster = context;
    if (sim_replica_is_up(&cluster->replicas[to])) {
        sim_replica_receive(&cluster->replicas[to], message);
    }
}

static void lost(void *context, uint32_t from, uint32_t to)
{
    struct sim_cluster *cluster = context;
    if (sim_replica_is_up(&cluster->replicas[from])) {
        sim_replica_unreachable(&cluster->replicas[from], to + 1);
    }
}

struct sim_cluster *sim_cluster_create(const struct sim_cluster_options *options)
{
    ASSERT_CMP(options->servers, <=, SIM_REPLICAS_MAX);
    ASSERT_CMP(options->voters, <=, options->servers);
    struct sim_cluster *cluster = mem_calloc(1, sizeof *cluster);
    cluster->options = *options;
    sim_clock_init(&cluster->clock);
    rng_init(&cluster->rng, options->seed);
    sim_net_init(&cluster->net, &cluster->clock, rng_next(&cluster->rng), deliver, lost, cluster);
    cluster->net.options = options->net;
    sim_checker_init(&cluster->checker);
    struct raft_membership bootstrap = {.count = options->voters};
    for (uint32_t i = 0; i < options->voters; i++) {
        struct raft_member *member = &bootstrap.members[i];
        *member = (struct raft_member){.id = i + 1, .role = RAFT_VOTER};
        (void)snprintf(member->address, sizeof member->address, "replica:%u", i + 1);
    }
    struct raft_membership none = {0};
    for (uint32_t i = 0; i < options->servers; i++) {
        sim_replica_init(&cluster->replicas[i], cluster, i,
                         i < options->voters ? &bootstrap : &none);
    }
    return cluster;
}

void sim_cluster_destroy(struct sim_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        sim_replica_deinit(&cluster->replicas[i]);
    }
    sim_clock_deinit(&cluster->clock);
    sim_checker_deinit(&cluster->checker);
    free(cluster);
}

void sim_cluster_start_all(struct sim_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        sim_replica_start(&cluster->replicas[i]);
        sim_connect(cluster, i);
    }
}

static void check_limit(const struct sim_cluster *cluster)
{
    if (cluster->clock.now_ns > cluster->options.limit_ns) {
        sim_fail("longer than %.0f s of virtual time", (double)cluster->options.limit_ns / 1e9);
    }
}

void sim_cluster_run(struct sim_cluster *cluster, uint64_t duration_ns)
{
    uint64_t until_ns = cluster->clock.now_ns + duration_ns;
    while (sim_clock_step(&cluster->clock, until_ns)) {
        check_limit(cluster);
    }
    check_limit(cluster);
}

bool sim_cluster_run_until(struct sim_cluster *cluster, uint64_t timeout_ns, sim_condition_fn done,
                           const void *context)
{
    uint64_t until_ns = cluster->clock.now_ns + timeout_ns;
    while (!done(cluster, context)) {
        if (!sim_clock_step(&cluster->clock, until_ns)) {
            return done(cluster, context);
        }
        check_limit(cluster);
    }
    return true;
}

/* ---- servers and links ---- */

void sim_connect(struct sim_cluster *cluster, uint32_t slot)
{
    cluster->net.connected[slot] = true;
}

void sim_disconnect(struct sim_cluster *cluster, uint32_t slot)
{
    cluster->net.connected[slot] = false;
}

bool sim_connected(const struct sim_cluster *cluster, uint32_t slot)
{
    return cluster->net.connected[slot];
}

bool sim_is_up(const struct sim_cluster *cluster, uint32_t slot)
{
    return sim_replica_is_up(&cluster->replicas[slot]);
}

void sim_crash(struct sim_cluster *cluster, uint32_t slot)
{
    sim_disconnect(cluster, slot);
    if (sim_is_up(cluster, slot)) {
        sim_replica_crash(&cluster->replicas[slot]);
    }
}

void sim_start(struct sim_cluster *cluster, uint32_t slot)
{
    sim_crash(cluster, slot);
    cluster->counters.restarts++;
    sim_replica_start(&cluster->replicas[slot]);
}

void sim_unreliable(struct sim_cluster *cluster, bool unreliable)
{
    bool report = cluster->net.options.report_losses;
    cluster->net.options = unreliable ? sim_net_unreliable() : sim_net_reliable();
    cluster->net.options.report_losses = report;
}

void sim_long_reordering(struct sim_cluster *cluster, bool on)
{
    cluster->net.options.long_reordering = on;
}

/* ---- commands ---- */

uint64_t sim_value(struct sim_cluster *cluster)
{
    return rng_next(&cluster->rng);
}

bool sim_leads(const struct sim_cluster *cluster, uint32_t slot, uint64_t *term)
{
    const struct sim_replica *replica = &cluster->replicas[slot];
    *term = replica->status.term;
    return sim_replica_is_up(replica) && replica->status.state == RAFT_LEADER;
}

bool sim_propose(struct sim_cluster *cluster, uint32_t slot, uint64_t value, size_t size,
                 struct raft_position *position)
{
    if (!sim_is_up(cluster, slot)) {
        return false;
    }
    struct raft_position ignored;
    struct blob *payload = sim_command_make(value, size);
    int error = sim_replica_propose(&cluster->replicas[slot], payload,
                                    position == NULL ? &ignored : position);
    blob_unref(payload);
    return error == 0;
}

uint32_t sim_committed_count(struct sim_cluster *cluster, uint64_t index, uint64_t *value)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        const struct sim_command *command = sim_sm_find(&cluster->replicas[i].sm, index);
        if (command == NULL) {
            continue;
        }
        if (count > 0 && command->value != *value) {
            sim_fail("servers applied different commands at %" PRIu64, index);
        }
        *value = command->value;
        count++;
    }
    return count;
}

static void agreement_step(void *context, void *payload, uint64_t tag);

static void agreement_again(struct sim_agreement *agreement, uint64_t delay_ns)
{
    struct sim_event event = {.at_ns = agreement->cluster->clock.now_ns + delay_ns,
                              .run = agreement_step,
                              .context = agreement};
    sim_clock_add(&agreement->cluster->clock, &event);
}

static void agreement_ask(struct sim_agreement *agreement)
{
    struct sim_cluster *cluster = agreement->cluster;
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        cluster->leader_hint = (cluster->leader_hint + 1) % cluster->options.servers;
        uint32_t slot = cluster->leader_hint;
        struct raft_position position;
        if (sim_connected(cluster, slot) &&
            sim_propose(cluster, slot, agreement->value, agreement->size, &position)) {
            agreement->index = position.index;
            agreement->asked_ns = cluster->clock.now_ns;
            return;
        }
    }
}

/* Proposes to whoever leads, waits up to 2 s for it to be applied by enough servers, then asks
 * again. */
static void agreement_step(void *context, void *payload, uint64_t tag)
{
    (void)payload;
    (void)tag;
    struct sim_agreement *agreement = context;
    struct sim_cluster *cluster = agreement->cluster;
    if (agreement->index != 0) {
        uint64_t value = 0;
        uint32_t count = sim_committed_count(cluster, agreement->index, &value);
        if (count >= agreement->servers && value == agreement->value) {
            agreement->done = true;
            return;
        }
        if (cluster->clock.now_ns - agreement->asked_ns < 2 * SIM_S) {
            agreement_again(agreement, 20 * SIM_MS);
            return;
        }
        if (!agreement->retry) {
            sim_fail("one(): no agreement on %" PRIu64 " by %u servers", agreement->value,
                     agreement->servers);
        }
        agreement->index = 0;
    }
    if (cluster->clock.now_ns >= agreement->deadline_ns) {
        sim_fail("one(): no agreement on %" PRIu64 " by %u servers within 10 s", agreement->value,
                 agreement->servers);
    }
    agreement_ask(agreement);
    agreement_again(agreement, agreement->index != 0 ? 1 * SIM_MS : 50 * SIM_MS);
}

void sim_agreement_begin(struct sim_agreement *agreement)
{
    if (agreement->size == 0) {
        agreement->size = sizeof(uint64_t);
    }
    agreement->deadline_ns = agreement->cluster->clock.now_ns + 10 * SIM_S;
    agreement_again(agreement, 0);
}

static bool agreement_done(struct sim_cluster *cluster, const void *context)
{
    (void)cluster;
    const struct sim_agreement *agreement = context;
    return agreement->done;
}

uint64_t sim_one_sized(struct sim_cluster *cluster, uint64_t value, size_t size, uint32_t servers,
                       bool retry)
{
    struct sim_agreement agreement = {
        .cluster = cluster, .value = value, .servers = servers, .retry = retry, .size = size};
    sim_agreement_begin(&agreement);
    if (!sim_cluster_run_until(cluster, 13 * SIM_S, agreement_done, &agreement)) {
        sim_fail("one(): never ends");
    }
    return agreement.index;
}

uint64_t sim_one(struct sim_cluster *cluster, uint64_t value, uint32_t servers, bool retry)
{
    return sim_one_sized(cluster, value, 0, servers, retry);
}

bool sim_wait(struct sim_cluster *cluster, uint64_t index, uint32_t servers, uint64_t term,
              uint64_t *value)
{
    uint64_t pause_ns = 10 * SIM_MS;
    for (unsigned i = 0; i < 30; i++) {
        if (sim_committed_count(cluster, index, value) >= servers) {
            return true;
        }
        sim_cluster_run(cluster, pause_ns);
        pause_ns = pause_ns < SIM_S ? pause_ns * 2 : pause_ns;
        for (uint32_t slot = 0; term != 0 && slot < cluster->options.servers; slot++) {
            if (cluster->replicas[slot].status.term > term) {
                return false;
            }
        }
    }
    sim_fail("wait(): index %" PRIu64 " was not applied by %u servers", index, servers);
}

/* ---- leaders and terms ---- */

uint32_t sim_check_one_leader(struct sim_cluster *cluster)
{
    uint64_t asked_ns = cluster->clock.now_ns;
    while (cluster->clock.now_ns - asked_ns < 5 * SIM_S) {
        sim_cluster_run(cluster, rng_between(&cluster->rng, 450, 549) * SIM_MS);
        uint64_t newest_term = 0;
        uint32_t leader = 0;
        for (uint32_t i = 0; i < cluster->options.servers; i++) {
            uint64_t term;
            if (!sim_connected(cluster, i) || !sim_leads(cluster, i, &term)) {
                continue;
            }
            if (term == newest_term) {
                sim_fail("term %" PRIu64 " has two leaders", term);
            }
            if (term > newest_term) {
                newest_term = term;
                leader = i;
            }
        }
        if (newest_term > 0) {
            return leader;
        }
    }
    sim_fail("no leader within 5 s");
}

void sim_check_no_leader(struct sim_cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        uint64_t term;
        if (sim_connected(cluster, i) && sim_leads(cluster, i, &term)) {
            sim_fail("server %u leads term %" PRIu64 " without a majority", i, term);
        }
    }
}

uint64_t sim_check_terms(struct sim_cluster *cluster)
{
    uint64_t agreed = 0;
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        if (!sim_connected(cluster, i) || !sim_is_up(cluster, i)) {
            continue;
        }
        uint64_t term = cluster->replicas[i].status.term;
        if (agreed != 0 && term != agreed) {
            sim_fail("servers disagree on the term: %" PRIu64 " and %" PRIu64, agreed, term);
        }
        agreed = term;
    }
    return agreed;
}

uint64_t sim_rpc_count(const struct sim_cluster *cluster, uint32_t slot)
{
    return cluster->net.counters.requests_delivered_to[slot];
}

uint64_t sim_log_bytes_max(const struct sim_cluster *cluster)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < cluster->options.servers; i++) {
        uint64_t bytes = sim_disk_log_bytes(&cluster->replicas[i].disk);
        most = bytes > most ? bytes : most;
    }
    return most;
}

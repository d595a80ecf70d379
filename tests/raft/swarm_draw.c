/* What a seed draws. Thread: one. */
#include "raft/swarm.h"

/* Seeds beyond the default ones that find a fault (the mutants of tests/raft/mutants.cmake); run
 * before those. What a seed does changes when the swarm does: look for new ones then. */
const uint64_t swarm_regressions[] = {
    540,  /* lease kept on transfer */
    1124, /* the sole voter that is left ignores the lease of the leader that removes itself */
    0,
};

static uint64_t choose(struct rng *rng, const uint64_t *values, size_t count)
{
    return values[rng_below(rng, count)];
}
#define CHOOSE(rng, ...)                                                                           \
    choose((rng), (const uint64_t[]){__VA_ARGS__},                                                 \
           sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

static void draw_features(struct rng *rng, struct swarm_features *features)
{
    *features = (struct swarm_features){
        .loss = rng_chance(rng, 1, 2),
        .delay = rng_chance(rng, 1, 2),
        .duplicates = rng_chance(rng, 1, 2),
        .stragglers = rng_chance(rng, 1, 2),
        .partitions = rng_chance(rng, 1, 2),
        .one_way = rng_chance(rng, 1, 3),
        .links = rng_chance(rng, 1, 3),
        .crashes = rng_chance(rng, 1, 2),
        .slow_disks = rng_chance(rng, 1, 3),
        .stalls = rng_chance(rng, 1, 4),
        .membership = rng_chance(rng, 1, 2),
        .transfers = rng_chance(rng, 1, 2),
        .reads = rng_chance(rng, 2, 3),
        .snapshots = rng_chance(rng, 2, 3),
        .tight_limits = rng_chance(rng, 2, 3),
        .lease = rng_chance(rng, 1, 3),
    };
}

static struct sim_net_options draw_net(struct rng *rng, const struct swarm_features *features)
{
    struct sim_net_options net = sim_net_reliable();
    net.report_losses = rng_chance(rng, 1, 2);
    if (features->loss) {
        net.request_loss_permille = (uint32_t)rng_between(rng, 1, 250);
        net.reply_loss_permille = (uint32_t)rng_between(rng, 1, 250);
    }
    if (features->delay) {
        net.delay_max_ns = CHOOSE(rng, 5 * SIM_MS, 26 * SIM_MS, 80 * SIM_MS);
        net.fifo = rng_chance(rng, 1, 3);
    }
    if (features->duplicates) {
        net.duplicate_permille = (uint32_t)rng_between(rng, 1, 300);
    }
    if (features->stragglers) {
        net.fifo = false;
        net.straggler_permille = (uint32_t)rng_between(rng, 1, 150);
        net.straggler_max_ns = CHOOSE(rng, 50 * SIM_MS, 500 * SIM_MS, 3 * SIM_S);
    }
    return net;
}

static void draw_core(struct rng *rng, const struct swarm_features *features,
                      struct raft_core_options *core)
{
    core->election_ticks = (uint32_t)rng_between(rng, 10, 30);
    core->heartbeat_ticks = (uint32_t)rng_between(rng, 1, core->election_ticks / 4);
    core->lease_reads = features->lease;
    core->chunk_bytes_max = (uint32_t)CHOOSE(rng, 48, 200, 1024, 65536);
    if (features->tight_limits) {
        core->append_bytes_max = CHOOSE(rng, 100, 400, 2000, 20000);
        core->inflight_bytes_max = core->append_bytes_max * rng_between(rng, 1, 8);
        core->inflight_count_max = (uint32_t)CHOOSE(rng, 1, 2, 5, 64, 256);
        core->cache_bytes_max = CHOOSE(rng, 1, 300, 2000, 20000);
        core->uncommitted_bytes_max = CHOOSE(rng, 2000, 10000, 1000000);
    }
}

static void draw_disk(struct rng *rng, const struct swarm_features *features,
                      struct sim_replica_options *replica)
{
    replica->sync_min_ns = 50 * SIM_US;
    replica->sync_max_ns = CHOOSE(rng, 100 * SIM_US, 2 * SIM_MS);
    if (features->slow_disks) {
        replica->sync_max_ns = CHOOSE(rng, 10 * SIM_MS, 60 * SIM_MS, 200 * SIM_MS);
    }
    if (features->stalls) {
        replica->stall_permille = (uint32_t)rng_between(rng, 1, 30);
        replica->stall_ns = CHOOSE(rng, 300 * SIM_MS, 1500 * SIM_MS);
    }
    replica->load_delay_max_ns = CHOOSE(rng, 1 * SIM_MS, 50 * SIM_MS);
}

void swarm_draw(struct rng *rng, uint64_t seed, enum sim_plant plant,
                struct swarm_features *features, struct sim_cluster_options *options)
{
    draw_features(rng, features);
    *options = sim_cluster_options_course(3, seed, false, false);
    options->voters = (uint32_t)CHOOSE(rng, 1, 2, 3, 3, 3, 4, 5, 5);
    options->servers = options->voters;
    if (features->membership) {
        options->servers += (uint32_t)rng_between(rng, 1, SIM_REPLICAS_MAX - options->voters);
    }
    options->net = draw_net(rng, features);
    options->heartbeat_rate_checked = false; /* read rounds are heartbeats too */
    options->limit_ns = 60 * SIM_S;
    struct sim_replica_options *replica = &options->replica;
    replica->plant = plant;
    draw_core(rng, features, &replica->core);
    draw_disk(rng, features, replica);
    replica->skew_permille_max = features->lease ? 40 : (int32_t)CHOOSE(rng, 0, 20, 300);
    replica->pump_delay_ns = CHOOSE(rng, 1 * SIM_US, 20 * SIM_US, 3 * SIM_MS);
    replica->apply_delay_max_ns = CHOOSE(rng, 50 * SIM_US, 2 * SIM_MS, 100 * SIM_MS);
    replica->apply_bytes_max = CHOOSE(rng, 1, 500, 65536);
    replica->recovery_tail_max = (size_t)CHOOSE(rng, 0, 3, 1000);
    replica->recovery_base_form = true;
    if (features->snapshots) {
        replica->snapshot_interval = rng_between(rng, 2, 40);
        replica->snapshot_delay_max_ns = CHOOSE(rng, 0, 5 * SIM_MS, 200 * SIM_MS);
        replica->snapshot_lazy = rng_chance(rng, 1, 2);
        replica->damage_permille = (uint32_t)CHOOSE(rng, 0, 0, 200);
        replica->snapshot_keep = CHOOSE(rng, 0, 0, 5, 50);
    }
}

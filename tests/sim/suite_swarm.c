/* Everything at once, drawn from the seed: shards that move, servers that crash, stop for a while
 * or lose the network in one direction, clocks that drift, a network that loses and delays,
 * administrators, clients of all keys. Afterwards all heals: the history is linearizable, every
 * client has its answers, every group has taken the newest config, replicas are equal. */
#include "raft/node/node.h"
#include "sim/sim_node.h"
#include "sim/storm.h"
#include "sim/suite.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HASTY_CLIENTS =
        2, /* whose operations have little time: what they say of the outcome must be true */
    KEYS = 12,
    DRIFT_PERCENT = 30,
    LEASE_DRIFT_PERCENT = 5, /* both ways: rates differ by a tenth */
    FLUSH_BYTES = 16 * 1024,
    PADDING_BYTES = 1024,
    LARGE_FLUSH_BYTES = 1024 * 1024,
    LARGE_PADDING_BYTES = 200 * 1024,
    LARGE_SHARDS = 4,
    LARGE_KEYS_OF_SHARD = 7,
    DEFAULT_SEEDS = 50,
};

#define STORM_NS (12 * SIM_S)

/* ---- what can happen ---- */

/* Whether the group that was to join has. Where nobody knows it counts as one that has not, lest
 * the last one be told to leave; joining it again tells. */
static void note_join(struct storm *storm)
{
    if (storm->joining != NULL) {
        *storm->joining = storm->change.error == 0 || storm->change.error == ERR_GROUP_EXISTS;
        storm->joining = NULL;
    }
}

static void change_config(struct storm *storm)
{
    struct cluster *cluster = storm->cluster;
    if (storm->changing && !storm->change.ended) {
        return; /* one administrator does one thing at a time */
    }
    note_join(storm);
    uint32_t number = (uint32_t)sim_between(0, cluster->group_count - 1);
    uint64_t id = cluster->groups[number].id;
    uint32_t joined = 0;
    for (uint32_t i = 0; i < cluster->group_count; i++) {
        joined += storm->joined[i];
    }
    storm->changing = true;
    if (!storm->joined[number]) {
        admin_begin_join(cluster->admin, &id, 1, &storm->change);
        storm->joining = &storm->joined[number];
    } else if (joined > 1 && sim_between(0, 1) == 0) {
        admin_begin_leave(cluster->admin, &id, 1, &storm->change);
        storm->joined[number] = false;
    } else {
        admin_begin_move(cluster->admin, (uint32_t)sim_between(0, STORM_SHARDS - 1), id,
                         &storm->change);
    }
}

static void something_happens(struct storm *storm)
{
    const struct storm_switches *on = &storm->on;
    switch (sim_between(0, 19)) {
    case 0:
    case 1:
    case 2:
        change_config(storm);
        break;
    case 3:
        storm_crash_something(storm);
        break;
    case 4:
    case 5:
        storm_start_everything(storm);
        break;
    case 6:
        storm_partition_something(storm);
        break;
    case 7:
    case 8:
        sim_heal();
        break;
    case 9:
        storm_pause_something(storm);
        break;
    case 10:
        storm_stall_disk(storm);
        break;
    case 11:
    case 12:
        if (on->transfers) {
            storm_transfer_something(storm);
        }
        break;
    case 13:
        if (on->members) {
            storm_change_members(storm);
        }
        break;
    case 14:
    case 15:
        if (on->disks) {
            storm_break_disk(storm);
        }
        break;
    case 16:
        if (on->flips) {
            storm_flip_bit(storm);
        }
        break;
    case 17:
        if (on->clogs) {
            storm_clog_something(storm);
        }
        break;
    case 18:
        if (on->wall) {
            storm_set_wall_clock(storm);
        }
        break;
    default:
        storm_change_network();
        break;
    }
}

/* ---- before and after ---- */

/* Some shards that do not fit in one chunk of a move. */
static void fill_large(struct storm *storm)
{
    char *value = mem_alloc(LARGE_PADDING_BYTES + 1);
    memset(value, 'v', LARGE_PADDING_BYTES);
    value[LARGE_PADDING_BYTES] = '\0';
    for (uint32_t i = 0; i < LARGE_SHARDS * LARGE_KEYS_OF_SHARD; i++) {
        char key[SIM_NAME_BYTES_MAX];
        clerk_key_in_shard(i / LARGE_KEYS_OF_SHARD, STORM_SHARDS, i % LARGE_KEYS_OF_SHARD, key);
        clerk_put(&storm->clerks[0], key, value);
    }
    free(value);
}

static bool one_in(uint32_t count)
{
    return sim_between(1, count) == 1;
}

static void draw_switches(struct storm_switches *on)
{
    *on = (struct storm_switches){
        .large = one_in(4),
        .transfers = one_in(2),
        .members = one_in(2),
        .lease = one_in(3),
        .drift = one_in(2),
        .disks = one_in(3),
        .flips = one_in(3),
        .clogs = one_in(2),
        .wall = one_in(2),
        .hour = one_in(6),
        .dense = one_in(4),
    };
}

/* Where an hour passes, operations that were under way end without success; some would have had the
 * time: what the library says of those must be true too. */
static void give_hours(struct storm *storm)
{
    for (uint32_t i = 0; i < STORM_CLIENTS; i++) {
        storm->clerks[i].forgiving = true;
        if (i % 2 == 0) {
            storm->clerks[i].timeout_ms = 4 * 60 * 60 * 1000;
        }
    }
}

static void begin(struct storm *storm)
{
    draw_switches(&storm->on);
    struct cluster_options options = {.controllers = 3,
                                      .groups = 3,
                                      .replicas = sim_between(0, 2) == 0 ? 5 : 3,
                                      .shards = STORM_SHARDS,
                                      .flush_log_bytes =
                                          storm->on.large ? LARGE_FLUSH_BYTES : FLUSH_BYTES,
                                      .lease_reads = storm->on.lease,
                                      .joined = true};
    sim_world()->drift_percent = storm->on.lease   ? LEASE_DRIFT_PERCENT
                                 : storm->on.drift ? DRIFT_PERCENT
                                                   : 0;
    storm->cluster = cluster_create(&options);
    storm->joined[0] = true;
    storm->history = linear_create();
    for (uint32_t i = 0; i < STORM_CLIENTS; i++) {
        clerk_open(&storm->clerks[i], storm->cluster, storm->history);
    }
    if (storm->on.large) {
        fill_large(storm);
    }
    if (storm->on.hour) {
        give_hours(storm);
    }
    for (uint32_t i = 0; i < HASTY_CLIENTS; i++) {
        storm->clerks[i].timeout_ms = (uint32_t)sim_between(50, 2000);
    }
    /* Busy clients find full batches and queues, calm ones find a cluster at rest; and a calm
     * storm simulates more seconds in the same time. */
    static const uint32_t pauses_ms[] = {10, 40, 100, 200};
    uint64_t pause_ms = storm->on.large ? 100 : pauses_ms[sim_between(0, 3)];
    for (uint32_t i = 0; i < STORM_LOOPS; i++) {
        struct loop_options loop = {.number = i,
                                    .key_count = KEYS,
                                    .deletes = true,
                                    .cas = true,
                                    .padding_bytes =
                                        storm->on.large ? LARGE_PADDING_BYTES : PADDING_BYTES,
                                    .padding_one_in = storm->on.large ? 50 : 5,
                                    .pause_min_ns = 0,
                                    .pause_max_ns = pause_ms * SIM_MS};
        loop_start(&storm->loops[i], &storm->clerks[i % STORM_CLIENTS], &loop);
    }
}

/* Also of a plan that waits for its time. */
static bool members_end(void *context)
{
    storm_members_advance(context);
    return storm_members_are_quiet(context);
}

static void calm_group(struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        struct server *server = &group->servers[i];
        server_reap(server);
        if (server->host->disk_fails && !server->host->damaged) {
            server_kill(server);
        }
        storm_mend_disk(server);
    }
}

/* Nothing happens any more. What has ended itself, or might yet, starts on a disk that works. */
static void calm(struct storm *storm)
{
    sim_heal();
    sim_world()->net = sim_net_reliable();
    calm_group(&storm->cluster->controllers);
    for (uint32_t i = 0; i < storm->cluster->group_count; i++) {
        calm_group(&storm->cluster->groups[i]);
    }
    storm_start_everything(storm);
}

static void end(struct storm *storm)
{
    for (uint32_t i = 0; i < STORM_LOOPS; i++) {
        loop_stop(&storm->loops[i]);
    }
    calm(storm);
    bool quiet = sim_run_until(STORM_CALM_NS, members_end, storm);
    SIM_CHECK(quiet);
    loops_wait(storm->loops, STORM_LOOPS, STORM_CALM_NS);
    if (storm->changing) {
        bool ended = admin_wait(&storm->change, STORM_CALM_NS);
        SIM_CHECK(ended);
    }
    cluster_wait_settled(storm->cluster, STORM_CALM_NS);
    for (uint32_t i = 0; i < STORM_LOOPS; i++) {
        loop_deinit(&storm->loops[i]);
    }
    for (uint32_t i = 0; i < STORM_CLIENTS; i++) {
        clerk_close(&storm->clerks[i]);
    }
    cluster_destroy(storm->cluster);
    linear_require(storm->history);
    linear_destroy(storm->history);
}

static void swarm(void)
{
    struct storm *storm = mem_calloc(1, sizeof *storm);
    begin(storm);
    uint64_t until_ns = sim_now_ns() + STORM_NS;
    uint64_t hour_ns = storm->on.hour ? sim_now_ns() + sim_between(0, STORM_NS) : UINT64_MAX;
    while (sim_now_ns() < until_ns) {
        sim_run(sim_between(0, storm->on.dense ? 80 : 400) * SIM_MS);
        if (sim_now_ns() > hour_ns) {
            uint64_t stop_ns = sim_between(61, 200) * 60 * SIM_S;
            cluster_suspend(storm->cluster, stop_ns);
            until_ns += stop_ns;
            hour_ns = UINT64_MAX;
        }
        cluster_reap(storm->cluster);
        storm_members_advance(storm);
        something_happens(storm);
    }
    end(storm);
    free(storm);
}

/* ---- a clock that stands still ---- */

static void reach_only(const struct clerk *clerk, const struct group *group, uint32_t mask)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        sim_cut_both(clerk->host, group->servers[i].host, ((mask >> i) & 1) == 0);
    }
}

/* A leader whose clock runs at a hundredth of its speed is cut off, with a client that believes in
 * it. It goes on believing that it leads, but no read may be answered by it: reads rest on no
 * clock. */
static void slow_clock_read(void)
{
    struct cluster_options options = {
        .controllers = 1, .groups = 1, .replicas = 3, .shards = STORM_SHARDS, .joined = true};
    struct cluster *cluster = cluster_create(&options);
    struct group *group = &cluster->groups[0];
    struct clerk there;
    struct clerk elsewhere;
    clerk_open(&there, cluster, NULL);
    clerk_open(&elsewhere, cluster, NULL);
    clerk_put(&there, "k", "old");
    clerk_check(&elsewhere, "k", "old");
    struct server *leader = group_leader(group);
    uint32_t mask = 1u << (leader->replica_id - 1);
    sim_node_set_clock(server_node(leader), 10000);
    group_partition(group, mask);
    reach_only(&there, group, mask);
    reach_only(&elsewhere, group, ~mask);
    clerk_put(&elsewhere, "k", "new");
    struct clerk_pending get;
    clerk_begin(&there, SKV_GET, "k", NULL, &get);
    sim_run(3 * SIM_S);
    SIM_CHECK(node_is_leader(server_node(leader))); /* as it thinks */
    SIM_CHECK(!get.ended);
    group_heal(group);
    reach_only(&there, group, ~0u);
    reach_only(&elsewhere, group, ~0u);
    bool ended = clerk_wait(&get, 20 * SIM_S);
    SIM_CHECK(ended);
    SIM_CHECK(bytes_equal(buf_view(&get.value), bytes_of_string("new")));
    clerk_pending_deinit(&get);
    clerk_close(&there);
    clerk_close(&elsewhere);
    cluster_destroy(cluster);
}

struct suite_list suite_swarm(void)
{
    static const struct suite_test tests[] = {
        {.name = "sim.Swarm",
         .run = swarm,
         .seeds = DEFAULT_SEEDS,
         .searched = true,
         .sees_everything = true},
        {.name = "sim.SlowClockRead", .run = slow_clock_read},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}

/* The course's persistence tests, with the two that Figure 8 of the paper asks for. */
#include "raft/sim_report.h"
#include "raft/suite.h"

static void restart(struct sim_cluster *cluster, uint32_t slot)
{
    sim_start(cluster, slot);
    sim_connect(cluster, slot);
}

void suite_persist1(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, 11, servers, true);
    for (uint32_t i = 0; i < servers; i++) {
        restart(cluster, i);
    }
    (void)sim_one(cluster, 12, servers, true);

    uint32_t first = sim_check_one_leader(cluster);
    restart(cluster, first);
    (void)sim_one(cluster, 13, servers, true);

    uint32_t second = sim_check_one_leader(cluster);
    sim_disconnect(cluster, second);
    uint64_t index = sim_one(cluster, 14, servers - 1, true);
    restart(cluster, second);
    uint64_t value = 0;
    (void)sim_wait(cluster, index, servers, 0, &value); /* it has caught up before another goes */

    uint32_t third = (sim_check_one_leader(cluster) + 1) % servers;
    sim_disconnect(cluster, third);
    (void)sim_one(cluster, 15, servers - 1, true);
    restart(cluster, third);
    (void)sim_one(cluster, 16, servers, true);
}

void suite_persist2(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    uint64_t value = 11;
    for (unsigned i = 0; i < 5; i++) {
        (void)sim_one(cluster, value++, servers, true);
        uint32_t leader = sim_check_one_leader(cluster);
        sim_disconnect(cluster, (leader + 1) % servers);
        sim_disconnect(cluster, (leader + 2) % servers);
        (void)sim_one(cluster, value++, servers - 2, true);
        sim_disconnect(cluster, leader);
        sim_disconnect(cluster, (leader + 3) % servers);
        sim_disconnect(cluster, (leader + 4) % servers);

        restart(cluster, (leader + 1) % servers);
        restart(cluster, (leader + 2) % servers);
        sim_cluster_run(cluster, COURSE_ELECTION_NS);
        restart(cluster, (leader + 3) % servers); /* a majority, one of which has the last entry */
        (void)sim_one(cluster, value++, servers - 2, true);
        sim_connect(cluster, (leader + 4) % servers);
        sim_connect(cluster, leader);
    }
    (void)sim_one(cluster, 1000, servers, true);
}

void suite_persist3(struct sim_cluster *cluster)
{
    (void)sim_one(cluster, 101, 3, true);
    uint32_t leader = sim_check_one_leader(cluster);
    sim_disconnect(cluster, (leader + 2) % 3);
    (void)sim_one(cluster, 102, 2, true);
    sim_crash(cluster, leader);
    sim_crash(cluster, (leader + 1) % 3);
    sim_connect(cluster, (leader + 2) % 3);
    restart(cluster, leader);
    (void)sim_one(cluster, 103, 2, true);
    restart(cluster, (leader + 1) % 3);
    (void)sim_one(cluster, 104, 3, true);
}

static uint64_t figure8_pause_ns(struct sim_cluster *cluster)
{
    if (rng_chance(&cluster->rng, 100, 1000)) {
        return rng_below(&cluster->rng, COURSE_ELECTION_NS / 2);
    }
    return rng_below(&cluster->rng, 13) * SIM_MS;
}

/* Leaders come and go before they can replicate; what was committed must survive every one of them.
 */
void suite_figure8(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, sim_value(cluster), 1, true);
    uint32_t up = servers;
    for (unsigned i = 0; i < 1000; i++) {
        int leader = -1;
        for (uint32_t slot = 0; slot < servers; slot++) {
            if (sim_propose(cluster, slot, sim_value(cluster), sizeof(uint64_t), NULL)) {
                leader = (int)slot;
            }
        }
        sim_cluster_run(cluster, figure8_pause_ns(cluster));
        if (leader >= 0) {
            sim_crash(cluster, (uint32_t)leader);
            up--;
        }
        uint32_t slot = (uint32_t)rng_below(&cluster->rng, servers);
        if (up < 3 && !sim_is_up(cluster, slot)) {
            restart(cluster, slot);
            up++;
        }
    }
    for (uint32_t slot = 0; slot < servers; slot++) {
        if (!sim_is_up(cluster, slot)) {
            restart(cluster, slot);
        }
    }
    (void)sim_one(cluster, sim_value(cluster), servers, true);
}

static bool all_agreed(struct sim_cluster *cluster, const void *context)
{
    (void)cluster;
    const struct sim_agreement *agreements = context;
    for (unsigned i = 0; agreements[i].cluster != NULL; i++) {
        if (!agreements[i].done) {
            return false;
        }
    }
    return true;
}

void suite_unreliable_agree(struct sim_cluster *cluster)
{
    enum { ROUNDS = 49, BESIDE = 4 };
    struct sim_agreement agreements[ROUNDS * BESIDE + 1];
    for (unsigned i = 0; i <= ROUNDS * BESIDE; i++) {
        agreements[i] = (struct sim_agreement){.cluster = NULL};
    }
    for (unsigned round = 1; round <= ROUNDS; round++) {
        for (unsigned k = 0; k < BESIDE; k++) {
            struct sim_agreement *agreement = &agreements[(round - 1) * BESIDE + k];
            *agreement = (struct sim_agreement){
                .cluster = cluster, .value = 100 * round + k, .servers = 1, .retry = true};
            sim_agreement_begin(agreement);
        }
        (void)sim_one(cluster, round, 1, true);
    }
    sim_unreliable(cluster, false);
    if (!sim_cluster_run_until(cluster, 13 * SIM_S, all_agreed, agreements)) {
        sim_fail("a concurrent one() never ends");
    }
    (void)sim_one(cluster, 100, cluster->options.servers, true);
}

void suite_figure8_unreliable(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    (void)sim_one(cluster, sim_value(cluster), 1, true);
    uint32_t up = servers;
    for (unsigned i = 0; i < 1000; i++) {
        if (i == 200) {
            sim_long_reordering(cluster, true);
        }
        int leader = -1;
        for (uint32_t slot = 0; slot < servers; slot++) {
            if (sim_propose(cluster, slot, sim_value(cluster), sizeof(uint64_t), NULL) &&
                sim_connected(cluster, slot)) {
                leader = (int)slot;
            }
        }
        sim_cluster_run(cluster, figure8_pause_ns(cluster));
        if (leader >= 0 && rng_chance(&cluster->rng, 500, 1000)) {
            sim_disconnect(cluster, (uint32_t)leader);
            up--;
        }
        uint32_t slot = (uint32_t)rng_below(&cluster->rng, servers);
        if (up < 3 && !sim_connected(cluster, slot)) {
            sim_connect(cluster, slot);
            up++;
        }
    }
    for (uint32_t slot = 0; slot < servers; slot++) {
        sim_connect(cluster, slot);
    }
    (void)sim_one(cluster, sim_value(cluster), servers, true);
}

/* The course's churn tests: clients that go on while servers are cut off, killed and restarted;
 * what a client saw committed must be in the log at the end. */
#include "base/assert.h"
#include "base/bytes.h"
#include "raft/sim_report.h"
#include "raft/suite.h"

#include <inttypes.h>
#include <stdlib.h>

enum { CLIENTS = 3, ITERATIONS = 20 };

static const uint64_t waits_ms[] = {10, 20, 50, 100, 200};
enum { WAITS = sizeof waits_ms / sizeof waits_ms[0] };

/* One client as a machine: start a command, look for it a few times, begin again. */
struct churn_client {
    struct sim_cluster *cluster;
    unsigned number;
    const bool *stop;
    bool stopped;
    uint64_t value;
    uint64_t index; /* 0: nothing is under way */
    unsigned waits; /* done for it */
    uint64_t *committed;
    size_t count;
    size_t capacity;
};

static void client_step(void *context, void *payload, uint64_t tag);

static void client_again(struct churn_client *client, uint64_t delay_ms)
{
    struct sim_event event = {.at_ns = client->cluster->clock.now_ns + delay_ms * SIM_MS,
                              .run = client_step,
                              .context = client};
    sim_clock_add(&client->cluster->clock, &event);
}

static void client_saw_committed(struct churn_client *client)
{
    if (client->count == client->capacity) {
        client->capacity = client->capacity == 0 ? 64 : client->capacity * 2;
        client->committed =
            mem_realloc(client->committed, client->capacity * sizeof client->committed[0]);
    }
    client->committed[client->count++] = client->value;
}

static void client_start(struct churn_client *client)
{
    struct sim_cluster *cluster = client->cluster;
    client->value = sim_value(cluster);
    client->index = 0;
    client->waits = 0;
    for (uint32_t slot = 0; slot < cluster->options.servers; slot++) {
        struct raft_position position;
        if (sim_propose(cluster, slot, client->value, sizeof client->value, &position)) {
            client->index = position.index;
        }
    }
    client_again(client, client->index != 0 ? 0 : 79 + client->number * 17);
}

static void client_step(void *context, void *payload, uint64_t tag)
{
    (void)payload;
    (void)tag;
    struct churn_client *client = context;
    if (client->index != 0) {
        uint64_t value = 0;
        uint32_t count = sim_committed_count(client->cluster, client->index, &value);
        if (count > 0) {
            if (value == client->value) {
                client_saw_committed(client);
            }
        } else if (client->waits < WAITS) {
            client_again(client, waits_ms[client->waits++]);
            return;
        }
    }
    if (*client->stop) {
        client->stopped = true;
        return;
    }
    client_start(client);
}

static void churn_servers(struct sim_cluster *cluster)
{
    uint32_t servers = cluster->options.servers;
    for (unsigned i = 0; i < ITERATIONS; i++) {
        if (rng_chance(&cluster->rng, 200, 1000)) {
            sim_disconnect(cluster, (uint32_t)rng_below(&cluster->rng, servers));
        }
        if (rng_chance(&cluster->rng, 500, 1000)) {
            uint32_t slot = (uint32_t)rng_below(&cluster->rng, servers);
            if (!sim_is_up(cluster, slot)) {
                sim_start(cluster, slot);
            }
            sim_connect(cluster, slot);
        }
        if (rng_chance(&cluster->rng, 200, 1000)) {
            sim_crash(cluster, (uint32_t)rng_below(&cluster->rng, servers));
        }
        /* Shorter than an election, so that it is usually settled before the next fault. */
        sim_cluster_run(cluster, COURSE_ELECTION_NS * 7 / 10);
    }
    sim_cluster_run(cluster, COURSE_ELECTION_NS);
    sim_unreliable(cluster, false);
    for (uint32_t slot = 0; slot < servers; slot++) {
        if (!sim_is_up(cluster, slot)) {
            sim_start(cluster, slot);
        }
        sim_connect(cluster, slot);
    }
}

static void check_client(struct sim_cluster *cluster, const struct churn_client *client)
{
    const struct sim_sm *sm = &cluster->replicas[0].sm;
    for (size_t i = 0; i < client->count; i++) {
        bool found = false;
        for (size_t k = 0; k < sm->count && !found; k++) {
            found = sm->commands[k].value == client->committed[i];
        }
        if (!found) {
            sim_fail("client %u saw %" PRIu64 " committed; it is not in the log", client->number,
                     client->committed[i]);
        }
    }
}

static bool all_stopped(struct sim_cluster *cluster, const void *context)
{
    (void)cluster;
    const struct churn_client *clients = context;
    for (unsigned i = 0; i < CLIENTS; i++) {
        if (!clients[i].stopped) {
            return false;
        }
    }
    return true;
}

static void churn(struct sim_cluster *cluster)
{
    bool stop = false;
    struct churn_client clients[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = (struct churn_client){.cluster = cluster, .number = i, .stop = &stop};
        client_again(&clients[i], 0);
    }
    churn_servers(cluster);
    stop = true;
    if (!sim_cluster_run_until(cluster, SIM_S, all_stopped, clients)) {
        sim_fail("a client does not stop");
    }
    sim_cluster_run(cluster, COURSE_ELECTION_NS);
    uint64_t last = sim_one(cluster, sim_value(cluster), cluster->options.servers, true);
    if (cluster->replicas[0].sm.applied.index < last) {
        sim_fail("one() returned %" PRIu64 ", server 0 applied %" PRIu64, last,
                 cluster->replicas[0].sm.applied.index);
    }
    size_t seen = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        check_client(cluster, &clients[i]);
        seen += clients[i].count;
        free(clients[i].committed);
    }
    if (seen == 0) {
        sim_fail("no client ever saw a command committed");
    }
}

void suite_reliable_churn(struct sim_cluster *cluster)
{
    churn(cluster);
}

void suite_unreliable_churn(struct sim_cluster *cluster)
{
    churn(cluster);
}

/* What breaks in a storm: see storm.h. Thread: one. */
#include "sim/storm.h"

#include "raft/node/node.h"

struct group *storm_any_group(struct storm *storm)
{
    uint64_t number = sim_between(0, storm->cluster->group_count);
    return number == storm->cluster->group_count ? &storm->cluster->controllers
                                                 : &storm->cluster->groups[number];
}

struct server *storm_any_server(struct storm *storm)
{
    struct group *group = storm_any_group(storm);
    struct server *server = NULL;
    do {
        server = &group->servers[sim_between(0, group->server_count - 1)];
    } while (server->retired);
    return server;
}

void storm_crash_something(struct storm *storm)
{
    uint64_t dice = sim_between(0, 4);
    if (dice == 0) {
        group_crash(storm_any_group(storm));
    } else if (dice == 1) {
        server_stop(storm_any_server(storm));
    } else {
        server_crash(storm_any_server(storm));
    }
}

void storm_start_everything(struct storm *storm)
{
    group_start(&storm->cluster->controllers);
    for (uint32_t i = 0; i < storm->cluster->group_count; i++) {
        group_start(&storm->cluster->groups[i]);
    }
}

void storm_partition_something(struct storm *storm)
{
    struct group *group = storm_any_group(storm);
    switch (sim_between(0, 3)) {
    case 0:
        group_partition(group, (uint32_t)sim_between(0, (UINT64_C(1) << group->server_count) - 1));
        break;
    case 1:
        server_isolate(storm->cluster, storm_any_server(storm), true);
        break;
    case 2: { /* one way, from a server to a client */
        const struct server *server = storm_any_server(storm);
        sim_cut(server->host, storm->cluster->client_hosts[sim_between(0, STORM_CLIENTS - 1)],
                true);
        break;
    }
    default: {
        struct server *leader = group_leader(group);
        if (leader != NULL) { /* it is heard by nobody of its group, but hears all */
            for (uint32_t i = 0; i < group->server_count; i++) {
                sim_cut(leader->host, group->servers[i].host, true);
            }
        }
        break;
    }
    }
}

void storm_change_network(void)
{
    struct sim_world *world = sim_world();
    world->net = sim_between(0, 1) == 0 ? sim_net_reliable() : sim_net_unreliable();
    world->net.long_reordering = sim_between(0, 7) == 0;
}

void storm_pause_something(struct storm *storm)
{
    sim_host_pause(storm_any_server(storm)->host, sim_between(1, 900) * SIM_MS);
}

void storm_stall_disk(struct storm *storm)
{
    storm_any_server(storm)->host->disk_stalled_until_ns =
        sim_now_ns() + sim_between(10, 3000) * SIM_MS;
}

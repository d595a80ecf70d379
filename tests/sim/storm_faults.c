/* What breaks in a storm: see storm.h. Thread: one. */
#include "sim/storm.h"

#include "lib/fake_store.h"
#include "raft/node/node.h"
#include "sim/sometimes.h"

#include <inttypes.h>

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

/* Most of what is down comes back to a disk that works again; some finds it as it was. */
static void start_group(struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        struct server *server = &group->servers[i];
        server_reap(server);
        if (server->retired || server->host->damaged || server_is_up(server)) {
            continue;
        }
        if (sim_between(0, 3) != 0) {
            storm_mend_disk(server);
        }
        server_start(server);
    }
}

void storm_start_everything(struct storm *storm)
{
    start_group(&storm->cluster->controllers);
    for (uint32_t i = 0; i < storm->cluster->group_count; i++) {
        start_group(&storm->cluster->groups[i]);
    }
}

void storm_partition_something(struct storm *storm)
{
    struct group *group = storm_any_group(storm);
    switch (sim_between(0, 4)) {
    case 0:
        group_partition(group, (uint32_t)sim_between(0, (UINT64_C(1) << group->server_count) - 1));
        break;
    case 1:
        server_isolate(storm->cluster, storm_any_server(storm), true);
        break;
    case 2: { /* one link, between two of any groups */
        const struct server *server = storm_any_server(storm);
        sim_cut_both(server->host, storm_any_server(storm)->host, true);
        break;
    }
    case 3: { /* one way, from a server to a client */
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
    if (sim_between(0, 2) == 0) { /* anything between */
        world->net.delay_max_ns = sim_between(1, 100) * SIM_MS;
        world->net.loss_permille = (uint32_t)sim_between(0, 300);
        world->net.duplicate_permille = (uint32_t)sim_between(0, 300);
    }
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

/* ---- disks ---- */

void storm_mend_disk(struct server *server)
{
    if (server->retired) {
        return; /* another may be at its place, on the same host */
    }
    struct fake_vfs *disk = server->host->disk;
    for (int op = 0; op < FAKE_OP_COUNT; op++) {
        fake_vfs_fail(disk, (enum fake_op)op, 0, ERR_OK);
    }
    fake_vfs_set_space(disk, UINT64_MAX);
    if (server->store != NULL) {
        fake_store_fail(server->store, 0, 0);
    }
    server->host->disk_fails = server_is_up(server) && server->host->disk_fails;
}

void storm_break_disk(struct storm *storm)
{
    static const enum fake_op ops[] = {FAKE_WRITE,  FAKE_WRITE,  FAKE_SYNC,     FAKE_SYNC,
                                       FAKE_CREATE, FAKE_RENAME, FAKE_SYNC_DIR, FAKE_READ};
    struct server *server = storm_any_server(storm);
    struct fake_vfs *disk = server->host->disk;
    uint64_t dice = sim_between(0, 9);
    server->host->disk_fails = true;
    if (dice < 3) {
        uint64_t room = sim_between(0, 64) * 1024;
        sim_trace("%s has %" PRIu64 " bytes left", server->host->address, room);
        fake_vfs_set_space(disk, fake_vfs_space_used(disk) + room);
    } else if (dice < 5 && server->store != NULL) {
        uint32_t after = (uint32_t)sim_between(0, 20);
        sim_trace("the store of %s fails after %u writes", server->host->address, after);
        fake_store_fail(server->store, after, 1);
    } else {
        enum fake_op op = ops[sim_between(0, sizeof ops / sizeof ops[0] - 1)];
        uint64_t nth = sim_between(1, op == FAKE_WRITE || op == FAKE_SYNC ? 20 : 3);
        sim_trace("%s: the %" PRIu64 ". %s fails", server->host->address, nth, fake_op_name(op));
        fake_vfs_fail(disk, op, nth, ERR_IO);
    }
}

static uint32_t down_count(const struct group *group)
{
    return group_server_count(group) - group_up_count(group);
}

void storm_flip_bit(struct storm *storm)
{
    struct group *group = storm_any_group(storm);
    struct member_plan *plan = storm_idle_plan(storm, group);
    if (plan == NULL || down_count(group) > 0) {
        return; /* one replica at a time may be lost */
    }
    struct server *server = &group->servers[sim_between(0, group->server_count - 1)];
    char path[VFS_PATH_BYTES_MAX];
    uint64_t bit = 0;
    if (server->retired || server->host->dying) {
        return;
    }
    server_kill(server);
    if (!fake_vfs_flip_random(server->host->disk, "data", &sim_world()->rng, path, &bit)) {
        return;
    }
    sim_trace("%s: bit %" PRIu64 " of %s is flipped", server->host->address, bit, path);
    server->host->disk_fails = true;
    server_start(server);
    if (server->host->damaged) {
        sim_sometimes(S_FLIP_FOUND);
        storm_replace(plan, server);
    } else {
        sim_sometimes(S_FLIP_HARMLESS);
    }
}

/* ---- links and clocks ---- */

void storm_clog_something(struct storm *storm)
{
    const struct sim_world *world = sim_world();
    const struct sim_host *from = storm_any_server(storm)->host;
    uint64_t duration_ns = sim_between(10, 3000) * SIM_MS;
    if (sim_between(0, 1) == 0) {
        sim_clog(from, storm_any_server(storm)->host, duration_ns);
        return;
    }
    for (uint32_t i = 0; i < world->host_count; i++) {
        if (world->hosts[i] != from) {
            sim_clog(from, world->hosts[i], duration_ns);
        }
    }
}

void storm_set_wall_clock(struct storm *storm)
{
    struct sim_host *host = storm_any_server(storm)->host;
    uint64_t by_ns = sim_between(1, 100000) * SIM_S;
    host->wall_offset_ns += sim_between(0, 1) == 0 ? by_ns : 0 - by_ns;
    sim_sometimes(S_WALL_JUMPED);
}

/* What a storm hardly ever comes to, in clusters of their own; each from any seed, so that the soak
 * reaches it: the last group leaves, the header of a log's segment rots, a frame is damaged on its
 * way. Thread: one. */
#include "raft/node/node.h"
#include "sim/kv_test.h"
#include "sim/shard_test.h"
#include "sim/sometimes.h"
#include "sim/suite.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEYS = 20,
    ROUNDS = 8,
    LARGE_PUTS = 60,
    LARGE_BYTES = 16 * 1024,
    /* More than the logs keep, so no append is as large. */
    DAMAGED_FRAME_BYTES_MIN = 400 * 1024,
};

/* ---- nobody owns anything for a while ---- */

struct groups {
    struct shard_test *test;
    bool joined[3];
};

static uint32_t joined_count(const struct groups *groups)
{
    return (uint32_t)groups->joined[0] + groups->joined[1] + groups->joined[2];
}

static void change(struct groups *groups, uint32_t number)
{
    uint64_t id = 100 + number;
    groups->joined[number] = !groups->joined[number];
    if (groups->joined[number]) {
        (void)cluster_join_one(groups->test->cluster, id);
    } else {
        (void)cluster_leave_one(groups->test->cluster, id);
    }
}

/* All leave, the last one keeps the data, frozen; whoever comes back goes on with it. */
static void empty_and_back(struct groups *groups)
{
    for (uint32_t i = 0; i < 3; i++) {
        if (groups->joined[i]) {
            change(groups, i);
        }
    }
    SIM_CHECK_EQ(joined_count(groups), 0);
    sim_run(sim_between(0, 3000) * SIM_MS);
}

/* A group leaves last and is the first to come back: nobody had its shards meanwhile. */
static void last_group_leaves(void)
{
    struct groups groups = {
        .test = shard_test_open(&(struct shard_test_options){
            .keys = KEYS, .snapshots = true, .unreliable = sim_between(0, 1) == 0})};
    change(&groups, 0);
    shard_test_put_all(groups.test, 50);
    uint64_t unfrozen = sim_sometimes_count(S_SHARD_UNFROZEN);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        change(&groups, (uint32_t)sim_between(0, 2));
        if (joined_count(&groups) == 0) {
            change(&groups, (uint32_t)sim_between(0, 2));
        }
        if (sim_between(0, 1) == 0) {
            cluster_wait_settled(groups.test->cluster, SETTLE_NS);
        }
        shard_test_append_all(groups.test);
    }
    empty_and_back(&groups);
    change(&groups, 1);
    shard_test_append_all(groups.test);
    empty_and_back(&groups);
    change(&groups, 1);
    shard_test_append_all(groups.test);
    cluster_wait_settled(groups.test->cluster, SETTLE_NS);
    SIM_CHECK_CMP(sim_sometimes_count(S_SHARD_UNFROZEN), >, unfrozen);
    shard_test_close(groups.test);
}

/* ---- a rotten header ---- */

static void keep_last_segment(void *context, const char *name)
{
    char *last = context;
    size_t size = strlen(name);
    bool segment = size > 4 && size < SIM_NAME_BYTES_MAX && strcmp(name + size - 4, ".wal") == 0;
    if (segment && strcmp(name, last) > 0) {
        memcpy(last, name, size + 1);
    }
}

/* One bit of one of the header's two copies, in the segment that is written to. */
static void rot_header(struct server *server)
{
    enum { COPY_AT = 512, CHECKED_FROM = 8, CHECKED_TO = 127 };
    struct fake_vfs *disk = server->host->disk;
    const struct vfs *vfs = fake_vfs_vfs(disk);
    char last[SIM_NAME_BYTES_MAX] = "";
    int error = vfs->list(vfs->context, "data/wal", keep_last_segment, last);
    SIM_CHECK_EQ(error, 0);
    SIM_CHECK(last[0] != '\0');
    char path[VFS_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "data/wal/%s", last);
    uint64_t byte = sim_between(0, 1) * COPY_AT + sim_between(CHECKED_FROM, CHECKED_TO);
    bool flipped = fake_vfs_flip_bit(disk, path, byte * 8 + sim_between(0, 7));
    SIM_CHECK(flipped);
}

static void rotten_header(void)
{
    struct cluster *cluster = kv_cluster(3, false, sim_between(0, 1) == 0);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    clerk_open(&clerk, cluster, NULL);
    struct buf value = {0};
    uint64_t repaired = sim_sometimes_count(S_HEADER_REPAIRED);
    for (uint32_t i = 0; i < 2 * group->server_count; i++) {
        clerk_append(&clerk, "k", "x");
        struct server *server = &group->servers[i % group->server_count];
        server_crash(server);
        rot_header(server);
        server_start(server);
        SIM_CHECK(!server->host->damaged);
    }
    clerk_get(&clerk, "k", &value);
    SIM_CHECK_EQ(value.size, 2 * group->server_count);
    SIM_CHECK_EQ(sim_sometimes_count(S_HEADER_REPAIRED) - repaired, 2 * group->server_count);
    buf_deinit(&value);
    clerk_close(&clerk);
    cluster_destroy(cluster);
}

/* ---- a frame that does not arrive as it was sent ---- */

static void put_large(struct clerk *clerk, uint32_t number)
{
    char key[16];
    (void)snprintf(key, sizeof key, "large%u", number);
    char *value = mem_alloc(LARGE_BYTES + 1);
    memset(value, 'a' + (int)(number % 26), LARGE_BYTES);
    value[LARGE_BYTES] = '\0';
    clerk_put(clerk, key, value);
    free(value);
}

struct count_wait {
    enum sometimes what;
    uint64_t before;
};

static bool happened(void *context)
{
    const struct count_wait *wait = context;
    return sim_sometimes_count(wait->what) > wait->before;
}

/* The third server needs a snapshot; a bit of the first frame with a chunk is turned over, as a
 * faulty network card does and TCP's checksum may miss. The frame's own finds it, and the chunk is
 * sent again. */
static void damaged_frame(void)
{
    struct cluster *cluster = kv_cluster(3, false, true);
    struct group *group = &cluster->groups[0];
    struct clerk clerk;
    clerk_open(&clerk, cluster, NULL);
    clerk_put(&clerk, "a", "A");
    group_partition(group, 1u << 2);
    for (uint32_t i = 0; i < LARGE_PUTS; i++) {
        put_large(&clerk, i);
    }
    sim_run(2 * SIM_S);
    struct count_wait refused = {S_FRAME_REFUSED, sim_sometimes_count(S_FRAME_REFUSED)};
    struct count_wait installed = {S_SNAPSHOT_INSTALLED, sim_sometimes_count(S_SNAPSHOT_INSTALLED)};
    sim_world()->damage_frame_bytes_min = DAMAGED_FRAME_BYTES_MIN;
    sim_world()->damage_frame_to = group->servers[2].host;
    group_heal(group);
    bool found = sim_run_until(20 * SIM_S, happened, &refused);
    SIM_CHECK(found);
    SIM_CHECK(!happened(&installed));
    found = sim_run_until(20 * SIM_S, happened, &installed);
    SIM_CHECK(found);
    clerk_check(&clerk, "a", "A");
    clerk_close(&clerk);
    cluster_destroy(cluster); /* its oracle compares the replicas */
}

struct suite_list suite_rare(void)
{
    static const struct suite_test tests[] = {
        {.name = "sim.LastGroupLeaves", .run = last_group_leaves, .searched = true},
        {.name = "sim.RottenHeader", .run = rotten_header, .searched = true},
        {.name = "sim.DamagedFrame", .run = damaged_frame, .searched = true},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}

/* Groups whose replicas are replaced, one after the other, until none is left of those they were
 * joined with: whoever reads the newest config finds them all the same. */
#include "raft/node/node.h"
#include "shardkv/kv_machine.h"
#include "sim/shard_test.h"
#include "sim/suite.h"

#include "base/assert.h"

#include <string.h>

enum { KEYS = 10, FOUNDERS = 3 };

/* Groups 100 and 101; shard 0 is at 100. */
static struct shard_test *open_test(void)
{
    struct shard_test *test = shard_test_open(&(struct shard_test_options){.keys = KEYS});
    (void)cluster_join(test->cluster, (const uint64_t[]){100, 101}, 2);
    (void)cluster_move(test->cluster, 0, 100);
    shard_test_put_all(test, 20);
    cluster_wait_settled(test->cluster, SETTLE_NS);
    return test;
}

/* ---- changes of members ---- */

enum { NOT_YET = 1 };

static void changed(void *context, int error)
{
    *(int *)context = error;
}

static bool is_answered(void *context)
{
    return *(const int *)context != NOT_YET;
}

/* Until it is done: a learner that is behind is not promoted, and leaders change. */
static void change_member(struct group *group, enum raft_change_kind kind,
                          const struct server *server)
{
    const struct raft_change change = {
        .kind = kind, .id = server->replica_id, .address = server->host->address};
    uint64_t until_ns = sim_now_ns() + SETTLE_NS;
    int answer = NOT_YET;
    while (answer != 0) {
        SIM_CHECK_CMP(sim_now_ns(), <, until_ns);
        answer = NOT_YET;
        int error =
            node_change_member(server_node(group_wait_leader(group)), &change, changed, &answer);
        SIM_CHECK_EQ(error, 0);
        bool ended = sim_run_until(SETTLE_NS, is_answered, &answer);
        SIM_CHECK(ended);
        sim_run(50 * SIM_MS);
    }
}

/* By another one, on a machine of its own. */
static void replace(struct group *group, struct server *server)
{
    struct server *added = group_add_server(group);
    server_start(added);
    change_member(group, RAFT_ADD_LEARNER, added);
    change_member(group, RAFT_PROMOTE, added);
    change_member(group, RAFT_REMOVE, server);
    server_retire(server);
}

static void replace_founders(struct group *group, uint32_t from)
{
    for (uint32_t i = from; i < FOUNDERS; i++) {
        replace(group, &group->servers[i]);
    }
}

/* ---- what the controllers list ---- */

struct listing {
    struct cluster *cluster;
    const struct group *group;
};

static bool lists_survivors(void *context)
{
    const struct listing *listing = context;
    struct config *config = cluster_query(listing->cluster);
    const struct config_group *listed = config_find_group(config, listing->group->id);
    bool same = listed != NULL && listed->members_index > 0 &&
                listed->replica_count == group_server_count(listing->group);
    for (uint32_t i = 0; same && i < listed->replica_count; i++) {
        const struct config_replica *replica = &listed->replicas[i];
        const struct server *server = &listing->group->servers[replica->id - 1];
        same = !server->retired && strcmp(replica->address, server->host->address) == 0;
    }
    config_free(config);
    return same;
}

static void wait_listed(struct shard_test *test, const struct group *group)
{
    struct listing listing = {test->cluster, group};
    uint64_t until_ns = sim_now_ns() + SETTLE_NS;
    while (!lists_survivors(&listing)) {
        SIM_CHECK_CMP(sim_now_ns(), <, until_ns);
        sim_run(100 * SIM_MS);
    }
}

struct shard_wait {
    const struct group *group;
    enum shard_state state;
};

static bool shows(void *context)
{
    const struct shard_wait *wait = context;
    const struct server *leader = group_leader(wait->group);
    if (leader == NULL) {
        return false;
    }
    struct kv_table *table = kv_machine_table(server_machine(leader));
    bool held = table->shard_count > 0 && table->shards[0].state == wait->state;
    kv_table_unref(table);
    return held;
}

/* Shard 0, as the group's leader shows it. */
static void wait_for(const struct group *group, enum shard_state state)
{
    struct shard_wait wait = {group, state};
    if (!sim_run_until(SETTLE_NS, shows, &wait)) {
        SIM_FAIL("shard 0 has not become %s at group %llu", shard_state_name(state),
                 (unsigned long long)group->id);
    }
}

static void check_as_a_stranger(struct shard_test *test)
{
    struct clerk clerk;
    clerk_open(&clerk, test->cluster, NULL);
    for (uint32_t i = 0; i < KEYS; i++) {
        clerk_check(&clerk, test->keys[i], (const char *)test->values[i].data);
    }
    clerk_close(&clerk);
}

/* ---- the tests ---- */

/* The last founder is replaced while no controller is up. Then a client that has never heard of the
 * group reads all it has, and its shards move out, and in again. No shard has moved because of it,
 * though one stands where no rebalancing would leave it. */
static void group_outlives_its_founders(void)
{
    struct shard_test *test = open_test();
    struct group *group = shard_test_group(test, 100);
    (void)cluster_move(test->cluster, 9, 100);
    (void)cluster_move(test->cluster, 8, 100);
    struct config *before = cluster_query(test->cluster);
    replace(group, &group->servers[0]);
    replace(group, &group->servers[1]);
    wait_listed(test, group);
    group_crash(&test->cluster->controllers);
    replace_founders(group, 2);
    group_start(&test->cluster->controllers);
    check_as_a_stranger(test);
    wait_listed(test, group);
    struct config *after = cluster_query(test->cluster);
    SIM_CHECK_CMP(after->number, >, before->number);
    SIM_CHECK(memcmp(before->owners, after->owners, SHARD_TEST_SHARDS * sizeof *after->owners) ==
              0);
    config_free(before);
    config_free(after);
    for (uint32_t round = 0; round < 2; round++) {
        (void)cluster_move(test->cluster, 0, 101);
        wait_for(shard_test_group(test, 101), SHARD_SERVING);
        (void)cluster_move(test->cluster, 0, 100);
        wait_for(group, SHARD_SERVING);
    }
    (void)cluster_leave_one(test->cluster, 101);
    cluster_wait_settled(test->cluster, SETTLE_NS);
    check_as_a_stranger(test);
    shard_test_close(test);
}

/* The destination is down when its config is made. Until it comes back, the source has taken the
 * config, and nobody is left of whom that config lists. A source that has left is listed no more by
 * the config that was made meanwhile. */
static void replace_source(bool leaves)
{
    struct shard_test *test = open_test();
    struct group *source = shard_test_group(test, 100);
    struct group *destination = shard_test_group(test, 101);
    group_crash(destination);
    if (leaves) {
        (void)cluster_leave_one(test->cluster, 100);
        (void)cluster_move(test->cluster, 9, 101);
    } else {
        (void)cluster_move(test->cluster, 0, 101);
    }
    wait_for(source, SHARD_FROZEN);
    replace_founders(source, 0);
    wait_listed(test, source);
    group_start(destination);
    wait_for(destination, SHARD_SERVING);
    wait_for(source, SHARD_ABSENT); /* it was told to drop it, too */
    check_as_a_stranger(test);
    shard_test_close(test);
}

static void source_is_replaced(void)
{
    replace_source(false);
}

static void leaver_is_replaced(void)
{
    replace_source(true);
}

/* A leader is cut off from its group, not from the controllers, and removes one of the others. It
 * leads on for a moment, and believes so; the controllers must not hear of a change that is undone
 * afterwards. */
static void change_is_undone(void)
{
    struct shard_test *test = open_test();
    struct group *group = shard_test_group(test, 100);
    struct server *leader = group_wait_leader(group);
    struct server *other = &group->servers[leader == &group->servers[0] ? 1 : 0];
    const struct raft_change change = {.kind = RAFT_REMOVE, .id = other->replica_id};
    struct config *before = cluster_query(test->cluster);
    int answer = NOT_YET;
    group_partition(group, 1u << (leader->replica_id - 1));
    int error = node_change_member(server_node(leader), &change, changed, &answer);
    SIM_CHECK_EQ(error, 0);
    sim_run(50 * SIM_MS);
    struct node_status status;
    node_status(server_node(leader), &status);
    SIM_CHECK(node_is_leader(server_node(leader)));
    SIM_CHECK_EQ(status.raft.membership.count, FOUNDERS - 1);
    sim_run(2 * SIM_S);
    SIM_CHECK_CMP(answer, !=, 0);
    group_heal(group);
    sim_run(2 * SIM_S);
    node_status(server_node(group_wait_leader(group)), &status);
    SIM_CHECK_EQ(status.raft.membership.count, FOUNDERS);
    struct config *after = cluster_query(test->cluster);
    SIM_CHECK_EQ(after->number, before->number);
    config_free(before);
    config_free(after);
    shard_test_close(test);
}

struct suite_list suite_members(void)
{
    static const struct suite_test tests[] = {
        {.name = "sim.GroupOutlivesItsFounders", .run = group_outlives_its_founders},
        {.name = "sim.SourceIsReplaced", .run = source_is_replaced},
        {.name = "sim.LeaverIsReplaced", .run = leaver_is_replaced},
        {.name = "sim.ChangeOfMembersIsUndone", .run = change_is_undone},
    };
    return (struct suite_list){tests, sizeof tests / sizeof tests[0]};
}

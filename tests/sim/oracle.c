/* See oracle.h. Thread: one. Called after every poll and every run of jobs of every node, so what
 * is looked at each time is little: the leader's term, and the shard table only when it is another
 * one than last time. */
#include "sim/oracle.h"

#include "base/assert.h"
#include "raft/node/replica.h"
#include "shardkv/kv_machine.h"
#include "sim/sim_node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct led_term {
    uint64_t term;
    uint64_t replica;
};

/* What one group has come to: the furthest of its replicas. */
struct group_view {
    struct group *group;
    struct led_term *terms;
    size_t term_count, term_capacity;
    uint64_t applied;
    struct kv_table *table; /* as of `applied`; NULL: none yet */
    struct kv_table
        *seen[CLUSTER_SERVERS_MAX]; /* the newest of each replica, to notice another one */
};

struct oracle {
    struct cluster *cluster;
    struct group_view views[CLUSTER_GROUPS_MAX + 1]; /* the last: the controllers */
    uint32_t view_count;
};

static struct oracle *the_oracle; /* its callers have no context: see sim.h */

struct oracle *oracle_create(struct cluster *cluster)
{
    ASSERT(the_oracle == NULL);
    struct oracle *oracle = mem_calloc(1, sizeof *oracle);
    oracle->cluster = cluster;
    for (uint32_t i = 0; i < cluster->group_count; i++) {
        oracle->views[oracle->view_count++].group = &cluster->groups[i];
    }
    oracle->views[oracle->view_count++].group = &cluster->controllers;
    the_oracle = oracle;
    return oracle;
}

void oracle_destroy(struct oracle *oracle)
{
    for (uint32_t i = 0; i < oracle->view_count; i++) {
        struct group_view *view = &oracle->views[i];
        free(view->terms);
        kv_table_unref(view->table);
        for (uint32_t j = 0; j < CLUSTER_SERVERS_MAX; j++) {
            kv_table_unref(view->seen[j]);
        }
    }
    free(oracle);
    the_oracle = NULL;
}

void oracle_forget(struct oracle *oracle, const struct group *group)
{
    for (uint32_t i = 0; i < oracle->view_count; i++) {
        struct group_view *view = &oracle->views[i];
        if (view->group != group) {
            continue;
        }
        view->term_count = 0;
        view->applied = 0;
        kv_table_unref(view->table);
        view->table = NULL;
        for (uint32_t j = 0; j < CLUSTER_SERVERS_MAX; j++) {
            kv_table_unref(view->seen[j]);
            view->seen[j] = NULL;
        }
    }
}

/* ---- one leader a term ---- */

static void check_leader(struct group_view *view, const struct raft_status *status)
{
    if (status->state != RAFT_LEADER) {
        return;
    }
    for (size_t i = view->term_count; i > 0; i--) {
        const struct led_term *led = &view->terms[i - 1];
        if (led->term == status->term) {
            if (led->replica != status->id) {
                SIM_FAIL("group %llu has two leaders in term %llu: replicas %llu and %llu",
                         (unsigned long long)view->group->id, (unsigned long long)led->term,
                         (unsigned long long)led->replica, (unsigned long long)status->id);
            }
            return;
        }
    }
    if (view->term_count == view->term_capacity) {
        view->term_capacity = view->term_capacity == 0 ? 16 : view->term_capacity * 2;
        view->terms = mem_realloc(view->terms, view->term_capacity * sizeof view->terms[0]);
    }
    view->terms[view->term_count++] = (struct led_term){status->term, status->id};
    sim_world()->counters.leaders++;
    sim_trace("group %llu: replica %llu leads term %llu", (unsigned long long)view->group->id,
              (unsigned long long)status->id, (unsigned long long)status->term);
}

/* ---- one group a shard ---- */

static bool serves(const struct group_view *view, uint32_t shard)
{
    return view->table != NULL && shard < view->table->shard_count &&
           kv_table_serves(view->table, shard) == 0;
}

static const struct shard_record *record_of(const struct oracle *oracle, uint64_t group,
                                            uint32_t shard)
{
    for (uint32_t i = 0; i < oracle->view_count; i++) {
        const struct group_view *view = &oracle->views[i];
        if (view->group->id == group && view->table != NULL && shard < view->table->shard_count) {
            return &view->table->shards[shard];
        }
    }
    return NULL;
}

/* Install: the source froze under the same config, and all that it had then is here now; what was
 * written behind the Install in the same batch is here too. */
static void check_install(const struct oracle *oracle, const struct group_view *view,
                          uint32_t shard, const struct shard_record *from,
                          const struct shard_record *to)
{
    const struct shard_record *source = record_of(oracle, from->peer_group, shard);
    bool frozen = source != NULL && source->state == SHARD_FROZEN && source->number == to->number &&
                  source->peer_group == view->group->id;
    if (!frozen || to->version < source->version) {
        SIM_FAIL("group %llu installed shard %u of config %llu at version %llu, while its source "
                 "%llu is "
                 "%s under config %llu at version %llu",
                 (unsigned long long)view->group->id, shard, (unsigned long long)to->number,
                 (unsigned long long)to->version, (unsigned long long)from->peer_group,
                 source == NULL ? "unknown" : shard_state_name(source->state),
                 (unsigned long long)(source == NULL ? 0 : source->number),
                 (unsigned long long)(source == NULL ? 0 : source->version));
    }
    sim_world()->counters.shards_installed++;
}

/* Drop: the destination has installed it. */
static void check_drop(const struct oracle *oracle, const struct group_view *view, uint32_t shard,
                       const struct shard_record *from)
{
    const struct shard_record *there = record_of(oracle, from->peer_group, shard);
    bool installed =
        there != NULL && (there->number > from->number ||
                          (there->number == from->number && there->state != SHARD_PULLING &&
                           there->state != SHARD_ABSENT));
    /* It may have given the shard on and dropped it already; then its config tells. */
    bool passed_on = there != NULL && there->state == SHARD_ABSENT;
    if (!installed && !passed_on) {
        SIM_FAIL("group %llu drops shard %u of config %llu before group %llu has installed it",
                 (unsigned long long)view->group->id, shard, (unsigned long long)from->number,
                 (unsigned long long)from->peer_group);
    }
}

static void check_transition(const struct oracle *oracle, const struct group_view *view,
                             const struct kv_table *next, uint32_t shard)
{
    const struct shard_record *to = &next->shards[shard];
    if (view->table == NULL || shard >= view->table->shard_count) {
        return;
    }
    const struct shard_record *from = &view->table->shards[shard];
    if (to->state != SHARD_ABSENT && to->number < from->number) {
        SIM_FAIL("shard %u of group %llu went back from config %llu to %llu", shard,
                 (unsigned long long)view->group->id, (unsigned long long)from->number,
                 (unsigned long long)to->number);
    }
    if (from->state == SHARD_FROZEN && to->state != SHARD_ABSENT && to->version != from->version) {
        SIM_FAIL("shard %u of group %llu was written while it was frozen: version %llu, then %llu",
                 shard, (unsigned long long)view->group->id, (unsigned long long)from->version,
                 (unsigned long long)to->version);
    }
    if (from->state == SHARD_PULLING && to->state == SHARD_SERVING) {
        check_install(oracle, view, shard, from, to);
    }
    if (from->state == SHARD_PULLING && to->state == SHARD_PULLING && from->rows > 0 &&
        to->rows > from->rows) {
        sim_world()->counters.chunks_resumed++;
    }
    if (from->state == SHARD_FROZEN && to->state == SHARD_DROPPING) {
        check_drop(oracle, view, shard, from);
    }
}

static void check_shards(struct oracle *oracle, struct group_view *view, struct kv_table *table)
{
    for (uint32_t shard = 0; shard < table->shard_count; shard++) {
        check_transition(oracle, view, table, shard);
        if (kv_table_serves(table, shard) != 0) {
            continue; /* also: SERVING of a config before the group may serve anything */
        }
        for (uint32_t i = 0; i < oracle->view_count; i++) {
            const struct group_view *other = &oracle->views[i];
            if (other != view && serves(other, shard)) {
                SIM_FAIL("shard %u is served by groups %llu (config %llu) and %llu (config %llu)",
                         shard, (unsigned long long)other->group->id,
                         (unsigned long long)other->table->shards[shard].number,
                         (unsigned long long)view->group->id,
                         (unsigned long long)table->shards[shard].number);
            }
        }
    }
}

static void look_at_table(struct oracle *oracle, struct group_view *view,
                          const struct server *server)
{
    struct kv_machine *machine = server_machine(server);
    if (machine == NULL) {
        return;
    }
    struct kv_table **seen = &view->seen[server->replica_id - 1];
    struct kv_table *table = kv_machine_table(machine);
    if (table == *seen) {
        kv_table_unref(table);
        return;
    }
    kv_table_unref(*seen);
    *seen = table;
    struct state_machine state = server_state(server);
    uint64_t applied = state.ops->applied(state.sm).index;
    if (applied > view->applied) {
        check_shards(oracle, view, table);
        view->applied = applied;
        kv_table_unref(view->table);
        view->table = kv_table_ref(table);
    }
}

/* ---- after every step ---- */

void sim_oracle_polled(struct sim_host *host, struct node *node)
{
    struct oracle *oracle = the_oracle;
    if (oracle == NULL) {
        return;
    }
    const struct node_options *options = sim_node_options(node);
    for (uint32_t i = 0; i < oracle->view_count; i++) {
        struct group_view *view = &oracle->views[i];
        if (view->group->id != options->group_id) {
            continue;
        }
        check_leader(view, sim_node_raft(node));
        const struct server *server = &view->group->servers[options->replica_id - 1];
        ASSERT(server->host == host);
        look_at_table(oracle, view, server);
    }
}

/* ---- at the end ---- */

static struct raft_position applied_of(const struct server *server)
{
    struct state_machine state = server_state(server);
    return state.ops->applied(state.sm);
}

static bool group_is_equal(const struct group *group)
{
    struct raft_position first = {0, 0};
    bool any = false;
    for (uint32_t i = 0; i < group->server_count; i++) {
        const struct server *server = &group->servers[i];
        if (!server_is_up(server)) {
            continue;
        }
        struct node_status status;
        node_status(server_node(server), &status);
        struct raft_position applied = applied_of(server);
        if (status.raft.commit != applied.index || status.raft.last.index != applied.index ||
            (any && !raft_position_equal(first, applied))) {
            return false;
        }
        first = applied;
        any = true;
    }
    return true;
}

/* Without a majority nothing can be said of what is not committed. */
static bool has_majority(const struct group *group)
{
    return 2 * group_up_count(group) > group_server_count(group);
}

static bool all_equal(void *context)
{
    struct oracle *oracle = context;
    for (uint32_t i = 0; i < oracle->view_count; i++) {
        const struct group *group = oracle->views[i].group;
        if (has_majority(group) && !group_is_equal(group)) {
            return false;
        }
    }
    return true;
}

static void compare_hashes(const struct group *group)
{
    uint64_t first = 0;
    bool any = false;
    for (uint32_t i = 0; i < group->server_count; i++) {
        const struct server *server = &group->servers[i];
        if (!server_is_up(server)) {
            continue;
        }
        struct state_machine state = server_state(server);
        struct raft_position position;
        uint64_t hash = 0;
        int error = state.ops->hash(state.sm, &hash, &position);
        SIM_CHECK_EQ(error, 0);
        if (any && hash != first) {
            SIM_FAIL("replica %llu of group %llu holds another state at position %llu",
                     (unsigned long long)server->replica_id, (unsigned long long)group->id,
                     (unsigned long long)position.index);
        }
        first = hash;
        any = true;
    }
}

static void describe(const struct group *group)
{
    for (uint32_t i = 0; i < group->server_count; i++) {
        const struct server *server = &group->servers[i];
        if (!server_is_up(server)) {
            (void)fprintf(stderr, "  %s is down\n", server->host->address);
            continue;
        }
        struct node_status status;
        node_status(server_node(server), &status);
        (void)fprintf(
            stderr, "  %s term=%llu commit=%llu applied=%llu last=%llu leader=%llu\n",
            server->host->address, (unsigned long long)status.raft.term,
            (unsigned long long)status.raft.commit, (unsigned long long)applied_of(server).index,
            (unsigned long long)status.raft.last.index, (unsigned long long)status.raft.leader);
    }
}

void oracle_check_equal(struct oracle *oracle, uint64_t timeout_ns)
{
    bool equal = sim_run_until(timeout_ns, all_equal, oracle);
    for (uint32_t i = 0; i < oracle->view_count && !equal; i++) {
        describe(oracle->views[i].group);
    }
    if (!equal) {
        SIM_FAIL("replicas have not come to the same position within %.0f s",
                 (double)timeout_ns / 1e9);
    }
    for (uint32_t i = 0; i < oracle->view_count; i++) {
        if (has_majority(oracle->views[i].group)) {
            compare_hashes(oracle->views[i].group);
        }
    }
}

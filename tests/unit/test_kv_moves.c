/* Whole moves: several groups, each one state machine over a lossy store with its driver, in one
 * thread under virtual time. A made-up controller joins, leaves and shuffles; calls and answers get
 * lost, doubled and late; leaders change while things are under way; replicas crash and replay.
 * Clients append all the while.
 *
 * Always: at most one group serves a shard. In the end: every group has the newest config, nothing
 * waits, every client's appends are there once and in order, and each group holds rows of its own
 * shards only. */
#include "kv_fixture.h"

#include "base/clock.h"
#include "base/crc32c.h"
#include "shardkv/mover.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 6, GROUPS = 3, CLIENTS = 4, CONFIGS_MAX = 64, APPENDS_MAX = 200 };

enum event_kind {
    EVENT_REQUEST, /* of a driver, arrives at the source */
    EVENT_REPLY,   /* arrives at the driver */
    EVENT_COMMAND, /* of a driver, gets into its group's log */
    EVENT_ANSWER,
    EVENT_FETCHED,
    EVENT_CLIENT, /* a client's command arrives at a group */
    EVENT_TICK,
    EVENT_CHANGE, /* the controller makes a config */
    EVENT_LEADER, /* a group's leader changes */
    EVENT_CRASH,
};

struct event {
    uint64_t at_ns;
    uint64_t order;
    enum event_kind kind;
    uint32_t group; /* whose driver, or where a client's command goes */
    uint32_t epoch; /* of the driver that waits */
    uint32_t client;
    struct mover_action action;
    struct mover_reply reply;
    struct kv_move_rows rows;
    int error;
    int answer;
    struct buf bytes;
};

struct group {
    struct kv_single single;
    struct mover *mover;
    uint32_t epoch; /* of the driver: a new leader is a new driver */
    bool leader;
    uint32_t leader_replica; /* 1 or 2: which of its addresses answers */
};

struct client {
    uint64_t sequence; /* of the append that is under way */
    uint32_t acknowledged;
    uint32_t shard;
    char key[16];
    uint32_t guess; /* the group it tries next */
};

struct world {
    struct rng rng;
    uint64_t now_ns;
    uint64_t order;
    struct event *events; /* unordered; there are few */
    size_t event_count;
    size_t event_capacity;
    struct group groups[GROUPS];
    struct client clients[CLIENTS];
    struct config *configs[CONFIGS_MAX];
    uint32_t config_count;
    bool quiet; /* no more changes and faults: everything has to come to rest */
    uint32_t moved;
};

static uint64_t ms(uint64_t count)
{
    return count * NS_PER_MS;
}

static struct event *post(struct world *world, uint64_t delay_ns, enum event_kind kind,
                          uint32_t group)
{
    if (world->event_count == world->event_capacity) {
        world->event_capacity = world->event_capacity == 0 ? 64 : world->event_capacity * 2;
        world->events = mem_realloc(world->events, world->event_capacity * sizeof *world->events);
    }
    struct event *event = &world->events[world->event_count++];
    *event = (struct event){
        .at_ns = world->now_ns + delay_ns,
        .order = ++world->order,
        .kind = kind,
        .group = group,
        .epoch = world->groups[group].epoch,
    };
    return event;
}

static bool take_next(struct world *world, struct event *out)
{
    size_t best = 0;
    if (world->event_count == 0) {
        return false;
    }
    for (size_t i = 1; i < world->event_count; i++) {
        const struct event *a = &world->events[i];
        const struct event *b = &world->events[best];
        if (a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->order < b->order)) {
            best = i;
        }
    }
    *out = world->events[best];
    world->events[best] = world->events[--world->event_count];
    world->now_ns = out->at_ns;
    return true;
}

static void event_deinit(struct event *event)
{
    mover_action_deinit(&event->action);
    buf_deinit(&event->rows.rows);
    buf_deinit(&event->rows.last_row);
    buf_deinit(&event->bytes);
}

static bool fault(struct world *world, uint32_t one_in)
{
    return !world->quiet && rng_chance(&world->rng, 1, one_in);
}

static uint64_t delay(struct world *world)
{
    return fault(world, 20) ? ms(rng_between(&world->rng, 500, 8000))
                            : ms(rng_between(&world->rng, 1, 10));
}

/* ---- what must always hold ---- */

static void check_owners(struct world *world)
{
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        uint32_t serving = 0;
        for (uint32_t g = 0; g < GROUPS; g++) {
            struct kv_table *table = kv_machine_table(world->groups[g].single.replica.machine);
            serving += kv_table_serves(table, shard) == 0;
            kv_table_unref(table);
        }
        assert_true(serving <= 1);
    }
}

/* Puts a command into a group's log and applies it; the answer is in single.result. */
static void into_log(struct world *world, uint32_t group, struct bytes payload)
{
    struct kv_single *single = &world->groups[group].single;
    struct buf copy = {0};
    buf_append_bytes(&copy, payload);
    kv_log_entry(&single->log, 1);
    kv_log_add(&single->log, &copy);
    buf_clear(&single->result);
    kv_replica_apply(&single->replica, &single->log, single->log.last_index, &single->result);
    check_owners(world);
}

/* ---- drivers ---- */

static void run_mover(struct world *world, uint32_t group)
{
    struct group *g = &world->groups[group];
    struct kv_table *table = kv_machine_table(g->single.replica.machine);
    mover_set_table(g->mover, table);
    kv_table_unref(table);
    if (world->config_count > 0) {
        struct config_share *newest =
            config_share_create(config_clone(world->configs[world->config_count - 1]));
        mover_set_newest(g->mover, newest);
        config_share_unref(newest);
    }
    mover_tick(g->mover, world->now_ns);
    struct mover_action action;
    while (mover_next(g->mover, &action)) {
        enum event_kind kind = action.kind == MOVER_PROPOSE ? EVENT_COMMAND
                               : action.kind == MOVER_CALL  ? EVENT_REQUEST
                                                            : EVENT_FETCHED;
        post(world, delay(world), kind, group)->action = action;
    }
    uint64_t wake_ns = mover_wake_ns(g->mover);
    if (wake_ns != UINT64_MAX) {
        post(world, wake_ns > world->now_ns ? wake_ns - world->now_ns : 1, EVENT_TICK, group);
    }
}

static void new_leader(struct world *world, uint32_t group)
{
    struct group *g = &world->groups[group];
    struct mover_options options = mover_options_default(group + 1, rng_next(&world->rng));
    options.chunk_bytes = (uint32_t)rng_between(&world->rng, 20, 400);
    mover_destroy(g->mover);
    g->mover = mover_create(&options);
    g->epoch++;
    g->leader_replica = (uint32_t)rng_between(&world->rng, 1, 2);
    mover_set_leader(g->mover, true);
    run_mover(world, group);
}

static bool is_current(const struct world *world, const struct event *event)
{
    return world->groups[event->group].epoch == event->epoch;
}

static void on_command(struct world *world, struct event *event)
{
    /* The entry of a deposed leader may get in or not; the driver that proposed it may be gone. */
    bool lost = fault(world, 15);
    bool applied = !lost || fault(world, 2);
    struct event *answer = NULL;
    int code = 0;
    if (applied) {
        into_log(world, event->group, buf_view(&event->action.payload));
        code = kv_command_result(buf_view(&world->groups[event->group].single.result));
        if (fault(world, 10)) {
            into_log(world, event->group, buf_view(&event->action.payload)); /* and once more */
        }
    }
    answer = post(world, ms(1), EVENT_ANSWER, event->group);
    answer->epoch = event->epoch;
    answer->action.id = event->action.id;
    answer->error = lost ? ERR_LEADER_LOST : 0;
    answer->answer = code;
    run_mover(world, event->group);
}

static int serve_verb(struct world *world, struct kv_machine *machine,
                      const struct mover_action *action, struct mover_reply *reply,
                      struct kv_move_rows *rows)
{
    int error = kv_move_check(machine, action->shard, action->number, action->to_group);
    struct kv_move_scan scan;
    switch (action->verb) {
    case MOVER_OPEN:
        return error;
    case MOVER_READ:
        error = kv_move_read(machine, action->shard, action->number, action->to_group,
                             buf_view(&action->after_row), action->bytes_max, rows);
        reply->rows_crc32c =
            crc32c_extend(fault(world, 20) ? 1 : 0, rows->rows.data, rows->rows.size);
        reply->end = rows->end;
        return error;
    case MOVER_FREEZE:
        kv_move_scan_init(&scan, action->shard, action->number, action->to_group);
        while (error == 0 && !scan.done) {
            error = kv_move_scan_step(machine, &scan, 5);
        }
        reply->row_count = scan.rows;
        reply->row_bytes = scan.bytes;
        reply->checksum =
            scan.checksum + (fault(world, 10) ? 1 : 0); /* as if a row had been lost on the way */
        kv_move_scan_deinit(&scan);
        return error;
    case MOVER_DROP:
        break;
    }
    fail();
    return 0;
}

static int serve_drop(struct world *world, uint32_t source, const struct mover_action *action)
{
    struct buf payload = {0};
    kv_command_encode(&(struct kv_command){.kind = KV_COMMAND_DROP,
                                           .shard = action->shard,
                                           .number = action->number,
                                           .group = action->to_group},
                      &payload);
    into_log(world, source, buf_view(&payload));
    buf_deinit(&payload);
    int answer = kv_command_result(buf_view(&world->groups[source].single.result));
    run_mover(world, source);
    return answer;
}

static void on_request(struct world *world, struct event *event)
{
    struct event reply = {0};
    uint32_t source = (uint32_t)event->action.from_group - 1;
    struct group *g = &world->groups[source];
    char leader[ADDRESS_BYTES_MAX];
    snprintf(leader, sizeof leader, "g%u-%u:1", (unsigned)source + 1, (unsigned)g->leader_replica);
    if (fault(world, 10)) {
        reply.error = ERR_UNAVAILABLE;
    } else if (strcmp(leader, event->action.address) != 0) {
        reply.error = ERR_NOT_LEADER;
    } else if (event->action.verb == MOVER_DROP) {
        reply.error = serve_drop(world, source, &event->action);
    } else {
        reply.error =
            serve_verb(world, g->single.replica.machine, &event->action, &reply.reply, &reply.rows);
    }
    if (fault(world, 10)) {
        reply.error = ERR_TIMEOUT; /* done, but the answer is lost */
    }
    struct event *posted = post(world, delay(world), EVENT_REPLY, event->group);
    posted->epoch = event->epoch;
    posted->action.id = event->action.id;
    posted->reply = reply.reply;
    posted->rows = reply.rows;
    posted->error = reply.error;
    const char *hint = fault(world, 3) ? "" : leader;
    buf_append(&posted->bytes, hint, strlen(hint) + 1);
    if (fault(world, 15)) { /* the request arrives twice */
        struct event *again = post(world, delay(world), EVENT_REQUEST, event->group);
        again->epoch = event->epoch;
        again->action = event->action;
        event->action = (struct mover_action){0};
    }
}

static void on_reply(struct world *world, struct event *event)
{
    if (!is_current(world, event)) {
        return;
    }
    event->reply.error = event->error;
    event->reply.leader_address = (const char *)event->bytes.data;
    event->reply.rows = buf_view(&event->rows.rows);
    event->reply.last_row = buf_view(&event->rows.last_row);
    mover_replied(world->groups[event->group].mover, event->action.id, &event->reply,
                  world->now_ns);
    run_mover(world, event->group);
}

static void on_answer(struct world *world, struct event *event)
{
    if (is_current(world, event)) {
        mover_proposed(world->groups[event->group].mover, event->action.id, event->error,
                       event->answer, world->now_ns);
        run_mover(world, event->group);
    }
}

static void on_fetched(struct world *world, struct event *event)
{
    if (!is_current(world, event)) {
        return;
    }
    struct buf bytes = {0};
    int error = event->action.number > world->config_count ? ERR_CONFIG_UNKNOWN
                : fault(world, 10)                         ? ERR_TIMEOUT
                                                           : 0;
    if (error == 0) {
        config_encode(world->configs[event->action.number - 1], &bytes);
    }
    mover_fetched(world->groups[event->group].mover, event->action.id, error, buf_view(&bytes),
                  world->now_ns);
    buf_deinit(&bytes);
    run_mover(world, event->group);
}

/* ---- the controller ---- */

static void make_config(struct world *world)
{
    uint64_t owners[SHARDS];
    uint64_t sources[SHARDS];
    const struct config *before =
        world->config_count == 0 ? NULL : world->configs[world->config_count - 1];
    /* Which groups are in: any set, now and then none at all. */
    uint32_t active = (uint32_t)rng_below(&world->rng, 1u << GROUPS);
    for (uint32_t s = 0; s < SHARDS; s++) {
        uint64_t was = before == NULL ? 0 : before->owners[s];
        uint64_t had = before == NULL ? 0 : was != 0 ? was : before->sources[s];
        bool stays = was != 0 && (active & (1u << (was - 1))) != 0 && rng_chance(&world->rng, 2, 3);
        uint64_t owner = 0;
        for (uint32_t try = 0; owner == 0 && active != 0; try++) {
            uint32_t g = (uint32_t)rng_below(&world->rng, GROUPS);
            owner = (active & (1u << g)) != 0 ? g + 1 : 0;
        }
        owners[s] = stays ? was : owner;
        sources[s] = had;
        world->moved += owners[s] != had && had != 0 && owners[s] != 0;
    }
    world->config_count++;
    world->configs[world->config_count - 1] =
        test_config(world->config_count, SHARDS, owners, sources);
}

/* ---- clients ---- */

static void client_send(struct world *world, uint32_t index, uint64_t delay_ns)
{
    struct client *client = &world->clients[index];
    post(world, delay_ns, EVENT_CLIENT, client->guess)->client = index;
}

static void client_command(const struct client *client, uint32_t index, struct buf *payload)
{
    char value[16];
    snprintf(value, sizeof value, "%u;", (unsigned)client->sequence);
    struct op op = {.kind = OP_APPEND,
                    .sequence = client->sequence,
                    .shard = client->shard,
                    .key = KEY(client->key),
                    .value = KEY(value)};
    block_put_header(payload, &(struct block_header){.client_id = 1000 + index,
                                                     .acked_below = client->sequence,
                                                     .count = 1});
    block_put_op(payload, &op);
}

static void on_client(struct world *world, const struct event *event)
{
    struct client *client = &world->clients[event->client];
    if (client->acknowledged == APPENDS_MAX) {
        return;
    }
    struct buf payload = {0};
    client_command(client, event->client, &payload);
    into_log(world, event->group, buf_view(&payload));
    if (fault(world, 10)) {
        into_log(world, event->group, buf_view(&payload)); /* doubled on the way */
    }
    buf_deinit(&payload);
    const struct buf *answer = &world->groups[event->group].single.result;
    struct reader reader;
    struct op_result result;
    uint32_t count = 0;
    assert_int_equal(results_open(bytes_of(answer->data + 1, answer->size - 1), &reader, &count),
                     0);
    assert_int_equal(results_next(&reader, OP_APPEND, &result), 0);
    if (result.error == 0 &&
        !fault(world, 10)) { /* else the answer is lost, and the client tries again */
        client->acknowledged++;
        client->sequence++;
    } else if (result.error != 0) {
        assert_true(result.error == ERR_WRONG_GROUP || result.error == ERR_SHARD_MOVING);
        client->guess = (uint32_t)rng_below(&world->rng, GROUPS);
    }
    client_send(world, event->client, ms(rng_between(&world->rng, 1, 300)));
}

/* ---- running ---- */

static void crash(struct world *world, uint32_t group)
{
    struct kv_single *single = &world->groups[group].single;
    kv_replica_crash(&single->replica,
                     rng_below(&world->rng, fake_store_unflushed(single->replica.fake) + 1));
    /* What the log holds is committed: it is applied again before anything else happens. */
    kv_replica_apply_random(&single->replica, &single->log, &world->rng);
    check_owners(world);
    new_leader(world, group);
}

static void on_event(struct world *world, struct event *event)
{
    switch (event->kind) {
    case EVENT_REQUEST:
        on_request(world, event);
        return;
    case EVENT_REPLY:
        on_reply(world, event);
        return;
    case EVENT_COMMAND:
        on_command(world, event);
        return;
    case EVENT_ANSWER:
        on_answer(world, event);
        return;
    case EVENT_FETCHED:
        on_fetched(world, event);
        return;
    case EVENT_CLIENT:
        on_client(world, event);
        return;
    case EVENT_TICK:
        if (is_current(world, event)) {
            run_mover(world, event->group);
        }
        return;
    case EVENT_CHANGE:
        if (!world->quiet && world->config_count < CONFIGS_MAX - 1) {
            make_config(world);
            post(world, ms(rng_between(&world->rng, 50, 2000)), EVENT_CHANGE, 0);
            for (uint32_t g = 0; g < GROUPS; g++) {
                run_mover(world, g);
            }
        }
        return;
    case EVENT_LEADER:
        if (!world->quiet) {
            uint32_t group = (uint32_t)rng_below(&world->rng, GROUPS);
            if (rng_chance(&world->rng, 1, 2)) {
                crash(world, group);
            } else {
                new_leader(world, group);
            }
            post(world, ms(rng_between(&world->rng, 100, 3000)), EVENT_LEADER, 0);
        }
        return;
    case EVENT_CRASH:
        break;
    }
    fail();
}

static bool is_at_rest(struct world *world)
{
    bool rest = true;
    for (uint32_t g = 0; g < GROUPS; g++) {
        struct kv_table *table = kv_machine_table(world->groups[g].single.replica.machine);
        rest = rest && table->config_number == world->config_count && kv_table_is_settled(table) &&
               table->pending_count == 0;
        kv_table_unref(table);
    }
    for (uint32_t c = 0; c < CLIENTS; c++) {
        rest = rest && world->clients[c].acknowledged == APPENDS_MAX;
    }
    return rest;
}

static void run_until(struct world *world, uint64_t until_ns)
{
    struct event event;
    while (world->now_ns < until_ns && !(world->quiet && is_at_rest(world)) &&
           take_next(world, &event)) {
        on_event(world, &event);
        event_deinit(&event);
    }
}

/* Every append of the client once, in its order. */
static void check_client(struct world *world, uint32_t index)
{
    struct client *client = &world->clients[index];
    const struct config *config = world->configs[world->config_count - 1];
    uint32_t owner = (uint32_t)config->owners[client->shard] - 1;
    struct buf wanted = {0};
    struct buf value = {0};
    for (uint32_t i = 1; i <= APPENDS_MAX; i++) {
        buf_printf(&wanted, "%u;", (unsigned)i);
    }
    buf_append(&wanted, "", 1);
    assert_int_equal(
        kv_single_get(&world->groups[owner].single, client->shard, client->key, &value).error, 0);
    assert_string_equal(value.data, wanted.data);
    buf_deinit(&wanted);
    buf_deinit(&value);
}

/* Rows of data and sessions of shards that are not served here: there must be none. */
static void check_nothing_left(struct world *world)
{
    for (uint32_t g = 0; g < GROUPS; g++) {
        struct kv_replica *replica = &world->groups[g].single.replica;
        struct kv_table *table = kv_machine_table(replica->machine);
        const struct store_ops *ops = replica->store.ops;
        struct store_iterator *iterator =
            ops->iterator_create(replica->store.store, NULL, BYTES_EMPTY, BYTES_EMPTY);
        for (; ops->iterator_valid(iterator); ops->iterator_next(iterator)) {
            struct bytes key = ops->iterator_key(iterator);
            if (key.data[0] != 'm') {
                assert_int_equal(table->shards[key.data[2]].state, SHARD_SERVING);
            }
        }
        ops->iterator_destroy(iterator);
        kv_table_unref(table);
    }
}

static void world_close(struct world *world)
{
    for (size_t i = 0; i < world->event_count; i++) {
        event_deinit(&world->events[i]);
    }
    free(world->events);
    for (uint32_t g = 0; g < GROUPS; g++) {
        mover_destroy(world->groups[g].mover);
        kv_single_close(&world->groups[g].single);
    }
    for (uint32_t i = 0; i < world->config_count; i++) {
        config_free(world->configs[i]);
    }
    test_free(world);
}

static uint32_t run_seed(uint64_t seed)
{
    struct world *world = test_calloc(1, sizeof *world);
    rng_init(&world->rng, seed);
    for (uint32_t g = 0; g < GROUPS; g++) {
        kv_single_open(&world->groups[g].single, g + 1);
        new_leader(world, g);
    }
    for (uint32_t c = 0; c < CLIENTS; c++) {
        world->clients[c] = (struct client){.sequence = 1, .shard = c % SHARDS};
        snprintf(world->clients[c].key, sizeof world->clients[c].key, "client%u", (unsigned)c);
        client_send(world, c, ms(c));
    }
    post(world, ms(1), EVENT_CHANGE, 0);
    post(world, ms(500), EVENT_LEADER, 0);
    run_until(world, ms(30000));
    world->quiet = true;
    world->configs[world->config_count] =
        test_config(world->config_count + 1, SHARDS, (const uint64_t[SHARDS]){1, 2, 3, 1, 2, 3},
                    (const uint64_t[SHARDS]){0});
    const struct config *before = world->configs[world->config_count - 1];
    struct config *last = world->configs[world->config_count];
    for (uint32_t s = 0; s < SHARDS; s++) {
        last->sources[s] = before->owners[s] != 0 ? before->owners[s] : before->sources[s];
    }
    world->config_count++;
    for (uint32_t g = 0; g < GROUPS; g++) {
        run_mover(world, g);
    }
    run_until(world, world->now_ns + ms(600000));
    if (!is_at_rest(world)) {
        fail_msg("seed %u does not come to rest", (unsigned)seed);
    }
    for (uint32_t c = 0; c < CLIENTS; c++) {
        check_client(world, c);
    }
    check_nothing_left(world);
    uint32_t moved = world->moved;
    world_close(world);
    return moved;
}

static void test_kv_moves_random_faults_lose_and_double_nothing(void **state)
{
    (void)state;
    const char *only =
        getenv("KV_MOVES_SEED"); /* replays one: KV_MOVES_SEED=17 tests/test_kv_moves */
    uint64_t first = only != NULL ? strtoull(only, NULL, 10) : 1;
    uint64_t last = only != NULL ? first : 25;
    uint32_t moved = 0;
    for (uint64_t seed = first; seed <= last; seed++) {
        print_message("seed %u\n", (unsigned)seed);
        moved += run_seed(seed);
    }
    assert_true(moved > (last - first + 1) * 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kv_moves_random_faults_lose_and_double_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Real nodes in one process, and what they replicate: writes and reads, leaders that change, stops
 * and starts, a follower that needs a snapshot. */
#include "unit/node_fixture.h"

#include "base/log.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void test_node_three_propose_and_read(void **state)
{
    struct fixture *fixture = *state;
    start_members(fixture);
    uint64_t applied = put(fixture, "a", "1");
    assert_value(fixture, "a", "1");
    uint32_t leader = wait_leader(fixture);
    for (uint32_t i = 0; i < MEMBERS; i++) {
        wait_applied(fixture, i, applied);
        struct buf value;
        buf_init(&value);
        assert_true(kv_machine_get(&fixture->servers[i].sm, bytes_of_string("a"), &value));
        buf_deinit(&value);
    }
    struct kv_command command = {
        .kind = KV_PUT, .key = bytes_of_string("b"), .value = bytes_of_string("2")};
    struct server *follower = &fixture->servers[(leader + 1) % MEMBERS];
    assert_int_equal(propose(follower->node, &command, NULL), ERR_NOT_LEADER);
}

struct writer {
    struct fixture *fixture;
    uint32_t number;
    atomic_uint *left;
};

enum { WRITERS = 4, WRITES = 250 };

static void *writer_main(void *context)
{
    struct writer *writer = context;
    for (uint32_t i = 1; i <= WRITES; i++) {
        char text[32];
        snprintf(text, sizeof(text), "%u.%u;", writer->number, i);
        struct kv_command command = {.kind = KV_APPEND,
                                     .client_id = writer->number,
                                     .sequence = i,
                                     .acked_below = i,
                                     .key = bytes_of_string("log"),
                                     .value = bytes_of_string(text)};
        int error = ERR_NOT_LEADER;
        uint64_t end_ns = now_ns() + LIMIT_NS;
        while (error != ERR_OK && now_ns() < end_ns) {
            int leader = find_leader(writer->fixture);
            error = leader < 0 ? ERR_NOT_LEADER
                               : propose(writer->fixture->servers[leader].node, &command, NULL);
            if (error != ERR_OK) {
                nap();
            }
        }
        if (error != ERR_OK) {
            abort();
        }
    }
    atomic_fetch_sub(writer->left, 1);
    return NULL;
}

static void transfer_once(struct fixture *fixture)
{
    struct call call;
    int leader = find_leader(fixture);
    if (leader < 0) {
        return;
    }
    call_init(&call);
    if (node_transfer(fixture->servers[leader].node, 0, change_done, &call) == ERR_OK) {
        call_wait(&call);
    }
    call_deinit(&call);
}

/* Every writer's appends are there once each, in its order, while leadership moves about. */
static void test_node_many_writers_through_transfers_once_each_in_order(void **state)
{
    struct fixture *fixture = *state;
    pthread_t threads[WRITERS];
    struct writer writers[WRITERS];
    atomic_uint left = WRITERS;
    start_members(fixture);
    (void)wait_leader(fixture);
    for (uint32_t i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){fixture, i + 1, &left};
        assert_int_equal(pthread_create(&threads[i], NULL, writer_main, &writers[i]), 0);
    }
    for (int i = 0; i < 3 && atomic_load(&left) > 0; i++) {
        for (int n = 0; n < 40 && atomic_load(&left) > 0; n++) {
            nap();
        }
        transfer_once(fixture);
    }
    for (uint32_t i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    struct buf held;
    buf_init(&held);
    assert_int_equal(read_key(&fixture->servers[wait_leader(fixture)], "log", &held), ERR_OK);
    buf_append(&held, "", 1);
    uint32_t next[WRITERS];
    for (uint32_t i = 0; i < WRITERS; i++) {
        next[i] = 1;
    }
    size_t count = 0;
    for (char *at = (char *)held.data; *at != '\0'; count++) {
        unsigned writer;
        unsigned number;
        int length;
        assert_int_equal(sscanf(at, "%u.%u;%n", &writer, &number, &length), 2);
        assert_in_range(writer, 1, WRITERS);
        assert_int_equal(number, next[writer - 1]);
        next[writer - 1]++;
        at += length;
    }
    assert_int_equal(count, WRITERS * WRITES);
    buf_deinit(&held);
}

static void test_node_leader_stops_another_takes_over_and_it_returns(void **state)
{
    struct fixture *fixture = *state;
    char key[32];
    start_members(fixture);
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put(fixture, key, "before");
    }
    uint32_t first = wait_leader(fixture);
    server_stop(fixture, first);
    uint64_t written = 0;
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        written = put(fixture, key, "after");
    }
    assert_int_not_equal(first, wait_leader(fixture));
    server_start(fixture, first);
    wait_applied(fixture, first, written);
    assert_value(fixture, "k49", "after");
    assert_int_equal(kv_machine_count(&fixture->servers[first].sm), 50);
}

static void test_node_all_stop_and_start_again_with_everything(void **state)
{
    struct fixture *fixture = *state;
    char key[32];
    start_members(fixture);
    for (int i = 0; i < 30; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put(fixture, key, "v");
    }
    for (uint32_t i = 0; i < MEMBERS; i++) {
        server_stop(fixture, i);
    }
    start_members(fixture);
    for (int i = 0; i < 30; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_value(fixture, key, "v");
    }
}

static void test_node_follower_behind_compaction_gets_a_snapshot(void **state)
{
    struct fixture *fixture = *state;
    char value[8193];
    char key[32];
    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    start_members(fixture);
    put(fixture, "a", "1");
    uint32_t away = (wait_leader(fixture) + 1) % MEMBERS;
    server_stop(fixture, away);
    for (int i = 0; i < 150; i++) {
        snprintf(key, sizeof(key), "k%d", i % 40);
        put(fixture, key, value);
    }
    uint32_t leader = wait_leader(fixture);
    struct node_status status;
    uint64_t end_ns = now_ns() + LIMIT_NS;
    do {
        node_status(fixture->servers[leader].node, &status);
        nap();
    } while (status.raft.log_start.index < 10 && now_ns() < end_ns);
    assert_true(status.raft.log_start.index >= 10);
    server_start(fixture, away);
    wait_applied(fixture, away, status.raft.applied);
    assert_int_equal(kv_machine_count(&fixture->servers[away].sm), 41);
    node_status(fixture->servers[away].node, &status);
    assert_true(status.raft.log_start.index > 10); /* its log begins where the snapshot ended */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        NODE_TEST(test_node_three_propose_and_read),
        NODE_TEST(test_node_many_writers_through_transfers_once_each_in_order),
        NODE_TEST(test_node_leader_stops_another_takes_over_and_it_returns),
        NODE_TEST(test_node_all_stop_and_start_again_with_everything),
        NODE_TEST(test_node_follower_behind_compaction_gets_a_snapshot),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? LOG_ERROR : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The controllers' client against controllers inside the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "client/controller_client.h"
#include "proto/methods.h"
#include "unit/fake_cluster.h"
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLUSTER_ID = 9 };

struct setup {
    struct fake_cluster *cluster;
    struct rpc *rpc;
    struct controller_client *client;
};

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

static uint64_t in_ms(uint64_t ms)
{
    return now_ns() + ms * NS_PER_MS;
}

static struct setup setup_make(void)
{
    struct setup setup = {.cluster = fake_cluster_create(CLUSTER_ID)};
    struct rpc_options options = rpc_options_default();
    assert_int_equal(rpc_create(&options, &setup.rpc), 0);
    return setup;
}

static void setup_client(struct setup *setup, const char *addresses)
{
    char why[200];
    assert_int_equal(controller_client_create(setup->rpc, clock_system(), addresses, CLUSTER_ID, 1,
                                              &setup->client, why, sizeof why),
                     0);
}

static void setup_end(struct setup *setup)
{
    controller_client_destroy(setup->client);
    rpc_destroy(setup->rpc);
    fake_cluster_destroy(setup->cluster);
}

static void both(char out[300], const struct fake_server *a, const struct fake_server *b)
{
    (void)snprintf(out, 300, "%s,%s", a->address, b->address);
}

/* One change; *number is the config the answer names. */
static int change(struct setup *setup, uint64_t deadline_ns, uint64_t *number, char *text,
                  size_t text_size)
{
    struct msg_move_request move = {.shard = 3, .group_id = 1};
    struct msg_change_response response;
    struct buf request = {0};
    struct buf reply = {0};
    move.header.cluster_id = CLUSTER_ID;
    controller_client_next_ids(setup->client, &move.header.client_id, &move.header.sequence);
    assert_true(move.header.client_id != 0);
    msg_move_request_encode(&move, &request);
    int error = controller_client_call_wait(setup->client, METHOD_CONTROLLER_MOVE, &request,
                                            deadline_ns, &reply, text, text_size);
    *number = 0;
    if (error == 0) {
        assert_int_equal(msg_change_response_decode(buf_view(&reply), &response), 0);
        *number = response.config_number;
    }
    buf_deinit(&request);
    buf_deinit(&reply);
    return error;
}

static void test_create_with_a_bad_address_names_it(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    const char *bad[] = {"127.0.0.1", "", "127.0.0.1:7000,", "127.0.0.1:7000,x:y", ":1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char why[200] = "";
        assert_int_equal(controller_client_create(setup.rpc, clock_system(), bad[i], 0, 1,
                                                  &setup.client, why, sizeof why),
                         ERR_INVALID);
        assert_non_null(strstr(why, "host:port"));
    }
    assert_null(setup.client);
    setup_end(&setup);
}

static void test_call_follows_the_hint_to_the_leader(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    uint64_t number;
    char text[200], addresses[300];
    struct fake_server *follower = fake_server_start(setup.cluster, FAKE_FOLLOWER);
    struct fake_server *leader = fake_server_start(setup.cluster, FAKE_LEADER);
    fake_server_mode(follower, FAKE_FOLLOWER, leader->address);
    (void)addresses;
    setup_client(&setup, follower->address); /* the leader is known by the hint alone */
    uint64_t start_ns = now_ns();
    assert_int_equal(change(&setup, in_ms(10000), &number, text, sizeof text), 0);
    assert_int_equal(number, 77);
    assert_int_equal(fake_calls(follower), 1);
    assert_int_equal(fake_calls(leader), 1);
    assert_true(now_ns() - start_ns < 3 * NS_PER_S);
    /* It is remembered. */
    assert_int_equal(change(&setup, in_ms(10000), &number, text, sizeof text), 0);
    assert_int_equal(fake_calls(follower), 1);
    assert_int_equal(fake_calls(leader), 2);
    setup_end(&setup);
}

static void test_call_retries_the_same_bytes_until_somebody_leads(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    uint64_t number;
    char text[200], addresses[300];
    struct fake_server *one = fake_server_start(setup.cluster, FAKE_FOLLOWER);
    struct fake_server *two = fake_server_start(setup.cluster, FAKE_LEADER);
    setup.cluster->servers[1].refuse_count = 6; /* before it was ever asked */
    both(addresses, one, two);
    setup_client(&setup, addresses);
    assert_int_equal(change(&setup, in_ms(20000), &number, text, sizeof text), 0);
    assert_int_equal(number, 77);
    assert_int_equal(fake_calls(two), 7);
    assert_int_equal(setup.cluster->other_requests, 0);
    setup_end(&setup);
}

static void test_call_goes_on_from_a_dead_controller_to_the_next(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    uint64_t number;
    char text[200], addresses[300];
    struct fake_server *dead = fake_server_start(setup.cluster, FAKE_LEADER);
    struct fake_server *leader = fake_server_start(setup.cluster, FAKE_LEADER);
    fake_server_stop(dead);
    both(addresses, dead, leader);
    setup_client(&setup, addresses);
    assert_int_equal(change(&setup, in_ms(10000), &number, text, sizeof text), 0);
    assert_int_equal(number, 77);
    setup_end(&setup);
}

static void test_call_without_controllers_is_not_done_and_keeps_its_deadline(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    uint64_t number;
    char text[200] = "";
    struct fake_server *dead = fake_server_start(setup.cluster, FAKE_LEADER);
    fake_server_stop(dead);
    setup_client(&setup, dead->address);
    uint64_t start_ns = now_ns();
    assert_int_equal(change(&setup, in_ms(500), &number, text, sizeof text), ERR_UNAVAILABLE);
    assert_true(now_ns() - start_ns >= 450 * NS_PER_MS);
    assert_true(now_ns() - start_ns < 3 * NS_PER_S);
    assert_non_null(strstr(text, dead->address));
    setup_end(&setup);
}

static void test_call_to_a_silent_controller_is_unknown(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    uint64_t number;
    char text[200] = "";
    struct fake_server *silent = fake_server_start(setup.cluster, FAKE_SILENT);
    setup_client(&setup, silent->address);
    assert_int_equal(change(&setup, in_ms(500), &number, text, sizeof text), ERR_TIMEOUT);
    assert_non_null(strstr(text, silent->address));
    setup_end(&setup);
}

/* One controller lost its leadership with the change in its log, the other knows of no leader. That
 * nobody leads, said to a later attempt, does not undo the first. */
static void test_call_lost_then_refused_is_unknown(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    uint64_t number;
    char text[200] = "", addresses[300];
    struct fake_server *lost = fake_server_start(setup.cluster, FAKE_REFUSING);
    lost->error = ERR_LEADER_LOST;
    struct fake_server *other = fake_server_start(setup.cluster, FAKE_FOLLOWER);
    both(addresses, lost, other);
    setup_client(&setup, addresses);
    assert_int_equal(change(&setup, in_ms(500), &number, text, sizeof text), ERR_TIMEOUT);
    assert_true(fake_calls(lost) > 0);
    assert_true(fake_calls(other) > 0);
    setup_end(&setup);
}

static void test_call_leaves_a_silent_controller_before_its_deadline(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    uint64_t number;
    char text[200] = "", addresses[300];
    struct fake_server *silent = fake_server_start(setup.cluster, FAKE_SILENT);
    struct fake_server *leader = fake_server_start(setup.cluster, FAKE_LEADER);
    both(addresses, silent, leader);
    setup_client(&setup, addresses);
    for (int i = 0; i < 2; i++) { /* whichever it starts with, once it starts with the silent one */
        assert_int_equal(change(&setup, in_ms(15000), &number, text, sizeof text), 0);
        fake_server_mode(leader, FAKE_FOLLOWER, silent->address);
        fake_server_mode(silent, FAKE_LEADER, "");
        assert_int_equal(change(&setup, in_ms(15000), &number, text, sizeof text), 0);
        fake_server_mode(silent, FAKE_SILENT, "");
        fake_server_mode(leader, FAKE_LEADER, "");
    }
    setup_end(&setup);
}

static void test_call_refused_for_good_says_why(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    uint64_t number;
    char text[200] = "";
    struct fake_server *server = fake_server_start(setup.cluster, FAKE_REFUSING);
    server->error = ERR_GROUP_UNKNOWN;
    setup_client(&setup, server->address);
    assert_int_equal(change(&setup, in_ms(10000), &number, text, sizeof text), ERR_GROUP_UNKNOWN);
    assert_string_equal(text, err_text(ERR_GROUP_UNKNOWN));
    assert_int_equal(fake_calls(server), 1);
    setup_end(&setup);
}

/* ---- destroying ---- */

struct ended {
    atomic_int count;
    atomic_int error;
};

static void note_end(void *context, int error, const char *text, struct bytes reply)
{
    struct ended *ended = context;
    (void)text;
    (void)reply;
    atomic_store(&ended->error, error);
    atomic_fetch_add(&ended->count, 1);
}

static void test_destroy_ends_calls_under_way_once(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    struct ended ended[2] = {0};
    struct fake_server *silent = fake_server_start(setup.cluster, FAKE_SILENT);
    setup_client(&setup, silent->address);
    for (int i = 0; i < 2; i++) {
        struct buf request = {0};
        struct msg_query_request query = {.latest = true};
        msg_query_request_encode(&query, &request);
        assert_int_equal(controller_client_call(setup.client, METHOD_CONTROLLER_QUERY, &request,
                                                in_ms(60000), note_end, &ended[i]),
                         0);
        buf_deinit(&request);
    }
    controller_client_destroy(setup.client);
    setup.client = NULL;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(atomic_load(&ended[i].count), 1);
        assert_int_equal(atomic_load(&ended[i].error), ERR_CANCELED);
    }
    setup_end(&setup);
}

/* ---- watching ---- */

struct watcher {
    sem_t told;
    atomic_ullong last; /* number + 1 */
    atomic_int mistakes;
    bool in_order;
};

static void config_told(void *context, const struct config *config)
{
    struct watcher *watcher = context;
    unsigned long long last = atomic_load(&watcher->last);
    if (watcher->in_order ? config->number != last : config->number < last) {
        atomic_fetch_add(&watcher->mistakes, 1);
    }
    atomic_store(&watcher->last, config->number + 1);
    (void)sem_post(&watcher->told);
}

static void wait_for_number(struct watcher *watcher, uint64_t number)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    while (atomic_load(&watcher->last) < number + 1) {
        assert_int_equal(sem_timedwait(&watcher->told, &until), 0);
    }
}

static void test_watch_tells_every_config_once_across_broken_streams(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    struct watcher watcher = {.in_order = true};
    char addresses[300];
    assert_int_equal(sem_init(&watcher.told, 0, 0), 0);
    struct fake_server *one = fake_server_start(setup.cluster, FAKE_LEADER);
    struct fake_server *two = fake_server_start(setup.cluster, FAKE_LEADER);
    both(addresses, one, two);
    setup_client(&setup, addresses);
    assert_int_equal(controller_client_watch(setup.client, 0, config_told, &watcher), 0);
    assert_int_equal(controller_client_watch(setup.client, 0, config_told, &watcher), ERR_EXISTS);
    wait_for_number(&watcher, 0);
    for (uint64_t number = 1; number <= 9; number += 3) {
        for (int i = 0; i < 3; i++) {
            fake_config_push(setup.cluster, NULL, NULL);
        }
        wait_for_number(&watcher, number + 2);
        fake_server_stop(number / 4 % 2 == 0 ? one : two);
        fake_config_push(setup.cluster, NULL, NULL);
        wait_for_number(&watcher, number + 3);
        fake_server_restart(number / 4 % 2 == 0 ? one : two);
        number++;
    }
    assert_int_equal(atomic_load(&watcher.mistakes), 0);
    setup_end(&setup);
    (void)sem_destroy(&watcher.told);
}

static void test_watch_latest_skips_but_never_goes_back(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    struct watcher watcher = {.in_order = false};
    assert_int_equal(sem_init(&watcher.told, 0, 0), 0);
    struct fake_server *follower = fake_server_start(setup.cluster, FAKE_FOLLOWER);
    struct fake_server *leader = fake_server_start(setup.cluster, FAKE_LEADER);
    fake_server_mode(follower, FAKE_FOLLOWER, leader->address);
    for (int i = 0; i < 5; i++) {
        fake_config_push(setup.cluster, NULL, NULL);
    }
    setup_client(&setup, follower->address);
    assert_int_equal(controller_client_watch_latest(setup.client, config_told, &watcher), 0);
    wait_for_number(&watcher, 5);
    fake_config_push(setup.cluster, NULL, NULL);
    wait_for_number(&watcher, 6);
    assert_int_equal(atomic_load(&watcher.mistakes), 0);
    setup_end(&setup);
    (void)sem_destroy(&watcher.told);
}

static void test_watch_leaves_a_controller_that_is_cut_off(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    struct watcher watcher = {.in_order = true};
    assert_int_equal(sem_init(&watcher.told, 0, 0), 0);
    struct fake_server *stuck = fake_server_start(setup.cluster, FAKE_LEADER);
    struct fake_server *leader = fake_server_start(setup.cluster, FAKE_LEADER);
    setup_client(&setup, stuck->address);
    assert_int_equal(controller_client_watch(setup.client, 0, config_told, &watcher), 0);
    wait_for_number(&watcher, 0);
    /* It keeps the stream and says nothing more; asked, it points to the leader. */
    pthread_mutex_lock(&setup.cluster->mutex);
    stuck->watch_is_stuck = true;
    pthread_mutex_unlock(&setup.cluster->mutex);
    fake_server_mode(stuck, FAKE_FOLLOWER, leader->address);
    fake_config_push(setup.cluster, NULL, NULL);
    wait_for_number(&watcher, 1);
    assert_int_equal(atomic_load(&watcher.mistakes), 0);
    setup_end(&setup);
    (void)sem_destroy(&watcher.told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_with_a_bad_address_names_it),
        cmocka_unit_test(test_call_follows_the_hint_to_the_leader),
        cmocka_unit_test(test_call_retries_the_same_bytes_until_somebody_leads),
        cmocka_unit_test(test_call_goes_on_from_a_dead_controller_to_the_next),
        cmocka_unit_test(test_call_without_controllers_is_not_done_and_keeps_its_deadline),
        cmocka_unit_test(test_call_to_a_silent_controller_is_unknown),
        cmocka_unit_test(test_call_lost_then_refused_is_unknown),
        cmocka_unit_test(test_call_leaves_a_silent_controller_before_its_deadline),
        cmocka_unit_test(test_call_refused_for_good_says_why),
        cmocka_unit_test(test_destroy_ends_calls_under_way_once),
        cmocka_unit_test(test_watch_tells_every_config_once_across_broken_streams),
        cmocka_unit_test(test_watch_latest_skips_but_never_goes_back),
        cmocka_unit_test(test_watch_leaves_a_controller_that_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

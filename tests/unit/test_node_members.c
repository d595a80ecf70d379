/* Real nodes in one process, and who is one of them: members that are added, directories and
 * clusters that are another's, a member that comes back without its disk, the administrator's calls
 * over rpc. */
#include "unit/node_fixture.h"

#include "base/log.h"
#include "proto/messages.h"
#include "proto/methods.h"

#include <stdlib.h>
#include <string.h>

static void test_node_new_member_waits_is_added_and_follows(void **state)
{
    struct fixture *fixture = *state;
    start_members(fixture);
    put(fixture, "a", "1");
    server_start(fixture, 3);
    struct raft_change change = {
        .kind = RAFT_ADD_VOTER, .id = 4, .address = fixture->servers[3].address};
    struct call call;
    int error = ERR_BUSY;
    for (int tries = 0; error != ERR_OK && tries < 100; tries++) {
        call_init(&call);
        assert_int_equal(node_change_member(fixture->servers[wait_leader(fixture)].node, &change,
                                            change_done, &call),
                         ERR_OK);
        call_wait(&call);
        error = call.error;
        call_deinit(&call);
    }
    assert_int_equal(error, ERR_OK);
    wait_applied(fixture, 3, put(fixture, "b", "2"));
    struct buf value;
    buf_init(&value);
    assert_true(kv_machine_get(&fixture->servers[3].sm, bytes_of_string("b"), &value));
    buf_deinit(&value);
    struct msg_status_response *response = mem_calloc(1, sizeof(*response));
    node_fill_status(fixture->servers[3].node, response);
    assert_int_equal(response->member_count, 4);
    assert_int_equal(response->replica_id, 4);
    assert_string_equal(response->role, "follower");
    free(response);
}

static void test_node_wrong_identity_is_refused(void **state)
{
    struct fixture *fixture = *state;
    char why[512] = "";
    server_start(fixture, 0);
    server_stop(fixture, 0);
    struct node_options options = options_of(fixture, 0);
    options.cluster_id = 78;
    assert_int_equal(node_up(fixture, 0, &options, why, sizeof(why)), ERR_WRONG_CLUSTER);
    assert_non_null(strstr(why, "belongs to cluster"));
    options = options_of(fixture, 0);
    options.replica_id = 2;
    assert_int_equal(node_up(fixture, 0, &options, why, sizeof(why)), ERR_WRONG_REPLICA);
    assert_non_null(strstr(why, "belongs to replica 1"));
    server_start(fixture, 0);
}

static void test_node_directory_in_use_is_busy(void **state)
{
    struct fixture *fixture = *state;
    char why[512] = "";
    server_start(fixture, 0);
    struct node_options options = options_of(fixture, 0);
    options.vfs = vfs_system(); /* with real locks */
    struct state_machine sm;
    struct rpc *rpc;
    struct node *first;
    struct node *second;
    struct rpc_options rpc_options = rpc_options_default();
    server_stop(fixture, 0);
    assert_int_equal(rpc_create(&rpc_options, &rpc), ERR_OK);
    assert_int_equal(kv_machine_open(vfs_system(), options.dir, &sm), ERR_OK);
    assert_int_equal(node_create(&options, &sm, NULL, rpc, &first, why, sizeof(why)), ERR_OK);
    assert_int_equal(node_create(&options, &sm, NULL, rpc, &second, why, sizeof(why)), ERR_BUSY);
    assert_non_null(strstr(why, "in use by another process"));
    node_destroy(first);
    kv_machine_close(&sm);
    rpc_destroy(rpc);
}

/* Another cluster's replica, started by mistake under a member's address, is not listened to. */
static void test_node_of_another_cluster_is_not_counted(void **state)
{
    struct fixture *fixture = *state;
    char why[512] = "";
    server_start(fixture, 0);
    struct node_options options = options_of(fixture, 1);
    options.cluster_id = 78;
    assert_int_equal(node_up(fixture, 1, &options, why, sizeof(why)), ERR_OK);
    uint64_t end_ns = now_ns() + 2 * NS_PER_S;
    while (now_ns() < end_ns) {
        assert_int_equal(find_leader(fixture), -1);
        nap();
    }
    server_start(fixture, 2);
    put(fixture, "a", "1");
}

static void test_node_wiped_member_is_not_counted(void **state)
{
    struct fixture *fixture = *state;
    start_members(fixture);
    uint64_t applied = put(fixture, "a", "1");
    uint32_t leader = wait_leader(fixture);
    uint32_t wiped = (leader + 1) % MEMBERS;
    uint32_t other = (leader + 2) % MEMBERS;
    wait_applied(fixture, wiped, applied);
    wait_applied(fixture, other, applied);
    server_stop(fixture, wiped);
    assert_int_equal(vfs_system()->remove_tree(vfs_system()->context, fixture->servers[wiped].dir),
                     ERR_OK);
    server_start(fixture, wiped);
    server_stop(fixture, other);
    /* What the leader still had as a majority ends within two election timeouts, and no other
     * comes. */
    uint64_t end_ns = now_ns() + LIMIT_NS;
    while (find_leader(fixture) >= 0 && now_ns() < end_ns) {
        nap();
    }
    end_ns = now_ns() + 2 * NS_PER_S;
    while (now_ns() < end_ns) {
        assert_int_equal(find_leader(fixture), -1);
        nap();
    }
    server_start(fixture, other);
    put(fixture, "b", "2");
}

static void test_node_admin_calls_transfer_and_change(void **state)
{
    struct fixture *fixture = *state;
    start_members(fixture);
    put(fixture, "a", "1");
    uint32_t leader = wait_leader(fixture);
    uint32_t follower = (leader + 1) % MEMBERS;
    struct rpc_channel *channels[2];
    assert_int_equal(rpc_channel_create(fixture->servers[3 % MEMBERS].rpc,
                                        fixture->servers[follower].address, &channels[0]),
                     ERR_OK);
    assert_int_equal(rpc_channel_create(fixture->servers[3 % MEMBERS].rpc,
                                        fixture->servers[leader].address, &channels[1]),
                     ERR_OK);
    struct msg_admin_response *response = mem_calloc(1, sizeof(*response));
    int expected[2] = {ERR_NOT_LEADER, ERR_OK};
    for (int i = 0; i < 2; i++) {
        struct msg_transfer_request request = {.cluster_id = 77, .target_id = follower + 1};
        struct buf bytes;
        struct buf reply;
        buf_init(&bytes);
        buf_init(&reply);
        msg_transfer_request_encode(&request, &bytes);
        assert_int_equal(rpc_call_wait(channels[i], METHOD_ADMIN_TRANSFER, &bytes,
                                       now_ns() + LIMIT_NS, &reply, NULL, 0),
                         ERR_OK);
        assert_int_equal(msg_admin_response_decode(buf_view(&reply), response), ERR_OK);
        assert_int_equal(response->header.error, expected[i]);
        if (i == 0) {
            assert_true(response->header.has_route);
            assert_string_equal(response->header.route.leader_address,
                                fixture->servers[leader].address);
        }
        buf_deinit(&bytes);
        buf_deinit(&reply);
    }
    struct msg_change_member_request change = {
        .cluster_id = 999, .kind = MSG_MEMBER_REMOVE, .id = leader + 1};
    struct buf bytes;
    struct buf reply;
    buf_init(&bytes);
    buf_init(&reply);
    msg_change_member_request_encode(&change, &bytes);
    assert_int_equal(rpc_call_wait(channels[0], METHOD_ADMIN_CHANGE_MEMBER, &bytes,
                                   now_ns() + LIMIT_NS, &reply, NULL, 0),
                     ERR_OK);
    assert_int_equal(msg_admin_response_decode(buf_view(&reply), response), ERR_OK);
    assert_int_equal(response->header.error, ERR_WRONG_CLUSTER);
    buf_deinit(&bytes);
    buf_deinit(&reply);
    free(response);
    rpc_channel_destroy(channels[0]);
    rpc_channel_destroy(channels[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        NODE_TEST(test_node_new_member_waits_is_added_and_follows),
        NODE_TEST(test_node_wrong_identity_is_refused),
        NODE_TEST(test_node_directory_in_use_is_busy),
        NODE_TEST(test_node_of_another_cluster_is_not_counted),
        NODE_TEST(test_node_wiped_member_is_not_counted),
        NODE_TEST(test_node_admin_calls_transfer_and_change),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? LOG_ERROR : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

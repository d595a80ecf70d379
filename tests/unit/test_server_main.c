/* Members as text, and the exit codes of errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raft/node/server_main.h"
#include <stdio.h>
#include <string.h>

static void test_server_peers_lists_are_parsed(void **state)
{
    (void)state;
    struct server_peers peers;
    char why[256] = "";
    assert_int_equal(
        server_peers_parse("1=a:1,22=127.0.0.1:65535,3=[::1]:7", &peers, why, sizeof why), 0);
    assert_int_equal(peers.count, 3);
    assert_int_equal(peers.members[1].id, 22);
    assert_string_equal(peers.members[1].address, "127.0.0.1:65535");
    assert_string_equal(server_peers_address(&peers, 3), "[::1]:7");
    assert_null(server_peers_address(&peers, 4));
    assert_int_equal(server_peers_parse("", &peers, why, sizeof why), 0);
    assert_int_equal(peers.count, 0);
    assert_int_equal(server_peers_parse(NULL, &peers, why, sizeof why), 0);
    assert_int_equal(peers.count, 0);
}

static void test_server_peers_mistakes_are_named(void **state)
{
    (void)state;
    const struct {
        const char *text;
        const char *named; /* stands in the answer */
    } bad[] = {
        {"a:1", "\"a:1\""},
        {"=a:1", "ID=HOST:PORT"},
        {"0=a:1", "\"0\""},
        {"x=a:1", "\"x\""},
        {"-1=a:1", "\"-1\""},
        {"99999999999999999999=a:1", "99999999999999999999"},
        {"1=a", "\"a\""},
        {"1=a:0", "\"a:0\""},
        {"1=a:65536", "\"a:65536\""},
        {"1=a:1,", "after the last comma"},
        {"1=a:1,,2=b:1", "ID=HOST:PORT"},
        {"1=a:1,1=b:1", "replica 1"},
        {"1=a:1,2=a:1", "replica 2"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct server_peers peers;
        char why[256] = "";
        assert_int_equal(server_peers_parse(bad[i].text, &peers, why, sizeof why), ERR_INVALID);
        if (strstr(why, bad[i].named) == NULL) {
            fail_msg("%s: \"%s\" does not name %s", bad[i].text, why, bad[i].named);
        }
    }
}

static void test_server_peers_limits_hold(void **state)
{
    (void)state;
    struct server_peers peers;
    char why[256] = "";
    char text[2048] = "";
    for (int i = 1; i <= RAFT_MEMBERS_MAX + 1; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%d=host:%d", i == 1 ? "" : ",", i, i);
        assert_int_equal(server_peers_parse(text, &peers, why, sizeof why),
                         i <= RAFT_MEMBERS_MAX ? 0 : ERR_TOO_LARGE);
    }
    char name[RAFT_ADDRESS_BYTES_MAX + 8];
    memset(name, 'a', sizeof name);
    memcpy(name, "1=", 2);
    snprintf(name + sizeof name - 3, 3, ":1");
    assert_int_equal(server_peers_parse(name, &peers, why, sizeof why), ERR_TOO_LARGE);
}

static void test_server_exit_codes_tell_the_kinds_of_errors_apart(void **state)
{
    (void)state;
    assert_int_equal(server_exit_of_error(0), SERVER_EXIT_OK);
    assert_int_equal(server_exit_of_error(ERR_BUSY), SERVER_EXIT_LOCKED);
    assert_int_equal(server_exit_of_error(ERR_WRONG_CLUSTER), SERVER_EXIT_IDENTITY);
    assert_int_equal(server_exit_of_error(ERR_WRONG_REPLICA), SERVER_EXIT_IDENTITY);
    assert_int_equal(server_exit_of_error(ERR_CORRUPT), SERVER_EXIT_DISK);
    assert_int_equal(server_exit_of_error(ERR_NO_SPACE), SERVER_EXIT_DISK);
    assert_int_equal(server_exit_of_error(ERR_INVALID), SERVER_EXIT_FAILURE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_peers_lists_are_parsed),
        cmocka_unit_test(test_server_peers_mistakes_are_named),
        cmocka_unit_test(test_server_peers_limits_hold),
        cmocka_unit_test(test_server_exit_codes_tell_the_kinds_of_errors_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

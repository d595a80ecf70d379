/* shardctl as a process, against a cluster inside this one: what it prints, and what it exits with.
 *   test_ctl PATH_OF_SHARDCTL */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "proto/shard_hash.h"
#include "unit/fake_cluster.h"
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS_MAX = 24, RUN_SECONDS_MAX = 60 };

extern char **environ;
static const char *shardctl; /* from argv, set once */

struct run {
    int code;
    struct buf out; /* ends in NUL */
    struct buf error;
    uint64_t ns;
};

static void run_deinit(struct run *run)
{
    buf_deinit(&run->out);
    buf_deinit(&run->error);
}

static void read_both(int out_fd, int error_fd, pid_t pid, struct run *run)
{
    struct pollfd polled[2] = {{.fd = out_fd, .events = POLLIN},
                               {.fd = error_fd, .events = POLLIN}};
    struct buf *bufs[2] = {&run->out, &run->error};
    uint64_t start_ns = clock_now_ns(clock_system());
    int open = 2;
    while (open > 0) {
        if (clock_now_ns(clock_system()) - start_ns > RUN_SECONDS_MAX * NS_PER_S) {
            (void)kill(pid, SIGKILL);
            fail_msg("shardctl did not end");
        }
        (void)poll(polled, 2, 1000);
        for (int i = 0; i < 2; i++) {
            if (polled[i].fd >= 0 && polled[i].revents != 0) {
                uint8_t *at = buf_reserve(bufs[i], 4096);
                ssize_t got = read(polled[i].fd, at, 4096);
                if (got > 0) {
                    bufs[i]->size += (size_t)got;
                } else {
                    (void)close(polled[i].fd);
                    polled[i].fd = -1;
                    open--;
                }
            }
        }
    }
    run->ns = clock_now_ns(clock_system()) - start_ns;
}

/* Runs shardctl with the words (NULL ends them) and `input` on its standard input. */
static struct run run_with(const char *input, const char *const *words)
{
    struct run run = {0};
    char *argv[WORDS_MAX + 2] = {(char *)(uintptr_t)shardctl};
    int in[2], out[2], error[2], status;
    pid_t pid;
    for (size_t i = 0; words[i] != NULL; i++) {
        assert_true(i < WORDS_MAX);
        argv[i + 1] = (char *)(uintptr_t)words[i];
    }
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    assert_int_equal(pipe2(error, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    (void)posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    (void)posix_spawn_file_actions_adddup2(&actions, error[1], 2);
    assert_int_equal(posix_spawn(&pid, shardctl, &actions, NULL, argv, environ), 0);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(in[0]);
    (void)close(out[1]);
    (void)close(error[1]);
    assert_int_equal(write(in[1], input, strlen(input)), (ssize_t)strlen(input));
    (void)close(in[1]);
    read_both(out[0], error[0], pid, &run);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    run.code = WEXITSTATUS(status);
    buf_append(&run.out, "", 1);
    buf_append(&run.error, "", 1);
    return run;
}

#define RUN(...) run_with("", (const char *const[]){__VA_ARGS__, NULL})

static const char *out_of(const struct run *run)
{
    return (const char *)run->out.data;
}

static const char *error_of(const struct run *run)
{
    return (const char *)run->error.data;
}

/* Exit code, and exactly one line "error: ..." that holds `part`. */
static void expect_error(struct run run, int code, const char *part)
{
    if (run.code != code || strstr(error_of(&run), part) == NULL) {
        print_error("exit %d, said: %s", run.code, error_of(&run));
    }
    assert_int_equal(run.code, code);
    assert_non_null(strstr(error_of(&run), part));
    assert_memory_equal(error_of(&run), "error: ", 7);
    const char *end = strchr(error_of(&run), '\n');
    assert_non_null(end);
    assert_int_equal(end[1], '\0');
    run_deinit(&run);
}

static void expect_out(struct run run, const char *out)
{
    if (run.code != 0) {
        print_error("exit %d, said: %s", run.code, error_of(&run));
    }
    assert_int_equal(run.code, 0);
    assert_string_equal(out_of(&run), out);
    run_deinit(&run);
}

static void test_wrong_words_are_answered_with_what_is_right(void **state)
{
    (void)state;
    const struct {
        const char *words[8];
        const char *part;
    } cases[] = {
        {{NULL}, "no command"},
        {{"frob"}, "no command 'frob'"},
        {{"put"}, "KEY VALUE"},
        {{"put", "a"}, "KEY VALUE"},
        {{"put", "a", "b", "c"}, "KEY VALUE"},
        {{"put", "--time", "a", "b"}, "--time"},
        {{"put", "--timeout", "soon", "a", "b"}, "250ms"},
        {{"--timeout", "0s", "put", "a", "b"}, "--timeout"},
        {{"put", "a", "b"}, "SHARDKV_CONTROLLERS"},
        {{"--controllers", "x", "put", "a", "b"}, "'x' is not host:port"},
        {{"--controllers", "127.0.0.1:1,", "query"}, "host:port"},
        {{"put", "", "b", "--controllers=127.0.0.1:1"}, "key is empty"},
        {{"put", "--hex", "0", "00"}, "not hexadecimal"},
        {{"put", "--base64", "AA==", "A"}, "value is not base64"},
        {{"put", "--hex", "--base64", "00", "00"}, "exclude"},
        {{"cas", "a", "x", "b"}, "'x' is not a version"},
        {{"join"}, "GROUP=ADDR"},
        {{"join", "1"}, "GROUP=HOST:PORT"},
        {{"join", "0=127.0.0.1:1"}, "group 0"},
        {{"join", "x=127.0.0.1:1"}, "'x' is not a group"},
        {{"join", "1=127.0.0.1"}, "HOST:PORT"},
        {{"join", "1=a@127.0.0.1:1"}, "'a' is not a replica"},
        {{"leave", "x"}, "'x' is not a group"},
        {{"move", "1"}, "SHARD GROUP"},
        {{"move", "16384", "1"}, "16383"},
        {{"query", "--config", "last"}, "--config=last"},
        {{"member", "frob", "1"}, "add, promote, remove or list"},
        {{"member", "add", "1"}, "ID=HOST:PORT"},
        {{"member", "add", "1", "4"}, "ID=HOST:PORT"},
        {{"member", "add", "1", "4=h:x"}, "HOST:PORT"},
        {{"member", "remove", "one", "4"}, "'one'"},
        {{"transfer", "x"}, "'x'"},
        {{"health", "x"}, "HOST:PORT"},
        {{"load", "/nonexistent/rows", "--controllers=127.0.0.1:1"}, "/nonexistent/rows"},
        {{"load", "--format=csv", "x"}, "only jsonl"},
        {{"load", "--from-line=0", "x"}, "--from-line"},
        {{"export", "--output=/nonexistent/x", "--controllers=127.0.0.1:1"}, "/nonexistent/x"},
        {{"put", "--tls-ca=/x", "a", "b", "--controllers=127.0.0.1:1"}, "all three"},
        {{"query", "--tls-ca=/x", "--controllers=127.0.0.1:1"}, "all three"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_error(run_with("", cases[i].words), 2, cases[i].part);
    }
}

static void test_help_and_version_exit_with_0(void **state)
{
    (void)state;
    const char *commands[] = {"put",    "get",    "append", "delete",  "cas",   "load",
                              "export", "join",   "leave",  "move",    "query", "wait",
                              "status", "health", "member", "transfer"};
    struct run run = RUN("--help");
    assert_int_equal(run.code, 0);
    assert_non_null(strstr(out_of(&run), "Exit codes"));
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        char title[64];
        (void)snprintf(title, sizeof title, "Usage: shardctl %s", commands[i]);
        assert_non_null(strstr(out_of(&run), commands[i]));
        struct run one = RUN(commands[i], "--help");
        struct run other = RUN("help", commands[i]);
        assert_int_equal(one.code, 0);
        assert_non_null(strstr(out_of(&one), title));
        assert_string_equal(out_of(&one), out_of(&other));
        run_deinit(&one);
        run_deinit(&other);
    }
    run_deinit(&run);
    run = RUN("--version");
    assert_int_equal(run.code, 0);
    assert_memory_equal(out_of(&run), "shardctl ", 9);
    run_deinit(&run);
}

/* ---- with a cluster ---- */

struct setup {
    struct fake_cluster *cluster;
    struct fake_server *server;
};

static struct setup setup_make(void)
{
    struct setup setup = {.cluster = fake_cluster_create(cluster_id_of_name("test"))};
    setup.server = fake_server_start(setup.cluster, FAKE_LEADER);
    fake_config_push(setup.cluster, setup.server, NULL);
    assert_int_equal(setenv("SHARDKV_CONTROLLERS", setup.server->address, 1), 0);
    assert_int_equal(setenv("SHARDKV_CLUSTER", "test", 1), 0);
    return setup;
}

static void setup_end(struct setup *setup)
{
    (void)unsetenv("SHARDKV_CONTROLLERS");
    (void)unsetenv("SHARDKV_CLUSTER");
    fake_cluster_destroy(setup->cluster);
}

static void test_commands_print_and_exit_as_promised(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    /* The model knows one client's sequences; every run is another client with sequence 1. */
#define FRESH() memset(setup.cluster->sessions, 0, sizeof setup.cluster->sessions)
    expect_error(RUN("get", "k"), 4, "not found");
    expect_out(RUN("put", "k", "value"), "OK\n");
    FRESH();
    expect_out(RUN("append", "k", "--", "-more"), "OK\n");
    FRESH();
    expect_out(RUN("get", "k"), "value-more"); /* a pipe gets the bytes alone */
    expect_out(RUN("get", "--hex", "6b"), "76616c75652d6d6f7265\n");
    expect_out(RUN("--json", "get", "k"),
               "{\"key\":\"k\",\"value\":\"value-more\",\"version\":2}\n");
    expect_error(RUN("cas", "k", "1", "x"), 5, "version is 2");
    FRESH();
    expect_out(RUN("cas", "k", "2", "x", "--json"), "{\"outcome\":\"done\",\"version\":3}\n");
    FRESH();
    expect_out(run_with("a\nb", (const char *const[]){"put", "in", "-", NULL}), "OK\n");
    FRESH();
    expect_out(RUN("get", "in"), "a\nb");
    expect_out(RUN("put", "--base64", "AP8=", "gA=="), "OK\n");
    FRESH();
    expect_out(RUN("get", "--json", "--base64", "AP8="),
               "{\"key_base64\":\"AP8=\",\"value_base64\":\"gA==\",\"version\":1}\n");
    expect_out(RUN("delete", "k"), "OK\n");
    FRESH();
    expect_error(RUN("get", "k"), 4, "not found");
    setup_end(&setup);
}

static void test_failures_keep_their_deadline_and_exit_code(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    expect_error(RUN("--cluster", "other", "put", "k", "v"), 1, "not of cluster 'other'");
    expect_error(RUN("--cluster", "other", "query"), 1, "not of cluster 'other'");
    pthread_mutex_lock(&setup.cluster->mutex);
    setup.server->mode = FAKE_REFUSING;
    setup.server->error = ERR_GROUP_UNKNOWN;
    pthread_mutex_unlock(&setup.cluster->mutex);
    expect_error(RUN("move", "1", "5"), 4, err_text(ERR_GROUP_UNKNOWN));
    fake_server_mode(setup.server, FAKE_FOLLOWER, "");
    expect_error(RUN("move", "1", "5", "--timeout=300ms"), 6, setup.server->address);
    fake_server_mode(setup.server, FAKE_SILENT, "");
    expect_error(RUN("move", "1", "5", "--timeout=300ms"), 3, "outcome unknown");
    expect_error(RUN("query", "--timeout=300ms"), 6, setup.server->address);
    fake_server_stop(setup.server);
    const char *const commands[][4] = {{"put", "k", "v"}, {"get", "k"}, {"move", "1", "5"},
                                       {"query"},         {"status"},   {"wait"},
                                       {"export"},        {"load", "-"}};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        const char *words[6] = {"--timeout=300ms"};
        for (size_t k = 0; commands[i][k] != NULL; k++) {
            words[k + 1] = commands[i][k];
        }
        struct run run = run_with("", words);
        assert_true(run.ns < 8 * NS_PER_S);
        expect_error(run, 6, setup.server->address);
    }
    setup_end(&setup);
}

static void test_put_without_an_answer_is_unknown(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    /* Controllers answer, the group's only replica does not. */
    struct fake_server *group = fake_server_start(setup.cluster, FAKE_SILENT);
    fake_config_push(setup.cluster, group, NULL);
    expect_error(RUN("put", "k", "v", "--timeout=400ms"), 3, "outcome unknown");
    expect_error(RUN("get", "k", "--timeout=400ms"), 6, "deadline");
    struct run run = RUN("put", "k", "v", "--timeout=400ms", "--json");
    json_t *json = json_loads(out_of(&run), 0, NULL);
    assert_int_equal(run.code, 3);
    assert_string_equal(json_string_value(json_object_get(json, "outcome")), "unknown");
    json_decref(json);
    run_deinit(&run);
    setup_end(&setup);
}

static void test_query_shows_the_config(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    struct run run = RUN("query");
    assert_int_equal(run.code, 0);
    assert_non_null(strstr(out_of(&run), "config 1, 16 shards, 1 groups"));
    assert_non_null(strstr(out_of(&run), "0-15"));
    assert_non_null(strstr(out_of(&run), setup.server->address));
    run_deinit(&run);
    run = RUN("query", "--json");
    json_t *json = json_loads(out_of(&run), 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(json, "number")), 1);
    assert_int_equal(json_array_size(json_object_get(json, "owners")), FAKE_SHARDS);
    json_t *group = json_array_get(json_object_get(json, "groups"), 0);
    assert_int_equal(json_integer_value(json_object_get(group, "id")), 1);
    json_decref(json);
    run_deinit(&run);
    expect_out(RUN("move", "3", "1"), "config 77\n");
    setup_end(&setup);
}

/* ---- load ---- */

static void test_load_puts_every_row(void **state)
{
    (void)state;
    enum { ROWS = 3000 };
    struct setup setup = setup_make();
    char path[] = "/tmp/test_ctl_rows_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *file = fdopen(fd, "w");
    for (int i = 0; i < ROWS; i++) {
        (void)fprintf(file, "{\"key\":\"row%d\",\"value\":\"%d\"}\n%s", i, i,
                      i % 7 == 0 ? "\n" : "");
    }
    assert_int_equal(fclose(file), 0);
    struct run run = RUN("load", path, "--outstanding=100", "--json");
    json_t *json = json_loads(out_of(&run), 0, NULL);
    assert_int_equal(run.code, 0);
    assert_int_equal(json_integer_value(json_object_get(json, "done")), ROWS);
    assert_null(json_object_get(json, "resume_line"));
    json_decref(json);
    run_deinit(&run);
    assert_int_equal(fake_executions(setup.cluster), ROWS);
    FRESH();
    expect_out(RUN("get", "row2999"), "2999");
    (void)unlink(path);
    setup_end(&setup);
}

static void test_load_stops_at_a_bad_line_and_says_where_to_go_on(void **state)
{
    (void)state;
    struct setup setup = setup_make();
    const char *rows = "{\"key\":\"a\",\"value\":\"1\"}\n"
                       "{\"key\":\"b\"}\n"
                       "{\"key\":\"c\",\"value\":\"3\"}\n";
    struct run run = run_with(rows, (const char *const[]){"load", "-", NULL});
    assert_int_equal(run.code, 1);
    assert_non_null(strstr(error_of(&run), "line 2"));
    assert_non_null(strstr(error_of(&run), "--from-line=2"));
    assert_non_null(strstr(out_of(&run), "1 rows put"));
    run_deinit(&run);
    FRESH();
    expect_error(RUN("get", "c"), 4, "not found");
    run = run_with(rows, (const char *const[]){"load", "--keep-going", "--json", "-", NULL});
    json_t *json = json_loads(out_of(&run), 0, NULL);
    assert_int_equal(run.code, 1);
    assert_int_equal(json_integer_value(json_object_get(json, "done")), 2);
    assert_int_equal(json_integer_value(json_object_get(json, "not_done")), 1);
    assert_int_equal(json_integer_value(json_object_get(json, "resume_line")), 2);
    json_decref(json);
    run_deinit(&run);
    FRESH();
    expect_out(RUN("get", "c"), "3");
    run = run_with(rows, (const char *const[]){"load", "--from-line=3", "-", NULL});
    assert_int_equal(run.code, 0);
    assert_non_null(strstr(out_of(&run), "1 rows put"));
    run_deinit(&run);
    setup_end(&setup);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_words_are_answered_with_what_is_right),
        cmocka_unit_test(test_help_and_version_exit_with_0),
        cmocka_unit_test(test_commands_print_and_exit_as_promised),
        cmocka_unit_test(test_failures_keep_their_deadline_and_exit_code),
        cmocka_unit_test(test_put_without_an_answer_is_unknown),
        cmocka_unit_test(test_query_shows_the_config),
        cmocka_unit_test(test_load_puts_every_row),
        cmocka_unit_test(test_load_stops_at_a_bad_line_and_says_where_to_go_on),
    };
    if (argc != 2) {
        fprintf(stderr, "want the path of shardctl\n");
        return 2;
    }
    shardctl = argv[1];
    (void)unsetenv("SHARDKV_CONTROLLERS");
    (void)unsetenv("SHARDKV_CLUSTER");
    return cmocka_run_group_tests(tests, NULL, NULL);
}

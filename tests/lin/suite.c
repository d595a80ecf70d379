/* The program lincheck as a gate uses it: its bounds on large histories, its limits, its exit
 * codes. Starts the programs of SHARDKV_BIN_DIR, which are the release build's: the bounds are
 * about that one. */
#include "lib/suite.h"

#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum {
    ARGUMENTS_MAX = 32,
    PATH_BYTES = 512,
    SECONDS_MAX = 60, /* the promise, for 50,000 operations, 10 keys, 50 clients */
    KIBIBYTES_MAX = 1024 * 1024,
};

struct outcome {
    int status; /* exit code; -1: ended by a signal */
    uint64_t elapsed_ns;
    long rss_kibibytes;
};

static char directory[PATH_BYTES];

static const char *file_in(const char *name)
{
    static char path[4][PATH_BYTES + 64]; /* as many as one call names */
    static int which;
    which = (which + 1) % 4;
    (void)snprintf(path[which], sizeof path[which], "%s/%s", directory, name);
    return path[which];
}

static void make_directory(void)
{
    const char *parent = getenv("TMPDIR");
    (void)snprintf(directory, sizeof directory, "%s/shardkv-lin-XXXXXX",
                   parent != NULL ? parent : "/tmp");
    if (mkdtemp(directory) == NULL) {
        FAIL("cannot make %s: %s", directory, strerror(errno));
    }
}

static void remove_directory(void)
{
    (void)unlink(file_in("history"));
    (void)unlink(file_in("out"));
    (void)unlink(file_in("picture.svg"));
    CHECK_EQ(rmdir(directory), 0);
}

/* `words`: the program's name and its arguments, ending in NULL; its standard output goes to
 * `output`, its errors stay ours. `input` may be NULL. */
static struct outcome run(const char *const *words, const char *input, const char *output)
{
    const char *bin = getenv("SHARDKV_BIN_DIR");
    char program[PATH_BYTES];
    char *arguments[ARGUMENTS_MAX];
    int count = 0;
    for (; words[count] != NULL; count++) {
        CHECK_CMP(count, <, ARGUMENTS_MAX - 1);
        arguments[count] = (char *)(uintptr_t)words[count];
    }
    arguments[count] = NULL;
    CHECK(bin != NULL);
    (void)snprintf(program, sizeof program, "%s/%s", bin, words[0]);
    posix_spawn_file_actions_t actions;
    CHECK_EQ(posix_spawn_file_actions_init(&actions), 0);
    CHECK_EQ(posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output,
                                              O_WRONLY | O_CREAT | O_TRUNC, 0600),
             0);
    CHECK_EQ(posix_spawn_file_actions_addopen(&actions, STDIN_FILENO,
                                              input != NULL ? input : "/dev/null", O_RDONLY, 0),
             0);
    uint64_t started_ns = clock_now_ns(clock_system());
    pid_t child;
    int error = posix_spawn(&child, program, &actions, NULL, arguments, environ);
    if (error != 0) {
        FAIL("cannot start %s: %s", program, strerror(error));
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    int status;
    struct rusage usage;
    CHECK_EQ(wait4(child, &status, 0, &usage), child);
    return (struct outcome){.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                            .elapsed_ns = clock_now_ns(clock_system()) - started_ns,
                            .rss_kibibytes = usage.ru_maxrss};
}
#define RUN(input, output, ...) run((const char *const[]){__VA_ARGS__, NULL}, input, output)

/* Whether the last output has these words. */
static bool said(const char *words)
{
    static char text[8192];
    FILE *file = fopen(file_in("out"), "r");
    CHECK(file != NULL);
    size_t size = fread(text, 1, sizeof text - 1, file);
    text[size] = '\0';
    CHECK_EQ(fclose(file), 0);
    return strstr(text, words) != NULL;
}

static void check_within_bounds(const char *what, int expected)
{
    struct outcome outcome = RUN(NULL, file_in("out"), "lincheck", "--time-limit=60s",
                                 "--memory-limit=1GiB", file_in("history"));
    printf("%-24s exit %d, %.2f s, %ld MiB\n", what, outcome.status,
           (double)outcome.elapsed_ns / 1e9, outcome.rss_kibibytes / 1024);
    CHECK_EQ(outcome.status, expected);
    CHECK_CMP(outcome.elapsed_ns, <, SECONDS_MAX * NS_PER_S);
    CHECK_CMP(outcome.rss_kibibytes, <, KIBIBYTES_MAX);
}

#define GENERATE(...)                                                                              \
    CHECK_EQ(RUN(NULL, file_in("history"), "lin_generate", "--ops=50000", "--keys=10",             \
                 "--clients=50", __VA_ARGS__)                                                      \
                 .status,                                                                          \
             0)

/* 50,000 operations of 10 keys and 50 clients, with clients that give up and operations that stall.
 */
static void test_bounds(void)
{
    make_directory();
    GENERATE("--seed=1");
    check_within_bounds("mixed", 0);
    CHECK(said("of 10 keys"));
    GENERATE("--seed=2", "--think=0ns", "--info=30", "--stall=5");
    check_within_bounds("no pause, more unknown", 0);
    GENERATE("--seed=3", "--values=5", "--append=0", "--info=20");
    check_within_bounds("five values", 0);
    GENERATE("--seed=4", "--versions", "--cas=30");
    check_within_bounds("versions", 0);
    GENERATE("--seed=5", "--put=1", "--delete=0", "--cas=0", "--append=40", "--stall=5");
    check_within_bounds("long values", 0);
    remove_directory();
}

static void test_bounds_of_broken_histories(void)
{
    make_directory();
    static const char *const mutations[] = {"dropped write", "stale read", "doubled append",
                                            "swapped reads", "early read", "lost append"};
    for (size_t i = 0; i < sizeof mutations / sizeof mutations[0]; i++) {
        GENERATE("--seed=6", "--mutate", mutations[i]);
        check_within_bounds(mutations[i], 1);
        CHECK(said("NOT LINEARIZABLE: key \"key"));
    }
    remove_directory();
}

/* Compare-and-sets between few values, all at once: whether there is an order is whether a graph
 * has a walk over all its edges, and this one has none. */
static void write_hard_history(void)
{
    struct rng rng;
    struct buf text;
    rng_init(&rng, 11);
    buf_init(&text);
    for (int call = 1; call >= 0; call--) {
        for (int i = 0; i < 120; i++) {
            unsigned from = call ? (unsigned)rng_below(&rng, 12) : 0;
            unsigned to = call ? (unsigned)rng_below(&rng, 12) : 0;
            const char *f = i == 0 ? "put" : "cas";
            buf_printf(&text, "{\"process\":%d,\"type\":\"%s\",\"f\":\"%s\",\"key\":\"x\"", i,
                       call ? "invoke" : "ok", f);
            if (i == 0) {
                buf_printf(&text, ",\"value\":\"0\"}\n");
            } else {
                buf_printf(&text, ",\"value\":[\"%u\",\"%u\"]}\n", from, to);
            }
        }
    }
    FILE *file = fopen(file_in("history"), "w");
    CHECK(file != NULL);
    CHECK_EQ(fwrite(text.data, 1, text.size, file), text.size);
    CHECK_EQ(fclose(file), 0);
    buf_deinit(&text);
}

static void test_limits(void)
{
    make_directory();
    write_hard_history();
    struct outcome outcome =
        RUN(NULL, file_in("out"), "lincheck", "--memory-limit=64MiB", file_in("history"));
    CHECK_EQ(outcome.status, 2);
    CHECK(said("UNKNOWN: the limit of memory was reached"));
    CHECK_CMP(outcome.rss_kibibytes, <, 80 * 1024);
    outcome = RUN(NULL, file_in("out"), "lincheck", "--time-limit=300ms", file_in("history"));
    CHECK_EQ(outcome.status, 2);
    CHECK(said("UNKNOWN: the limit of time was reached"));
    CHECK_CMP(outcome.elapsed_ns, <, 10 * NS_PER_S); /* the machine may be busy */
    GENERATE("--seed=7");
    outcome =
        RUN(NULL, file_in("out"), "lincheck", "--memory-limit=1MiB", "--json", file_in("history"));
    CHECK_EQ(outcome.status, 2);
    CHECK(said("\"verdict\":\"UNKNOWN\""));
    remove_directory();
}

static void test_command_line(void)
{
    make_directory();
    GENERATE("--seed=8", "--ops=200", "--keys=1", "--clients=4", "--mutate=stale read");
    CHECK_EQ(
        RUN(NULL, file_in("out"), "lincheck", "--svg", file_in("picture.svg"), file_in("history"))
            .status,
        1);
    CHECK_EQ(access(file_in("picture.svg"), R_OK), 0);
    CHECK_EQ(RUN(file_in("history"), file_in("out"), "lincheck", "--json", "-").status, 1);
    CHECK(said("\"verdict\":\"NOT LINEARIZABLE\""));
    CHECK(said("\"core\":[{"));
    CHECK_EQ(RUN(NULL, file_in("out"), "lincheck", "--help").status, 0);
    CHECK(said("NOT LINEARIZABLE"));
    CHECK(said("--memory-limit"));
    CHECK_EQ(RUN(NULL, file_in("out"), "lincheck").status, 3);
    CHECK_EQ(RUN(NULL, file_in("out"), "lincheck", "--no-such", "x").status, 3);
    CHECK_EQ(RUN(NULL, file_in("out"), "lincheck", file_in("nothing")).status, 3);
    CHECK_EQ(RUN("/dev/null", file_in("out"), "lincheck", "-").status, 3);
    remove_directory();
}

int main(int argc, char **argv)
{
    static const struct suite_test tests[] = {
        {"Bounds", test_bounds},
        {"BoundsBroken", test_bounds_of_broken_histories},
        {"Limits", test_limits},
        {"CommandLine", test_command_line},
    };
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}

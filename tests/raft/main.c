/* raft_suite: the course's Raft tests and a random swarm on the real core, in virtual time.
 *
 *   raft_suite --list                      names, one a line
 *   raft_suite --test NAME [--seed N]      one test, with its default seeds or this one
 *   raft_suite --test NAME --seeds K       K seeds, from --seed (default 1) on
 *   raft_suite                             every course test with seed 1; at most 600 s of virtual
 * time in all raft_suite --test Planted              every planted fault is found by the swarm
 * within some seeds raft_suite --test Swarm --must-fail    with a core that was built with a fault:
 * succeeds when the swarm finds it
 *   --trace                                everything that happens, on stderr
 *
 * Prints per run: name, virtual and real seconds, peers, RPCs, bytes, entries committed, seed. A
 * failure prints the seed and the command that replays it and ends with status 1. */
#include "base/flags.h"
#include "raft/sim_report.h"
#include "raft/suite.h"
#include "raft/swarm.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SUITE_SEEDS = 3,     /* a test's default: 1 .. 3 */
    SWARM_SEEDS = 500,   /* 1 .. 500 */
    MUTANT_SEEDS = 3000, /* within which it must find a fault in the core */
    PLANTED_SEEDS = 400, /* within which the swarm must find a planted fault */
};
#define SUITE_LIMIT_NS (600 * SIM_S)

static const struct suite_test tests[] = {
    /* name                        servers unreliable snapshots */
    {"TestInitialElection", 3, false, false, suite_initial_election},
    {"TestReElection", 3, false, false, suite_reelection},
    {"TestManyElections", 7, false, false, suite_many_elections},
    {"TestBasicAgree", 3, false, false, suite_basic_agree},
    {"TestRPCBytes", 3, false, false, suite_rpc_bytes},
    {"TestFollowerFailure", 3, false, false, suite_follower_failure},
    {"TestLeaderFailure", 3, false, false, suite_leader_failure},
    {"TestFailAgree", 3, false, false, suite_fail_agree},
    {"TestFailNoAgree", 5, false, false, suite_fail_no_agree},
    {"TestConcurrentStarts", 3, false, false, suite_concurrent_starts},
    {"TestRejoin", 3, false, false, suite_rejoin},
    {"TestBackup", 5, false, false, suite_backup},
    {"TestCount", 3, false, false, suite_count},
    {"TestPersist1", 3, false, false, suite_persist1},
    {"TestPersist2", 5, false, false, suite_persist2},
    {"TestPersist3", 3, false, false, suite_persist3},
    {"TestFigure8", 5, false, false, suite_figure8},
    {"TestUnreliableAgree", 5, true, false, suite_unreliable_agree},
    {"TestFigure8Unreliable", 5, true, false, suite_figure8_unreliable},
    {"TestReliableChurn", 5, false, false, suite_reliable_churn},
    {"TestUnreliableChurn", 5, true, false, suite_unreliable_churn},
    {"TestSnapshotBasic", 3, false, true, suite_snapshot_basic},
    {"TestSnapshotInstall", 3, false, true, suite_snapshot_install},
    {"TestSnapshotInstallUnreliable", 3, true, true, suite_snapshot_install_unreliable},
    {"TestSnapshotInstallCrash", 3, false, true, suite_snapshot_install_crash},
    {"TestSnapshotInstallUnCrash", 3, true, true, suite_snapshot_install_uncrash},
    {"TestSnapshotAllCrash", 3, false, true, suite_snapshot_all_crash},
    {"TestSnapshotInit", 3, false, true, suite_snapshot_init},
};
enum { TEST_COUNT = sizeof tests / sizeof tests[0] };

static const char *const plants[SIM_PLANT_COUNT] = {
    [SIM_PLANT_NONE] = "none",
    [SIM_PLANT_EARLY_PERSISTED] = "early-persisted",
    [SIM_PLANT_FORGOTTEN_VOTE] = "forgotten-vote",
    [SIM_PLANT_LOST_TAIL] = "lost-tail",
    [SIM_PLANT_WIPED] = "wiped",
    [SIM_PLANT_READ_AT_ONCE] = "read-at-once",
    [SIM_PLANT_SKIPPED_APPLY] = "skipped-apply",
};

struct arguments {
    const char *test;
    uint64_t seed;
    uint64_t seeds;
    const char *plant;
    bool must_fail;
    bool list;
    bool trace;
};

static double real_s(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Gives the virtual time it took. */
static uint64_t run_test(const struct suite_test *test, uint64_t seed)
{
    double began_s = real_s();
    struct sim_cluster_options options =
        sim_cluster_options_course(test->servers, seed, test->unreliable, test->snapshots);
    struct sim_cluster *cluster = sim_cluster_create(&options);
    sim_report_begin(test->name, seed, &cluster->clock);
    sim_cluster_start_all(cluster);
    test->run(cluster);
    uint64_t took_ns = cluster->clock.now_ns;
    printf("%-30s %6.1f s virtual %6.2f s real  peers %" PRIu32 "  RPCs %6" PRIu64
           "  bytes %8" PRIu64 "  committed %5" PRIu64 "  seed %" PRIu64 "\n",
           test->name, (double)took_ns / 1e9, real_s() - began_s, test->servers,
           cluster->net.counters.requests, cluster->net.counters.bytes, cluster->checker.commands,
           seed);
    (void)fflush(stdout);
    sim_report_begin(NULL, 0, NULL);
    sim_cluster_destroy(cluster);
    return took_ns;
}

static int run_all(uint64_t seed)
{
    uint64_t took_ns = 0;
    for (size_t i = 0; i < TEST_COUNT; i++) {
        took_ns += run_test(&tests[i], seed);
    }
    printf("all %d tests: %.1f s of virtual time\n", (int)TEST_COUNT, (double)took_ns / 1e9);
    if (took_ns > SUITE_LIMIT_NS) {
        (void)fprintf(stderr, "FAIL: the whole suite takes more than 600 s of virtual time\n");
        return 1;
    }
    return 0;
}

static enum sim_plant plant_of(const char *name)
{
    for (int i = 0; i < SIM_PLANT_COUNT; i++) {
        if (strcmp(plants[i], name) == 0) {
            return (enum sim_plant)i;
        }
    }
    (void)fprintf(stderr, "no planted fault is called '%s'\n", name);
    _exit(2);
}

static int run_swarm(const struct arguments *arguments)
{
    struct swarm_result sum = {0};
    double began_s = real_s();
    enum sim_plant plant = plant_of(arguments->plant);
    bool whole = arguments->seed == 0 && plant == SIM_PLANT_NONE;
    uint64_t first = arguments->seed == 0 ? 1 : arguments->seed;
    uint64_t count = arguments->seeds;
    if (count == 0) {
        count = arguments->seed == 0 ? SWARM_SEEDS : 1;
    }
    for (size_t i = 0; whole && swarm_regressions[i] != 0; i++) {
        swarm_run(swarm_regressions[i], plant, &sum);
    }
    for (uint64_t i = 0; i < count; i++) {
        swarm_run(first + i, plant, &sum);
    }
    printf("Swarm: %" PRIu64 " seeds from %" PRIu64 ", %.1f s virtual, %.2f s real, %" PRIu64
           " events, RPCs %" PRIu64 ", bytes %" PRIu64 ", entries committed %" PRIu64 "\n",
           count, first, (double)sum.virtual_ns / 1e9, real_s() - began_s, sum.events, sum.rpcs,
           sum.bytes, sum.commands);
    sim_counters_print(&sum.counters);
    const char *missing = sim_counters_missing(&sum.counters);
    if (whole && count >= SWARM_SEEDS && missing != NULL) {
        (void)fprintf(stderr, "FAIL Swarm: '%s' never happened\n", missing);
        return 1;
    }
    return 0;
}

/* In a child, since finding a fault ends the process. True when the run failed, as it should. */
static bool is_found(enum sim_plant plant, uint64_t seeds)
{
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(STDOUT_FILENO, STDERR_FILENO); /* how it was found is news, not an error */
        struct swarm_result sum = {0};
        for (size_t i = 0; swarm_regressions[i] != 0; i++) {
            swarm_run(swarm_regressions[i], plant, &sum);
        }
        for (uint64_t seed = 1; seed <= seeds; seed++) {
            swarm_run(seed, plant, &sum);
        }
        _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) {
        (void)fprintf(stderr, "FAIL Planted: fork or wait failed\n");
        _exit(2);
    }
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int run_planted(void)
{
    int missed = 0;
    for (int i = SIM_PLANT_NONE + 1; i < SIM_PLANT_COUNT; i++) {
        bool found = is_found((enum sim_plant)i, PLANTED_SEEDS);
        printf("planted fault %s: %s\n\n", plants[i], found ? "found" : "NOT FOUND");
        missed += !found;
    }
    if (missed > 0) {
        (void)fprintf(stderr, "FAIL Planted: %d faults are not found\n", missed);
    }
    return missed > 0;
}

static int run_must_fail(const struct arguments *arguments)
{
    uint64_t seeds = arguments->seeds == 0 ? MUTANT_SEEDS : arguments->seeds;
    if (is_found(SIM_PLANT_NONE, seeds)) {
        printf("found, as it should be\n");
        return 0;
    }
    (void)fprintf(stderr, "FAIL: %" PRIu64 " seeds of the swarm do not find the fault\n", seeds);
    return 1;
}

static int run_named(const struct arguments *arguments)
{
    if (arguments->must_fail) {
        return run_must_fail(arguments);
    }
    if (strcmp(arguments->test, "Swarm") == 0) {
        return run_swarm(arguments);
    }
    if (strcmp(arguments->test, "Planted") == 0) {
        return run_planted();
    }
    for (size_t i = 0; i < TEST_COUNT; i++) {
        if (strcmp(arguments->test, tests[i].name) != 0) {
            continue;
        }
        uint64_t first = arguments->seed == 0 ? 1 : arguments->seed;
        uint64_t count = arguments->seeds;
        if (count == 0) {
            count = arguments->seed == 0 ? SUITE_SEEDS : 1;
        }
        for (uint64_t k = 0; k < count; k++) {
            (void)run_test(&tests[i], first + k);
        }
        return 0;
    }
    (void)fprintf(stderr, "no test is called '%s'; --list names them\n", arguments->test);
    return 2;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.test = "", .plant = "none"};
    const struct flag flags[] = {
        {.name = "test",
         .kind = FLAG_STRING,
         .value = &arguments.test,
         .placeholder = "NAME",
         .help = "Run this test only."},
        {.name = "seed",
         .kind = FLAG_UINT,
         .value = &arguments.seed,
         .max = UINT64_MAX,
         .placeholder = "N",
         .help = "Run (from) this seed; 0: the default ones."},
        {.name = "seeds",
         .kind = FLAG_UINT,
         .value = &arguments.seeds,
         .max = 1000000,
         .placeholder = "K",
         .help = "How many seeds; 0: the default."},
        {.name = "plant",
         .kind = FLAG_STRING,
         .value = &arguments.plant,
         .placeholder = "FAULT",
         .help = "Swarm: a fault to be planted."},
        {.name = "must-fail",
         .kind = FLAG_BOOL,
         .value = &arguments.must_fail,
         .help = "Swarm: succeed when a seed fails."},
        {.name = "list", .kind = FLAG_BOOL, .value = &arguments.list, .help = "List the tests."},
        {.name = "trace",
         .kind = FLAG_BOOL,
         .value = &arguments.trace,
         .help = "Print everything that happens."},
    };
    const struct flag_set set = {.program = "raft_suite",
                                 .summary = "The course's Raft tests in virtual time.",
                                 .usage = "",
                                 .flags = flags,
                                 .count = sizeof flags / sizeof flags[0]};
    char message[256];
    int positional_count = 0;
    char *positional[16];
    int error = argc > 16 ? ERR_INVALID
                          : flags_parse(&set, argc, argv, positional, &positional_count, message,
                                        sizeof message);
    if (error == ERR_EXISTS) {
        flags_help(&set, stdout);
        return 0;
    }
    if (error != 0 || positional_count > 0) {
        (void)fprintf(stderr, "%s\n", error != 0 ? message : "raft_suite takes only flags");
        return 2;
    }
    if (arguments.list) {
        for (size_t i = 0; i < TEST_COUNT; i++) {
            printf("%s\n", tests[i].name);
        }
        printf("Swarm\nPlanted\n");
        return 0;
    }
    if (arguments.trace) {
        sim_trace_on();
    }
    sim_report_catch_aborts();
    if (arguments.test[0] != '\0') {
        return run_named(&arguments);
    }
    return run_all(arguments.seed == 0 ? 1 : arguments.seed);
}

/* The program of the simulated suites.
 *
 *   sim_suite          every test, from its own seeds and from those that found something once
 *   --test NAME        one test
 *   --seed N           from this seed only
 *   --seeds N          N seeds from there on: a search
 *   --list             the names
 *   --trace            what happens, to standard error; twice: the product's log too; three
 *                      times: all of it */
#include "base/log.h"
#include "sim/suite.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Every seed that failed once stays. */
static const struct regression {
    const char *test;
    uint64_t seed;
    const char *what;
} regressions[] = {
    {"kvraft.TestUnreliable", 825552, "connections that broke made the client wait 12 s"},
};

struct choice {
    const char *test;
    uint64_t seed;
    bool seed_given;
    uint64_t seed_count;
    int trace;
};

static void log_to_trace(void *context, const char *line)
{
    (void)context;
    sim_trace("%s", line);
}

static double real_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t seed_of(const char *name)
{
    uint64_t seed = 1469598103934665603ull;
    for (const char *at = name; *at != '\0'; at++) {
        seed = (seed ^ (uint8_t)*at) * 1099511628211ull;
    }
    return seed % 1000000;
}

static struct sim_counters totals; /* of the runs of this process */

static void add_totals(const struct sim_counters *counters)
{
    totals.crashes += counters->crashes;
    totals.restarts += counters->restarts;
    totals.leaders += counters->leaders;
    totals.snapshots_restored += counters->snapshots_restored;
    totals.shards_installed += counters->shards_installed;
    totals.chunks_resumed += counters->chunks_resumed;
    totals.frames_lost += counters->frames_lost;
    totals.frames_duplicated += counters->frames_duplicated;
    totals.conns_broken += counters->conns_broken;
    totals.conns_stalled += counters->conns_stalled;
}

static void run_one(const struct suite_test *test, uint64_t seed)
{
    sim_report_begin(test->name, seed);
    sim_world_init(seed);
    double from_s = real_seconds();
    uint64_t from_ns = sim_now_ns();
    test->run();
    struct sim_world *world = sim_world();
    uint32_t servers = 0;
    for (uint32_t i = 0; i < world->host_count; i++) {
        servers += world->hosts[i]->disk != NULL;
    }
    const struct sim_counters *counters = &world->counters;
    printf("PASSED %s: %.1f s virtual, %.1f s real, %u servers, %" PRIu64 " RPCs, %" PRIu64
           " bytes, %" PRIu64 " operations, seed %" PRIu64 " (%" PRIu64 " crashes, %" PRIu64
           " leaders, %" PRIu64 " shards moved, %" PRIu64 " snapshots installed, %" PRIu64
           " frames lost, %" PRIu64 " connections broken)\n",
           test->name, (double)(sim_now_ns() - from_ns) / 1e9, real_seconds() - from_s, servers,
           counters->rpcs, counters->bytes, counters->operations, seed, counters->crashes,
           counters->leaders, counters->shards_installed, counters->snapshots_restored,
           counters->frames_lost, counters->conns_broken);
    fflush(stdout);
    add_totals(counters);
    sim_world_deinit();
}

/* A storm in which something never happened has tested less than it says. */
static void check_totals(const struct suite_test *test)
{
    const struct {
        const char *name;
        uint64_t count;
    } rows[] = {
        {"crashes", totals.crashes},
        {"restarts", totals.restarts},
        {"leaders", totals.leaders},
        {"snapshots installed", totals.snapshots_restored},
        {"shards moved", totals.shards_installed},
        {"shards moved in several chunks", totals.chunks_resumed},
        {"frames lost", totals.frames_lost},
        {"frames duplicated", totals.frames_duplicated},
        {"connections broken", totals.conns_broken},
        {"connections fallen silent", totals.conns_stalled},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (rows[i].count == 0) {
            SIM_FAIL("over all seeds of %s there were no %s", test->name, rows[i].name);
        }
        printf("  %" PRIu64 " %s\n", rows[i].count, rows[i].name);
    }
}

static void run_test(const struct suite_test *test, const struct choice *choice)
{
    if (choice->seed_given || choice->seed_count > 1) {
        uint64_t first = choice->seed_given ? choice->seed : seed_of(test->name);
        for (uint64_t i = 0; i < choice->seed_count; i++) {
            run_one(test, first + i);
        }
        return;
    }
    for (uint32_t i = 0; i < (test->seeds == 0 ? 1 : test->seeds); i++) {
        run_one(test, seed_of(test->name) + i);
    }
    if (test->sees_everything) {
        check_totals(test);
    }
    for (size_t i = 0; i < sizeof regressions / sizeof regressions[0]; i++) {
        if (strcmp(regressions[i].test, test->name) == 0) {
            run_one(test, regressions[i].seed);
        }
    }
}

static void parse(int argc, char **argv, struct choice *choice, bool *list)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--list") == 0) {
            *list = true;
        } else if (strcmp(argv[i], "--trace") == 0) {
            choice->trace++;
        } else if (strcmp(argv[i], "--test") == 0 && more) {
            choice->test = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && more) {
            choice->seed = strtoull(argv[++i], NULL, 10);
            choice->seed_given = true;
        } else if (strcmp(argv[i], "--seeds") == 0 && more) {
            choice->seed_count = strtoull(argv[++i], NULL, 10);
        } else {
            fprintf(stderr,
                    "usage: sim_suite [--list] [--test NAME] [--seed N] [--seeds N] [--trace]\n");
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    struct choice choice = {.seed_count = 1};
    bool list = false;
    parse(argc, argv, &choice, &list);
    if (choice.trace > 0) {
        sim_trace_on();
    }
    log_set_sink(log_to_trace, NULL);
    log_set_level(choice.trace > 2 ? LOG_DEBUG : choice.trace > 1 ? LOG_INFO : LOG_ERROR);
    const struct suite_list lists[] = {suite_kvraft(),  suite_kvraft_faults(),   suite_rsm(),
                                       suite_shardkv(), suite_shardkv_changes(), suite_swarm()};
    size_t ran = 0;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (size_t j = 0; j < lists[i].count; j++) {
            const struct suite_test *test = &lists[i].tests[j];
            if (list) {
                puts(test->name);
            } else if (choice.test == NULL || strcmp(choice.test, test->name) == 0) {
                run_test(test, &choice);
                ran++;
            }
        }
    }
    if (!list && ran == 0) {
        fprintf(stderr, "there is no test '%s'; --list names them\n", choice.test);
        return 2;
    }
    return 0;
}

/* The program of the simulated suites.
 *
 *   sim_suite          every test, from its own seeds and from those that found something once
 *   --test NAME        one test; what stands before its name's dot may be left out
 *   --seed N           from this seed only
 *   --seeds N          N seeds from there on: a search
 *   --require-all      a search fails when one of the counters of sometimes.h is zero;
 *   --require-often    when one of those that happen `often` is
 *   --counters FILE    writes seeds, simulated and real seconds, operations and counters as JSON,
 *                      also when a seed fails
 *   --list             the names; --list-searched: of those that may be run from any seed for long
 *   --trace            what happens, to standard error; twice: the product's log too; three
 *                      times: all of it */
#include "base/log.h"
#include "sim/sometimes.h"
#include "sim/suite.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The largest that malloc takes from its heap; more it refuses to be told. */
enum { HEAP_PIECE_BYTES_MAX = 32 << 20, HEAP_TRIM_BYTES = 1 << 30, HEAP_TOP_BYTES = 16 << 20 };

/* Every seed that failed once stays. */
static const struct regression {
    const char *test;
    uint64_t seed;
    const char *what;
} regressions[] = {
    {"kvraft.TestUnreliable", 825552, "connections that broke made the client wait 12 s"},
    {"sim.Swarm", 283, "a departed source that no config listed was not found"},
    {"sim.Swarm", 1797286944918, "log time leapt, and a command was told it was refused"},
    {"sim.LateSnapshot", 1795292241556, "a living leader was replaced after a lost connection"},
    /* And those whose fault was the test's. */
    {"sim.Swarm", 2033, "a join that nobody answered counted as done"},
    {"sim.Swarm", 1795297968431, "a retired server's disk was mended under its successor"},
    {"sim.Swarm", 1795285772852, "a replica that was stopping was polled"},
    {"sim.Swarm", 1796279288499, "members and clients waited for each other at the end"},
    {"sim.LeaseAndADelayedOrder", 1795286944926, "votes wait for a slow disk"},
    {"sim.WipedGroupRejoins", 1795286944509, "frames outlived their process"},
};

struct choice {
    const char *test;
    uint64_t seed;
    bool seed_given;
    uint64_t seed_count;
    const char *counters_path;
    bool require_all;
    bool require_often;
    bool list;
    bool list_searched;
    int trace;
};

/* The log is evidence for the counters, whether or not anybody reads it. */
static void log_line(void *context, const char *line)
{
    const struct choice *choice = context;
    sim_sometimes_logged(line);
    if (choice->trace > 1 || strstr(line, " error ") != NULL) {
        sim_trace("%s", line);
    }
}

static double seconds_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double real_seconds(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

static uint64_t seed_of(const char *name)
{
    uint64_t seed = 1469598103934665603ull;
    for (const char *at = name; *at != '\0'; at++) {
        seed = (seed ^ (uint8_t)*at) * 1099511628211ull;
    }
    return seed % 1000000;
}

/* Of all runs of this process. */
static struct {
    const char *test; /* NULL: several */
    uint64_t seeds;
    uint64_t operations;
    uint64_t virtual_ns;
    double real_s;
} sum;

static void add_sum(const struct sim_counters *counters, uint64_t virtual_ns, double real_s)
{
    sum.seeds++;
    sum.operations += counters->operations;
    sum.virtual_ns += virtual_ns;
    sum.real_s += real_s;
    sim_sometimes_add(S_CRASH, counters->crashes);
    sim_sometimes_add(S_RESTART, counters->restarts);
    sim_sometimes_add(S_FRAME_LOST, counters->frames_lost);
    sim_sometimes_add(S_FRAME_DUPLICATED, counters->frames_duplicated);
    sim_sometimes_add(S_CONN_BROKEN, counters->conns_broken);
    sim_sometimes_add(S_CONN_SILENT, counters->conns_stalled);
    sim_sometimes_read_metrics();
}

static double speed(uint64_t virtual_ns, double real_s)
{
    return real_s > 0 ? (double)virtual_ns / 1e9 / real_s : 0;
}

static void write_counters(const char *path)
{
    struct buf text = {0};
    buf_printf(&text,
               "{\n  \"test\": \"%s\",\n  \"seeds\": %" PRIu64 ",\n  \"operations\": %" PRIu64
               ",\n  \"simulated_s\": %.3f,\n  \"real_s\": %.3f,\n  \"counters\": ",
               sum.test == NULL ? "" : sum.test, sum.seeds, sum.operations,
               (double)sum.virtual_ns / 1e9, sum.real_s);
    sim_sometimes_json(&text);
    buf_printf(&text, "\n}\n");
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(text.data, 1, text.size, file) != text.size || fclose(file) != 0) {
        (void)fprintf(stderr, "%s cannot be written\n", path);
        exit(2);
    }
    buf_deinit(&text);
}

static void run_one(const struct suite_test *test, uint64_t seed)
{
    sim_report_begin(test->name, seed);
    sim_world_init(seed);
    double from_s = real_seconds();
    uint64_t from_ns = sim_now_ns();
    test->run();
    double real_s = real_seconds() - from_s;
    struct sim_world *world = sim_world();
    uint64_t virtual_ns = sim_now_ns() - from_ns - world->asleep_ns;
    uint32_t servers = 0;
    for (uint32_t i = 0; i < world->host_count; i++) {
        servers += world->hosts[i]->disk != NULL;
    }
    const struct sim_counters *counters = &world->counters;
    printf("PASSED %s: %.1f s virtual, %.1f s real, %u servers, %" PRIu64 " RPCs, %" PRIu64
           " bytes, %" PRIu64 " operations, seed %" PRIu64 " (%" PRIu64 " crashes, %" PRIu64
           " leaders, %" PRIu64 " shards moved, %" PRIu64 " snapshots installed, %" PRIu64
           " frames lost, %" PRIu64 " connections broken, trace %016" PRIx64
           ", %.0f simulated s per real s)\n",
           test->name, (double)virtual_ns / 1e9, real_s, servers, counters->rpcs, counters->bytes,
           counters->operations, seed, counters->crashes, counters->leaders,
           counters->shards_installed, counters->snapshots_restored, counters->frames_lost,
           counters->conns_broken, world->trace_hash, speed(virtual_ns, real_s));
    fflush(stdout);
    add_sum(counters, virtual_ns, real_s);
    sim_world_deinit();
}

/* A search in which something never happened has tested less than it says. */
static void require_counters(const char *name, bool only_often)
{
    sim_sometimes_print(stdout);
    const char *missing = sim_sometimes_missing(only_often);
    if (missing != NULL) {
        fflush(stdout);
        fprintf(stderr, "over all seeds of %s this never happened: %s\n", name, missing);
        exit(1);
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
        require_counters(test->name, true);
    }
    for (size_t i = 0; i < sizeof regressions / sizeof regressions[0]; i++) {
        if (strcmp(regressions[i].test, test->name) == 0) {
            run_one(test, regressions[i].seed);
        }
    }
}

static void parse(int argc, char **argv, struct choice *choice)
{
    for (int i = 1; i < argc; i++) {
        bool more = i + 1 < argc;
        if (strcmp(argv[i], "--list") == 0) {
            choice->list = true;
        } else if (strcmp(argv[i], "--list-searched") == 0) {
            choice->list_searched = true;
        } else if (strcmp(argv[i], "--trace") == 0) {
            choice->trace++;
        } else if (strcmp(argv[i], "--require-all") == 0) {
            choice->require_all = true;
        } else if (strcmp(argv[i], "--require-often") == 0) {
            choice->require_often = true;
        } else if (strcmp(argv[i], "--test") == 0 && more) {
            choice->test = argv[++i];
        } else if (strcmp(argv[i], "--seed") == 0 && more) {
            choice->seed = strtoull(argv[++i], NULL, 10);
            choice->seed_given = true;
        } else if (strcmp(argv[i], "--seeds") == 0 && more) {
            choice->seed_count = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--counters") == 0 && more) {
            choice->counters_path = argv[++i];
        } else {
            fprintf(stderr,
                    "usage: sim_suite [--list] [--list-searched] [--test NAME] [--seed N] "
                    "[--seeds N] [--require-all | --require-often] [--counters FILE] [--trace]\n");
            exit(2);
        }
    }
}

static bool is_chosen(const struct choice *choice, const struct suite_test *test)
{
    const char *dot = strchr(test->name, '.');
    return choice->test == NULL || strcmp(choice->test, test->name) == 0 ||
           (dot != NULL && strcmp(choice->test, dot + 1) == 0);
}

static uint32_t run_chosen(const struct choice *choice)
{
    const struct suite_list lists[] = {suite_kvraft(),   suite_kvraft_faults(),   suite_rsm(),
                                       suite_shardkv(),  suite_shardkv_changes(), suite_moves(),
                                       suite_replicas(), suite_members(),         suite_rare(),
                                       suite_swarm()};
    uint32_t ran = 0;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        for (size_t j = 0; j < lists[i].count; j++) {
            const struct suite_test *test = &lists[i].tests[j];
            if (choice->list || (choice->list_searched && test->searched)) {
                puts(test->name);
            } else if (!choice->list_searched && is_chosen(choice, test)) {
                sum.test = ran == 0 ? test->name : NULL;
                run_test(test, choice);
                ran++;
            }
        }
    }
    return ran;
}

static const char *counters_path; /* for a run that fails */

static void save_counters(void)
{
    if (counters_path != NULL) {
        write_counters(counters_path);
    }
}

int main(int argc, char **argv)
{
    struct choice choice = {.seed_count = 1};
    parse(argc, argv, &choice);
    /* Memory of one run serves the next: giving it back to the system costs more than using it. */
    (void)mallopt(M_MMAP_THRESHOLD, HEAP_PIECE_BYTES_MAX);
    (void)mallopt(M_TRIM_THRESHOLD, HEAP_TRIM_BYTES);
    (void)mallopt(M_TOP_PAD, HEAP_TOP_BYTES);
    if (choice.trace > 0) {
        sim_trace_on();
    }
    log_set_sink(log_line, &choice);
    log_set_level(choice.trace > 2 ? LOG_DEBUG : LOG_INFO);
    counters_path = choice.counters_path;
    sim_report_on_failure(save_counters);
    uint32_t ran = run_chosen(&choice);
    if (choice.list || choice.list_searched) {
        return 0;
    }
    if (ran == 0) {
        fprintf(stderr, "there is no test '%s'; --list names them\n", choice.test);
        return 2;
    }
    save_counters();
    if (choice.require_all || choice.require_often) {
        require_counters(choice.test == NULL ? "all tests" : choice.test, !choice.require_all);
    } else if (choice.seed_count > 1) {
        sim_sometimes_print(stdout);
    }
    printf("TOTAL %" PRIu64 " seeds, %" PRIu64 " operations, %.1f s virtual in %.1f s real: %.0f "
           "simulated seconds per real second, %.0f per second of CPU\n",
           sum.seeds, sum.operations, (double)sum.virtual_ns / 1e9, sum.real_s,
           speed(sum.virtual_ns, sum.real_s),
           speed(sum.virtual_ns, seconds_of(CLOCK_PROCESS_CPUTIME_ID)));
    return 0;
}

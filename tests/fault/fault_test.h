/* What every test of faults on real processes has in common: a cluster under recorded load, an
 * end at which everything is healed and judged, and a table of tests by theme.
 *
 *     static void j1(void)
 *     {
 *         struct fault fault;
 *         fault_begin(&fault, "J1", 1);
 *         for (; fault_goes_on(&fault); fault.rounds++) {
 *             ... one fault, fault_expect_progress() ...
 *         }
 *         fault_end(&fault);
 *     }
 *     const struct suite_test fault_kill_tests[] = {{"J1", j1}, {NULL, NULL}};
 *
 * A new theme is a file with such an array, a line here, one in `themes` of fault_suite.c, and its
 * file and tests in fault.cmake.
 *
 * FAULT_SECONDS says how long the faults of one test last (default 8); FAULT_MOVE_SECONDS=5-15
 * makes a move every 5 to 15 s where shards move (else: as fast as it goes); the seed is printed
 * and taken from FAULT_SEED when that is set. When a test fails, its directory is kept with the
 * logs, the data and the history so far (history.jsonl, for lincheck). One thread. */
#ifndef TESTS_FAULT_FAULT_TEST_H
#define TESTS_FAULT_FAULT_TEST_H

#include "base/rng.h"
#include "cluster/harness.h"
#include "fault/recorder.h"
#include "lib/suite.h"

enum {
    FAULT_SHARDS = 16,
    FAULT_CLIENTS = 6,
    FAULT_KEYS = 12,
    FAULT_SKIPPED = 77, /* the exit code, SKIP_RETURN_CODE of ctest */
};
#define FAULT_SETTLE_SECONDS 120.0

/* The themes' tests; each array ends with {NULL, NULL}. */
extern const struct suite_test fault_kill_tests[];   /* J1, J2 */
extern const struct suite_test fault_admins_tests[]; /* J15 */
extern const struct suite_test fault_moves_tests[];  /* J6, J7, J8 */
extern const struct suite_test fault_net_tests[];    /* J3, J4, J5 */
extern const struct suite_test fault_proxy_tests[];  /* J13 */
extern const struct suite_test fault_disk_tests[];   /* J9 to J12, J14 */

struct fault {
    struct cluster cluster;
    struct recorder *recorder; /* NULL: no load */
    struct rng rng;
    uint64_t seed;
    bool leases;
    uint64_t groups;
    double until;
    double next_move; /* not before this */
    uint32_t rounds;
    /* Counted for the summary of long runs. */
    uint32_t moves, kills, cuts, pauses, changes;
};

/* Ends the program as skipped. Call it before fault_begin. */
_Noreturn void fault_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Controllers, groups 1..groups of three, all joined, and a recorder's clients on them. With every
 * second seed the groups answer reads from leases. */
void fault_begin(struct fault *fault, const char *name, uint64_t groups);

/* The same with each process in a network namespace of its own (cluster.net) and groups of
 * `replicas`; skips the test where that is not possible. */
void fault_begin_in_net(struct fault *fault, const char *name, uint64_t groups,
                        const uint32_t *replicas);
/* The same, but on loopback where namespaces are not possible: cluster.net is NULL then. */
void fault_begin_where_possible(struct fault *fault, const char *name, uint64_t groups,
                                const uint32_t *replicas);
/* The network is whole again, nobody is paused, everybody runs. */
void fault_heal(struct fault *fault);
/* Fails the program when a process that should run has ended by itself. */
void fault_expect_alive(struct fault *fault);

/* The same in steps, for tests that change something in between: fault_prepare draws the seed and
 * clears the struct, then the test creates the cluster and its groups (cluster_create and
 * fault_start_group, or cluster_start_group and fault_join), fault_load starts the clients and the
 * clock of the test. */
void fault_prepare(struct fault *fault, const char *name);
/* Starts and joins one group, with leases if the seed says so. */
void fault_start_group(struct fault *fault, uint64_t group, uint32_t replicas);
void fault_join(struct fault *fault, uint64_t group);
void fault_load(struct fault *fault);

/* Whether there is time for another round. */
bool fault_goes_on(struct fault *fault);

/* Everything is started again, a last write succeeds, all moves settle, the history is
 * linearizable, all replicas of each group are equal; the directory is removed. */
void fault_end(struct fault *fault);
/* The end of a test that had no load and judged by itself. */
void fault_abandon(struct fault *fault);

/* The cluster serves: so many more commands are done within `seconds`. */
void fault_expect_progress(struct fault *fault, uint64_t more, double seconds);
void fault_let_run(double seconds);

struct process *fault_any_of(struct fault *fault, uint64_t group);
void fault_kill(struct fault *fault, struct process *process);
/* The leader first, then others; `count` in all. */
void fault_kill_some(struct fault *fault, uint64_t group, uint32_t count);
void fault_start_all(struct fault *fault);
/* The change is made on return, the data is on its way. Waits before it as FAULT_MOVE_SECONDS says.
 */
void fault_move(struct fault *fault, uint32_t shard, uint64_t group);
/* A drawn shard to a drawn group, perhaps the one that has it. */
void fault_move_any(struct fault *fault);

#endif

/* J1 to J15 of the scenarios, as far as they need nothing but processes and signals: real servers,
 * faults from outside, a recorded history. After each: heal, a last write, equal replicas, a
 * linearizable history.
 *
 * FAULT_SECONDS says how long each lasts (default 12); the seed is printed and taken from
 * FAULT_SEED when that is set. */
#include "base/rng.h"
#include "cluster/harness.h"
#include "fault/recorder.h"
#include "lib/suite.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHARDS = 16, CLIENTS = 6, KEYS = 12 };
#define DEFAULT_SECONDS 12.0
#define SETTLE_SECONDS  120.0

struct fault {
    struct cluster cluster;
    struct recorder *recorder;
    struct rng rng;
    double until;
    uint32_t rounds;
};

static double seconds_of_run(void)
{
    const char *text = getenv("FAULT_SECONDS");
    return text != NULL ? strtod(text, NULL) : DEFAULT_SECONDS;
}

static void join_group(struct fault *fault, uint64_t group)
{
    char spec[512];
    cluster_group_spec(&fault->cluster, group, spec, sizeof spec);
    CHECK_EQ(cluster_ctl(&fault->cluster, 60, NULL, "join", "--timeout", "30s", spec, NULL), 0);
}

static void begin(struct fault *fault, const char *name, uint64_t groups)
{
    memset(fault, 0, sizeof *fault);
    const char *text = getenv("FAULT_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : rng_seed_from_system();
    printf("seed %llu (FAULT_SEED=%llu fault_suite %s)\n", (unsigned long long)seed,
           (unsigned long long)seed, name);
    rng_init(&fault->rng, seed);
    cluster_create(&fault->cluster, name, SHARDS);
    fault->cluster.keep = true;
    for (uint64_t group = 1; group <= groups; group++) {
        cluster_start_group(&fault->cluster, group);
        join_group(fault, group);
    }
    CHECK(cluster_wait_settled(&fault->cluster, SETTLE_SECONDS));
    fault->recorder = recorder_start(&(struct recorder_options){
        .controllers = fault->cluster.controllers,
        .cluster = fault->cluster.name,
        .seed = seed,
        .clients = CLIENTS,
        .keys = KEYS,
        .timeout_ms = 5000,
        .pause_us = 2000,
    });
    fault->until = now_seconds() + seconds_of_run();
}

static bool time_has_come(void *context)
{
    return now_seconds() >= *(double *)context;
}

static void let_run(double seconds)
{
    double until = now_seconds() + seconds;
    CHECK(wait_until(time_has_come, &until, seconds + 60));
}

struct progress {
    const struct recorder *recorder;
    uint64_t wanted;
};

static bool has_progressed(void *context)
{
    const struct progress *progress = context;
    return recorder_done(progress->recorder) >= progress->wanted;
}

/* The cluster serves: so many more commands are done within `seconds`. */
static void expect_progress(struct fault *fault, uint64_t more, double seconds)
{
    struct progress progress = {fault->recorder, recorder_done(fault->recorder) + more};
    if (!wait_until(has_progressed, &progress, seconds)) {
        FAIL("only %llu of %llu commands were done in %.0f s",
             (unsigned long long)(recorder_done(fault->recorder) + more - progress.wanted),
             (unsigned long long)more, seconds);
    }
}

static void start_all(struct fault *fault)
{
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        if (fault->cluster.processes[i].pid == 0) {
            process_start(&fault->cluster, &fault->cluster.processes[i]);
        }
    }
}

static void end(struct fault *fault, uint64_t groups)
{
    start_all(fault);
    CHECK_EQ(
        cluster_ctl(&fault->cluster, 60, NULL, "put", "--timeout", "30s", "last", "write", NULL),
        0);
    CHECK(cluster_wait_settled(&fault->cluster, SETTLE_SECONDS));
    struct recorder_report report;
    recorder_stop(fault->recorder, &report);
    for (uint64_t group = 0; group <= groups; group++) {
        CHECK(cluster_wait_equal(&fault->cluster, group, SETTLE_SECONDS));
    }
    printf("%u rounds, %llu done (%llu reads), %llu not done, %llu unknown; linearizable, replicas "
           "equal\n",
           fault->rounds, (unsigned long long)report.done, (unsigned long long)report.reads,
           (unsigned long long)report.not_done, (unsigned long long)report.unknown);
    CHECK_CMP(fault->rounds, >, 0);
    fault->cluster.keep = false;
    cluster_destroy(&fault->cluster);
}

static bool goes_on(const struct fault *fault)
{
    return now_seconds() < fault->until;
}

static struct process *any_of(struct fault *fault, uint64_t group)
{
    return cluster_find(&fault->cluster, group,
                        (uint32_t)rng_between(&fault->rng, 1, CLUSTER_REPLICAS));
}

/* ---- J1: kill the leader, a quorum, everybody; restart
 * ------------------------------------------------------------- */

static void kill_some(struct fault *fault, uint64_t group, uint32_t count)
{
    if (count == 1) {
        struct process *leader = cluster_leader(&fault->cluster, group, 30);
        CHECK(leader != NULL);
        process_kill(leader);
        return;
    }
    uint32_t spared =
        count < CLUSTER_REPLICAS ? (uint32_t)rng_between(&fault->rng, 1, CLUSTER_REPLICAS) : 0;
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        if (id != spared) {
            process_kill(cluster_find(&fault->cluster, group, id));
        }
    }
}

static void j1(void)
{
    struct fault fault;
    begin(&fault, "J1", 1);
    for (; goes_on(&fault); fault.rounds++) {
        expect_progress(&fault, 50, 30);
        uint32_t count = 1 + fault.rounds % CLUSTER_REPLICAS;
        kill_some(&fault, 1, count);
        if (count == 1) {
            expect_progress(&fault, 50, 30); /* the others elect a leader and go on */
        } else {
            let_run(1);
        }
        start_all(&fault);
    }
    end(&fault, 1);
}

/* ---- J2: stop the leader past its time-out, let it go on
 * ------------------------------------------------------------ */

static void j2(void)
{
    struct fault fault;
    begin(&fault, "J2", 1);
    for (; goes_on(&fault); fault.rounds++) {
        expect_progress(&fault, 20, 30);
        struct process *leader = cluster_leader(&fault.cluster, 1, 30);
        CHECK(leader != NULL);
        process_signal(leader, SIGSTOP);
        expect_progress(&fault, 50, 30);
        process_signal(leader,
                       SIGCONT); /* it thinks it leads: what it serves now must not be stale */
    }
    end(&fault, 1);
}

/* ---- J6, J7, J8: moves
 * ------------------------------------------------------------------------------------------------
 */

static void move_any(struct fault *fault, uint64_t groups)
{
    char shard[16], group[16];
    snprintf(shard, sizeof shard, "%u", (unsigned)rng_below(&fault->rng, SHARDS));
    snprintf(group, sizeof group, "%u", (unsigned)rng_between(&fault->rng, 1, groups));
    CHECK_EQ(cluster_ctl(&fault->cluster, 60, NULL, "move", "--timeout", "30s", shard, group, NULL),
             0);
}

static void j6(void)
{
    struct fault fault;
    begin(&fault, "J6", 3);
    for (; goes_on(&fault); fault.rounds++) {
        move_any(&fault, 3);
        expect_progress(&fault, 50, 30);
    }
    end(&fault, 3);
}

static void j7(void)
{
    struct fault fault;
    begin(&fault, "J7", 3);
    for (; goes_on(&fault); fault.rounds++) {
        uint64_t down = rng_between(&fault.rng, 1, 3);
        move_any(&fault, 3);
        kill_some(&fault, down, CLUSTER_REPLICAS);
        move_any(&fault, 3);
        let_run(2);
        start_all(&fault);
        expect_progress(&fault, 100, 60);
    }
    end(&fault, 3);
}

static void j8(void)
{
    struct fault fault;
    begin(&fault, "J8", 3);
    for (; goes_on(&fault); fault.rounds++) {
        move_any(&fault, 3);
        let_run((double)rng_below(&fault.rng, 60) / 1000); /* somewhere in install or drop */
        process_kill(any_of(&fault, rng_between(&fault.rng, 1, 3)));
        process_kill(any_of(&fault, rng_between(&fault.rng, 1, 3)));
        expect_progress(&fault, 20, 60);
        start_all(&fault);
        expect_progress(&fault, 50, 60);
    }
    end(&fault, 3);
}

/* ---- J15: the controllers' leader is killed under administrators
 * ------------------------------------------------------- */

static void j15(void)
{
    struct fault fault;
    begin(&fault, "J15", 3);
    for (; goes_on(&fault); fault.rounds++) {
        kill_some(&fault, 0, 1);
        move_any(&fault, 3); /* acknowledged once: numbers below are checked */
        move_any(&fault, 3);
        start_all(&fault);
        expect_progress(&fault, 20, 60);
    }
    /* Configs are totally ordered: each acknowledged command made exactly one, after the three
     * joins. */
    int code = -1;
    json_t *config = cluster_ctl_json(&fault.cluster, 60, &code, "query", NULL);
    CHECK_EQ(code, 0);
    CHECK_EQ(json_integer_value(json_object_get(config, "number")),
             3 + 2 * (json_int_t)fault.rounds);
    json_decref(config);
    end(&fault, 3);
}

int main(int argc, char **argv)
{
    const struct suite_test tests[] = {
        {"J1", j1}, {"J2", j2}, {"J6", j6}, {"J7", j7}, {"J8", j8}, {"J15", j15},
    };
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}

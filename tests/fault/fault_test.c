/* See fault_test.h. */
#include "fault/fault_test.h"

#include "cluster/harness_net.h"
#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SECONDS 8.0

/* The test that runs, for keeping its history when the program ends before fault_end. */
static struct fault *current;

static double seconds_from(const char *variable, double otherwise)
{
    const char *text = getenv(variable);
    return text != NULL ? strtod(text, NULL) : otherwise;
}

void fault_skip(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("SKIPPED: ", stdout);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
    fflush(stdout);
    exit(FAULT_SKIPPED);
}

/* Runs when a CHECK ended the program: the evidence is the history up to there. */
static void keep_history(void)
{
    if (current == NULL || current->recorder == NULL) {
        return;
    }
    struct recorder *recorder = current->recorder;
    current->recorder = NULL;
    char path[sizeof current->cluster.dir + 32];
    snprintf(path, sizeof path, "%s/history.jsonl", current->cluster.dir);
    recorder_keep(recorder, path);
    fprintf(stderr, "evidence: %s (seed %llu)\n", path, (unsigned long long)current->seed);
}

void fault_prepare(struct fault *fault, const char *name)
{
    memset(fault, 0, sizeof *fault);
    const char *text = getenv("FAULT_SEED");
    fault->seed = text != NULL ? strtoull(text, NULL, 10) : rng_seed_from_system();
    printf("seed %llu (FAULT_SEED=%llu fault_suite %s)\n", (unsigned long long)fault->seed,
           (unsigned long long)fault->seed, name);
    fflush(stdout);
    rng_init(&fault->rng, fault->seed);
    fault->leases = rng_chance(&fault->rng, 1, 2);
    static bool registered;
    if (!registered) {
        registered = true;
        CHECK_EQ(atexit(keep_history), 0);
    }
    current = fault;
}

void fault_join(struct fault *fault, uint64_t group)
{
    char spec[512];
    cluster_group_spec(&fault->cluster, group, spec, sizeof spec);
    CHECK_EQ(cluster_ctl(&fault->cluster, 60, NULL, "join", "--timeout", "30s", spec, NULL), 0);
    fault->groups = group > fault->groups ? group : fault->groups;
}

void fault_start_group(struct fault *fault, uint64_t group, uint32_t replicas)
{
    cluster_add_group_of(&fault->cluster, group, replicas);
    for (uint32_t i = 0; i < fault->cluster.process_count && fault->leases; i++) {
        if (fault->cluster.processes[i].group == group) {
            fault->cluster.processes[i].arguments[0] = "--lease-reads";
        }
    }
    cluster_start_group(&fault->cluster, group);
    fault_join(fault, group);
}

/* The servers of groups; those that will come to run in place of others have their addresses. */
static uint32_t list_servers(const struct cluster *cluster, char (*out)[DIRECT_ADDRESS_BYTES])
{
    static_assert((int)DIRECT_ADDRESS_BYTES == (int)PROCESS_ADDRESS_BYTES, "one address for both");
    uint32_t count = 0;
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        if (cluster->processes[i].group != 0) {
            process_own_address(&cluster->processes[i], out[count++]);
        }
    }
    return count;
}

void fault_load(struct fault *fault)
{
    char servers[CLUSTER_PROCESSES_MAX][DIRECT_ADDRESS_BYTES];
    fault->cluster.keep = true;
    CHECK(cluster_wait_settled(&fault->cluster, FAULT_SETTLE_SECONDS));
    printf("reads %s\n", fault->leases ? "from leases" : "confirmed by a quorum each");
    fflush(stdout);
    fault->recorder = recorder_start(&(struct recorder_options){
        .controllers = fault->cluster.controllers,
        .cluster = fault->cluster.name,
        .seed = fault->seed,
        .clients = FAULT_CLIENTS,
        .keys = FAULT_KEYS,
        .timeout_ms = 5000,
        .direct = servers,
        .direct_count = list_servers(&fault->cluster, servers),
        .pause_us = (uint32_t)(1000 * seconds_from("FAULT_PAUSE_MS", 2)),
    });
    fault->until = now_seconds() + seconds_from("FAULT_SECONDS", DEFAULT_SECONDS);
}

static void begin(struct fault *fault, const char *name, uint64_t groups, const uint32_t *replicas,
                  bool own_network)
{
    fault_prepare(fault, name);
    cluster_prepare_with(&fault->cluster, name, FAULT_SHARDS,
                         &(struct cluster_network){.own = own_network});
    fault->cluster.keep = true;
    cluster_start_group(&fault->cluster, 0);
    for (uint64_t group = 1; group <= groups; group++) {
        fault_start_group(fault, group, replicas != NULL ? replicas[group - 1] : CLUSTER_REPLICAS);
    }
    fault_load(fault);
}

void fault_begin(struct fault *fault, const char *name, uint64_t groups)
{
    begin(fault, name, groups, NULL, false);
}

void fault_begin_in_net(struct fault *fault, const char *name, uint64_t groups,
                        const uint32_t *replicas)
{
    char why[128];
    if (!net_is_possible(why, sizeof why)) {
        fault_skip("%s", why);
    }
    begin(fault, name, groups, replicas, true);
}

void fault_begin_where_possible(struct fault *fault, const char *name, uint64_t groups,
                                const uint32_t *replicas)
{
    char why[128];
    bool possible = net_is_possible(why, sizeof why);
    if (!possible) {
        printf("on loopback, without cuts: %s\n", why);
    }
    begin(fault, name, groups, replicas, possible);
}

void fault_expect_alive(struct fault *fault)
{
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        struct process *process = &fault->cluster.processes[i];
        if (process->pid != 0 && !process_is_running(process)) {
            FAIL("replica %u of group %llu has ended by itself, status 0x%x", process->id,
                 (unsigned long long)process->group, (unsigned)process->status);
        }
    }
}

void fault_heal(struct fault *fault)
{
    if (fault->cluster.net != NULL) {
        net_heal(fault->cluster.net);
        net_apply(fault->cluster.net);
    }
    fault_expect_alive(fault);
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        if (fault->cluster.processes[i].pid != 0) {
            process_signal(&fault->cluster.processes[i], SIGCONT); /* harmless to the others */
        }
    }
    fault_start_all(fault);
}

static bool time_has_come(void *context)
{
    return now_seconds() >= *(double *)context;
}

void fault_let_run(double seconds)
{
    double until = now_seconds() + seconds;
    CHECK(wait_until(time_has_come, &until, seconds + 60));
}

bool fault_goes_on(struct fault *fault)
{
    return now_seconds() < fault->until;
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

void fault_expect_progress(struct fault *fault, uint64_t more, double seconds)
{
    struct progress progress = {fault->recorder, recorder_done(fault->recorder) + more};
    if (!wait_until(has_progressed, &progress, seconds)) {
        FAIL("only %llu of %llu commands were done in %.0f s",
             (unsigned long long)(recorder_done(fault->recorder) + more - progress.wanted),
             (unsigned long long)more, seconds);
    }
}

struct process *fault_any_of(struct fault *fault, uint64_t group)
{
    return cluster_find(&fault->cluster, group,
                        (uint32_t)rng_between(&fault->rng, 1, CLUSTER_REPLICAS));
}

void fault_kill(struct fault *fault, struct process *process)
{
    fault->kills += process->pid != 0;
    process_kill(process);
}

void fault_kill_some(struct fault *fault, uint64_t group, uint32_t count)
{
    struct process *leader = cluster_leader(&fault->cluster, group, 30);
    CHECK(leader != NULL);
    uint32_t spared =
        count == CLUSTER_REPLICAS ? 0 : 1 + leader->id % CLUSTER_REPLICAS; /* the one after it */
    fault_kill(fault, leader);
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS && count > 1; id++) {
        if (id != spared) {
            fault_kill(fault, cluster_find(&fault->cluster, group, id));
        }
    }
}

void fault_start_all(struct fault *fault)
{
    for (uint32_t i = 0; i < fault->cluster.process_count; i++) {
        if (fault->cluster.processes[i].pid == 0) {
            process_start(&fault->cluster, &fault->cluster.processes[i]);
        }
    }
}

/* FAULT_MOVE_SECONDS=LEAST-MOST: draws when the next move is due, and waits for this one. */
static void keep_pace(struct fault *fault)
{
    const char *text = getenv("FAULT_MOVE_SECONDS");
    if (text == NULL) {
        return;
    }
    unsigned least, most;
    if (sscanf(text, "%u-%u", &least, &most) != 2 || least > most || most > 3600) {
        FAIL("FAULT_MOVE_SECONDS=%s: two numbers of seconds, LEAST-MOST, are right", text);
    }
    double now = now_seconds();
    if (fault->next_move > now) {
        fault_let_run(fault->next_move - now);
    }
    uint64_t pause_ms = rng_between(&fault->rng, 1000 * (uint64_t)least, 1000 * (uint64_t)most);
    fault->next_move = now_seconds() + (double)pause_ms / 1000;
}

void fault_move(struct fault *fault, uint32_t shard, uint64_t group)
{
    keep_pace(fault);
    char shard_text[16], group_text[24];
    snprintf(shard_text, sizeof shard_text, "%u", shard);
    snprintf(group_text, sizeof group_text, "%llu", (unsigned long long)group);
    CHECK_EQ(cluster_ctl(&fault->cluster, 60, NULL, "move", "--timeout", "30s", shard_text,
                         group_text, NULL),
             0);
    fault->moves++;
}

void fault_move_any(struct fault *fault)
{
    uint32_t shard = (uint32_t)rng_below(&fault->rng, FAULT_SHARDS);
    fault_move(fault, shard, rng_between(&fault->rng, 1, fault->groups));
}

void fault_abandon(struct fault *fault)
{
    CHECK(fault->recorder == NULL);
    fault->cluster.keep = false;
    cluster_destroy(&fault->cluster);
    current = NULL;
}

void fault_end(struct fault *fault)
{
    fault_heal(fault);
    CHECK_EQ(
        cluster_ctl(&fault->cluster, 60, NULL, "put", "--timeout", "30s", "last", "write", NULL),
        0);
    CHECK(cluster_wait_settled(&fault->cluster, FAULT_SETTLE_SECONDS));
    struct recorder_report report;
    char path[sizeof fault->cluster.dir + 32];
    snprintf(path, sizeof path, "%s/history.jsonl", fault->cluster.dir);
    struct recorder *recorder = fault->recorder;
    fault->recorder = NULL;
    recorder_stop(recorder, path, &report);
    for (uint64_t group = 0; group <= fault->groups; group++) {
        if (!cluster_wait_equal(&fault->cluster, group, FAULT_SETTLE_SECONDS)) {
            FAIL("the replicas of group %llu do not become equal", (unsigned long long)group);
        }
    }
    printf("%u rounds, %llu done (%llu reads), %llu direct reads, %llu not done, %llu unknown, "
           "%u moves, %u kills, %u cuts, %u pauses, %u changes; linearizable, replicas equal\n",
           fault->rounds, (unsigned long long)report.done, (unsigned long long)report.reads,
           (unsigned long long)report.direct, (unsigned long long)report.not_done,
           (unsigned long long)report.unknown, fault->moves, fault->kills, fault->cuts,
           fault->pauses, fault->changes);
    CHECK_CMP(fault->rounds, >, 0);
    CHECK_CMP(report.direct, >, 0); /* whoever leads answers */
    fault->cluster.keep = false;
    cluster_destroy(&fault->cluster);
    current = NULL;
}

/* What a user's cluster must survive and cost, on real processes: every process killed at once,
 * joins and leaves under a writer with random kills, an idle cluster's memory and processor time.
 */
#include "base/rng.h"
#include "client/shardkv.h"
#include "cluster/append_load.h"
#include "cluster/harness.h"
#include "lib/suite.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct cluster cluster;

/* Joins the group through shardctl; its replicas must have been started. */
static void join_group(uint64_t group)
{
    char spec[512];
    cluster_group_spec(&cluster, group, spec, sizeof spec);
    CHECK_EQ(cluster_ctl(&cluster, 60, NULL, "join", spec, NULL), 0);
}

static void leave_group(uint64_t group)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)group);
    CHECK_EQ(cluster_ctl(&cluster, 60, NULL, "leave", text, NULL), 0);
}

static void begin(const char *name, uint64_t groups)
{
    cluster_create(&cluster, name, 64);
    cluster.keep = true; /* until it has passed */
    for (uint64_t group = 1; group <= groups; group++) {
        cluster_start_group(&cluster, group);
    }
}

static void end(void)
{
    cluster.keep = false;
    cluster_destroy(&cluster);
}

/* ---- a million keys, everything killed
 * -------------------------------------------------------------------------- */

enum { MILLION = 1000000 };

static void write_keys(const char *path)
{
    FILE *file = fopen(path, "we");
    CHECK(file != NULL);
    for (uint32_t i = 0; i < MILLION; i++) {
        fprintf(file, "{\"key\":\"key-%07u\",\"value\":\"value of %u\"}\n", i, i * 2654435761u);
    }
    CHECK_EQ(fclose(file), 0);
}

/* Every key once, with its value. */
static void check_keys(const char *path)
{
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    uint8_t *seen = mem_calloc(MILLION, 1);
    char line[256];
    uint32_t count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        json_t *row = json_loads(line, 0, NULL);
        CHECK(row != NULL);
        const char *key = json_string_value(json_object_get(row, "key"));
        const char *value = json_string_value(json_object_get(row, "value"));
        unsigned index = 0;
        char wanted[64];
        CHECK(key != NULL);
        CHECK(value != NULL);
        CHECK_EQ(sscanf(key, "key-%7u", &index), 1);
        CHECK_CMP(index, <, MILLION);
        snprintf(wanted, sizeof wanted, "value of %u", index * 2654435761u);
        if (strcmp(value, wanted) != 0) {
            FAIL("%s is '%s' and should be '%s'", key, value, wanted);
        }
        CHECK_EQ(seen[index], 0);
        seen[index] = 1;
        count++;
        json_decref(row);
    }
    fclose(file);
    free(seen);
    CHECK_EQ(count, MILLION);
}

static void million_keys_survive_kill_of_all(void)
{
    begin("million", 2);
    join_group(1);
    join_group(2);
    CHECK(cluster_wait_settled(&cluster, 60));
    char in[300], out[300];
    snprintf(in, sizeof in, "%s/in.jsonl", cluster.dir);
    snprintf(out, sizeof out, "%s/out.jsonl", cluster.dir);
    write_keys(in);

    double start = now_seconds();
    CHECK_EQ(cluster_ctl(&cluster, 400, NULL, "load", in, NULL), 0);
    double loaded = now_seconds();
    for (uint32_t i = 0; i < cluster.process_count; i++) {
        process_signal(&cluster.processes[i], 9); /* all at once: reaped below */
    }
    for (uint32_t i = 0; i < cluster.process_count; i++) {
        process_kill(&cluster.processes[i]);
    }
    for (uint32_t i = 0; i < cluster.process_count; i++) {
        process_start(&cluster, &cluster.processes[i]);
    }
    double restarted = now_seconds();
    CHECK_EQ(cluster_ctl(&cluster, 400, NULL, "export", "--output", out, NULL), 0);
    printf("loaded %d keys in %.1f s, read them back in %.1f s after the restart\n", MILLION,
           loaded - start, now_seconds() - restarted);
    check_keys(out);
    end();
}

/* ---- joins, leaves and kills under a writer
 * ------------------------------------------------------------------------- */

enum { CHURN_GROUPS = 4, CHURN_STEPS = 20, CHURN_CLIENTS = 8, CHURN_KEYS = 100 };
#define KILL_INTERVAL_SECONDS 3.0

struct killer {
    struct rng rng;
    double next_kill;
    struct process *down;
    double up_again;
    uint32_t kills;
};

/* Kills a random process every KILL_INTERVAL_SECONDS and starts it again half a second later. */
static void killer_turn(struct killer *killer)
{
    double now = now_seconds();
    if (killer->down != NULL && now >= killer->up_again) {
        process_start(&cluster, killer->down);
        killer->down = NULL;
    }
    if (killer->down == NULL && now >= killer->next_kill) {
        struct process *victim = &cluster.processes[rng_below(&killer->rng, cluster.process_count)];
        CHECK(process_is_running(victim)); /* none ends by itself */
        process_kill(victim);
        killer->down = victim;
        killer->up_again = now + 0.5;
        killer->next_kill = now + KILL_INTERVAL_SECONDS;
        killer->kills++;
    }
}

struct turn {
    struct killer *killer;
    double until;
};

static bool killing_until(void *context)
{
    struct turn *turn = context;
    killer_turn(turn->killer);
    return now_seconds() >= turn->until;
}

static void kill_for(struct killer *killer, double seconds)
{
    struct turn turn = {killer, now_seconds() + seconds};
    CHECK(wait_until(killing_until, &turn, seconds + 60));
}

static void joins_and_leaves_with_kills(void)
{
    begin("churn", CHURN_GROUPS);
    join_group(1);
    struct append_load *load = append_load_start(&(struct append_load_options){
        .controllers = cluster.controllers,
        .cluster = cluster.name,
        .clients = CHURN_CLIENTS,
        .keys = CHURN_KEYS,
        .timeout_ms = 60000,
    });
    struct killer killer = {.next_kill = now_seconds() + KILL_INTERVAL_SECONDS};
    uint64_t seed = rng_seed_from_system();
    printf("seed %llu\n", (unsigned long long)seed);
    rng_init(&killer.rng, seed);
    bool joined[CHURN_GROUPS + 1] = {false, true};
    uint32_t joined_count = 1;
    for (int step = 0; step < CHURN_STEPS;) {
        uint64_t group = rng_between(&killer.rng, 1, CHURN_GROUPS);
        if (joined[group] && joined_count == 1) {
            continue;
        }
        if (joined[group]) {
            leave_group(group);
        } else {
            join_group(group);
        }
        joined_count = joined[group] ? joined_count - 1 : joined_count + 1;
        joined[group] = !joined[group];
        step++;
        kill_for(&killer, 1.5);
    }
    if (killer.down != NULL) {
        process_start(&cluster, killer.down);
    }
    CHECK(cluster_wait_settled(&cluster, 120));
    struct append_load_report report;
    append_load_stop(load, &report);
    if (report.error[0] != '\0') {
        FAIL("%s", report.error);
    }
    printf(
        "%d joins and leaves, %u kills, %llu appends acknowledged, %llu unknown, slowest %.1f s\n",
        CHURN_STEPS, killer.kills, (unsigned long long)report.acknowledged,
        (unsigned long long)report.unknown, report.slowest_seconds);
    CHECK_CMP(report.acknowledged, >, 1000);
    CHECK_CMP(killer.kills, >=, 8);
    end();
}

/* ---- idle
 * ------------------------------------------------------------------------------------------------------------
 */

#define IDLE_SECONDS       10.0
#define RESIDENT_BYTES_MAX (64ull << 20)
#define CPU_SHARE_MAX      0.01

static bool time_is_up(void *context)
{
    return now_seconds() >= *(double *)context;
}

static void idle_replica_is_small(void)
{
    begin("idle", 2);
    join_group(1);
    join_group(2);
    CHECK(cluster_wait_settled(&cluster, 60));
    CHECK_EQ(cluster_ctl(&cluster, 20, NULL, "put", "name", "value", NULL), 0);
    double settle = now_seconds() + 3;
    CHECK(wait_until(time_is_up, &settle, 10));

    double cpu_before[CLUSTER_PROCESSES_MAX];
    uint64_t resident = 0;
    for (uint32_t i = 0; i < cluster.process_count; i++) {
        CHECK(process_usage(&cluster.processes[i], &resident, &cpu_before[i]));
    }
    double start = now_seconds();
    double until = start + IDLE_SECONDS;
    CHECK(wait_until(time_is_up, &until, IDLE_SECONDS + 10));
    double elapsed = now_seconds() - start;
    for (uint32_t i = 0; i < cluster.process_count; i++) {
        double cpu = 0;
        CHECK(process_usage(&cluster.processes[i], &resident, &cpu));
        double share = (cpu - cpu_before[i]) / elapsed;
        printf("group %llu replica %u: %.1f MiB resident, %.2f %% of a core\n",
               (unsigned long long)cluster.processes[i].group, cluster.processes[i].id,
               (double)resident / (1 << 20), share * 100);
        CHECK_CMP(resident, <, RESIDENT_BYTES_MAX);
        CHECK(share < CPU_SHARE_MAX);
    }
    end();
}

/* ---- all replicas of a group are replaced
 * -------------------------------------------------------------------------------------- */

enum { FOUNDED_KEYS = 32 };

struct member_verb {
    const char *verb;
    char what[64];
};

static bool member_is_done(void *context)
{
    const struct member_verb *member = context;
    return cluster_ctl(&cluster, 20, NULL, "member", "--timeout", "5s", member->verb, "1",
                       member->what, NULL) == 0;
}

static void change_member(const char *verb, const char *what)
{
    struct member_verb member = {.verb = verb};
    snprintf(member.what, sizeof member.what, "%s", what);
    CHECK(wait_until(member_is_done, &member, 30));
}

/* Group 1 in the newest config: replicas 4, 5 and 6 only. */
static bool lists_newcomers(void *context)
{
    (void)context;
    int code = 0;
    json_t *config = cluster_ctl_json(&cluster, 20, &code, "query", NULL);
    const json_t *group = json_array_get(json_object_get(config, "groups"), 0);
    const json_t *replicas = json_object_get(group, "replicas");
    bool all = json_integer_value(json_object_get(group, "id")) == 1 &&
               json_array_size(replicas) == CLUSTER_REPLICAS;
    for (size_t i = 0; i < json_array_size(replicas); i++) {
        const json_t *id = json_object_get(json_array_get(replicas, i), "id");
        all = all && json_integer_value(id) == (json_int_t)(CLUSTER_REPLICAS + 1 + i);
    }
    json_decref(config);
    return all;
}

static void founded_keys(const char *verb)
{
    for (uint32_t i = 0; i < FOUNDED_KEYS; i++) {
        char key[32], value[32];
        struct buf out = {0};
        bool puts = strcmp(verb, "put") == 0;
        snprintf(key, sizeof key, "key-%u", i);
        snprintf(value, sizeof value, "value %u", i);
        CHECK_EQ(cluster_ctl(&cluster, 20, &out, verb, key, puts ? value : NULL, NULL), 0);
        CHECK(puts || (out.size >= strlen(value) && memcmp(out.data, value, strlen(value)) == 0));
        buf_deinit(&out);
    }
}

/* One after the other, by replicas at other addresses. Whoever asks the controllers finds the
 * group, and it can give its shards away. */
static void group_outlives_its_founders(void)
{
    begin("founders", 2);
    join_group(1);
    join_group(2);
    CHECK(cluster_wait_settled(&cluster, 60));
    founded_keys("put");
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        char address[PROCESS_ADDRESS_BYTES], what[64];
        struct process *added = cluster_add_replica(&cluster, 1, CLUSTER_REPLICAS + id);
        process_address(added, address);
        snprintf(what, sizeof what, "%u=%s", added->id, address);
        change_member("add", what);
        snprintf(what, sizeof what, "%u", added->id);
        change_member("promote", what);
        snprintf(what, sizeof what, "%u", id);
        change_member("remove", what);
        process_kill(cluster_find(&cluster, 1, id));
    }
    CHECK(wait_until(lists_newcomers, NULL, 20));
    founded_keys("get");
    CHECK_EQ(cluster_ctl(&cluster, 60, NULL, "leave", "1", "--wait", NULL), 0);
    founded_keys("get");
    end();
}

/* ---- a client in another language
 * -------------------------------------------------------------------------------------- */

static void python_client(void)
{
    const char *source = getenv("SHARDKV_SOURCE_DIR");
    CHECK(source != NULL);
    begin("python", 2);
    join_group(1);
    join_group(2);
    char script[1100], proto[1100];
    snprintf(script, sizeof script, "%s/tests/cluster/python_client.py", source);
    snprintf(proto, sizeof proto, "%s/proto", source);
    /* Debian's Python has Debian's gRPC, whatever else is called python3 on this machine. */
    char *argv[] = {"/usr/bin/python3", script, proto, cluster.controllers, NULL};
    CHECK_EQ(program_run(argv, 120, NULL), 0);
    end();
}

int main(int argc, char **argv)
{
    const struct suite_test tests[] = {
        {"MillionKeysSurviveKillOfAll", million_keys_survive_kill_of_all},
        {"JoinsAndLeavesWithKills", joins_and_leaves_with_kills},
        {"IdleReplicaIsSmall", idle_replica_is_small},
        {"GroupOutlivesItsFounders", group_outlives_its_founders},
        {"PythonClient", python_client},
    };
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}

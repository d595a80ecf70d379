/* Numbered scenarios on real processes (docs/TESTING.md has the numbers) that no recorded history
 * shows: what a server does when it comes back with too high a term, with another's disk or with
 * none, with a torn log, before its replay has caught up, or after a move it slept through. */
#include "base/bytes.h"
#include "client/shardkv.h"
#include "cluster/harness.h"
#include "cluster/harness_net.h"
#include "fault/shim_use.h"
#include "lib/suite.h"
#include "proto/config.h"
#include "proto/messages.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { SHARDS = 16, MOVED_SHARDS = 3, EXIT_IDENTITY = 5, EXIT_SKIPPED = 77 };
#define LIMIT_SECONDS 60.0

static struct cluster cluster;
static struct skv_client *client;

static void join(uint64_t group)
{
    char spec[512];
    cluster_group_spec(&cluster, group, spec, sizeof spec);
    CHECK_EQ(cluster_ctl(&cluster, LIMIT_SECONDS, NULL, "join", "--timeout", "30s", spec, NULL), 0);
    CHECK(cluster_wait_settled(&cluster, LIMIT_SECONDS));
}

static void open_client(void)
{
    char why[SKV_ERROR_TEXT_BYTES] = "";
    struct skv_options options = {
        .controllers = cluster.controllers, .cluster = cluster.name, .open_timeout_ms = 20000};
    if (skv_open(&options, &client, why, sizeof why) != SKV_OK) {
        FAIL("cannot reach the cluster: %s", why);
    }
}

/* Controllers and group 1 of so many replicas, started, joined and settled. */
static void begin(const char *name, uint32_t replicas)
{
    cluster_create(&cluster, name, SHARDS);
    cluster.keep = true; /* until it has passed */
    cluster_add_group_of(&cluster, 1, replicas);
    cluster_start_group(&cluster, 1);
    join(1);
    open_client();
}

static void end(void)
{
    skv_close(client);
    cluster.keep = false;
    cluster_destroy(&cluster);
}

static void put(const char *key, const char *value)
{
    struct skv_result result;
    CHECK_EQ(skv_put(client, key, strlen(key), value, strlen(value), 30000, &result), SKV_OK);
}

static void expect_value(const char *key, const char *wanted)
{
    struct skv_result result;
    CHECK_EQ(skv_get(client, key, strlen(key), 30000, &result), SKV_OK);
    if (result.value_size != strlen(wanted) ||
        memcmp(result.value, wanted, result.value_size) != 0) {
        FAIL("%s is '%.*s', not '%s'", key, (int)result.value_size, (const char *)result.value,
             wanted);
    }
    skv_result_free(&result);
}

static struct process *leader_of(uint64_t group)
{
    struct process *leader = cluster_leader(&cluster, group, LIMIT_SECONDS);
    CHECK(leader != NULL);
    return leader;
}

/* The replica that comes n-th after this one in its group of three. */
static struct process *after(const struct process *process, uint32_t n)
{
    uint32_t id = (process->id - 1 + n) % CLUSTER_REPLICAS + 1;
    return cluster_find(&cluster, process->group, id);
}

struct term {
    uint64_t term, leader_id;
};

static struct term term_of(const struct process *process)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    CHECK(process_status(&cluster, process, false, status));
    struct term term = {status->term, status->leader_id};
    msg_status_response_deinit(status);
    free(status);
    return term;
}

/* ---- 5: a node returns after a long absence ---- */

struct known_leader {
    const struct process *process;
    uint64_t leader_id;
};

static bool knows_leader(void *context)
{
    const struct known_leader *known = context;
    return term_of(known->process).leader_id == known->leader_id;
}

/* Of one leader, be it the former one or another. */
static bool knows_what_others_know(void *context)
{
    struct process *process = context;
    uint64_t leader_id = term_of(process).leader_id;
    return leader_id != 0 && leader_id == term_of(after(process, 1)).leader_id &&
           leader_id == term_of(after(process, 2)).leader_id;
}

static bool time_has_come(void *context)
{
    return now_seconds() >= *(double *)context;
}

static void let_run(double seconds)
{
    double until = now_seconds() + seconds;
    CHECK(wait_until(time_has_come, &until, seconds + LIMIT_SECONDS));
}

/* Cuts a follower off for ten election timeouts. Whether it came back without a trace: a machine
 * under load may have an election of its own meanwhile, which is none of its doing. */
static bool comes_back_quietly(void)
{
    struct process *leader = leader_of(1);
    struct process *follower = after(leader, 1);
    CHECK(wait_until(knows_leader, &(struct known_leader){follower, leader->id}, LIMIT_SECONDS));
    net_cut_both(cluster.net, follower->node, leader->node);
    net_cut_both(cluster.net, follower->node, after(leader, 2)->node);
    net_apply(cluster.net);
    CHECK(wait_until(knows_leader, &(struct known_leader){follower, 0}, LIMIT_SECONDS));
    let_run(3);
    /* It asks before it stands for election, and nobody answers: its term is no newer. */
    leader = leader_of(1);
    struct term before = term_of(leader);
    CHECK_CMP(term_of(follower).term, <=, before.term);
    put("k", "without it");
    net_heal(cluster.net);
    net_apply(cluster.net);
    CHECK(wait_until(knows_what_others_know, follower, LIMIT_SECONDS));
    let_run(1); /* longer than an election */
    struct term later = term_of(leader);
    return later.term == before.term && later.leader_id == before.leader_id;
}

static void inflated_term(void)
{
    enum { TRIES = 4 };
    char why[128];
    if (!net_is_possible(why, sizeof why)) {
        printf("SKIPPED: %s\n", why);
        exit(EXIT_SKIPPED);
    }
    cluster_prepare_with(&cluster, "inflated", SHARDS, &(struct cluster_network){.own = true});
    cluster.keep = true;
    cluster_start_group(&cluster, 0);
    cluster_add_group(&cluster, 1);
    cluster_start_group(&cluster, 1);
    join(1);
    open_client();
    put("k", "1");
    uint32_t tries = 1;
    while (!comes_back_quietly()) {
        CHECK_CMP(tries, <, TRIES);
        tries++;
    }
    put("k", "3");
    CHECK(cluster_wait_equal(&cluster, 1, LIMIT_SECONDS));
    end();
}

/* ---- 18: a single node counts itself only after its sync ---- */

static struct shim shim;

/* A cluster whose one group is one replica under the shim, joined, with a client. */
static struct process *begin_lone_replica(const char *name)
{
    cluster_create(&cluster, name, SHARDS);
    cluster.keep = true;
    cluster_add_group_of(&cluster, 1, 1);
    struct process *node = cluster_find(&cluster, 1, 1);
    shim_attach(&shim, &cluster, node);
    cluster_start_group(&cluster, 1);
    join(1);
    open_client();
    return node;
}

static void own_sync(void)
{
    enum { DELAY_MS = 700, PUTS = 3 };
    (void)begin_lone_replica("sync");
    put("k", "0");
    for (uint32_t i = 0; i < PUTS; i++) {
        char value[16];
        snprintf(value, sizeof value, "%u", i);
        shim_arm(&shim, 0,
                 &(struct shim_order){.classes = SHIM_BIT(SHIM_WAL_SEGMENT),
                                      .kinds = SHIM_BIT(SHIM_SYNC),
                                      .action = SHIM_DELAY_ONCE,
                                      .delay_ms = DELAY_MS,
                                      .nth = 1});
        double from = now_seconds();
        put("k", value);
        double took_ms = (now_seconds() - from) * 1000;
        CHECK_EQ(shim_hits(&shim, 0), 1);
        /* Part of the delay may have passed before the put came, were it a sync of something else;
         * nothing else is written here. */
        CHECK_CMP(took_ms, >=, DELAY_MS - 50);
        expect_value("k", value);
    }
    end();
}

/* ---- 30: no reads before replay has caught up ---- */

static void load_many(uint32_t round, uint32_t count)
{
    char path[300];
    snprintf(path, sizeof path, "%s/in.jsonl", cluster.dir);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL);
    for (uint32_t i = 0; i < count; i++) {
        fprintf(file, "{\"key\":\"key-%u\",\"value\":\"%u %0200u\"}\n", i, round, i);
    }
    CHECK_EQ(fclose(file), 0);
    CHECK_EQ(cluster_ctl(&cluster, 120, NULL, "load", path, NULL), 0);
}

/* A group of one leads as soon as it is started. What its state machine had in memory is gone, and
 * no flush was due, so it has all to replay when the first read comes, which is at once: it must
 * find what was written last. */
static void reads_wait_for_replay(void)
{
    enum { KEYS = 60000 };
    cluster_create(&cluster, "replay", SHARDS);
    cluster.keep = true;
    cluster_add_group_of(&cluster, 1, 1);
    struct process *process = cluster_find(&cluster, 1, 1);
    process->arguments[0] = "--flush-log-size";
    process->arguments[1] = "1GiB";
    process->arguments[2] = "--memtable-size";
    process->arguments[3] = "256MiB";
    cluster_start_group(&cluster, 1);
    join(1);
    open_client();
    put("last", "old");
    load_many(1, KEYS);
    put("last", "new");
    process_kill(process);
    process_start(&cluster, process);
    double from = now_seconds();
    expect_value("last", "new");
    printf("first read %.1f s after the start\n", now_seconds() - from);
    for (uint32_t i = KEYS - 1; i > KEYS - 20; i--) {
        char key[16], value[256];
        snprintf(key, sizeof key, "key-%u", i);
        snprintf(value, sizeof value, "%u %0200u", 1, i);
        expect_value(key, value);
    }
    end();
}

/* ---- 43: a node returns wiped, or with another's disk ---- */

static void move_dir(const struct process *from, const char *to)
{
    char path[320];
    process_data_dir(&cluster, from, path, sizeof path);
    CHECK_EQ(rename(path, to), 0);
}

static void aside_of(const struct process *process, char out[340])
{
    char path[320];
    process_data_dir(&cluster, process, path, sizeof path);
    snprintf(out, 340, "%s.aside", path);
}

static bool has_ended(void *context)
{
    return !process_is_running(context);
}

static void expect_refused(struct process *process, const char *words)
{
    char path[340], line[1024];
    CHECK(wait_until(has_ended, process, LIMIT_SECONDS));
    CHECK(WIFEXITED(process->status));
    CHECK_EQ(WEXITSTATUS(process->status), EXIT_IDENTITY);
    snprintf(path, sizeof path, "%s/g%llu-%u.log", cluster.dir, (unsigned long long)process->group,
             process->id);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    bool said = false;
    while (fgets(line, sizeof line, file) != NULL) {
        said = said || strstr(line, words) != NULL;
    }
    fclose(file);
    CHECK(said);
}

/* Its file `identity` names every other member (raft/node/identity.h). */
static bool knows_the_others(void *context)
{
    enum { HEAD_BYTES = 60, PEER_BYTES = 16 };
    char path[340];
    struct stat identity;
    process_data_dir(&cluster, context, path, 320);
    snprintf(path + strlen(path), sizeof path - strlen(path), "/identity");
    return stat(path, &identity) == 0 &&
           identity.st_size >= HEAD_BYTES + (CLUSTER_REPLICAS - 1) * PEER_BYTES;
}

/* `wiped` runs, empty, beside `left`: with it, it would make a majority, vote twice in a term and
 * acknowledge what it has forgotten. Nobody may lead until `away` is back; then its own disk comes
 * back, and with it the member. */
static void wiped_beside(struct process *wiped, struct process *left, struct process *away)
{
    char aside[340], empty[360], path[320];
    aside_of(wiped, aside);
    process_data_dir(&cluster, wiped, path, sizeof path);
    snprintf(empty, sizeof empty, "%s.%u", aside, left->id);
    CHECK(cluster_wait_equal(&cluster, 1, LIMIT_SECONDS));
    /* Members that have just been founded greet each other within seconds; who has not been heard
     * yet cannot be told from its empty successor. */
    CHECK(wait_until(knows_the_others, left, LIMIT_SECONDS));
    CHECK(wait_until(knows_the_others, away, LIMIT_SECONDS));
    process_kill(wiped);
    move_dir(wiped, aside);
    process_kill(away);
    process_start(&cluster, wiped);
    struct skv_result result;
    CHECK(skv_put(client, "k", 1, "lost", 4, 4000, &result) != SKV_OK);
    CHECK(cluster_leader(&cluster, 1, 1) == NULL);
    CHECK(process_is_running(wiped));
    CHECK(process_is_running(left));
    process_start(&cluster, away);
    put("k", "with a majority");
    process_kill(wiped);
    CHECK_EQ(rename(path, empty), 0);
    CHECK_EQ(rename(aside, path), 0);
    process_start(&cluster, wiped);
    CHECK(cluster_wait_equal(&cluster, 1, LIMIT_SECONDS));
}

static void foreign_is_refused(struct process *leader)
{
    struct process *a = after(leader, 1);
    struct process *b = after(leader, 2);
    struct process *stranger = cluster_find(&cluster, 2, 1);
    char aside_a[340], aside_s[340], path_a[320], path_b[320], path_s[320];
    aside_of(a, aside_a);
    aside_of(stranger, aside_s);
    process_data_dir(&cluster, a, path_a, sizeof path_a);
    process_data_dir(&cluster, b, path_b, sizeof path_b);
    process_data_dir(&cluster, stranger, path_s, sizeof path_s);
    /* Another replica's of its own group. */
    process_kill(a);
    process_kill(b);
    move_dir(a, aside_a);
    CHECK_EQ(rename(path_b, path_a), 0);
    process_start(&cluster, a);
    expect_refused(a, "of group 1, not replica");
    CHECK_EQ(rename(path_a, path_b), 0);
    process_start(&cluster, b);
    put("k", "with b");
    /* And one of another group. */
    process_kill(stranger);
    move_dir(stranger, aside_s);
    CHECK_EQ(rename(aside_a, path_s), 0);
    process_start(&cluster, stranger);
    expect_refused(stranger, "not replica 1 of group 2");
    CHECK_EQ(rename(path_s, path_a), 0);
    CHECK_EQ(rename(aside_s, path_s), 0);
    process_start(&cluster, a);
    process_start(&cluster, stranger);
    CHECK(cluster_wait_equal(&cluster, 1, LIMIT_SECONDS));
    CHECK(cluster_wait_equal(&cluster, 2, LIMIT_SECONDS));
}

static void other_disks(void)
{
    begin("disks", CLUSTER_REPLICAS);
    cluster_start_group(&cluster, 2);
    join(2);
    put("k", "1");
    struct process *leader = leader_of(1);
    wiped_beside(after(leader, 1), leader, after(leader, 2));
    leader = leader_of(1); /* two followers, which have never had anything to say to each other */
    wiped_beside(after(leader, 1), after(leader, 2), leader);
    foreign_is_refused(leader_of(1));
    put("k", "2");
    expect_value("k", "2");
    end();
}

/* ---- 46, 47: a torn tail, and zeroes behind it ---- */

struct tail {
    char name[300];
    uint64_t size; /* of the file */
    uint64_t end;  /* behind the last byte that is not zero */
};

static struct tail tail_of_file(const char *dir, const char *name)
{
    struct tail tail = {.end = 0};
    char path[700];
    static uint8_t bytes[1024 * 1024];
    snprintf(tail.name, sizeof tail.name, "%s", name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL);
    size_t count;
    while ((count = fread(bytes, 1, sizeof bytes, file)) > 0) {
        for (size_t i = 0; i < count; i++) {
            tail.end = bytes[i] != 0 ? tail.size + i + 1 : tail.end;
        }
        tail.size += count;
    }
    fclose(file);
    return tail;
}

/* The newest segment of the log. */
static struct tail newest_tail(const struct process *process)
{
    char path[320], dir_path[340], newest[300] = "";
    process_data_dir(&cluster, process, path, sizeof path);
    snprintf(dir_path, sizeof dir_path, "%s/wal", path);
    DIR *dir = opendir(dir_path);
    CHECK(dir != NULL);
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        size_t length = strlen(entry->d_name);
        if (length == 20 && strcmp(entry->d_name + 16, ".wal") == 0 &&
            strcmp(entry->d_name, newest) > 0) {
            snprintf(newest, sizeof newest, "%s", entry->d_name);
        }
    }
    closedir(dir);
    CHECK(newest[0] != '\0');
    return tail_of_file(dir_path, newest);
}

/* A group of one: killed in the middle of writing a large entry, of which half is on the disk. The
 * next life cuts it, physically, before it writes behind it: were it left there, a shorter group
 * could later be followed by its rest. Behind the log there are nothing but the zeroes that were
 * written in advance, and they are no entries. */
static void torn_tail(void)
{
    enum { LARGE = 200 * 1000, ROUNDS = 3 };
    char *large = mem_alloc(LARGE);
    memset(large, 'x', LARGE);
    struct process *node = begin_lone_replica("torn");
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct skv_result result;
        char value[16];
        snprintf(value, sizeof value, "%u", round);
        put("kept", value);
        struct tail before = newest_tail(node);
        shim_arm(&shim, 0,
                 &(struct shim_order){.classes = SHIM_BIT(SHIM_WAL_SEGMENT),
                                      .kinds = SHIM_BIT(SHIM_WRITE),
                                      .action = SHIM_KILL_HALF,
                                      .nth = 1});
        CHECK(skv_put(client, "torn", 4, large, LARGE, 2000, &result) != SKV_OK);
        CHECK(wait_until(has_ended, node, LIMIT_SECONDS));
        shim_disarm(&shim, 0);
        struct tail torn = newest_tail(node);
        CHECK(strcmp(torn.name, before.name) == 0);
        CHECK_CMP(torn.end, >, before.end + LARGE / 4);
        process_start(&cluster, node);
        expect_value("kept", value);
        process_kill(node);
        struct tail cut = newest_tail(node);
        CHECK(strcmp(cut.name, before.name) == 0);
        CHECK_CMP(cut.end, <, before.end + LARGE / 4);
        CHECK_CMP(cut.size, >, cut.end + 4096); /* zeroes, written in advance */
        process_start(&cluster, node);
        expect_value("kept", value);
        CHECK_EQ(skv_get(client, "torn", 4, 30000, &result), SKV_NOT_FOUND);
    }
    free(large);
    end();
}

/* ---- 68: a dropped shard stays dropped ---- */

static enum shard_state state_of(const struct process *process, uint32_t shard, bool *answered)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    enum shard_state state = SHARD_ABSENT; /* also when it is not listed */
    *answered = process_status(&cluster, process, false, status);
    if (*answered) {
        for (uint32_t i = 0; i < status->shard_count; i++) {
            if (status->shards[i].shard == shard) {
                state = (enum shard_state)status->shards[i].state;
            }
        }
        msg_status_response_deinit(status);
    }
    free(status);
    return state;
}

static bool absent_everywhere(void *context)
{
    (void)context;
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        for (uint32_t shard = 0; shard < MOVED_SHARDS; shard++) {
            bool answered;
            if (state_of(cluster_find(&cluster, 1, id), shard, &answered) != SHARD_ABSENT ||
                !answered) {
                return false;
            }
        }
    }
    return true;
}

static void move_all(uint64_t to)
{
    char group[16];
    snprintf(group, sizeof group, "%llu", (unsigned long long)to);
    for (uint32_t shard = 0; shard < MOVED_SHARDS; shard++) {
        char number[16];
        snprintf(number, sizeof number, "%u", shard);
        CHECK_EQ(cluster_ctl(&cluster, LIMIT_SECONDS, NULL, "move", "--wait", "--timeout=30s",
                             number, group, NULL),
                 0);
    }
}

/* Everything moves away from group 1 while its leader is stopped and another replica is down; both
 * come back to a group that has dropped it all. The one goes on where it was, with what it had
 * under way; the other may be sent a snapshot. Nothing comes back with them. */
static void dropped_stays_dropped(void)
{
    cluster_create(&cluster, "dropped", MOVED_SHARDS);
    cluster.keep = true;
    cluster_add_group(&cluster, 1);
    for (uint32_t id = 1; id <= CLUSTER_REPLICAS; id++) {
        struct process *process = cluster_find(&cluster, 1, id);
        process->arguments[0] = "--flush-log-size";
        process->arguments[1] = "1MiB";
        process->arguments[2] = "--segment-size";
        process->arguments[3] = "1MiB";
    }
    cluster_start_group(&cluster, 1);
    join(1);
    open_client();
    load_many(1, 5000);
    put("last", "before");
    cluster_start_group(&cluster, 2);
    char spec[512];
    cluster_group_spec(&cluster, 2, spec, sizeof spec);
    CHECK_EQ(
        cluster_ctl(&cluster, LIMIT_SECONDS, NULL, "join", "--wait", "--timeout=30s", spec, NULL),
        0);
    move_all(1);
    for (uint32_t round = 0; round < 2; round++) {
        struct process *leader = leader_of(1);
        struct process *victim = round == 0 ? leader : after(leader, 1);
        if (round == 0) {
            process_signal(victim, SIGSTOP);
        } else {
            process_kill(victim);
            load_many(2, 5000); /* its log is compacted away */
        }
        move_all(2);
        put("last", round == 0 ? "first" : "second");
        if (round == 0) {
            process_signal(victim, SIGCONT);
        } else {
            process_start(&cluster, victim);
        }
        CHECK(wait_until(absent_everywhere, NULL, LIMIT_SECONDS));
        CHECK(cluster_wait_equal(&cluster, 1, LIMIT_SECONDS));
        let_run(1); /* late messages would have come */
        CHECK(absent_everywhere(NULL));
        expect_value("last", round == 0 ? "first" : "second");
        move_all(1);
        expect_value("last", round == 0 ? "first" : "second");
    }
    end();
}

int main(int argc, char **argv)
{
    const struct suite_test tests[] = {
        {"InflatedTerm", inflated_term},
        {"OwnSync", own_sync},
        {"ReadsWaitForReplay", reads_wait_for_replay},
        {"OtherDisks", other_disks},
        {"TornTail", torn_tail},
        {"DroppedStaysDropped", dropped_stays_dropped},
    };
    return suite_main(argc, argv, tests, sizeof tests / sizeof tests[0]);
}

/* What the cluster does while one of its processes is killed: see crash_points.h. Small segments
 * and a small log, so that a few writes roll segments over, flush the store and cut the log. */
#include "fault/crash_points.h"

#include "client/shardkv.h"
#include "lib/suite.h"
#include "proto/messages.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define CALL_TIMEOUT_MS    60000u
#define SETTLE_SECONDS     60.0
#define BACKGROUND_SECONDS 0.6

/* ---- the model ---- */

void model_open(struct model *model, const struct cluster *cluster)
{
    memset(model, 0, sizeof *model);
    char why[SKV_ERROR_TEXT_BYTES] = "";
    struct skv_options options = {.controllers = cluster->controllers,
                                  .cluster = cluster->name,
                                  .open_timeout_ms = CALL_TIMEOUT_MS};
    if (skv_open(&options, &model->client, why, sizeof why) != 0) {
        FAIL("%s", why);
    }
}

void model_close(struct model *model)
{
    skv_close(model->client);
}

static size_t make_key(uint32_t key, char out[32])
{
    return (size_t)snprintf(out, 32, "point-%u", key);
}

static void make_value(uint32_t key, uint64_t counter, uint8_t out[MODEL_VALUE_BYTES])
{
    struct rng rng;
    rng_init(&rng, counter * MODEL_KEYS + key); /* so that no compression makes it small */
    for (size_t i = 0; i < MODEL_VALUE_BYTES; i += sizeof(uint64_t)) {
        uint64_t word = rng_next(&rng);
        memcpy(out + i, &word, sizeof word);
    }
}

void model_write(struct model *model, uint32_t count)
{
    static uint8_t value[MODEL_VALUE_BYTES];
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = (uint32_t)(model->next++ % MODEL_KEYS);
        char name[32];
        size_t size = make_key(key, name);
        make_value(key, model->counters[key] + 1, value);
        struct skv_result result;
        int code =
            skv_put(model->client, name, size, value, sizeof value, CALL_TIMEOUT_MS, &result);
        if (code != SKV_OK) {
            FAIL("put %s: %s", name, skv_code_text(code));
        }
        skv_result_free(&result);
        model->counters[key]++;
        model->writes++;
    }
}

void model_check(struct model *model)
{
    static uint8_t value[MODEL_VALUE_BYTES];
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        if (model->counters[key] == 0) {
            continue;
        }
        char name[32];
        size_t size = make_key(key, name);
        make_value(key, model->counters[key], value);
        struct skv_result result;
        int code = skv_get(model->client, name, size, CALL_TIMEOUT_MS, &result);
        if (code != SKV_OK || result.value_size != sizeof value ||
            memcmp(result.value, value, sizeof value) != 0) {
            FAIL("%s is not its value %llu, which was acknowledged: %s, %zu bytes", name,
                 (unsigned long long)model->counters[key], skv_code_text(code), result.value_size);
        }
        skv_result_free(&result);
    }
}

/* ---- the cluster ---- */

/* What is flushed at once is more than the 1 MiB from which rows go into a table of their own. */
static void set_flags(struct process *process)
{
    process->arguments[0] = "--segment-size=64KiB";
    process->arguments[1] = "--flush-log-size=1536KiB";
}

static void equip(struct cluster *cluster, struct shim *shims, uint64_t group)
{
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        if (cluster->processes[i].group == group) {
            set_flags(&cluster->processes[i]);
            shim_attach(&shims[i], cluster, &cluster->processes[i]);
        }
    }
}

struct shim *points_victim_shim(struct points *points)
{
    return points->home == &points->founding
               ? &points->founding_shims[points->victim - points->founding.processes]
               : &points->shims[points->victim - points->cluster.processes];
}

/* Shards 0 to MOVING - 1 go to and fro; those up to HOME stay at group 1, so that it is always
 * written to; the others are at group 2. */
enum { SHARDS_MOVING = 4, SHARDS_HOME = 14 };

static void move_shards(struct points *points, uint32_t from, uint32_t to, const char *group)
{
    for (uint32_t shard = from; shard < to; shard++) {
        char text[16];
        snprintf(text, sizeof text, "%u", shard);
        if (points->victim != NULL && points_is_dead(points)) {
            return;
        }
        struct buf out = {0};
        CHECK_EQ(
            cluster_ctl(&points->cluster, 60, &out, "move", "--timeout", "30s", text, group, NULL),
            0);
        buf_deinit(&out);
    }
}

void points_open(struct points *points, uint64_t seed)
{
    memset(points, 0, sizeof *points);
    rng_init(&points->rng, seed);
    struct cluster *cluster = &points->cluster;
    cluster_prepare(cluster, "points", POINTS_SHARDS);
    cluster->keep = true;
    equip(cluster, points->shims, 0);
    cluster_start_group(cluster, 0);
    for (uint64_t group = 1; group <= POINTS_GROUPS; group++) {
        cluster_add_group(cluster, group);
        equip(cluster, points->shims, group);
        cluster_start_group(cluster, group);
        char spec[512];
        cluster_group_spec(cluster, group, spec, sizeof spec);
        CHECK_EQ(cluster_ctl(cluster, 60, NULL, "join", "--timeout", "30s", spec, NULL), 0);
    }
    cluster_prepare(&points->founding, "points", POINTS_SHARDS);
    points->founding.keep = true;
    memcpy(points->founding.controllers, cluster->controllers, sizeof cluster->controllers);
    cluster_add_group(&points->founding, POINTS_FOUNDED);
    equip(&points->founding, points->founding_shims, POINTS_FOUNDED);
    points->home = cluster;
    move_shards(points, 0, SHARDS_HOME, "1");
    move_shards(points, SHARDS_HOME, POINTS_SHARDS, "2");
    CHECK(cluster_wait_settled(cluster, SETTLE_SECONDS));
    model_open(&points->model, cluster);
    model_write(&points->model, MODEL_KEYS);
}

void points_close(struct points *points)
{
    model_close(&points->model);
    points->founding.keep = points->cluster.keep = false;
    cluster_destroy(&points->founding);
    cluster_destroy(&points->cluster);
}

bool points_is_dead(struct points *points)
{
    return !process_is_running(points->victim);
}

static bool is_dead(void *context)
{
    return points_is_dead(context);
}

/* What the work set off may go on behind it. */
static void wait_for_background(struct points *points)
{
    (void)wait_until(is_dead, points, BACKGROUND_SECONDS);
}

/* ---- members: one that is not the victim is replaced by a new one ---- */

static bool tell_member(struct points *points, const char *verb, const char *what)
{
    struct buf out = {0};
    int code =
        cluster_ctl(&points->cluster, 30, &out, "member", "--timeout", "5s", verb, "1", what, NULL);
    buf_deinit(&out);
    return code == 0;
}

/* One step; an outcome that is not known is tried again. */
static void change_step(struct points *points)
{
    struct process *changing = points->changing;
    char id[16], address[PROCESS_ADDRESS_BYTES], added[64];
    snprintf(id, sizeof id, "%u", changing->id);
    switch (points->change) {
    case CHANGE_NONE:
        break;
    case CHANGE_REMOVE:
        points->change += tell_member(points, "remove", id);
        break;
    case CHANGE_START: {
        struct shim *shim = &points->shims[changing - points->cluster.processes];
        process_kill(changing);
        shim_detach(shim, changing);
        changing->id = points->newest_id = points->newest_id < 11 ? 11 : points->newest_id + 1;
        changing->later = true;
        shim_attach(shim, &points->cluster, changing);
        process_start(&points->cluster, changing);
        points->change = CHANGE_ADD;
        break;
    }
    case CHANGE_ADD:
        process_address(changing, address);
        snprintf(added, sizeof added, "%u=%s", changing->id, address);
        points->change += tell_member(points, "add", added);
        break;
    case CHANGE_PROMOTE:
        points->change = tell_member(points, "promote", id) ? CHANGE_NONE : CHANGE_PROMOTE;
        break;
    }
}

static void finish_change(struct points *points)
{
    for (double until = now_seconds() + SETTLE_SECONDS; points->change != CHANGE_NONE;) {
        CHECK(now_seconds() < until);
        change_step(points);
    }
}

static void start_what_is_down(struct cluster *cluster, uint64_t from_group)
{
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        struct process *process = &cluster->processes[i];
        if (process->group >= from_group && !process_is_running(process)) {
            process_start(cluster, process);
        }
    }
}

static void expect_equal(struct points *points, const struct points_work *work,
                         struct cluster *cluster, uint64_t group)
{
    if (cluster_leader(cluster, group, SETTLE_SECONDS) == NULL) {
        FAIL("%s: group %llu has no leader", work->name, (unsigned long long)group);
    }
    if (!cluster_wait_equal(cluster, group, SETTLE_SECONDS)) {
        FAIL("%s: the replicas of group %llu do not become equal", work->name,
             (unsigned long long)group);
    }
    if (points_is_dead(points)) {
        FAIL("%s: replica %u of group %llu ended again, status %d", work->name, points->victim->id,
             (unsigned long long)points->victim->group, points->victim->status);
    }
}

void points_recover(struct points *points, const struct points_work *work)
{
    if (points->home == &points->founding) {
        start_what_is_down(&points->founding, POINTS_FOUNDED);
        expect_equal(points, work, &points->founding, POINTS_FOUNDED);
        for (uint32_t i = 0; i < points->founding.process_count; i++) {
            process_kill(&points->founding.processes[i]);
        }
        points->home = &points->cluster;
        points->victim = NULL;
        return;
    }
    start_what_is_down(&points->cluster, 0);
    finish_change(points);
    model_write(&points->model, 2);
    if (!cluster_wait_settled(&points->cluster, SETTLE_SECONDS)) {
        FAIL("%s: the moves do not settle", work->name);
    }
    for (uint64_t group = 0; group <= POINTS_GROUPS; group++) {
        expect_equal(points, work, &points->cluster, group);
    }
    model_check(&points->model);
}

/* ---- choosing ---- */

static struct process *leader_of(struct points *points, uint64_t group)
{
    struct process *leader = cluster_leader(&points->cluster, group, SETTLE_SECONDS);
    CHECK(leader != NULL);
    return leader;
}

/* By its place in the table: ids change. */
static struct process *neighbour_of(struct points *points, const struct process *process,
                                    uint32_t step)
{
    struct process *first = points->cluster.processes;
    while (first->group != process->group) {
        first++;
    }
    return first + ((uint32_t)(process - first) + step) % CLUSTER_REPLICAS;
}

static struct process *follower_of(struct points *points, uint64_t group)
{
    return neighbour_of(points, leader_of(points, group),
                        (uint32_t)rng_between(&points->rng, 1, CLUSTER_REPLICAS - 1));
}

/* ---- writes: segments roll over and are used again, the store is flushed, the log is cut ---- */

/* Group 1 gets at least three of four. */
enum { WRITES_FOR_A_FLUSH = 40, WRITES_A_LOOK = 10 };

static void write_some(struct points *points)
{
    for (uint32_t i = 0; i < WRITES_FOR_A_FLUSH && !points_is_dead(points); i++) {
        model_write(&points->model, 1);
    }
    wait_for_background(points);
}

static void prepare_follower(struct points *points)
{
    points->victim = follower_of(points, 1);
}

static void prepare_leader(struct points *points)
{
    points->victim = leader_of(points, 1);
}

/* ---- a follower is away for longer than the log is kept, and is sent a snapshot ---- */

static bool is_equal_or_dead(void *context)
{
    struct points *points = context;
    return points_is_dead(points) || cluster_wait_equal(&points->cluster, 1, 0);
}

struct cut {
    struct points *points;
    uint64_t behind; /* the log is to begin after this index */
};

static bool log_is_cut(const struct cut *cut)
{
    const struct process *leader = cluster_leader(&cut->points->cluster, 1, SETTLE_SECONDS);
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    bool is_cut = false;
    if (leader != NULL && process_status(&cut->points->cluster, leader, false, status)) {
        is_cut = status->log_first > cut->behind;
        msg_status_response_deinit(status);
    }
    free(status);
    return is_cut;
}

/* `away` stops, and what it would need next is no longer in the leader's log. */
static void leave_behind(struct points *points, struct process *away)
{
    struct msg_status_response *status = mem_calloc(1, sizeof *status);
    CHECK(process_status(&points->cluster, away, false, status));
    struct cut cut = {points, status->log_last + 1};
    msg_status_response_deinit(status);
    free(status);
    process_kill(away);
    double until = now_seconds() + SETTLE_SECONDS;
    do { /* what holds the log (it may still be needed) does so up to a length */
        CHECK(now_seconds() < until);
        model_write(&points->model, WRITES_A_LOOK);
    } while (!log_is_cut(&cut));
}

static void prepare_lagging(struct points *points)
{
    points->victim = follower_of(points, 1);
    leave_behind(points, points->victim);
}

static void come_back(struct points *points)
{
    process_start(&points->cluster, points->victim);
    (void)wait_until(is_equal_or_dead, points, SETTLE_SECONDS);
}

static void prepare_sender(struct points *points)
{
    points->helper = follower_of(points, 1);
    points->victim = leader_of(points, 1);
    leave_behind(points, points->helper);
    points->victim = leader_of(points, 1); /* it may have changed */
}

static void help_back(struct points *points)
{
    process_start(&points->cluster, points->helper);
    (void)wait_until(is_equal_or_dead, points, SETTLE_SECONDS);
    wait_for_background(points);
}

/* ---- members ---- */

static void prepare_change(struct points *points)
{
    const struct process *leader = leader_of(points, 1);
    uint32_t step = (uint32_t)rng_between(&points->rng, 1, CLUSTER_REPLICAS - 1);
    points->changing = neighbour_of(points, leader, step);
    points->change = CHANGE_REMOVE;
    points->victim = rng_below(&points->rng, 2) == 0
                         ? neighbour_of(points, leader, 0)
                         : neighbour_of(points, leader, CLUSTER_REPLICAS - step);
}

static void change_members(struct points *points)
{
    for (double until = now_seconds() + SETTLE_SECONDS;
         points->change != CHANGE_NONE && !points_is_dead(points);) {
        CHECK(now_seconds() < until);
        change_step(points);
    }
    wait_for_background(points);
}

/* ---- a start: recovery of the log, the snapshot and the store ---- */

static void prepare_restart(struct points *points)
{
    points->victim = follower_of(points, 1);
    model_write(&points->model, MODEL_KEYS / 2);
    process_kill(points->victim);
}

/* ---- moves ---- */

static bool is_settled_or_dead(void *context)
{
    struct points *points = context;
    return points_is_dead(points) || cluster_wait_settled(&points->cluster, 0);
}

static void settle_at(struct points *points, const char *group)
{
    move_shards(points, 0, SHARDS_MOVING, group);
    (void)wait_until(is_settled_or_dead, points, SETTLE_SECONDS);
}

static void prepare_move_out(struct points *points)
{
    points->victim = follower_of(points, 1);
    settle_at(points, "1");
    points->victim = rng_below(&points->rng, 2) == 0 ? leader_of(points, 1) : points->victim;
}

static void move_out(struct points *points)
{
    settle_at(points, "2");
    wait_for_background(points);
}

static void prepare_move_in(struct points *points)
{
    points->victim = follower_of(points, 1);
    settle_at(points, "2");
    points->victim = rng_below(&points->rng, 2) == 0 ? leader_of(points, 1) : points->victim;
}

static void move_in(struct points *points)
{
    settle_at(points, "1");
    wait_for_background(points);
}

/* ---- configs ---- */

static void prepare_controller(struct points *points)
{
    points->victim =
        rng_below(&points->rng, 2) == 0 ? leader_of(points, 0) : follower_of(points, 0);
}

static void change_configs(struct points *points)
{
    move_shards(points, 0, SHARDS_MOVING, "2");
    move_shards(points, 0, SHARDS_MOVING, "1");
    (void)wait_until(is_settled_or_dead, points, SETTLE_SECONDS);
}

static void prepare_controller_restart(struct points *points)
{
    points->victim = follower_of(points, 0);
    process_kill(points->victim);
}

static bool controller_is_back(void *context)
{
    struct points *points = context;
    return points_is_dead(points) || cluster_wait_equal(&points->cluster, 0, 0);
}

static void controller_back(struct points *points)
{
    process_start(&points->cluster, points->victim);
    (void)wait_until(controller_is_back, points, SETTLE_SECONDS);
}

/* ---- a group is founded ---- */

static void prepare_founding(struct points *points)
{
    struct cluster *cluster = &points->founding;
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        char data[320];
        process_data_dir(cluster, &cluster->processes[i], data, sizeof data);
        char *argv[] = {"/bin/rm", "-rf", data, NULL};
        CHECK_EQ(program_run(argv, 30, NULL), 0);
    }
    points->home = cluster;
    points->victim = cluster_find(cluster, POINTS_FOUNDED,
                                  (uint32_t)rng_between(&points->rng, 1, CLUSTER_REPLICAS));
}

static bool is_founded(void *context)
{
    struct points *points = context;
    return points_is_dead(points) || cluster_wait_equal(&points->founding, POINTS_FOUNDED, 0);
}

static void found(struct points *points)
{
    cluster_start_group(&points->founding, POINTS_FOUNDED);
    (void)wait_until(is_founded, points, SETTLE_SECONDS);
    wait_for_background(points);
}

const struct points_work points_works[] = {
    {"writes, at a follower", prepare_follower, write_some, false},
    {"writes, at the leader", prepare_leader, write_some, false},
    {"a snapshot is received", prepare_lagging, come_back, true},
    {"a snapshot is sent", prepare_sender, help_back, true},
    {"a replica starts", prepare_restart, come_back, false},
    {"shards leave", prepare_move_out, move_out, false},
    {"shards arrive", prepare_move_in, move_in, false},
    {"configs", prepare_controller, change_configs, false},
    {"a controller starts", prepare_controller_restart, controller_back, false},
    {"members change", prepare_change, change_members, false},
    {"a group is founded", prepare_founding, found, false},
    {NULL, NULL, NULL, false},
};

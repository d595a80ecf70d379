/* The driver of moves; see mover.h. One owner at a time.
 *
 * A task is a place of work: it is begun because the table shows something to do, does one thing at
 * a time (it waits for at most one answer, `waiting_id`), and looks at the table again before the
 * next. It ends when the table shows nothing more to do for it, or when its source group does not
 * answer. */
#include "base/assert.h"
#include "base/metrics.h"
#include "shardkv/mover_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

METRIC(move_call_count, COUNTER, "calls to source groups of moving shards");
METRIC(move_call_failed_count, COUNTER, "of these, without a useful answer");

struct mover_options mover_options_default(uint64_t group_id, uint64_t seed)
{
    return (struct mover_options){
        .group_id = group_id,
        .seed = seed,
        .chunk_bytes = MOVE_CHUNK_BYTES,
        .call_timeout_ns = 5 * NS_PER_S,
        .backoff_min_ns = 50 * NS_PER_MS,
        .backoff_max_ns = 2 * NS_PER_S,
        .expire_interval_ns = 300 * NS_PER_S,
        .poll_interval_ns = 5 * NS_PER_S,
    };
}

void mover_action_deinit(struct mover_action *action)
{
    buf_deinit(&action->payload);
    buf_deinit(&action->after_row);
    free(action->members);
    action->members = NULL;
}

/* ---- tasks and actions
 * --------------------------------------------------------------------------------------- */

void mover__task_end(struct task *task)
{
    buf_deinit(&task->after_row);
    *task = (struct task){.kind = TASK_FREE};
}

struct task *mover__task_waiting_for(struct mover *mover, uint64_t id)
{
    for (uint32_t i = 0; i < MOVER_TASKS_MAX; i++) {
        if (mover->tasks[i].kind != TASK_FREE && mover->tasks[i].waiting_id == id) {
            return &mover->tasks[i];
        }
    }
    return NULL;
}

struct mover_action *mover__action_add(struct mover *mover, struct task *task,
                                       enum mover_action_kind kind)
{
    ASSERT(task->waiting_id == 0);
    if (mover->action_next == mover->action_count) {
        mover->action_next = 0;
        mover->action_count = 0;
    }
    ASSERT_CMP(mover->action_count, <,
               MOVER_TASKS_MAX); /* one a task, and they are taken after every tick */
    struct mover_action *action = &mover->actions[mover->action_count];
    mover->action_count++;
    mover->next_id++;
    *action = (struct mover_action){.kind = kind, .id = mover->next_id};
    task->waiting_id = mover->next_id;
    return action;
}

void mover__propose(struct mover *mover, struct task *task, const struct kv_command *command)
{
    kv_command_encode(command, &mover__action_add(mover, task, MOVER_PROPOSE)->payload);
}

/* A random wait within [half, whole] of a span that doubles with every failure. */
static uint64_t backoff_ns(struct mover *mover, uint32_t failures)
{
    uint64_t span = mover->options.backoff_min_ns;
    for (uint32_t i = 1; i < failures && span < mover->options.backoff_max_ns; i++) {
        span *= 2;
    }
    span = span < mover->options.backoff_max_ns ? span : mover->options.backoff_max_ns;
    return rng_between(&mover->rng, span / 2, span);
}

void mover__task_back_off(struct mover *mover, struct task *task, uint64_t now_ns)
{
    if (task->failures < FAILURES_COUNTED_MAX) {
        task->failures++;
    }
    task->not_before_ns = now_ns + backoff_ns(mover, task->failures);
}

/* ---- source groups
 * ------------------------------------------------------------------------------------------- */

struct peer *mover__peer_of(struct mover *mover, uint64_t id)
{
    for (uint32_t i = 0; i < mover->peer_count; i++) {
        if (mover->peers[i].id == id) {
            return &mover->peers[i];
        }
    }
    mover->peers = mem_realloc(mover->peers, (mover->peer_count + 1) * sizeof *mover->peers);
    struct peer *peer = &mover->peers[mover->peer_count];
    mover->peer_count++;
    *peer = (struct peer){.id = id};
    return peer;
}

static bool peer_is_resting(struct mover *mover, uint64_t id, uint64_t now_ns)
{
    return mover__peer_of(mover, id)->not_before_ns > now_ns;
}

void mover__peer_rest(struct mover *mover, struct peer *peer, uint64_t now_ns)
{
    if (peer->failures < FAILURES_COUNTED_MAX) {
        peer->failures++;
    }
    peer->not_before_ns = now_ns + backoff_ns(mover, peer->failures);
}

void mover__peer_failed(struct mover *mover, struct peer *peer, uint64_t now_ns)
{
    peer->leader[0] = '\0';
    peer->hinted = false;
    peer->next_replica++;
    peer->attempt++;
    mover__peer_rest(mover, peer, now_ns);
    metric_add(&move_call_failed_count, 1);
}

static bool listed_in(struct config_share *config, uint64_t id, struct config_group *out)
{
    const struct config_group *group =
        config == NULL ? NULL : config_find_group(config_share_get(config), id);
    if (group == NULL || group->replica_count == 0) {
        return false;
    }
    *out = *group;
    return true;
}

/* Replicas of the task's source: as the newest config has them that still lists it, or for a drop
 * as they were when the shard was installed. */
static bool source_group(const struct mover *mover, const struct task *task,
                         struct config_group *out)
{
    const struct kv_table *table = mover->table;
    bool ahead = mover->newest != NULL && mover->latest > table->config_number;
    if ((ahead && listed_in(mover->newest, task->source, out)) ||
        listed_in(table->config, task->source, out)) {
        return true;
    }
    for (uint32_t i = 0; i < table->pending_count; i++) {
        const struct pending_drop *drop = &table->pending[i];
        if (drop->shard == task->shard && drop->number == task->number) {
            return pending_source_decode(blob_view(drop->source), out) == 0 &&
                   out->replica_count > 0;
        }
    }
    return false;
}

static struct mover_action *call(struct mover *mover, struct task *task, enum mover_verb verb,
                                 uint64_t now_ns)
{
    struct config_group group;
    if (!source_group(mover, task, &group)) {
        mover__task_back_off(mover, task, now_ns); /* a config in which it is listed may come */
        return NULL;
    }
    struct peer *peer = mover__peer_of(mover, task->source);
    struct mover_action *action = mover__action_add(mover, task, MOVER_CALL);
    const char *address = peer->leader[0] != '\0'
                              ? peer->leader
                              : group.replicas[peer->next_replica % group.replica_count].address;
    snprintf(action->address, sizeof action->address, "%s", address);
    action->verb = verb;
    action->shard = task->shard;
    action->number = task->number;
    action->from_group = task->source;
    action->to_group = mover->options.group_id;
    action->timeout_ns = mover->options.call_timeout_ns;
    task->verb = verb;
    task->attempt = peer->attempt;
    metric_add(&move_call_count, 1);
    return action;
}

/* ---- what each kind of task does next
 * ------------------------------------------------------------------------ */

static void run_config(struct mover *mover, struct task *task, uint64_t now_ns)
{
    bool known = mover->latest > mover->table->config_number;
    if ((!known && now_ns < mover->next_poll_ns) || !kv_table_is_settled(mover->table)) {
        return;
    }
    struct mover_action *action = mover__action_add(mover, task, MOVER_FETCH_CONFIG);
    action->number = mover->table->config_number + 1;
    task->number = action->number;
}

static void run_expire(struct mover *mover, struct task *task, uint64_t now_ns)
{
    const struct kv_table *table = mover->table;
    while (mover->expire_shard < table->shard_count) {
        const struct shard_record *record = &table->shards[mover->expire_shard];
        if (record->state == SHARD_SERVING && record->session_count > 0) {
            task->shard = mover->expire_shard;
            mover__propose(mover, task,
                           &(struct kv_command){.kind = KV_COMMAND_EXPIRE, .shard = task->shard});
            return;
        }
        mover->expire_shard++;
    }
    mover->expire_shard = 0;
    task->not_before_ns = now_ns + mover->options.expire_interval_ns;
}

static void run_pull(struct mover *mover, struct task *task, uint64_t now_ns)
{
    const struct shard_record *record = &mover->table->shards[task->shard];
    if (record->state != SHARD_PULLING || record->number != task->number) {
        mover__task_end(task);
        return;
    }
    if (record->clearing) {
        mover__propose(mover, task,
                       &(struct kv_command){
                           .kind = KV_COMMAND_STEP, .shard = task->shard, .number = task->number});
        return;
    }
    enum mover_verb verb = !task->opened      ? MOVER_OPEN
                           : record->complete ? MOVER_FREEZE
                                              : MOVER_READ;
    struct mover_action *action = call(mover, task, verb, now_ns);
    if (action != NULL && verb == MOVER_READ) {
        task->generation = record->generation;
        buf_clear(&task->after_row);
        buf_append_bytes(&task->after_row, shard_record_last_row(record));
        buf_append_bytes(&action->after_row, shard_record_last_row(record));
        action->bytes_max = mover->options.chunk_bytes;
    } else {
        task->generation = record->generation;
    }
}

static void run_step(struct mover *mover, struct task *task)
{
    const struct shard_record *record = &mover->table->shards[task->shard];
    if (record->state != SHARD_DROPPING || record->number != task->number) {
        mover__task_end(task);
        return;
    }
    mover__propose(mover, task,
                   &(struct kv_command){
                       .kind = KV_COMMAND_STEP, .shard = task->shard, .number = task->number});
}

static bool drop_is_pending(const struct kv_table *table, uint32_t shard, uint64_t number)
{
    for (uint32_t i = 0; i < table->pending_count; i++) {
        if (table->pending[i].shard == shard && table->pending[i].number == number) {
            return true;
        }
    }
    return false;
}

static void run_drop(struct mover *mover, struct task *task, uint64_t now_ns)
{
    if (!drop_is_pending(mover->table, task->shard, task->number)) {
        mover__task_end(task);
    } else if (task->confirming) {
        mover__propose(mover, task,
                       &(struct kv_command){.kind = KV_COMMAND_DROP_CONFIRMED,
                                            .shard = task->shard,
                                            .number = task->number});
    } else {
        (void)call(mover, task, MOVER_DROP, now_ns);
    }
}

static void task_run(struct mover *mover, struct task *task, uint64_t now_ns)
{
    if (task->kind == TASK_FREE || task->waiting_id != 0 || task->not_before_ns > now_ns) {
        return;
    }
    bool asks_peer = task->kind == TASK_PULL || task->kind == TASK_DROP;
    if (asks_peer && peer_is_resting(mover, task->source, now_ns)) {
        mover__task_end(task);
        return;
    }
    switch (task->kind) {
    case TASK_CONFIG:
        run_config(mover, task, now_ns);
        return;
    case TASK_EXPIRE:
        run_expire(mover, task, now_ns);
        return;
    case TASK_PULL:
        run_pull(mover, task, now_ns);
        return;
    case TASK_DROP:
        run_drop(mover, task, now_ns);
        return;
    case TASK_STEP:
        run_step(mover, task);
        return;
    case TASK_MEMBERS:
        mover__run_members(mover, task);
        return;
    case TASK_FREE:
        break;
    }
    UNREACHABLE();
}

/* ---- finding work
 * -------------------------------------------------------------------------------------------- */

static bool has_task(const struct mover *mover, enum task_kind kind, uint32_t shard,
                     uint64_t number)
{
    for (uint32_t i = 0; i < MOVER_TASKS_MAX; i++) {
        const struct task *task = &mover->tasks[i];
        if (task->kind == kind && task->shard == shard && task->number == number) {
            return true;
        }
    }
    return false;
}

static uint32_t count_tasks(const struct mover *mover, enum task_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < MOVER_TASKS_MAX; i++) {
        count += mover->tasks[i].kind == kind ? 1 : 0;
    }
    return count;
}

static void task_begin(struct mover *mover, enum task_kind kind, uint32_t shard, uint64_t number,
                       uint64_t source)
{
    for (uint32_t i = 0; i < MOVER_TASKS_MAX; i++) {
        if (mover->tasks[i].kind == TASK_FREE) {
            mover->tasks[i] =
                (struct task){.kind = kind, .shard = shard, .number = number, .source = source};
            return;
        }
    }
    UNREACHABLE(); /* the maxima of all kinds add up to the places */
}

static void find_shard_work(struct mover *mover, uint32_t shard, uint32_t *pulls, uint32_t *steps,
                            uint64_t now_ns)
{
    const struct shard_record *record = &mover->table->shards[shard];
    if (record->state == SHARD_PULLING && *pulls < MOVER_PULLS_MAX &&
        !has_task(mover, TASK_PULL, shard, record->number) &&
        !peer_is_resting(mover, record->peer_group, now_ns)) {
        task_begin(mover, TASK_PULL, shard, record->number, record->peer_group);
        (*pulls)++;
    } else if (record->state == SHARD_DROPPING && *steps < MOVER_STEPS_MAX &&
               !has_task(mover, TASK_STEP, shard, record->number)) {
        task_begin(mover, TASK_STEP, shard, record->number, 0);
        (*steps)++;
    }
}

static void find_drops(struct mover *mover, uint64_t now_ns)
{
    uint32_t drops = count_tasks(mover, TASK_DROP);
    for (uint32_t i = 0; i < mover->table->pending_count && drops < MOVER_DROPS_MAX; i++) {
        const struct pending_drop *drop = &mover->table->pending[i];
        struct config_group source;
        if (has_task(mover, TASK_DROP, drop->shard, drop->number) ||
            pending_source_decode(blob_view(drop->source), &source) != 0 ||
            peer_is_resting(mover, source.id, now_ns)) {
            continue;
        }
        task_begin(mover, TASK_DROP, drop->shard, drop->number, source.id);
        drops++;
    }
}

static void find_work(struct mover *mover, uint64_t now_ns)
{
    const struct kv_table *table = mover->table;
    if (count_tasks(mover, TASK_CONFIG) == 0) {
        task_begin(mover, TASK_CONFIG, 0, 0, 0);
    }
    if (count_tasks(mover, TASK_EXPIRE) == 0) {
        task_begin(mover, TASK_EXPIRE, 0, 0, 0);
    }
    if (count_tasks(mover, TASK_MEMBERS) == 0) {
        task_begin(mover, TASK_MEMBERS, 0, 0, 0);
    }
    uint32_t pulls = count_tasks(mover, TASK_PULL);
    uint32_t steps = count_tasks(mover, TASK_STEP);
    for (uint32_t i = 0; i < table->shard_count; i++) {
        if (pulls == MOVER_PULLS_MAX && steps == MOVER_STEPS_MAX) {
            break;
        }
        mover->next_shard = (mover->next_shard + 1) % table->shard_count;
        find_shard_work(mover, mover->next_shard, &pulls, &steps, now_ns);
    }
    find_drops(mover, now_ns);
}

void mover_tick(struct mover *mover, uint64_t now_ns)
{
    if (!mover->leader || mover->table == NULL) {
        return;
    }
    mover->now_ns = now_ns;
    /* Twice: what ends makes room for what is found, and what is found runs. */
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < MOVER_TASKS_MAX; i++) {
            task_run(mover, &mover->tasks[i], now_ns);
        }
        if (round == 0) {
            find_work(mover, now_ns);
        }
    }
}

static void wake_at(const struct mover *mover, uint64_t at_ns, uint64_t *wake_ns)
{
    if (at_ns > mover->now_ns && at_ns < *wake_ns) {
        *wake_ns = at_ns;
    }
}

uint64_t mover_wake_ns(const struct mover *mover)
{
    uint64_t wake_ns = UINT64_MAX;
    if (!mover->leader || mover->table == NULL) {
        return wake_ns;
    }
    for (uint32_t i = 0; i < MOVER_TASKS_MAX; i++) {
        if (mover->tasks[i].kind != TASK_FREE && mover->tasks[i].waiting_id == 0) {
            wake_at(mover, mover->tasks[i].not_before_ns, &wake_ns);
        }
    }
    for (uint32_t i = 0; i < mover->peer_count; i++) {
        wake_at(mover, mover->peers[i].not_before_ns, &wake_ns);
    }
    wake_at(mover, mover->next_poll_ns, &wake_ns);
    return wake_ns;
}

bool mover_next(struct mover *mover, struct mover_action *out)
{
    if (mover->action_next == mover->action_count) {
        return false;
    }
    *out = mover->actions[mover->action_next];
    mover->action_next++;
    return true;
}

/* ---- life ---- */

struct mover *mover_create(const struct mover_options *options)
{
    struct mover *mover = mem_calloc(1, sizeof *mover);
    mover->options = *options;
    rng_init(&mover->rng, options->seed);
    return mover;
}

static void forget(struct mover *mover)
{
    struct mover_action action;
    for (uint32_t i = 0; i < MOVER_TASKS_MAX; i++) {
        mover__task_end(&mover->tasks[i]);
    }
    while (mover_next(mover, &action)) {
        mover_action_deinit(&action);
    }
    mover->peer_count = 0;
    mover->next_poll_ns = 0;
    mover->expire_shard = 0;
    mover->told_index = 0;
    mover->told_number = 0;
}

void mover_destroy(struct mover *mover)
{
    if (mover == NULL) {
        return;
    }
    forget(mover);
    kv_table_unref(mover->table);
    config_share_unref(mover->newest);
    free(mover->peers);
    free(mover);
}

void mover_set_leader(struct mover *mover, bool leader)
{
    if (!leader) {
        forget(mover);
    }
    mover->leader = leader;
}

void mover_set_table(struct mover *mover, struct kv_table *table)
{
    struct kv_table *old = mover->table;
    mover->table = kv_table_ref(table);
    kv_table_unref(old);
}

void mover_set_newest(struct mover *mover, struct config_share *config)
{
    uint64_t number = config_share_get(config)->number;
    if (mover->newest == NULL || number > mover->latest) {
        config_share_unref(mover->newest);
        mover->newest = config_share_ref(config);
        mover->latest = number;
    }
}

/* From the operations of one key to the tasks and lists of a search; see search_internal.h. */
#include "lin/search_internal.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

struct event {
    uint64_t at_ns;
    bool is_return;
    uint32_t task;
};

static int by_time(const void *a, const void *b)
{
    const struct event *x = a;
    const struct event *y = b;
    if (x->at_ns != y->at_ns) {
        return x->at_ns < y->at_ns ? -1 : 1;
    }
    if (x->is_return != y->is_return) {
        return x->is_return ? 1 : -1; /* at one moment they overlap */
    }
    return x->task < y->task ? -1 : x->task > y->task;
}

/* --- what nobody saw --- */

static bool absence_is_seen(const struct search *search)
{
    for (uint32_t i = 0; i < search->task_count; i++) {
        if (task_observes(&search->tasks[i]) && search->tasks[i].want == LIN_VALUE_ABSENT) {
            return true;
        }
    }
    for (uint32_t i = 0; i < search->model.observed_count; i++) {
        if (search->model.from_nothing[i]) {
            return true;
        }
    }
    return false;
}

/* --- tasks --- */

static struct task task_of(struct search *search, const struct lin_op *op)
{
    struct task task = {.open = op->returned_ns == LIN_NEVER,
                        .want = LIN_VALUE_NONE,
                        .called_at = AT_NEVER,
                        .returned_at = AT_NEVER,
                        .twin = NO_TASK,
                        .result = LIN_VALUE_NONE,
                        .base = NO_TASK,
                        .version = op->version,
                        .expected = op->expected};
    struct lin_model *model = &search->model;
    switch (op->kind) {
    case LIN_GET:
        task.kind = TASK_OBSERVE;
        task.want = lin_model_value(model, op->observed);
        break;
    case LIN_SEEN:
        task.kind = TASK_OBSERVE;
        search->cautious = true;
        break;
    case LIN_PUT:
        task.kind = TASK_WRITE;
        task.argument = lin_model_value(model, op->argument);
        break;
    case LIN_DELETE:
        task.kind = TASK_WRITE;
        task.argument = LIN_VALUE_ABSENT;
        task.version = 0; /* an absent key has none */
        break;
    case LIN_APPEND:
        task.kind = TASK_APPEND;
        task.argument = lin_model_token(model, op->argument.bytes);
        break;
    case LIN_CAS:
        task.kind = TASK_CAS;
        task.want = lin_model_value(model, op->observed);
        task.argument = lin_model_value(model, op->argument);
        task.version = op->argument.present ? op->version : 0;
        break;
    }
    task.claims = !task.open && (task_observes(&task) || task.version > 0);
    return task;
}

/* Marks what is loose, and sees to it that open tasks nobody saw are left out. */
static void find_unseen(struct search *search, const bool *seen, bool *left_out)
{
    bool absence_seen = absence_is_seen(search);
    for (uint32_t i = 0; i < search->task_count; i++) {
        struct task *task = &search->tasks[i];
        if (task->kind != TASK_APPEND && task->kind != TASK_OBSERVE && !absence_seen &&
            task->argument == LIN_VALUE_ABSENT) {
            task->argument = LIN_VALUE_OTHER;
        }
        bool unseen = task->kind == TASK_APPEND    ? !seen[task->argument]
                      : task->kind == TASK_OBSERVE ? false
                                                   : task->argument == LIN_VALUE_OTHER;
        task->loose = unseen && !task->open && !task->claims;
        left_out[i] = unseen && task->open;
    }
}

static void drop_left_out(struct search *search, const bool *left_out, bool *pointless)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < search->task_count; i++) {
        if (pointless != NULL) {
            pointless[search->tasks[i].source] = left_out[i];
        }
        if (!left_out[i]) {
            search->tasks[kept++] = search->tasks[i];
        }
    }
    search->task_count = kept;
}

/* Puts the tasks in their order, with the places of their events. */
static void order_tasks(struct search *search, const struct lin_op *ops)
{
    uint32_t count = search->task_count;
    struct event *events = mem_calloc(2 * (size_t)count, sizeof *events);
    size_t event_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct lin_op *op = &ops[search->tasks[i].source];
        events[event_count++] = (struct event){op->called_ns, false, i};
        if (!search->tasks[i].open) {
            events[event_count++] = (struct event){op->returned_ns, true, i};
        }
    }
    qsort(events, event_count, sizeof *events, by_time);
    struct task *ordered = mem_calloc(count, sizeof *ordered);
    uint32_t next_required = 0;
    uint32_t next_open = search->required_count;
    for (size_t i = 0; i < event_count; i++) {
        struct task *task = &search->tasks[events[i].task];
        if (events[i].is_return) {
            ordered[task->bit].returned_at = (uint32_t)i;
            continue;
        }
        uint32_t place = task->open ? next_open++ : next_required++;
        task->called_at = (uint32_t)i;
        task->bit = place; /* of the required it stays; corrected below for the open */
        ordered[place] = *task;
    }
    for (uint32_t i = 0; i < count; i++) {
        ordered[i].bit = ordered[i].open ? i - search->required_count : i;
        ordered[i].hash = lin_mix(i);
        ordered[i].cluster_called_at = ordered[i].called_at;
        ordered[i].cluster_returned_at = ordered[i].returned_at;
    }
    free(events);
    free(search->tasks);
    search->tasks = ordered;
}

/* By observed value: the only base that can begin it, or NO_TASK. gives */
static uint32_t *only_bases(const struct search *search)
{
    const struct lin_model *model = &search->model;
    uint32_t values = model->observed_count;
    /* How many bases begin it, and the sum of their tasks; first as differences. */
    int64_t *counts = mem_calloc((size_t)values + 1, sizeof *counts);
    int64_t *sums = mem_calloc((size_t)values + 1, sizeof *sums);
    uint32_t *only = mem_calloc(values, sizeof *only);
    for (uint32_t i = 0; i < search->task_count; i++) {
        const struct task *task = &search->tasks[i];
        if ((task->kind != TASK_WRITE && task->kind != TASK_CAS) ||
            task->argument <= LIN_VALUE_OTHER) {
            continue;
        }
        struct lin_model_value value = model->values[task->argument];
        counts[value.from]++;
        counts[value.to]--;
        sums[value.from] += i;
        sums[value.to] -= i;
    }
    for (uint32_t i = 0; i < values; i++) {
        counts[i] += i > 0 ? counts[i - 1] : 0;
        sums[i] += i > 0 ? sums[i - 1] : 0;
        only[i] = counts[i] == 1 && !model->from_nothing[i] ? (uint32_t)sums[i] : NO_TASK;
    }
    free(counts);
    free(sums);
    return only;
}

static bool wants_present_value(const struct task *task)
{
    return task_observes(task) && task->want > LIN_VALUE_OTHER && task->want != LIN_VALUE_NONE;
}

static void join_cluster(struct search *search, struct task *task, uint32_t base)
{
    struct task *to = &search->tasks[base];
    task->base = base;
    search->dependents[base]++;
    to->cluster_called_at =
        task->called_at > to->cluster_called_at ? task->called_at : to->cluster_called_at;
    to->cluster_returned_at =
        task->returned_at < to->cluster_returned_at ? task->returned_at : to->cluster_returned_at;
}

/* An observer belongs to the only base of its value; an append, to that of a value which a required
 * observer saw it in. */
static void find_clusters(struct search *search)
{
    const struct lin_model *model = &search->model;
    uint32_t *only = only_bases(search);
    uint32_t *base_seen = mem_calloc(model->observed_count, sizeof *base_seen);
    for (uint32_t i = 0; i < model->observed_count; i++) {
        base_seen[i] = NO_TASK;
    }
    for (uint32_t i = 0; i < search->required_count; i++) {
        struct task *task = &search->tasks[i];
        if (wants_present_value(task)) {
            uint32_t at = model->values[task->want].from;
            base_seen[at] = only[at];
            if (only[at] != NO_TASK) {
                join_cluster(search, task, only[at]);
            }
        }
    }
    for (uint32_t i = 0; i < search->required_count; i++) {
        struct task *task = &search->tasks[i];
        if (task->kind != TASK_APPEND || task->result == LIN_VALUE_NONE) {
            continue;
        }
        struct lin_model_value value = model->values[task->result];
        for (uint32_t at = value.from; at < value.to && task->base == NO_TASK; at++) {
            if (base_seen[at] != NO_TASK) {
                join_cluster(search, task, base_seen[at]);
            }
        }
    }
    free(base_seen);
    free(only);
}

static uint64_t effect_of(const struct task *task)
{
    return (uint64_t)task->argument << 32 | task->want;
}

static void find_twins(struct search *search)
{
    struct lin_map last = {0}; /* effect -> index into `latest` */
    uint32_t *latest = mem_calloc(search->task_count, sizeof *latest);
    uint32_t effects = 0;
    for (uint32_t i = search->required_count; i < search->task_count; i++) {
        struct task *task = &search->tasks[i];
        if (task->expected >= UINT64_C(1) << 56) {
            continue; /* does not fit beside the kind; a twin less does no harm */
        }
        uint64_t kind = (uint64_t)task->kind | task->expected << 8;
        uint32_t which;
        if (lin_map_find(&last, effect_of(task), kind, &which)) {
            task->twin = latest[which];
        } else {
            which = effects++;
            lin_map_add(&last, effect_of(task), kind, which);
        }
        latest[which] = i;
    }
    free(latest);
    lin_map_deinit(&last);
}

/* --- lists --- */

static void links_init(struct search *search, struct links *links, size_t nodes)
{
    links->previous = mem_calloc(nodes, sizeof links->previous[0]);
    links->next = mem_calloc(nodes, sizeof links->next[0]);
    for (size_t i = 0; i < nodes; i++) {
        links->previous[i] = (uint32_t)i;
        links->next[i] = (uint32_t)i;
    }
    search->fixed_bytes += 2 * nodes * sizeof(uint32_t);
}

static void links_add_last(struct links *links, uint32_t sentinel, uint32_t node)
{
    uint32_t last = links->previous[sentinel];
    links->previous[node] = last;
    links->next[node] = sentinel;
    links->next[last] = node;
    links->previous[sentinel] = node;
}

static void links_deinit(struct links *links)
{
    free(links->previous);
    free(links->next);
}

struct ranked {
    uint64_t rank, rank2;
    uint32_t task;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a;
    const struct ranked *y = b;
    if (x->rank != y->rank) {
        return x->rank < y->rank ? -1 : 1;
    }
    if (x->rank2 != y->rank2) {
        return x->rank2 < y->rank2 ? -1 : 1;
    }
    return x->task < y->task ? -1 : x->task > y->task;
}

static void make_lists(struct search *search)
{
    uint32_t required = search->required_count;
    struct ranked *ranked = mem_calloc(2 * (size_t)search->task_count, sizeof *ranked);
    size_t count = 0;
    for (uint32_t i = 0; i < required; i++) {
        ranked[count++] = (struct ranked){search->tasks[i].called_at, 0, call_node(i)};
        ranked[count++] = (struct ranked){search->tasks[i].returned_at, 0, return_node(i)};
    }
    qsort(ranked, count, sizeof *ranked, by_rank);
    for (size_t i = 0; i < count; i++) {
        links_add_last(&search->events, 0, ranked[i].task);
    }
    count = 0;
    for (uint32_t i = 0; i < required; i++) {
        if (task_observes(&search->tasks[i])) {
            ranked[count++] = (struct ranked){search->tasks[i].returned_at, 0, i};
        }
    }
    qsort(ranked, count, sizeof *ranked, by_rank);
    for (size_t i = 0; i < count; i++) {
        uint32_t want = search->tasks[ranked[i].task].want;
        links_add_last(&search->by_return, 0, 1 + ranked[i].task);
        if (want != LIN_VALUE_NONE) {
            links_add_last(&search->readers, reader_sentinel(search, want), 1 + ranked[i].task);
        }
    }
    count = 0;
    for (uint32_t i = 0; i < required; i++) {
        const struct task *task = &search->tasks[i];
        if (task->version > 0) { /* who makes a version comes before who sees it */
            ranked[count++] = (struct ranked){task->version, task->kind == TASK_OBSERVE, i};
        }
    }
    qsort(ranked, count, sizeof *ranked, by_rank);
    for (size_t i = 0; i < count; i++) {
        links_add_last(&search->by_version, 0, 1 + ranked[i].task);
    }
    count = 0;
    for (uint32_t i = 0; i < search->task_count; i++) {
        if (search->dependents[i] > 0) {
            ranked[count++] = (struct ranked){search->tasks[i].cluster_returned_at, 0, i};
        }
    }
    qsort(ranked, count, sizeof *ranked, by_rank);
    for (size_t i = 0; i < count; i++) {
        links_add_last(&search->clusters, 0, 1 + ranked[i].task);
    }
    free(ranked);
    for (uint32_t i = required; i < search->task_count; i++) {
        links_add_last(&search->opens, 0, 1 + i - required);
    }
}

/* The required observer of observed[index] that returned first. */
static size_t first_to_see(const struct search *search, const struct lin_op *ops, uint32_t index)
{
    size_t first = SIZE_MAX;
    for (uint32_t i = 0; i < search->task_count; i++) {
        const struct task *task = &search->tasks[i];
        if (!task->open && task_observes(task) && task->want > LIN_VALUE_OTHER &&
            task->want != LIN_VALUE_NONE && search->model.values[task->want].from == index &&
            (first == SIZE_MAX || ops[task->source].returned_ns < ops[first].returned_ns)) {
            first = task->source;
        }
    }
    ASSERT(first != SIZE_MAX);
    return first;
}

/* False: what was read cannot have been written so. */
static bool judge(const struct search *search, const struct lin_op *ops,
                  const struct lin_reading *reading, struct lin_search_info *info)
{
    if (reading->unwritten != LIN_READING_NONE) {
        info->reason = LIN_NOT_WRITTEN;
        info->reason_ops[0] = first_to_see(search, ops, reading->unwritten);
        return false;
    }
    if (reading->twice == LIN_READING_NONE) {
        return true;
    }
    info->reason = LIN_TWICE_APPLIED;
    for (uint32_t i = 0; i < search->task_count; i++) {
        const struct task *task = &search->tasks[i];
        if (task->kind == TASK_APPEND && task->argument == reading->twice) {
            info->reason_ops[0] = task->source;
        }
    }
    info->reason_ops[1] = first_to_see(search, ops, reading->twice_in[0]);
    info->reason_ops[2] = first_to_see(search, ops, reading->twice_in[1]);
    return false;
}

/* What the values say; false: that there is no order. */
static bool read_values(struct search *search, const struct lin_op *ops,
                        struct lin_search_info *info, bool *pointless)
{
    struct lin_reading reading;
    lin_reading_init(&reading, &search->model, ops, search->task_count);
    bool possible = judge(search, ops, &reading, info);
    for (uint32_t i = 0; i < search->task_count && possible; i++) {
        struct task *task = &search->tasks[i];
        if (task->kind == TASK_APPEND) {
            task->result = reading.result[task->argument];
        }
    }
    bool *left_out = mem_calloc(search->task_count, sizeof *left_out);
    if (!search->cautious) {
        find_unseen(search, reading.seen, left_out);
    }
    drop_left_out(search, left_out, pointless);
    free(left_out);
    lin_reading_deinit(&reading);
    return possible;
}

static void make_state(struct search *search)
{
    size_t tasks = search->task_count;
    size_t required = search->required_count;
    search->reader_value_count = search->model.value_count;
    links_init(search, &search->events, 1 + 2 * required);
    links_init(search, &search->opens, 1 + tasks - required);
    links_init(search, &search->by_return, 1 + required);
    links_init(search, &search->readers, 1 + required + search->reader_value_count);
    links_init(search, &search->by_version, 1 + required);
    links_init(search, &search->clusters, 1 + tasks);
    search->dependents = mem_calloc(tasks, sizeof search->dependents[0]);
    if (!search->plain) {
        find_clusters(search);
    }
    make_lists(search);
    search->done = mem_calloc(required / 64 + 1, sizeof search->done[0]);
    search->open_done = mem_calloc((tasks - required) / 64 + 1, sizeof search->open_done[0]);
    search->trail = mem_calloc(tasks, sizeof search->trail[0]);
    search->fixed_bytes +=
        tasks * (sizeof search->tasks[0] + sizeof search->trail[0] + sizeof search->dependents[0]) +
        tasks / 4;
}

bool search__prepare(struct search *search, const struct lin_op *ops, size_t count, bool plain,
                     struct lin_search_info *info, bool *pointless)
{
    ASSERT_CMP(count, <, UINT32_MAX / 4);
    *search = (struct search){.plain = plain};
    lin_model_init(&search->model, ops, count);
    search->tasks = mem_calloc(count, sizeof search->tasks[0]);
    search->task_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        search->tasks[i] = task_of(search, &ops[i]);
        search->tasks[i].source = i;
        if (pointless != NULL) {
            pointless[i] = false;
        }
    }
    if (!plain && !read_values(search, ops, info, pointless)) {
        return false;
    }
    for (uint32_t i = 0; i < search->task_count; i++) {
        search->required_count += !search->tasks[i].open;
        search->claims_left += search->tasks[i].claims;
    }
    order_tasks(search, ops);
    find_twins(search);
    make_state(search);
    return true;
}

void search__deinit(struct search *search)
{
    links_deinit(&search->events);
    links_deinit(&search->opens);
    links_deinit(&search->by_return);
    links_deinit(&search->readers);
    links_deinit(&search->by_version);
    links_deinit(&search->clusters);
    free(search->tasks);
    free(search->done);
    free(search->open_done);
    free(search->trail);
    free(search->dependents);
    lin_memo_deinit(&search->memo);
    lin_model_deinit(&search->model);
}

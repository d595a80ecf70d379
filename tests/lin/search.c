/* See search.h and search_internal.h.
 *
 * A configuration is the set of operations placed so far and the state they made. From it any
 * required operation may be placed next that was called before the first return still to come, and
 * any open one called before that. The search goes depth first; a configuration entered before is
 * not entered again. It ends when nothing is left that claims anything.
 *
 * Exponential only where the history leaves a choice. What takes choices away, each without losing
 * an order that exists:
 *
 * 1. An observer that fits the present state is placed at once: it changes nothing, and being out
 * of the way helps the others (settle).
 *
 * 2. A write nobody ever saw is placed right before a write that buries it, or while a state lasts
 * that nobody sees either (settle, bury).
 *
 * 3. An open operation is tried only if somebody may see its effect before a write buries it, and
 * from then on until somebody has, no write may (`debt`): one that is never seen might as well not
 * have happened (worth_trying).
 *
 * 4. Of open operations with one effect, the one called first is used first (twin).
 *
 * 5. A step is taken back when the observer that returns first, or one of the value just replaced,
 * can no longer come to see its value: appends alone do not lead there, and no other write that
 * could is to be placed before that return (doomed).
 *
 * 6. An append is placed only where it makes what was read of it (reading.h). A write and all whose
 * values can begin with no other one are a cluster: no other base comes between them
 * (keeps_dependents), and of two clusters that one goes first of which anything returned before
 * anything of the other was called (in_cluster_order). Which base was placed last is not part of a
 * configuration: it only lets a dead one be seen sooner, and dead it is whatever led to it.
 *
 * 7. Versions grow: what claims one is placed in their order (in_version_order).
 *
 * 2 and 3 need that every observer tells a value; `cautious` turns them off. */
#include "lin/search_internal.h"

#include "base/assert.h"

#include <stdlib.h>

/* Of rule 5; when it does not see far enough it does not apply. */
enum { LOOK_AHEAD_EVENTS_MAX = 256 };

struct position {
    uint32_t state;
    bool debt;     /* an open operation's effect is there that nobody has seen yet */
    uint32_t base; /* the WRITE or CAS placed last, for rule 6 */
};

/* One entered configuration on the way from the start to here. */
struct frame {
    struct position position;
    uint32_t trail_mark; /* what was placed before entering it */
    uint32_t bits_mark, open_bits_mark;
    uint32_t next;      /* node of the next candidate */
    bool among_opens;   /* `next` is in the list of the open */
    uint32_t opens_end; /* open ones called from here on are no candidates */
};

/* --- placing and taking back --- */

static void links_remove(struct links *links, uint32_t node)
{
    links->next[links->previous[node]] = links->next[node];
    links->previous[links->next[node]] = links->previous[node];
}

static void links_restore(struct links *links, uint32_t node)
{
    links->next[links->previous[node]] = node;
    links->previous[links->next[node]] = node;
}

static void flip(struct search *search, const struct task *task)
{
    uint64_t *words = task->open ? search->open_done : search->done;
    words[task->bit / 64] ^= UINT64_C(1) << task->bit % 64;
    search->set_hash ^= task->hash;
}

static bool is_base(const struct task *task)
{
    return task->kind == TASK_WRITE || task->kind == TASK_CAS;
}

static void place(struct search *search, uint32_t index)
{
    const struct task *task = &search->tasks[index];
    flip(search, task);
    search->trail[search->trail_count++] = index;
    uint32_t *end = task->open ? &search->open_bits_end : &search->bits_end;
    *end = task->bit >= *end ? task->bit + 1 : *end;
    links_remove(&search->clusters, 1 + index);
    if (task->open) {
        links_remove(&search->opens, 1 + index - search->required_count);
        return;
    }
    search->claims_left -= task->claims;
    if (task->base != NO_TASK) {
        search->dependents[task->base]--;
    }
    links_remove(&search->events, call_node(index));
    links_remove(&search->events, return_node(index));
    links_remove(&search->by_return, 1 + index);
    links_remove(&search->readers, 1 + index);
    links_remove(&search->by_version, 1 + index);
}

static void take_back(struct search *search, const struct frame *to)
{
    while (search->trail_count > to->trail_mark) {
        uint32_t index = search->trail[--search->trail_count];
        const struct task *task = &search->tasks[index];
        flip(search, task);
        links_restore(&search->clusters, 1 + index);
        if (task->open) {
            links_restore(&search->opens, 1 + index - search->required_count);
            continue;
        }
        search->claims_left += task->claims;
        if (task->base != NO_TASK) {
            search->dependents[task->base]++;
        }
        links_restore(&search->by_version, 1 + index);
        links_restore(&search->readers, 1 + index);
        links_restore(&search->by_return, 1 + index);
        links_restore(&search->events, return_node(index));
        links_restore(&search->events, call_node(index));
    }
    search->bits_end = to->bits_mark;
    search->open_bits_end = to->open_bits_mark;
}

/* --- the model's step --- */

static bool see_version(struct lin_model_state *state, uint64_t version)
{
    if (version == 0) {
        return true;
    }
    if (state->exact) {
        return state->version == version;
    }
    if (version <= state->version) {
        return false;
    }
    state->exact = true;
    state->version = version;
    return true;
}

/* A version that is not told lies anywhere above the last one that was. */
static bool make_version(struct lin_model_state *state, uint64_t version)
{
    if (version > 0 && version <= state->version) {
        return false;
    }
    state->exact = version > 0;
    state->version = version > 0 ? version : state->version;
    return true;
}

static bool fits(const struct task *task, uint32_t value)
{
    return task->want == LIN_VALUE_NONE ? value != LIN_VALUE_ABSENT : task->want == value;
}

/* What the operation makes of the state; false: it cannot take effect there. */
static bool step(struct search *search, const struct task *task, uint32_t before, uint32_t *after)
{
    struct lin_model_state state = search->model.versions
                                       ? search->model.states[before]
                                       : (struct lin_model_state){.value = before};
    bool possible = true;
    switch (task->kind) {
    case TASK_OBSERVE:
        possible = fits(task, state.value) && see_version(&state, task->version);
        break;
    case TASK_WRITE:
        state.value = task->argument;
        possible = make_version(&state, task->version);
        break;
    case TASK_APPEND:
        state.value = lin_model_append(&search->model, state.value, task->argument);
        possible = make_version(&state, task->version);
        break;
    case TASK_CAS:
        possible = fits(task, state.value) && see_version(&state, task->expected) &&
                   make_version(&state, task->version);
        state.value = task->argument;
        break;
    }
    if (possible) {
        *after = lin_model_state(&search->model, state);
    }
    return possible;
}

static uint32_t value_of(const struct search *search, uint32_t state)
{
    return lin_model_state_value(&search->model, state);
}

/* --- what needs no choice --- */

/* Places the loose ones that were called before the first return to come. */
static void bury(struct search *search)
{
    uint32_t before = 0;
    uint32_t node;
    while ((node = search->events.next[before]) != 0 && node_is_call(node)) {
        if (search->tasks[node_task(node)].loose) {
            place(search, node_task(node)); /* `before` stays where it is */
        } else {
            before = node;
        }
    }
}

static void settle(struct search *search, struct position *position)
{
    uint32_t before = 0;
    uint32_t node;
    while ((node = search->events.next[before]) != 0 && node_is_call(node)) {
        const struct task *task = &search->tasks[node_task(node)];
        uint32_t after;
        if (task->kind == TASK_OBSERVE && step(search, task, position->state, &after) &&
            after == position->state) {
            place(search, node_task(node));
            position->debt = false;
        } else {
            before = node;
        }
    }
    if (!position->debt && value_of(search, position->state) == LIN_VALUE_OTHER) {
        bury(search); /* uncovers no observer that fits: none fits OTHER, but one that tells no
                         value */
    }
}

/* --- dead ends --- */

static bool could_lead_to(const struct search *search, const struct task *task, uint32_t value)
{
    return is_base(task) && lin_model_reaches(&search->model, task->argument, value);
}

/* Whether the observer may yet see its value, the present one being `value`. Necessary, not
 * sufficient. */
static bool may_see(const struct search *search, uint32_t observer, uint32_t value)
{
    const struct task *task = &search->tasks[observer];
    if (task->want == LIN_VALUE_NONE || lin_model_reaches(&search->model, value, task->want)) {
        return true;
    }
    uint32_t seen = 0;
    for (uint32_t node = search->events.next[0]; node != return_node(observer);
         node = search->events.next[node]) {
        if (node_is_call(node) && node != call_node(observer) &&
            could_lead_to(search, &search->tasks[node_task(node)], task->want)) {
            return true;
        }
        if (++seen == LOOK_AHEAD_EVENTS_MAX) {
            return true;
        }
    }
    for (uint32_t node = search->opens.next[0]; node != 0; node = search->opens.next[node]) {
        const struct task *open = &search->tasks[search->required_count + node - 1];
        if (open->called_at > task->returned_at) {
            break;
        }
        if (could_lead_to(search, open, task->want)) {
            return true;
        }
    }
    return false;
}

/* Who depends on the base is placed, or may yet be. */
static bool keeps_dependents(const struct search *search, const struct position *before,
                             const struct position *position)
{
    bool replaced = before->base != position->base;
    uint32_t value = value_of(search, position->state);
    uint32_t old = before->base;
    uint32_t now = position->base;
    return !(replaced && old != NO_TASK && search->dependents[old] > 0) &&
           !(value == LIN_VALUE_OTHER && now != NO_TASK && search->dependents[now] > 0);
}

static bool doomed(const struct search *search, const struct position *position_before,
                   const struct position *position)
{
    uint32_t before = value_of(search, position_before->state);
    uint32_t value = value_of(search, position->state);
    if ((position->debt && value == LIN_VALUE_OTHER) ||
        !keeps_dependents(search, position_before, position)) {
        return true;
    }
    uint32_t first = search->by_return.next[0];
    if (first != 0 && !may_see(search, first - 1, value)) {
        return true;
    }
    if (before == value || before >= search->reader_value_count) {
        return false;
    }
    uint32_t sentinel = reader_sentinel(search, before);
    uint32_t reader = search->readers.next[sentinel];
    return reader != sentinel && !may_see(search, reader - 1, value);
}

/* --- candidates --- */

static bool in_version_order(const struct search *search, uint32_t index)
{
    const struct task *task = &search->tasks[index];
    uint32_t first = search->by_version.next[0];
    if (task->version == 0 || first == 1 + index) {
        return true;
    }
    return task->kind == TASK_OBSERVE && search->tasks[first - 1].version >= task->version;
}

/* No other cluster has a member that returned before one of this base's cluster was called. */
static bool in_cluster_order(const struct search *search, uint32_t index)
{
    const struct task *task = &search->tasks[index];
    uint32_t first = search->clusters.next[0];
    if (first == 1 + index) {
        first = search->clusters.next[first];
    }
    return !is_base(task) || first == 0 ||
           search->tasks[first - 1].cluster_returned_at > task->cluster_called_at;
}

/* Whether an observer of `value`, or of what appends make of it, may come before any other write.
 */
static bool soon_seen(const struct search *search, uint32_t value)
{
    uint32_t end = AT_NEVER;
    for (uint32_t node = search->events.next[0]; node != 0; node = search->events.next[node]) {
        const struct task *task = &search->tasks[node_task(node)];
        if (node_is_call(node)) {
            if (task_observes(task) && lin_model_reaches(&search->model, value, task->want)) {
                return true;
            }
        } else if (task->kind != TASK_APPEND || search->model.token_count == 0) {
            end = task->returned_at;
            break;
        }
    }
    for (uint32_t node = search->opens.next[0]; node != 0; node = search->opens.next[node]) {
        const struct task *open = &search->tasks[search->required_count + node - 1];
        if (open->called_at > end) {
            break;
        }
        if (open->kind == TASK_CAS && lin_model_reaches(&search->model, value, open->want)) {
            return true;
        }
    }
    return false;
}

static bool worth_trying(struct search *search, const struct task *open,
                         const struct position *position)
{
    uint32_t after;
    if (search->plain) {
        return true;
    }
    if (!in_cluster_order(search, (uint32_t)(open - search->tasks))) {
        return false;
    }
    if (open->twin != NO_TASK) {
        uint32_t bit = search->tasks[open->twin].bit;
        if ((search->open_done[bit / 64] >> bit % 64 & 1) == 0) {
            return false;
        }
    }
    if (search->cautious) {
        return true;
    }
    if ((position->debt && open->kind == TASK_WRITE) ||
        !step(search, open, position->state, &after)) {
        return false;
    }
    uint32_t value = value_of(search, after);
    return value != LIN_VALUE_OTHER && after != position->state && soon_seen(search, value);
}

/* The frame's next operation to try, or NO_TASK. */
static uint32_t next_candidate(struct search *search, struct frame *frame)
{
    while (!frame->among_opens) {
        uint32_t node = frame->next;
        if (node == 0 || !node_is_call(node)) {
            frame->among_opens = true;
            frame->opens_end = node == 0 ? AT_NEVER : search->tasks[node_task(node)].returned_at;
            frame->next = search->opens.next[0];
            break;
        }
        frame->next = search->events.next[node];
        uint32_t index = node_task(node);
        bool buries_debt = frame->position.debt && search->tasks[index].kind == TASK_WRITE;
        if (!buries_debt && (search->plain || (in_version_order(search, index) &&
                                               in_cluster_order(search, index)))) {
            return index;
        }
    }
    while (frame->next != 0) {
        uint32_t index = search->required_count + frame->next - 1;
        if (search->tasks[index].called_at > frame->opens_end) {
            break;
        }
        frame->next = search->opens.next[frame->next];
        if (worth_trying(search, &search->tasks[index], &frame->position)) {
            return index;
        }
    }
    return NO_TASK;
}

/* --- the search --- */

static bool enter(struct search *search, const struct position *position)
{
    uint32_t first = search->events.next[0];
    uint32_t first_bit = first == 0 ? search->bits_end : search->tasks[node_task(first)].bit;
    uint32_t low = first_bit / 64;
    uint32_t high = (search->bits_end + 63) / 64;
    uint64_t rest = position->state | (uint64_t)position->debt << 32;
    struct lin_config config = {.hash = lin_mix(search->set_hash ^ lin_mix(rest)),
                                .state = position->state,
                                .flag = position->debt,
                                .low = low,
                                .high = high < low ? low : high,
                                .done = search->done,
                                .open_high = (search->open_bits_end + 63) / 64,
                                .open = search->open_done};
    return lin_memo_enter(&search->memo, &config);
}

static struct frame frame_here(const struct search *search)
{
    return (struct frame){.trail_mark = search->trail_count,
                          .bits_mark = search->bits_end,
                          .open_bits_mark = search->open_bits_end};
}

/* Places the operation and what follows from it. True: `frame` is a configuration to go on from.
 * False: taken back. */
static bool descend(struct search *search, const struct frame *from, uint32_t index,
                    struct frame *frame)
{
    const struct task *task = &search->tasks[index];
    struct position after = from->position;
    if (!step(search, task, from->position.state, &after.state) ||
        (task->result != LIN_VALUE_NONE && value_of(search, after.state) != task->result)) {
        return false;
    }
    if (is_base(task)) {
        after.base = index;
    }
    *frame = frame_here(search);
    bool shortcuts = !search->plain;
    if (shortcuts && task->kind == TASK_WRITE) {
        bury(search);
    }
    if (task->open || (search->done[task->bit / 64] >> task->bit % 64 & 1) == 0) {
        place(search, index); /* unless it was loose itself, and bury() has */
    }
    if (task_observes(task)) {
        after.debt = false;
    }
    if (task->open && shortcuts && !search->cautious) {
        after.debt = true;
    }
    if (shortcuts) {
        settle(search, &after);
    }
    frame->position = after;
    if (search->claims_left == 0) {
        return true;
    }
    if ((shortcuts && doomed(search, &from->position, &after)) || !enter(search, &after)) {
        take_back(search, frame);
        return false;
    }
    frame->next = search->events.next[0];
    return true;
}

static uint64_t bytes_held(const struct search *search)
{
    return search->fixed_bytes + lin_model_bytes(&search->model) + lin_memo_bytes(&search->memo);
}

static enum lin_verdict run(struct search *search, struct frame *frames, struct lin_budget *budget,
                            struct lin_search_info *info)
{
    struct lin_model_state empty = {.value = LIN_VALUE_ABSENT};
    frames[0] = frame_here(search);
    frames[0].position.state = lin_model_state(&search->model, empty);
    frames[0].position.base = NO_TASK;
    if (!search->plain) {
        settle(search, &frames[0].position);
    }
    frames[0].next = search->events.next[0];
    (void)enter(search, &frames[0].position);
    size_t depth = 1;
    while (depth > 0 && search->claims_left > 0) {
        if (!lin_budget_step(budget, bytes_held(search))) {
            return LIN_UNKNOWN;
        }
        struct frame *frame = &frames[depth - 1];
        uint32_t candidate = next_candidate(search, frame);
        if (candidate == NO_TASK) {
            take_back(search, frame);
            depth--;
        } else if (descend(search, frame, candidate, &frames[depth])) {
            depth++;
            info->configurations++;
        }
        if (search->trail_count > info->placed_max) {
            info->placed_max = search->trail_count;
        }
    }
    return search->claims_left == 0 ? LIN_LINEARIZABLE : LIN_BROKEN;
}

enum lin_verdict lin_search(const struct lin_op *ops, size_t count, bool plain,
                            struct lin_budget *budget, struct lin_search_info *info,
                            bool *pointless)
{
    struct search search;
    *info = (struct lin_search_info){.configurations = 1};
    if (!search__prepare(&search, ops, count, plain, info, pointless)) {
        search__deinit(&search);
        return LIN_BROKEN;
    }
    /* Each frame placed at least one operation more than the one before it. */
    struct frame *frames = mem_calloc((size_t)search.task_count + 2, sizeof *frames);
    search.fixed_bytes += ((uint64_t)search.task_count + 2) * sizeof *frames;
    enum lin_verdict verdict = run(&search, frames, budget, info);
    free(frames);
    search__deinit(&search);
    return verdict;
}

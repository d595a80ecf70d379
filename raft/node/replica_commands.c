/* Who waits for what: commands become entries, reads become groups, transfers and membership
 * changes get their answers. Loop thread only.
 *
 *   command --poll--> one entry (with others) --core accepts--> waiter at (index, term)
 *      waiter --its entry is handed to the apply worker--> answered there
 *      waiter --leadership lost, or another entry committed in its place--> ERR_LEADER_LOST
 *   read --poll--> group --core confirms, with an index--> confirmed --index handed--> apply worker
 *
 * Log time. Every replica remembers the newest log time it has seen in an entry and when (monotonic
 * clock) it saw it. A leader stamps entries with that time plus what has passed since. So log time
 * goes on with the pace of real seconds while the group works, never goes back along the log (a
 * leader has seen every entry before its own), and no wall clock has a part in it. */
#include "raft/node/replica_internal.h"

#include "base/assert.h"
#include "raft/node/log_entry.h"

#include <stdlib.h>
#include <string.h>

/* ---- log time -------------------------------------------------------------------------------- */

uint64_t replica__log_time(const struct replica *replica)
{
    uint64_t now_ns = clock_now_ns(replica->env.clock);
    ASSERT_CMP(now_ns, >=, replica->log_time_at_ns);
    return replica->log_time_ms + (now_ns - replica->log_time_at_ns) / NS_PER_MS;
}

void replica__log_time_seen(struct replica *replica, uint64_t time_ms)
{
    if (time_ms > replica__log_time(replica)) {
        replica__log_time_follow(replica, time_ms);
    }
}

/* Also back, when our own reckoning was ahead: of a leader that had restarted, say, and does not
 * count the time while it was down. Whoever led next by that reckoning would make what was active
 * a moment ago look idle for as long as the two differ, and its sessions would be forgotten. */
void replica__log_time_follow(struct replica *replica, uint64_t time_ms)
{
    replica->log_time_ms = time_ms;
    replica->log_time_at_ns = clock_now_ns(replica->env.clock);
}

/* ---- commands -------------------------------------------------------------------------------- */

void replica_propose(struct replica *replica, struct bytes payload, struct blob *owner,
                     node_done_fn done, void *context)
{
    struct raft_position nowhere = {0, 0};
    if (replica->stopping || replica->dead) {
        done(context, ERR_SHUTDOWN, nowhere, BYTES_EMPTY);
        return;
    }
    if (payload.size > NODE_COMMAND_BYTES_MAX) {
        done(context, ERR_TOO_LARGE, nowhere, BYTES_EMPTY);
        return;
    }
    if (replica->command_count == replica->command_capacity) {
        size_t capacity = replica->command_capacity == 0 ? 64 : replica->command_capacity * 2;
        replica->commands = mem_realloc(replica->commands, capacity * sizeof(struct command));
        replica->command_capacity = capacity;
    }
    replica->commands[replica->command_count++] = (struct command){
        .payload = payload, .owner = blob_ref(owner), .done = done, .context = context};
}

static void commands_fail(struct command *commands, size_t count, int error)
{
    for (size_t i = 0; i < count; i++) {
        commands[i].done(commands[i].context, error, (struct raft_position){0, 0}, BYTES_EMPTY);
        blob_unref(commands[i].owner);
    }
}

/* How many of the commands go into one entry: at least one. */
static size_t entry_commands(const struct replica *replica, const struct command *commands,
                             size_t count, size_t *bytes)
{
    size_t taken = 0;
    *bytes = LOG_ENTRY_HEADER_BYTES_MAX;
    while (taken < count && taken < LOG_ENTRY_COMMANDS_MAX) {
        size_t more = commands[taken].payload.size + LOG_ENTRY_COMMAND_OVERHEAD_BYTES_MAX;
        if (taken > 0 && *bytes + more > replica->options.entry_bytes_max) {
            break;
        }
        *bytes += more;
        taken++;
    }
    return taken;
}

static void waiter_push(struct replica *replica, struct entry_waiter *waiter)
{
    waiter->next = NULL;
    if (replica->waiters == NULL) {
        replica->waiters = waiter;
    } else {
        ASSERT_CMP(waiter->position.index, >, replica->waiters_last->position.index);
        replica->waiters_last->next = waiter;
    }
    replica->waiters_last = waiter;
}

static int propose_entry(struct replica *replica, struct command *commands, size_t count,
                         size_t bytes)
{
    struct buf entry;
    buf_init(&entry);
    buf_reserve(&entry, bytes);
    uint64_t time_ms = replica__log_time(replica);
    log_entry_put_header(&entry, time_ms, (uint32_t)count);
    for (size_t i = 0; i < count; i++) {
        log_entry_put_command(&entry, commands[i].payload);
    }
    struct blob *blob = blob_take_buf(&entry);
    struct raft_position position;
    int error = raft_core_propose(replica->core, blob_view(blob), blob, &position);
    blob_unref(blob);
    if (error != ERR_OK) {
        return error;
    }
    struct entry_waiter *waiter =
        mem_calloc(1, sizeof(*waiter) + count * sizeof(struct command_waiter));
    waiter->position = position;
    waiter->count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        waiter->commands[i] = (struct command_waiter){commands[i].done, commands[i].context};
        blob_unref(commands[i].owner);
    }
    waiter_push(replica, waiter);
    return ERR_OK;
}

void replica__commands_flush(struct replica *replica)
{
    enum { COMMANDS_KEPT = 4096 };
    size_t at = 0;
    while (at < replica->command_count) {
        size_t bytes;
        size_t count =
            entry_commands(replica, replica->commands + at, replica->command_count - at, &bytes);
        int error = propose_entry(replica, replica->commands + at, count, bytes);
        if (error == ERR_OK) {
            at += count;
        } else if (error == ERR_TOO_LARGE) {
            commands_fail(replica->commands + at, count, error);
            at += count;
        } else {
            commands_fail(replica->commands + at, replica->command_count - at, error);
            at = replica->command_count;
        }
    }
    replica->command_count = 0;
    if (replica->command_capacity > COMMANDS_KEPT) {
        free(replica->commands);
        replica->commands = NULL;
        replica->command_capacity = 0;
    }
}

/* ---- waiters --------------------------------------------------------------------------------- */

void replica__waiter_fail(struct entry_waiter *waiter, int error)
{
    for (uint32_t i = 0; i < waiter->count; i++) {
        waiter->commands[i].done(waiter->commands[i].context, error, waiter->position, BYTES_EMPTY);
    }
    if (waiter->change_done != NULL) {
        waiter->change_done(waiter->change_context, error);
    }
    free(waiter);
}

void replica__waiters_fail(struct entry_waiter *waiters, int error)
{
    while (waiters != NULL) {
        struct entry_waiter *next = waiters->next;
        replica__waiter_fail(waiters, error);
        waiters = next;
    }
}

struct entry_waiter *replica__waiters_take(struct replica *replica, uint64_t index)
{
    struct entry_waiter *first = replica->waiters;
    struct entry_waiter *last = NULL;
    for (struct entry_waiter *at = first; at != NULL && at->position.index <= index;
         at = at->next) {
        last = at;
    }
    if (last == NULL) {
        return NULL;
    }
    replica->waiters = last->next;
    last->next = NULL;
    return first;
}

/* Not leader any more, or of another term: what is not committed may or may not come to be, by
 * another leader's hand, and nobody should wait here for it. What is committed stays and will be
 * answered with its result. */
void replica__waiters_fail_lost(struct replica *replica)
{
    const struct raft_status *status = &replica->status;
    struct entry_waiter **link = &replica->waiters;
    struct entry_waiter *last = NULL;
    if (*link == NULL || (status->state == RAFT_LEADER && (*link)->position.term == status->term)) {
        return; /* terms ascend along the queue: all of them are ours */
    }
    while (*link != NULL) {
        struct entry_waiter *waiter = *link;
        bool ours = status->state == RAFT_LEADER && waiter->position.term == status->term;
        bool committed =
            waiter->position.index <= replica->commit &&
            raft_core_term_at(replica->core, waiter->position.index) == waiter->position.term;
        if (ours || committed) {
            last = waiter;
            link = &waiter->next;
        } else {
            *link = waiter->next;
            replica__waiter_fail(waiter, ERR_LEADER_LOST);
        }
    }
    replica->waiters_last = last;
}

/* ---- reads ----------------------------------------------------------------------------------- */

void replica_read(struct replica *replica, node_read_fn serve, void *context)
{
    if (replica->stopping || replica->dead) {
        serve(context, ERR_SHUTDOWN);
        return;
    }
    if (replica->reads_waiting >= REPLICA_READS_WAITING_MAX) {
        serve(context, ERR_BUSY);
        return;
    }
    struct read_group *group = replica->reads_new;
    if (group == NULL) {
        group = mem_calloc(1, sizeof(*group));
        replica->reads_new = group;
    }
    if (group->count == group->capacity) {
        group->capacity = group->capacity == 0 ? 8 : group->capacity * 2;
        group->reads = mem_realloc(group->reads, group->capacity * sizeof(group->reads[0]));
    }
    group->reads[group->count++] = (struct read_waiter){serve, context};
    replica->reads_waiting++;
}

void replica__read_group_serve(struct read_group *group, int error)
{
    for (uint32_t i = 0; i < group->count; i++) {
        group->reads[i].serve(group->reads[i].context, error);
    }
    free(group->reads);
    free(group);
}

/* Takes the group, which is on no list any more. */
static void read_group_fail(struct replica *replica, struct read_group *group, int error)
{
    replica->reads_waiting -= group->count;
    replica__read_group_serve(group, error);
}

void replica__reads_flush(struct replica *replica)
{
    struct read_group *group = replica->reads_new;
    if (group == NULL) {
        return;
    }
    replica->reads_new = NULL;
    group->context = ++replica->read_context;
    int error = raft_core_read(replica->core, group->context);
    if (error != ERR_OK) {
        read_group_fail(replica, group, error);
        return;
    }
    if (replica->reads_asked == NULL) {
        replica->reads_asked = group;
    } else {
        replica->reads_asked_last->next = group;
    }
    replica->reads_asked_last = group;
}

void replica__reads_confirmed(struct replica *replica, const struct raft_read_ready *ready)
{
    struct read_group **link = &replica->reads_asked;
    struct read_group *before = NULL;
    while (*link != NULL && (*link)->context != ready->context) {
        before = *link;
        link = &before->next;
    }
    struct read_group *group = *link;
    ASSERT(group != NULL);
    *link = group->next;
    if (replica->reads_asked_last == group) {
        replica->reads_asked_last = before;
    }
    group->next = NULL;
    if (ready->error != ERR_OK) {
        read_group_fail(replica, group, ready->error);
        return;
    }
    group->index = ready->index;
    group->next = replica->reads_confirmed;
    replica->reads_confirmed = group;
}

struct read_group *replica__reads_take(struct replica *replica, uint64_t index)
{
    struct read_group *taken = NULL;
    struct read_group **link = &replica->reads_confirmed;
    while (*link != NULL) {
        struct read_group *group = *link;
        if (group->index <= index) {
            *link = group->next;
            group->next = taken;
            taken = group;
            replica->reads_waiting -= group->count;
        } else {
            link = &group->next;
        }
    }
    return taken;
}

/* ---- transfer and membership
 * ----------------------------------------------------------------------------- */

void replica_transfer(struct replica *replica, uint64_t target, node_change_fn done, void *context)
{
    int error = ERR_SHUTDOWN;
    if (!replica->stopping && !replica->dead) {
        error = raft_core_transfer(replica->core, target);
    }
    if (error != ERR_OK) {
        done(context, error);
        return;
    }
    struct transfer_waiter *waiter = mem_calloc(1, sizeof(*waiter));
    /* The core gives up after one election timeout; then a new leader may need two more to be heard
     * of. */
    *waiter = (struct transfer_waiter){.next = replica->transfers,
                                       .done = done,
                                       .context = context,
                                       .ticks_left = 4 * replica->options.election_ticks};
    replica->transfers = waiter;
    raft_core_status(replica->core, &replica->status);
}

void replica__transfers_check(struct replica *replica, bool ticked)
{
    const struct raft_status *status = &replica->status;
    struct transfer_waiter **link = &replica->transfers;
    while (*link != NULL) {
        struct transfer_waiter *waiter = *link;
        int error = ERR_OK;
        bool ended = true;
        if (status->state == RAFT_LEADER) {
            error = ERR_TRANSFER_FAILED;
            ended = !status->transfer_pending;
        } else if (status->leader == 0 || status->leader == status->id) {
            error = ERR_TIMEOUT;
            waiter->ticks_left -= ticked && waiter->ticks_left > 0 ? 1 : 0;
            ended = waiter->ticks_left == 0;
        }
        if (ended) {
            *link = waiter->next;
            waiter->done(waiter->context, error);
            free(waiter);
        } else {
            link = &waiter->next;
        }
    }
}

void replica_change_member(struct replica *replica, const struct raft_change *change,
                           node_change_fn done, void *context)
{
    struct raft_position position;
    int error = ERR_SHUTDOWN;
    if (!replica->stopping && !replica->dead) {
        /* they came first, and waiters are in order of their index */
        replica__commands_flush(replica);
        error = raft_core_propose_change(replica->core, change, &position);
    }
    if (error != ERR_OK) {
        done(context, error);
        return;
    }
    struct entry_waiter *waiter = mem_calloc(1, sizeof(*waiter));
    waiter->position = position;
    waiter->change_done = done;
    waiter->change_context = context;
    waiter_push(replica, waiter);
}

/* ---- the end --------------------------------------------------------------------------------- */

void replica__waiting_fail_all(struct replica *replica)
{
    commands_fail(replica->commands, replica->command_count, ERR_SHUTDOWN);
    replica->command_count = 0;
    replica__waiters_fail(replica->waiters, ERR_LEADER_LOST);
    replica->waiters = NULL;
    replica->waiters_last = NULL;
    struct read_group **lists[] = {&replica->reads_new, &replica->reads_asked,
                                   &replica->reads_confirmed};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        while (*lists[i] != NULL) {
            struct read_group *group = *lists[i];
            *lists[i] = group->next;
            read_group_fail(replica, group, ERR_SHUTDOWN);
        }
    }
    replica->reads_asked_last = NULL;
    while (replica->transfers != NULL) {
        struct transfer_waiter *waiter = replica->transfers;
        replica->transfers = waiter->next;
        waiter->done(waiter->context, ERR_SHUTDOWN);
        free(waiter);
    }
}

/* The Raft core against peers that may say anything. One core of 3 or 5; everyone else is the
 * input: messages with any fields (entries are well-typed), ticks, and an owner that keeps core.h's
 * contract, with syncs as late and restarts as often as the input likes.
 *
 * What must hold whatever peers say: the core's own invariants after every input, no assertion,
 * commit never falls, nothing that was applied is cut from the disk, and the disk it leaves starts
 * a core again. (That replicas agree with each other cannot hold here: peers that lie are outside
 * of Raft's contract. The simulators of tests/raft and tests/sim check it with peers that do not.)
 *
 * Numbers in messages are drawn close to what the core holds, so that they hit. The input's byte
 * codes below only ever get new meanings at their end, so that kept inputs keep theirs.
 *
 * With FUZZ_TRACE in the environment, the core's transitions go to standard error. */
#include "fuzz/fuzz.h"

#include "base/rng.h"
#include "raft/core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 4096;

enum {
    OPS_MAX = 1500,
    PEERS_MAX = 7, /* members, and strangers above */
    SENT_KEPT = 8,
    ENTRIES_MAX = 4,
    SNAPSHOT_BYTES_MAX = 12,
};

struct sent {
    struct raft_message message; /* without what it pointed at; a snapshot's names are in it */
    struct raft_position end;    /* of an APPEND's entries */
};

struct disk_write {
    struct raft_write write;
    struct sent *held;
    size_t held_count;
    struct raft_entry *entries;
    struct raft_snapshot chunk_snapshot;
    struct raft_snapshot install;
};

struct world {
    struct reader *input;
    struct raft_core *core;
    struct raft_core_options options;
    bool sync_at_once;
    struct disk_write *writes;
    size_t write_count;
    size_t write_capacity;
    /* durable */
    struct raft_hard_state hard_state;
    struct raft_snapshot base; /* log[0] is behind it */
    struct raft_entry *log;
    size_t log_count;
    size_t log_capacity;
    uint64_t staged_id;
    uint64_t staged_bytes;
    uint64_t applied;
    /* seen */
    uint64_t commit_seen;
    struct sent sent[SENT_KEPT]; /* newest last */
    size_t sent_count;
    uint64_t next_snapshot_id;
};

static const char payload[] = "0123456789abcdef";

static void check(struct world *world)
{
    struct raft_status status;
    raft_core_check(world->core);
    raft_core_status(world->core, &status);
    ASSERT_CMP(status.commit, >=, world->commit_seen);
    ASSERT_CMP(status.applied, <=, status.commit);
    world->commit_seen = status.commit;
}

static struct raft_status status_of(const struct world *world)
{
    struct raft_status status;
    raft_core_status(world->core, &status);
    return status;
}

/* ---- what it sent ---- */

static struct sent sent_of(const struct raft_message *message)
{
    struct sent sent = {.message = *message, .end = message->position};
    if (message->entry_count > 0) {
        sent.end = message->entries[message->entry_count - 1].position;
    }
    if (message->snapshot != NULL) {
        sent.message.position = message->snapshot->position;
        sent.message.snapshot_id = message->snapshot->id;
        sent.message.chunk_offset = message->snapshot->size_bytes;
    }
    sent.message.snapshot = NULL;
    sent.message.entries = NULL;
    sent.message.entry_count = 0;
    sent.message.chunk = BYTES_EMPTY;
    sent.message.chunk_owner = NULL;
    return sent;
}

static void send_one(struct world *world, const struct sent *sent)
{
    if (world->sent_count == SENT_KEPT) {
        world->sent_count--;
        memmove(world->sent, world->sent + 1, world->sent_count * sizeof world->sent[0]);
    }
    world->sent[world->sent_count++] = *sent;
}

/* ---- the disk ---- */

static uint64_t disk_last(const struct world *world)
{
    return world->base.position.index + world->log_count;
}

static void disk_truncate(struct world *world, uint64_t from)
{
    while (world->log_count > 0 && disk_last(world) >= from) {
        blob_unref(world->log[--world->log_count].owner);
    }
}

static void disk_install(struct world *world, const struct raft_snapshot *snapshot)
{
    ASSERT_CMP(world->staged_id, ==, snapshot->id);
    ASSERT_CMP(world->staged_bytes, ==, snapshot->size_bytes);
    ASSERT_CMP(snapshot->position.index, >, world->applied);
    disk_truncate(world, 0);
    world->base = *snapshot;
    world->staged_id = 0;
    world->applied = snapshot->position.index;
}

/* False: the snapshot was damaged. */
static bool disk_write(struct world *world, const struct disk_write *write, bool damaged)
{
    bool installed = write->write.install != NULL && !damaged;
    if (write->write.chunk_snapshot != NULL) {
        if (write->write.chunk_offset == 0) {
            world->staged_id = write->chunk_snapshot.id;
            world->staged_bytes = 0;
        }
        ASSERT_CMP(world->staged_id, ==, write->chunk_snapshot.id);
        ASSERT_CMP(world->staged_bytes, ==, write->write.chunk_offset);
        world->staged_bytes += write->write.chunk.size;
    }
    if (installed) {
        disk_install(world, &write->install);
    }
    if (write->write.truncate_from != 0) {
        ASSERT_CMP(write->write.truncate_from, >, world->applied);
        ASSERT_CMP(write->write.truncate_from, >, world->base.position.index);
        disk_truncate(world, write->write.truncate_from);
    }
    for (size_t i = 0; i < write->write.entry_count; i++) {
        if (world->log_count == world->log_capacity) {
            world->log_capacity = world->log_capacity * 2 + 16;
            world->log = mem_realloc(world->log, world->log_capacity * sizeof world->log[0]);
        }
        ASSERT_CMP(write->entries[i].position.index, ==, disk_last(world) + 1);
        world->log[world->log_count++] = write->entries[i];
        blob_ref(write->entries[i].owner);
    }
    if (write->write.hard_state_changed) {
        ASSERT_CMP(write->write.hard_state.term, >=, world->hard_state.term);
        world->hard_state = write->write.hard_state;
    }
    return installed;
}

static void write_free(struct disk_write *write)
{
    for (size_t i = 0; i < write->write.entry_count; i++) {
        blob_unref(write->entries[i].owner);
    }
    free(write->entries);
    free(write->held);
}

static void write_keep(struct world *world, const struct raft_ready *all)
{
    const struct raft_write *ready = &all->write;
    if (world->write_count == world->write_capacity) {
        world->write_capacity = world->write_capacity * 2 + 8;
        world->writes = mem_realloc(world->writes, world->write_capacity * sizeof world->writes[0]);
    }
    struct disk_write *write = &world->writes[world->write_count++];
    *write = (struct disk_write){.write = *ready};
    write->entries = mem_dup(ready->entries, ready->entry_count * sizeof ready->entries[0]);
    for (size_t i = 0; i < ready->entry_count; i++) {
        blob_ref(write->entries[i].owner);
    }
    if (ready->chunk_snapshot != NULL) {
        write->chunk_snapshot = *ready->chunk_snapshot;
    }
    if (ready->install != NULL) {
        write->install = *ready->install;
    }
    write->held = mem_calloc(all->held_count + 1, sizeof write->held[0]);
    write->held_count = all->held_count;
    for (size_t i = 0; i < all->held_count; i++) {
        write->held[i] = sent_of(&all->held[i]);
    }
}

static void apply_all(struct world *world)
{
    struct raft_status status = status_of(world);
    uint64_t limit = status.commit < status.durable ? status.commit : status.durable;
    limit = limit < disk_last(world) ? limit : disk_last(world);
    if (world->applied < world->base.position.index || status.applied > world->applied ||
        limit <= world->applied) {
        return;
    }
    world->applied = limit;
    raft_core_applied(world->core, limit);
    check(world);
}

static void sync_some(struct world *world, size_t count, bool damaged)
{
    count = count < world->write_count ? count : world->write_count;
    for (size_t i = 0; i < count; i++) {
        struct disk_write *write = &world->writes[i];
        bool installed = disk_write(world, write, damaged);
        if (write->write.install != NULL && !installed) {
            world->staged_id = 0;
            raft_core_install_failed(world->core, write->write.seq);
        }
        raft_core_persisted(world->core, write->write.seq);
        check(world);
        if (installed) {
            raft_core_applied(world->core, write->install.position.index);
        }
        for (size_t held = 0; held < write->held_count; held++) {
            send_one(world, &write->held[held]);
        }
        write_free(write);
        apply_all(world);
    }
    if (count == 0) {
        return;
    }
    world->write_count -= count;
    memmove(world->writes, world->writes + count, world->write_count * sizeof world->writes[0]);
}

/* ---- the owner ---- */

static void answer_load(struct world *world, const struct raft_load *load)
{
    uint64_t first = world->base.position.index + 1;
    if (load->index < first) {
        raft_core_entries_loaded(world->core, load->peer, NULL, 0);
        return;
    }
    size_t at = (size_t)(load->index - first);
    if (at < world->log_count) {
        size_t left = world->log_count - at;
        raft_core_entries_loaded(world->core, load->peer, &world->log[at], left < 3 ? left : 3);
    }
}

static void collect(struct world *world)
{
    struct raft_ready ready;
    for (int rounds = 0; raft_core_ready(world->core, &ready); rounds++) {
        ASSERT_CMP(rounds, <, 1000);
        struct raft_load loads[RAFT_MEMBERS_MAX];
        size_t load_count = ready.load_count;
        ASSERT_CMP(load_count, <=, RAFT_MEMBERS_MAX);
        if (load_count > 0) {
            memcpy(loads, ready.loads, load_count * sizeof loads[0]);
        }
        for (size_t i = 0; i < ready.message_count; i++) {
            struct sent sent = sent_of(&ready.messages[i]);
            send_one(world, &sent);
        }
        if (ready.write.seq != 0) {
            write_keep(world, &ready);
        } else {
            ASSERT_CMP(ready.held_count, ==, 0);
        }
        raft_core_accept(world->core);
        check(world);
        for (size_t i = 0; i < load_count; i++) {
            answer_load(world, &loads[i]);
            check(world);
        }
        if (world->sync_at_once) {
            sync_some(world, world->write_count, false);
        }
        apply_all(world);
    }
}

static void print_trace(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

static void start(struct world *world)
{
    struct raft_position *runs = mem_calloc(world->log_count + 1, sizeof runs[0]);
    struct raft_membership *memberships = mem_calloc(world->log_count + 1, sizeof memberships[0]);
    size_t run_count = 0;
    size_t membership_count = 0;
    for (size_t i = 0; i < world->log_count; i++) {
        const struct raft_entry *entry = &world->log[i];
        if (run_count == 0 || runs[run_count - 1].term != entry->position.term) {
            runs[run_count++] = entry->position;
        }
        if (entry->kind == RAFT_ENTRY_MEMBERSHIP) {
            int error = raft_membership_decode(entry->data, &memberships[membership_count]);
            ASSERT(error == 0);
            memberships[membership_count++].position = entry->position;
        }
    }
    size_t tail = world->log_count < 3 ? world->log_count : 3;
    struct raft_core_state state = {
        .hard_state = world->hard_state,
        .snapshot = world->base,
        .log_start = world->base.position,
        .log_last =
            world->log_count > 0 ? world->log[world->log_count - 1].position : world->base.position,
        .term_runs = runs,
        .term_run_count = run_count,
        .memberships = memberships,
        .membership_count = membership_count,
        .applied = world->applied,
        .tail = tail > 0 ? world->log + (world->log_count - tail) : NULL,
        .tail_count = tail,
    };
    char why[256] = "";
    world->options.seed++;
    int error = raft_core_create(&world->options, &state, &world->core, why, sizeof why);
    if (error != 0) {
        fprintf(stderr, "the disk the core left does not start it: %s\n", why);
    }
    ASSERT(error == 0);
    if (getenv("FUZZ_TRACE") != NULL) {
        raft_core_set_trace(world->core, print_trace, NULL);
    }
    free(runs);
    free(memberships);
    world->commit_seen = 0;
    check(world);
}

static void crash(struct world *world)
{
    for (size_t i = 0; i < world->write_count; i++) {
        write_free(&world->writes[i]);
    }
    world->write_count = 0;
    world->staged_id = 0;
    world->sent_count = 0;
    raft_core_destroy(world->core);
}

/* ---- what the input says ---- */

static uint64_t draw_index(struct world *world)
{
    struct raft_status status = status_of(world);
    uint8_t choice = get_u8(world->input);
    uint64_t bases[] = {0,
                        status.log_start.index,
                        status.applied,
                        status.commit,
                        status.durable,
                        status.last.index,
                        world->base.position.index};
    uint32_t which = choice % 8;
    if (which == 7) {
        return fuzz_number(world->input);
    }
    uint64_t add = choice / 8 % 8; /* -3 .. 4 */
    uint64_t base = bases[which] + add;
    return base < 3 ? 0 : base - 3;
}

static uint64_t draw_term(struct world *world, uint64_t index)
{
    struct raft_status status = status_of(world);
    switch (fuzz_choice(world->input, 10)) {
    case 0:
    case 1:
    case 2:
        return status.term;
    case 3:
        return status.term + 1;
    case 4:
        return status.term - 1; /* UINT64_MAX from 0, which is refused */
    case 5:
    case 6:
        return raft_core_term_at(world->core, index);
    case 7:
        return status.last.term;
    case 8:
        return status.commit > 0 ? raft_core_term_at(world->core, status.commit) : 1;
    default:
        return fuzz_number(world->input);
    }
}

static struct raft_position draw_position(struct world *world)
{
    uint64_t index = draw_index(world);
    return (struct raft_position){index, draw_term(world, index)};
}

/* One that decodes; the core itself, id 1, may be a voter, a learner or not in it. */
static struct raft_membership draw_membership(struct world *world)
{
    struct raft_membership membership = {.count = 0};
    uint8_t who = get_u8(world->input);
    uint8_t learners = get_u8(world->input);
    for (uint64_t id = 1; id <= PEERS_MAX; id++) {
        if ((who >> (id - 1) & 1) != 0) {
            struct raft_member *member = &membership.members[membership.count++];
            member->id = id;
            member->role = (learners >> (id - 1) & 1) != 0 ? RAFT_LEARNER : RAFT_VOTER;
            snprintf(member->address, sizeof member->address, "node:%u", (unsigned)id);
        }
    }
    return membership;
}

static struct raft_entry draw_entry(struct world *world, struct raft_position position)
{
    struct raft_entry entry = {.position = position, .kind = RAFT_ENTRY_COMMAND};
    uint32_t kind = fuzz_choice(world->input, 8);
    entry.data = bytes_of(payload, kind);
    if (kind == 0) {
        entry.kind = RAFT_ENTRY_NOOP;
    } else if (kind < 3) {
        struct raft_membership membership = draw_membership(world);
        struct buf bytes;
        buf_init(&bytes);
        if (raft_membership_voter_count(&membership) > 0) {
            raft_membership_encode(&membership, &bytes);
        } else { /* not one that is allowed: raw bytes */
            buf_append(&bytes, payload, membership.count);
        }
        entry.kind = RAFT_ENTRY_MEMBERSHIP;
        entry.owner = blob_take_buf(&bytes);
        entry.data = blob_view(entry.owner);
    }
    return entry;
}

static void step(struct world *world, const struct raft_message *message)
{
    if (getenv("FUZZ_TRACE") != NULL) {
        fprintf(stderr,
                "  message kind=%d from=%llu term=%llu position=%llu/%llu commit=%llu reject=%d "
                "entries=%zu\n",
                (int)message->kind, (unsigned long long)message->from,
                (unsigned long long)message->term, (unsigned long long)message->position.index,
                (unsigned long long)message->position.term, (unsigned long long)message->commit,
                message->reject, message->entry_count);
    }
    raft_core_step(world->core, message);
    check(world);
}

static void step_any(struct world *world)
{
    struct reader *input = world->input;
    struct raft_entry entries[ENTRIES_MAX];
    struct raft_snapshot snapshot;
    struct raft_message message = {.to = 1};
    message.kind = (enum raft_message_kind)(RAFT_MSG_PREVOTE + fuzz_choice(input, 11));
    message.from = fuzz_choice(input, PEERS_MAX + 2);
    message.term = draw_term(world, 0);
    message.position = draw_position(world);
    uint8_t flags = get_u8(input);
    message.reject = (flags & 1) != 0;
    message.leader_transfer = (flags & 2) != 0;
    message.commit = draw_index(world);
    if ((flags & 4) != 0) {
        message.hint = draw_position(world);
    }
    if ((flags & 8) != 0) {
        message.read_round = fuzz_number(input);
    }
    if (message.kind == RAFT_MSG_APPEND) {
        struct raft_position position = message.position;
        message.entry_count = (size_t)(flags >> 4) % (ENTRIES_MAX + 1);
        for (size_t i = 0; i < message.entry_count; i++) {
            position.index++;
            position.term =
                fuzz_choice(input, 4) == 0 ? draw_term(world, position.index) : position.term;
            entries[i] = draw_entry(world, position);
        }
        message.entries = entries;
    }
    if (message.kind == RAFT_MSG_SNAPSHOT && (flags & 16) == 0) {
        snapshot = (struct raft_snapshot){.position = message.position,
                                          .membership = draw_membership(world),
                                          .size_bytes = fuzz_choice(input, SNAPSHOT_BYTES_MAX),
                                          .id = fuzz_choice(input, 4)};
        snapshot.membership.position =
            (flags & 32) != 0 ? draw_position(world) : (struct raft_position){0, 0};
        message.snapshot = &snapshot;
        message.chunk = bytes_of(payload, fuzz_choice(input, SNAPSHOT_BYTES_MAX + 1));
        message.chunk_offset = fuzz_choice(input, SNAPSHOT_BYTES_MAX);
    }
    if (message.kind == RAFT_MSG_SNAPSHOT_REPLY) {
        message.snapshot_id = fuzz_choice(input, 4);
        message.chunk_offset = fuzz_number(input);
    }
    step(world, &message);
    for (size_t i = 0; i < message.entry_count; i++) {
        blob_unref(entries[i].owner);
    }
}

/* As an honest peer would answer one of the newest messages, so that elections are won and entries
 * commit. */
static void step_answer(struct world *world)
{
    static const enum raft_message_kind answers[] = {
        [RAFT_MSG_PREVOTE] = RAFT_MSG_PREVOTE_REPLY,
        [RAFT_MSG_VOTE] = RAFT_MSG_VOTE_REPLY,
        [RAFT_MSG_APPEND] = RAFT_MSG_APPEND_REPLY,
        [RAFT_MSG_HEARTBEAT] = RAFT_MSG_HEARTBEAT_REPLY,
        [RAFT_MSG_SNAPSHOT] = RAFT_MSG_SNAPSHOT_REPLY,
        [RAFT_MSG_TIMEOUT_NOW] = 0,
    };
    uint32_t which = fuzz_choice(world->input, SENT_KEPT);
    if (which >= world->sent_count) {
        return;
    }
    const struct raft_message *sent = &world->sent[world->sent_count - 1 - which].message;
    if (answers[sent->kind] == 0) {
        return;
    }
    struct raft_message message = {.kind = answers[sent->kind],
                                   .from = sent->to,
                                   .to = sent->from,
                                   .term = sent->term,
                                   .read_round = sent->read_round,
                                   .snapshot_id = sent->snapshot_id,
                                   .chunk_offset = sent->chunk_offset};
    if (sent->kind == RAFT_MSG_APPEND) {
        message.position = world->sent[world->sent_count - 1 - which].end;
    } else if (sent->kind == RAFT_MSG_SNAPSHOT) {
        message.position = sent->position;
    }
    step(world, &message);
}

/* An honest leader's next entries, at the end of our log. */
static void step_honest_append(struct world *world)
{
    struct raft_status status = status_of(world);
    uint64_t from = status.leader > 1 ? status.leader : 2 + fuzz_choice(world->input, 2);
    struct raft_message message = {.kind = RAFT_MSG_APPEND,
                                   .from = from,
                                   .to = 1,
                                   .term = status.term + (status.leader == 1 || status.term == 0),
                                   .position = status.last};
    message.commit = draw_index(world);
    struct raft_entry entry =
        draw_entry(world, (struct raft_position){status.last.index + 1, message.term});
    message.entries = &entry;
    message.entry_count = 1;
    step(world, &message);
    blob_unref(entry.owner);
}

static void ask(struct world *world)
{
    struct reader *input = world->input;
    struct raft_position position;
    int error = 0;
    switch (fuzz_choice(input, 5)) {
    case 0:
    case 1:
        error = raft_core_propose(world->core, bytes_of(payload, fuzz_choice(input, 16)), NULL,
                                  &position);
        break;
    case 2: {
        struct raft_change change = {
            .kind = (enum raft_change_kind)(RAFT_ADD_LEARNER + fuzz_choice(input, 4)),
            .id = fuzz_choice(input, PEERS_MAX + 2),
            .address = "node:x"};
        error = raft_core_propose_change(world->core, &change, &position);
        break;
    }
    case 3:
        error = raft_core_transfer(world->core, fuzz_choice(input, PEERS_MAX));
        break;
    default:
        error = raft_core_read(world->core, 7);
        break;
    }
    ASSERT(error <= 0);
    check(world);
}

/* Offers a snapshot of what is applied, and perhaps forgets the log below it. */
static void snapshot_and_compact(struct world *world)
{
    uint8_t what = get_u8(world->input);
    struct raft_snapshot snapshot = {.size_bytes = what % 8, .id = ++world->next_snapshot_id};
    struct raft_status status = status_of(world);
    uint64_t index = status.applied;
    if (index == 0 || !raft_core_membership_at(world->core, index, &snapshot.membership)) {
        return;
    }
    snapshot.position = (struct raft_position){index, raft_core_term_at(world->core, index)};
    /* An owner has nothing to offer while its group has no members, as a stranger may have said. */
    if ((what & 8) == 0 && snapshot.membership.count > 0) {
        raft_core_snapshot_made(world->core, &snapshot);
        check(world);
    }
    if ((what & 16) == 0) {
        raft_core_compact(world->core, index > (what >> 5) ? index - (what >> 5) : 0);
        check(world);
        struct raft_position begin = status_of(world).log_start;
        if (begin.index <= world->base.position.index) {
            return;
        }
        size_t gone = (size_t)(begin.index - world->base.position.index);
        ASSERT_CMP(gone, <=, world->log_count);
        for (size_t i = 0; i < gone; i++) {
            blob_unref(world->log[i].owner);
        }
        world->log_count -= gone;
        memmove(world->log, world->log + gone, world->log_count * sizeof world->log[0]);
        bool known = raft_core_membership_at(world->core, begin.index, &world->base.membership);
        ASSERT(known);
        world->base.position = begin;
    }
}

static void do_one(struct world *world)
{
    struct reader *input = world->input;
    uint32_t op = fuzz_choice(input, 24);
    bool take = true;
    switch (op) {
    case 0:
    case 1:
        for (uint32_t ticks = 1 + fuzz_choice(input, 24); ticks > 0; ticks--) {
            raft_core_tick(world->core);
            check(world);
        }
        break;
    case 2:
        sync_some(world, 1 + fuzz_choice(input, 4), false);
        break;
    case 3:
        sync_some(world, 1, true); /* an install in it is found damaged */
        break;
    case 4:
        world->sync_at_once = !world->sync_at_once;
        break;
    case 5:
    case 6:
        ask(world);
        break;
    case 7:
        snapshot_and_compact(world);
        break;
    case 8:
        raft_core_unreachable(world->core, fuzz_choice(input, PEERS_MAX));
        check(world);
        break;
    case 9:
        crash(world);
        start(world);
        break;
    case 10:
    case 11:
    case 12:
        step_answer(world);
        break;
    case 13:
        step_honest_append(world);
        break;
    case 14:
        step_any(world);
        take = false; /* several messages before a ready */
        break;
    default:
        step_any(world);
        break;
    }
    if (take) {
        collect(world);
    }
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    struct world world = {.input = &reader, .sync_at_once = true};
    uint8_t setup = get_u8(&reader);
    world.options = raft_core_options_default(1, 1);
    world.options.lease_reads = (setup & 1) != 0;
    world.options.append_bytes_max = 128;
    world.options.inflight_bytes_max = 256;
    world.options.inflight_count_max = 3;
    world.options.cache_bytes_max = (setup & 2) != 0 ? 1 : 1024;
    world.options.uncommitted_bytes_max = 1024;
    world.options.chunk_bytes_max = 4;
    world.next_snapshot_id = 100;
    world.base.membership.count = (setup & 4) != 0 ? 5 : 3;
    if ((setup & 24) == 24) {
        world.base.membership.count = (setup & 4) != 0 ? 0 : 1; /* waits to be added; alone */
    }
    for (uint32_t i = 0; i < world.base.membership.count; i++) {
        struct raft_member *member = &world.base.membership.members[i];
        *member = (struct raft_member){.id = i + 1, .role = RAFT_VOTER};
        snprintf(member->address, sizeof member->address, "node:%u", (unsigned)(i + 1));
    }
    start(&world);
    for (int ops = 0; reader_left(&reader) > 0 && ops < OPS_MAX; ops++) {
        do_one(&world);
    }
    crash(&world);
    start(&world);
    crash(&world);
    disk_truncate(&world, 0);
    free(world.log);
    free(world.writes);
}

/* Random operations: what is deep comes from their answers. */
bool fuzz_seed(uint32_t index, struct buf *out)
{
    struct rng rng;
    rng_init(&rng, index + 1);
    put_u8(out, (uint8_t)index);
    for (uint32_t i = 0; i < 40 + index * 8; i++) {
        uint64_t what = rng_below(&rng, 10);
        if (what < 2) { /* an election, with everyone for us */
            static const uint8_t win[] = {0, 23, 10, 0, 10, 1, 11, 0, 11, 1, 10, 0, 10, 1};
            buf_append(out, win, sizeof win);
        } else if (what < 4) {
            static const uint8_t commit[] = {5, 0, 4, 10, 0, 10, 1};
            buf_append(out, commit, sizeof commit);
        } else if (what < 5) {
            put_u8(out, 13);
            put_u32(out, (uint32_t)rng_next(&rng));
        } else {
            put_u8(out, (uint8_t)(rng_below(&rng, 24)));
            put_u64(out, rng_next(&rng));
        }
    }
    return index < 32;
}

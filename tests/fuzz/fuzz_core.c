/* The Raft core against peers that may say anything. One core of 3 or 5; everyone else is the
 * input: messages with any fields (entries are well-typed), ticks, and an owner that keeps core.h's
 * contract (core_host.h), with syncs as late and restarts as often as the input likes.
 *
 * What must hold whatever peers say: the core's own invariants after every input, no assertion,
 * commit never falls, nothing that was applied is cut from the disk, and the disk it leaves starts
 * a core again. (That replicas agree with each other cannot hold here: peers that lie are outside
 * of Raft's contract. The simulators of tests/raft and tests/sim check it with peers that do not.)
 *
 * Numbers in messages are drawn close to what the core holds, so that they hit. The input's byte
 * codes below only ever get new meanings at their end, so that kept inputs keep theirs.
 *
 * With FUZZ_TRACE in the environment, the messages and the core's transitions go to standard error.
 */
#include "fuzz/core_host.h"
#include "fuzz/fuzz.h"

#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>

const size_t fuzz_input_bytes_max = 4096;

enum {
    OPS_MAX = 1500,
    PEERS_MAX = 7, /* members, and strangers above */
    ENTRIES_MAX = 4,
    SNAPSHOT_BYTES_MAX = 12,
};

struct world {
    struct reader *input;
    struct core_host host;
    uint64_t next_snapshot_id;
};

static const char payload[] = "0123456789abcdef";

static uint64_t draw_index(struct world *world)
{
    struct raft_status status = core_host_status(&world->host);
    uint8_t choice = get_u8(world->input);
    uint64_t bases[] = {0,
                        status.log_start.index,
                        status.applied,
                        status.commit,
                        status.durable,
                        status.last.index,
                        world->host.base.position.index};
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
    struct raft_status status = core_host_status(&world->host);
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
        return raft_core_term_at(world->host.core, index);
    case 7:
        return status.last.term;
    case 8:
        return status.commit > 0 ? raft_core_term_at(world->host.core, status.commit) : 1;
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
    raft_core_step(world->host.core, message);
    core_host_check(&world->host);
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
    uint32_t which = fuzz_choice(world->input, CORE_SENT_KEPT);
    if (which >= world->host.sent_count) {
        return;
    }
    const struct raft_message *sent = &world->host.sent[world->host.sent_count - 1 - which].message;
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
        message.position = world->host.sent[world->host.sent_count - 1 - which].end;
    } else if (sent->kind == RAFT_MSG_SNAPSHOT) {
        message.position = sent->position;
    }
    step(world, &message);
}

/* An honest leader's next entries, at the end of our log. */
static void step_honest_append(struct world *world)
{
    struct raft_status status = core_host_status(&world->host);
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
        error = raft_core_propose(world->host.core, bytes_of(payload, fuzz_choice(input, 16)), NULL,
                                  &position);
        break;
    case 2: {
        struct raft_change change = {
            .kind = (enum raft_change_kind)(RAFT_ADD_LEARNER + fuzz_choice(input, 4)),
            .id = fuzz_choice(input, PEERS_MAX + 2),
            .address = "node:x"};
        error = raft_core_propose_change(world->host.core, &change, &position);
        break;
    }
    case 3:
        error = raft_core_transfer(world->host.core, fuzz_choice(input, PEERS_MAX));
        break;
    default:
        error = raft_core_read(world->host.core, 7);
        break;
    }
    ASSERT(error <= 0);
    core_host_check(&world->host);
}

/* Offers a snapshot of what is applied, and perhaps forgets the log below it. */
static void snapshot_and_compact(struct world *world)
{
    uint8_t what = get_u8(world->input);
    struct raft_snapshot snapshot = {.size_bytes = what % 8, .id = ++world->next_snapshot_id};
    struct raft_status status = core_host_status(&world->host);
    uint64_t index = status.applied;
    if (index == 0 || !raft_core_membership_at(world->host.core, index, &snapshot.membership)) {
        return;
    }
    snapshot.position = (struct raft_position){index, raft_core_term_at(world->host.core, index)};
    /* An owner has nothing to offer while its group has no members, as a stranger may have said. */
    if ((what & 8) == 0 && snapshot.membership.count > 0) {
        raft_core_snapshot_made(world->host.core, &snapshot);
        core_host_check(&world->host);
    }
    if ((what & 16) == 0) {
        raft_core_compact(world->host.core, index > (what >> 5) ? index - (what >> 5) : 0);
        core_host_check(&world->host);
        core_host_forget(&world->host);
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
            raft_core_tick(world->host.core);
            core_host_check(&world->host);
        }
        break;
    case 2:
        core_host_sync(&world->host, 1 + fuzz_choice(input, 4), false);
        break;
    case 3:
        core_host_sync(&world->host, 1, true); /* an install in it is found damaged */
        break;
    case 4:
        world->host.sync_at_once = !world->host.sync_at_once;
        break;
    case 5:
    case 6:
        ask(world);
        break;
    case 7:
        snapshot_and_compact(world);
        break;
    case 8:
        raft_core_unreachable(world->host.core, fuzz_choice(input, PEERS_MAX));
        core_host_check(&world->host);
        break;
    case 9:
        core_host_crash(&world->host);
        core_host_start(&world->host);
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
        core_host_collect(&world->host);
    }
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    struct world world = {.input = &reader, .host.sync_at_once = true};
    uint8_t setup = get_u8(&reader);
    world.host.options = raft_core_options_default(1, 1);
    world.host.options.lease_reads = (setup & 1) != 0;
    world.host.options.append_bytes_max = 128;
    world.host.options.inflight_bytes_max = 256;
    world.host.options.inflight_count_max = 3;
    world.host.options.cache_bytes_max = (setup & 2) != 0 ? 1 : 1024;
    world.host.options.uncommitted_bytes_max = 1024;
    world.host.options.chunk_bytes_max = 4;
    world.next_snapshot_id = 100;
    world.host.base.membership.count = (setup & 4) != 0 ? 5 : 3;
    if ((setup & 24) == 24) {
        world.host.base.membership.count = (setup & 4) != 0 ? 0 : 1; /* waits to be added; alone */
    }
    for (uint32_t i = 0; i < world.host.base.membership.count; i++) {
        struct raft_member *member = &world.host.base.membership.members[i];
        *member = (struct raft_member){.id = i + 1, .role = RAFT_VOTER};
        snprintf(member->address, sizeof member->address, "node:%u", (unsigned)(i + 1));
    }
    core_host_start(&world.host);
    for (int ops = 0; reader_left(&reader) > 0 && ops < OPS_MAX; ops++) {
        do_one(&world);
    }
    core_host_crash(&world.host);
    core_host_start(&world.host);
    core_host_crash(&world.host);
    core_host_deinit(&world.host);
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

/* Frames from peers into a whole replica (raft/node/replica): its core, log, snapshots and state
 * machine over a fake disk and virtual time. It is one of three; the other two are the input.
 *
 * The harness checks the replica's invariants after every event; a command it was made to commit
 * and that is no command may end it (env.fatal), which is its answer to a damaged log. After each
 * life it must start again from its disk. The log times of entries are constant here: that they
 * never go back is checked by the harness, and promised by leaders. */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "node/kv_ask.h"
#include "proto/messages.h"
#include "raft/node/log_entry.h"
#include "raft/node/message_codec.h"

#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 2048;

enum {
    STEPS_MAX = 60,
    MESSAGES_MAX = 3,
    ENTRIES_MAX = 3,
    CLUSTER_ID = 0x5eed, /* the harness's */
    GROUP_ID = 7,
};

static void put_payload(struct reader *input, struct buf *out)
{
    if (fuzz_choice(input, 8) == 7) {
        buf_append_bytes(out, fuzz_take(input, 6));
        return;
    }
    struct buf bytes;
    buf_init(&bytes);
    struct kv_command command = {.kind = KV_PUT,
                                 .client_id = fuzz_choice(input, 2),
                                 .sequence = fuzz_choice(input, 4),
                                 .key = bytes_of_string("k"),
                                 .value = bytes_of_string("value")};
    kv_command_encode(&command, &bytes);
    log_entry_put_header(out, 5000, 1);
    log_entry_put_command(out, buf_view(&bytes));
    buf_deinit(&bytes);
}

/* Bounded: the harness keeps tables by term and by index. (fuzz_core.c has no such bound.) */
static uint64_t index_near(struct reader *input, uint64_t base)
{
    uint8_t what = get_u8(input);
    if (what >= 0xf0) {
        return fuzz_number(input) % (1u << 20);
    }
    uint64_t moved = base + what % 8;
    return moved < 3 ? 0 : moved - 3;
}

static void put_message(struct harness *harness, struct reader *input, struct buf *out)
{
    struct node_status status;
    replica_status(harness_replica(harness, 0), &status);
    struct raft_message message = {
        .kind = (enum raft_message_kind)(RAFT_MSG_PREVOTE + fuzz_choice(input, 11))};
    uint8_t flags = get_u8(input);
    message.term =
        (flags & 1) != 0 ? index_near(input, status.raft.term) : status.raft.term + (flags >> 7);
    message.position.index =
        index_near(input, (flags & 2) != 0 ? status.raft.last.index : status.raft.commit);
    message.position.term = (flags & 4) != 0 ? index_near(input, status.raft.term) : message.term;
    message.commit = index_near(input, status.raft.commit + 1);
    message.reject = (flags & 8) != 0;
    message.leader_transfer = (flags & 16) != 0;
    message.read_round = (flags & 32) != 0 ? fuzz_number(input) : 0;
    struct raft_entry entries[ENTRIES_MAX] = {{.kind = RAFT_ENTRY_NOOP}};
    struct buf payloads[ENTRIES_MAX] = {{0}};
    struct raft_snapshot snapshot = {.position = message.position,
                                     .size_bytes = fuzz_choice(input, 8),
                                     .id = 1 + fuzz_choice(input, 3)};
    if (message.kind == RAFT_MSG_APPEND && message.position.index < UINT64_MAX - ENTRIES_MAX) {
        message.entries = entries;
        message.entry_count = fuzz_choice(input, ENTRIES_MAX + 1);
        for (size_t i = 0; i < message.entry_count; i++) {
            put_payload(input, &payloads[i]);
            entries[i] = (struct raft_entry){
                .position = {message.position.index + 1 + i, message.term},
                .kind = fuzz_choice(input, 4) == 0 ? RAFT_ENTRY_NOOP : RAFT_ENTRY_COMMAND};
            if (entries[i].kind == RAFT_ENTRY_COMMAND) {
                entries[i].data = buf_view(&payloads[i]);
            }
        }
    }
    if (message.kind == RAFT_MSG_SNAPSHOT) {
        snapshot.membership.count = 1 + fuzz_choice(input, 3);
        for (uint32_t i = 0; i < snapshot.membership.count; i++) {
            snapshot.membership.members[i] =
                (struct raft_member){.id = i + 1, .role = RAFT_VOTER, .address = "slot:1"};
        }
        message.snapshot = &snapshot;
        message.chunk_offset = fuzz_choice(input, 4);
        message.chunk = fuzz_take(input, fuzz_choice(input, 8));
    }
    message_encode(&message, out);
    for (size_t i = 0; i < ENTRIES_MAX; i++) {
        buf_deinit(&payloads[i]);
    }
}

static void put_frame(struct harness *harness, struct reader *input, struct buf *out)
{
    uint8_t what = get_u8(input);
    if (what >= 0xf0) { /* anything */
        buf_append_bytes(out, fuzz_take(input, get_u8(input)));
        return;
    }
    struct msg_frame *frame = mem_calloc(1, sizeof *frame);
    struct buf messages[MESSAGES_MAX] = {{0}};
    frame->version = (what & 63) == 63 ? 2 : PEER_VERSION;
    frame->cluster_id = (what & 63) == 62 ? 1 : CLUSTER_ID;
    frame->group_id = (what & 63) == 61 ? 1 : GROUP_ID;
    frame->from = (what & 63) == 60 ? fuzz_number(input) : 2 + what % 2u;
    frame->from_incarnation = (what & 63) == 59 ? 9 : 77;
    frame->to = (what & 63) == 58 ? 2 : 1;
    frame->message_count = 1 + (what >> 6) % (uint32_t)MESSAGES_MAX;
    for (uint32_t i = 0; i < frame->message_count; i++) {
        if (fuzz_choice(input, 32) == 31) {
            buf_append_bytes(&messages[i], fuzz_take(input, 30));
        } else {
            put_message(harness, input, &messages[i]);
        }
        frame->messages[i] = buf_view(&messages[i]);
    }
    msg_frame_encode(frame, out);
    for (uint32_t i = 0; i < MESSAGES_MAX; i++) {
        buf_deinit(&messages[i]);
    }
    free(frame);
}

static void one_step(struct harness *harness, struct reader *input)
{
    uint8_t what = get_u8(input);
    if (what % 16 == 15) {
        harness_crash(harness, 0, (what & 16) != 0 ? FAKE_CRASH_LOSE : FAKE_CRASH_KEEP);
        return;
    }
    struct buf frame;
    buf_init(&frame);
    put_frame(harness, input, &frame);
    struct blob *blob = blob_take_buf(&frame);
    (void)replica_receive(harness_replica(harness, 0), blob);
    replica_poll(harness_replica(harness, 0));
    blob_unref(blob);
    harness_run_for(harness, (1 + what / 16u * 8u) * SIM_MS);
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    struct harness_options options = harness_options_default(1 + get_u8(&reader) % 4u);
    options.machine = kv_machine_for_harness();
    struct harness *harness = harness_create(&options);
    for (int steps = 0; steps < STEPS_MAX && reader_left(&reader) > 0; steps++) {
        if (!harness_is_up(harness, 0) && harness_start(harness, 0) != 0) {
            break; /* said why: the log was damaged by what it was made to commit */
        }
        one_step(harness, &reader);
    }
    harness_destroy(harness);
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    put_u8(out, (uint8_t)index);
    for (uint32_t i = 0; i < 60 + 60 * index; i++) {
        /* frames of one message each; heartbeats and appends of the present term, near the end */
        static const uint8_t frame[] = {16, 0, 0, 4, 128, 3, 3, 3, 0, 2, 0, 0, 1, 0, 1};
        put_u8(out, i % 15 == 4 ? (uint8_t)(i * index % 11) : frame[i % sizeof frame]);
    }
    return index < 16;
}

/* Raft messages as bytes (raft/node/message_codec) and what carries them.
 *
 * First byte: 0 a message as it is; 1 a message whose checksum is set right first; 2 a log entry's
 * payload (raft/node/log_entry.h). A message that decodes has one encoding: the bytes it came from.
 */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "base/rng.h"
#include "raft/node/log_entry.h"
#include "raft/node/message_codec.h"

#include <stdio.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 4096;

static void fuzz_message(struct bytes bytes)
{
    struct message_decoded decoded;
    if (message_decode(bytes, NULL, 2, 1, &decoded) != 0) {
        return;
    }
    const struct raft_message *message = &decoded.message;
    ASSERT_CMP(message->from, ==, 2);
    ASSERT_CMP(message->to, ==, 1);
    for (size_t i = 0; i < message->entry_count; i++) {
        ASSERT_CMP(message->entries[i].position.index, ==, message->position.index + 1 + i);
    }
    struct buf again;
    buf_init(&again);
    message_encode(message, &again);
    ASSERT_CMP(again.size, <=, message_bytes_max(message));
    ASSERT(bytes_equal(buf_view(&again), bytes));
    buf_deinit(&again);
    message_decoded_deinit(&decoded);
}

static void fuzz_log_entry(struct bytes bytes)
{
    struct log_entry_reader entry;
    if (log_entry_open(bytes, &entry) != 0) {
        return;
    }
    struct buf again;
    buf_init(&again);
    log_entry_put_header(&again, entry.time_ms, entry.count);
    struct bytes command;
    int error;
    uint32_t count = 0;
    while ((error = log_entry_next(&entry, &command)) == 0) {
        log_entry_put_command(&again, command);
        count++;
    }
    ASSERT(error == ERR_NOT_FOUND || error == ERR_CORRUPT);
    if (error == ERR_NOT_FOUND) {
        ASSERT_CMP(count, ==, entry.count);
        ASSERT(bytes_equal(buf_view(&again), bytes));
    }
    buf_deinit(&again);
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    uint32_t what = fuzz_choice(&reader, 3);
    struct bytes rest = fuzz_take(&reader, input.size);
    if (what == 0) {
        fuzz_message(rest);
    } else if (what == 2) {
        fuzz_log_entry(rest);
    } else {
        struct buf bytes;
        buf_init(&bytes);
        buf_append_bytes(&bytes, rest);
        put_u32(&bytes, crc32c_extend(0, bytes.data, bytes.size));
        fuzz_message(buf_view(&bytes));
        buf_deinit(&bytes);
    }
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    struct rng rng;
    rng_init(&rng, index);
    put_u8(out, index % 8 == 7 ? 2 : (uint8_t)(index % 2));
    if (index % 8 == 7) {
        log_entry_put_header(out, 12345, 3);
        for (size_t i = 0; i < 3; i++) {
            log_entry_put_command(out, bytes_of("some command", 4 * i));
        }
        return index < 44;
    }
    struct raft_entry entries[3] = {{.kind = RAFT_ENTRY_NOOP}};
    struct raft_snapshot snapshot = {.position = {9, 2}, .size_bytes = 100, .id = 77};
    snapshot.membership.count = 1;
    snapshot.membership.members[0] =
        (struct raft_member){.id = 1, .role = RAFT_VOTER, .address = "a:1"};
    struct raft_message message = {.kind = (enum raft_message_kind)(1 + index % 11),
                                   .from = 2,
                                   .to = 1,
                                   .term = rng_below(&rng, 300),
                                   .position = {rng_below(&rng, 300), rng_below(&rng, 3)},
                                   .commit = rng_below(&rng, 2) * rng_next(&rng),
                                   .reject = rng_below(&rng, 2) == 1,
                                   .leader_transfer = rng_below(&rng, 2) == 1,
                                   .hint = {rng_below(&rng, 3), rng_below(&rng, 3)},
                                   .read_round = rng_below(&rng, 3)};
    if (message.kind == RAFT_MSG_APPEND) {
        message.entries = entries;
        message.entry_count = 3;
        for (size_t i = 0; i < 3; i++) {
            entries[i].position.index = message.position.index + 1 + i;
            entries[i].position.term = 5;
            entries[i].kind = RAFT_ENTRY_COMMAND;
            entries[i].data = bytes_of("payload", i * 3);
        }
    }
    if (message.kind == RAFT_MSG_SNAPSHOT) {
        message.snapshot = &snapshot;
        message.chunk_offset = 3;
        message.chunk = bytes_of("chunk", 5);
    }
    message_encode(&message, out);
    if (index % 2 == 1) {
        out->size -= 4; /* the checksum is made again */
    }
    return index < 44;
}

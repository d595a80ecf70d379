/* Raft messages as bytes: round trips of every kind, and whatever else arrives is refused without
 * harm. */
#include "base/codec.h"
#include "base/crc32c.h"
#include "base/rng.h"
#include "proto/messages.h"
#include "raft/node/message_codec.h"
#include "raft/node/outbox.h"
#include "raft/node/replica.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SAMPLE_COUNT = 12 };

struct samples {
    struct raft_message messages[SAMPLE_COUNT];
    struct raft_entry entries[3];
    struct raft_snapshot snapshot;
};

static void samples_init(struct samples *s)
{
    memset(s, 0, sizeof(*s));
    for (size_t i = 0; i < 3; i++) {
        s->entries[i].position = (struct raft_position){41 + i, 6 + i};
        s->entries[i].kind = (enum raft_entry_kind)(1 + i);
    }
    s->entries[1].data = bytes_of_string("a command's bytes");
    s->entries[2].data = bytes_of_string("m");
    s->snapshot = (struct raft_snapshot){
        .position = {1000, 9}, .size_bytes = 1ull << 40, .id = 0xfeedfacecafebeefull};
    struct raft_membership *membership = &s->snapshot.membership;
    membership->position = (struct raft_position){17, 3};
    membership->count = 2;
    for (uint32_t i = 0; i < 2; i++) {
        membership->members[i].id = i + 1;
        membership->members[i].role = i == 0 ? RAFT_VOTER : RAFT_LEARNER;
        snprintf(membership->members[i].address, RAFT_ADDRESS_BYTES_MAX, "127.0.0.1:%u", 7000 + i);
    }
    struct raft_message all[SAMPLE_COUNT] = {
        {.kind = RAFT_MSG_PREVOTE, .term = 7, .position = {40, 6}},
        {.kind = RAFT_MSG_PREVOTE_REPLY, .term = 7, .reject = true},
        {.kind = RAFT_MSG_VOTE, .term = 8, .position = {40, 6}, .leader_transfer = true},
        {.kind = RAFT_MSG_VOTE_REPLY, .term = UINT64_MAX},
        {.kind = RAFT_MSG_APPEND,
         .term = 9,
         .position = {40, 6},
         .commit = 39,
         .read_round = 300,
         .entries = s->entries,
         .entry_count = 3},
        {.kind = RAFT_MSG_APPEND, .term = 9, .position = {0, 0}, .commit = 39},
        {.kind = RAFT_MSG_APPEND_REPLY, .term = 9, .position = {43, 8}, .read_round = 300},
        {.kind = RAFT_MSG_APPEND_REPLY,
         .term = 9,
         .position = {43, 8},
         .reject = true,
         .hint = {12, 0}},
        {.kind = RAFT_MSG_HEARTBEAT, .term = 9, .commit = 39, .read_round = 301},
        {.kind = RAFT_MSG_SNAPSHOT,
         .term = 9,
         .snapshot = &s->snapshot,
         .chunk_offset = 1 << 20,
         .chunk = bytes_of_string("a chunk of the stream")},
        {.kind = RAFT_MSG_SNAPSHOT_REPLY,
         .term = 9,
         .position = {1000, 9},
         .snapshot_id = 0xfeedfacecafebeefull,
         .chunk_offset = 2 << 20},
        {.kind = RAFT_MSG_TIMEOUT_NOW, .term = 9},
    };
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        all[i].from = 3;
        all[i].to = 5;
        s->messages[i] = all[i];
    }
}

static void assert_position_equal(struct raft_position a, struct raft_position b)
{
    assert_true(a.index == b.index);
    assert_true(a.term == b.term);
}

static void assert_snapshot_equal(const struct raft_snapshot *a, const struct raft_snapshot *b)
{
    assert_position_equal(a->position, b->position);
    assert_true(a->size_bytes == b->size_bytes);
    assert_true(a->id == b->id);
    assert_position_equal(a->membership.position, b->membership.position);
    assert_int_equal(a->membership.count, b->membership.count);
    for (uint32_t i = 0; i < a->membership.count; i++) {
        assert_true(a->membership.members[i].id == b->membership.members[i].id);
        assert_int_equal(a->membership.members[i].role, b->membership.members[i].role);
        assert_string_equal(a->membership.members[i].address, b->membership.members[i].address);
    }
}

static void assert_message_equal(const struct raft_message *a, const struct raft_message *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_true(a->from == b->from);
    assert_true(a->to == b->to);
    assert_true(a->term == b->term);
    assert_position_equal(a->position, b->position);
    assert_true(a->commit == b->commit);
    assert_int_equal(a->reject, b->reject);
    assert_int_equal(a->leader_transfer, b->leader_transfer);
    assert_position_equal(a->hint, b->hint);
    assert_true(a->read_round == b->read_round);
    assert_true(a->snapshot_id == b->snapshot_id);
    assert_true(a->chunk_offset == b->chunk_offset);
    assert_true(bytes_equal(a->chunk, b->chunk));
    assert_int_equal(a->entry_count, b->entry_count);
    for (size_t i = 0; i < a->entry_count; i++) {
        assert_position_equal(a->entries[i].position, b->entries[i].position);
        assert_int_equal(a->entries[i].kind, b->entries[i].kind);
        assert_true(bytes_equal(a->entries[i].data, b->entries[i].data));
    }
    assert_int_equal(a->snapshot == NULL, b->snapshot == NULL);
    if (a->snapshot != NULL) {
        assert_snapshot_equal(a->snapshot, b->snapshot);
    }
}

/* The bytes in a heap block of exactly their size, so that the address sanitizer sees a read past
 * the end. */
static int decode(struct bytes bytes, struct message_decoded *out, struct blob **owner)
{
    *owner = blob_copy(bytes);
    return message_decode(blob_view(*owner), *owner, 3, 5, out);
}

static void test_message_every_kind_survives_the_round_trip(void **state)
{
    (void)state;
    struct samples samples;
    samples_init(&samples);
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        struct buf bytes;
        struct message_decoded decoded;
        struct blob *owner;
        buf_init(&bytes);
        message_encode(&samples.messages[i], &bytes);
        assert_true(bytes.size <= message_bytes_max(&samples.messages[i]));
        assert_int_equal(decode(buf_view(&bytes), &decoded, &owner), ERR_OK);
        assert_message_equal(&decoded.message, &samples.messages[i]);
        for (size_t e = 0; e < decoded.message.entry_count; e++) {
            assert_ptr_equal(decoded.message.entries[e].owner, owner);
        }
        message_decoded_deinit(&decoded);
        blob_unref(owner);
        buf_deinit(&bytes);
    }
}

static void test_message_every_truncation_is_refused(void **state)
{
    (void)state;
    struct samples samples;
    samples_init(&samples);
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        struct buf bytes;
        buf_init(&bytes);
        message_encode(&samples.messages[i], &bytes);
        for (size_t size = 0; size < bytes.size; size++) {
            struct message_decoded decoded;
            struct blob *owner;
            assert_int_not_equal(decode(bytes_of(bytes.data, size), &decoded, &owner), ERR_OK);
            assert_null(decoded.entries);
            blob_unref(owner);
        }
        buf_deinit(&bytes);
    }
}

static void test_message_every_flipped_bit_is_refused(void **state)
{
    (void)state;
    struct samples samples;
    samples_init(&samples);
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        struct buf bytes;
        buf_init(&bytes);
        message_encode(&samples.messages[i], &bytes);
        for (size_t bit = 0; bit < bytes.size * 8; bit++) {
            struct message_decoded decoded;
            struct blob *owner;
            bytes.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            assert_int_not_equal(decode(buf_view(&bytes), &decoded, &owner), ERR_OK);
            bytes.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
            blob_unref(owner);
        }
        buf_deinit(&bytes);
    }
}

static void seal(struct buf *bytes)
{
    if (bytes->size >= 4) {
        size_t body = bytes->size - 4;
        store_u32(bytes->data + body, crc32c_extend(0, bytes->data, body));
    }
}

static void mutate(struct buf *bytes, struct rng *rng)
{
    uint64_t count = rng_between(rng, 1, 4);
    for (uint64_t i = 0; i < count && bytes->size > 0; i++) {
        size_t at = (size_t)rng_below(rng, bytes->size);
        switch (rng_below(rng, 4)) {
        case 0:
            bytes->data[at] = (uint8_t)rng_next(rng);
            break;
        case 1:
            bytes->data[at] = (uint8_t)(bytes->data[at] + (rng_chance(rng, 1, 2) ? 1 : 255));
            break;
        case 2:
            bytes->data[at] = 0xff;
            break;
        default:
            bytes->size = at;
            break;
        }
    }
}

/* With a checksum that fits, the decoder's own checks are all there is: whatever it lets through
 * must be a message that can be encoded and read again as the same. */
static void test_message_mutated_with_good_checksum_is_refused_or_sound(void **state)
{
    (void)state;
    enum { ROUNDS = 60000 };
    struct samples samples;
    struct rng rng;
    size_t accepted = 0;
    samples_init(&samples);
    rng_init(&rng, 20240611);
    for (size_t round = 0; round < ROUNDS; round++) {
        struct buf bytes;
        struct message_decoded decoded;
        struct blob *owner;
        buf_init(&bytes);
        message_encode(&samples.messages[round % SAMPLE_COUNT], &bytes);
        mutate(&bytes, &rng);
        seal(&bytes);
        if (decode(buf_view(&bytes), &decoded, &owner) == ERR_OK) {
            struct buf again;
            struct message_decoded second;
            struct blob *second_owner;
            accepted++;
            buf_init(&again);
            message_encode(&decoded.message, &again);
            assert_int_equal(decode(buf_view(&again), &second, &second_owner), ERR_OK);
            assert_message_equal(&decoded.message, &second.message);
            message_decoded_deinit(&second);
            blob_unref(second_owner);
            buf_deinit(&again);
            message_decoded_deinit(&decoded);
        }
        blob_unref(owner);
        buf_deinit(&bytes);
    }
    assert_true(accepted > ROUNDS / 100); /* the mutations are not all nonsense */
    assert_true(accepted < ROUNDS - ROUNDS / 100);
}

static void test_message_lying_entry_count_allocates_nothing(void **state)
{
    (void)state;
    struct buf bytes;
    struct message_decoded decoded;
    struct blob *owner;
    buf_init(&bytes);
    put_u8(&bytes, 1);
    put_u8(&bytes, RAFT_MSG_APPEND);
    put_u16(&bytes, 1 << 6);
    put_varint(&bytes, 5);
    put_varint(&bytes, 65536); /* entries, and not one byte of them */
    put_u32(&bytes, 0);
    seal(&bytes);
    assert_int_equal(decode(buf_view(&bytes), &decoded, &owner), ERR_PROTOCOL);
    assert_null(decoded.entries);
    blob_unref(owner);
    buf_deinit(&bytes);
}

static void test_message_index_overflow_is_refused(void **state)
{
    (void)state;
    struct buf bytes;
    struct message_decoded decoded;
    struct blob *owner;
    buf_init(&bytes);
    put_u8(&bytes, 1);
    put_u8(&bytes, RAFT_MSG_APPEND);
    put_u16(&bytes, (1 << 0) | (1 << 6));
    put_varint(&bytes, 5);
    put_varint(&bytes, UINT64_MAX);
    put_varint(&bytes, 5);
    put_varint(&bytes, 1);
    put_u8(&bytes, RAFT_ENTRY_NOOP);
    put_varint(&bytes, 5);
    put_varint(&bytes, 0);
    put_u32(&bytes, 0);
    seal(&bytes);
    assert_int_equal(decode(buf_view(&bytes), &decoded, &owner), ERR_PROTOCOL);
    blob_unref(owner);
    buf_deinit(&bytes);
}

/* ---- frames ---- */

struct terms {
    uint64_t seen[8];
    size_t count;
    size_t frames;
};

static void collect_terms(void *context, uint64_t peer, struct buf *frame_bytes)
{
    struct terms *terms = context;
    struct msg_frame frame;
    assert_int_equal(msg_frame_decode(buf_view(frame_bytes), &frame), ERR_OK);
    terms->frames++;
    for (uint32_t i = 0; i < frame.message_count; i++) {
        struct message_decoded decoded;
        assert_int_equal(message_decode(frame.messages[i], NULL, 1, peer, &decoded), ERR_OK);
        assert_true(terms->count < 8);
        terms->seen[terms->count++] = decoded.message.term;
        message_decoded_deinit(&decoded);
    }
    buf_deinit(frame_bytes);
}

/* The second message does not fit behind the first, nor the third behind the second; it would fit
 * behind the first. */
static void test_outbox_keeps_the_order_of_messages_over_frames(void **state)
{
    (void)state;
    enum { SMALL = REPLICA_FRAME_BYTES_MAX / 4, LARGE = REPLICA_FRAME_BYTES_MAX - 64 * 1024 };
    static const size_t sizes[] = {SMALL, LARGE, SMALL, 10};
    uint8_t *data = mem_calloc(1, LARGE);
    struct outbox outbox;
    struct terms terms = {.count = 0};
    const struct outbox_sender sender = {
        .cluster_id = 1, .group_id = 1, .replica_id = 1, .incarnation = 1};
    outbox_init(&outbox);
    for (uint64_t i = 0; i < 4; i++) {
        struct raft_entry entry = {
            .position = {1, 1}, .kind = RAFT_ENTRY_COMMAND, .data = bytes_of(data, sizes[i])};
        struct raft_message message = {
            .kind = RAFT_MSG_APPEND, .to = 2, .term = i + 1, .entries = &entry, .entry_count = 1};
        outbox_add(&outbox, &message);
    }
    outbox_flush(&outbox, &sender, collect_terms, &terms);
    assert_int_equal(terms.frames, 3);
    assert_int_equal(terms.count, 4);
    for (size_t i = 0; i < terms.count; i++) {
        assert_int_equal(terms.seen[i], i + 1);
    }
    outbox_deinit(&outbox);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_every_kind_survives_the_round_trip),
        cmocka_unit_test(test_message_every_truncation_is_refused),
        cmocka_unit_test(test_message_every_flipped_bit_is_refused),
        cmocka_unit_test(test_message_mutated_with_good_checksum_is_refused_or_sound),
        cmocka_unit_test(test_message_lying_entry_count_allocates_nothing),
        cmocka_unit_test(test_message_index_overflow_is_refused),
        cmocka_unit_test(test_outbox_keeps_the_order_of_messages_over_frames),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

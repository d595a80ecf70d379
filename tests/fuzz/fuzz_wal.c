/* The log's reader (raft/wal) over files that anybody may have written.
 *
 * First byte, lowest bit: 0 files as the input gives them, byte by byte, zeroes behind; 1 files
 * that are built from the input with every checksum right, so that what is behind the checksums is
 * reached: positions, orders, witnesses, links between segments.
 *
 * wal_open must recover or refuse (ERR_CORRUPT with a reason), and a refusal changes nothing: asked
 * again it says the same. What was recovered can be read back whole, fits what wal_open told of it,
 * and a log that was recovered works: it takes an append, and after a crash that loses everything
 * not synced, it is the same log with that append. */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "lib/fake_vfs.h"
#include "raft/wal/wal.h"
#include "raft/wal/wal_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 4096;

enum {
    SEGMENT_BYTES = 64 * 1024,
    SEGMENTS_MAX = 4,
    GROUPS_MAX = 12,
    RECORDS_MAX = 6,
    PAYLOAD_BYTES_MAX = 64,
    WHY_BYTES = 1024,
    FILES_MAX = 5,
};

#define LOG_DIR "/log"

static const uint8_t payload_bytes[PAYLOAD_BYTES_MAX] = {1, 2, 3, 4, 5, 6, 7, 8, 9};

/* ---- making files ---- */

static void put_file(struct fake_vfs *fake, const char *name, struct bytes bytes, uint64_t size)
{
    const struct vfs *vfs = fake_vfs_vfs(fake);
    char path[VFS_PATH_BYTES_MAX];
    struct vfs_file *file;
    int error = vfs_path(path, LOG_DIR, name);
    ASSERT(error == 0);
    error = vfs->open(vfs->context, path, VFS_WRITE | VFS_CREATE | VFS_TRUNCATE, &file);
    ASSERT(error == 0);
    error = vfs->write_at(vfs->context, file, 0, bytes);
    ASSERT(error == 0);
    if (size > bytes.size) {
        error = vfs->truncate(vfs->context, file, size);
        ASSERT(error == 0);
    }
    error = vfs->sync(vfs->context, file);
    ASSERT(error == 0);
    error = vfs->close(vfs->context, file);
    ASSERT(error == 0);
}

static void put_raw_files(struct fake_vfs *fake, struct reader *input)
{
    static const char *names[] = {"base",
                                  "0000000000000001.wal",
                                  "0000000000000002.wal",
                                  "0000000000000003.wal",
                                  "0000000000000001.spare",
                                  "0000000000000002.making",
                                  "00000000000000zz.wal",
                                  "base.tmp"};
    for (int i = 0; i < FILES_MAX && reader_left(input) > 0; i++) {
        uint8_t what = get_u8(input);
        const char *name = names[what & 7];
        struct bytes bytes = fuzz_take(input, get_u16(input));
        put_file(fake, name, bytes, (what & 8) != 0 ? SEGMENT_BYTES : 0);
    }
}

static uint64_t draw_or(struct reader *input, uint64_t usual)
{
    return fuzz_choice(input, 16) == 15 ? fuzz_number(input) : usual;
}

/* A log being built: what a writer would know. */
struct builder {
    struct reader *input;
    struct raft_position last;
    struct buf bytes; /* of the segment */
    uint64_t salt;
    uint64_t previous_salt;
    uint64_t previous_end;
};

static void put_record(struct builder *builder, struct wal_record_header header,
                       struct bytes payload, struct wal_group_header *group)
{
    struct buf *out = &builder->bytes;
    uint8_t bytes[WAL_RECORD_HEADER_BYTES];
    header.payload_bytes = (uint32_t)payload.size;
    wal_record_header_encode(&header, payload, builder->salt, out->size, bytes);
    group->body_crc = crc32c_extend(group->body_crc, bytes, 4);
    group->record_count++;
    buf_append(out, bytes, sizeof bytes);
    buf_append_bytes(out, payload);
    static const uint8_t zeroes[WAL_ALIGN_BYTES];
    buf_append(out, zeroes, (size_t)(wal_align(payload.size) - payload.size));
}

static void put_entry(struct builder *builder, struct wal_group_header *group)
{
    struct reader *input = builder->input;
    uint8_t what = get_u8(input);
    struct raft_position position = {draw_or(input, builder->last.index + 1), builder->last.term};
    position.term += what >> 6;
    position.term = draw_or(input, position.term == 0 ? 1 : position.term);
    struct wal_record_header header = {
        .type = WAL_RECORD_ENTRY, .index = position.index, .term = position.term};
    struct bytes payload = bytes_of(payload_bytes, what % PAYLOAD_BYTES_MAX);
    header.kind = RAFT_ENTRY_COMMAND;
    struct buf membership;
    buf_init(&membership);
    switch (what % 8) {
    case 0:
        header.kind = RAFT_ENTRY_NOOP;
        payload = BYTES_EMPTY;
        break;
    case 1: {
        struct raft_membership members = {.count = 1};
        members.members[0] =
            (struct raft_member){.id = 1 + what / 8u, .role = RAFT_VOTER, .address = "a:1"};
        raft_membership_encode(&members, &membership);
        header.kind = RAFT_ENTRY_MEMBERSHIP;
        payload = buf_view(&membership);
        break;
    }
    case 2:
        header.kind = (uint8_t)fuzz_choice(input, 6); /* perhaps none that there is */
        break;
    default:
        break;
    }
    put_record(builder, header, payload, group);
    buf_deinit(&membership);
    builder->last = position;
}

static void put_hard_state(struct builder *builder, struct wal_group_header *group)
{
    struct reader *input = builder->input;
    struct raft_hard_state state = {.term = draw_or(input, builder->last.term + 1),
                                    .voted_for = fuzz_choice(input, 4),
                                    .commit = draw_or(input, builder->last.index)};
    uint8_t bytes[WAL_HARD_STATE_BYTES];
    wal_hard_state_encode(&state, bytes);
    struct wal_record_header header = {.type = WAL_RECORD_HARD_STATE};
    put_record(builder, header, bytes_of(bytes, sizeof bytes), group);
}

static void put_group(struct builder *builder)
{
    struct reader *input = builder->input;
    uint64_t at = builder->bytes.size;
    struct wal_group_header group = {.durable_to = draw_or(input, at)};
    static const uint8_t empty[WAL_GROUP_HEADER_BYTES];
    buf_append(&builder->bytes, empty, sizeof empty);
    uint32_t records = fuzz_choice(input, RECORDS_MAX + 1);
    for (uint32_t i = 0; i < records; i++) {
        switch (fuzz_choice(input, 8)) {
        case 6: {
            uint64_t back = fuzz_choice(input, 4);
            uint64_t from = builder->last.index > back ? builder->last.index - back : 1;
            struct wal_record_header header = {.type = WAL_RECORD_TRUNCATE,
                                               .index = draw_or(input, from)};
            put_record(builder, header, BYTES_EMPTY, &group);
            builder->last.index = header.index - 1;
            break;
        }
        case 7:
            put_hard_state(builder, &group);
            break;
        default:
            put_entry(builder, &group);
            break;
        }
    }
    group.body_bytes = draw_or(input, builder->bytes.size - at - WAL_GROUP_HEADER_BYTES);
    group.body_bytes %= WAL_GROUP_BODY_BYTES_MAX; /* no writer's header says more */
    wal_group_header_encode(&group, builder->salt, at, builder->bytes.data + at);
    if (fuzz_choice(input, 32) == 31 && builder->bytes.size > at) { /* and one bad byte */
        size_t bad = at + get_u8(input) % (builder->bytes.size - at);
        builder->bytes.data[bad] ^= 0x10;
    }
}

static void put_segment(struct fake_vfs *fake, struct builder *builder, uint64_t sequence,
                        bool first)
{
    struct reader *input = builder->input;
    buf_clear(&builder->bytes);
    builder->salt = 1000 + sequence;
    uint8_t what = get_u8(input);
    struct wal_segment_header header = {
        .sequence = draw_or(input, sequence),
        .salt = builder->salt,
        .file_bytes = (what & 1) != 0 ? 2 * SEGMENT_BYTES : SEGMENT_BYTES,
        .start = {draw_or(input, builder->last.index), draw_or(input, builder->last.term)},
        .previous_salt = first ? 0 : draw_or(input, builder->previous_salt),
        .previous_end = first ? 0 : draw_or(input, builder->previous_end),
        .flags = first || (what & 30) == 30 ? WAL_SEGMENT_BEGINS_LOG : 0,
    };
    wal_segment_header_encode(&header, &builder->bytes);
    builder->bytes.size = WAL_SEGMENT_DATA_AT;
    if ((what & 32) != 0) {
        builder->bytes.data[16] ^= 1; /* one copy is damaged */
    }
    uint32_t groups = fuzz_choice(input, GROUPS_MAX);
    for (uint32_t i = 0; i < groups && reader_left(input) > 0; i++) {
        put_group(builder);
    }
    uint64_t end = builder->bytes.size;
    if ((what & 64) == 0) { /* the witness that all of it was synced */
        struct wal_group_header mark = {.durable_to = end};
        uint8_t *at = buf_reserve(&builder->bytes, WAL_GROUP_HEADER_BYTES);
        wal_group_header_encode(&mark, builder->salt, end, at);
        builder->bytes.size += WAL_GROUP_HEADER_BYTES;
    }
    builder->previous_salt = builder->salt;
    builder->previous_end = end;
    char name[64];
    snprintf(name, sizeof name, "%016llx.wal", (unsigned long long)sequence);
    put_file(fake, name, buf_view(&builder->bytes),
             (what & 128) != 0 ? builder->bytes.size : header.file_bytes);
}

static void put_built_files(struct fake_vfs *fake, struct reader *input)
{
    struct builder builder = {.input = input};
    buf_init(&builder.bytes);
    uint8_t what = get_u8(input);
    struct raft_position begin = {(what & 3) == 3 ? fuzz_number(input) : 0, 0};
    begin.term = begin.index > 0 ? 1 + fuzz_choice(input, 3) : 0;
    struct wal_base base = {.first_sequence = 1 + (what >> 2 & 1),
                            .position = {draw_or(input, begin.index), draw_or(input, begin.term)},
                            .hard_state = {.term = draw_or(input, begin.term)}};
    base.membership.count = 1;
    base.membership.members[0] =
        (struct raft_member){.id = 7, .role = RAFT_VOTER, .address = "a:1"};
    if ((what & 8) == 0) {
        buf_clear(&builder.bytes);
        wal_base_encode(&base, &builder.bytes);
        put_file(fake, "base", buf_view(&builder.bytes), 0);
    }
    builder.last = begin;
    uint32_t segments = 1 + (what >> 4) % SEGMENTS_MAX;
    for (uint32_t i = 0; i < segments; i++) {
        put_segment(fake, &builder, base.first_sequence + i, i == 0);
    }
    buf_deinit(&builder.bytes);
}

/* ---- reading them ---- */

struct opened {
    struct wal *wal;
    struct wal_recovery recovery;
    struct raft_position last; /* with what was appended since */
    char why[WHY_BYTES];
};

static int open_log(struct fake_vfs *fake, uint64_t seed, struct opened *out)
{
    struct wal_options options = {.segment_bytes = SEGMENT_BYTES,
                                  .spare_segments = 1,
                                  .recycled_max = 1,
                                  .entry_bytes_max = 1024 * 1024,
                                  .prewrite = false,
                                  .seed = seed};
    memset(out, 0, sizeof *out);
    int error = wal_open(fake_vfs_vfs(fake), LOG_DIR, &options, NULL, 200, &out->wal,
                         &out->recovery, out->why, sizeof out->why);
    out->last = out->recovery.last;
    return error;
}

static void close_log(struct opened *opened)
{
    wal_recovery_free(&opened->recovery);
    wal_close(opened->wal);
}

/* Checksum of all entries; each is read back from the disk. */
static uint32_t read_all(struct opened *opened)
{
    const struct wal_recovery *recovery = &opened->recovery;
    uint64_t next = recovery->base.index + 1;
    uint32_t sum = 0;
    struct raft_position last = recovery->base;
    ASSERT_CMP(recovery->last.index, >=, recovery->base.index);
    while (next <= opened->last.index) {
        struct raft_entry *entries;
        size_t count;
        int error = wal_read(opened->wal, next, UINT64_MAX, 500, &entries, &count);
        ASSERT(error == 0);
        ASSERT_CMP(count, >, 0);
        for (size_t i = 0; i < count; i++) {
            ASSERT_CMP(entries[i].position.index, ==, next);
            last = entries[i].position;
            sum = crc32c_extend(sum, &last.term, sizeof last.term);
            sum = crc32c_extend(sum, entries[i].data.data, entries[i].data.size);
            next++;
        }
        wal_entries_free(entries, count);
    }
    ASSERT_CMP(last.index, ==, opened->last.index);
    ASSERT_CMP(last.term, ==, opened->last.term);
    for (size_t i = 0; i < recovery->tail_count; i++) {
        ASSERT_CMP(recovery->tail[i].position.index, ==,
                   recovery->last.index + 1 - recovery->tail_count + i);
    }
    for (size_t i = 0; i < recovery->membership_count; i++) {
        ASSERT_CMP(recovery->memberships[i].position.index, >, recovery->base.index);
        ASSERT_CMP(recovery->memberships[i].position.index, <=, recovery->last.index);
    }
    for (size_t i = 1; i < recovery->term_run_count; i++) {
        ASSERT_CMP(recovery->term_runs[i].index, >, recovery->term_runs[i - 1].index);
    }
    return sum;
}

static void append_one(struct opened *opened)
{
    struct raft_entry entry = {.kind = RAFT_ENTRY_COMMAND, .data = bytes_of(payload_bytes, 40)};
    entry.position.index = opened->last.index + 1;
    entry.position.term = opened->last.term + 1;
    struct raft_hard_state state = {.term = entry.position.term, .voted_for = 1};
    if (state.term <= opened->recovery.hard_state.term) {
        state.term = opened->recovery.hard_state.term + 1;
    }
    struct wal_append append = {.entries = &entry, .entry_count = 1, .hard_state = &state};
    int error = wal_write(opened->wal, &append);
    ASSERT(error == 0);
    error = wal_sync(opened->wal);
    ASSERT(error == 0);
    opened->last = entry.position;
}

static int open_again(struct fake_vfs *fake, uint64_t seed, struct opened *opened)
{
    int error = open_log(fake, seed, opened);
    if (error != 0) {
        fprintf(stderr, "a log that was recovered does not open again: %s\n", opened->why);
    }
    return error;
}

/* Positions have room above them in any log that a core made. */
static bool has_room(const struct wal_recovery *recovery)
{
    return recovery->last.index < UINT64_MAX / 2 && recovery->last.term < UINT64_MAX / 2 &&
           recovery->hard_state.term < UINT64_MAX / 2;
}

static void use(struct fake_vfs *fake, struct opened *opened)
{
    struct opened again;
    uint32_t sum = read_all(opened);
    uint64_t entries = opened->recovery.last.index - opened->recovery.base.index;
    fake_vfs_crash_as(fake, FAKE_CRASH_LOSE, NULL);
    close_log(opened);
    int error = open_again(fake, 2, &again); /* what it recovered is durable */
    ASSERT(error == 0);
    ASSERT_CMP(again.recovery.last.index - again.recovery.base.index, ==, entries);
    uint32_t sum_again = read_all(&again);
    ASSERT_CMP(sum_again, ==, sum);
    if (has_room(&again.recovery)) {
        append_one(&again);
        struct raft_position last = again.last;
        sum = read_all(&again);
        fake_vfs_crash_as(fake, FAKE_CRASH_LOSE, NULL);
        close_log(&again);
        error = open_again(fake, 3, &again);
        ASSERT(error == 0);
        ASSERT_CMP(again.recovery.last.index, ==, last.index);
        ASSERT_CMP(again.recovery.last.term, ==, last.term);
        sum_again = read_all(&again);
        ASSERT_CMP(sum_again, ==, sum);
    }
    close_log(&again);
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    struct fake_vfs *fake = fake_vfs_create(1);
    const struct vfs *vfs = fake_vfs_vfs(fake);
    int error = vfs->make_dir(vfs->context, LOG_DIR);
    ASSERT(error == 0);
    if ((get_u8(&reader) & 1) == 0) {
        put_raw_files(fake, &reader);
    } else {
        put_built_files(fake, &reader);
    }
    error = vfs->sync_dir(vfs->context, LOG_DIR);
    ASSERT(error == 0);
    error = vfs->sync_dir(vfs->context, "/");
    ASSERT(error == 0);
    struct opened opened;
    error = open_log(fake, 1, &opened);
    if (error == 0) {
        use(fake, &opened);
    } else {
        struct opened again;
        ASSERT(error == ERR_CORRUPT);
        ASSERT(opened.why[0] != '\0');
        error = open_log(fake, 1, &again);
        ASSERT(error == ERR_CORRUPT);
        ASSERT(strcmp(opened.why, again.why) == 0);
    }
    fake_vfs_destroy(fake);
}

/* ---- seeds ---- */

/* The files of a real log, as raw ones. */
static void seed_raw(struct buf *out)
{
    struct fake_vfs *fake = fake_vfs_create(1);
    const struct vfs *vfs = fake_vfs_vfs(fake);
    int error = vfs->make_dir(vfs->context, LOG_DIR);
    ASSERT(error == 0);
    struct opened opened;
    error = open_log(fake, 1, &opened);
    ASSERT(error == 0);
    append_one(&opened);
    append_one(&opened);
    close_log(&opened);
    put_u8(out, 0);
    const char *names[] = {LOG_DIR "/base", LOG_DIR "/0000000000000001.wal"};
    for (uint8_t i = 0; i < 2; i++) {
        struct buf bytes;
        buf_init(&bytes);
        bool there = fake_vfs_file_bytes(fake, names[i], &bytes);
        ASSERT(there);
        if (bytes.size > 2048) {
            bytes.size = 2048; /* the rest is zeroes */
        }
        put_u8(out, i == 0 ? 0 : 9);
        put_u16(out, (uint16_t)bytes.size);
        buf_append_bytes(out, buf_view(&bytes));
        buf_deinit(&bytes);
    }
    fake_vfs_destroy(fake);
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    if (index == 0) {
        seed_raw(out);
        return true;
    }
    put_u8(out, 1);
    put_u8(out, (uint8_t)(index * 16)); /* so many segments, all as usual */
    for (uint32_t i = 0; i < 100 * index; i++) {
        put_u8(out, (uint8_t)((i * 7 + index) % 13));
    }
    return index < 12;
}

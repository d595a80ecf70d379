/* The folder of a replica's snapshots, as a crash, a bad disk or a bad peer may have left it. First
 * byte:
 *
 *   0  what lies there: names, and in them a file `meta` of any bytes, or with the right magic and
 *      checksum around any bytes. Opening finds the newest one that is whole, or none, or names
 * what is damaged; nothing else is left lying there, and opening again says the same. 1  what
 * arrives: chunks under any id and offset, then the end. What finishes is ready, with the bytes
 * that were sent, after a crash at any moment later; what does not leaves nothing.
 *
 * The state machine keeps the bytes in one file, and refuses those that begin with 'X'. */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "lib/fake_vfs.h"
#include "raft/node/snapshot_store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 2048;

enum { NAMES_MAX = 6, CHUNKS_MAX = 20 };
static const char store_dir[] = "/snapshot";

/* ---- the state machine ---- */

struct sm_snapshot_writer {
    struct buf bytes;
    char path[VFS_PATH_BYTES_MAX];
};

static const struct vfs *vfs; /* of the input at hand */

static int receive_open(void *sm, const char *dir, struct sm_snapshot_writer **out)
{
    (void)sm;
    struct sm_snapshot_writer *writer = mem_calloc(1, sizeof *writer);
    snprintf(writer->path, sizeof writer->path, "%s", dir);
    *out = writer;
    return 0;
}

static int receive_write(struct sm_snapshot_writer *writer, struct bytes bytes)
{
    buf_append_bytes(&writer->bytes, bytes);
    return 0;
}

static int receive_finish(struct sm_snapshot_writer *writer)
{
    if (writer->bytes.size > 0 && writer->bytes.data[0] == 'X') {
        return ERR_CORRUPT;
    }
    return vfs_write_atomic(vfs, writer->path, "bytes", buf_view(&writer->bytes));
}

static void receive_close(struct sm_snapshot_writer *writer)
{
    buf_deinit(&writer->bytes);
    free(writer);
}

static const struct state_machine_ops ops = {.receive_open = receive_open,
                                             .receive_write = receive_write,
                                             .receive_finish = receive_finish,
                                             .receive_close = receive_close};
static const struct state_machine sm = {.ops = &ops};

/* ---- opening ---- */

static void note_name(void *context, const char *name)
{
    (void)name;
    ++*(uint32_t *)context;
}

static uint32_t count_names(void)
{
    uint32_t count = 0;
    int error = vfs->list(vfs->context, store_dir, note_name, &count);
    ASSERT(error == 0);
    return count;
}

static int open_store(struct snapshot_ready *ready)
{
    char why[300] = "";
    int error = snapshot_store_open(vfs, store_dir, ready, why, sizeof why);
    ASSERT(error == 0 || error == ERR_NOT_FOUND ||
           ((error == ERR_CORRUPT || error == ERR_UNSUPPORTED) && why[0] != '\0'));
    return error;
}

/* Twice the same, and what is ready can be taken away. */
static void check_open(void)
{
    struct snapshot_ready *first = mem_calloc(1, sizeof *first);
    struct snapshot_ready *second = mem_calloc(1, sizeof *second);
    int error = open_store(first);
    int again = open_store(second);
    ASSERT_CMP(error, ==, again);
    if (error == 0) {
        ASSERT(strcmp(first->path, second->path) == 0);
        ASSERT(raft_position_equal(first->snapshot.position, second->snapshot.position));
        ASSERT_CMP(first->snapshot.id, ==, second->snapshot.id);
        error = snapshot_store_remove_ready(vfs, store_dir, first->path);
        ASSERT(error == 0);
        again = open_store(second); /* an older one, or none */
        ASSERT(again != 0 || strcmp(first->path, second->path) > 0);
    }
    free(second);
    free(first);
}

/* ---- what lies there ---- */

static void put_body(struct reader *input, struct buf *out)
{
    struct raft_membership membership = {.count = 1};
    struct buf members = {0};
    membership.position = (struct raft_position){fuzz_number(input), fuzz_number(input)};
    membership.members[0].id = 1 + fuzz_choice(input, 100);
    membership.members[0].role = RAFT_VOTER;
    snprintf(membership.members[0].address, sizeof membership.members[0].address, "h:1");
    put_u32(out, 1); /* version */
    for (int i = 0; i < 5; i++) {
        put_u64(out, fuzz_number(input));
    }
    put_u64(out, membership.position.index);
    put_u64(out, membership.position.term);
    if (fuzz_choice(input, 4) > 0) {
        raft_membership_encode(&membership, &members);
    } else {
        buf_append_bytes(&members, fuzz_take(input, fuzz_choice(input, 100)));
    }
    put_sized(out, buf_view(&members));
    buf_deinit(&members);
}

static void put_meta(struct reader *input, struct buf *out)
{
    struct buf body = {0};
    switch (fuzz_choice(input, 3)) {
    case 0: /* any bytes */
        buf_append_bytes(out, fuzz_take(input, fuzz_choice(input, 200)));
        break;
    case 1: /* any bytes behind a right checksum */
        buf_append_bytes(&body, fuzz_take(input, fuzz_choice(input, 200)));
        break;
    default:
        put_body(input, &body);
        break;
    }
    if (body.size > 0) {
        buf_append(out, "SKVSMETA", 8);
        put_u32(out, crc32c_extend(0, body.data, body.size));
        buf_append_bytes(out, buf_view(&body));
    }
    buf_deinit(&body);
}

static void put_folder(struct reader *input)
{
    char name[64] = "";
    char path[VFS_PATH_BYTES_MAX];
    switch (fuzz_choice(input, 5)) {
    case 0:
        snprintf(name, sizeof name, "in-%016llx", (unsigned long long)fuzz_number(input));
        break;
    case 1:
        snprintf(name, sizeof name, "out-%016llx", (unsigned long long)fuzz_number(input));
        break;
    case 2:
        snprintf(name, sizeof name, "ready-%u", fuzz_choice(input, 256));
        break;
    case 3:
        snprintf(name, sizeof name, "other-%u", fuzz_choice(input, 4));
        break;
    default:
        snprintf(name, sizeof name, "ready-%020llu-%016llx", (unsigned long long)fuzz_number(input),
                 (unsigned long long)fuzz_number(input));
        break;
    }
    int error = vfs_path(path, store_dir, name);
    ASSERT(error == 0);
    error = vfs->make_dir(vfs->context, path);
    ASSERT(error == 0);
    if (fuzz_choice(input, 4) > 0) {
        struct buf meta = {0};
        put_meta(input, &meta);
        error = vfs_write_atomic(vfs, path, "meta", buf_view(&meta));
        ASSERT(error == 0);
        buf_deinit(&meta);
    }
}

/* ---- what arrives ---- */

static void arrive(struct reader *input, struct fake_vfs *disk)
{
    struct snapshot_staging *staging = mem_calloc(1, sizeof *staging);
    struct raft_snapshot *snapshot = mem_calloc(1, sizeof *snapshot);
    struct buf sent = {0};
    uint64_t id = 1;
    snapshot_staging_init(staging, vfs, &sm, store_dir);
    if (fuzz_choice(input, 4) > 0) { /* a right beginning */
        uint8_t header[SNAPSHOT_HEADER_BYTES];
        snapshot_header_encode(fuzz_number(input), header);
        int error = snapshot_staging_write(staging, id, 0, bytes_of(header, sizeof header));
        ASSERT(error == 0);
        buf_append(&sent, header, sizeof header);
    }
    for (int i = 0; i < CHUNKS_MAX && reader_left(input) > 0; i++) {
        uint32_t how = fuzz_choice(input, 8);
        uint64_t chunk_id = how == 0 ? fuzz_number(input) : id;
        uint64_t offset = how == 1 ? fuzz_number(input) : how == 2 ? 0 : sent.size;
        struct bytes bytes = fuzz_take(input, fuzz_choice(input, 60));
        int error = snapshot_staging_write(staging, chunk_id, offset, bytes);
        ASSERT(error == 0 || error == ERR_INVALID);
        if (error == 0) {
            if (offset == 0) {
                buf_clear(&sent); /* a new one */
            }
            id = chunk_id;
            ASSERT_CMP(offset, ==, sent.size);
            buf_append_bytes(&sent, bytes);
        }
    }
    snapshot->position = (struct raft_position){.index = 5, .term = 2};
    snapshot->id = id;
    snapshot->size_bytes = sent.size;
    snapshot->membership.count = 1;
    snapshot->membership.members[0].id = 1;
    snapshot->membership.members[0].role = RAFT_VOTER;
    snprintf(snapshot->membership.members[0].address, RAFT_ADDRESS_BYTES_MAX, "h:1");
    char *path = NULL;
    int error = sent.size > 0 ? snapshot_staging_finish(staging, snapshot, &path) : ERR_CORRUPT;
    ASSERT(error == 0 || error == ERR_CORRUPT);
    snapshot_staging_deinit(staging);
    struct snapshot_ready *ready = mem_calloc(1, sizeof *ready);
    struct rng rng;
    rng_init(&rng, 1);
    fake_vfs_crash(disk, &rng);
    int found = open_store(ready);
    ASSERT_CMP(found, ==, error == 0 ? 0 : ERR_NOT_FOUND);
    if (found == 0) {
        char file[VFS_PATH_BYTES_MAX];
        struct buf bytes = {0};
        ASSERT(strcmp(ready->path, path) == 0);
        ASSERT_CMP(ready->snapshot.id, ==, id);
        snprintf(file, sizeof file, "%s/data/bytes", path);
        error = vfs_read_all(vfs, file, fuzz_input_bytes_max * 2, &bytes);
        ASSERT(error == 0);
        ASSERT(bytes_equal(buf_view(&bytes), bytes_of(sent.data + SNAPSHOT_HEADER_BYTES,
                                                      sent.size - SNAPSHOT_HEADER_BYTES)));
        buf_deinit(&bytes);
    } else {
        ASSERT_CMP(count_names(), ==, 0);
    }
    free(path);
    free(ready);
    free(snapshot);
    free(staging);
    buf_deinit(&sent);
}

/* ---- one input ---- */

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    struct fake_vfs *disk = fake_vfs_create(1);
    vfs = fake_vfs_vfs(disk);
    int error = vfs_make_dirs(vfs, store_dir);
    ASSERT(error == 0);
    if (fuzz_choice(&reader, 2) == 0) {
        uint32_t count = 1 + fuzz_choice(&reader, NAMES_MAX);
        for (uint32_t i = 0; i < count; i++) {
            put_folder(&reader);
        }
        check_open();
    } else {
        arrive(&reader, disk);
    }
    fake_vfs_destroy(disk);
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    put_u8(out, (uint8_t)(index % 2));
    if (index % 2 == 0) { /* ready ones that are whole, and what a crash leaves beside them */
        put_u8(out, (uint8_t)(index / 2));
        for (uint32_t i = 0; i <= index / 2 % NAMES_MAX + 1; i++) {
            static const uint8_t folder[] = {4, 1, 1, 1, 2, 1, 1, 1, 5, 2, 3, 30, 0, 1};
            buf_append(out, folder, sizeof folder);
            put_u8(out, (uint8_t)i);
        }
    } else {
        put_u8(out, (uint8_t)(index % 8));
        put_u8(out, 9);
        for (uint32_t i = 0; i < 4 * index; i++) {
            put_u8(out, (uint8_t)(i % 3 == 0 ? 3 + i % 5 : i * 7));
        }
    }
    return index < 16;
}

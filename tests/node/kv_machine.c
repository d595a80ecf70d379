/* See kv_machine.h.
 *
 * Image (the file `kv.state`, and a snapshot's stream): u64 index, u64 term, varint keys, keys x {
 * sized key, sized value }, varint clients, clients x { u64 id, sized session }, u32 crc32c of
 * everything before. */
#include "node/kv_machine.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"
#include "raft/node/session.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE_BYTES_MAX (256u * 1024 * 1024)

struct kv_pair {
    struct buf key;
    struct buf value;
};

struct kv_client {
    uint64_t id;
    struct session session;
};

struct kv_state {
    struct raft_position applied;
    struct kv_pair *pairs; /* by key */
    size_t pair_count;
    size_t pair_capacity;
    struct kv_client *clients; /* by id */
    size_t client_count;
    size_t client_capacity;
};

struct kv_machine {
    const struct vfs *vfs;
    char dir[VFS_PATH_BYTES_MAX];
    pthread_mutex_t lock;
    /* under lock */
    struct kv_state state;
    struct raft_position durable;
};

/* ---- state ----------------------------------------------------------------------------------- */

static void state_deinit(struct kv_state *state)
{
    for (size_t i = 0; i < state->pair_count; i++) {
        buf_deinit(&state->pairs[i].key);
        buf_deinit(&state->pairs[i].value);
    }
    for (size_t i = 0; i < state->client_count; i++) {
        session_deinit(&state->clients[i].session);
    }
    free(state->pairs);
    free(state->clients);
    memset(state, 0, sizeof(*state));
}

/* Where the key is or belongs. */
static size_t pair_place(const struct kv_state *state, struct bytes key, bool *found)
{
    size_t low = 0;
    size_t high = state->pair_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (bytes_compare(buf_view(&state->pairs[middle].key), key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *found = low < state->pair_count && bytes_equal(buf_view(&state->pairs[low].key), key);
    return low;
}

static struct buf *pair_value(struct kv_state *state, struct bytes key)
{
    bool found;
    size_t place = pair_place(state, key, &found);
    if (!found) {
        if (state->pair_count == state->pair_capacity) {
            state->pair_capacity = state->pair_capacity == 0 ? 64 : state->pair_capacity * 2;
            state->pairs =
                mem_realloc(state->pairs, state->pair_capacity * sizeof(state->pairs[0]));
        }
        memmove(state->pairs + place + 1, state->pairs + place,
                (state->pair_count - place) * sizeof(state->pairs[0]));
        state->pair_count++;
        buf_init(&state->pairs[place].key);
        buf_init(&state->pairs[place].value);
        buf_append_bytes(&state->pairs[place].key, key);
    }
    return &state->pairs[place].value;
}

static struct session *client_session(struct kv_state *state, uint64_t id)
{
    size_t place = 0;
    while (place < state->client_count && state->clients[place].id < id) {
        place++;
    }
    if (place == state->client_count || state->clients[place].id != id) {
        if (state->client_count == state->client_capacity) {
            state->client_capacity = state->client_capacity == 0 ? 16 : state->client_capacity * 2;
            state->clients =
                mem_realloc(state->clients, state->client_capacity * sizeof(state->clients[0]));
        }
        memmove(state->clients + place + 1, state->clients + place,
                (state->client_count - place) * sizeof(state->clients[0]));
        state->client_count++;
        state->clients[place].id = id;
        session_init(&state->clients[place].session);
    }
    return &state->clients[place].session;
}

static void image_encode(const struct kv_state *state, struct buf *out)
{
    size_t start = out->size;
    put_u64(out, state->applied.index);
    put_u64(out, state->applied.term);
    put_varint(out, state->pair_count);
    for (size_t i = 0; i < state->pair_count; i++) {
        put_sized(out, buf_view(&state->pairs[i].key));
        put_sized(out, buf_view(&state->pairs[i].value));
    }
    put_varint(out, state->client_count);
    for (size_t i = 0; i < state->client_count; i++) {
        struct buf session;
        buf_init(&session);
        session_encode(&state->clients[i].session, &session);
        put_u64(out, state->clients[i].id);
        put_sized(out, buf_view(&session));
        buf_deinit(&session);
    }
    put_u32(out, crc32c_extend(0, out->data + start, out->size - start));
}

static int image_decode(struct bytes image, struct kv_state *out)
{
    memset(out, 0, sizeof(*out));
    if (image.size < 4 ||
        load_u32(image.data + image.size - 4) != crc32c_extend(0, image.data, image.size - 4)) {
        return ERR_CORRUPT;
    }
    struct reader reader = reader_of(bytes_of(image.data, image.size - 4));
    int error = ERR_OK;
    out->applied.index = get_u64(&reader);
    out->applied.term = get_u64(&reader);
    uint64_t count = get_varint(&reader);
    for (uint64_t i = 0; i < count && !reader.failed; i++) {
        struct bytes key = get_sized(&reader, reader_left(&reader));
        struct bytes value = get_sized(&reader, reader_left(&reader));
        buf_append_bytes(pair_value(out, key), value);
    }
    count = get_varint(&reader);
    for (uint64_t i = 0; i < count && !reader.failed && error == ERR_OK; i++) {
        uint64_t id = get_u64(&reader);
        struct bytes session = get_sized(&reader, reader_left(&reader));
        error = session_decode(session, client_session(out, id));
    }
    if (error == ERR_OK && !reader_done(&reader)) {
        error = ERR_CORRUPT;
    }
    if (error != ERR_OK) {
        state_deinit(out);
    }
    return error;
}

/* ---- commands -------------------------------------------------------------------------------- */

void kv_command_encode(const struct kv_command *command, struct buf *out)
{
    put_u8(out, (uint8_t)command->kind);
    put_u64(out, command->client_id);
    put_varint(out, command->sequence);
    put_varint(out, command->acked_below);
    put_sized(out, command->key);
    put_sized(out, command->value);
}

static bool command_decode(struct bytes payload, struct kv_command *out)
{
    struct reader reader = reader_of(payload);
    uint8_t kind = get_u8(&reader);
    out->kind = (enum kv_kind)kind;
    out->client_id = get_u64(&reader);
    out->sequence = get_varint(&reader);
    out->acked_below = get_varint(&reader);
    out->key = get_sized(&reader, payload.size);
    out->value = get_sized(&reader, payload.size);
    return reader_done(&reader) && kind >= KV_PUT && kind <= KV_GET;
}

int kv_answer_decode(struct bytes answer, int *code, struct bytes *value)
{
    struct reader reader = reader_of(answer);
    uint64_t number = get_varint(&reader);
    *value = get_sized(&reader, answer.size);
    *code = err_from_wire((unsigned)number);
    return reader_done(&reader) ? ERR_OK : ERR_PROTOCOL;
}

static void answer(struct buf *result, int code, struct bytes value)
{
    if (result != NULL) {
        put_varint(result, err_to_wire(code));
        put_sized(result, value);
    }
}

static void execute(struct kv_state *state, const struct kv_command *command, struct buf *result)
{
    struct buf *value;
    bool found;
    size_t place;
    switch (command->kind) {
    case KV_PUT:
        value = pair_value(state, command->key);
        buf_clear(value);
        buf_append_bytes(value, command->value);
        answer(result, ERR_OK, BYTES_EMPTY);
        return;
    case KV_APPEND:
        value = pair_value(state, command->key);
        buf_append_bytes(value, command->value);
        answer(result, ERR_OK, BYTES_EMPTY);
        return;
    case KV_GET:
        place = pair_place(state, command->key, &found);
        answer(result, found ? ERR_OK : ERR_NOT_FOUND,
               found ? buf_view(&state->pairs[place].value) : BYTES_EMPTY);
        return;
    }
    UNREACHABLE();
}

static void apply_command(struct kv_state *state, const struct sm_command *from)
{
    struct kv_command command;
    if (!command_decode(from->payload, &command)) {
        answer(from->result, ERR_PROTOCOL, BYTES_EMPTY);
        return;
    }
    if (command.client_id == 0) {
        execute(state, &command, from->result);
        return;
    }
    const struct session_result *repeat;
    struct session *session = client_session(state, command.client_id);
    uint32_t fingerprint = crc32c_extend(0, command.value.data, command.value.size);
    switch (session_check(session, command.acked_below, command.sequence, fingerprint,
                          from->time_ms, &repeat)) {
    case SESSION_EXECUTE:
        execute(state, &command, from->result);
        session_record(session, &(struct session_result){.sequence = command.sequence,
                                                         .fingerprint = fingerprint});
        break;
    case SESSION_REPEAT:
        answer(from->result, ERR_OK, BYTES_EMPTY);
        break;
    case SESSION_STALE:
        answer(from->result, ERR_SEQUENCE_STALE, BYTES_EMPTY);
        break;
    case SESSION_REUSED:
        answer(from->result, ERR_SEQUENCE_REUSED, BYTES_EMPTY);
        break;
    case SESSION_FULL:
        answer(from->result, ERR_BUSY, BYTES_EMPTY);
        break;
    }
}

/* ---- vtable ---------------------------------------------------------------------------------- */

static int kv_apply(void *sm, const struct sm_batch *batch)
{
    struct kv_machine *machine = sm;
    pthread_mutex_lock(&machine->lock);
    for (size_t i = 0; i < batch->count; i++) {
        apply_command(&machine->state, &batch->commands[i]);
    }
    machine->state.applied = batch->last;
    pthread_mutex_unlock(&machine->lock);
    return ERR_OK;
}

static struct raft_position kv_applied(void *sm)
{
    struct kv_machine *machine = sm;
    pthread_mutex_lock(&machine->lock);
    struct raft_position applied = machine->state.applied;
    pthread_mutex_unlock(&machine->lock);
    return applied;
}

static struct raft_position kv_durable(void *sm)
{
    struct kv_machine *machine = sm;
    pthread_mutex_lock(&machine->lock);
    struct raft_position durable = machine->durable;
    pthread_mutex_unlock(&machine->lock);
    return durable;
}

static int kv_flush(void *sm)
{
    struct kv_machine *machine = sm;
    struct buf image;
    buf_init(&image);
    pthread_mutex_lock(&machine->lock);
    struct raft_position applied = machine->state.applied;
    image_encode(&machine->state, &image);
    pthread_mutex_unlock(&machine->lock);
    int error = vfs_write_atomic(machine->vfs, machine->dir, "kv.state", buf_view(&image));
    if (error == ERR_OK) {
        pthread_mutex_lock(&machine->lock);
        if (machine->durable.index < applied.index) {
            machine->durable = applied;
        }
        pthread_mutex_unlock(&machine->lock);
    }
    buf_deinit(&image);
    return error;
}

struct sm_snapshot_reader {
    struct buf image;
};

static int kv_snapshot_open(void *sm, const char *dir, struct raft_position *position,
                            uint64_t *size_bytes, struct sm_snapshot_reader **out)
{
    struct kv_machine *machine = sm;
    struct sm_snapshot_reader *reader = mem_calloc(1, sizeof(*reader));
    pthread_mutex_lock(&machine->lock);
    *position = machine->state.applied;
    image_encode(&machine->state, &reader->image);
    pthread_mutex_unlock(&machine->lock);
    /* Only so that the disk has a part in it, as a checkpoint would. */
    int error = vfs_write_atomic(machine->vfs, dir, "checkpoint", buf_view(&reader->image));
    if (error != ERR_OK) {
        buf_deinit(&reader->image);
        free(reader);
        return error;
    }
    *size_bytes = reader->image.size;
    *out = reader;
    return ERR_OK;
}

static int kv_snapshot_read(struct sm_snapshot_reader *reader, uint64_t offset, uint8_t *data,
                            size_t size)
{
    ASSERT_CMP(offset, <=, reader->image.size);
    ASSERT_CMP(size, <=, reader->image.size - offset);
    memcpy(data, reader->image.data + offset, size);
    return ERR_OK;
}

static void kv_snapshot_close(struct sm_snapshot_reader *reader)
{
    buf_deinit(&reader->image);
    free(reader);
}

struct sm_snapshot_writer {
    const struct vfs *vfs;
    struct vfs_file *file;
    uint64_t size;
    char dir[VFS_PATH_BYTES_MAX];
    char path[VFS_PATH_BYTES_MAX];
};

static int kv_receive_open(void *sm, const char *dir, struct sm_snapshot_writer **out)
{
    struct kv_machine *machine = sm;
    struct sm_snapshot_writer *writer = mem_calloc(1, sizeof(*writer));
    writer->vfs = machine->vfs;
    int error = vfs_path(writer->dir, dir, ".");
    if (error == ERR_OK) {
        error = vfs_path(writer->path, dir, "image");
    }
    if (error == ERR_OK) {
        error = writer->vfs->open(writer->vfs->context, writer->path, VFS_WRITE | VFS_CREATE,
                                  &writer->file);
    }
    if (error != ERR_OK) {
        free(writer);
        return error;
    }
    *out = writer;
    return ERR_OK;
}

static int kv_receive_write(struct sm_snapshot_writer *writer, struct bytes bytes)
{
    int error = writer->vfs->write_at(writer->vfs->context, writer->file, writer->size, bytes);
    writer->size += bytes.size;
    return error;
}

static int kv_receive_finish(struct sm_snapshot_writer *writer)
{
    const struct vfs *vfs = writer->vfs;
    struct buf image;
    struct kv_state state;
    buf_init(&image);
    int error = vfs->sync(vfs->context, writer->file);
    if (error == ERR_OK) {
        error = vfs->sync_dir(vfs->context, writer->dir);
    }
    if (error == ERR_OK) {
        error = vfs_read_all(vfs, writer->path, IMAGE_BYTES_MAX, &image);
    }
    if (error == ERR_OK) {
        error = image_decode(buf_view(&image), &state);
    }
    if (error == ERR_OK) {
        state_deinit(&state);
    }
    buf_deinit(&image);
    return error;
}

static void kv_receive_close(struct sm_snapshot_writer *writer)
{
    (void)writer->vfs->close(writer->vfs->context, writer->file);
    free(writer);
}

static int kv_restore(void *sm, const char *dir)
{
    struct kv_machine *machine = sm;
    struct buf image;
    struct kv_state state;
    char path[VFS_PATH_BYTES_MAX];
    buf_init(&image);
    int error = vfs_path(path, dir, "image");
    if (error == ERR_OK) {
        error = vfs_read_all(machine->vfs, path, IMAGE_BYTES_MAX, &image);
    }
    if (error == ERR_OK) {
        error = image_decode(buf_view(&image), &state);
    }
    if (error == ERR_OK) {
        error = vfs_write_atomic(machine->vfs, machine->dir, "kv.state", buf_view(&image));
        if (error != ERR_OK) {
            state_deinit(&state);
        }
    }
    if (error == ERR_OK) {
        pthread_mutex_lock(&machine->lock);
        state_deinit(&machine->state);
        machine->state = state;
        machine->durable = state.applied;
        pthread_mutex_unlock(&machine->lock);
    }
    buf_deinit(&image);
    return error;
}

static int kv_hash(void *sm, uint64_t *hash, struct raft_position *position)
{
    struct kv_machine *machine = sm;
    struct buf image;
    buf_init(&image);
    pthread_mutex_lock(&machine->lock);
    *position = machine->state.applied;
    image_encode(&machine->state, &image);
    pthread_mutex_unlock(&machine->lock);
    *hash = crc32c_extend(0, image.data, image.size);
    buf_deinit(&image);
    return ERR_OK;
}

/* ---- life ------------------------------------------------------------------------------------ */

int kv_machine_open(const struct vfs *vfs, const char *dir, struct state_machine *out)
{
    static const struct state_machine_ops ops = {
        .apply = kv_apply,
        .applied = kv_applied,
        .durable = kv_durable,
        .flush = kv_flush,
        .snapshot_open = kv_snapshot_open,
        .snapshot_read = kv_snapshot_read,
        .snapshot_close = kv_snapshot_close,
        .receive_open = kv_receive_open,
        .receive_write = kv_receive_write,
        .receive_finish = kv_receive_finish,
        .receive_close = kv_receive_close,
        .restore = kv_restore,
        .hash = kv_hash,
    };
    struct kv_machine *machine = mem_calloc(1, sizeof(*machine));
    char path[VFS_PATH_BYTES_MAX];
    struct buf image;
    buf_init(&image);
    machine->vfs = vfs;
    pthread_mutex_init(&machine->lock, NULL);
    int error = vfs_path(machine->dir, dir, "kv");
    if (error == ERR_OK) {
        error = vfs_make_dirs(vfs, machine->dir);
    }
    if (error == ERR_OK) {
        error = vfs_path(path, machine->dir, "kv.state");
    }
    if (error == ERR_OK) {
        error = vfs_read_all(vfs, path, IMAGE_BYTES_MAX, &image);
        if (error == ERR_OK) {
            error = image_decode(buf_view(&image), &machine->state);
        } else if (error == ERR_NOT_FOUND) {
            error = ERR_OK;
        }
    }
    machine->durable = machine->state.applied;
    buf_deinit(&image);
    *out = (struct state_machine){.ops = &ops, .sm = machine};
    if (error != ERR_OK) {
        kv_machine_close(out);
    }
    return error;
}

void kv_machine_close(struct state_machine *sm)
{
    struct kv_machine *machine = sm->sm;
    state_deinit(&machine->state);
    pthread_mutex_destroy(&machine->lock);
    free(machine);
    sm->sm = NULL;
}

bool kv_machine_get(struct state_machine *sm, struct bytes key, struct buf *out)
{
    struct kv_machine *machine = sm->sm;
    bool found;
    pthread_mutex_lock(&machine->lock);
    size_t place = pair_place(&machine->state, key, &found);
    if (found) {
        buf_append_bytes(out, buf_view(&machine->state.pairs[place].value));
    }
    pthread_mutex_unlock(&machine->lock);
    return found;
}

size_t kv_machine_count(struct state_machine *sm)
{
    struct kv_machine *machine = sm->sm;
    pthread_mutex_lock(&machine->lock);
    size_t count = machine->state.pair_count;
    pthread_mutex_unlock(&machine->lock);
    return count;
}

static int open_for_harness(void *context, uint32_t slot, const struct vfs *vfs, const char *dir,
                            struct state_machine *out)
{
    (void)context;
    (void)slot;
    return kv_machine_open(vfs, dir, out);
}

static void close_for_harness(void *context, uint32_t slot, struct state_machine *sm)
{
    (void)context;
    (void)slot;
    kv_machine_close(sm);
}

struct harness_machine kv_machine_for_harness(void)
{
    return (struct harness_machine){.open = open_for_harness, .close = close_for_harness};
}

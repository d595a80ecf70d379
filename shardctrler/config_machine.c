/* See config_machine.h. `durable` is what the state file holds; it trails `applied` by what the log
 * replays. */
#include "shardctrler/config_machine.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "shardctrler/config_state.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_FILE      "state"
#define STATE_BYTES_MAX (2ull * 1024 * 1024 * 1024)

struct config_machine {
    const struct vfs *vfs;
    char dir[VFS_PATH_BYTES_MAX];
    config_machine_changed_fn changed;
    void *changed_context;

    pthread_mutex_t mutex; /* guards what follows */
    struct config_state state;
    struct raft_position durable;

    pthread_mutex_t flush_mutex; /* one writer of the state file at a time; taken before `mutex` */
};

static struct raft_position position_of(struct config_machine *machine,
                                        const struct raft_position *which)
{
    pthread_mutex_lock(&machine->mutex);
    struct raft_position position = *which;
    pthread_mutex_unlock(&machine->mutex);
    return position;
}

/* ---- open, close
 * -------------------------------------------------------------------------------------------- */

static int load_state(struct config_machine *machine, char *why, size_t why_size)
{
    char path[VFS_PATH_BYTES_MAX];
    int error = vfs_path(path, machine->dir, STATE_FILE);
    bool exists = false;
    if (error == 0) {
        error = machine->vfs->exists(machine->vfs->context, path, &exists);
    }
    if (error != 0 || !exists) {
        return error;
    }
    struct buf bytes;
    buf_init(&bytes);
    error = vfs_read_all(machine->vfs, path, STATE_BYTES_MAX, &bytes);
    if (error == 0) {
        error = config_state_decode(buf_view(&bytes), &machine->state);
    }
    if (error == ERR_UNSUPPORTED) {
        snprintf(why, why_size,
                 "%.150s was written by another version of shardctrler: nothing was changed; go on "
                 "with that version",
                 path);
    } else if (error != 0) {
        snprintf(
            why, why_size,
            "%.150s: %s; move this replica's data directory away and let it rejoin as a new member",
            path, err_text(error));
    }
    machine->durable = machine->state.applied;
    buf_deinit(&bytes);
    return error;
}

int config_machine_open(const struct vfs *vfs, const char *dir, struct config_machine **out,
                        char *why, size_t why_size)
{
    struct config_machine *machine = mem_calloc(1, sizeof *machine);
    machine->vfs = vfs;
    pthread_mutex_init(&machine->mutex, NULL);
    pthread_mutex_init(&machine->flush_mutex, NULL);
    config_state_init(&machine->state);
    int error = vfs_path(machine->dir, dir, "config");
    if (error == 0) {
        error = vfs_make_dirs(vfs, machine->dir);
    }
    if (error != 0) {
        snprintf(why, why_size, "%.150s/config: %s", dir, err_text(error));
    } else {
        error = load_state(machine, why, why_size);
    }
    if (error != 0) {
        config_machine_close(machine);
        return error;
    }
    *out = machine;
    return 0;
}

void config_machine_close(struct config_machine *machine)
{
    if (machine == NULL) {
        return;
    }
    config_state_deinit(&machine->state);
    pthread_mutex_destroy(&machine->mutex);
    pthread_mutex_destroy(&machine->flush_mutex);
    free(machine);
}

void config_machine_on_change(struct config_machine *machine, config_machine_changed_fn changed,
                              void *context)
{
    machine->changed = changed;
    machine->changed_context = context;
}

/* ---- state machine
 * ------------------------------------------------------------------------------------------- */

static int machine_apply(void *sm, const struct sm_batch *batch)
{
    struct config_machine *machine = sm;
    bool changed = false;
    pthread_mutex_lock(&machine->mutex);
    for (size_t i = 0; i < batch->count; i++) {
        changed |= config_state_apply(&machine->state, &batch->commands[i]);
    }
    machine->state.applied = batch->last;
    pthread_mutex_unlock(&machine->mutex);
    if (changed && machine->changed != NULL) {
        machine->changed(machine->changed_context);
    }
    return 0;
}

static struct raft_position machine_applied(void *sm)
{
    struct config_machine *machine = sm;
    return position_of(machine, &machine->state.applied);
}

static struct raft_position machine_durable(void *sm)
{
    struct config_machine *machine = sm;
    return position_of(machine, &machine->durable);
}

static struct raft_position encode_now(struct config_machine *machine, struct buf *out)
{
    pthread_mutex_lock(&machine->mutex);
    config_state_encode(&machine->state, out);
    struct raft_position position = machine->state.applied;
    pthread_mutex_unlock(&machine->mutex);
    return position;
}

static int machine_flush(void *sm)
{
    struct config_machine *machine = sm;
    struct buf bytes;
    buf_init(&bytes);
    pthread_mutex_lock(&machine->flush_mutex);
    struct raft_position position = encode_now(machine, &bytes);
    int error = vfs_write_atomic(machine->vfs, machine->dir, STATE_FILE, buf_view(&bytes));
    if (error == 0) {
        pthread_mutex_lock(&machine->mutex);
        machine->durable = position;
        pthread_mutex_unlock(&machine->mutex);
    }
    pthread_mutex_unlock(&machine->flush_mutex);
    buf_deinit(&bytes);
    return error;
}

/* ---- snapshots: the encoded state is the stream
 * ---------------------------------------------------------------- */

struct sm_snapshot_reader {
    struct buf bytes;
};

static int snapshot_open(void *sm, const char *dir, struct raft_position *position,
                         uint64_t *size_bytes, struct sm_snapshot_reader **out)
{
    (void)dir; /* it is small: memory is where it stays */
    struct sm_snapshot_reader *reader = mem_calloc(1, sizeof *reader);
    *position = encode_now(sm, &reader->bytes);
    *size_bytes = reader->bytes.size;
    *out = reader;
    return 0;
}

static int snapshot_read(struct sm_snapshot_reader *reader, uint64_t offset, uint8_t *data,
                         size_t size)
{
    if (offset > reader->bytes.size || size > reader->bytes.size - offset) {
        return ERR_INVALID;
    }
    if (size > 0) {
        memcpy(data, reader->bytes.data + offset, size);
    }
    return 0;
}

static void snapshot_close(struct sm_snapshot_reader *reader)
{
    buf_deinit(&reader->bytes);
    free(reader);
}

struct sm_snapshot_writer {
    struct config_machine *machine;
    char dir[VFS_PATH_BYTES_MAX];
    struct buf bytes;
};

static int receive_open(void *sm, const char *dir, struct sm_snapshot_writer **out)
{
    struct sm_snapshot_writer *writer = mem_calloc(1, sizeof *writer);
    writer->machine = sm;
    snprintf(writer->dir, sizeof writer->dir, "%s", dir);
    *out = writer;
    return 0;
}

static int receive_write(struct sm_snapshot_writer *writer, struct bytes bytes)
{
    if (bytes.size > STATE_BYTES_MAX - writer->bytes.size) {
        return ERR_TOO_LARGE;
    }
    buf_append_bytes(&writer->bytes, bytes);
    return 0;
}

static int receive_finish(struct sm_snapshot_writer *writer)
{
    struct config_state state;
    config_state_init(&state);
    int error = config_state_decode(buf_view(&writer->bytes), &state);
    config_state_deinit(&state);
    if (error == 0) {
        error = vfs_write_atomic(writer->machine->vfs, writer->dir, STATE_FILE,
                                 buf_view(&writer->bytes));
    }
    return error;
}

static void receive_close(struct sm_snapshot_writer *writer)
{
    buf_deinit(&writer->bytes);
    free(writer);
}

/* Copies rather than moves: `dir` stays complete until the node removes it, so restoring twice is
 * harmless. */
static int machine_restore(void *sm, const char *dir)
{
    struct config_machine *machine = sm;
    char path[VFS_PATH_BYTES_MAX];
    struct buf bytes;
    buf_init(&bytes);
    int error = vfs_path(path, dir, STATE_FILE);
    if (error == 0) {
        error = vfs_read_all(machine->vfs, path, STATE_BYTES_MAX, &bytes);
    }
    if (error == 0) {
        pthread_mutex_lock(&machine->flush_mutex);
        error = vfs_write_atomic(machine->vfs, machine->dir, STATE_FILE, buf_view(&bytes));
        if (error == 0) {
            pthread_mutex_lock(&machine->mutex);
            error = config_state_decode(buf_view(&bytes), &machine->state);
            machine->durable = machine->state.applied;
            pthread_mutex_unlock(&machine->mutex);
        }
        pthread_mutex_unlock(&machine->flush_mutex);
    }
    buf_deinit(&bytes);
    if (error == 0 && machine->changed != NULL) {
        machine->changed(machine->changed_context);
    }
    return error;
}

static int machine_hash(void *sm, uint64_t *hash, struct raft_position *position)
{
    struct buf bytes;
    buf_init(&bytes);
    *position = encode_now(sm, &bytes);
    size_t half = bytes.size / 2;
    *hash = ((uint64_t)crc32c_extend(0, bytes.data, half) << 32) |
            crc32c_extend(0, bytes.data + half, bytes.size - half);
    buf_deinit(&bytes);
    return 0;
}

struct state_machine config_machine_interface(struct config_machine *machine)
{
    static const struct state_machine_ops ops = {
        .apply = machine_apply,
        .applied = machine_applied,
        .durable = machine_durable,
        .flush = machine_flush,
        .snapshot_open = snapshot_open,
        .snapshot_read = snapshot_read,
        .snapshot_close = snapshot_close,
        .receive_open = receive_open,
        .receive_write = receive_write,
        .receive_finish = receive_finish,
        .receive_close = receive_close,
        .restore = machine_restore,
        .hash = machine_hash,
    };
    return (struct state_machine){.ops = &ops, .sm = machine};
}

/* ---- reading
 * -------------------------------------------------------------------------------------------------
 */

uint32_t config_machine_shard_count(struct config_machine *machine)
{
    pthread_mutex_lock(&machine->mutex);
    uint32_t count =
        machine->state.history != NULL ? history_latest(machine->state.history)->shard_count : 0;
    pthread_mutex_unlock(&machine->mutex);
    return count;
}

uint64_t config_machine_latest_number(struct config_machine *machine)
{
    pthread_mutex_lock(&machine->mutex);
    uint64_t number =
        machine->state.history != NULL ? history_latest(machine->state.history)->number : 0;
    pthread_mutex_unlock(&machine->mutex);
    return number;
}

int config_machine_get(struct config_machine *machine, uint64_t number, struct config **out)
{
    pthread_mutex_lock(&machine->mutex);
    int error = machine->state.history != NULL ? history_get(machine->state.history, number, out)
                                               : ERR_BUSY;
    pthread_mutex_unlock(&machine->mutex);
    return error;
}

int config_machine_latest(struct config_machine *machine, struct config **out)
{
    pthread_mutex_lock(&machine->mutex);
    int error = machine->state.history != NULL ? 0 : ERR_BUSY;
    if (error == 0) {
        *out = config_clone(history_latest(machine->state.history));
    }
    pthread_mutex_unlock(&machine->mutex);
    return error;
}

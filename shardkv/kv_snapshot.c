/* Snapshots: made and received beside apply, on the background thread; restored on the apply
 * thread.
 *
 * A snapshot is a checkpoint of the store (files) as one stream, little-endian:
 *
 *   header   u32 magic, u32 version, u64 index, u64 term, u32 file_count,
 *            file_count x { sized name, u64 size }, u32 crc32c of all before
 *   blocks   for each file, in order: its bytes in blocks of SNAPSHOT_BLOCK_BYTES (the last
 *            shorter), each followed by its u32 crc32c, which starts from (file index, block index)
 *            so that no block stands in for another
 *
 * Where every byte lies follows from the header, so the stream can be read from any offset. The
 * receiver writes `dir`/store/<name>; `dir`/complete, written last and synced, says that all of it
 * arrived. */
#include "shardkv/kv_machine_internal.h"

#include "base/codec.h"
#include "base/crc32c.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SNAPSHOT_MAGIC = 0x736b7673,
    SNAPSHOT_VERSION = 1,
    SNAPSHOT_BLOCK_BYTES = 64 * 1024,
    SNAPSHOT_FILES_MAX = 16384,
    SNAPSHOT_NAME_BYTES_MAX = 128,
    SNAPSHOT_HEADER_BYTES_MAX = 4 * 1024 * 1024,
    CRC_BYTES = 4,
};
static_assert((int)SNAPSHOT_FILES_MAX * ((int)SNAPSHOT_NAME_BYTES_MAX + 16) <
                  (int)SNAPSHOT_HEADER_BYTES_MAX,
              "every header fits");

struct snapshot_file {
    char name[SNAPSHOT_NAME_BYTES_MAX];
    uint64_t size;
    uint64_t offset; /* in the stream, of its first block */
};

struct file_list {
    struct snapshot_file *files;
    uint32_t count;
    uint32_t capacity;
    bool bad; /* a name that may not travel */
};

static uint64_t stream_bytes_of(uint64_t file_size)
{
    return file_size + (file_size + SNAPSHOT_BLOCK_BYTES - 1) / SNAPSHOT_BLOCK_BYTES * CRC_BYTES;
}

static uint32_t block_seed(uint32_t file, uint64_t block)
{
    uint8_t place[12];
    store_u32(place, file);
    store_u64(place + 4, block);
    return crc32c_extend(0, place, sizeof place);
}

static bool name_is_safe(const char *name)
{
    size_t size = strlen(name);
    return size > 0 && size < SNAPSHOT_NAME_BYTES_MAX && strchr(name, '/') == NULL &&
           name[0] != '.';
}

static struct snapshot_file *list_add(struct file_list *list)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        list->files = mem_realloc(list->files, list->capacity * sizeof *list->files);
    }
    struct snapshot_file *file = &list->files[list->count];
    list->count++;
    memset(file, 0, sizeof *file);
    return file;
}

static void list_name(void *context, const char *name)
{
    struct file_list *list = context;
    if (!name_is_safe(name) || list->count == SNAPSHOT_FILES_MAX) {
        list->bad = true;
        return;
    }
    struct snapshot_file *file = list_add(list);
    snprintf(file->name, sizeof file->name, "%s", name);
}

/* ---- making and reading a snapshot
 * --------------------------------------------------------------------------- */

struct sm_snapshot_reader {
    const struct vfs *vfs;
    char dir[VFS_PATH_BYTES_MAX]; /* of the files */
    struct buf header;
    struct file_list list;
    struct vfs_file *open; /* the file read last */
    uint32_t open_index;
    uint8_t block[SNAPSHOT_BLOCK_BYTES + CRC_BYTES]; /* the block read last, with its checksum */
    size_t block_size;
    uint32_t block_file;
    uint64_t block_index;
    bool block_valid;
};

static int file_size_of(const struct vfs *vfs, const char *dir, struct snapshot_file *file)
{
    char path[VFS_PATH_BYTES_MAX];
    struct vfs_file *opened = NULL;
    int error = vfs_path(path, dir, file->name);
    error = error != 0 ? error : vfs->open(vfs->context, path, VFS_READ, &opened);
    if (error != 0) {
        return error;
    }
    error = vfs->size(vfs->context, opened, &file->size);
    int close_error = vfs->close(vfs->context, opened);
    return error != 0 ? error : close_error;
}

static int list_files(struct sm_snapshot_reader *reader)
{
    int error = reader->vfs->list(reader->vfs->context, reader->dir, list_name, &reader->list);
    if (error == 0 && reader->list.bad) {
        error = ERR_IO;
    }
    for (uint32_t i = 0; i < reader->list.count && error == 0; i++) {
        error = file_size_of(reader->vfs, reader->dir, &reader->list.files[i]);
    }
    return error;
}

static uint64_t put_header(struct sm_snapshot_reader *reader, struct raft_position position)
{
    struct buf *out = &reader->header;
    put_u32(out, SNAPSHOT_MAGIC);
    put_u32(out, SNAPSHOT_VERSION);
    put_u64(out, position.index);
    put_u64(out, position.term);
    put_u32(out, reader->list.count);
    for (uint32_t i = 0; i < reader->list.count; i++) {
        put_sized(out, bytes_of_string(reader->list.files[i].name));
        put_u64(out, reader->list.files[i].size);
    }
    put_u32(out, crc32c_extend(0, out->data, out->size));
    uint64_t offset = out->size;
    for (uint32_t i = 0; i < reader->list.count; i++) {
        reader->list.files[i].offset = offset;
        offset += stream_bytes_of(reader->list.files[i].size);
    }
    return offset;
}

/* The checkpoint holds exactly what is applied, because apply waits for it; flushing before keeps
 * that wait short. */
static int make_checkpoint(struct kv_machine *machine, const char *dir,
                           struct raft_position *position)
{
    int error = kv__flush(machine);
    if (error != 0) {
        return error;
    }
    kv__gate_wait(machine);
    pthread_mutex_lock(&machine->apply_mutex);
    pthread_mutex_lock(&machine->state_mutex);
    *position = machine->applied;
    pthread_mutex_unlock(&machine->state_mutex);
    error = machine->store.ops->checkpoint(machine->store.store, dir);
    pthread_mutex_unlock(&machine->apply_mutex);
    kv__gate_leave(machine);
    return error;
}

int kv__snapshot_open(void *sm, const char *dir, struct raft_position *position,
                      uint64_t *size_bytes, struct sm_snapshot_reader **out)
{
    struct kv_machine *machine = sm;
    struct sm_snapshot_reader *reader = mem_calloc(1, sizeof *reader);
    reader->vfs = machine->options.vfs;
    int error = vfs_path(reader->dir, dir, "store");
    error = error != 0 ? error : make_checkpoint(machine, reader->dir, position);
    error = error != 0 ? error : list_files(reader);
    /* The stream carries files as they are, and its checksums only what happens to them on the way:
     * a block that changed on this disk would be the receiver's, too. */
    error = error != 0 ? error
                       : machine->store.ops->check_copy(machine->store.store, reader->dir,
                                                        &machine->replacing);
    if (error != 0) {
        log_event(LOG_WARN, "snapshot.failed", "error=%s", err_name(error));
        kv__snapshot_close(reader);
        return error;
    }
    *size_bytes = put_header(reader, *position);
    *out = reader;
    return 0;
}

static int switch_file(struct sm_snapshot_reader *reader, uint32_t index)
{
    if (reader->open != NULL && reader->open_index == index) {
        return 0;
    }
    if (reader->open != NULL) {
        int error = reader->vfs->close(reader->vfs->context, reader->open);
        reader->open = NULL;
        if (error != 0) {
            return error;
        }
    }
    char path[VFS_PATH_BYTES_MAX];
    int error = vfs_path(path, reader->dir, reader->list.files[index].name);
    error =
        error != 0 ? error : reader->vfs->open(reader->vfs->context, path, VFS_READ, &reader->open);
    reader->open_index = index;
    return error;
}

static int load_block(struct sm_snapshot_reader *reader, uint32_t index, uint64_t block)
{
    if (reader->block_valid && reader->block_file == index && reader->block_index == block) {
        return 0;
    }
    reader->block_valid = false;
    int error = switch_file(reader, index);
    if (error != 0) {
        return error;
    }
    uint64_t from = block * SNAPSHOT_BLOCK_BYTES;
    uint64_t left = reader->list.files[index].size - from;
    size_t size = left < SNAPSHOT_BLOCK_BYTES ? (size_t)left : SNAPSHOT_BLOCK_BYTES;
    size_t count = 0;
    error =
        reader->vfs->read_at(reader->vfs->context, reader->open, from, reader->block, size, &count);
    if (error == 0 && count != size) {
        error = ERR_IO;
    }
    if (error == 0) {
        store_u32(reader->block + size,
                  crc32c_extend(block_seed(index, block), reader->block, size));
        reader->block_size = size + CRC_BYTES;
        reader->block_file = index;
        reader->block_index = block;
        reader->block_valid = true;
    }
    return error;
}

/* The last file whose first byte is at or before `offset`; empty files share their offset with the
 * next. */
static uint32_t file_at(const struct file_list *list, uint64_t offset)
{
    uint32_t low = 0;
    uint32_t high = list->count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (list->files[middle].offset <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

int kv__snapshot_read(struct sm_snapshot_reader *reader, uint64_t offset, uint8_t *data,
                      size_t size)
{
    while (size > 0) {
        const uint8_t *from = NULL;
        size_t part = 0;
        if (offset < reader->header.size) {
            from = reader->header.data + offset;
            part = reader->header.size - (size_t)offset;
        } else {
            uint32_t index = file_at(&reader->list, offset);
            uint64_t within = offset - reader->list.files[index].offset;
            if (within >= stream_bytes_of(reader->list.files[index].size)) {
                return ERR_INVALID; /* past the end of the stream */
            }
            int error = load_block(reader, index, within / (SNAPSHOT_BLOCK_BYTES + CRC_BYTES));
            if (error != 0) {
                return error;
            }
            size_t skip = (size_t)(within % (SNAPSHOT_BLOCK_BYTES + CRC_BYTES));
            from = reader->block + skip;
            part = reader->block_size - skip;
        }
        part = part < size ? part : size;
        memcpy(data, from, part);
        data += part;
        offset += part;
        size -= part;
    }
    return 0;
}

void kv__snapshot_close(struct sm_snapshot_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    if (reader->open != NULL && reader->vfs->close(reader->vfs->context, reader->open) != 0) {
        log_event(LOG_WARN, "snapshot.close_failed", "dir=%s", reader->dir);
    }
    buf_deinit(&reader->header);
    free(reader->list.files);
    free(reader);
}

/* ---- receiving ---- */

struct sm_snapshot_writer {
    const struct vfs *vfs;
    char dir[VFS_PATH_BYTES_MAX];
    char files_dir[VFS_PATH_BYTES_MAX];
    struct buf pending; /* bytes not yet used: the header, or a part of a block */
    struct file_list list;
    bool has_header;
    uint32_t file_index; /* being written; list.count: all are */
    struct vfs_file *file;
    uint64_t written;
};

int kv__receive_open(void *sm, const char *dir, struct sm_snapshot_writer **out)
{
    struct kv_machine *machine = sm;
    struct sm_snapshot_writer *writer = mem_calloc(1, sizeof *writer);
    writer->vfs = machine->options.vfs;
    snprintf(writer->dir, sizeof writer->dir, "%s", dir);
    int error = vfs_path(writer->files_dir, dir, "store");
    error = error != 0 ? error : writer->vfs->make_dir(writer->vfs->context, writer->files_dir);
    if (error != 0) {
        kv__receive_close(writer);
        return error;
    }
    *out = writer;
    return 0;
}

/* Takes the header from the front of what arrived. ERR_BUSY: not all of it is there. */
static int take_header(struct sm_snapshot_writer *writer)
{
    struct reader reader = reader_of(buf_view(&writer->pending));
    uint32_t magic = get_u32(&reader);
    uint32_t version = get_u32(&reader);
    (void)get_u64(&reader);
    (void)get_u64(&reader);
    uint32_t count = get_u32(&reader);
    if (!reader.failed &&
        (magic != SNAPSHOT_MAGIC || version != SNAPSHOT_VERSION || count > SNAPSHOT_FILES_MAX)) {
        return ERR_CORRUPT;
    }
    writer->list.count = 0;
    for (uint32_t i = 0; i < count && !reader.failed; i++) {
        struct bytes name = get_sized(&reader, SNAPSHOT_NAME_BYTES_MAX - 1);
        struct snapshot_file *file = list_add(&writer->list);
        if (name.size > 0) {
            memcpy(file->name, name.data, name.size);
        }
        file->size = get_u64(&reader);
        if (!reader.failed && (strlen(file->name) != name.size || !name_is_safe(file->name))) {
            return ERR_CORRUPT;
        }
    }
    size_t size = writer->pending.size - reader_left(&reader);
    uint32_t crc = get_u32(&reader);
    if (reader.failed) {
        return writer->pending.size < SNAPSHOT_HEADER_BYTES_MAX ? ERR_BUSY : ERR_CORRUPT;
    }
    if (crc != crc32c_extend(0, writer->pending.data, size)) {
        return ERR_CORRUPT;
    }
    writer->has_header = true;
    size += CRC_BYTES;
    memmove(writer->pending.data, writer->pending.data + size, writer->pending.size - size);
    writer->pending.size -= size;
    return 0;
}

static int finish_file(struct sm_snapshot_writer *writer)
{
    int error = writer->vfs->sync(writer->vfs->context, writer->file);
    int close_error = writer->vfs->close(writer->vfs->context, writer->file);
    writer->file = NULL;
    writer->file_index++;
    writer->written = 0;
    return error != 0 ? error : close_error;
}

static int begin_file(struct sm_snapshot_writer *writer)
{
    char path[VFS_PATH_BYTES_MAX];
    int error = vfs_path(path, writer->files_dir, writer->list.files[writer->file_index].name);
    return error != 0 ? error
                      : writer->vfs->open(writer->vfs->context, path,
                                          VFS_WRITE | VFS_CREATE | VFS_TRUNCATE, &writer->file);
}

/* Writes the next block if all of it is there. ERR_BUSY: it is not. */
static int take_block(struct sm_snapshot_writer *writer, size_t *used)
{
    const struct snapshot_file *file = &writer->list.files[writer->file_index];
    int error = writer->file == NULL ? begin_file(writer) : 0;
    if (error != 0) {
        return error;
    }
    uint64_t left = file->size - writer->written;
    if (left == 0) {
        return finish_file(writer);
    }
    size_t size = left < SNAPSHOT_BLOCK_BYTES ? (size_t)left : SNAPSHOT_BLOCK_BYTES;
    if (writer->pending.size - *used < size + CRC_BYTES) {
        return ERR_BUSY;
    }
    const uint8_t *data = writer->pending.data + *used;
    uint32_t seed = block_seed(writer->file_index, writer->written / SNAPSHOT_BLOCK_BYTES);
    if (load_u32(data + size) != crc32c_extend(seed, data, size)) {
        return ERR_CORRUPT;
    }
    error = writer->vfs->write_at(writer->vfs->context, writer->file, writer->written,
                                  bytes_of(data, size));
    if (error == 0) {
        writer->written += size;
        *used += size + CRC_BYTES;
    }
    return error;
}

static int take_all(struct sm_snapshot_writer *writer)
{
    int error = writer->has_header ? 0 : take_header(writer);
    size_t used = 0;
    while (error == 0 && writer->file_index < writer->list.count) {
        error = take_block(writer, &used);
    }
    if (used > 0) {
        memmove(writer->pending.data, writer->pending.data + used, writer->pending.size - used);
        writer->pending.size -= used;
    }
    return error == ERR_BUSY ? 0 : error;
}

int kv__receive_write(struct sm_snapshot_writer *writer, struct bytes bytes)
{
    buf_append_bytes(&writer->pending, bytes);
    return take_all(writer);
}

int kv__receive_finish(struct sm_snapshot_writer *writer)
{
    if (!writer->has_header || writer->file_index != writer->list.count ||
        writer->pending.size != 0) {
        return ERR_CORRUPT;
    }
    int error = writer->vfs->sync_dir(writer->vfs->context, writer->files_dir);
    error = error != 0 ? error : writer->vfs->sync_dir(writer->vfs->context, writer->dir);
    return error != 0 ? error
                      : vfs_write_atomic(writer->vfs, writer->dir, "complete", bytes_of("1", 1));
}

void kv__receive_close(struct sm_snapshot_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    if (writer->file != NULL && writer->vfs->close(writer->vfs->context, writer->file) != 0) {
        log_event(LOG_WARN, "snapshot.close_failed", "dir=%s", writer->files_dir);
    }
    buf_deinit(&writer->pending);
    free(writer->list.files);
    free(writer);
}

/* ---- restoring ---- */

/* `store` is used up by the replacement; when it is gone while `complete` is there, an earlier call
 * did the work. */
static int look_at_staged(const struct kv_machine *machine, const char *dir,
                          char files[VFS_PATH_BYTES_MAX], bool *has_files)
{
    const struct vfs *vfs = machine->options.vfs;
    char complete[VFS_PATH_BYTES_MAX];
    bool is_complete = false;
    int error = vfs_path(complete, dir, "complete");
    error = error != 0 ? error : vfs_path(files, dir, "store");
    error = error != 0 ? error : vfs->exists(vfs->context, complete, &is_complete);
    error = error != 0 ? error : vfs->exists(vfs->context, files, has_files);
    return error == 0 && !is_complete ? ERR_CORRUPT : error;
}

static int replace_store(struct kv_machine *machine, const char *files)
{
    machine->store.ops->batch_destroy(machine->batch);
    int error = machine->store.ops->replace(machine->store.store, files);
    machine->batch = machine->store.ops->batch_create(machine->store.store);
    return error;
}

int kv__restore(void *sm, const char *dir)
{
    struct kv_machine *machine = sm;
    char why[256] = "";
    char files[VFS_PATH_BYTES_MAX];
    bool has_files = false;
    int error = look_at_staged(machine, dir, files, &has_files);
    if (error != 0 || !has_files) {
        return error;
    }
    /* The gate before the mutex, as everyone takes them. */
    atomic_store(&machine->replacing, true);
    pthread_rwlock_wrlock(&machine->gate);
    pthread_mutex_lock(&machine->apply_mutex);
    kv__unload(machine);
    error = replace_store(machine, files);
    if (error == 0) {
        error = kv__load(machine, why, sizeof why);
    }
    if (error == 0) {
        kv__publish(machine);
        log_event(LOG_INFO, "snapshot.restored", "index=%" PRIu64, machine->applied.index);
    } else {
        log_event(LOG_ERROR, "snapshot.restore_failed", "error=%s reason=\"%s\"", err_name(error),
                  why);
    }
    pthread_mutex_unlock(&machine->apply_mutex);
    atomic_store(&machine->replacing, false);
    pthread_rwlock_unlock(&machine->gate);
    return error;
}

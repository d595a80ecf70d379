/* The folder `snapshot`; see snapshot_store.h for names, bytes and the rule of the rename.
 *
 * Order in snapshot_staging_finish, and why a crash between any two steps is harmless:
 *   1. the state machine checks and syncs its files        (crash: in-* is deleted at start)
 *   2. meta is written, synced; in-<id> synced             (the same)
 *   3. in-<id> becomes ready-*; `snapshot` is synced       (crash after: start restores it)
 * Only then does the caller reset the log and, later, restore and remove. */
#include "raft/node/snapshot_store.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEADER_MAGIC = 0x53564b53, /* "SKVS" */
    HEADER_VERSION = 1,
    META_MAGIC_BYTES = 8,
    META_CHECKED_FROM = META_MAGIC_BYTES + 4,
    META_VERSION = 1,
    META_BYTES_MAX = 16 * 1024,
};
static const char meta_magic[META_MAGIC_BYTES] = {'S', 'K', 'V', 'S', 'M', 'E', 'T', 'A'};
static const char meta_name[] = "meta";
static const char data_name[] = "data";

/* ---- bytes ----------------------------------------------------------------------------------- */

void snapshot_header_encode(uint64_t log_time_ms, uint8_t out[SNAPSHOT_HEADER_BYTES])
{
    store_u32(out, HEADER_MAGIC);
    store_u32(out + 4, HEADER_VERSION);
    store_u64(out + 8, log_time_ms);
    store_u32(out + 16, 0);
    store_u32(out + 20, crc32c_extend(0, out, 20));
}

int snapshot_header_decode(const uint8_t header[SNAPSHOT_HEADER_BYTES], uint64_t *log_time_ms)
{
    if (load_u32(header) != HEADER_MAGIC || load_u32(header + 20) != crc32c_extend(0, header, 20)) {
        return ERR_CORRUPT;
    }
    if (load_u32(header + 4) != HEADER_VERSION) {
        return ERR_UNSUPPORTED;
    }
    *log_time_ms = load_u64(header + 8);
    return ERR_OK;
}

static void meta_encode(const struct raft_snapshot *snapshot, uint64_t log_time_ms, struct buf *out)
{
    struct buf membership;
    buf_init(&membership);
    raft_membership_encode(&snapshot->membership, &membership);
    buf_append(out, meta_magic, META_MAGIC_BYTES);
    put_u32(out, 0);
    put_u32(out, META_VERSION);
    put_u64(out, snapshot->position.index);
    put_u64(out, snapshot->position.term);
    put_u64(out, snapshot->id);
    put_u64(out, snapshot->size_bytes);
    put_u64(out, log_time_ms);
    put_u64(out, snapshot->membership.position.index);
    put_u64(out, snapshot->membership.position.term);
    put_sized(out, buf_view(&membership));
    buf_deinit(&membership);
    store_u32(out->data + META_MAGIC_BYTES,
              crc32c_extend(0, out->data + META_CHECKED_FROM, out->size - META_CHECKED_FROM));
}

static int meta_decode(struct bytes bytes, struct snapshot_ready *out)
{
    if (bytes.size < META_CHECKED_FROM || memcmp(bytes.data, meta_magic, META_MAGIC_BYTES) != 0 ||
        load_u32(bytes.data + META_MAGIC_BYTES) !=
            crc32c_extend(0, bytes.data + META_CHECKED_FROM, bytes.size - META_CHECKED_FROM)) {
        return ERR_CORRUPT;
    }
    struct reader reader =
        reader_of(bytes_of(bytes.data + META_CHECKED_FROM, bytes.size - META_CHECKED_FROM));
    if (get_u32(&reader) != META_VERSION) {
        return ERR_UNSUPPORTED;
    }
    struct raft_snapshot *snapshot = &out->snapshot;
    snapshot->position.index = get_u64(&reader);
    snapshot->position.term = get_u64(&reader);
    snapshot->id = get_u64(&reader);
    snapshot->size_bytes = get_u64(&reader);
    out->log_time_ms = get_u64(&reader);
    struct raft_position membership_position;
    membership_position.index = get_u64(&reader);
    membership_position.term = get_u64(&reader);
    struct bytes membership = get_sized(&reader, META_BYTES_MAX);
    if (!reader_done(&reader) ||
        raft_membership_decode(membership, &snapshot->membership) != ERR_OK) {
        return ERR_CORRUPT;
    }
    snapshot->membership.position = membership_position;
    return ERR_OK;
}

/* ---- arriving -------------------------------------------------------------------------------- */

void snapshot_staging_init(struct snapshot_staging *staging, const struct vfs *vfs,
                           const struct state_machine *sm, const char *dir)
{
    memset(staging, 0, sizeof(*staging));
    staging->vfs = vfs;
    staging->sm = sm;
    staging->dir = dir;
}

void snapshot_staging_deinit(struct snapshot_staging *staging)
{
    if (staging->writer != NULL) {
        staging->sm->ops->receive_close(staging->writer);
        staging->writer = NULL;
    }
    staging->active = false;
}

/* Forgets what was arriving, on the disk too. */
static int staging_drop(struct snapshot_staging *staging)
{
    bool was_active = staging->active;
    snapshot_staging_deinit(staging);
    return was_active ? staging->vfs->remove_tree(staging->vfs->context, staging->path) : ERR_OK;
}

static int staging_begin(struct snapshot_staging *staging, uint64_t id)
{
    const struct vfs *vfs = staging->vfs;
    char name[32];
    char data[VFS_PATH_BYTES_MAX];
    int error = staging_drop(staging);
    snprintf(name, sizeof(name), "in-%016" PRIx64, id);
    if (error == ERR_OK) {
        error = vfs_path(staging->path, staging->dir, name);
    }
    if (error == ERR_OK) {
        error = vfs_path(data, staging->path, data_name);
    }
    if (error == ERR_OK) {
        error = vfs->remove_tree(vfs->context, staging->path);
    }
    if (error == ERR_OK) {
        error = vfs->make_dir(vfs->context, staging->path);
    }
    if (error == ERR_OK) {
        error = vfs->make_dir(vfs->context, data);
    }
    if (error != ERR_OK) {
        return error;
    }
    staging->active = true;
    staging->id = id;
    staging->next_offset = 0;
    staging->corrupt = false;
    return staging->sm->ops->receive_open(staging->sm->sm, data, &staging->writer);
}

int snapshot_staging_write(struct snapshot_staging *staging, uint64_t id, uint64_t offset,
                           struct bytes bytes)
{
    if (offset == 0) {
        int error = staging_begin(staging, id);
        if (error != ERR_OK) {
            return error;
        }
    }
    if (!staging->active || staging->id != id || staging->next_offset != offset) {
        return ERR_INVALID;
    }
    if (bytes.size == 0) {
        return ERR_OK; /* an empty snapshot's one chunk; finish finds it too short */
    }
    staging->next_offset += bytes.size;
    if (offset < SNAPSHOT_HEADER_BYTES) {
        size_t missing = (size_t)(SNAPSHOT_HEADER_BYTES - offset);
        size_t part = bytes.size < missing ? bytes.size : missing;
        memcpy(staging->header + offset, bytes.data, part);
        bytes = bytes_of(bytes.data + part, bytes.size - part);
        if (part == missing) {
            staging->corrupt =
                snapshot_header_decode(staging->header, &staging->log_time_ms) != ERR_OK;
        }
    }
    if (bytes.size == 0 || staging->corrupt) {
        return ERR_OK;
    }
    int error = staging->sm->ops->receive_write(staging->writer, bytes);
    staging->corrupt = error == ERR_CORRUPT;
    return staging->corrupt ? ERR_OK : error;
}

static int staging_seal(struct snapshot_staging *staging, const struct raft_snapshot *snapshot,
                        const char *ready)
{
    const struct vfs *vfs = staging->vfs;
    struct buf meta;
    buf_init(&meta);
    meta_encode(snapshot, staging->log_time_ms, &meta);
    int error = vfs_write_atomic(vfs, staging->path, meta_name, buf_view(&meta));
    buf_deinit(&meta);
    if (error == ERR_OK) {
        error = vfs->sync_dir(vfs->context, staging->path);
    }
    if (error == ERR_OK) {
        error = vfs->rename(vfs->context, staging->path, ready);
    }
    if (error == ERR_OK) {
        error = vfs->sync_dir(vfs->context, staging->dir);
    }
    return error;
}

int snapshot_staging_finish(struct snapshot_staging *staging, const struct raft_snapshot *snapshot,
                            char **path)
{
    char name[64];
    char ready[VFS_PATH_BYTES_MAX];
    if (!staging->active || staging->id != snapshot->id ||
        staging->next_offset != snapshot->size_bytes) {
        return ERR_INVALID;
    }
    if (staging->next_offset < SNAPSHOT_HEADER_BYTES) {
        staging->corrupt = true; /* what the leader calls a snapshot is none */
    }
    snprintf(name, sizeof(name), "ready-%020" PRIu64 "-%016" PRIx64, snapshot->position.index,
             snapshot->id);
    int error = vfs_path(ready, staging->dir, name);
    if (error != ERR_OK) {
        return error;
    }
    error = staging->corrupt ? ERR_CORRUPT : staging->sm->ops->receive_finish(staging->writer);
    if (error != ERR_OK) {
        int dropped = error == ERR_CORRUPT ? staging_drop(staging) : ERR_OK;
        return dropped != ERR_OK ? dropped : error;
    }
    snapshot_staging_deinit(staging);
    error = staging_seal(staging, snapshot, ready);
    if (error == ERR_OK) {
        *path = mem_strdup(ready);
    }
    return error;
}

/* ---- ready ----------------------------------------------------------------------------------- */

/* What a listing of the folder found. */
struct found {
    const struct vfs *vfs;
    const char *dir;
    struct buf leftovers; /* names with their NUL, to be deleted */
    char ready[64];       /* the newest: names sort by index, so the last one */
};

static bool name_begins(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static void find_each(void *context, const char *name)
{
    struct found *found = context;
    if (name_begins(name, "ready-") && strlen(name) < sizeof(found->ready)) {
        if (found->ready[0] != '\0') {
            buf_append(&found->leftovers, found->ready, strlen(found->ready) + 1);
        }
        memcpy(found->ready, name, strlen(name) + 1);
    } else if (name_begins(name, "in-") || name_begins(name, "out-") ||
               name_begins(name, "ready-")) {
        buf_append(&found->leftovers, name, strlen(name) + 1);
    } else {
        log_event(LOG_WARN, "snapshot.stranger", "name=%s advice=not_ours_left_alone", name);
    }
}

static int remove_leftovers(const struct found *found)
{
    const struct vfs *vfs = found->vfs;
    char path[VFS_PATH_BYTES_MAX];
    for (size_t at = 0; at < found->leftovers.size;) {
        const char *name = (const char *)found->leftovers.data + at;
        int error = vfs_path(path, found->dir, name);
        if (error == ERR_OK) {
            error = vfs->remove_tree(vfs->context, path);
        }
        if (error != ERR_OK) {
            return error;
        }
        log_event(LOG_INFO, "snapshot.leftover_removed", "name=%s", name);
        at += strlen(name) + 1;
    }
    return found->leftovers.size == 0 ? ERR_OK : vfs->sync_dir(vfs->context, found->dir);
}

static int load_ready(const struct found *found, struct snapshot_ready *out)
{
    struct buf meta;
    char path[VFS_PATH_BYTES_MAX];
    buf_init(&meta);
    int error = vfs_path(out->path, found->dir, found->ready);
    if (error == ERR_OK) {
        error = vfs_path(path, out->path, meta_name);
    }
    if (error == ERR_OK) {
        error = vfs_read_all(found->vfs, path, META_BYTES_MAX, &meta);
    }
    if (error == ERR_OK) {
        error = meta_decode(buf_view(&meta), out);
    } else if (error == ERR_NOT_FOUND || error == ERR_TOO_LARGE) {
        error = ERR_CORRUPT;
    }
    buf_deinit(&meta);
    return error;
}

int snapshot_store_open(const struct vfs *vfs, const char *dir, struct snapshot_ready *out,
                        char *why, size_t why_size)
{
    struct found found = {.vfs = vfs, .dir = dir};
    memset(out, 0, sizeof(*out));
    buf_init(&found.leftovers);
    int error = vfs->list(vfs->context, dir, find_each, &found);
    if (error == ERR_OK) {
        error = remove_leftovers(&found);
    }
    buf_deinit(&found.leftovers);
    if (error != ERR_OK) {
        snprintf(why, why_size, "cannot tidy %s: %s", dir, err_text(error));
        return error;
    }
    if (found.ready[0] == '\0') {
        return ERR_NOT_FOUND;
    }
    error = load_ready(&found, out);
    if (error != ERR_OK) {
        snprintf(
            why, why_size,
            "the staged snapshot %s/%s is not readable (%s): keep the directory for inspection, "
            "remove this replica from its group and add it again under a new id with an empty "
            "directory",
            dir, found.ready, err_text(error));
    }
    return error;
}

int snapshot_store_restore(const struct state_machine *sm, const char *path)
{
    char data[VFS_PATH_BYTES_MAX];
    int error = vfs_path(data, path, data_name);
    if (error == ERR_OK) {
        error = sm->ops->restore(sm->sm, data);
    }
    return error;
}

int snapshot_store_remove_ready(const struct vfs *vfs, const char *dir, const char *path)
{
    char removed[VFS_PATH_BYTES_MAX];
    int error = vfs_path(removed, dir, "in-removed");
    if (error == ERR_OK) {
        error = vfs->remove_tree(vfs->context, removed);
    }
    if (error == ERR_OK) {
        error = vfs->rename(vfs->context, path, removed);
    }
    return error == ERR_OK ? snapshot_store_remove(vfs, dir, removed) : error;
}

int snapshot_store_remove(const struct vfs *vfs, const char *dir, const char *path)
{
    int error = vfs->remove_tree(vfs->context, path);
    if (error == ERR_OK) {
        error = vfs->sync_dir(vfs->context, dir);
    }
    return error;
}

/* ---- leaving --------------------------------------------------------------------------------- */

int snapshot_store_make_out(const struct vfs *vfs, const char *dir, uint64_t id, char **path)
{
    char name[32];
    char out[VFS_PATH_BYTES_MAX];
    snprintf(name, sizeof(name), "out-%016" PRIx64, id);
    int error = vfs_path(out, dir, name);
    if (error == ERR_OK) {
        error = vfs->remove_tree(vfs->context, out);
    }
    if (error == ERR_OK) {
        error = vfs->make_dir(vfs->context, out);
    }
    if (error == ERR_OK) {
        *path = mem_strdup(out);
    }
    return error;
}

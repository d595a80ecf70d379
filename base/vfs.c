/* What is built from the vtable's primitives, the same over the real file system and the
 * simulator's. Any thread that may block. */
#include "base/vfs.h"

#include "base/assert.h"

#include <stdio.h>
#include <string.h>

#define VFS_TEMPORARY_SUFFIX ".tmp"

int vfs_path(char out[VFS_PATH_BYTES_MAX], const char *dir, const char *name)
{
    size_t dir_size = strlen(dir);
    bool slash = dir_size > 0 && dir[dir_size - 1] != '/';
    int length = snprintf(out, VFS_PATH_BYTES_MAX, "%s%s%s", dir, slash ? "/" : "", name);
    if (length < 0 || length >= VFS_PATH_BYTES_MAX) {
        out[0] = '\0';
        return ERR_TOO_LARGE;
    }
    return ERR_OK;
}

int vfs_read_all(const struct vfs *vfs, const char *path, size_t size_max, struct buf *out)
{
    buf_clear(out);
    struct vfs_file *file;
    int error = vfs->open(vfs->context, path, VFS_READ, &file);
    if (error != ERR_OK) {
        return error;
    }
    uint64_t size;
    error = vfs->size(vfs->context, file, &size);
    if (error != ERR_OK) {
        goto close;
    }
    if (size > size_max) {
        error = ERR_TOO_LARGE;
        goto close;
    }
    size_t count = 0;
    error =
        vfs->read_at(vfs->context, file, 0, buf_reserve(out, (size_t)size), (size_t)size, &count);
    if (error == ERR_OK) {
        ASSERT_CMP(count, <=, size);
        out->size = count;
    }
close:;
    int close_error = vfs->close(vfs->context, file);
    if (error == ERR_OK && close_error != ERR_OK) {
        error = close_error;
        buf_clear(out);
    }
    return error;
}

/* A new file with these bytes, synced and closed. */
static int vfs_write_synced(const struct vfs *vfs, const char *path, struct bytes bytes)
{
    struct vfs_file *file;
    int error = vfs->open(vfs->context, path, VFS_WRITE | VFS_CREATE | VFS_TRUNCATE, &file);
    if (error != ERR_OK) {
        return error;
    }
    error = vfs->write_at(vfs->context, file, 0, bytes);
    if (error == ERR_OK) {
        error = vfs->sync(vfs->context, file);
    }
    int close_error = vfs->close(vfs->context, file);
    return error != ERR_OK ? error : close_error;
}

int vfs_write_atomic(const struct vfs *vfs, const char *dir, const char *name, struct bytes bytes)
{
    char path[VFS_PATH_BYTES_MAX];
    char temporary[VFS_PATH_BYTES_MAX];
    int error = vfs_path(path, dir, name);
    if (error != ERR_OK) {
        return error;
    }
    int length = snprintf(temporary, sizeof(temporary), "%s%s", path, VFS_TEMPORARY_SUFFIX);
    if (length < 0 || (size_t)length >= sizeof(temporary)) {
        return ERR_TOO_LARGE;
    }
    error = vfs_write_synced(vfs, temporary, bytes);
    if (error == ERR_OK) {
        error = vfs->rename(vfs->context, temporary, path);
    }
    if (error != ERR_OK) {
        /* Best effort: a temporary file that stays is overwritten by the next call. The first error
         * is told. */
        (void)vfs->remove(vfs->context, temporary);
        return error;
    }
    return vfs->sync_dir(vfs->context, dir[0] == '\0' ? "." : dir);
}

/* The directory that holds `path`'s last component: "/a/b" -> "/a", "/a" -> "/", "a" -> ".". */
static void vfs_parent(char out[VFS_PATH_BYTES_MAX], const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        snprintf(out, VFS_PATH_BYTES_MAX, ".");
    } else if (slash == path) {
        snprintf(out, VFS_PATH_BYTES_MAX, "/");
    } else {
        snprintf(out, VFS_PATH_BYTES_MAX, "%.*s", (int)(slash - path), path);
    }
}

static int vfs_sync_parent(const struct vfs *vfs, const char *path)
{
    char parent[VFS_PATH_BYTES_MAX];
    vfs_parent(parent, path);
    return vfs->sync_dir(vfs->context, parent);
}

/* `path` without doubled and trailing slashes. */
static int vfs_normalise(char out[VFS_PATH_BYTES_MAX], const char *path)
{
    size_t size = 0;
    for (const char *at = path; *at != '\0'; at++) {
        if (*at == '/' && size > 0 && out[size - 1] == '/') {
            continue;
        }
        if (size == VFS_PATH_BYTES_MAX - 1) {
            return ERR_TOO_LARGE;
        }
        out[size++] = *at;
    }
    if (size > 1 && out[size - 1] == '/') {
        size--;
    }
    out[size] = '\0';
    return size == 0 ? ERR_INVALID : ERR_OK;
}

/* Makes `path`, whose parent exists. `present` holds, in and out, whether it was there before. */
static int vfs_make_one(const struct vfs *vfs, const char *path, bool *present)
{
    int error = vfs->exists(vfs->context, path, present);
    if (error == ERR_OK) {
        /* Asked even when present: make_dir() tells a directory from a file that is in the way. */
        error = vfs->make_dir(vfs->context, path);
    }
    return error;
}

int vfs_make_dirs(const struct vfs *vfs, const char *path)
{
    char whole[VFS_PATH_BYTES_MAX];
    char existing[VFS_PATH_BYTES_MAX] = ""; /* the deepest directory that was there before us */
    int error = vfs_normalise(whole, path);
    if (error != ERR_OK || strcmp(whole, "/") == 0) {
        return error;
    }
    bool made_any = false;
    for (size_t i = 1;; i++) {
        if (whole[i] != '/' && whole[i] != '\0') {
            continue;
        }
        char prefix[VFS_PATH_BYTES_MAX];
        snprintf(prefix, sizeof(prefix), "%.*s", (int)i, whole);
        bool present = false;
        error = vfs_make_one(vfs, prefix, &present);
        if (error != ERR_OK) {
            return error;
        }
        if (present && !made_any) {
            memcpy(existing, prefix, i + 1);
        } else {
            made_any = true;
            error = vfs_sync_parent(vfs, prefix);
            if (error != ERR_OK) {
                return error;
            }
        }
        if (whole[i] == '\0') {
            break;
        }
    }
    /* A process that died between make_dir and sync_dir leaves one directory, the deepest, that is
     * not durable. */
    return existing[0] == '\0' ? ERR_OK : vfs_sync_parent(vfs, existing);
}

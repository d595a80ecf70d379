/* The file system behind a vtable, so that the simulator can tear writes, fail syncs and lose what was not
 * synced. Only what the log, snapshots and identity need. Paths are NUL-terminated. All calls block; none is
 * made on a completion-queue or node-loop thread. Errors: ERR_IO, ERR_NO_SPACE, ERR_NOT_FOUND, ERR_EXISTS;
 * `errno` is logged where it happened with the path. A failed sync or close is
 * always ERR_IO and final: what is on the disk is unknown, so nothing may be tried again on that file. After ERR_NO_SPACE
 * from write_at any part of the bytes may have been written. */
#ifndef BASE_VFS_H
#define BASE_VFS_H

#include "base/bytes.h"
#include "base/error.h"

#define VFS_PATH_BYTES_MAX 4096

enum vfs_open_flags {
    VFS_READ = 1,
    VFS_WRITE = 2,
    VFS_CREATE = 4,    /* create if missing */
    VFS_EXCLUSIVE = 8, /* with CREATE: ERR_EXISTS when there is one */
    VFS_TRUNCATE = 16,
};

struct vfs_file;

struct vfs {
    void *context;
    /* gives *out */
    int (*open)(void *context, const char *path, unsigned flags, struct vfs_file **out);
    /* takes `file`; an error from close is an I/O error like any other */
    int (*close)(void *context, struct vfs_file *file);
    /* All bytes or an error; a short write is completed or reported, never ignored. */
    int (*write_at)(void *context, struct vfs_file *file, uint64_t offset, struct bytes bytes);
    /* Reads up to `size` bytes; *count is less only at the end of the file. */
    int (*read_at)(void *context, struct vfs_file *file, uint64_t offset, uint8_t *data, size_t size,
                   size_t *count);
    int (*sync)(void *context, struct vfs_file *file); /* fdatasync: data and size durable */
    int (*truncate)(void *context, struct vfs_file *file, uint64_t size);
    int (*size)(void *context, struct vfs_file *file, uint64_t *size);
    int (*rename)(void *context, const char *from, const char *to);
    int (*remove)(void *context, const char *path);           /* a file */
    int (*remove_tree)(void *context, const char *path);      /* a directory and all in it; absent is OK */
    int (*make_dir)(void *context, const char *path);         /* parents must exist; existing is OK */
    int (*sync_dir)(void *context, const char *path);
    /* Calls `each(each_context, name)` for every entry but . and .. in byte order of names. */
    int (*list)(void *context, const char *path, void (*each)(void *each_context, const char *name),
                void *each_context);
    int (*exists)(void *context, const char *path, bool *out);
    /* Takes an exclusive lock on `path` (created) for the life of the process: ERR_BUSY when another holds it. */
    int (*lock)(void *context, const char *path);
    int (*free_bytes)(void *context, const char *path, uint64_t *out);
};

const struct vfs *vfs_system(void); /* the real one; static storage */

/* Helpers over any vfs. */
int vfs_path(char out[VFS_PATH_BYTES_MAX], const char *dir, const char *name) MUST_USE; /* TOO_LARGE */
/* The file's bytes replace what `out` held; TOO_LARGE above size_max. On an error `out` is empty. */
int vfs_read_all(const struct vfs *vfs, const char *path, size_t size_max, struct buf *out) MUST_USE;
/* Whole file, durable and atomic: `name`.tmp, sync, rename, directory sync. One writer of a name at a time. */
int vfs_write_atomic(const struct vfs *vfs, const char *dir, const char *name,
                     struct bytes bytes) MUST_USE;
/* Makes `path` and every missing parent, each durable by syncing the directory above it. */
int vfs_make_dirs(const struct vfs *vfs, const char *path) MUST_USE;

#endif

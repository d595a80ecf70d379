/* The real file system.
 *
 * Thread: any thread that may block; a vfs_file belongs to one at a time. No state of its own
 * besides what the kernel keeps; the descriptor of a lock is kept open on purpose until the process
 * ends.
 *
 * Errors: ENOENT, EEXIST and lack of space are expected and have their own rows; everything else is
 * ERR_IO and logged here, where errno and the path are known. A failed sync or close is ERR_IO
 * whatever errno says: after it nobody knows what is on the disk, so it must not look like a
 * refused write that can be tried again. */
#include "base/vfs.h"

#include "base/assert.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FILE_MODE              0640
#define DIRECTORY_MODE         0750
#define REMOVE_DESCRIPTORS_MAX 16

struct vfs_file {
    int descriptor;
    char path[]; /* for messages */
};

static void report(const char *operation, const char *path, int number)
{
    const char *name = strerrorname_np(number);
    log_event(LOG_ERROR, "vfs.failed", "operation=%s path=%s errno=%d name=%s", operation, path,
              number, name == NULL ? "?" : name);
}

/* errno as an error of the table. */
static int error_of(const char *operation, const char *path, int number)
{
    switch (number) {
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ENOSPC:
    case EDQUOT:
        report(operation, path, number);
        return ERR_NO_SPACE;
    default:
        report(operation, path, number);
        return ERR_IO;
    }
}

/* For calls after whose failure the state of the disk is not known. */
static int error_final(const char *operation, const char *path, int number)
{
    report(operation, path, number);
    return ERR_IO;
}

/* --- Files --- */

static int open_retrying(const char *path, int flags)
{
    int descriptor;
    do {
        descriptor = open(path, flags | O_CLOEXEC, FILE_MODE);
    } while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

static int system_open(void *context, const char *path, unsigned flags, struct vfs_file **out)
{
    (void)context;
    ASSERT((flags & (VFS_READ | VFS_WRITE)) != 0);
    ASSERT((flags & VFS_EXCLUSIVE) == 0 || (flags & VFS_CREATE) != 0);
    ASSERT((flags & VFS_TRUNCATE) == 0 || (flags & VFS_WRITE) != 0);

    int system_flags = O_RDONLY;
    if ((flags & VFS_WRITE) != 0) {
        system_flags = (flags & VFS_READ) != 0 ? O_RDWR : O_WRONLY;
    }
    system_flags |= (flags & VFS_CREATE) != 0 ? O_CREAT : 0;
    system_flags |= (flags & VFS_EXCLUSIVE) != 0 ? O_EXCL : 0;
    system_flags |= (flags & VFS_TRUNCATE) != 0 ? O_TRUNC : 0;

    int descriptor = open_retrying(path, system_flags);
    if (descriptor < 0) {
        return error_of("open", path, errno);
    }
    size_t path_size = strlen(path) + 1;
    struct vfs_file *file = mem_alloc(sizeof(*file) + path_size);
    file->descriptor = descriptor;
    memcpy(file->path, path, path_size);
    *out = file;
    return ERR_OK;
}

static int system_close(void *context, struct vfs_file *file)
{
    (void)context;
    int error = ERR_OK;
    /* Never retried: on Linux the descriptor is gone even after EINTR, and its number may be
     * another's by now. */
    if (close(file->descriptor) != 0 && errno != EINTR) {
        error = error_final("close", file->path, errno);
    }
    free(file);
    return error;
}

static int system_write_at(void *context, struct vfs_file *file, uint64_t offset,
                           struct bytes bytes)
{
    (void)context;
    size_t done = 0;
    while (done < bytes.size) {
        ssize_t count =
            pwrite(file->descriptor, bytes.data + done, bytes.size - done, (off_t)(offset + done));
        if (count < 0) {
            if (errno == EINTR) {
                continue;
            }
            return error_of("write", file->path, errno);
        }
        if (count == 0) { /* no progress and no errno: the next try would say the same for ever */
            return error_final("write", file->path, EIO);
        }
        done += (size_t)count;
    }
    return ERR_OK;
}

static int system_read_at(void *context, struct vfs_file *file, uint64_t offset, uint8_t *data,
                          size_t size, size_t *count)
{
    (void)context;
    size_t done = 0;
    *count = 0;
    while (done < size) {
        ssize_t got = pread(file->descriptor, data + done, size - done, (off_t)(offset + done));
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            return error_of("read", file->path, errno);
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    *count = done;
    return ERR_OK;
}

static int system_sync(void *context, struct vfs_file *file)
{
    (void)context;
    if (fdatasync(file->descriptor) != 0) {
        return error_final("sync", file->path, errno);
    }
    return ERR_OK;
}

static int system_truncate(void *context, struct vfs_file *file, uint64_t size)
{
    (void)context;
    int failed;
    do {
        failed = ftruncate(file->descriptor, (off_t)size);
    } while (failed != 0 && errno == EINTR);
    return failed != 0 ? error_of("truncate", file->path, errno) : ERR_OK;
}

static int system_size(void *context, struct vfs_file *file, uint64_t *size)
{
    (void)context;
    struct stat status;
    if (fstat(file->descriptor, &status) != 0) {
        return error_of("size", file->path, errno);
    }
    *size = (uint64_t)status.st_size;
    return ERR_OK;
}

/* --- Names --- */

static int system_rename(void *context, const char *from, const char *to)
{
    (void)context;
    return rename(from, to) != 0 ? error_of("rename", from, errno) : ERR_OK;
}

static int system_remove(void *context, const char *path)
{
    (void)context;
    return unlink(path) != 0 ? error_of("remove", path, errno) : ERR_OK;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path) != 0 && errno != ENOENT ? -1 : 0;
}

static int system_remove_tree(void *context, const char *path)
{
    (void)context;
    /* Children before parents, and links are removed, never followed. */
    if (nftw(path, remove_one, REMOVE_DESCRIPTORS_MAX, FTW_DEPTH | FTW_PHYS) != 0) {
        return errno == ENOENT ? ERR_OK : error_of("remove_tree", path, errno);
    }
    return ERR_OK;
}

static int system_make_dir(void *context, const char *path)
{
    (void)context;
    if (mkdir(path, DIRECTORY_MODE) == 0) {
        return ERR_OK;
    }
    int number = errno;
    struct stat status;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
        return ERR_OK;
    }
    return error_of("make_dir", path, number);
}

static int system_sync_dir(void *context, const char *path)
{
    (void)context;
    int descriptor = open_retrying(path, O_RDONLY | O_DIRECTORY);
    if (descriptor < 0) {
        return error_of("sync_dir", path, errno);
    }
    int error = ERR_OK;
    if (fsync(descriptor) != 0) {
        error = error_final("sync_dir", path, errno);
    }
    close(descriptor); /* read-only: there is nothing that a close could lose */
    return error;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct name_list {
    char **names;
    size_t count;
    size_t capacity;
};

static void names_add(struct name_list *list, const char *name)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        list->names = mem_realloc(list->names, list->capacity * sizeof(list->names[0]));
    }
    list->names[list->count++] = mem_strdup(name);
}

static int system_list(void *context, const char *path,
                       void (*each)(void *each_context, const char *name), void *each_context)
{
    (void)context;
    DIR *directory = opendir(path);
    if (directory == NULL) {
        return error_of("list", path, errno);
    }
    struct name_list list = {NULL, 0, 0};
    int error = ERR_OK;
    for (;;) {
        errno = 0; /* readdir() tells the end from an error by errno alone */
        const struct dirent *entry = readdir(directory);
        if (entry == NULL) {
            if (errno != 0) {
                error = error_of("list", path, errno);
            }
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            names_add(&list, entry->d_name);
        }
    }
    closedir(directory);
    if (list.count > 0) {
        qsort(list.names, list.count, sizeof(list.names[0]), compare_names);
    }
    /* Called after the directory is closed, so that `each` may remove what it is told of. */
    for (size_t i = 0; i < list.count; i++) {
        if (error == ERR_OK) {
            each(each_context, list.names[i]);
        }
        free(list.names[i]);
    }
    free(list.names);
    return error;
}

static int system_exists(void *context, const char *path, bool *out)
{
    (void)context;
    struct stat status;
    *out = stat(path, &status) == 0;
    if (!*out && errno != ENOENT && errno != ENOTDIR) {
        return error_of("exists", path, errno);
    }
    return ERR_OK;
}

static int system_lock(void *context, const char *path)
{
    (void)context;
    int descriptor = open_retrying(path, O_RDWR | O_CREAT);
    if (descriptor < 0) {
        return error_of("lock", path, errno);
    }
    /* A lock of the open file description: it also keeps out a second user in this process, and
     * closing another descriptor of the same file does not give it up, as a POSIX record lock
     * would. */
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    if (fcntl(descriptor, F_OFD_SETLK, &whole) != 0) {
        int number = errno;
        close(descriptor);
        if (number == EAGAIN || number == EACCES) {
            return ERR_BUSY;
        }
        return error_of("lock", path, number);
    }
    return ERR_OK; /* the descriptor stays open for the life of the process: it is the lock */
}

static int system_free_bytes(void *context, const char *path, uint64_t *out)
{
    (void)context;
    struct statvfs status;
    if (statvfs(path, &status) != 0) {
        return error_of("free_bytes", path, errno);
    }
    *out = (uint64_t)status.f_bavail * (uint64_t)status.f_frsize;
    return ERR_OK;
}

const struct vfs *vfs_system(void)
{
    static const struct vfs vfs = {
        .context = NULL,
        .open = system_open,
        .close = system_close,
        .write_at = system_write_at,
        .read_at = system_read_at,
        .sync = system_sync,
        .truncate = system_truncate,
        .size = system_size,
        .rename = system_rename,
        .remove = system_remove,
        .remove_tree = system_remove_tree,
        .make_dir = system_make_dir,
        .sync_dir = system_sync_dir,
        .list = system_list,
        .exists = system_exists,
        .lock = system_lock,
        .free_bytes = system_free_bytes,
    };
    return &vfs;
}

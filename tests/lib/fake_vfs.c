/* The vtable of the fake disk: paths, handles, faults, halting. What is lost when stands in
 * fake_vfs_node.c.
 *
 * Every call: fake_begin counts it and decides its fate (go, fail, lie, halted) without changing
 * anything, then the call locks again and does it. The crash-point hook runs in between, without
 * the lock. */
#include "lib/fake_vfs.h"

#include "base/assert.h"
#include "lib/fake_vfs_node.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

const char *fake_op_name(enum fake_op op)
{
    static const char *const names[FAKE_OP_COUNT] = {
        "open", "read", "write", "sync", "truncate", "create", "rename", "remove", "sync_dir"};
    ASSERT(op < FAKE_OP_COUNT);
    return names[op];
}

struct fake_vfs *fake__lock(void *context)
{
    struct fake_vfs *fake = context;
    pthread_mutex_lock(&fake->lock);
    return fake;
}

void fake__unlock(struct fake_vfs *fake)
{
    pthread_mutex_unlock(&fake->lock);
}

/* ---- fate ---- */

struct fake_fate {
    int error;    /* ERR_OK: do it */
    bool partial; /* with error: some of it may happen */
    bool lie;     /* say OK, let it not reach the disk */
};

static bool fake_op_is_step(enum fake_op op)
{
    return op != FAKE_OPEN && op != FAKE_READ;
}

/* Under the lock. */
static struct fake_fate fake_fate_decide(struct fake_vfs *fake, enum fake_op op)
{
    struct fake_fate fate = {ERR_OK, false, false};
    fake->counts[op]++;
    if (fake->halted) {
        return (struct fake_fate){.error = ERR_IO};
    }
    if (fake_op_is_step(op)) {
        fake->step_count++;
        if (fake->halt_countdown > 0 && --fake->halt_countdown == 0) {
            fake->halted = true;
            return (struct fake_fate){.error = ERR_IO};
        }
    }
    struct fake_fault *fault = &fake->faults[op];
    if (fault->countdown > 0 && --fault->countdown == 0) {
        fake->fault_count++;
        fate.lie = fault->lie;
        fate.error = fault->lie ? ERR_OK : fault->error;
        fate.partial = !fault->lie;
    }
    return fate;
}

static struct fake_fate fake_begin(void *context, enum fake_op op, const char *path)
{
    struct fake_vfs *fake = fake__lock(context);
    struct fake_fate fate = fake_fate_decide(fake, op);
    fake_crash_point_fn point = fake_op_is_step(op) && !fake->halted ? fake->point : NULL;
    void *point_context = fake->point_context;
    uint64_t step = fake->step_count;
    fake__unlock(fake);
    if (point != NULL && point(point_context, op, path, step)) {
        fake_vfs_halt(fake);
        fate = (struct fake_fate){.error = ERR_IO};
    }
    return fate;
}

/* ---- paths ---- */

/* The next component of *path to `name`; false at the end. */
static bool fake_path_next(const char **path, char name[VFS_PATH_BYTES_MAX])
{
    const char *at = *path;
    for (;;) {
        at += strspn(at, "/");
        size_t length = strcspn(at, "/");
        if (length == 0) {
            *path = at;
            return false;
        }
        ASSERT_CMP(length, <, VFS_PATH_BYTES_MAX);
        memcpy(name, at, length);
        name[length] = '\0';
        at += length;
        if (strcmp(name, ".") != 0) {
            *path = at;
            return true;
        }
    }
}

struct fake_node *fake__find(struct fake_vfs *fake, const char *path)
{
    struct fake_node *node = fake->root;
    char name[VFS_PATH_BYTES_MAX];
    while (node != NULL && fake_path_next(&path, name)) {
        node = node->is_dir ? fake_dir_find(node, name) : NULL;
    }
    return node;
}

/* The directory that holds (or would hold) the last component, which goes to `name`; NULL when
 * there is none. */
static struct fake_node *fake_find_parent(struct fake_vfs *fake, const char *path,
                                          char name[VFS_PATH_BYTES_MAX])
{
    struct fake_node *dir = fake->root;
    char next[VFS_PATH_BYTES_MAX];
    if (!fake_path_next(&path, name)) {
        return NULL;
    }
    while (fake_path_next(&path, next)) {
        dir = fake_dir_find(dir, name);
        if (dir == NULL || !dir->is_dir) {
            return NULL;
        }
        memcpy(name, next, sizeof(next));
    }
    return dir;
}

uint64_t fake__tree_bytes(const struct fake_node *node)
{
    uint64_t bytes = node->current.size;
    for (size_t i = 0; i < node->entry_count; i++) {
        bytes += fake__tree_bytes(node->entries[i].node);
    }
    return bytes;
}

/* How many bytes files may still grow by. */
static uint64_t fake_space_left(struct fake_vfs *fake)
{
    if (fake->space_bytes == UINT64_MAX) {
        return UINT64_MAX;
    }
    uint64_t used = fake__tree_bytes(fake->root);
    return used < fake->space_bytes ? fake->space_bytes - used : 0;
}

/* ---- files ---- */

static int fake_open_node(struct fake_vfs *fake, const char *path, unsigned flags, bool may_create,
                          struct fake_node **out)
{
    char name[VFS_PATH_BYTES_MAX];
    struct fake_node *dir = fake_find_parent(fake, path, name);
    struct fake_node *node = dir == NULL ? NULL : fake_dir_find(dir, name);
    *out = node;
    if (dir == NULL || (node == NULL && (flags & VFS_CREATE) == 0)) {
        return ERR_NOT_FOUND;
    }
    if (node != NULL) {
        if (node->is_dir) {
            return ERR_IO;
        }
        return (flags & VFS_CREATE) != 0 && (flags & VFS_EXCLUSIVE) != 0 ? ERR_EXISTS : ERR_OK;
    }
    if (may_create) {
        node = fake_node_create(false);
        fake_journal_link(&fake->journal, dir, name, node);
        fake_node_unref(node);
        *out = node;
    }
    return ERR_OK;
}

static int fake_open(void *context, const char *path, unsigned flags, struct vfs_file **out)
{
    struct fake_vfs *fake = fake__lock(context);
    struct fake_node *node;
    int error = fake_open_node(fake, path, flags, false, &node);
    fake__unlock(fake);
    bool creates = error == ERR_OK && node == NULL;
    bool truncates = error == ERR_OK && node != NULL && (flags & VFS_TRUNCATE) != 0;
    struct fake_fate fate = fake_begin(context,
                                       creates     ? FAKE_CREATE
                                       : truncates ? FAKE_TRUNCATE
                                                   : FAKE_OPEN,
                                       path);
    if (error != ERR_OK || fate.error != ERR_OK) {
        return fate.error != ERR_OK ? fate.error : error;
    }
    fake__lock(fake);
    error = fake_open_node(fake, path, flags, true, &node);
    if (error == ERR_OK) {
        if (truncates) {
            fake_file_truncate(node, 0);
        }
        struct vfs_file *file = mem_calloc(1, sizeof(*file));
        file->node = fake_node_ref(node);
        file->path = mem_strdup(path);
        file->flags = flags;
        file->generation = fake->generation;
        file->next = fake->handles;
        file->link = &fake->handles;
        if (file->next != NULL) {
            file->next->link = &file->next;
        }
        fake->handles = file;
        *out = file;
    }
    fake__unlock(fake);
    return error;
}

static void fake_handle_free(struct vfs_file *file)
{
    *file->link = file->next;
    if (file->next != NULL) {
        file->next->link = file->link;
    }
    fake_node_unref(file->node);
    free(file->path);
    free(file);
}

static int fake_close(void *context, struct vfs_file *file)
{
    struct fake_vfs *fake = fake__lock(context);
    fake_handle_free(file);
    fake__unlock(fake);
    return ERR_OK;
}

/* Under the lock. */
static bool fake_handle_dead(const struct fake_vfs *fake, const struct vfs_file *file)
{
    return file->generation != fake->generation || fake->halted;
}

static int fake_write_at(void *context, struct vfs_file *file, uint64_t offset, struct bytes bytes)
{
    struct fake_fate fate = fake_begin(context, FAKE_WRITE, file->path);
    struct fake_vfs *fake = fake__lock(context);
    int error = fate.error;
    ASSERT((file->flags & VFS_WRITE) != 0);
    if (fake_handle_dead(fake, file)) {
        error = ERR_IO;
        goto unlock;
    }
    uint64_t end = offset + bytes.size;
    uint64_t size = file->node->current.size;
    if (error == ERR_OK && end > size && end - size > fake_space_left(fake)) {
        error = ERR_NO_SPACE;
        uint64_t room = size + fake_space_left(fake);
        bytes.size = room > offset ? (size_t)(room - offset) : 0;
        fake_file_write(file->node, offset, bytes, true);
    } else if (error == ERR_OK) {
        fake_file_write(file->node, offset, bytes, !fate.lie);
    } else if (fate.partial && bytes.size > 0) {
        bytes.size = (size_t)rng_below(&fake->rng, bytes.size);
        fake_file_write(file->node, offset, bytes, true);
    }
unlock:
    fake__unlock(fake);
    return error;
}

static int fake_read_at(void *context, struct vfs_file *file, uint64_t offset, uint8_t *data,
                        size_t size, size_t *count)
{
    struct fake_fate fate = fake_begin(context, FAKE_READ, file->path);
    struct fake_vfs *fake = fake__lock(context);
    int error = fake_handle_dead(fake, file) ? ERR_IO : fate.error;
    *count = 0;
    if (error == ERR_OK && offset < file->node->current.size) {
        uint64_t left = file->node->current.size - offset;
        *count = left < size ? (size_t)left : size;
        memcpy(data, file->node->current.data + offset, *count);
    }
    fake__unlock(fake);
    return error;
}

static int fake_sync(void *context, struct vfs_file *file)
{
    struct fake_fate fate = fake_begin(context, FAKE_SYNC, file->path);
    struct fake_vfs *fake = fake__lock(context);
    int error = fake_handle_dead(fake, file) ? ERR_IO : fate.error;
    if (error == ERR_OK && !fate.lie) {
        fake_file_sync(file->node);
    } else if (fate.partial && !fake_handle_dead(fake, file)) {
        fake_file_sync_failed(file->node, &fake->rng);
    }
    fake__unlock(fake);
    return error;
}

static int fake_truncate(void *context, struct vfs_file *file, uint64_t size)
{
    struct fake_fate fate = fake_begin(context, FAKE_TRUNCATE, file->path);
    struct fake_vfs *fake = fake__lock(context);
    int error = fake_handle_dead(fake, file) ? ERR_IO : fate.error;
    uint64_t before = file->node->current.size;
    if (error == ERR_OK && size > before && size - before > fake_space_left(fake)) {
        error = ERR_NO_SPACE;
    }
    if (error == ERR_OK) {
        fake_file_truncate(file->node, size);
    }
    fake__unlock(fake);
    return error;
}

static int fake_size(void *context, struct vfs_file *file, uint64_t *size)
{
    struct fake_vfs *fake = fake__lock(context);
    int error = fake_handle_dead(fake, file) ? ERR_IO : ERR_OK;
    *size = file->node->current.size;
    fake__unlock(fake);
    return error;
}

/* ---- names ---- */

static int fake_rename(void *context, const char *from, const char *to)
{
    struct fake_fate fate = fake_begin(context, FAKE_RENAME, to);
    if (fate.error != ERR_OK) {
        return fate.error;
    }
    struct fake_vfs *fake = fake__lock(context);
    char from_name[VFS_PATH_BYTES_MAX];
    char to_name[VFS_PATH_BYTES_MAX];
    struct fake_node *from_dir = fake_find_parent(fake, from, from_name);
    struct fake_node *to_dir = fake_find_parent(fake, to, to_name);
    int error = ERR_OK;
    if (from_dir == NULL || to_dir == NULL || fake_dir_find(from_dir, from_name) == NULL) {
        error = ERR_NOT_FOUND;
        goto unlock;
    }
    struct fake_node *node = fake_dir_find(from_dir, from_name);
    struct fake_node *target = fake_dir_find(to_dir, to_name);
    if (node == target) {
        goto unlock;
    }
    if (target != NULL && (target->is_dir != node->is_dir || target->entry_count > 0)) {
        error =
            ERR_EXISTS; /* as rename(2) has it: a directory that is not empty, or another type */
        goto unlock;
    }
    fake_journal_rename(&fake->journal, from_dir, from_name, to_dir, to_name);
unlock:
    fake__unlock(fake);
    return error;
}

static int fake_remove(void *context, const char *path)
{
    struct fake_fate fate = fake_begin(context, FAKE_REMOVE, path);
    if (fate.error != ERR_OK) {
        return fate.error;
    }
    struct fake_vfs *fake = fake__lock(context);
    char name[VFS_PATH_BYTES_MAX];
    struct fake_node *dir = fake_find_parent(fake, path, name);
    struct fake_node *node = dir == NULL ? NULL : fake_dir_find(dir, name);
    int error = ERR_OK;
    if (node == NULL) {
        error = ERR_NOT_FOUND;
    } else if (node->is_dir) {
        error = ERR_IO;
    } else {
        fake_journal_unlink(&fake->journal, dir, name);
    }
    fake__unlock(fake);
    return error;
}

static void fake_remove_below(struct fake_vfs *fake, struct fake_node *dir)
{
    while (dir->entry_count > 0) {
        struct fake_entry *last = &dir->entries[dir->entry_count - 1];
        if (last->node->is_dir) {
            fake_remove_below(fake, last->node);
        }
        char *name = mem_strdup(last->name);
        fake_journal_unlink(&fake->journal, dir, name);
        free(name);
    }
}

static int fake_remove_tree(void *context, const char *path)
{
    struct fake_fate fate = fake_begin(context, FAKE_REMOVE, path);
    if (fate.error != ERR_OK) {
        return fate.error;
    }
    struct fake_vfs *fake = fake__lock(context);
    char name[VFS_PATH_BYTES_MAX];
    struct fake_node *dir = fake_find_parent(fake, path, name);
    struct fake_node *node = dir == NULL ? NULL : fake_dir_find(dir, name);
    if (node != NULL) {
        if (node->is_dir) {
            fake_remove_below(fake, node);
        }
        fake_journal_unlink(&fake->journal, dir, name);
    }
    fake__unlock(fake);
    return ERR_OK;
}

static int fake_make_dir(void *context, const char *path)
{
    struct fake_fate fate = fake_begin(context, FAKE_CREATE, path);
    if (fate.error != ERR_OK) {
        return fate.error;
    }
    struct fake_vfs *fake = fake__lock(context);
    char name[VFS_PATH_BYTES_MAX];
    struct fake_node *existing = fake__find(fake, path);
    struct fake_node *dir = fake_find_parent(fake, path, name);
    int error = ERR_OK;
    if (existing != NULL) {
        error = existing->is_dir ? ERR_OK : ERR_EXISTS;
    } else if (dir == NULL) {
        error = ERR_NOT_FOUND;
    } else {
        struct fake_node *node = fake_node_create(true);
        fake_journal_link(&fake->journal, dir, name, node);
        fake_node_unref(node);
    }
    fake__unlock(fake);
    return error;
}

static int fake_sync_dir(void *context, const char *path)
{
    struct fake_fate fate = fake_begin(context, FAKE_SYNC_DIR, path);
    if (fate.error != ERR_OK) {
        return fate.error;
    }
    struct fake_vfs *fake = fake__lock(context);
    struct fake_node *dir = fake__find(fake, path);
    int error = dir != NULL && dir->is_dir ? ERR_OK : ERR_NOT_FOUND;
    if (error == ERR_OK && !fate.lie) {
        fake_journal_sync(&fake->journal, dir);
    }
    fake__unlock(fake);
    return error;
}

static int fake_list(void *context, const char *path,
                     void (*each)(void *each_context, const char *name), void *each_context)
{
    struct fake_vfs *fake = fake__lock(context);
    struct fake_node *dir = fake__find(fake, path);
    int error = fake->halted ? ERR_IO : dir != NULL && dir->is_dir ? ERR_OK : ERR_NOT_FOUND;
    size_t count = error == ERR_OK ? dir->entry_count : 0;
    char **names = mem_calloc(count + 1, sizeof(*names));
    for (size_t i = 0; i < count; i++) {
        names[i] = mem_strdup(dir->entries[i].name);
    }
    fake__unlock(fake);
    for (size_t i = 0; i < count; i++) {
        each(each_context, names[i]);
        free(names[i]);
    }
    free(names);
    return error;
}

static int fake_exists(void *context, const char *path, bool *out)
{
    struct fake_vfs *fake = fake__lock(context);
    int error = fake->halted ? ERR_IO : ERR_OK;
    *out = fake__find(fake, path) != NULL;
    fake__unlock(fake);
    return error;
}

static int fake_lock_path(void *context, const char *path)
{
    struct vfs_file *file;
    int error = fake_open(context, path, VFS_WRITE | VFS_CREATE, &file);
    if (error != ERR_OK) {
        return error;
    }
    struct fake_vfs *fake = fake__lock(context);
    error = file->node->locked ? ERR_BUSY : ERR_OK;
    file->node->locked = true;
    fake__unlock(fake);
    (void)fake_close(context, file);
    return error;
}

static int fake_free_bytes(void *context, const char *path, uint64_t *out)
{
    (void)path;
    struct fake_vfs *fake = fake__lock(context);
    uint64_t left = fake_space_left(fake);
    *out = left == UINT64_MAX ? UINT64_MAX / 4 : left; /* so that sums of a few do not wrap */
    int error = fake->halted ? ERR_IO : ERR_OK;
    fake__unlock(fake);
    return error;
}

/* ---- life ---- */

static struct fake_vfs *fake_vfs_create_over(uint64_t seed, struct fake_node *root)
{
    struct fake_vfs *fake = mem_calloc(1, sizeof(*fake));
    fake->vfs = (struct vfs){
        .context = fake,
        .open = fake_open,
        .close = fake_close,
        .write_at = fake_write_at,
        .read_at = fake_read_at,
        .sync = fake_sync,
        .truncate = fake_truncate,
        .size = fake_size,
        .rename = fake_rename,
        .remove = fake_remove,
        .remove_tree = fake_remove_tree,
        .make_dir = fake_make_dir,
        .sync_dir = fake_sync_dir,
        .list = fake_list,
        .exists = fake_exists,
        .lock = fake_lock_path,
        .free_bytes = fake_free_bytes,
    };
    pthread_mutex_init(&fake->lock, NULL);
    rng_init(&fake->rng, seed);
    fake->root = root;
    fake->space_bytes = UINT64_MAX;
    return fake;
}

struct fake_vfs *fake_vfs_create(uint64_t seed)
{
    return fake_vfs_create_over(seed, fake_node_create(true));
}

struct fake_vfs *fake_vfs_clone(struct fake_vfs *fake)
{
    fake__lock(fake);
    struct fake_node *root = fake_node_clone(fake->root);
    uint64_t seed = fake->rng.state[0];
    fake__unlock(fake);
    return fake_vfs_create_over(seed, root);
}

void fake_vfs_destroy(struct fake_vfs *fake)
{
    if (fake == NULL) {
        return;
    }
    while (fake->handles != NULL) {
        fake_handle_free(fake->handles);
    }
    fake_journal_deinit(&fake->journal);
    fake_node_unref(fake->root);
    pthread_mutex_destroy(&fake->lock);
    free(fake);
}

const struct vfs *fake_vfs_vfs(struct fake_vfs *fake)
{
    return &fake->vfs;
}

static void fake_tree_crash(struct fake_node *node, enum fake_crash how, struct rng *rng)
{
    node->locked = false;
    if (!node->is_dir) {
        fake_file_crash(node, how, rng);
    }
    for (size_t i = 0; i < node->entry_count; i++) {
        fake_tree_crash(node->entries[i].node, how, rng);
    }
}

void fake_vfs_crash_as(struct fake_vfs *fake, enum fake_crash how, struct rng *rng)
{
    fake__lock(fake);
    rng = rng == NULL ? &fake->rng : rng;
    if (how == FAKE_CRASH_ANY) {
        how = (enum fake_crash)rng_between(rng, FAKE_CRASH_KEEP, FAKE_CRASH_PREFIX);
    }
    if (how != FAKE_CRASH_KEEP) {
        size_t names_kept =
            how == FAKE_CRASH_LOSE ? 0 : (size_t)rng_below(rng, (uint64_t)fake->journal.count + 1);
        fake_journal_crash(&fake->journal, names_kept);
    }
    fake_tree_crash(fake->root, how, rng);
    memset(fake->faults, 0, sizeof(fake->faults));
    fake->halt_countdown = 0;
    fake->halted = false;
    fake->generation++;
    fake__unlock(fake);
}

void fake_vfs_crash(struct fake_vfs *fake, struct rng *rng)
{
    fake_vfs_crash_as(fake, FAKE_CRASH_ANY, rng);
}

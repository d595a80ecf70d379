/* The fake disk's inside: files with their unsynced writes, directories with their unsynced names.
 * Single-threaded; the vtable in fake_vfs.c locks. */
#ifndef TESTS_LIB_FAKE_VFS_NODE_H
#define TESTS_LIB_FAKE_VFS_NODE_H

#include "lib/fake_vfs.h"

#include <pthread.h>

/* Bytes [size, capacity) are zero, so that growing is only a larger size. */
struct fake_image {
    uint8_t *data;
    uint64_t size;
    uint64_t capacity;
};

struct fake_pending {
    bool is_truncate;
    uint64_t offset; /* truncate: the new size */
    size_t size;     /* of data */
    uint8_t *data;
    uint64_t size_before;
    uint64_t size_after; /* of the file */
};

struct fake_node;

struct fake_entry {
    char *name;
    struct fake_node *node; /* counted */
};

struct fake_node {
    uint32_t ref_count;
    bool is_dir;
    bool locked;
    /* directory: by byte order of names */
    struct fake_entry *entries;
    size_t entry_count;
    size_t entry_capacity;
    /* file */
    struct fake_image current;
    struct fake_image durable;
    struct fake_pending *pending; /* what `current` has and `durable` has not, in order */
    size_t pending_count;
    size_t pending_capacity;
};

struct fake_node *fake_node_create(bool is_dir);
struct fake_node *fake_node_ref(struct fake_node *node);
void fake_node_unref(struct fake_node *node);
struct fake_node *fake_node_clone(const struct fake_node *node); /* all of it durable; deep */

struct fake_node *fake_dir_find(const struct fake_node *dir, const char *name); /* NULL: none */
void fake_dir_insert(struct fake_node *dir, const char *name, struct fake_node *node);
void fake_dir_erase(struct fake_node *dir, const char *name);

void fake_file_write(struct fake_node *file, uint64_t offset, struct bytes bytes,
                     bool reaches_disk);
void fake_file_truncate(struct fake_node *file, uint64_t size);
void fake_file_sync(struct fake_node *file);
void fake_file_sync_failed(struct fake_node *file, struct rng *rng);
void fake_file_crash(struct fake_node *file, enum fake_crash how, struct rng *rng);
void fake_file_poke(struct fake_node *file, uint64_t offset, struct bytes bytes);
void fake_file_cut(struct fake_node *file, uint64_t size);

/* A change of names that no sync_dir has made durable yet. */
struct fake_change {
    struct fake_node *from_dir; /* counted; NULL: nothing was taken away */
    char *from_name;
    struct fake_node *to_dir; /* counted; NULL: nothing was put */
    char *to_name;
    struct fake_node *node;     /* counted */
    struct fake_node *replaced; /* counted; what to_name named before, or NULL */
};

struct fake_journal {
    struct fake_change *changes;
    size_t count;
    size_t capacity;
};

/* Make the change and note it. Borrow everything. */
void fake_journal_link(struct fake_journal *journal, struct fake_node *dir, const char *name,
                       struct fake_node *node);
void fake_journal_unlink(struct fake_journal *journal, struct fake_node *dir, const char *name);
void fake_journal_rename(struct fake_journal *journal, struct fake_node *from_dir,
                         const char *from_name, struct fake_node *to_dir, const char *to_name);
void fake_journal_sync(struct fake_journal *journal, const struct fake_node *dir);
/* Takes back all but the first `kept`. */
void fake_journal_crash(struct fake_journal *journal, size_t kept);
void fake_journal_deinit(struct fake_journal *journal);

/* ---- the whole ---- */

struct vfs_file {
    struct fake_node *node; /* counted */
    char *path;             /* it was opened by */
    unsigned flags;
    uint64_t generation; /* of the power supply when it was opened */
    struct vfs_file *next;
    struct vfs_file **link;
};

struct fake_fault {
    uint64_t countdown; /* 0: none */
    bool lie;
    int error;
};

struct fake_vfs {
    struct vfs vfs;
    pthread_mutex_t lock; /* everything below */
    struct rng rng;
    struct fake_node *root;
    struct fake_journal journal;
    struct vfs_file *handles;
    uint64_t generation;
    bool halted;
    uint64_t halt_countdown; /* 0: none */
    struct fake_fault faults[FAKE_OP_COUNT];
    uint64_t counts[FAKE_OP_COUNT];
    uint64_t step_count;
    uint64_t fault_count;
    uint64_t space_bytes;
    fake_crash_point_fn point;
    void *point_context;
};

struct fake_vfs *fake__lock(void *context);
void fake__unlock(struct fake_vfs *fake);
/* Under the lock. NULL: there is none. */
struct fake_node *fake__find(struct fake_vfs *fake, const char *path);
uint64_t fake__tree_bytes(const struct fake_node *node);

#endif

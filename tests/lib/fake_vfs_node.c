/* Files and names of the fake disk; see fake_vfs.h for what a crash may do to them. */
#include "lib/fake_vfs_node.h"

#include "base/assert.h"

#include <stdlib.h>
#include <string.h>

/* ---- images ---- */

static void fake_image_resize(struct fake_image *image, uint64_t size)
{
    if (size > image->capacity) {
        uint64_t capacity = image->capacity == 0 ? 4096 : image->capacity;
        while (capacity < size) {
            capacity *= 2;
        }
        image->data = mem_realloc(image->data, (size_t)capacity);
        memset(image->data + image->capacity, 0, (size_t)(capacity - image->capacity));
        image->capacity = capacity;
    }
    if (size < image->size) {
        memset(image->data + size, 0, (size_t)(image->size - size));
    }
    image->size = size;
}

static void fake_image_copy(struct fake_image *to, const struct fake_image *from)
{
    fake_image_resize(to, 0);
    fake_image_resize(to, from->size);
    if (from->size > 0) {
        memcpy(to->data, from->data, (size_t)from->size);
    }
}

/* The part of a pending change that lies in [low, high), without its change of size. */
static void fake_image_apply(struct fake_image *image, const struct fake_pending *pending,
                             uint64_t low, uint64_t high)
{
    uint64_t from = pending->offset;
    uint64_t to = pending->is_truncate ? pending->size_before : pending->offset + pending->size;
    from = from > low ? from : low;
    to = to < high ? to : high;
    if (from >= to) {
        return;
    }
    if (to > image->size) {
        fake_image_resize(image, to);
    }
    if (pending->is_truncate) {
        memset(image->data + from, 0, (size_t)(to - from));
    } else {
        memcpy(image->data + from, pending->data + (from - pending->offset), (size_t)(to - from));
    }
}

/* ---- nodes ---- */

struct fake_node *fake_node_create(bool is_dir)
{
    struct fake_node *node = mem_calloc(1, sizeof(*node));
    node->ref_count = 1;
    node->is_dir = is_dir;
    return node;
}

struct fake_node *fake_node_ref(struct fake_node *node)
{
    if (node != NULL) {
        node->ref_count++;
    }
    return node;
}

static void fake_file_forget_pending(struct fake_node *file)
{
    for (size_t i = 0; i < file->pending_count; i++) {
        free(file->pending[i].data);
    }
    file->pending_count = 0;
}

void fake_node_unref(struct fake_node *node)
{
    if (node == NULL || --node->ref_count > 0) {
        return;
    }
    for (size_t i = 0; i < node->entry_count; i++) {
        fake_node_unref(node->entries[i].node);
        free(node->entries[i].name);
    }
    fake_file_forget_pending(node);
    free(node->entries);
    free(node->pending);
    free(node->current.data);
    free(node->durable.data);
    free(node);
}

struct fake_node *fake_node_clone(const struct fake_node *node)
{
    struct fake_node *clone = fake_node_create(node->is_dir);
    fake_image_copy(&clone->current, &node->current);
    fake_image_copy(&clone->durable, &node->current);
    for (size_t i = 0; i < node->entry_count; i++) {
        struct fake_node *child = fake_node_clone(node->entries[i].node);
        fake_dir_insert(clone, node->entries[i].name, child);
        fake_node_unref(child);
    }
    return clone;
}

/* Where `name` is, or where it would go. */
static size_t fake_dir_place(const struct fake_node *dir, const char *name, bool *found)
{
    size_t low = 0;
    size_t high = dir->entry_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(dir->entries[middle].name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *found = low < dir->entry_count && strcmp(dir->entries[low].name, name) == 0;
    return low;
}

struct fake_node *fake_dir_find(const struct fake_node *dir, const char *name)
{
    bool found;
    size_t place = fake_dir_place(dir, name, &found);
    return found ? dir->entries[place].node : NULL;
}

void fake_dir_insert(struct fake_node *dir, const char *name, struct fake_node *node)
{
    bool found;
    size_t place = fake_dir_place(dir, name, &found);
    ASSERT(dir->is_dir && !found);
    if (dir->entry_count == dir->entry_capacity) {
        dir->entry_capacity = dir->entry_capacity == 0 ? 8 : 2 * dir->entry_capacity;
        dir->entries = mem_realloc(dir->entries, dir->entry_capacity * sizeof(dir->entries[0]));
    }
    memmove(&dir->entries[place + 1], &dir->entries[place],
            (dir->entry_count - place) * sizeof(dir->entries[0]));
    dir->entries[place] = (struct fake_entry){mem_strdup(name), fake_node_ref(node)};
    dir->entry_count++;
}

void fake_dir_erase(struct fake_node *dir, const char *name)
{
    bool found;
    size_t place = fake_dir_place(dir, name, &found);
    ASSERT(found);
    struct fake_entry entry = dir->entries[place];
    dir->entry_count--;
    memmove(&dir->entries[place], &dir->entries[place + 1],
            (dir->entry_count - place) * sizeof(dir->entries[0]));
    fake_node_unref(entry.node);
    free(entry.name);
}

/* ---- files ---- */

static void fake_file_push(struct fake_node *file, struct fake_pending pending)
{
    if (file->pending_count == file->pending_capacity) {
        file->pending_capacity = file->pending_capacity == 0 ? 8 : 2 * file->pending_capacity;
        file->pending =
            mem_realloc(file->pending, file->pending_capacity * sizeof(file->pending[0]));
    }
    file->pending[file->pending_count++] = pending;
}

void fake_file_write(struct fake_node *file, uint64_t offset, struct bytes bytes, bool reaches_disk)
{
    if (bytes.size == 0) {
        return;
    }
    uint64_t size_before = file->current.size;
    uint64_t size_after = offset + bytes.size > size_before ? offset + bytes.size : size_before;
    fake_image_resize(&file->current, size_after);
    memcpy(file->current.data + offset, bytes.data, bytes.size);
    if (reaches_disk) {
        fake_file_push(file, (struct fake_pending){
                                 .offset = offset,
                                 .size = bytes.size,
                                 .data = mem_dup(bytes.data, bytes.size),
                                 .size_before = size_before,
                                 .size_after = size_after,
                             });
    }
}

void fake_file_truncate(struct fake_node *file, uint64_t size)
{
    fake_file_push(file, (struct fake_pending){
                             .is_truncate = true,
                             .offset = size,
                             .size_before = file->current.size,
                             .size_after = size,
                         });
    fake_image_resize(&file->current, size);
}

static void fake_file_apply_all(struct fake_node *file, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fake_image_apply(&file->durable, &file->pending[i], 0, UINT64_MAX);
        fake_image_resize(&file->durable, file->pending[i].size_after);
    }
}

void fake_file_sync(struct fake_node *file)
{
    fake_file_apply_all(file, file->pending_count);
    fake_file_forget_pending(file);
}

static uint64_t fake_pending_end(const struct fake_pending *pending)
{
    return pending->is_truncate ? pending->size_before : pending->offset + pending->size;
}

/* Each sector as a prefix of the pending changes [first, ...) to it left it, the prefix drawn anew
 * for each. */
static void fake_file_tear(struct fake_node *file, size_t first, size_t end, struct rng *rng)
{
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    for (size_t i = first; i < end; i++) {
        uint64_t pending_end = fake_pending_end(&file->pending[i]);
        low = file->pending[i].offset < low ? file->pending[i].offset : low;
        high = pending_end > high ? pending_end : high;
    }
    for (uint64_t at = low / FAKE_SECTOR_BYTES * FAKE_SECTOR_BYTES; at < high;
         at += FAKE_SECTOR_BYTES) {
        uint64_t sector_end = at + FAKE_SECTOR_BYTES;
        uint64_t touching = 0;
        for (size_t i = first; i < end; i++) {
            touching +=
                file->pending[i].offset < sector_end && fake_pending_end(&file->pending[i]) > at;
        }
        uint64_t kept = touching == 0 ? 0 : rng_below(rng, touching + 1);
        for (size_t i = first; i < end && kept > 0; i++) {
            if (file->pending[i].offset < sector_end && fake_pending_end(&file->pending[i]) > at) {
                fake_image_apply(&file->durable, &file->pending[i], at, sector_end);
                kept--;
            }
        }
    }
}

static void fake_file_tear_all(struct fake_node *file, struct rng *rng)
{
    if (file->pending_count == 0) {
        return;
    }
    uint64_t sizes_kept = rng_below(rng, file->pending_count + 1);
    uint64_t size = sizes_kept == 0 ? file->durable.size : file->pending[sizes_kept - 1].size_after;
    fake_file_tear(file, 0, file->pending_count, rng);
    fake_image_resize(&file->durable, size);
}

void fake_file_sync_failed(struct fake_node *file, struct rng *rng)
{
    fake_file_tear_all(file, rng);
    fake_file_forget_pending(file);
}

static void fake_file_tear_prefix(struct fake_node *file, struct rng *rng)
{
    if (file->pending_count == 0) {
        return;
    }
    size_t whole = (size_t)rng_below(rng, file->pending_count + 1);
    fake_file_apply_all(file, whole);
    if (whole == file->pending_count) {
        return;
    }
    uint64_t size = rng_chance(rng, 1, 2) ? file->pending[whole].size_after : file->durable.size;
    fake_file_tear(file, whole, whole + 1, rng);
    fake_image_resize(&file->durable, size);
}

void fake_file_crash(struct fake_node *file, enum fake_crash how, struct rng *rng)
{
    switch (how) {
    case FAKE_CRASH_KEEP:
        return; /* the kernel still has it, and may yet lose it */
    case FAKE_CRASH_LOSE:
        break;
    case FAKE_CRASH_TEAR:
        fake_file_tear_all(file, rng);
        break;
    case FAKE_CRASH_PREFIX:
        fake_file_tear_prefix(file, rng);
        break;
    case FAKE_CRASH_ANY:
        UNREACHABLE();
    }
    fake_file_forget_pending(file);
    fake_image_copy(&file->current, &file->durable);
}

void fake_file_poke(struct fake_node *file, uint64_t offset, struct bytes bytes)
{
    ASSERT_CMP(offset + bytes.size, <=, file->current.size);
    fake_file_sync(file);
    memcpy(file->current.data + offset, bytes.data, bytes.size);
    if (offset + bytes.size > file->durable.size) {
        fake_image_resize(&file->durable, offset + bytes.size);
    }
    memcpy(file->durable.data + offset, bytes.data, bytes.size);
}

void fake_file_cut(struct fake_node *file, uint64_t size)
{
    fake_file_sync(file);
    fake_image_resize(&file->current, size);
    fake_image_resize(&file->durable, size);
}

/* ---- names ---- */

static void fake_journal_push(struct fake_journal *journal, struct fake_change change)
{
    if (journal->count == journal->capacity) {
        journal->capacity = journal->capacity == 0 ? 16 : 2 * journal->capacity;
        journal->changes =
            mem_realloc(journal->changes, journal->capacity * sizeof(journal->changes[0]));
    }
    journal->changes[journal->count++] = change;
}

static void fake_change_deinit(struct fake_change *change)
{
    fake_node_unref(change->from_dir);
    fake_node_unref(change->to_dir);
    fake_node_unref(change->node);
    fake_node_unref(change->replaced);
    free(change->from_name);
    free(change->to_name);
}

void fake_journal_link(struct fake_journal *journal, struct fake_node *dir, const char *name,
                       struct fake_node *node)
{
    fake_dir_insert(dir, name, node);
    fake_journal_push(journal, (struct fake_change){
                                   .to_dir = fake_node_ref(dir),
                                   .to_name = mem_strdup(name),
                                   .node = fake_node_ref(node),
                               });
}

void fake_journal_unlink(struct fake_journal *journal, struct fake_node *dir, const char *name)
{
    fake_journal_push(journal, (struct fake_change){
                                   .from_dir = fake_node_ref(dir),
                                   .from_name = mem_strdup(name),
                                   .node = fake_node_ref(fake_dir_find(dir, name)),
                               });
    fake_dir_erase(dir, name);
}

void fake_journal_rename(struct fake_journal *journal, struct fake_node *from_dir,
                         const char *from_name, struct fake_node *to_dir, const char *to_name)
{
    struct fake_change change = {
        .from_dir = fake_node_ref(from_dir),
        .from_name = mem_strdup(from_name),
        .to_dir = fake_node_ref(to_dir),
        .to_name = mem_strdup(to_name),
        .node = fake_node_ref(fake_dir_find(from_dir, from_name)),
        .replaced = fake_node_ref(fake_dir_find(to_dir, to_name)),
    };
    if (change.replaced != NULL) {
        fake_dir_erase(to_dir, to_name);
    }
    fake_dir_erase(from_dir, from_name);
    fake_dir_insert(to_dir, to_name, change.node);
    fake_journal_push(journal, change);
}

static bool fake_change_touches(const struct fake_change *change, const struct fake_node *dir)
{
    return dir != NULL && (change->from_dir == dir || change->to_dir == dir);
}

/* A rename between two directories is one change: making it durable through one of them makes
 * durable what came before it in the other. So from the newest back: a change is durable when it
 * touches a directory that is wanted, and then its directories are wanted too. */
void fake_journal_sync(struct fake_journal *journal, const struct fake_node *dir)
{
    if (journal->count == 0) {
        return;
    }
    bool *durable = mem_calloc(journal->count, sizeof(*durable));
    for (size_t i = journal->count; i-- > 0;) {
        const struct fake_change *change = &journal->changes[i];
        durable[i] = fake_change_touches(change, dir);
        for (size_t j = i + 1; j < journal->count && !durable[i]; j++) {
            durable[i] = durable[j] && (fake_change_touches(change, journal->changes[j].from_dir) ||
                                        fake_change_touches(change, journal->changes[j].to_dir));
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < journal->count; i++) {
        if (durable[i]) {
            fake_change_deinit(&journal->changes[i]);
        } else {
            journal->changes[kept++] = journal->changes[i];
        }
    }
    journal->count = kept;
    free(durable);
}

static void fake_change_undo(const struct fake_change *change)
{
    if (change->to_dir != NULL) {
        fake_dir_erase(change->to_dir, change->to_name);
        if (change->replaced != NULL) {
            fake_dir_insert(change->to_dir, change->to_name, change->replaced);
        }
    }
    if (change->from_dir != NULL) {
        fake_dir_insert(change->from_dir, change->from_name, change->node);
    }
}

void fake_journal_crash(struct fake_journal *journal, size_t kept)
{
    for (size_t i = journal->count; i-- > 0;) {
        if (i >= kept) {
            fake_change_undo(&journal->changes[i]);
        }
        fake_change_deinit(&journal->changes[i]);
    }
    journal->count = 0;
}

void fake_journal_deinit(struct fake_journal *journal)
{
    for (size_t i = 0; i < journal->count; i++) {
        fake_change_deinit(&journal->changes[i]);
    }
    free(journal->changes);
    *journal = (struct fake_journal){0};
}

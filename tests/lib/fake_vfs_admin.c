/* What a test does to the fake disk besides calling its vtable: planning faults, halting,
 * tampering, looking. */
#include "base/assert.h"
#include "lib/fake_vfs_node.h"

#include <stdlib.h>
#include <string.h>

void fake_vfs_halt(struct fake_vfs *fake)
{
    fake__lock(fake);
    fake->halted = true;
    fake__unlock(fake);
}

bool fake_vfs_is_halted(struct fake_vfs *fake)
{
    fake__lock(fake);
    bool halted = fake->halted;
    fake__unlock(fake);
    return halted;
}

void fake_vfs_halt_at(struct fake_vfs *fake, uint64_t nth_step)
{
    fake__lock(fake);
    fake->halt_countdown = nth_step;
    fake__unlock(fake);
}

void fake_vfs_set_crash_point(struct fake_vfs *fake, fake_crash_point_fn point, void *context)
{
    fake__lock(fake);
    fake->point = point;
    fake->point_context = context;
    fake__unlock(fake);
}

void fake_vfs_fail(struct fake_vfs *fake, enum fake_op op, uint64_t nth, int error)
{
    ASSERT(op < FAKE_OP_COUNT);
    ASSERT(nth == 0 || error != ERR_OK);
    fake__lock(fake);
    fake->faults[op] = (struct fake_fault){.countdown = nth, .error = error};
    fake__unlock(fake);
}

void fake_vfs_lie(struct fake_vfs *fake, enum fake_op op, uint64_t nth)
{
    ASSERT(op == FAKE_WRITE || op == FAKE_SYNC || op == FAKE_SYNC_DIR);
    fake__lock(fake);
    fake->faults[op] = (struct fake_fault){.countdown = nth, .lie = true};
    fake__unlock(fake);
}

void fake_vfs_set_space(struct fake_vfs *fake, uint64_t bytes)
{
    fake__lock(fake);
    fake->space_bytes = bytes;
    fake__unlock(fake);
}

uint64_t fake_vfs_space_used(struct fake_vfs *fake)
{
    fake__lock(fake);
    uint64_t used = fake__tree_bytes(fake->root);
    fake__unlock(fake);
    return used;
}

/* ---- tampering, looking ---- */

bool fake_vfs_poke(struct fake_vfs *fake, const char *path, uint64_t offset, struct bytes bytes)
{
    fake__lock(fake);
    struct fake_node *node = fake__find(fake, path);
    bool fits = node != NULL && !node->is_dir && offset <= node->current.size &&
                bytes.size <= node->current.size - offset;
    if (fits) {
        fake_file_poke(node, offset, bytes);
    }
    fake__unlock(fake);
    return fits;
}

bool fake_vfs_flip_bit(struct fake_vfs *fake, const char *path, uint64_t bit)
{
    fake__lock(fake);
    struct fake_node *node = fake__find(fake, path);
    bool fits = node != NULL && !node->is_dir && bit / 8 < node->current.size;
    if (fits) {
        uint8_t byte = (uint8_t)(node->current.data[bit / 8] ^ (1u << (bit % 8)));
        fake_file_poke(node, bit / 8, bytes_of(&byte, 1));
    }
    fake__unlock(fake);
    return fits;
}

bool fake_vfs_cut(struct fake_vfs *fake, const char *path, uint64_t size)
{
    fake__lock(fake);
    struct fake_node *node = fake__find(fake, path);
    bool fits = node != NULL && !node->is_dir && size <= node->current.size;
    if (fits) {
        fake_file_cut(node, size);
    }
    fake__unlock(fake);
    return fits;
}

/* Walks the files below `dir` in order of names. Counts down *nth; the file it reaches 0 at is
 * returned, and its path, appended to the one that stands in `path`. */
static struct fake_node *fake_tree_nth(struct fake_node *dir, uint64_t *nth, struct buf *path)
{
    for (size_t i = 0; i < dir->entry_count; i++) {
        struct fake_node *node = dir->entries[i].node;
        size_t size = path->size;
        buf_printf(path, "/%s", dir->entries[i].name);
        if (!node->is_dir && node->current.size > 0 && (*nth)-- == 0) {
            return node;
        }
        struct fake_node *found = node->is_dir ? fake_tree_nth(node, nth, path) : NULL;
        if (found != NULL) {
            return found;
        }
        path->size = size;
    }
    return NULL;
}

static uint64_t fake_tree_count(const struct fake_node *dir)
{
    uint64_t count = 0;
    for (size_t i = 0; i < dir->entry_count; i++) {
        const struct fake_node *node = dir->entries[i].node;
        count += node->is_dir ? fake_tree_count(node) : node->current.size > 0;
    }
    return count;
}

bool fake_vfs_flip_random(struct fake_vfs *fake, const char *dir, struct rng *rng,
                          char path[VFS_PATH_BYTES_MAX], uint64_t *bit)
{
    fake__lock(fake);
    struct fake_node *node = fake__find(fake, dir);
    uint64_t count = node != NULL && node->is_dir ? fake_tree_count(node) : 0;
    uint64_t size = 0;
    if (count > 0) {
        uint64_t nth = rng_below(rng, count);
        struct buf found;
        buf_init(&found);
        buf_append_bytes(&found, bytes_of_string(dir));
        size = fake_tree_nth(node, &nth, &found)->current.size;
        ASSERT_CMP(found.size, <, VFS_PATH_BYTES_MAX);
        memcpy(path, found.data, found.size);
        path[found.size] = '\0';
        buf_deinit(&found);
    }
    fake__unlock(fake);
    if (count == 0) {
        return false;
    }
    *bit = rng_below(rng, size * 8);
    return fake_vfs_flip_bit(fake, path, *bit);
}

uint64_t fake_vfs_count(struct fake_vfs *fake, enum fake_op op)
{
    ASSERT(op < FAKE_OP_COUNT);
    fake__lock(fake);
    uint64_t count = fake->counts[op];
    fake__unlock(fake);
    return count;
}

uint64_t fake_vfs_step_count(struct fake_vfs *fake)
{
    fake__lock(fake);
    uint64_t count = fake->step_count;
    fake__unlock(fake);
    return count;
}

uint64_t fake_vfs_fault_count(struct fake_vfs *fake)
{
    fake__lock(fake);
    uint64_t count = fake->fault_count;
    fake__unlock(fake);
    return count;
}

bool fake_vfs_file_size(struct fake_vfs *fake, const char *path, uint64_t *size)
{
    fake__lock(fake);
    struct fake_node *node = fake__find(fake, path);
    bool found = node != NULL && !node->is_dir;
    *size = found ? node->current.size : 0;
    fake__unlock(fake);
    return found;
}

bool fake_vfs_file_bytes(struct fake_vfs *fake, const char *path, struct buf *out)
{
    fake__lock(fake);
    struct fake_node *node = fake__find(fake, path);
    bool found = node != NULL && !node->is_dir;
    buf_clear(out);
    if (found && node->current.size > 0) {
        buf_append(out, node->current.data, (size_t)node->current.size);
    }
    fake__unlock(fake);
    return found;
}

/* A directory of its own for each test of the file system. */
#ifndef TESTS_UNIT_VFS_TEST_H
#define TESTS_UNIT_VFS_TEST_H

#include "unit/base_test.h"

#include "base/vfs.h"

#include <stdio.h>

struct place {
    char dir[VFS_PATH_BYTES_MAX];
};

static inline int place_create(void **state)
{
    struct place *place = mem_calloc(1, sizeof(*place));
    const char *parent = getenv("TMPDIR");
    snprintf(place->dir, sizeof(place->dir), "%s/skv-vfs-XXXXXX", parent == NULL ? "/tmp" : parent);
    if (mkdtemp(place->dir) == NULL) {
        free(place);
        return -1;
    }
    *state = place;
    return 0;
}

static inline int place_destroy(void **state)
{
    struct place *place = *state;
    const struct vfs *vfs = vfs_system();
    int error = vfs->remove_tree(vfs->context, place->dir);
    free(place);
    return error;
}

/* The path of `name` in the place; good until the eighth next call. */
static inline const char *path_in(const struct place *place, const char *name)
{
    static char paths[8][VFS_PATH_BYTES_MAX];
    static unsigned next;
    char *out = paths[next++ % 8];
    assert_int_equal(vfs_path(out, place->dir, name), ERR_OK);
    return out;
}

static inline void assert_content(const char *path, const char *expected)
{
    struct buf content;
    buf_init(&content);
    assert_int_equal(vfs_read_all(vfs_system(), path, 1u << 20, &content), ERR_OK);
    assert_int_equal(content.size, strlen(expected));
    if (content.size > 0) {
        assert_memory_equal(content.data, expected, content.size);
    }
    buf_deinit(&content);
}

static inline bool path_exists(const char *path)
{
    bool exists = false;
    assert_int_equal(vfs_system()->exists(NULL, path, &exists), ERR_OK);
    return exists;
}

#endif

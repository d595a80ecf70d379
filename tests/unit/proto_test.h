/* What every test of proto/ includes: cmocka with the headers it wants before it, and bytes that
 * end where readable memory ends, so that one read past them stops the test even in code built
 * without a sanitizer. */
#ifndef TESTS_UNIT_PROTO_TEST_H
#define TESTS_UNIT_PROTO_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/error.h"
#include <sys/mman.h>
#include <unistd.h>

struct guarded {
    uint8_t *memory;
    size_t usable;
    size_t total;
};

static inline struct guarded guarded_create(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct guarded guarded = {0};
    guarded.usable = (size + page) / page * page;
    guarded.total = guarded.usable + page;
    void *memory =
        mmap(NULL, guarded.total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    guarded.memory = memory;
    assert_int_equal(mprotect(guarded.memory + guarded.usable, page, PROT_NONE), 0);
    return guarded;
}

static inline void guarded_destroy(struct guarded *guarded)
{
    assert_int_equal(munmap(guarded->memory, guarded->total), 0);
}

/* A copy of `bytes` whose last byte is the last readable one; good until the next put. */
static inline struct bytes guarded_put(const struct guarded *guarded, struct bytes bytes)
{
    assert_true(bytes.size <= guarded->usable);
    uint8_t *at = guarded->memory + guarded->usable - bytes.size;
    if (bytes.size > 0) {
        memmove(at, bytes.data, bytes.size);
    }
    return bytes_of(at, bytes.size);
}

static inline void assert_bytes_equal(struct bytes got, struct bytes want)
{
    assert_int_equal(got.size, want.size);
    if (want.size > 0) {
        assert_memory_equal(got.data, want.data, want.size);
    }
}

#endif

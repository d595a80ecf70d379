/* Views, growable buffers and counted blobs.
 *
 * Thread: views and bufs belong to one thread at a time; a blob's count is atomic and its bytes
 * never change once it is shared, so any thread may hold a reference.
 *
 * Invariants: buf.size <= buf.capacity; buf.data is NULL exactly when capacity is 0. A blob lives
 * while its count is above 0, and its release runs exactly once. */
#include "base/bytes.h"

#include "base/assert.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUF_CAPACITY_BYTES_MIN 64

struct blob {
    _Atomic uint32_t references;
    struct bytes bytes;
    blob_release_fn release; /* NULL when the bytes are `storage` */
    void *owner;
    uint8_t storage[];
};

/* --- Views --- */

struct bytes bytes_of_string(const char *string)
{
    return bytes_of(string, strlen(string));
}

bool bytes_equal(struct bytes a, struct bytes b)
{
    /* memcmp must not be given NULL, even for no bytes. */
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

int bytes_compare(struct bytes a, struct bytes b)
{
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common == 0 ? 0 : memcmp(a.data, b.data, common);
    if (order != 0) {
        return order;
    }
    return (a.size > b.size) - (a.size < b.size);
}

bool bytes_has_prefix(struct bytes a, struct bytes prefix)
{
    return a.size >= prefix.size && bytes_equal(bytes_of(a.data, prefix.size), prefix);
}

/* --- Allocation --- */

/* Nothing above can go on with half an object, and a replica that stops is a case the protocol is
 * made for. */
_Noreturn static void mem_exhausted(size_t size)
{
    char message[96];
    int length = snprintf(message, sizeof(message), "out of memory: %zu bytes refused\n", size);
    if (length > 0) {
        ssize_t written = write(STDERR_FILENO, message, (size_t)length);
        (void)written;
    }
    abort();
}

void *mem_alloc(size_t size)
{
    /* One byte at least, so that NULL always means failure. */
    void *pointer = malloc(size == 0 ? 1 : size);
    if (pointer == NULL) {
        mem_exhausted(size);
    }
    return pointer;
}

void *mem_calloc(size_t count, size_t size)
{
    void *pointer = (count == 0 || size == 0) ? calloc(1, 1) : calloc(count, size);
    if (pointer == NULL) {
        size_t total;
        mem_exhausted(__builtin_mul_overflow(count, size, &total) ? SIZE_MAX : total);
    }
    return pointer;
}

void *mem_realloc(void *pointer, size_t size)
{
    void *moved = realloc(pointer, size == 0 ? 1 : size);
    if (moved == NULL) {
        mem_exhausted(size);
    }
    return moved;
}

char *mem_strdup(const char *string)
{
    return mem_dup(string, strlen(string) + 1);
}

void *mem_dup(const void *data, size_t size)
{
    void *copy = mem_alloc(size);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

/* --- Growable buffer --- */

void buf_init(struct buf *buf)
{
    *buf = (struct buf){NULL, 0, 0};
}

void buf_deinit(struct buf *buf)
{
    free(buf->data);
    buf_init(buf);
}

void buf_clear(struct buf *buf)
{
    buf->size = 0;
}

uint8_t *buf_reserve(struct buf *buf, size_t more)
{
    ASSERT_CMP(buf->size, <=, buf->capacity);
    if (more > buf->capacity - buf->size || buf->data == NULL) {
        if (more > SIZE_MAX / 2 - buf->size) {
            mem_exhausted(more);
        }
        size_t needed = buf->size + more;
        size_t capacity = buf->capacity * 2; /* capacity <= SIZE_MAX / 2, by the line above */
        if (capacity < needed) {
            capacity = needed;
        }
        if (capacity < BUF_CAPACITY_BYTES_MIN) {
            capacity = BUF_CAPACITY_BYTES_MIN;
        }
        buf->data = mem_realloc(buf->data, capacity);
        buf->capacity = capacity;
    }
    return buf->data + buf->size;
}

void buf_append(struct buf *buf, const void *data, size_t size)
{
    if (size == 0) {
        return;
    }
    memcpy(buf_reserve(buf, size), data, size);
    buf->size += size;
}

void buf_append_bytes(struct buf *buf, struct bytes bytes)
{
    buf_append(buf, bytes.data, bytes.size);
}

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    ASSERT(length >= 0); /* a format the C library refuses is a bug in the call */

    size_t size = (size_t)length;
    char *at = (char *)buf_reserve(buf, size + 1); /* the NUL needs room, but is not counted */
    va_start(arguments, format);
    vsnprintf(at, size + 1, format, arguments);
    va_end(arguments);
    buf->size += size;
}

/* --- Counted blob --- */

struct blob *blob_alloc(size_t size, uint8_t **data)
{
    if (size > SIZE_MAX / 2) {
        mem_exhausted(size);
    }
    struct blob *blob = mem_alloc(sizeof(*blob) + size);
    atomic_init(&blob->references, 1);
    blob->bytes = bytes_of(blob->storage, size);
    blob->release = NULL;
    blob->owner = NULL;
    *data = blob->storage;
    return blob;
}

struct blob *blob_copy(struct bytes bytes)
{
    uint8_t *data;
    struct blob *blob = blob_alloc(bytes.size, &data);
    if (bytes.size > 0) {
        memcpy(data, bytes.data, bytes.size);
    }
    return blob;
}

struct blob *blob_wrap(struct bytes bytes, blob_release_fn release, void *owner)
{
    ASSERT(release != NULL);
    struct blob *blob = mem_alloc(sizeof(*blob));
    atomic_init(&blob->references, 1);
    blob->bytes = bytes;
    blob->release = release;
    blob->owner = owner;
    return blob;
}

struct blob *blob_take_buf(struct buf *buf)
{
    struct blob *blob = blob_wrap(buf_view(buf), free, buf->data);
    buf_init(buf);
    return blob;
}

struct blob *blob_ref(struct blob *blob)
{
    if (blob != NULL) {
        uint32_t before = atomic_fetch_add_explicit(&blob->references, 1, memory_order_relaxed);
        ASSERT_CMP(before, >, 0);          /* a dead blob cannot be revived */
        ASSERT_CMP(before, <, UINT32_MAX); /* nor may the count wrap */
    }
    return blob;
}

void blob_unref(struct blob *blob)
{
    if (blob == NULL) {
        return;
    }
    /* Release publishes this thread's reads; acquire makes the last one see them all before the
     * memory goes. */
    uint32_t before = atomic_fetch_sub_explicit(&blob->references, 1, memory_order_acq_rel);
    ASSERT_CMP(before, >, 0);
    if (before == 1) {
        if (blob->release != NULL) {
            blob->release(blob->owner);
        }
        free(blob);
    }
}

struct bytes blob_view(const struct blob *blob)
{
    return blob->bytes;
}

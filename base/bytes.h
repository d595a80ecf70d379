/* Views, growable buffers and counted blobs.
 *
 *   struct bytes   a borrowed view: pointer and size. Copied freely, owns nothing.
 *   struct buf     a growable byte array with one owner; for building messages.
 *   struct blob    an immutable, reference-counted run of bytes; what travels between threads and rooms
 *                  without being copied (a received message, a log entry's payload, a value). */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bytes {
    const uint8_t *data; /* may be NULL when size is 0 */
    size_t size;
};

#define BYTES_EMPTY ((struct bytes){NULL, 0})

static inline struct bytes bytes_of(const void *data, size_t size)
{
    return (struct bytes){(const uint8_t *)data, size};
}
/* The string's characters without its NUL. */
struct bytes bytes_of_string(const char *string);
bool bytes_equal(struct bytes a, struct bytes b);
/* Lexicographic on unsigned bytes, shorter first on a tie: <0, 0, >0. */
int bytes_compare(struct bytes a, struct bytes b);
bool bytes_has_prefix(struct bytes a, struct bytes prefix);

/* Allocation that cannot fail: out of memory ends the process with a message. Sizes that come from outside are
 * checked against a named limit before they get here. Free with free(). */
void *mem_alloc(size_t size);
void *mem_calloc(size_t count, size_t size);
void *mem_realloc(void *pointer, size_t size); /* takes `pointer` */
char *mem_strdup(const char *string);
void *mem_dup(const void *data, size_t size);

struct buf {
    uint8_t *data;
    size_t size;
    size_t capacity;
};

void buf_init(struct buf *buf);
void buf_deinit(struct buf *buf); /* safe on a zeroed or deinited buf; leaves it empty */
void buf_clear(struct buf *buf);  /* size 0, capacity kept */
/* Makes room for `more` bytes after `size` and returns where they start; size is unchanged. The pointer is good
 * until the next call that grows the buf. */
uint8_t *buf_reserve(struct buf *buf, size_t more);
void buf_append(struct buf *buf, const void *data, size_t size);
void buf_append_bytes(struct buf *buf, struct bytes bytes);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
static inline struct bytes buf_view(const struct buf *buf)
{
    return bytes_of(buf->data, buf->size);
}

struct blob; /* opaque; its bytes never change after it is made; refcounts are atomic, any thread */

typedef void (*blob_release_fn)(void *owner);

struct blob *blob_copy(struct bytes bytes);            /* gives; one reference */
struct blob *blob_take_buf(struct buf *buf);           /* gives; takes buf's memory, leaves buf empty */
/* gives; wraps memory owned by `owner`; `release(owner)` runs once, on the thread of the last unref. */
struct blob *blob_wrap(struct bytes bytes, blob_release_fn release, void *owner);
/* gives; room for `size` bytes to be filled through *data before the blob is shared. */
struct blob *blob_alloc(size_t size, uint8_t **data);
struct blob *blob_ref(struct blob *blob);              /* returns blob; NULL passes through */
void blob_unref(struct blob *blob);                    /* takes; NULL is fine */
struct bytes blob_view(const struct blob *blob);       /* lives as long as the caller's reference */

#endif

/* Histories as JSON lines (docs/TESTING.md, "Histories and the checker"): one line an event, read
 * and written.
 *
 * A line is a struct lin_event; lin_builder turns events, in the order each process made them, into
 * the operations of a struct lin_history. A recorder that has events in memory may use the builder
 * without any text. */
#ifndef TESTS_LIN_HISTORY_JSON_H
#define TESTS_LIN_HISTORY_JSON_H

#include "lin/history.h"
#include <stdio.h>

enum lin_event_type {
    LIN_INVOKE = 1,
    LIN_OK,   /* done */
    LIN_FAIL, /* surely not done, now or later */
    LIN_INFO, /* unknown */
};

struct lin_event {
    uint64_t process;
    enum lin_event_type type;
    enum lin_kind kind; /* GET .. CAS */
    struct bytes key;
    struct lin_value
        value;             /* invoke of put, append, cas: what to write; ok of get: what was read */
    struct lin_value from; /* invoke of cas */
    bool has_version;
    uint64_t version; /* ok; fail of cas: the present one, 0: absent */
    bool has_expected;
    uint64_t expected; /* invoke of cas; 0: absent */
    uint64_t time_ns;
    uint64_t line; /* 0: unknown */
};

/* One line with its newline. Bytes from 0x80 on are written as the characters U+0080 .. U+00FF, so
 * that any bytes can be. */
void lin_event_write(const struct lin_event *event, struct buf *out);

struct lin_builder;
/* `history` is borrowed until the builder is finished. */
struct lin_builder *lin_builder_create(struct lin_history *history); /* gives */
/* ERR_INVALID: the event contradicts those before it or itself; `message` says how. Borrows. */
int lin_builder_add(struct lin_builder *builder, const struct lin_event *event, char *message,
                    size_t message_size) MUST_USE;
/* What has not returned has an unknown outcome. takes builder; NULL is fine. */
void lin_builder_finish(struct lin_builder *builder);

enum { LIN_LINE_BYTES_MAX = 64 * 1024 * 1024 };

/* Reads all of `in`. ERR_INVALID: a line is not as documented; `message` gives `name`, the line and
 * what would be right. ERR_TOO_LARGE: it takes more than `memory_bytes_max`. ERR_IO: cannot be
 * read. */
int lin_history_read(FILE *in, const char *name, uint64_t memory_bytes_max,
                     struct lin_history *history, char *message, size_t message_size) MUST_USE;

#endif

/* What a RAFT_ENTRY_COMMAND's payload holds: many commands and the log time they share.
 *
 *     u8     version = 1
 *     u64    time_ms       log time: never below that of an earlier entry
 *     varint count         1 .. LOG_ENTRY_COMMANDS_MAX
 *     count x sized command
 *
 * Numbers are little-endian, `varint` is LEB128, `sized` a varint size and the bytes
 * (base/codec.h). Integrity is the business of whoever carries the entry: the log's records and the
 * peers' messages have checksums. Pure functions, any thread. */
#ifndef RAFT_NODE_LOG_ENTRY_H
#define RAFT_NODE_LOG_ENTRY_H

#include "base/codec.h"
#include "base/error.h"

enum {
    LOG_ENTRY_COMMANDS_MAX = 16384,
    LOG_ENTRY_HEADER_BYTES_MAX = 1 + 8 + 10,
    LOG_ENTRY_COMMAND_OVERHEAD_BYTES_MAX = 10, /* the size before a command */
};

void log_entry_put_header(struct buf *out, uint64_t time_ms, uint32_t count);
void log_entry_put_command(struct buf *out, struct bytes command);

struct log_entry_reader {
    struct reader reader;
    uint64_t time_ms;
    uint32_t count;
    uint32_t read_count;
};
/* ERR_CORRUPT, ERR_UNSUPPORTED (version) or 0. */
int log_entry_open(struct bytes entry, struct log_entry_reader *out) MUST_USE;
/* The next command, a view into the entry. ERR_NOT_FOUND after the last one (and every byte was
 * used); ERR_CORRUPT. */
int log_entry_next(struct log_entry_reader *entry, struct bytes *command) MUST_USE;

#endif

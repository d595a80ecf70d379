/* The payload of a command entry; its format is in log_entry.h. */
#include "raft/node/log_entry.h"

#include "base/assert.h"

enum { LOG_ENTRY_VERSION = 1 };

void log_entry_put_header(struct buf *out, uint64_t time_ms, uint32_t count)
{
    ASSERT_CMP(count, >, 0);
    ASSERT_CMP(count, <=, LOG_ENTRY_COMMANDS_MAX);
    put_u8(out, LOG_ENTRY_VERSION);
    put_u64(out, time_ms);
    put_varint(out, count);
}

void log_entry_put_command(struct buf *out, struct bytes command)
{
    put_sized(out, command);
}

int log_entry_open(struct bytes entry, struct log_entry_reader *out)
{
    struct reader reader = reader_of(entry);
    uint8_t version = get_u8(&reader);
    uint64_t time_ms = get_u64(&reader);
    uint64_t count = get_varint(&reader);
    if (reader.failed) {
        return ERR_CORRUPT;
    }
    if (version != LOG_ENTRY_VERSION) {
        return ERR_UNSUPPORTED;
    }
    if (count == 0 || count > LOG_ENTRY_COMMANDS_MAX) {
        return ERR_CORRUPT;
    }
    *out = (struct log_entry_reader){
        .reader = reader, .time_ms = time_ms, .count = (uint32_t)count, .read_count = 0};
    return ERR_OK;
}

int log_entry_next(struct log_entry_reader *entry, struct bytes *command)
{
    if (entry->read_count == entry->count) {
        return reader_done(&entry->reader) ? ERR_NOT_FOUND : ERR_CORRUPT;
    }
    *command = get_sized(&entry->reader, reader_left(&entry->reader));
    if (entry->reader.failed) {
        return ERR_CORRUPT;
    }
    entry->read_count++;
    return ERR_OK;
}

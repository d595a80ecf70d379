/* Reading a segment through a bounded window and checking its groups. One thread a stream; keeps no
 * state but the window. Everything it sees may have been changed by the disk. */
#include "raft/wal/wal_internal.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

void wal__stream_init(struct wal_stream *stream, const struct vfs *vfs, size_t window_bytes)
{
    *stream = (struct wal_stream){
        .vfs = vfs,
        .window = mem_alloc(window_bytes),
        .window_bytes = window_bytes,
    };
}

void wal__stream_deinit(struct wal_stream *stream)
{
    free(stream->window);
    *stream = (struct wal_stream){0};
}

void wal__stream_seek(struct wal_stream *stream, struct vfs_file *file)
{
    stream->file = file;
    stream->window_count = 0;
}

int wal__stream_view(struct wal_stream *stream, uint64_t offset, size_t size, const uint8_t **out)
{
    ASSERT_CMP(size, <=, stream->window_bytes);
    bool inside = stream->window_count > 0 && offset >= stream->window_at &&
                  offset - stream->window_at <= stream->window_count &&
                  stream->window_count - (offset - stream->window_at) >= size;
    if (!inside) {
        size_t count = 0;
        stream->window_count = 0;
        int error = stream->vfs->read_at(stream->vfs->context, stream->file, offset, stream->window,
                                         stream->window_bytes, &count);
        if (error != ERR_OK) {
            return error;
        }
        memset(stream->window + count, 0, stream->window_bytes - count);
        stream->window_at = offset;
        stream->window_count = stream->window_bytes;
    }
    *out = stream->window + (offset - stream->window_at);
    return ERR_OK;
}

int wal__stream_crc(struct wal_stream *stream, uint64_t offset, uint64_t size, uint32_t *crc)
{
    while (size > 0) {
        /* What is left of the window first, so that neighbours are not read twice. */
        size_t part = stream->window_bytes;
        if (stream->window_count > 0 && offset >= stream->window_at &&
            offset - stream->window_at < stream->window_count) {
            part = stream->window_count - (size_t)(offset - stream->window_at);
        }
        if (part > size) {
            part = (size_t)size;
        }
        const uint8_t *bytes;
        int error = wal__stream_view(stream, offset, part, &bytes);
        if (error != ERR_OK) {
            return error;
        }
        *crc = crc32c_extend(*crc, bytes, part);
        offset += part;
        size -= part;
    }
    return ERR_OK;
}

static int wal_check_bad(struct wal_group_check *out, uint64_t at, const char *what)
{
    out->valid = false;
    out->bad_at = at;
    out->what = what;
    return ERR_OK;
}

/* The record at `offset`, which must end by `limit`. On a valid one *size is its size and *body_crc
 * is extended. */
static int wal_check_record(struct wal_stream *stream, const struct wal_segment_header *segment,
                            uint64_t offset, uint64_t limit, uint64_t entry_bytes_max,
                            struct wal_group_check *out, uint32_t *body_crc, uint64_t *size)
{
    if (limit - offset < WAL_RECORD_HEADER_BYTES) {
        return wal_check_bad(out, offset, "a record does not fit its group");
    }
    const uint8_t *bytes;
    int error = wal__stream_view(stream, offset, WAL_RECORD_HEADER_BYTES, &bytes);
    if (error != ERR_OK) {
        return error;
    }
    struct wal_record_header header;
    bool decoded = wal_record_header_decode(bytes, &header);
    uint32_t stored_crc = load_u32(bytes);
    uint32_t crc = wal_record_crc_begin(bytes, segment->salt, offset);
    if (!decoded) {
        return wal_check_bad(out, offset, "a record has a field out of range");
    }
    uint64_t padded = wal_align(header.payload_bytes);
    if (padded > limit - offset - WAL_RECORD_HEADER_BYTES) {
        return wal_check_bad(out, offset, "a record does not fit its group");
    }
    if (header.type == WAL_RECORD_ENTRY && header.payload_bytes > entry_bytes_max) {
        return wal_check_bad(out, offset, "an entry is larger than entry_bytes_max");
    }
    error = wal__stream_crc(stream, offset + WAL_RECORD_HEADER_BYTES, padded, &crc);
    if (error != ERR_OK) {
        return error;
    }
    if (crc != stored_crc) {
        return wal_check_bad(out, offset, "a record fails its checksum");
    }
    uint8_t crc_bytes[4];
    store_u32(crc_bytes, stored_crc);
    *body_crc = crc32c_extend(*body_crc, crc_bytes, sizeof(crc_bytes));
    *size = WAL_RECORD_HEADER_BYTES + padded;
    return ERR_OK;
}

int wal__stream_check_group(struct wal_stream *stream, const struct wal_segment_header *segment,
                            uint64_t offset, uint64_t entry_bytes_max, struct wal_group_check *out)
{
    *out = (struct wal_group_check){.valid = true};
    uint64_t file_bytes = segment->file_bytes;
    if (offset > file_bytes || file_bytes - offset < WAL_GROUP_HEADER_BYTES) {
        return wal_check_bad(out, offset, "the segment ends");
    }
    const uint8_t *bytes;
    int error = wal__stream_view(stream, offset, WAL_GROUP_HEADER_BYTES, &bytes);
    if (error != ERR_OK) {
        return error;
    }
    if (!wal_group_header_decode(bytes, segment->salt, offset, &out->header)) {
        return wal_check_bad(out, offset, "a group header fails its checksum");
    }
    out->header_valid = true;
    uint64_t at = offset + WAL_GROUP_HEADER_BYTES;
    uint64_t room = file_bytes - at;
    uint64_t behind = wal_group_is_mark(&out->header) ? 0 : WAL_TAIL_BYTES;
    if (room < behind || out->header.body_bytes > room - behind) {
        return wal_check_bad(out, offset, "a group does not fit its segment");
    }
    uint64_t limit = at + out->header.body_bytes;
    uint32_t body_crc = 0;
    for (uint32_t i = 0; i < out->header.record_count; i++) {
        uint64_t size = 0;
        error =
            wal_check_record(stream, segment, at, limit, entry_bytes_max, out, &body_crc, &size);
        if (error != ERR_OK || !out->valid) {
            return error;
        }
        at += size;
    }
    if (at != limit || body_crc != out->header.body_crc) {
        return wal_check_bad(out, offset, "a group's records are not the ones its header names");
    }
    return ERR_OK;
}

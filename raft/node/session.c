/* The table of one client's commands (session.h).
 *
 * Invariants: results are in strictly ascending sequence, none below acked_below; count <= capacity
 * and count <= SESSION_OUTSTANDING_MAX; acked_below and last_active_ms never go back.
 *
 * Encoded: u8 version = 1, varint acked_below, varint last_active_ms, varint count, count x {
 * varint sequence minus the one before (the first: minus acked_below), u32 fingerprint, varint
 * code, varint version }. */
#include "raft/node/session.h"

#include "base/assert.h"
#include "base/codec.h"
#include "proto/limits.h"

#include <stdlib.h>
#include <string.h>

enum {
    SESSION_VERSION = 1,
    SESSION_CAPACITY_MIN = 8,
};

void session_init(struct session *session)
{
    memset(session, 0, sizeof(*session));
}

void session_deinit(struct session *session)
{
    free(session->results);
    session_init(session);
}

/* Where `sequence` is, or where it would have to be put. Commands mostly come in ascending order,
 * so the end is looked at first. */
static uint32_t find_place(const struct session *session, uint64_t sequence)
{
    uint32_t low = 0;
    uint32_t high = session->count;
    if (high > 0 && session->results[high - 1].sequence < sequence) {
        return high;
    }
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (session->results[middle].sequence < sequence) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void forget_below(struct session *session, uint64_t acked_below)
{
    if (acked_below <= session->acked_below) {
        return;
    }
    session->acked_below = acked_below;
    uint32_t gone = find_place(session, acked_below);
    if (gone > 0) {
        session->count -= gone;
        memmove(session->results, session->results + gone,
                session->count * sizeof(session->results[0]));
    }
}

enum session_verdict session_check(struct session *session, uint64_t acked_below, uint64_t sequence,
                                   uint32_t fingerprint, uint64_t now_ms,
                                   const struct session_result **result)
{
    *result = NULL;
    if (now_ms > session->last_active_ms) {
        session->last_active_ms = now_ms;
    }
    forget_below(session, acked_below);
    if (sequence < session->acked_below) {
        return SESSION_STALE;
    }
    uint32_t place = find_place(session, sequence);
    if (place < session->count && session->results[place].sequence == sequence) {
        if (session->results[place].fingerprint != fingerprint) {
            return SESSION_REUSED;
        }
        *result = &session->results[place];
        return SESSION_REPEAT;
    }
    return session->count >= SESSION_OUTSTANDING_MAX ? SESSION_FULL : SESSION_EXECUTE;
}

static void reserve(struct session *session, uint32_t count)
{
    if (count <= session->capacity) {
        return;
    }
    uint32_t capacity = session->capacity == 0 ? SESSION_CAPACITY_MIN : session->capacity;
    while (capacity < count) {
        capacity *= 2;
    }
    session->results = mem_realloc(session->results, capacity * sizeof(session->results[0]));
    session->capacity = capacity;
}

void session_record(struct session *session, const struct session_result *result)
{
    ASSERT_CMP(result->sequence, >=, session->acked_below);
    ASSERT_CMP(session->count, <, SESSION_OUTSTANDING_MAX);
    uint32_t place = find_place(session, result->sequence);
    ASSERT(place == session->count || session->results[place].sequence != result->sequence);
    /* `result` may point into the table, which is about to move */
    struct session_result copy = *result;
    reserve(session, session->count + 1);
    memmove(session->results + place + 1, session->results + place,
            (session->count - place) * sizeof(session->results[0]));
    session->results[place] = copy;
    session->count++;
}

bool session_is_expired(const struct session *session, uint64_t now_ms)
{
    return now_ms > session->last_active_ms && now_ms - session->last_active_ms > SESSION_TTL_MS;
}

void session_encode(const struct session *session, struct buf *out)
{
    put_u8(out, SESSION_VERSION);
    put_varint(out, session->acked_below);
    put_varint(out, session->last_active_ms);
    put_varint(out, session->count);
    uint64_t before = session->acked_below;
    for (uint32_t i = 0; i < session->count; i++) {
        const struct session_result *result = &session->results[i];
        put_varint(out, result->sequence - before);
        put_u32(out, result->fingerprint);
        put_varint(out, result->code);
        put_varint(out, result->version);
        before = result->sequence;
    }
}

static int decode_results(struct reader *reader, uint32_t count, struct session *out)
{
    uint64_t before = out->acked_below;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t step = get_varint(reader);
        uint32_t fingerprint = get_u32(reader);
        uint64_t code = get_varint(reader);
        uint64_t version = get_varint(reader);
        bool ascends = i == 0 || step > 0;
        if (reader->failed || !ascends || step > UINT64_MAX - before || code > UINT32_MAX) {
            return ERR_CORRUPT;
        }
        before += step;
        out->results[i] = (struct session_result){
            .sequence = before,
            .fingerprint = fingerprint,
            .code = (uint32_t)code,
            .version = version,
        };
        out->count = i + 1;
    }
    return ERR_OK;
}

int session_decode(struct bytes bytes, struct session *out)
{
    enum { RESULT_BYTES_MIN = 1 + 4 + 1 + 1 };
    struct reader reader = reader_of(bytes);
    uint8_t version = get_u8(&reader);
    uint64_t acked_below = get_varint(&reader);
    uint64_t last_active_ms = get_varint(&reader);
    uint64_t count = get_varint(&reader);
    out->count = 0;
    if (reader.failed) {
        return ERR_CORRUPT;
    }
    if (version != SESSION_VERSION) {
        return ERR_UNSUPPORTED;
    }
    /* The second bound keeps a lying count from making us allocate for bytes that are not there. */
    if (count > SESSION_OUTSTANDING_MAX || count > reader_left(&reader) / RESULT_BYTES_MIN) {
        return ERR_CORRUPT;
    }
    out->acked_below = acked_below;
    out->last_active_ms = last_active_ms;
    reserve(out, (uint32_t)count);
    int error = decode_results(&reader, (uint32_t)count, out);
    if (error == ERR_OK && !reader_done(&reader)) {
        error = ERR_CORRUPT;
    }
    if (error != ERR_OK) {
        session_deinit(out);
    }
    return error;
}

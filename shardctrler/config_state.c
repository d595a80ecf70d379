/* See config_state.h.
 *
 * Encoding: u32 magic, u8 version, position (2 x u64), varint 0 or the history, varint session
 * count, count x { u64 client_id, sized session }, u32 crc32c of all before it. */
#include "shardctrler/config_state.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "proto/messages.h"
#include "shardctrler/config_machine.h"
#include "shardctrler/transition.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STATE_MAGIC   0x43564b53u /* "SKVC" */
#define STATE_VERSION 2u

enum { SESSION_ENCODED_BYTES_MAX = 1024 * 1024 };

void config_state_init(struct config_state *state)
{
    memset(state, 0, sizeof *state);
}

void config_state_deinit(struct config_state *state)
{
    history_destroy(state->history);
    for (size_t i = 0; i < state->session_count; i++) {
        session_deinit(&state->sessions[i].session);
    }
    free(state->sessions);
    memset(state, 0, sizeof *state);
}

/* ---- sessions
 * ------------------------------------------------------------------------------------------- */

static size_t session_slot(const struct config_state *state, uint64_t client_id)
{
    size_t low = 0;
    size_t high = state->session_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (state->sessions[middle].client_id < client_id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Forgets every session idle past its time. Only when the table is full, so that a command costs no
 * scan. */
static void sweep_sessions(struct config_state *state, uint64_t now_ms)
{
    size_t kept = 0;
    for (size_t i = 0; i < state->session_count; i++) {
        if (session_is_expired(&state->sessions[i].session, now_ms)) {
            session_deinit(&state->sessions[i].session);
        } else {
            state->sessions[kept++] = state->sessions[i];
        }
    }
    state->session_count = kept;
}

static void insert_session(struct config_state *state, size_t slot, uint64_t client_id)
{
    if (state->session_count == state->session_capacity) {
        state->session_capacity = state->session_capacity == 0 ? 16 : state->session_capacity * 2;
        state->sessions =
            mem_realloc(state->sessions, state->session_capacity * sizeof *state->sessions);
    }
    memmove(&state->sessions[slot + 1], &state->sessions[slot],
            (state->session_count - slot) * sizeof *state->sessions);
    state->session_count++;
    state->sessions[slot].client_id = client_id;
    session_init(&state->sessions[slot].session);
}

/* NULL: the table is full of live sessions. */
static struct session *find_or_add_session(struct config_state *state, uint64_t client_id,
                                           uint64_t now_ms)
{
    size_t slot = session_slot(state, client_id);
    if (slot < state->session_count && state->sessions[slot].client_id == client_id) {
        return &state->sessions[slot].session;
    }
    if (state->session_count >= CONFIG_SESSIONS_MAX) {
        sweep_sessions(state, now_ms);
        if (state->session_count >= CONFIG_SESSIONS_MAX) {
            return NULL;
        }
        slot = session_slot(state, client_id);
    }
    insert_session(state, slot, client_id);
    return &state->sessions[slot].session;
}

/* ---- commands
 * --------------------------------------------------------------------------------------------- */

/* A decoded JOIN, LEAVE, MOVE or UPDATE_MEMBERS. */
struct change {
    enum config_command kind;
    union {
        struct msg_join_request join;
        struct msg_leave_request leave;
        struct msg_move_request move;
        struct msg_update_members_request update;
    };
};

static int change_decode(enum config_command kind, struct bytes body, struct change *out,
                         struct msg_request_header **header)
{
    out->kind = kind;
    switch (kind) {
    case CONFIG_COMMAND_JOIN:
        *header = &out->join.header;
        return msg_join_request_decode(body, &out->join);
    case CONFIG_COMMAND_LEAVE:
        *header = &out->leave.header;
        return msg_leave_request_decode(body, &out->leave);
    case CONFIG_COMMAND_MOVE:
        *header = &out->move.header;
        return msg_move_request_decode(body, &out->move);
    case CONFIG_COMMAND_UPDATE_MEMBERS:
        *header = &out->update.header;
        return msg_update_members_request_decode(body, &out->update);
    case CONFIG_COMMAND_CREATE:
        break;
    }
    return ERR_UNSUPPORTED;
}

static void change_deinit(struct change *change)
{
    if (change->kind == CONFIG_COMMAND_JOIN) {
        msg_join_request_deinit(&change->join);
    }
}

/* Of what was asked alone: age, acknowledgements and the config a client knows differ between a
 * command and its retry. Leaves the header as it was. */
static uint32_t change_fingerprint(struct change *change, struct msg_request_header *header)
{
    struct msg_request_header sent = *header;
    *header = (struct msg_request_header){.client_id = sent.client_id, .sequence = sent.sequence};
    struct buf bytes;
    buf_init(&bytes);
    switch (change->kind) {
    case CONFIG_COMMAND_JOIN:
        msg_join_request_encode(&change->join, &bytes);
        break;
    case CONFIG_COMMAND_LEAVE:
        msg_leave_request_encode(&change->leave, &bytes);
        break;
    case CONFIG_COMMAND_MOVE:
        msg_move_request_encode(&change->move, &bytes);
        break;
    case CONFIG_COMMAND_UPDATE_MEMBERS:
        msg_update_members_request_encode(&change->update, &bytes);
        break;
    case CONFIG_COMMAND_CREATE:
        UNREACHABLE();
    }
    uint32_t fingerprint = crc32c_extend((uint32_t)change->kind, bytes.data, bytes.size);
    buf_deinit(&bytes);
    *header = sent;
    return fingerprint;
}

/* *out NULL: done, and nothing changes. */
static int change_make(const struct change *change, const struct config *config,
                       struct config **out, char *why, size_t why_size)
{
    switch (change->kind) {
    case CONFIG_COMMAND_JOIN:
        return transition_join(config, change->join.groups, change->join.group_count, out, why,
                               why_size);
    case CONFIG_COMMAND_LEAVE:
        return transition_leave(config, change->leave.group_ids, change->leave.group_count,
                                change->leave.force, out, why, why_size);
    case CONFIG_COMMAND_MOVE:
        return transition_move(config, change->move.shard, change->move.group_id, out, why,
                               why_size);
    case CONFIG_COMMAND_UPDATE_MEMBERS:
        return transition_update_members(config, &change->update.group, out, why, why_size);
    case CONFIG_COMMAND_CREATE:
        break;
    }
    UNREACHABLE();
}

static void answer(struct buf *result, int error, const char *why, uint64_t config_number)
{
    if (result == NULL) {
        return;
    }
    struct msg_change_response response = {.config_number = config_number};
    msg_response_header_set(&response.header, error, error != 0 && why[0] != '\0' ? why : NULL);
    if (error == 0) {
        response.header.message[0] = '\0';
    }
    msg_change_response_encode(&response, result);
}

/* Executes and remembers. A refusal is remembered too: a retry must get the same answer. True when
 * a config was made. */
static bool execute(struct config_state *state, const struct change *change, struct buf *result,
                    struct session *session, struct session_result *record)
{
    char why[TEXT_BYTES_MAX] = "";
    struct config *next = NULL;
    int error = change_make(change, history_latest(state->history), &next, why, sizeof why);
    if (error == 0 && next != NULL) {
        error = history_append(state->history, next);
        if (error != 0) {
            config_free(next);
            next = NULL;
            snprintf(why, sizeof why, "the history holds its maximum of %d configs",
                     HISTORY_CONFIGS_MAX);
        }
    }
    uint64_t number = error == 0 ? history_latest(state->history)->number : 0;
    if (session != NULL) {
        record->code = err_to_wire(error);
        record->version = number;
        session_record(session, record);
    }
    answer(result, error, why, number);
    return next != NULL;
}

static bool apply_change(struct config_state *state, const struct sm_command *command,
                         struct change *change, struct msg_request_header *header)
{
    if (state->history == NULL) {
        answer(command->result, ERR_BUSY, "the cluster is still being created, try again", 0);
        return false;
    }
    if (header->client_id == 0) {
        return execute(state, change, command->result, NULL, NULL);
    }
    if (header->age_ms > COMMAND_AGE_MS_MAX) {
        answer(command->result, ERR_SESSION_EXPIRED, "", 0);
        return false;
    }
    struct session *session = find_or_add_session(state, header->client_id, command->time_ms);
    if (session == NULL) {
        answer(command->result, ERR_SESSIONS_FULL, "", 0);
        return false;
    }
    struct session_result record = {.sequence = header->sequence,
                                    .fingerprint = change_fingerprint(change, header)};
    const struct session_result *known = NULL;
    switch (session_check(session, header->acked_below, header->sequence, record.fingerprint,
                          command->time_ms, &known)) {
    case SESSION_EXECUTE:
        return execute(state, change, command->result, session, &record);
    case SESSION_REPEAT:
        answer(command->result, err_from_wire(known->code), "", known->version);
        return false;
    case SESSION_STALE:
        answer(command->result, ERR_SEQUENCE_STALE, "", 0);
        return false;
    case SESSION_REUSED:
        answer(command->result, ERR_SEQUENCE_REUSED, "", 0);
        return false;
    case SESSION_FULL:
        answer(command->result, ERR_BUSY, "", 0);
        return false;
    }
    UNREACHABLE();
}

static void apply_create(struct config_state *state, struct bytes body)
{
    struct reader reader = reader_of(body);
    uint64_t shard_count = get_varint(&reader);
    if (state->history == NULL && reader_done(&reader) && shard_count >= 1 &&
        shard_count <= SHARD_COUNT_MAX) {
        state->history = history_create((uint32_t)shard_count);
    }
}

bool config_state_apply(struct config_state *state, const struct sm_command *command)
{
    struct reader reader = reader_of(command->payload);
    uint8_t kind = get_u8(&reader);
    struct bytes body = get_bytes(&reader, reader_left(&reader));
    if (kind == CONFIG_COMMAND_CREATE) {
        apply_create(state, body);
        return state->history != NULL && history_latest(state->history)->number == 0;
    }
    /* The service checked it before it was proposed; a log is judged all the same. */
    struct change *change = mem_calloc(1, sizeof *change);
    struct msg_request_header *header = NULL;
    bool changed = false;
    int error = kind > CONFIG_COMMAND_UPDATE_MEMBERS
                    ? ERR_UNSUPPORTED
                    : change_decode((enum config_command)kind, body, change, &header);
    if (error == 0) {
        changed = apply_change(state, command, change, header);
        change_deinit(change);
    } else {
        answer(command->result, error, "", 0);
    }
    free(change);
    return changed;
}

/* ---- encoding
 * --------------------------------------------------------------------------------------------- */

void config_state_encode(const struct config_state *state, struct buf *out)
{
    size_t start = out->size;
    put_u32(out, STATE_MAGIC);
    put_u8(out, STATE_VERSION);
    put_u64(out, state->applied.index);
    put_u64(out, state->applied.term);
    if (state->history == NULL) {
        put_varint(out, 0);
    } else {
        history_encode(state->history, out); /* begins with its count, which is at least 1 */
    }
    put_varint(out, state->session_count);
    struct buf session;
    buf_init(&session);
    for (size_t i = 0; i < state->session_count; i++) {
        put_u64(out, state->sessions[i].client_id);
        buf_clear(&session);
        session_encode(&state->sessions[i].session, &session);
        put_sized(out, buf_view(&session));
    }
    buf_deinit(&session);
    put_u32(out, crc32c_extend(0, out->data + start, out->size - start));
}

static int decode_sessions(struct reader *reader, struct config_state *state)
{
    uint64_t count = get_varint(reader);
    if (count > CONFIG_SESSIONS_MAX) {
        return ERR_CORRUPT;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t client_id = get_u64(reader);
        struct bytes bytes = get_sized(reader, SESSION_ENCODED_BYTES_MAX);
        if (reader->failed || session_slot(state, client_id) != state->session_count) {
            return ERR_CORRUPT; /* not ascending */
        }
        insert_session(state, state->session_count, client_id);
        if (session_decode(bytes, &state->sessions[i].session) != 0) {
            return ERR_CORRUPT;
        }
    }
    return 0;
}

int config_state_decode(struct bytes bytes, struct config_state *state)
{
    if (bytes.size < sizeof(uint32_t)) {
        return ERR_CORRUPT;
    }
    size_t body_size = bytes.size - sizeof(uint32_t);
    if (crc32c_extend(0, bytes.data, body_size) != load_u32(bytes.data + body_size)) {
        return ERR_CORRUPT;
    }
    struct config_state decoded;
    config_state_init(&decoded);
    struct reader reader = reader_of(bytes_of(bytes.data, body_size));
    bool known = get_u32(&reader) == STATE_MAGIC;
    uint8_t version = get_u8(&reader);
    if (known && !reader.failed && version != STATE_VERSION) {
        config_state_deinit(&decoded);
        return ERR_UNSUPPORTED;
    }
    decoded.applied.index = get_u64(&reader);
    decoded.applied.term = get_u64(&reader);
    struct reader ahead = reader;
    int error = known && !reader.failed ? 0 : ERR_CORRUPT;
    if (error == 0 && get_varint(&ahead) == 0) {
        reader = ahead; /* not created yet */
    } else if (error == 0) {
        error = history_decode(&reader, &decoded.history);
    }
    if (error == 0) {
        error = decode_sessions(&reader, &decoded);
    }
    if (error != 0 || !reader_done(&reader)) {
        config_state_deinit(&decoded);
        return ERR_CORRUPT;
    }
    config_state_deinit(state);
    *state = decoded;
    return 0;
}

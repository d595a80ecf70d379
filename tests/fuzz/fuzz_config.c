/* Configs and the controller's state. First byte:
 *
 *   0  a Config as bytes: what decodes encodes to the same, and Join, Leave, Move and UpdateMembers
 *      with anything for arguments make configs that decode
 *   1  a controller's state as bytes, its checksum set right: what decodes encodes to the same, and
 *      every config of its history can be had and decodes
 *   2  commands applied one after the other, as a log may hold them; then the state as in 1 */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "proto/messages.h"
#include "shardctrler/config_machine.h"
#include "shardctrler/config_state.h"
#include "shardctrler/transition.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const size_t fuzz_input_bytes_max = 4096;

enum { STEPS_MAX = 40, NEW_GROUPS_MAX = 3, LEAVERS_MAX = 3, GETS_MAX = 200 };

/* A config that others will get must be one they take. */
static void check_travels(const struct config *config)
{
    struct buf first;
    struct buf second;
    struct config *decoded = NULL;
    buf_init(&first);
    buf_init(&second);
    config_encode(config, &first);
    int error = config_decode(buf_view(&first), &decoded);
    ASSERT(error == 0);
    config_encode(decoded, &second);
    ASSERT(bytes_equal(buf_view(&first), buf_view(&second)));
    config_free(decoded);
    buf_deinit(&first);
    buf_deinit(&second);
}

static void draw_group(struct reader *input, struct config_group *group)
{
    memset(group, 0, sizeof *group);
    group->id = fuzz_choice(input, 8);
    group->members_index = fuzz_choice(input, 8);
    group->replica_count = fuzz_choice(input, 4);
    for (uint32_t i = 0; i < group->replica_count; i++) {
        uint8_t what = get_u8(input);
        group->replicas[i].id = what % 5;
        snprintf(group->replicas[i].address, sizeof group->replicas[i].address,
                 (what & 128) != 0 ? "h:%u" : "host", (unsigned)(what & 127) + 1);
    }
}

/* NULL: refused, with words, or nothing to change. */
static struct config *change(const struct config *config, struct reader *input)
{
    struct config *next = NULL;
    char why[200] = "";
    int error;
    bool may_keep = false;
    switch (fuzz_choice(input, 4)) {
    case 0: {
        struct config_group groups[NEW_GROUPS_MAX];
        size_t count = fuzz_choice(input, NEW_GROUPS_MAX + 1);
        for (size_t i = 0; i < count; i++) {
            draw_group(input, &groups[i]);
        }
        error = transition_join(config, groups, count, &next, why, sizeof why);
        break;
    }
    case 1: {
        uint64_t ids[LEAVERS_MAX];
        size_t count = fuzz_choice(input, LEAVERS_MAX + 1);
        for (size_t i = 0; i < count; i++) {
            ids[i] = fuzz_choice(input, 8);
        }
        error = transition_leave(config, ids, count, fuzz_choice(input, 2) == 1, &next, why,
                                 sizeof why);
        break;
    }
    case 2: {
        struct config_group members;
        draw_group(input, &members);
        members.departed = fuzz_choice(input, 2) == 1;
        error = transition_update_members(config, &members, &next, why, sizeof why);
        may_keep = true;
        break;
    }
    default:
        error = transition_move(config, fuzz_choice(input, 32), fuzz_choice(input, 8), &next, why,
                                sizeof why);
        break;
    }
    ASSERT(error == 0 || next == NULL);
    ASSERT(error != 0 || next != NULL || may_keep);
    ASSERT(error == 0 || why[0] != '\0');
    return next;
}

static void fuzz_config_bytes(struct reader *input)
{
    struct config *config = NULL;
    struct bytes bytes = fuzz_take(input, get_u16(input));
    if (config_decode(bytes, &config) != 0) {
        return;
    }
    ASSERT_CMP(config->shard_count, <=, SHARD_COUNT_MAX);
    check_travels(config);
    for (int i = 0; i < STEPS_MAX && reader_left(input) > 0 && config->number < UINT64_MAX; i++) {
        struct config *next = change(config, input);
        if (next != NULL) {
            ASSERT_CMP(next->number, ==, config->number + 1);
            check_travels(next);
            config_free(config);
            config = next;
        }
    }
    config_free(config);
}

static void check_history(const struct history *history)
{
    uint64_t latest = history_latest(history)->number;
    for (uint64_t number = 0; number <= latest && number < GETS_MAX; number++) {
        struct config *config = NULL;
        int error = history_get(history, number, &config);
        ASSERT(error == 0);
        ASSERT_CMP(config->number, ==, number);
        check_travels(config);
        config_free(config);
    }
}

static void check_state(const struct config_state *state)
{
    struct buf first;
    struct buf second;
    struct config_state again;
    buf_init(&first);
    buf_init(&second);
    config_state_init(&again);
    config_state_encode(state, &first);
    int error = config_state_decode(buf_view(&first), &again);
    ASSERT(error == 0);
    config_state_encode(&again, &second);
    ASSERT(bytes_equal(buf_view(&first), buf_view(&second)));
    if (again.history != NULL) {
        check_history(again.history);
    }
    config_state_deinit(&again);
    buf_deinit(&first);
    buf_deinit(&second);
}

static void fuzz_state_bytes(struct reader *input)
{
    struct buf bytes;
    struct config_state state;
    buf_init(&bytes);
    config_state_init(&state);
    buf_append_bytes(&bytes, fuzz_take(input, fuzz_input_bytes_max));
    put_u32(&bytes, crc32c_extend(0, bytes.data, bytes.size));
    if (config_state_decode(buf_view(&bytes), &state) == 0) {
        check_state(&state);
    }
    config_state_deinit(&state);
    buf_deinit(&bytes);
}

static void draw_command(struct reader *input, struct buf *out)
{
    struct msg_request_header header = {.client_id = fuzz_choice(input, 4),
                                        .sequence = fuzz_number(input),
                                        .acked_below = fuzz_choice(input, 16),
                                        .age_ms = fuzz_choice(input, 2) * fuzz_number(input)};
    uint32_t kind = fuzz_choice(input, 7);
    put_u8(out, (uint8_t)kind);
    switch (kind) {
    case CONFIG_COMMAND_CREATE:
        put_varint(out, 1 + fuzz_choice(input, 20));
        break;
    case CONFIG_COMMAND_JOIN: {
        struct config_group groups[NEW_GROUPS_MAX];
        struct msg_join_request join = {.header = header, .groups = groups};
        join.group_count = fuzz_choice(input, NEW_GROUPS_MAX + 1);
        for (uint32_t i = 0; i < join.group_count; i++) {
            draw_group(input, &groups[i]);
        }
        msg_join_request_encode(&join, out);
        break;
    }
    case CONFIG_COMMAND_LEAVE: {
        struct msg_leave_request *leave = mem_calloc(1, sizeof *leave);
        leave->header = header;
        leave->force = fuzz_choice(input, 2) == 1;
        leave->group_count = fuzz_choice(input, LEAVERS_MAX + 1);
        for (uint32_t i = 0; i < leave->group_count; i++) {
            leave->group_ids[i] = fuzz_choice(input, 8);
        }
        msg_leave_request_encode(leave, out);
        free(leave);
        break;
    }
    case CONFIG_COMMAND_MOVE: {
        struct msg_move_request move = {
            .header = header, .shard = fuzz_choice(input, 32), .group_id = fuzz_choice(input, 8)};
        msg_move_request_encode(&move, out);
        break;
    }
    case CONFIG_COMMAND_UPDATE_MEMBERS: {
        struct msg_update_members_request update = {.header = header};
        draw_group(input, &update.group);
        update.group.departed = fuzz_choice(input, 2) == 1;
        msg_update_members_request_encode(&update, out);
        break;
    }
    default:
        buf_append_bytes(out, fuzz_take(input, get_u8(input)));
        break;
    }
}

static void fuzz_commands(struct reader *input)
{
    struct config_state state;
    config_state_init(&state);
    uint64_t time_ms = 1000;
    for (uint64_t index = 1; index <= STEPS_MAX && reader_left(input) > 0; index++) {
        struct buf payload;
        struct buf result;
        buf_init(&payload);
        buf_init(&result);
        draw_command(input, &payload);
        time_ms += fuzz_choice(input, 2) * 1000;
        struct sm_command command = {.position = {index, 1},
                                     .time_ms = time_ms,
                                     .payload = buf_view(&payload),
                                     .result = &result};
        uint64_t before = state.history != NULL ? history_latest(state.history)->number : 0;
        bool made = config_state_apply(&state, &command);
        uint64_t after = state.history != NULL ? history_latest(state.history)->number : 0;
        ASSERT(after == before || made);
        ASSERT_CMP(after - before, <=, 1);
        state.applied = command.position;
        buf_deinit(&payload);
        buf_deinit(&result);
    }
    check_state(&state);
    config_state_deinit(&state);
}

void fuzz_one(struct bytes input)
{
    struct reader reader = reader_of(input);
    switch (fuzz_choice(&reader, 3)) {
    case 0:
        fuzz_config_bytes(&reader);
        break;
    case 1:
        fuzz_state_bytes(&reader);
        break;
    default:
        fuzz_commands(&reader);
        break;
    }
}

/* ---- seeds ---- */

static struct config *seed_config(uint64_t number)
{
    struct config *config = config_create(0, 10);
    char why[200];
    for (uint64_t i = 1; i <= number; i++) {
        struct config *next = NULL;
        struct config_group group = {.id = 1 + i % 5, .replica_count = 1};
        group.replicas[0].id = 1;
        snprintf(group.replicas[0].address, sizeof group.replicas[0].address, "h:%u",
                 (unsigned)group.id);
        uint64_t id = group.id;
        bool listed = config_find_group(config, id) != NULL;
        int error;
        if (listed && i % 2 == 0) {
            group.members_index = i;
            group.replicas[0].id = i;
            error = transition_update_members(config, &group, &next, why, sizeof why);
        } else {
            error = listed ? transition_leave(config, &id, 1, true, &next, why, sizeof why)
                           : transition_join(config, &group, 1, &next, why, sizeof why);
        }
        if (error != 0) {
            error = transition_move(config, (uint32_t)i % 10, config->groups[0].id, &next, why,
                                    sizeof why);
        }
        if (error == 0) {
            config_free(config);
            config = next;
        }
    }
    return config;
}

/* Of so many joins, with a session or none, and of one group that has other members since. */
static void seed_state(uint64_t configs, struct buf *out)
{
    struct config_state state;
    config_state_init(&state);
    for (uint64_t index = 1; index <= configs + 2; index++) {
        struct buf payload;
        buf_init(&payload);
        put_u8(&payload, index == 1             ? CONFIG_COMMAND_CREATE
                         : index == configs + 2 ? CONFIG_COMMAND_UPDATE_MEMBERS
                                                : CONFIG_COMMAND_JOIN);
        struct config_group group = {.id = index, .replica_count = 1};
        group.replicas[0].id = 1;
        snprintf(group.replicas[0].address, sizeof group.replicas[0].address, "h:%u",
                 (unsigned)index);
        struct msg_join_request join = {.header = {.client_id = index % 3, .sequence = index},
                                        .group_count = 1,
                                        .groups = &group};
        if (index == 1) {
            put_varint(&payload, 4);
        } else if (index == configs + 2) {
            struct msg_update_members_request update = {.group = group};
            update.group.id = 2;
            update.group.members_index = 9;
            msg_update_members_request_encode(&update, &payload);
        } else {
            msg_join_request_encode(&join, &payload);
        }
        struct sm_command command = {
            .position = {index, 1}, .time_ms = 5, .payload = buf_view(&payload)};
        (void)config_state_apply(&state, &command);
        buf_deinit(&payload);
    }
    config_state_encode(&state, out);
    out->size -= 4; /* the checksum */
    config_state_deinit(&state);
}

bool fuzz_seed(uint32_t index, struct buf *out)
{
    put_u8(out, (uint8_t)(index % 3));
    if (index % 3 == 0) {
        struct buf bytes;
        buf_init(&bytes);
        struct config *config = seed_config(index);
        config_encode(config, &bytes);
        config_free(config);
        put_u16(out, (uint16_t)bytes.size);
        buf_append_bytes(out, buf_view(&bytes));
        buf_deinit(&bytes);
    } else if (index % 3 == 1) {
        seed_state(index, out);
    }
    for (uint32_t i = 0; index % 3 != 1 && i < 30 * index; i++) {
        put_u8(out, (uint8_t)(i * 5 + index));
    }
    return index < 12;
}

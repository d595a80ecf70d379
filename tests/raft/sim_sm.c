/* A list of commands, ascending by index. Thread: one. */
#include "raft/sim_sm.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"

#include <stdlib.h>

void sim_sm_init(struct sim_sm *sm)
{
    *sm = (struct sim_sm){0};
}

void sim_sm_deinit(struct sim_sm *sm)
{
    free(sm->commands);
    *sm = (struct sim_sm){0};
}

struct blob *sim_command_make(uint64_t value, size_t size)
{
    ASSERT_CMP(size, >=, sizeof value);
    uint8_t *data;
    struct blob *blob = blob_alloc(size, &data);
    store_u64(data, value);
    for (size_t i = sizeof value; i < size; i++) {
        data[i] = (uint8_t)(value + i);
    }
    return blob;
}

static void add(struct sim_sm *sm, const struct sim_command *command)
{
    if (sm->count == sm->capacity) {
        sm->capacity = sm->capacity == 0 ? 64 : sm->capacity * 2;
        sm->commands = mem_realloc(sm->commands, sm->capacity * sizeof sm->commands[0]);
    }
    sm->commands[sm->count++] = *command;
}

void sim_sm_apply(struct sim_sm *sm, const struct raft_entry *entry)
{
    ASSERT_CMP(entry->position.index, ==, sm->applied.index + 1);
    if (entry->kind == RAFT_ENTRY_COMMAND) {
        ASSERT_CMP(entry->data.size, >=, sizeof(uint64_t));
        struct sim_command command = {.position = entry->position,
                                      .value = load_u64(entry->data.data),
                                      .checksum =
                                          crc32c_extend(0, entry->data.data, entry->data.size)};
        add(sm, &command);
    }
    sm->applied = entry->position;
}

const struct sim_command *sim_sm_find(const struct sim_sm *sm, uint64_t index)
{
    size_t low = 0;
    size_t high = sm->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sm->commands[middle].position.index < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool found = low < sm->count && sm->commands[low].position.index == index;
    return found ? &sm->commands[low] : NULL;
}

struct blob *sim_sm_encode(const struct sim_sm *sm)
{
    struct buf out;
    buf_init(&out);
    put_u64(&out, sm->applied.index);
    put_u64(&out, sm->applied.term);
    put_varint(&out, sm->count);
    for (size_t i = 0; i < sm->count; i++) {
        const struct sim_command *command = &sm->commands[i];
        put_varint(&out, command->position.index);
        put_varint(&out, command->position.term);
        put_varint(&out, command->value);
        put_u32(&out, command->checksum);
    }
    put_u32(&out, crc32c_extend(0, out.data, out.size));
    return blob_take_buf(&out);
}

int sim_sm_restore(struct sim_sm *sm, struct bytes bytes)
{
    struct sim_sm next;
    sim_sm_init(&next);
    struct reader reader = reader_of(bytes);
    next.applied.index = get_u64(&reader);
    next.applied.term = get_u64(&reader);
    uint64_t count = get_varint(&reader);
    for (uint64_t i = 0; i < count && !reader.failed; i++) {
        struct sim_command command;
        command.position.index = get_varint(&reader);
        command.position.term = get_varint(&reader);
        command.value = get_varint(&reader);
        command.checksum = get_u32(&reader);
        add(&next, &command);
    }
    uint32_t checksum = get_u32(&reader);
    if (!reader_done(&reader) ||
        checksum != crc32c_extend(0, bytes.data, bytes.size - sizeof checksum)) {
        sim_sm_deinit(&next);
        return ERR_CORRUPT;
    }
    sim_sm_deinit(sm);
    *sm = next;
    return 0;
}

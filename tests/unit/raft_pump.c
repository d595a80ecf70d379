/* See raft_pump.h. */
#include "unit/raft_pump.h"

#include "base/assert.h"

#include <stdio.h>

/* --- messages --- */

static struct raft_entry *entries_keep(const struct raft_entry *entries, size_t count)
{
    struct raft_entry *kept = mem_dup(entries, count * sizeof(entries[0]));
    for (size_t i = 0; i < count; i++) {
        blob_ref(kept[i].owner);
    }
    return kept;
}

static void entries_drop(struct raft_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        blob_unref(entries[i].owner);
    }
    free(entries);
}

static void messages_push(struct pump_messages *messages, const struct raft_message *message)
{
    if (messages->count == messages->capacity) {
        messages->capacity = messages->capacity * 2 + 8;
        messages->items =
            mem_realloc(messages->items, messages->capacity * sizeof(messages->items[0]));
    }
    struct pump_message *kept = &messages->items[messages->count++];
    *kept = (struct pump_message){.message = *message};
    kept->entries = entries_keep(message->entries, message->entry_count);
    kept->message.entries = kept->entries;
    if (message->snapshot != NULL) {
        kept->snapshot = mem_dup(message->snapshot, sizeof(*message->snapshot));
        kept->message.snapshot = kept->snapshot;
    }
    blob_ref(message->chunk_owner);
}

static void message_drop(struct pump_message *message)
{
    entries_drop(message->entries, message->message.entry_count);
    free(message->snapshot);
    blob_unref(message->message.chunk_owner);
}

static void messages_clear(struct pump_messages *messages)
{
    for (size_t i = 0; i < messages->count; i++) {
        message_drop(&messages->items[i]);
    }
    free(messages->items);
    *messages = (struct pump_messages){.count = 0};
}

static uint8_t snapshot_byte(uint64_t id, uint64_t offset)
{
    return (uint8_t)(id * 31 + offset);
}

static void fill_chunk(struct pump *pump, struct raft_message *message)
{
    uint64_t left = message->snapshot->size_bytes - message->chunk_offset;
    uint32_t most = pump->nodes[message->from].options.chunk_bytes_max;
    size_t size = left < most ? (size_t)left : most;
    uint8_t *data;
    assert_true(raft_core_snapshot_in_use(pump->nodes[message->from].core, message->snapshot->id));
    message->chunk_owner = blob_alloc(size, &data);
    for (size_t i = 0; i < size; i++) {
        data[i] = snapshot_byte(message->snapshot->id, message->chunk_offset + i);
    }
    message->chunk = blob_view(message->chunk_owner);
}

static void send_message(struct pump *pump, const struct raft_message *sent)
{
    struct raft_message message = *sent;
    pump->sent_count++;
    pump->sent_of_kind[message.kind]++;
    for (size_t i = 0; i < message.entry_count; i++) {
        pump->sent_entry_bytes += message.entries[i].data.size;
    }
    if (message.kind == RAFT_MSG_SNAPSHOT) {
        fill_chunk(pump, &message);
    }
    messages_push(&pump->wire, &message);
    if (message.kind == RAFT_MSG_SNAPSHOT) {
        blob_unref(message.chunk_owner);
    }
}

struct raft_message pump_message(enum raft_message_kind kind, uint64_t from, uint64_t to,
                                 uint64_t term)
{
    return (struct raft_message){.kind = kind, .from = from, .to = to, .term = term};
}

struct raft_entry pump_entry(uint64_t index, uint64_t term, const char *text)
{
    return (struct raft_entry){.position = {index, term},
                               .kind = RAFT_ENTRY_COMMAND,
                               .data = bytes_of_string(text),
                               .owner = NULL};
}

struct pump_message *pump_find(struct pump *pump, enum raft_message_kind kind, uint64_t to)
{
    for (size_t i = pump->wire.count; i > 0; i--) {
        struct pump_message *message = &pump->wire.items[i - 1];
        if (message->message.kind == kind && (to == 0 || message->message.to == to)) {
            return message;
        }
    }
    return NULL;
}

void pump_drop_wire(struct pump *pump)
{
    messages_clear(&pump->wire);
}

void pump_drop_kind(struct pump *pump, enum raft_message_kind kind)
{
    size_t kept = 0;
    for (size_t i = 0; i < pump->wire.count; i++) {
        if (pump->wire.items[i].message.kind == kind) {
            message_drop(&pump->wire.items[i]);
        } else {
            pump->wire.items[kept++] = pump->wire.items[i];
        }
    }
    pump->wire.count = kept;
}

/* --- disks --- */

static uint64_t disk_last(const struct pump_node *node)
{
    return node->snapshot.position.index + node->log_count;
}

static void disk_truncate(struct pump_node *node, uint64_t from)
{
    while (node->log_count > 0 && disk_last(node) >= from) {
        blob_unref(node->log[node->log_count - 1].owner);
        node->log_count--;
    }
}

static void disk_install(struct pump_node *node, const struct raft_snapshot *snapshot)
{
    assert_int_equal(node->staged_id, snapshot->id);
    assert_int_equal(node->staged_bytes, snapshot->size_bytes);
    disk_truncate(node, 0);
    node->snapshot = *snapshot;
    node->staged_id = 0;
    node->applied = snapshot->position.index;
}

static void disk_chunk(struct pump_node *node, const struct pump_write *write)
{
    if (write->write.chunk_offset == 0) {
        node->staged_bytes = 0;
        node->staged_id = write->chunk_snapshot->id;
    }
    assert_int_equal(node->staged_id, write->chunk_snapshot->id);
    assert_int_equal(node->staged_bytes, write->write.chunk_offset);
    for (size_t i = 0; i < write->write.chunk.size; i++) {
        assert_int_equal(write->write.chunk.data[i],
                         snapshot_byte(node->staged_id, node->staged_bytes + i));
    }
    node->staged_bytes += write->write.chunk.size;
}

static bool disk_write(struct pump_node *node, const struct pump_write *write)
{
    bool installed = true;
    if (write->chunk_snapshot != NULL) {
        disk_chunk(node, write);
    }
    if (write->install != NULL) {
        installed = node->installs_damaged == 0;
        node->installs_damaged -= installed ? 0 : 1;
        if (installed) {
            disk_install(node, write->install);
        }
    }
    if (write->write.truncate_from != 0) {
        disk_truncate(node, write->write.truncate_from);
    }
    for (size_t i = 0; i < write->write.entry_count; i++) {
        if (node->log_count == node->log_capacity) {
            node->log_capacity = node->log_capacity * 2 + 16;
            node->log = mem_realloc(node->log, node->log_capacity * sizeof(node->log[0]));
        }
        assert_int_equal(write->entries[i].position.index, disk_last(node) + 1);
        node->log[node->log_count++] = write->entries[i];
        blob_ref(write->entries[i].owner);
    }
    if (write->write.hard_state_changed) {
        node->hard_state = write->write.hard_state;
    }
    return installed;
}

static void write_free(struct pump_write *write)
{
    entries_drop(write->entries, write->write.entry_count);
    free(write->chunk_snapshot);
    free(write->install);
    blob_unref(write->write.chunk_owner);
    messages_clear(&write->held);
}

static void write_keep(struct pump_node *node, const struct raft_ready *ready)
{
    if (node->write_count == node->write_capacity) {
        node->write_capacity = node->write_capacity * 2 + 8;
        node->writes = mem_realloc(node->writes, node->write_capacity * sizeof(node->writes[0]));
    }
    struct pump_write *write = &node->writes[node->write_count++];
    *write = (struct pump_write){.write = ready->write};
    write->entries = entries_keep(ready->write.entries, ready->write.entry_count);
    if (ready->write.chunk_snapshot != NULL) {
        write->chunk_snapshot = mem_dup(ready->write.chunk_snapshot, sizeof(struct raft_snapshot));
        blob_ref(ready->write.chunk_owner);
    } else {
        assert_null(ready->write.chunk_owner);
    }
    if (ready->write.install != NULL) {
        write->install = mem_dup(ready->write.install, sizeof(struct raft_snapshot));
    }
    for (size_t i = 0; i < ready->held_count; i++) {
        messages_push(&write->held, &ready->held[i]);
    }
}

/* --- applying --- */

static uint64_t hash_of(const struct raft_entry *entry)
{
    uint64_t hash = 1469598103934665603u + (uint64_t)entry->kind;
    for (size_t i = 0; i < entry->data.size; i++) {
        hash = (hash ^ entry->data.data[i]) * 1099511628211u;
    }
    return hash;
}

static void apply_entry(struct pump *pump, struct pump_node *node, const struct raft_entry *entry)
{
    uint64_t index = entry->position.index;
    assert_int_equal(index, node->applied + 1);
    assert_true(index < PUMP_INDEX_MAX);
    if (index > pump->truth_last) {
        assert_int_equal(index, pump->truth_last + 1);
        pump->truth[index] = entry->position;
        pump->truth_hash[index] = hash_of(entry);
        pump->truth_last = index;
    }
    assert_int_equal(pump->truth[index].term, entry->position.term);
    assert_true(pump->truth_hash[index] == hash_of(entry));
    node->applied = index;
}

/* Only what is durable here is applied, from the disk, as a replica does. */
static void apply_all(struct pump *pump, struct pump_node *node)
{
    struct raft_status status;
    raft_core_status(node->core, &status);
    uint64_t limit = status.commit < status.durable ? status.commit : status.durable;
    limit = limit < disk_last(node) ? limit : disk_last(node);
    if (node->applied < node->snapshot.position.index || status.applied > node->applied) {
        return;
    }
    while (node->applied < limit) {
        apply_entry(pump, node, &node->log[node->applied - node->snapshot.position.index]);
    }
    if (node->applied > status.applied) {
        raft_core_applied(node->core, node->applied);
        raft_core_check(node->core);
    }
}

/* --- the pump --- */

static void answer_load(struct pump_node *node, struct raft_load load)
{
    uint64_t first = node->snapshot.position.index + 1;
    if (load.index < first || node->log_gone) {
        raft_core_entries_loaded(node->core, load.peer, NULL, 0);
        return;
    }
    size_t at = (size_t)(load.index - first);
    size_t count = 0;
    uint64_t bytes = 0;
    while (at + count < node->log_count && (count == 0 || bytes < load.bytes_max)) {
        bytes += raft_entry_bytes(&node->log[at + count]);
        count++;
    }
    if (count > 0) {
        raft_core_entries_loaded(node->core, load.peer, &node->log[at], count);
    }
}

void pump_collect(struct pump *pump, uint64_t id)
{
    struct pump_node *node = &pump->nodes[id];
    struct raft_ready ready;
    raft_core_check(node->core);
    while (raft_core_ready(node->core, &ready)) {
        struct raft_load loads[RAFT_MEMBERS_MAX];
        size_t load_count = ready.load_count;
        for (size_t i = 0; i < load_count; i++) {
            loads[i] = ready.loads[i];
        }
        for (size_t i = 0; i < ready.message_count; i++) {
            send_message(pump, &ready.messages[i]);
        }
        if (ready.write.seq != 0) {
            write_keep(node, &ready);
        } else {
            assert_int_equal(ready.held_count, 0);
        }
        for (size_t i = 0; i < ready.read_count; i++) {
            assert_true(node->read_count < PUMP_READS_MAX);
            node->reads[node->read_count++] = ready.reads[i];
        }
        assert_true(ready.commit >= node->commit_seen);
        node->commit_seen = ready.commit;
        raft_core_accept(node->core);
        raft_core_check(node->core);
        for (size_t i = 0; i < load_count; i++) {
            answer_load(node, loads[i]);
            raft_core_check(node->core);
        }
        apply_all(pump, node);
    }
}

void pump_sync(struct pump *pump, uint64_t id, size_t count)
{
    struct pump_node *node = &pump->nodes[id];
    count = count < node->write_count ? count : node->write_count;
    for (size_t i = 0; i < count; i++) {
        struct pump_write *write = &node->writes[i];
        if (!disk_write(node, write)) {
            raft_core_install_failed(node->core, write->write.seq);
        }
        for (size_t h = 0; h < write->held.count; h++) {
            send_message(pump, &write->held.items[h].message);
        }
        raft_core_persisted(node->core, write->write.seq);
        raft_core_check(node->core);
        if (write->install != NULL && node->snapshot.id == write->install->id) {
            raft_core_applied(node->core, write->install->position.index);
        }
        write_free(write);
        apply_all(pump, node);
    }
    if (count == 0) {
        return;
    }
    node->write_count -= count;
    memmove(node->writes, node->writes + count, node->write_count * sizeof(node->writes[0]));
    pump_collect(pump, id);
}

void pump_step(struct pump *pump, const struct raft_message *message)
{
    raft_core_step(pump->nodes[message->to].core, message);
    pump_collect(pump, message->to);
}

void pump_deliver_one(struct pump *pump)
{
    assert_true(pump->wire.count > 0);
    struct pump_message message = pump->wire.items[0];
    pump->wire.count--;
    memmove(pump->wire.items, pump->wire.items + 1, pump->wire.count * sizeof(pump->wire.items[0]));
    uint64_t to = message.message.to;
    assert_in_range(to, 1, PUMP_NODES_MAX);
    if (pump->nodes[to].core != NULL && !pump->cut[message.message.from][to]) {
        pump_step(pump, &message.message);
    }
    message_drop(&message);
}

void pump_settle(struct pump *pump)
{
    bool moved = true;
    for (size_t rounds = 0; moved; rounds++) {
        assert_true(rounds < 200000);
        moved = false;
        for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
            struct pump_node *node = &pump->nodes[id];
            if (node->core == NULL) {
                continue;
            }
            pump_collect(pump, id);
            if (!node->disk_waits && node->write_count > 0) {
                pump_sync(pump, id, node->write_count);
                moved = true;
            }
        }
        if (pump->wire.count > 0) {
            pump_deliver_one(pump);
            moved = true;
        }
    }
}

void pump_tick(struct pump *pump, uint64_t id)
{
    raft_core_tick(pump->nodes[id].core);
    pump_collect(pump, id);
}

void pump_tick_all(struct pump *pump, size_t ticks)
{
    for (size_t i = 0; i < ticks; i++) {
        for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
            if (pump->nodes[id].core != NULL) {
                pump_tick(pump, id);
            }
        }
        pump_settle(pump);
    }
}

/* --- lives --- */

static void keep_trace(void *context, const char *line)
{
    struct pump *pump = context;
    char prefix[24];
    if (pump->on_trace != NULL) {
        pump->on_trace(line);
    }
    int length = snprintf(prefix, sizeof(prefix), "id=%llu ", (unsigned long long)pump->traced);
    size_t size = strlen(line);
    if (strncmp(line, prefix, (size_t)length) == 0 &&
        size + 2 < sizeof(pump->trace) - pump->trace_size) {
        memcpy(pump->trace + pump->trace_size, line, size);
        pump->trace_size += size;
        pump->trace[pump->trace_size++] = '\n';
        pump->trace[pump->trace_size] = '\0';
    }
}

static void node_start(struct pump *pump, uint64_t id)
{
    struct pump_node *node = &pump->nodes[id];
    struct raft_position *runs = mem_calloc(node->log_count + 1, sizeof(runs[0]));
    struct raft_membership *members = mem_calloc(node->log_count + 1, sizeof(members[0]));
    size_t run_count = 0;
    size_t member_count = 0;
    for (size_t i = 0; i < node->log_count; i++) {
        const struct raft_entry *entry = &node->log[i];
        if (run_count == 0 || runs[run_count - 1].term != entry->position.term) {
            runs[run_count++] = entry->position;
        }
        if (entry->kind == RAFT_ENTRY_MEMBERSHIP) {
            assert_int_equal(raft_membership_decode(entry->data, &members[member_count]), ERR_OK);
            members[member_count++].position = entry->position;
        }
    }
    size_t tail = node->log_count < 3 ? node->log_count : 3; /* the rest has to be loaded */
    struct raft_core_state state = {
        .hard_state = node->hard_state,
        .snapshot = node->snapshot,
        .log_start = node->snapshot.position,
        .log_last =
            node->log_count > 0 ? node->log[node->log_count - 1].position : node->snapshot.position,
        .term_runs = runs,
        .term_run_count = run_count,
        .memberships = members,
        .membership_count = member_count,
        .applied = node->applied,
        .tail = tail > 0 ? node->log + (node->log_count - tail) : NULL,
        .tail_count = tail,
    };
    char why[128] = "";
    node->options.seed = ++pump->seed;
    int error = raft_core_create(&node->options, &state, &node->core, why, sizeof(why));
    if (error != ERR_OK) {
        fail_msg("replica %u: %s", (unsigned)id, why);
    }
    free(runs);
    free(members);
    raft_core_set_trace(node->core, keep_trace, pump);
    node->commit_seen = 0;
    raft_core_check(node->core);
    apply_all(pump, node);
}

static struct raft_membership voters_membership(size_t voters)
{
    struct raft_membership membership = {.count = (uint32_t)voters};
    for (size_t i = 0; i < voters; i++) {
        membership.members[i].id = i + 1;
        membership.members[i].role = RAFT_VOTER;
        snprintf(membership.members[i].address, RAFT_ADDRESS_BYTES_MAX, "node:%u",
                 (unsigned)(i + 1));
    }
    return membership;
}

struct pump *pump_create(size_t voters, void (*change)(struct raft_core_options *options))
{
    struct pump *pump = mem_calloc(1, sizeof(*pump));
    pump->bootstrap = voters_membership(voters);
    for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
        struct pump_node *node = &pump->nodes[id];
        node->options = raft_core_options_default(id, id);
        if (change != NULL) {
            change(&node->options);
        }
        if (id <= voters) {
            node->snapshot.membership = pump->bootstrap;
            node_start(pump, id);
        }
    }
    return pump;
}

void pump_add_blank(struct pump *pump, uint64_t id)
{
    assert_null(pump->nodes[id].core);
    node_start(pump, id);
}

void pump_crash(struct pump *pump, uint64_t id)
{
    struct pump_node *node = &pump->nodes[id];
    for (size_t i = 0; i < node->write_count; i++) {
        write_free(&node->writes[i]);
    }
    node->write_count = 0;
    node->staged_id = 0;
    node->read_count = 0;
    raft_core_destroy(node->core);
    node->core = NULL;
}

void pump_restart(struct pump *pump, uint64_t id)
{
    if (pump->nodes[id].core != NULL) {
        pump_crash(pump, id);
    }
    node_start(pump, id);
    pump_collect(pump, id);
}

void pump_destroy(struct pump *pump)
{
    for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
        struct pump_node *node = &pump->nodes[id];
        if (node->core != NULL) {
            pump_crash(pump, id);
        }
        disk_truncate(node, 0);
        free(node->log);
        free(node->writes);
    }
    pump_drop_wire(pump);
    free(pump);
}

void pump_isolate(struct pump *pump, uint64_t id, bool cut)
{
    for (uint64_t other = 1; other <= PUMP_NODES_MAX; other++) {
        pump->cut[id][other] = cut;
        pump->cut[other][id] = cut;
    }
}

/* --- shortcuts --- */

struct raft_status pump_status(const struct pump *pump, uint64_t id)
{
    struct raft_status status;
    raft_core_status(pump->nodes[id].core, &status);
    return status;
}

size_t pump_voter_count(const struct pump *pump, uint64_t id)
{
    struct raft_status status = pump_status(pump, id);
    return raft_membership_voter_count(&status.membership);
}

struct raft_progress pump_progress(const struct pump *pump, uint64_t leader, uint64_t id)
{
    struct raft_progress rows[RAFT_MEMBERS_MAX];
    size_t count = raft_core_progress(pump->nodes[leader].core, rows);
    for (size_t i = 0; i < count; i++) {
        if (rows[i].id == id) {
            return rows[i];
        }
    }
    fail_msg("replica %u has no progress of %u", (unsigned)leader, (unsigned)id);
    return rows[0];
}

void pump_elect(struct pump *pump, uint64_t id)
{
    for (size_t i = 0; i < 100 && pump_status(pump, id).state != RAFT_LEADER; i++) {
        pump_tick(pump, id);
        pump_settle(pump);
    }
    assert_int_equal(pump_status(pump, id).state, RAFT_LEADER);
}

uint64_t pump_wait_leader(struct pump *pump)
{
    for (size_t i = 0; i < 500; i++) {
        pump_tick_all(pump, 1);
        for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
            if (pump->nodes[id].core != NULL && pump_status(pump, id).read_ready) {
                size_t followers = 0;
                size_t voters = pump_voter_count(pump, id);
                for (uint64_t other = 1; other <= PUMP_NODES_MAX; other++) {
                    followers += pump->nodes[other].core != NULL &&
                                 pump_status(pump, other).leader == id &&
                                 pump_status(pump, other).term == pump_status(pump, id).term;
                }
                if (followers > voters / 2) {
                    return id;
                }
            }
        }
    }
    fail_msg("no leader after 500 ticks");
    return 0;
}

struct raft_position pump_propose(struct pump *pump, uint64_t id, const char *text)
{
    struct blob *owner = blob_copy(bytes_of_string(text));
    struct raft_position position;
    assert_int_equal(raft_core_propose(pump->nodes[id].core, blob_view(owner), owner, &position),
                     ERR_OK);
    blob_unref(owner);
    pump_collect(pump, id);
    return position;
}

struct raft_position pump_commit(struct pump *pump, uint64_t id, const char *text)
{
    struct raft_position position = pump_propose(pump, id, text);
    pump_settle(pump);
    assert_true(pump->nodes[id].applied >= position.index);
    return position;
}

struct raft_snapshot pump_snapshot(struct pump *pump, uint64_t id, uint64_t snapshot_id,
                                   uint64_t size)
{
    struct pump_node *node = &pump->nodes[id];
    struct raft_snapshot *snapshot = &node->offered;
    snapshot->position = pump->truth[node->applied];
    assert_true(raft_core_membership_at(node->core, node->applied, &snapshot->membership));
    snapshot->size_bytes = size;
    snapshot->id = snapshot_id;
    raft_core_snapshot_made(node->core, snapshot);
    raft_core_check(node->core);
    return *snapshot;
}

void pump_compact(struct pump *pump, uint64_t id, uint64_t index)
{
    struct pump_node *node = &pump->nodes[id];
    raft_core_compact(node->core, index);
    raft_core_check(node->core);
    struct raft_position start = pump_status(pump, id).log_start;
    uint64_t base = node->snapshot.position.index;
    if (start.index <= base) {
        return;
    }
    size_t gone = (size_t)(start.index - base);
    assert_true(gone <= node->log_count);
    for (size_t i = 0; i < gone; i++) {
        blob_unref(node->log[i].owner);
    }
    node->log_count -= gone;
    memmove(node->log, node->log + gone, node->log_count * sizeof(node->log[0]));
    node->snapshot.position = start;
    assert_true(raft_core_membership_at(node->core, start.index, &node->snapshot.membership));
}

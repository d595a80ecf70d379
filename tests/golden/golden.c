/* See golden.h. The replicas, wire and disks are those of unit/raft_pump.h, which also checks the
 * core's invariants after every input; this file reads commands and tells what changed. Thread:
 * one. */
#include "golden/golden.h"

#include "golden/golden_internal.h"

#include <stdio.h>

struct link {
    uint64_t from; /* 0: anyone */
    uint64_t to;
    const char *kind; /* NULL: any */
};

/* "1->2", "*->2", "1->*" */
static struct link link_of(const struct golden *golden, size_t at)
{
    const char *text = golden__word(golden, at);
    const char *arrow = strstr(text, "->");
    if (arrow == NULL) {
        golden__wrong(golden, "a link is from->to");
    }
    struct link link = {.kind = NULL};
    link.from = *text == '*' ? 0 : golden__replica_id(golden, text);
    link.to = arrow[2] == '*' ? 0 : golden__replica_id(golden, arrow + 2);
    return link;
}

static void tell_error(struct golden *golden, int error)
{
    if (error != ERR_OK) {
        buf_printf(&golden->out, "    refused: %s\n", err_name(error));
    }
}

/* --- the wire --- */

/* The n-th message of the link, from 1. */
static bool wire_find(const struct golden *golden, struct link link, size_t nth, size_t *at)
{
    const struct pump_messages *wire = &golden->pump->wire;
    for (size_t i = 0; i < wire->count; i++) {
        const struct raft_message *message = &wire->items[i].message;
        if ((link.from == 0 || link.from == message->from) &&
            (link.to == 0 || link.to == message->to) &&
            (link.kind == NULL || strcmp(link.kind, show_kind(message->kind)) == 0) && --nth == 0) {
            *at = i;
            return true;
        }
    }
    return false;
}

static void wire_to_front(struct golden *golden, size_t at)
{
    struct pump_message *items = golden->pump->wire.items;
    struct pump_message message = items[at];
    memmove(items + 1, items, at * sizeof(items[0]));
    items[0] = message;
}

/* `keep`: the network will deliver it once more. */
static void deliver(struct golden *golden, size_t at, bool keep)
{
    struct pump *pump = golden->pump;
    struct raft_message message = pump->wire.items[at].message;
    bool lost = pump->nodes[message.to].core == NULL || pump->cut[message.from][message.to];
    buf_printf(&golden->out, "    %llu %s %s from %llu\n", LLU(message.to),
               lost ? "never gets" : "gets", show_kind(message.kind), LLU(message.from));
    struct golden_before before = golden__watch(golden, message.to);
    if (keep && !lost) {
        pump_step(pump, &message);
    } else {
        wire_to_front(golden, at);
        pump_deliver_one(pump);
        before.wire--;
    }
    if (!lost) {
        golden__tell(golden, message.to, before, 0, 0);
    }
}

static void drop(struct golden *golden, size_t at)
{
    struct pump *pump = golden->pump;
    struct raft_message message = pump->wire.items[at].message;
    bool was_cut = pump->cut[message.from][message.to];
    pump->cut[message.from][message.to] = true;
    deliver(golden, at, false);
    pump->cut[message.from][message.to] = was_cut;
}

/* "deliver|drop all", "deliver|drop 1->2 [kind] [nth=2] [x3|all] [keep]" */
static void command_wire(struct golden *golden)
{
    bool lose = strcmp(golden__word(golden, 0), "drop") == 0;
    struct link link = {.from = 0};
    size_t most = STEPS_MAX;
    if (strcmp(golden__word(golden, 1), "all") != 0) {
        link = link_of(golden, 1);
        most = golden__flag(golden, "all") ? STEPS_MAX : golden__times(golden, 1);
        for (int kind = RAFT_MSG_PREVOTE; kind <= RAFT_MSG_TIMEOUT_NOW; kind++) {
            const char *name = show_kind((enum raft_message_kind)kind);
            link.kind = golden__flag(golden, name) ? name : link.kind;
        }
    }
    size_t nth = (size_t)golden__option_number(golden, "nth", 1);
    /* "all" are those under way now, not the answers to them */
    size_t under_way = golden->pump->wire.count;
    size_t at;
    size_t done = 0;
    for (; done < most && wire_find(golden, link, nth, &at) && at < under_way; done++) {
        bool keep = golden__flag(golden, "keep");
        if (lose) {
            drop(golden, at);
        } else {
            deliver(golden, at, keep);
        }
        under_way -= keep ? 0 : 1;
        if (keep) {
            return;
        }
    }
    if (done == 0) {
        buf_printf(&golden->out, "    nothing under way\n");
    }
}

/* --- disks --- */

static void persist_one(struct golden *golden, uint64_t id)
{
    struct pump_node *node = &golden->pump->nodes[id];
    size_t released = node->writes[0].held.count;
    uint64_t seq = node->writes[0].write.seq;
    struct golden_before before = golden__watch(golden, id);
    before.writes--;
    buf_printf(&golden->out, "    %llu persisted #%llu\n", LLU(id), LLU(seq));
    pump_sync(golden->pump, id, 1);
    golden__tell(golden, id, before, released, seq);
}

static bool persist(struct golden *golden, uint64_t id, size_t most)
{
    size_t count = golden->pump->nodes[id].write_count;
    count = count < most ? count : most;
    for (size_t i = 0; i < count; i++) {
        persist_one(golden, id);
    }
    return count > 0;
}

static bool persist_everywhere(struct golden *golden)
{
    bool moved = false;
    for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
        moved = persist(golden, id, SIZE_MAX) || moved;
    }
    return moved;
}

static void command_persist(struct golden *golden)
{
    bool moved = strcmp(golden__word(golden, 1), "all") == 0
                     ? persist_everywhere(golden)
                     : persist(golden, golden__live_id(golden, 1), golden__times(golden, SIZE_MAX));
    if (!moved) {
        buf_printf(&golden->out, "    nothing to persist\n");
    }
}

static void settle(struct golden *golden)
{
    for (size_t steps = 0; golden->pump->wire.count > 0 || persist_everywhere(golden); steps++) {
        if (steps > STEPS_MAX) {
            golden__wrong(golden, "this never settles");
        }
        if (golden->pump->wire.count > 0) {
            deliver(golden, 0, false);
        }
    }
}

/* --- lives --- */

static void command_cluster(struct golden *golden)
{
    size_t voters = (size_t)golden__option_number(golden, "voters", 3);
    size_t learners = (size_t)golden__option_number(golden, "learners", 0);
    if (voters == 0 || voters + learners > PUMP_NODES_MAX || golden->pump != NULL) {
        golden__wrong(golden, "one cluster of 1..8 replicas");
    }
    struct pump *pump = pump_create(voters + learners, NULL);
    golden->pump = pump;
    for (size_t i = voters; i < voters + learners; i++) {
        pump->bootstrap.members[i].role = RAFT_LEARNER;
    }
    pump->seed = golden__option_number(golden, "seed", 100);
    for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
        struct pump_node *node = &pump->nodes[id];
        struct raft_core_options *options = &node->options;
        node->disk_waits = true;
        options->append_bytes_max =
            golden__option_number(golden, "append", options->append_bytes_max);
        options->inflight_bytes_max =
            golden__option_number(golden, "inflight", options->inflight_bytes_max);
        options->cache_bytes_max = golden__option_number(golden, "cache", options->cache_bytes_max);
        options->chunk_bytes_max =
            (uint32_t)golden__option_number(golden, "chunk", options->chunk_bytes_max);
        options->heartbeat_ticks = (uint32_t)golden__option_number(golden, "heartbeat", 1);
        options->lease_reads = golden__flag(golden, "lease");
        if (id <= voters + learners) {
            node->snapshot.membership = pump->bootstrap;
            pump_restart(pump, id);
        }
    }
}

/* "disk 1 term=5 [vote=2] [commit=1] log=1,1,2": starts 1 anew from a disk that holds this. */
static void command_disk(struct golden *golden)
{
    uint64_t id = golden__live_id(golden, 1);
    struct pump_node *node = &golden->pump->nodes[id];
    pump_crash(golden->pump, id);
    if (node->log_count > 0) {
        golden__wrong(golden, "the disk is not empty");
    }
    const char *terms = golden__option(golden, "log");
    node->log_capacity = LINE_BYTES_MAX;
    node->log = mem_realloc(node->log, node->log_capacity * sizeof(node->log[0]));
    while (terms != NULL && *terms != '\0') {
        node->log[node->log_count] =
            pump_entry(node->log_count + 1, golden__number(golden, &terms), "");
        node->log_count++;
        terms += *terms == ',' ? 1 : 0;
    }
    node->hard_state =
        (struct raft_hard_state){.term = golden__option_number(golden, "term", 0),
                                 .voted_for = golden__option_number(golden, "vote", 0),
                                 .commit = golden__option_number(golden, "commit", 0)};
    struct golden_before before = golden__watch(golden, id);
    pump_restart(golden->pump, id);
    golden__tell(golden, id, before, 0, 0);
}

static void command_life(struct golden *golden)
{
    uint64_t id = golden__replica_id(golden, golden__word(golden, 1));
    struct golden_before before = golden__watch(golden, id);
    before.writes = 0;
    if (strcmp(golden__word(golden, 0), "crash") == 0) {
        size_t lost = golden->pump->nodes[golden__live_id(golden, 1)].write_count;
        pump_crash(golden->pump, id);
        buf_printf(&golden->out, "    %llu is down; writes lost: %zu\n", LLU(id), lost);
        return;
    }
    if (strcmp(golden__word(golden, 0), "blank") == 0) {
        pump_add_blank(golden->pump, id);
    } else {
        pump_restart(golden->pump, id);
    }
    golden__tell(golden, id, before, 0, 0);
    show_status(&golden->out, golden->pump, id);
}

/* "tick 1 [x3]", "campaign 1": ticks until it asks for votes */
static void command_tick(struct golden *golden)
{
    uint64_t id = golden__live_id(golden, 1);
    bool campaign = strcmp(golden__word(golden, 0), "campaign") == 0;
    size_t count = campaign ? CAMPAIGN_TICKS : golden__times(golden, 1);
    for (size_t i = 1; i <= count; i++) {
        struct golden_before before = golden__watch(golden, id);
        size_t said = golden->out.size;
        pump_tick(golden->pump, id);
        golden__tell(golden, id, before, 0, 0);
        if (campaign && strstr(golden->pump->trace, "candidate term=") != NULL) {
            return;
        }
        if (!campaign && count > 1 && golden->out.size > said) {
            buf_printf(&golden->out, "    (tick %zu)\n", i);
        }
    }
    if (campaign) {
        buf_printf(&golden->out, "    %llu does not campaign\n", LLU(id));
    }
}

/* "cut 1->2", "heal 1->2", "heal all" */
static void command_cut(struct golden *golden)
{
    bool cut = strcmp(golden__word(golden, 0), "cut") == 0;
    struct link link = {.from = 0};
    if (strcmp(golden__word(golden, 1), "all") != 0) {
        link = link_of(golden, 1);
    }
    for (uint64_t from = 1; from <= PUMP_NODES_MAX; from++) {
        for (uint64_t to = 1; to <= PUMP_NODES_MAX; to++) {
            if ((link.from == 0 || link.from == from) && (link.to == 0 || link.to == to)) {
                golden->pump->cut[from][to] = cut;
            }
        }
    }
}

/* --- what a client or an owner asks --- */

/* "propose 1 text", "propose 1 bytes=500" */
static void command_propose(struct golden *golden)
{
    uint64_t id = golden__live_id(golden, 1);
    const char *text = golden__word(golden, 2);
    struct buf data;
    buf_init(&data);
    size_t size = (size_t)golden__option_number(golden, "bytes", 0);
    for (size_t i = 0; i < size; i++) {
        buf_append(&data, "x", 1);
    }
    if (size == 0) {
        buf_append(&data, text, strlen(text));
    }
    struct blob *owner = blob_take_buf(&data);
    struct raft_position at;
    struct golden_before before = golden__watch(golden, id);
    tell_error(golden,
               raft_core_propose(golden->pump->nodes[id].core, blob_view(owner), owner, &at));
    blob_unref(owner);
    if (!golden__flag(golden, "more")) { /* else it shares its output with the next input */
        golden__collect_and_tell(golden, id, before);
    }
}

/* "change 1 add-learner|promote|add-voter|remove 4" */
static void command_change(struct golden *golden)
{
    static const struct {
        const char *name;
        enum raft_change_kind kind;
    } kinds[] = {{"add-learner", RAFT_ADD_LEARNER},
                 {"promote", RAFT_PROMOTE},
                 {"add-voter", RAFT_ADD_VOTER},
                 {"remove", RAFT_REMOVE}};
    uint64_t id = golden__live_id(golden, 1);
    struct raft_change change = {.id = golden__replica_id(golden, golden__word(golden, 3)),
                                 .address = NULL};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        change.kind =
            strcmp(kinds[i].name, golden__word(golden, 2)) == 0 ? kinds[i].kind : change.kind;
    }
    char address[32];
    snprintf(address, sizeof(address), "node:%llu", LLU(change.id));
    if (change.kind == RAFT_ADD_LEARNER || change.kind == RAFT_ADD_VOTER) {
        change.address = address;
    }
    struct raft_position at;
    struct golden_before before = golden__watch(golden, id);
    tell_error(golden, raft_core_propose_change(golden->pump->nodes[id].core, &change, &at));
    golden__collect_and_tell(golden, id, before);
}

/* read, transfer, unreachable: one core, one number */
static void command_ask(struct golden *golden)
{
    uint64_t id = golden__live_id(golden, 1);
    struct raft_core *core = golden->pump->nodes[id].core;
    struct golden_before before = golden__watch(golden, id);
    if (strcmp(golden__word(golden, 0), "read") == 0) {
        uint64_t context = ++golden->read_count;
        buf_printf(&golden->out, "    this is read %llu\n", LLU(context));
        tell_error(golden, raft_core_read(core, context));
    } else if (strcmp(golden__word(golden, 0), "transfer") == 0) {
        uint64_t target =
            golden->word_count > 2 ? golden__replica_id(golden, golden__word(golden, 2)) : 0;
        tell_error(golden, raft_core_transfer(core, target));
    } else {
        raft_core_unreachable(core, golden__replica_id(golden, golden__word(golden, 2)));
    }
    if (!golden__flag(golden, "more")) {
        golden__collect_and_tell(golden, id, before);
    }
}

/* "snapshot 1 [bytes=100]" of what is applied; "compact 1 5"; "damage 3": its next install */
static void command_snapshot(struct golden *golden)
{
    uint64_t id = golden__live_id(golden, 1);
    struct golden_before before = golden__watch(golden, id);
    if (strcmp(golden__word(golden, 0), "snapshot") == 0) {
        pump_snapshot(golden->pump, id, ++golden->snapshot_count,
                      golden__option_number(golden, "bytes", 100));
    } else if (strcmp(golden__word(golden, 0), "compact") == 0) {
        const char *index = golden__word(golden, 2);
        pump_compact(golden->pump, id, golden__number(golden, &index));
    } else {
        golden->pump->nodes[id].installs_damaged++;
        return;
    }
    golden__collect_and_tell(golden, id, before);
}

/* --- messages made by hand --- */

static size_t hand_entries(struct golden *golden, struct raft_entry entries[ENTRIES_MAX])
{
    const char *text = golden__option(golden, "entries");
    size_t count = 0;
    while (text != NULL && *text != '\0' && count < ENTRIES_MAX) {
        struct raft_position at = golden__position(golden, &text);
        size_t size = *text == ':' ? strcspn(text + 1, ",") : 0;
        text += *text == ':' ? 1 : 0;
        struct blob *owner = blob_copy(bytes_of(text, size));
        entries[count] = pump_entry(at.index, at.term, "");
        entries[count].data = blob_view(owner);
        entries[count++].owner = owner;
        text += size;
        text += *text == ',' ? 1 : 0;
    }
    return count;
}

static void hand_chunk(struct golden *golden, struct raft_message *message,
                       struct raft_snapshot *snapshot)
{
    *snapshot = (struct raft_snapshot){.position = golden__option_position(golden, "at"),
                                       .membership = golden->pump->bootstrap,
                                       .size_bytes = golden__option_number(golden, "bytes", 100),
                                       .id = golden__option_number(golden, "id", 1)};
    message->snapshot = snapshot;
    message->chunk_offset = golden__option_number(golden, "offset", 0);
    size_t size = (size_t)golden__option_number(golden, "chunk", snapshot->size_bytes);
    uint8_t *data;
    message->chunk_owner = blob_alloc(size, &data);
    for (size_t i = 0; i < size; i++) { /* the bytes that the pump's disks expect */
        data[i] = (uint8_t)(snapshot->id * 31 + message->chunk_offset + i);
    }
    message->chunk = blob_view(message->chunk_owner);
}

/* "message append 2->1 term=3 at=4/2 commit=5 entries=5/3:text,6/3": arrives now; `at` is prev,
 * last, match or the snapshot's position, whichever the kind has. */
static void command_message(struct golden *golden)
{
    struct link link = link_of(golden, 2);
    int kind = RAFT_MSG_PREVOTE;
    while (strcmp(show_kind((enum raft_message_kind)kind), golden__word(golden, 1)) != 0) {
        if (++kind > RAFT_MSG_TIMEOUT_NOW) {
            golden__wrong(golden, "no such kind of message");
        }
    }
    struct raft_entry entries[ENTRIES_MAX];
    struct raft_snapshot snapshot;
    struct raft_message message = pump_message((enum raft_message_kind)kind, link.from, link.to,
                                               golden__option_number(golden, "term", 0));
    message.position = golden__option_position(golden, "at");
    message.commit = golden__option_number(golden, "commit", 0);
    message.reject = golden__flag(golden, "refused");
    message.leader_transfer = golden__flag(golden, "transfer");
    message.hint = golden__option_position(golden, "hint");
    message.read_round = golden__option_number(golden, "round", 0);
    message.entry_count = hand_entries(golden, entries);
    message.entries = entries;
    if (message.kind == RAFT_MSG_SNAPSHOT) {
        hand_chunk(golden, &message, &snapshot);
    } else if (message.kind == RAFT_MSG_SNAPSHOT_REPLY) {
        message.snapshot_id = golden__option_number(golden, "id", 1);
        message.chunk_offset = golden__option_number(golden, "offset", 0);
    }
    struct golden_before before = golden__watch(golden, link.to);
    pump_step(golden->pump, &message);
    golden__tell(golden, link.to, before, 0, 0);
    for (size_t i = 0; i < message.entry_count; i++) {
        blob_unref(entries[i].owner);
    }
    blob_unref(message.chunk_owner);
}

static void command_status(struct golden *golden)
{
    bool log = strcmp(golden__word(golden, 0), "log") == 0;
    for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
        bool known = golden->pump->nodes[id].options.seed >= 100;
        if (golden->word_count > 1 ? id == golden__replica_id(golden, golden__word(golden, 1))
                                   : known) {
            (log ? show_log : show_status)(&golden->out, golden->pump, id);
        }
    }
}

static const struct {
    const char *name;
    void (*run)(struct golden *golden);
} COMMANDS[] = {
    {"cluster", command_cluster},
    {"disk", command_disk},
    {"blank", command_life},
    {"crash", command_life},
    {"restart", command_life},
    {"tick", command_tick},
    {"campaign", command_tick},
    {"deliver", command_wire},
    {"drop", command_wire},
    {"cut", command_cut},
    {"heal", command_cut},
    {"persist", command_persist},
    {"settle", settle},
    {"propose", command_propose},
    {"change", command_change},
    {"read", command_ask},
    {"transfer", command_ask},
    {"unreachable", command_ask},
    {"compact", command_snapshot},
    {"snapshot", command_snapshot},
    {"damage", command_snapshot},
    {"message", command_message},
    {"status", command_status},
    {"log", command_status},
};

static void command(struct golden *golden)
{
    bool quiet = strcmp(golden__word(golden, 0), "quiet") == 0;
    if (quiet) {
        golden->word_count--;
        memmove(golden->words, golden->words + 1, golden->word_count * sizeof(golden->words[0]));
    }
    if ((golden->pump == NULL) != (strcmp(golden__word(golden, 0), "cluster") == 0)) {
        golden__wrong(golden, "a script begins with one cluster");
    }
    size_t said = golden->out.size;
    for (size_t i = 0; i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++) {
        if (strcmp(COMMANDS[i].name, golden__word(golden, 0)) == 0) {
            COMMANDS[i].run(golden);
            golden->out.size = quiet ? said : golden->out.size;
            return;
        }
    }
    golden__wrong(golden, "no such command");
}

static void command_line(struct golden *golden, const char *line, size_t size)
{
    if (size >= sizeof(golden->words_text)) {
        golden__wrong(golden, "the line is too long");
    }
    memcpy(golden->words_text, line, size);
    golden->words_text[size] = '\0';
    golden->word_count = 0;
    char *rest = golden->words_text;
    for (char *text; (text = strtok_r(rest, " ", &rest)) != NULL;) {
        if (golden->word_count == WORDS_MAX) {
            golden__wrong(golden, "too many words");
        }
        golden->words[golden->word_count++] = text;
    }
    command(golden);
}

void golden_run(const char *file, const char *script, struct buf *out)
{
    struct golden golden = {.file = file};
    buf_init(&golden.out);
    bool answer = false; /* the lines behind a command are its old output */
    for (const char *line = script; *line != '\0';) {
        size_t size = strcspn(line, "\n");
        golden.line++;
        answer = answer && strncmp(line, "    ", 4) == 0;
        if (!answer) {
            buf_append(&golden.out, line, size);
            buf_append(&golden.out, "\n", 1);
        }
        if (strncmp(line, "> ", 2) == 0) {
            command_line(&golden, line + 2, size - 2);
            answer = true;
        }
        line += size + (line[size] == '\n' ? 1 : 0);
    }
    if (golden.pump != NULL) {
        pump_destroy(golden.pump);
    }
    buf_append(&golden.out, "", 1);
    *out = golden.out;
}

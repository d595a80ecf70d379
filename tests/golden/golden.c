/* See golden.h. The replicas, wire and disks are those of unit/raft_pump.h, which also checks the
 * core's invariants after every input; this file reads commands and tells what changed. Thread:
 * one. */
#include "golden/golden.h"

#include "golden/show.h"

#include <stdio.h>

#define LLU(x) ((unsigned long long)(x))

enum {
    WORDS_MAX = 24,
    LINE_BYTES_MAX = 1024,
    STEPS_MAX = 5000,    /* of one command; more is a script that never ends */
    CAMPAIGN_TICKS = 64, /* over twice the longest election timeout */
    ENTRIES_MAX = 16,
};

struct golden {
    struct pump *pump;
    struct buf out; /* the script as it should be */
    const char *file;
    size_t line;
    char words_text[LINE_BYTES_MAX];
    const char *words[WORDS_MAX];
    size_t word_count;
    uint64_t read_count;     /* contexts given out */
    uint64_t snapshot_count; /* ids given out */
};

static void wrong(const struct golden *golden, const char *what)
{
    fprintf(stderr, "%s:%zu: %s\n", golden->file, golden->line, what);
    exit(2);
}

/* --- words of a command --- */

static const char *word(const struct golden *golden, size_t at)
{
    if (at >= golden->word_count) {
        wrong(golden, "a word is missing");
    }
    return golden->words[at];
}

static uint64_t number(const struct golden *golden, const char **text)
{
    char *end;
    uint64_t value = strtoull(*text, &end, 10);
    if (end == *text) {
        wrong(golden, "a number is missing");
    }
    *text = end;
    return value;
}

/* The value of `key=`, or NULL. */
static const char *option(const struct golden *golden, const char *key)
{
    size_t size = strlen(key);
    for (size_t i = 0; i < golden->word_count; i++) {
        if (strncmp(golden->words[i], key, size) == 0 && golden->words[i][size] == '=') {
            return golden->words[i] + size + 1;
        }
    }
    return NULL;
}

static uint64_t option_number(const struct golden *golden, const char *key, uint64_t otherwise)
{
    const char *text = option(golden, key);
    return text == NULL ? otherwise : number(golden, &text);
}

static struct raft_position position(const struct golden *golden, const char **text)
{
    struct raft_position result = {.index = number(golden, text)};
    if (**text != '/') {
        wrong(golden, "a position is index/term");
    }
    (*text)++;
    result.term = number(golden, text);
    return result;
}

static struct raft_position option_position(const struct golden *golden, const char *key)
{
    const char *text = option(golden, key);
    return text == NULL ? (struct raft_position){0, 0} : position(golden, &text);
}

static bool flag(const struct golden *golden, const char *name)
{
    for (size_t i = 0; i < golden->word_count; i++) {
        if (strcmp(golden->words[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* "x3" anywhere in the command. */
static size_t times(const struct golden *golden, size_t otherwise)
{
    for (size_t i = 1; i < golden->word_count; i++) {
        const char *text = golden->words[i] + 1;
        if (golden->words[i][0] == 'x' && *text >= '0' && *text <= '9') {
            return (size_t)number(golden, &text);
        }
    }
    return otherwise;
}

static uint64_t replica_id(const struct golden *golden, const char *text)
{
    uint64_t id = number(golden, &text);
    if (golden->pump == NULL || id == 0 || id > PUMP_NODES_MAX) {
        wrong(golden, "no such replica");
    }
    return id;
}

static uint64_t live_id(const struct golden *golden, size_t at)
{
    uint64_t id = replica_id(golden, word(golden, at));
    if (golden->pump->nodes[id].core == NULL) {
        wrong(golden, "that replica is down");
    }
    return id;
}

struct link {
    uint64_t from; /* 0: anyone */
    uint64_t to;
    const char *kind; /* NULL: any */
};

/* "1->2", "*->2", "1->*" */
static struct link link_of(const struct golden *golden, size_t at)
{
    const char *text = word(golden, at);
    const char *arrow = strstr(text, "->");
    if (arrow == NULL) {
        wrong(golden, "a link is from->to");
    }
    struct link link = {.kind = NULL};
    link.from = *text == '*' ? 0 : replica_id(golden, text);
    link.to = arrow[2] == '*' ? 0 : replica_id(golden, arrow + 2);
    return link;
}

/* --- telling what an input did --- */

struct before {
    size_t wire;
    size_t writes;
    uint64_t applied;
};

static struct before watch(struct golden *golden, uint64_t id)
{
    struct pump *pump = golden->pump;
    pump->traced = id;
    pump->trace_size = 0;
    pump->trace[0] = '\0';
    return (struct before){pump->wire.count, pump->nodes[id].write_count, pump->nodes[id].applied};
}

static void tell_trace(struct golden *golden, uint64_t id)
{
    const char *line = golden->pump->trace;
    for (const char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        const char *text = strchr(line, ' ') + 1; /* behind "id=1" */
        buf_printf(&golden->out, "    %llu: %.*s\n", LLU(id), (int)(end - text), text);
    }
}

static void tell_applied(struct golden *golden, uint64_t id, uint64_t from)
{
    const struct pump_node *node = &golden->pump->nodes[id];
    for (uint64_t i = from + 1; i <= node->applied; i++) {
        if (i > node->snapshot.position.index) {
            buf_printf(&golden->out, "    %llu applies ", LLU(id));
            show_entry(&golden->out, &node->log[i - node->snapshot.position.index - 1]);
            buf_printf(&golden->out, "\n");
        } else if (i == node->snapshot.position.index) {
            buf_printf(&golden->out, "    %llu restores snapshot at %llu/%llu\n", LLU(id), LLU(i),
                       LLU(node->snapshot.position.term));
        }
    }
}

/* `released`: how many of the messages now on the wire waited for write `seq`. */
static void tell(struct golden *golden, uint64_t id, struct before before, size_t released,
                 uint64_t seq)
{
    struct pump *pump = golden->pump;
    struct pump_node *node = &pump->nodes[id];
    struct buf *out = &golden->out;
    tell_trace(golden, id);
    tell_applied(golden, id, before.applied);
    for (size_t i = before.wire; i < pump->wire.count; i++) {
        const struct raft_message *message = &pump->wire.items[i].message;
        buf_printf(out, "    %llu -> %llu ", LLU(message->from), LLU(message->to));
        show_message(out, message);
        if (i < before.wire + released) {
            buf_printf(out, " (held by #%llu)", LLU(seq));
        }
        buf_printf(out, "\n");
    }
    for (size_t i = before.writes; i < node->write_count; i++) {
        buf_printf(out, "    %llu writes ", LLU(id));
        show_write(out, &node->writes[i]);
        buf_printf(out, "\n");
    }
    for (size_t i = 0; i < node->read_count; i++) {
        const struct raft_read_ready *read = &node->reads[i];
        buf_printf(out, "    %llu read %llu ", LLU(id), LLU(read->context));
        if (read->error == ERR_OK) {
            buf_printf(out, "may be served once %llu is applied\n", LLU(read->index));
        } else {
            buf_printf(out, "fails: %s\n", err_name(read->error));
        }
    }
    node->read_count = 0;
}

/* After an input that was given to the core directly. */
static void collect_and_tell(struct golden *golden, uint64_t id, struct before before)
{
    pump_collect(golden->pump, id);
    tell(golden, id, before, 0, 0);
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
    struct before before = watch(golden, message.to);
    if (keep && !lost) {
        pump_step(pump, &message);
    } else {
        wire_to_front(golden, at);
        pump_deliver_one(pump);
        before.wire--;
    }
    if (!lost) {
        tell(golden, message.to, before, 0, 0);
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
    bool lose = strcmp(word(golden, 0), "drop") == 0;
    struct link link = {.from = 0};
    size_t most = STEPS_MAX;
    if (strcmp(word(golden, 1), "all") != 0) {
        link = link_of(golden, 1);
        most = flag(golden, "all") ? STEPS_MAX : times(golden, 1);
        for (int kind = RAFT_MSG_PREVOTE; kind <= RAFT_MSG_TIMEOUT_NOW; kind++) {
            const char *name = show_kind((enum raft_message_kind)kind);
            link.kind = flag(golden, name) ? name : link.kind;
        }
    }
    size_t nth = (size_t)option_number(golden, "nth", 1);
    /* "all" are those under way now, not the answers to them */
    size_t under_way = golden->pump->wire.count;
    size_t at;
    size_t done = 0;
    for (; done < most && wire_find(golden, link, nth, &at) && at < under_way; done++) {
        bool keep = flag(golden, "keep");
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
    struct before before = watch(golden, id);
    before.writes--;
    buf_printf(&golden->out, "    %llu persisted #%llu\n", LLU(id), LLU(seq));
    pump_sync(golden->pump, id, 1);
    tell(golden, id, before, released, seq);
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
    bool moved = strcmp(word(golden, 1), "all") == 0
                     ? persist_everywhere(golden)
                     : persist(golden, live_id(golden, 1), times(golden, SIZE_MAX));
    if (!moved) {
        buf_printf(&golden->out, "    nothing to persist\n");
    }
}

static void settle(struct golden *golden)
{
    for (size_t steps = 0; golden->pump->wire.count > 0 || persist_everywhere(golden); steps++) {
        if (steps > STEPS_MAX) {
            wrong(golden, "this never settles");
        }
        if (golden->pump->wire.count > 0) {
            deliver(golden, 0, false);
        }
    }
}

/* --- lives --- */

static void command_cluster(struct golden *golden)
{
    size_t voters = (size_t)option_number(golden, "voters", 3);
    size_t learners = (size_t)option_number(golden, "learners", 0);
    if (voters == 0 || voters + learners > PUMP_NODES_MAX || golden->pump != NULL) {
        wrong(golden, "one cluster of 1..8 replicas");
    }
    struct pump *pump = pump_create(voters + learners, NULL);
    golden->pump = pump;
    for (size_t i = voters; i < voters + learners; i++) {
        pump->bootstrap.members[i].role = RAFT_LEARNER;
    }
    pump->seed = option_number(golden, "seed", 100);
    for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
        struct pump_node *node = &pump->nodes[id];
        struct raft_core_options *options = &node->options;
        node->disk_waits = true;
        options->append_bytes_max = option_number(golden, "append", options->append_bytes_max);
        options->chunk_bytes_max =
            (uint32_t)option_number(golden, "chunk", options->chunk_bytes_max);
        options->heartbeat_ticks = (uint32_t)option_number(golden, "heartbeat", 1);
        options->lease_reads = flag(golden, "lease");
        if (id <= voters + learners) {
            node->snapshot.membership = pump->bootstrap;
            pump_restart(pump, id);
        }
    }
}

/* "disk 1 term=5 [vote=2] [commit=1] log=1,1,2": starts 1 anew from a disk that holds this. */
static void command_disk(struct golden *golden)
{
    uint64_t id = live_id(golden, 1);
    struct pump_node *node = &golden->pump->nodes[id];
    pump_crash(golden->pump, id);
    if (node->log_count > 0) {
        wrong(golden, "the disk is not empty");
    }
    const char *terms = option(golden, "log");
    node->log_capacity = LINE_BYTES_MAX;
    node->log = mem_realloc(node->log, node->log_capacity * sizeof(node->log[0]));
    while (terms != NULL && *terms != '\0') {
        node->log[node->log_count] = pump_entry(node->log_count + 1, number(golden, &terms), "");
        node->log_count++;
        terms += *terms == ',' ? 1 : 0;
    }
    node->hard_state = (struct raft_hard_state){.term = option_number(golden, "term", 0),
                                                .voted_for = option_number(golden, "vote", 0),
                                                .commit = option_number(golden, "commit", 0)};
    struct before before = watch(golden, id);
    pump_restart(golden->pump, id);
    tell(golden, id, before, 0, 0);
}

static void command_life(struct golden *golden)
{
    uint64_t id = replica_id(golden, word(golden, 1));
    struct before before = watch(golden, id);
    before.writes = 0;
    if (strcmp(word(golden, 0), "crash") == 0) {
        size_t lost = golden->pump->nodes[live_id(golden, 1)].write_count;
        pump_crash(golden->pump, id);
        buf_printf(&golden->out, "    %llu is down; writes lost: %zu\n", LLU(id), lost);
        return;
    }
    if (strcmp(word(golden, 0), "blank") == 0) {
        pump_add_blank(golden->pump, id);
    } else {
        pump_restart(golden->pump, id);
    }
    tell(golden, id, before, 0, 0);
    show_status(&golden->out, golden->pump, id);
}

/* "tick 1 [x3]", "campaign 1": ticks until it asks for votes */
static void command_tick(struct golden *golden)
{
    uint64_t id = live_id(golden, 1);
    bool campaign = strcmp(word(golden, 0), "campaign") == 0;
    size_t count = campaign ? CAMPAIGN_TICKS : times(golden, 1);
    for (size_t i = 1; i <= count; i++) {
        struct before before = watch(golden, id);
        size_t said = golden->out.size;
        pump_tick(golden->pump, id);
        tell(golden, id, before, 0, 0);
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
    bool cut = strcmp(word(golden, 0), "cut") == 0;
    struct link link = {.from = 0};
    if (strcmp(word(golden, 1), "all") != 0) {
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
    uint64_t id = live_id(golden, 1);
    const char *text = word(golden, 2);
    struct buf data;
    buf_init(&data);
    size_t size = (size_t)option_number(golden, "bytes", 0);
    for (size_t i = 0; i < size; i++) {
        buf_append(&data, "x", 1);
    }
    if (size == 0) {
        buf_append(&data, text, strlen(text));
    }
    struct blob *owner = blob_take_buf(&data);
    struct raft_position at;
    struct before before = watch(golden, id);
    tell_error(golden,
               raft_core_propose(golden->pump->nodes[id].core, blob_view(owner), owner, &at));
    blob_unref(owner);
    if (!flag(golden, "more")) { /* else it shares its output with the next input */
        collect_and_tell(golden, id, before);
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
    uint64_t id = live_id(golden, 1);
    struct raft_change change = {.id = replica_id(golden, word(golden, 3)), .address = NULL};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        change.kind = strcmp(kinds[i].name, word(golden, 2)) == 0 ? kinds[i].kind : change.kind;
    }
    char address[32];
    snprintf(address, sizeof(address), "node:%llu", LLU(change.id));
    if (change.kind == RAFT_ADD_LEARNER || change.kind == RAFT_ADD_VOTER) {
        change.address = address;
    }
    struct raft_position at;
    struct before before = watch(golden, id);
    tell_error(golden, raft_core_propose_change(golden->pump->nodes[id].core, &change, &at));
    collect_and_tell(golden, id, before);
}

/* read, transfer, unreachable: one core, one number */
static void command_ask(struct golden *golden)
{
    uint64_t id = live_id(golden, 1);
    struct raft_core *core = golden->pump->nodes[id].core;
    struct before before = watch(golden, id);
    if (strcmp(word(golden, 0), "read") == 0) {
        uint64_t context = ++golden->read_count;
        buf_printf(&golden->out, "    this is read %llu\n", LLU(context));
        tell_error(golden, raft_core_read(core, context));
    } else if (strcmp(word(golden, 0), "transfer") == 0) {
        uint64_t target = golden->word_count > 2 ? replica_id(golden, word(golden, 2)) : 0;
        tell_error(golden, raft_core_transfer(core, target));
    } else {
        raft_core_unreachable(core, replica_id(golden, word(golden, 2)));
    }
    if (!flag(golden, "more")) {
        collect_and_tell(golden, id, before);
    }
}

/* "snapshot 1 [bytes=100]" of what is applied; "compact 1 5"; "damage 3": its next install */
static void command_snapshot(struct golden *golden)
{
    uint64_t id = live_id(golden, 1);
    struct before before = watch(golden, id);
    if (strcmp(word(golden, 0), "snapshot") == 0) {
        pump_snapshot(golden->pump, id, ++golden->snapshot_count,
                      option_number(golden, "bytes", 100));
    } else if (strcmp(word(golden, 0), "compact") == 0) {
        const char *index = word(golden, 2);
        pump_compact(golden->pump, id, number(golden, &index));
    } else {
        golden->pump->nodes[id].installs_damaged++;
        return;
    }
    collect_and_tell(golden, id, before);
}

/* --- messages made by hand --- */

static size_t hand_entries(struct golden *golden, struct raft_entry entries[ENTRIES_MAX])
{
    const char *text = option(golden, "entries");
    size_t count = 0;
    while (text != NULL && *text != '\0' && count < ENTRIES_MAX) {
        struct raft_position at = position(golden, &text);
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
    *snapshot = (struct raft_snapshot){.position = option_position(golden, "at"),
                                       .membership = golden->pump->bootstrap,
                                       .size_bytes = option_number(golden, "bytes", 100),
                                       .id = option_number(golden, "id", 1)};
    message->snapshot = snapshot;
    message->chunk_offset = option_number(golden, "offset", 0);
    size_t size = (size_t)option_number(golden, "chunk", snapshot->size_bytes);
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
    while (strcmp(show_kind((enum raft_message_kind)kind), word(golden, 1)) != 0) {
        if (++kind > RAFT_MSG_TIMEOUT_NOW) {
            wrong(golden, "no such kind of message");
        }
    }
    struct raft_entry entries[ENTRIES_MAX];
    struct raft_snapshot snapshot;
    struct raft_message message = pump_message((enum raft_message_kind)kind, link.from, link.to,
                                               option_number(golden, "term", 0));
    message.position = option_position(golden, "at");
    message.commit = option_number(golden, "commit", 0);
    message.reject = flag(golden, "refused");
    message.leader_transfer = flag(golden, "transfer");
    message.hint = option_position(golden, "hint");
    message.read_round = option_number(golden, "round", 0);
    message.entry_count = hand_entries(golden, entries);
    message.entries = entries;
    if (message.kind == RAFT_MSG_SNAPSHOT) {
        hand_chunk(golden, &message, &snapshot);
    } else if (message.kind == RAFT_MSG_SNAPSHOT_REPLY) {
        message.snapshot_id = option_number(golden, "id", 1);
        message.chunk_offset = option_number(golden, "offset", 0);
    }
    struct before before = watch(golden, link.to);
    pump_step(golden->pump, &message);
    tell(golden, link.to, before, 0, 0);
    for (size_t i = 0; i < message.entry_count; i++) {
        blob_unref(entries[i].owner);
    }
    blob_unref(message.chunk_owner);
}

static void command_status(struct golden *golden)
{
    bool log = strcmp(word(golden, 0), "log") == 0;
    for (uint64_t id = 1; id <= PUMP_NODES_MAX; id++) {
        bool known = golden->pump->nodes[id].options.seed >= 100;
        if (golden->word_count > 1 ? id == replica_id(golden, word(golden, 1)) : known) {
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
    bool quiet = strcmp(word(golden, 0), "quiet") == 0;
    if (quiet) {
        golden->word_count--;
        memmove(golden->words, golden->words + 1, golden->word_count * sizeof(golden->words[0]));
    }
    if ((golden->pump == NULL) != (strcmp(word(golden, 0), "cluster") == 0)) {
        wrong(golden, "a script begins with one cluster");
    }
    size_t said = golden->out.size;
    for (size_t i = 0; i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++) {
        if (strcmp(COMMANDS[i].name, word(golden, 0)) == 0) {
            COMMANDS[i].run(golden);
            golden->out.size = quiet ? said : golden->out.size;
            return;
        }
    }
    wrong(golden, "no such command");
}

static void command_line(struct golden *golden, const char *line, size_t size)
{
    if (size >= sizeof(golden->words_text)) {
        wrong(golden, "the line is too long");
    }
    memcpy(golden->words_text, line, size);
    golden->words_text[size] = '\0';
    golden->word_count = 0;
    char *rest = golden->words_text;
    for (char *text; (text = strtok_r(rest, " ", &rest)) != NULL;) {
        if (golden->word_count == WORDS_MAX) {
            wrong(golden, "too many words");
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

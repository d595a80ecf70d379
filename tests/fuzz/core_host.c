/* See core_host.h. With FUZZ_TRACE in the environment, the core's transitions go to standard
 * error. */
#include "fuzz/core_host.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct core_host_write {
    struct raft_write write;
    struct core_sent *held;
    size_t held_count;
    struct raft_entry *entries;
    struct raft_snapshot chunk_snapshot;
    struct raft_snapshot install;
};

void core_host_check(struct core_host *host)
{
    struct raft_status status;
    raft_core_check(host->core);
    raft_core_status(host->core, &status);
    ASSERT_CMP(status.commit, >=, host->commit_seen);
    ASSERT_CMP(status.applied, <=, status.commit);
    host->commit_seen = status.commit;
}

struct raft_status core_host_status(const struct core_host *host)
{
    struct raft_status status;
    raft_core_status(host->core, &status);
    return status;
}

/* ---- what it sent ---- */

static struct core_sent sent_of(const struct raft_message *message)
{
    struct core_sent sent = {.message = *message, .end = message->position};
    if (message->entry_count > 0) {
        sent.end = message->entries[message->entry_count - 1].position;
    }
    if (message->snapshot != NULL) {
        sent.message.position = message->snapshot->position;
        sent.message.snapshot_id = message->snapshot->id;
        sent.message.chunk_offset = message->snapshot->size_bytes;
    }
    sent.message.snapshot = NULL;
    sent.message.entries = NULL;
    sent.message.entry_count = 0;
    sent.message.chunk = BYTES_EMPTY;
    sent.message.chunk_owner = NULL;
    return sent;
}

static void send_one(struct core_host *host, const struct core_sent *sent)
{
    if (host->sent_count == CORE_SENT_KEPT) {
        host->sent_count--;
        memmove(host->sent, host->sent + 1, host->sent_count * sizeof host->sent[0]);
    }
    host->sent[host->sent_count++] = *sent;
}

/* ---- the disk ---- */

static uint64_t disk_last(const struct core_host *host)
{
    return host->base.position.index + host->log_count;
}

static void disk_truncate(struct core_host *host, uint64_t from)
{
    while (host->log_count > 0 && disk_last(host) >= from) {
        blob_unref(host->log[--host->log_count].owner);
    }
}

static void disk_install(struct core_host *host, const struct raft_snapshot *snapshot)
{
    ASSERT_CMP(host->staged_id, ==, snapshot->id);
    ASSERT_CMP(host->staged_bytes, ==, snapshot->size_bytes);
    ASSERT_CMP(snapshot->position.index, >, host->applied);
    disk_truncate(host, 0);
    host->base = *snapshot;
    host->staged_id = 0;
    host->applied = snapshot->position.index;
}

/* False: the snapshot was damaged. */
static bool disk_write(struct core_host *host, const struct core_host_write *write, bool damaged)
{
    bool installed = write->write.install != NULL && !damaged;
    if (write->write.chunk_snapshot != NULL) {
        if (write->write.chunk_offset == 0) {
            host->staged_id = write->chunk_snapshot.id;
            host->staged_bytes = 0;
        }
        ASSERT_CMP(host->staged_id, ==, write->chunk_snapshot.id);
        ASSERT_CMP(host->staged_bytes, ==, write->write.chunk_offset);
        host->staged_bytes += write->write.chunk.size;
    }
    if (installed) {
        disk_install(host, &write->install);
    }
    if (write->write.truncate_from != 0) {
        ASSERT_CMP(write->write.truncate_from, >, host->applied);
        ASSERT_CMP(write->write.truncate_from, >, host->base.position.index);
        disk_truncate(host, write->write.truncate_from);
    }
    for (size_t i = 0; i < write->write.entry_count; i++) {
        if (host->log_count == host->log_capacity) {
            host->log_capacity = host->log_capacity * 2 + 16;
            host->log = mem_realloc(host->log, host->log_capacity * sizeof host->log[0]);
        }
        ASSERT_CMP(write->entries[i].position.index, ==, disk_last(host) + 1);
        host->log[host->log_count++] = write->entries[i];
        blob_ref(write->entries[i].owner);
    }
    if (write->write.hard_state_changed) {
        ASSERT_CMP(write->write.hard_state.term, >=, host->hard_state.term);
        host->hard_state = write->write.hard_state;
    }
    return installed;
}

static void write_free(struct core_host_write *write)
{
    for (size_t i = 0; i < write->write.entry_count; i++) {
        blob_unref(write->entries[i].owner);
    }
    free(write->entries);
    free(write->held);
}

static void write_keep(struct core_host *host, const struct raft_ready *all)
{
    const struct raft_write *ready = &all->write;
    if (host->write_count == host->write_capacity) {
        host->write_capacity = host->write_capacity * 2 + 8;
        host->writes = mem_realloc(host->writes, host->write_capacity * sizeof host->writes[0]);
    }
    struct core_host_write *write = &host->writes[host->write_count++];
    *write = (struct core_host_write){.write = *ready};
    write->entries = mem_dup(ready->entries, ready->entry_count * sizeof ready->entries[0]);
    for (size_t i = 0; i < ready->entry_count; i++) {
        blob_ref(write->entries[i].owner);
    }
    if (ready->chunk_snapshot != NULL) {
        write->chunk_snapshot = *ready->chunk_snapshot;
    }
    if (ready->install != NULL) {
        write->install = *ready->install;
    }
    write->held = mem_calloc(all->held_count + 1, sizeof write->held[0]);
    write->held_count = all->held_count;
    for (size_t i = 0; i < all->held_count; i++) {
        write->held[i] = sent_of(&all->held[i]);
    }
}

static void apply_all(struct core_host *host)
{
    struct raft_status status = core_host_status(host);
    uint64_t limit = status.commit < status.durable ? status.commit : status.durable;
    limit = limit < disk_last(host) ? limit : disk_last(host);
    if (host->applied < host->base.position.index || status.applied > host->applied ||
        limit <= host->applied) {
        return;
    }
    host->applied = limit;
    raft_core_applied(host->core, limit);
    core_host_check(host);
}

void core_host_sync(struct core_host *host, size_t count, bool damaged)
{
    count = count < host->write_count ? count : host->write_count;
    for (size_t i = 0; i < count; i++) {
        struct core_host_write *write = &host->writes[i];
        bool installed = disk_write(host, write, damaged);
        if (write->write.install != NULL && !installed) {
            host->staged_id = 0;
            raft_core_install_failed(host->core, write->write.seq);
        }
        raft_core_persisted(host->core, write->write.seq);
        core_host_check(host);
        if (installed) {
            raft_core_applied(host->core, write->install.position.index);
        }
        for (size_t held = 0; held < write->held_count; held++) {
            send_one(host, &write->held[held]);
        }
        write_free(write);
        apply_all(host);
    }
    if (count == 0) {
        return;
    }
    host->write_count -= count;
    memmove(host->writes, host->writes + count, host->write_count * sizeof host->writes[0]);
}

void core_host_forget(struct core_host *host)
{
    struct raft_position begin = core_host_status(host).log_start;
    if (begin.index <= host->base.position.index) {
        return;
    }
    size_t gone = (size_t)(begin.index - host->base.position.index);
    ASSERT_CMP(gone, <=, host->log_count);
    for (size_t i = 0; i < gone; i++) {
        blob_unref(host->log[i].owner);
    }
    host->log_count -= gone;
    memmove(host->log, host->log + gone, host->log_count * sizeof host->log[0]);
    bool known = raft_core_membership_at(host->core, begin.index, &host->base.membership);
    ASSERT(known);
    host->base.position = begin;
}

/* ---- the owner ---- */

static void answer_load(struct core_host *host, const struct raft_load *load)
{
    uint64_t first = host->base.position.index + 1;
    if (load->index < first) {
        raft_core_entries_loaded(host->core, load->peer, NULL, 0);
        return;
    }
    size_t at = (size_t)(load->index - first);
    if (at < host->log_count) {
        size_t left = host->log_count - at;
        raft_core_entries_loaded(host->core, load->peer, &host->log[at], left < 3 ? left : 3);
    }
}

void core_host_collect(struct core_host *host)
{
    struct raft_ready ready;
    for (int rounds = 0; raft_core_ready(host->core, &ready); rounds++) {
        ASSERT_CMP(rounds, <, 1000);
        struct raft_load loads[RAFT_MEMBERS_MAX];
        size_t load_count = ready.load_count;
        ASSERT_CMP(load_count, <=, RAFT_MEMBERS_MAX);
        if (load_count > 0) {
            memcpy(loads, ready.loads, load_count * sizeof loads[0]);
        }
        for (size_t i = 0; i < ready.message_count; i++) {
            struct core_sent sent = sent_of(&ready.messages[i]);
            send_one(host, &sent);
        }
        if (ready.write.seq != 0) {
            write_keep(host, &ready);
        } else {
            ASSERT_CMP(ready.held_count, ==, 0);
        }
        raft_core_accept(host->core);
        core_host_check(host);
        for (size_t i = 0; i < load_count; i++) {
            answer_load(host, &loads[i]);
            core_host_check(host);
        }
        if (host->sync_at_once) {
            core_host_sync(host, host->write_count, false);
        }
        apply_all(host);
    }
}

static void print_trace(void *context, const char *line)
{
    (void)context;
    fprintf(stderr, "%s\n", line);
}

void core_host_start(struct core_host *host)
{
    struct raft_position *runs = mem_calloc(host->log_count + 1, sizeof runs[0]);
    struct raft_membership *memberships = mem_calloc(host->log_count + 1, sizeof memberships[0]);
    size_t run_count = 0;
    size_t membership_count = 0;
    for (size_t i = 0; i < host->log_count; i++) {
        const struct raft_entry *entry = &host->log[i];
        if (run_count == 0 || runs[run_count - 1].term != entry->position.term) {
            runs[run_count++] = entry->position;
        }
        if (entry->kind == RAFT_ENTRY_MEMBERSHIP) {
            int error = raft_membership_decode(entry->data, &memberships[membership_count]);
            ASSERT(error == 0);
            memberships[membership_count++].position = entry->position;
        }
    }
    size_t tail = host->log_count < 3 ? host->log_count : 3;
    struct raft_core_state state = {
        .hard_state = host->hard_state,
        .snapshot = host->base,
        .log_start = host->base.position,
        .log_last =
            host->log_count > 0 ? host->log[host->log_count - 1].position : host->base.position,
        .term_runs = runs,
        .term_run_count = run_count,
        .memberships = memberships,
        .membership_count = membership_count,
        .applied = host->applied,
        .tail = tail > 0 ? host->log + (host->log_count - tail) : NULL,
        .tail_count = tail,
    };
    char why[256] = "";
    host->options.seed++;
    int error = raft_core_create(&host->options, &state, &host->core, why, sizeof why);
    if (error != 0) {
        fprintf(stderr, "the disk the core left does not start it: %s\n", why);
    }
    ASSERT(error == 0);
    if (getenv("FUZZ_TRACE") != NULL) {
        raft_core_set_trace(host->core, print_trace, NULL);
    }
    free(runs);
    free(memberships);
    host->commit_seen = 0;
    core_host_check(host);
}

void core_host_crash(struct core_host *host)
{
    for (size_t i = 0; i < host->write_count; i++) {
        write_free(&host->writes[i]);
    }
    host->write_count = 0;
    host->staged_id = 0;
    host->sent_count = 0;
    raft_core_destroy(host->core);
}

void core_host_deinit(struct core_host *host)
{
    disk_truncate(host, 0);
    free(host->log);
    free(host->writes);
}

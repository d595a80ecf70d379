/* The log as the core sees it: where it begins and ends, the term of every index, and its newest
 * entries. The drawing and the invariants are in core_internal.h. Thread: the core's.
 *
 * Terms are kept as runs, so that a log of millions of entries needs a few words and a conflict is
 * found without reading the disk. The cache is one array that slides: entries leave at the front
 * when they are durable and applied, and enter at the back; it is moved to the start only when half
 * of it is free, which makes an append O(1) on average and lets a slice be handed out as one
 * pointer. */
#include "raft/core/core_internal.h"

#include <stdlib.h>
#include <string.h>

enum { LOG_SLOTS_MIN = 64, LOG_RUNS_MIN = 8 };

void core__log_init(struct core_log *log, struct raft_position start)
{
    *log = (struct core_log){
        .start = start, .last = start, .unwritten = start.index + 1, .durable = start.index};
}

static void unref_slots(struct core_log *log, size_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct raft_entry *entry = &log->slots[first + i];
        log->cache_bytes -= raft_entry_bytes(entry);
        blob_unref(entry->owner);
    }
}

void core__log_deinit(struct core_log *log)
{
    unref_slots(log, log->head, log->count);
    free(log->slots);
    free(log->runs);
    *log = (struct core_log){.unwritten = 1};
}

uint64_t core__log_cache_first(const struct core_log *log)
{
    return log->last.index + 1 - log->count;
}

/* The number of runs that begin at or before `index`: binary search. */
static size_t runs_up_to(const struct core_log *log, uint64_t index)
{
    size_t low = 0;
    size_t high = log->run_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (log->runs[middle].index <= index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

uint64_t core__log_term_at(const struct core_log *log, uint64_t index)
{
    if (index == log->start.index) {
        return log->start.term;
    }
    if (index < log->start.index || index > log->last.index) {
        return 0;
    }
    if (log->runs[log->run_count - 1].index <= index) {
        return log->last.term; /* most questions are about the newest run */
    }
    size_t below = runs_up_to(log, index);
    ASSERT_CMP(below, >, 0);
    return log->runs[below - 1].term;
}

uint64_t core__log_run_first(const struct core_log *log, uint64_t index)
{
    ASSERT_CMP(index, >, log->start.index);
    ASSERT_CMP(index, <=, log->last.index);
    size_t below = runs_up_to(log, index);
    ASSERT_CMP(below, >, 0);
    return log->runs[below - 1].index;
}

uint64_t core__log_last_of_term(const struct core_log *log, uint64_t term, uint64_t at_most)
{
    uint64_t end = at_most < log->last.index ? at_most : log->last.index;
    for (size_t below = runs_up_to(log, end); below > 0; below--) {
        const struct raft_position *run = &log->runs[below - 1];
        if (run->term == term) {
            return end;
        }
        if (run->term < term) {
            return 0;
        }
        end = run->index - 1;
    }
    return log->start.term == term && log->start.index <= at_most ? log->start.index : 0;
}

void core__log_push_run(struct core_log *log, struct raft_position run)
{
    if (log->run_count == log->run_capacity) {
        log->run_capacity = log->run_capacity == 0 ? LOG_RUNS_MIN : log->run_capacity * 2;
        log->runs = mem_realloc(log->runs, log->run_capacity * sizeof(log->runs[0]));
    }
    log->runs[log->run_count++] = run;
}

static struct raft_entry *cache_push(struct core_log *log)
{
    if (log->head + log->count == log->capacity) {
        if (log->head > log->capacity / 2) {
            memmove(log->slots, log->slots + log->head, log->count * sizeof(log->slots[0]));
        } else {
            size_t capacity = log->capacity == 0 ? LOG_SLOTS_MIN : log->capacity * 2;
            struct raft_entry *slots = mem_alloc(capacity * sizeof(slots[0]));
            if (log->count > 0) {
                memcpy(slots, log->slots + log->head, log->count * sizeof(slots[0]));
            }
            free(log->slots);
            log->slots = slots;
            log->capacity = capacity;
        }
        log->head = 0;
    }
    return &log->slots[log->head + log->count++];
}

void core__log_cache(struct core_log *log, const struct raft_entry *entry)
{
    *cache_push(log) = *entry;
    blob_ref(entry->owner);
    log->cache_bytes += raft_entry_bytes(entry);
}

void core__log_append(struct core_log *log, const struct raft_entry *entry)
{
    ASSERT_CMP(entry->position.index, ==, log->last.index + 1);
    ASSERT_CMP(entry->position.term, >=, log->last.term);
    if (log->run_count == 0 || entry->position.term != log->last.term) {
        core__log_push_run(log, entry->position);
    }
    log->last = entry->position;
    core__log_cache(log, entry);
}

void core__log_truncate(struct core_log *log, uint64_t from)
{
    ASSERT_CMP(from, >, log->start.index);
    ASSERT_CMP(from, <=, log->last.index);
    uint64_t cut = log->last.index + 1 - from;
    size_t cached = cut < log->count ? (size_t)cut : log->count;
    unref_slots(log, log->head + log->count - cached, cached);
    log->count -= cached;

    uint64_t last = from - 1;
    log->last = (struct raft_position){last, core__log_term_at(log, last)};
    while (log->run_count > 0 && log->runs[log->run_count - 1].index > last) {
        log->run_count--;
    }
    if (from < log->unwritten) {
        /* Some of it was handed to the disk, so the disk must be told. */
        if (log->truncate_from == 0 || from < log->truncate_from) {
            log->truncate_from = from;
        }
        log->unwritten = from;
    }
    if (log->durable > last) {
        log->durable = last;
    }
}

void core__log_reset(struct core_log *log, struct raft_position position)
{
    unref_slots(log, log->head, log->count);
    log->head = 0;
    log->count = 0;
    log->run_count = 0;
    log->start = position;
    log->last = position;
    log->unwritten = position.index + 1;
    log->truncate_from = 0;
    log->durable = position.index;
}

static void drop_front(struct core_log *log, size_t count)
{
    unref_slots(log, log->head, count);
    log->head += count;
    log->count -= count;
    if (log->count == 0) {
        log->head = 0;
    }
}

void core__log_compact(struct core_log *log, uint64_t index)
{
    ASSERT_CMP(index, >, log->start.index);
    ASSERT_CMP(index, <=, log->durable);
    struct raft_position start = {index, core__log_term_at(log, index)};
    uint64_t first = core__log_cache_first(log);
    if (index >= first) {
        drop_front(log, (size_t)(index + 1 - first));
    }
    log->start = start;
    if (index == log->last.index) {
        log->run_count = 0;
        return;
    }
    size_t below = runs_up_to(log, index + 1);
    ASSERT_CMP(below, >, 0);
    size_t gone = below - 1;
    memmove(log->runs, log->runs + gone, (log->run_count - gone) * sizeof(log->runs[0]));
    log->run_count -= gone;
    log->runs[0].index = index + 1;
}

void core__log_evict(struct core_log *log, uint64_t up_to, uint64_t bytes_max)
{
    size_t count = 0;
    uint64_t bytes = log->cache_bytes;
    while (bytes > bytes_max && count < log->count &&
           log->slots[log->head + count].position.index <= up_to) {
        bytes -= raft_entry_bytes(&log->slots[log->head + count]);
        count++;
    }
    if (count > 0) {
        drop_front(log, count);
    }
}

size_t core__log_slice(const struct core_log *log, uint64_t from, uint64_t bytes_max,
                       size_t count_max, const struct raft_entry **entries)
{
    uint64_t first = core__log_cache_first(log);
    if (from < first || from > log->last.index) {
        return 0;
    }
    size_t skip = (size_t)(from - first);
    *entries = &log->slots[log->head + skip];
    size_t available = log->count - skip;
    size_t count = 0;
    uint64_t bytes = 0;
    while (count < available && count < count_max) {
        uint64_t size = raft_entry_bytes(&(*entries)[count]);
        if (count > 0 && (bytes > bytes_max || size > bytes_max - bytes)) {
            break; /* the first one goes whatever its size: an entry over the limit travels alone */
        }
        bytes += size;
        count++;
    }
    return count;
}

/* The tables of leaders by term and of committed entries by index. Thread: one. */
#include "raft/sim_checker.h"

#include "base/assert.h"
#include "base/crc32c.h"
#include "raft/sim_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    TERM_LIMIT = 1 << 20,
    INDEX_LIMIT = 1 << 24
}; /* no run comes near: beyond it is a runaway */

void sim_checker_init(struct sim_checker *checker)
{
    *checker = (struct sim_checker){0};
}

void sim_checker_deinit(struct sim_checker *checker)
{
    free(checker->leaders);
    free(checker->votes);
    free(checker->table);
    *checker = (struct sim_checker){0};
}

static void *grow(void *array, size_t *capacity, uint64_t want, size_t element_size)
{
    if (want < *capacity) {
        return array;
    }
    size_t next = *capacity == 0 ? 1024 : *capacity;
    while (next <= want) {
        next *= 2;
    }
    uint8_t *grown = mem_realloc(array, next * element_size);
    memset(grown + *capacity * element_size, 0, (next - *capacity) * element_size);
    *capacity = next;
    return grown;
}

void sim_checker_leader(struct sim_checker *checker, uint64_t id, uint64_t term)
{
    if (term == 0 || term > TERM_LIMIT) {
        sim_fail("replica %" PRIu64 " leads term %" PRIu64, id, term);
    }
    checker->leaders =
        grow(checker->leaders, &checker->leader_capacity, term, sizeof checker->leaders[0]);
    uint64_t *leader = &checker->leaders[term];
    if (*leader != 0 && *leader != id) {
        sim_fail("two leaders in term %" PRIu64 ": %" PRIu64 " and %" PRIu64, term, *leader, id);
    }
    if (*leader == 0) {
        *leader = id;
        checker->leader_count++;
    }
    if (term > checker->term_max) {
        checker->term_max = term;
    }
}

void sim_checker_vote(struct sim_checker *checker, uint64_t voter, uint64_t term,
                      uint64_t candidate)
{
    ASSERT_CMP(voter, <, RAFT_MEMBERS_MAX);
    if (term == 0 || term > TERM_LIMIT) {
        sim_fail("replica %" PRIu64 " votes in term %" PRIu64, voter, term);
    }
    uint64_t place = term * RAFT_MEMBERS_MAX + voter;
    checker->votes = grow(checker->votes, &checker->vote_capacity, place, sizeof checker->votes[0]);
    uint64_t *vote = &checker->votes[place];
    if (*vote != 0 && *vote != candidate) {
        sim_fail("replica %" PRIu64 " votes for %" PRIu64 " and %" PRIu64 " in term %" PRIu64,
                 voter, *vote, candidate, term);
    }
    *vote = candidate;
}

uint64_t sim_checker_term_at(const struct sim_checker *checker, uint64_t index)
{
    return index < checker->table_capacity ? checker->table[index].term : 0;
}

uint64_t sim_checker_term_owed(const struct sim_checker *checker, uint64_t index, uint64_t term)
{
    bool owed = index < checker->table_capacity && checker->table[index].term != 0 &&
                checker->table[index].committed_in < term;
    return owed ? checker->table[index].term : 0;
}

static struct sim_committed *row(struct sim_checker *checker, uint64_t id, uint64_t index)
{
    if (index == 0 || index > INDEX_LIMIT) {
        sim_fail("replica %" PRIu64 " commits index %" PRIu64, id, index);
    }
    checker->table =
        grow(checker->table, &checker->table_capacity, index, sizeof checker->table[0]);
    return &checker->table[index];
}

void sim_checker_committed(struct sim_checker *checker, uint64_t id, struct raft_position position,
                           uint64_t leader_term)
{
    struct sim_committed *committed = row(checker, id, position.index);
    if (committed->term != 0 && committed->term != position.term) {
        sim_fail("replica %" PRIu64 " commits %" PRIu64 " with term %" PRIu64
                 "; it was committed with term %" PRIu64,
                 id, position.index, position.term, committed->term);
    }
    if (committed->term == 0 && leader_term == 0) {
        sim_fail("replica %" PRIu64 " takes %" PRIu64 "/%" PRIu64
                 " for committed, which no leader has committed",
                 id, position.index, position.term);
    }
    if (committed->term == 0) {
        committed->term = position.term;
        committed->committed_in = leader_term;
    }
    if (leader_term != 0 && position.index > checker->commit_max) {
        checker->commit_max = position.index;
    }
}

void sim_checker_applied(struct sim_checker *checker, uint64_t id, const struct raft_entry *entry)
{
    uint64_t index = entry->position.index;
    struct sim_committed *committed = row(checker, id, index);
    uint32_t checksum = crc32c_extend(0, entry->data.data, entry->data.size);
    if (committed->term != entry->position.term) {
        sim_fail("replica %" PRIu64 " applies %" PRIu64 "/%" PRIu64 "; committed term is %" PRIu64,
                 id, index, entry->position.term, committed->term);
    }
    if (!committed->content_known) {
        committed->content_known = true;
        committed->kind = entry->kind;
        committed->checksum = checksum;
        if (entry->kind == RAFT_ENTRY_COMMAND) {
            checker->commands++;
        }
    }
    if (committed->kind != entry->kind || committed->checksum != checksum) {
        sim_fail("replica %" PRIu64 " applies other content at %" PRIu64 "/%" PRIu64
                 ": kind %d checksum %08x, was kind %d checksum %08x",
                 id, index, entry->position.term, (int)entry->kind, (unsigned)checksum,
                 (int)committed->kind, (unsigned)committed->checksum);
    }
}

void sim_checker_restored(const struct sim_checker *checker, uint64_t id,
                          struct raft_position position, uint32_t checksum)
{
    if (sim_checker_term_at(checker, position.index) != position.term ||
        checker->table[position.index].kind != RAFT_ENTRY_COMMAND ||
        checker->table[position.index].checksum != checksum) {
        sim_fail("replica %" PRIu64 " restores %" PRIu64 "/%" PRIu64
                 " checksum %08x, which is not what was committed there",
                 id, position.index, position.term, (unsigned)checksum);
    }
}

/* What must hold across all replicas of a group, whatever happens: at most one leader a term; an
 * index once committed keeps its term and content for ever; replicas apply only that, in order.
 * Told of every step by the replicas; ends the run with sim_fail on the first contradiction. One
 * thread. */
#ifndef TESTS_RAFT_SIM_CHECKER_H
#define TESTS_RAFT_SIM_CHECKER_H

#include "raft/core/types.h"

struct sim_committed {
    uint64_t term;         /* 0: not known to be committed */
    uint64_t committed_in; /* term of the leader that committed it */
    bool content_known;
    enum raft_entry_kind kind;
    uint32_t checksum;
};

struct sim_checker {
    uint64_t *leaders; /* by term; 0: none seen */
    uint64_t *votes;   /* by term * RAFT_MEMBERS_MAX + voter: for whom; 0: none seen */
    size_t vote_capacity;
    size_t leader_capacity;
    struct sim_committed *table; /* by index */
    size_t table_capacity;
    uint64_t commit_max; /* newest index a leader committed; everything up to it is in the table */
    uint64_t commands;   /* COMMAND entries committed and applied somewhere */
    uint64_t term_max;
    uint64_t leader_count; /* (term, leader) pairs seen */
};

void sim_checker_init(struct sim_checker *checker);
void sim_checker_deinit(struct sim_checker *checker);
void sim_checker_leader(struct sim_checker *checker, uint64_t id, uint64_t term);
/* A vote granted by `voter` leaves for `candidate`. */
void sim_checker_vote(struct sim_checker *checker, uint64_t voter, uint64_t term,
                      uint64_t candidate);
/* `id` takes `position` for committed; `leader_term`: by its own count as leader of that term; 0:
 * it was told. */
void sim_checker_committed(struct sim_checker *checker, uint64_t id, struct raft_position position,
                           uint64_t leader_term);
void sim_checker_applied(struct sim_checker *checker, uint64_t id, const struct raft_entry *entry);
/* A restored state holds this command. */
void sim_checker_restored(const struct sim_checker *checker, uint64_t id,
                          struct raft_position position, uint32_t checksum);
/* The new leader of `term` must have this index, with this term: it was committed in an earlier
 * term than its own (paper 5.4.3). 0: it need not have it. */
uint64_t sim_checker_term_owed(const struct sim_checker *checker, uint64_t index, uint64_t term);
/* 0 when not committed. */
uint64_t sim_checker_term_at(const struct sim_checker *checker, uint64_t index);

#endif

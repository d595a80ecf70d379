# Cores with one fault each, which the swarm must find: a check that cannot fail checks nothing. A mutant is one file of
# raft/core with one piece of text replaced; it is linked before the real core's library, which then gives the rest. A text
# that is not there any more makes the mutant's test fail, not the build.
function(raft_mutant name file from to)
    set(test raft.Mutant.${name})
    set(source ${CMAKE_SOURCE_DIR}/raft/core/${file})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${source})
    file(READ ${source} text)
    string(REGEX REPLACE "([][+.*()^$?|\\])" "\\\\\\1" pattern "${from}")
    string(REGEX REPLACE " +" "[ \n]+" pattern "${pattern}")  # however the source is laid out
    string(REGEX MATCH "${pattern}" found "${text}")
    if(found STREQUAL "")
        message(WARNING "${test}: its text is not in ${file} any more")
        add_test(NAME ${test} COMMAND ${CMAKE_COMMAND} -E false)
        set_tests_properties(${test} PROPERTIES LABELS "raft;mutant")
        return()
    endif()
    string(REPLACE "${found}" "${to}" mutated "${text}")
    set(copy ${CMAKE_BINARY_DIR}/tests/mutants/${name}/${file})
    set(before "")
    if(EXISTS ${copy})
        file(READ ${copy} before)
    endif()
    if(NOT before STREQUAL mutated)
        file(WRITE ${copy} "${mutated}")
    endif()
    add_executable(raft_mutant_${name} $<TARGET_OBJECTS:raft_suite_objects> ${copy})
    set_source_files_properties(${copy} PROPERTIES COMPILE_OPTIONS "-w")
    set_target_properties(raft_mutant_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/mutants)
    target_link_libraries(raft_mutant_${name} PRIVATE base raft-core)
    add_test(NAME ${test} COMMAND raft_mutant_${name} --test Swarm --must-fail)
    set_tests_properties(${test} PROPERTIES TIMEOUT 300 LABELS "raft;mutant")
endfunction()

# Elections
raft_mutant(vote_before_durable election.c
    "core__hold(core, RAFT_MSG_VOTE_REPLY" "core__send(core, RAFT_MSG_VOTE_REPLY")
raft_mutant(candidacy_before_durable election.c
    "? core__hold(core, kind, member->id)" "? core__send(core, kind, member->id)")
raft_mutant(vote_for_a_shorter_log election.c
    "return candidate.term > last.term ||" "return true ||")
raft_mutant(two_votes_in_a_term election.c
    "bool free_to_vote = again || (core->voted_for == 0 && core->leader == 0)" "bool free_to_vote = true")
raft_mutant(removed_leader_never_campaigns membership.c
    "return member != NULL && member->role == RAFT_VOTER; } bool core__is_sole" "return false; } bool core__is_sole")
raft_mutant(sole_voter_ignores_the_lease election.c
    "core->leader_silence >= core->options.election_ticks; if (alone" "true; if (alone")
raft_mutant(no_bootstrap_entry election.c
    "if (members.position.index == 0) {" "if (false) {")

# Replication
raft_mutant(commit_an_old_term_by_count replicate_leader.c
    "if (index > core->commit && core__log_term_at(&core->log, index) == core->term) {" "if (index > core->commit) {")
raft_mutant(acceptance_before_durable replicate_follower.c
    "core__hold(core, RAFT_MSG_APPEND_REPLY" "core__send(core, RAFT_MSG_APPEND_REPLY")
raft_mutant(leader_counts_what_is_not_durable progress.c
    "core->log.durable : progress->match" "core->log.last.index : progress->match")
raft_mutant(commit_beyond_the_append replicate_follower.c
    "uint64_t commit = message->commit < end ? message->commit : end;"
    "uint64_t commit = message->commit < core->log.last.index ? message->commit : core->log.last.index;")
raft_mutant(heartbeat_commit_not_clamped replicate_leader.c
    "core->commit < progress->match ? core->commit : progress->match" "core->commit")
raft_mutant(matching_suffix_cut replicate_follower.c
    "if (first_new == message->entry_count) { return true;"
    "if (first_new == message->entry_count) {\n        uint64_t cut = message->position.index + first_new + 1;\n        if (cut > core->commit && cut <= core->log.last.index) { truncate(core, cut); }\n        return true;")
raft_mutant(truncation_leaves_old_claims replicate_follower.c
    "core__writes_clamp(core, from - 1);" "")
raft_mutant(window_overfilled replicate_leader.c
    "progress->load_alone = !core__window_open(core, progress, entries_bytes(entries, fit));" "progress->load_alone = false;")

# Snapshots
raft_mutant(old_snapshot_replaces_the_log snapshot.c
    "if (have_it(core, message)) {" "if (false && have_it(core, message)) {")
raft_mutant(match_passes_next replicate_leader.c
    "} else if (progress->next <= progress->match) {" "} else if (false) {")

# Reads
raft_mutant(read_before_the_first_commit read.c
    "if (!core__read_ready(core)) {" "if (false) {")
raft_mutant(lease_kept_on_transfer transfer.c
    "core->lease_forfeited = true;" "")
raft_mutant(votes_while_the_leader_is_heard election.c
    "return core->state == RAFT_LEADER || core->leader_silence < core->options.election_ticks;" "return false;")
raft_mutant(read_confirmed_by_anyone progress.c
    "core->reads.round : progress->acked_round" "core->reads.round : core->reads.round")

# Membership
raft_mutant(two_changes_at_once membership.c
    "if (core__members(core)->position.index > core->commit) {" "if (false) {")
raft_mutant(change_before_the_first_commit membership.c
    "if (!core__read_ready(core) || core->transfer_target != 0) {" "if (core->transfer_target != 0) {")
raft_mutant(change_not_rolled_back replicate_follower.c
    "if (core__members_truncate(core, from)) {" "if (false) {")

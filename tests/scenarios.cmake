# The numbered scenarios: what broke other systems, and what shows that it does not break this one. A row is a scenario (S: in
# simulation or in one process, P: on real processes; one with both forms has two rows) and becomes the test
# scenario.<number>[p].<Name>. docs/TESTING.md has the same table; tests/structure/check_scenarios.py compares it with this
# file and with ctest's list, and writes it (--write).
#
#   scenario(<number> S|P <Name> "<what must hold>" <step>...)
#
#   unit:<program>:<pattern>...      these tests of a unit test's program (a pattern that matches nothing fails)
#   golden:<script>                  a golden script
#   raft:<test>, sim:<test>          a test of raft_suite, of sim_suite
#   process:<suite>:<test>           a test of a suite of real processes, which is listed under this name only
#   see:<test>                       a test that ctest has under its own name, and which is not run twice
#
# A row of nothing but 'see' adds no test of its own.
set(SCENARIO_ROWS "")

function(scenario number form name text)
    set(test scenario.${number})
    if(form STREQUAL "P")
        string(APPEND test p)
    endif()
    string(APPEND test .${name})
    set(command "")
    set(shown "")
    set(labels scenario)
    set(timeout 120)
    foreach(step ${ARGN})
        string(REPLACE ":" ";" parts ${step})
        list(POP_FRONT parts kind first)
        if(kind STREQUAL "unit")
            string(REPLACE ";" " " patterns "${parts}")
            list(APPEND command -- SHARDKV_TESTS=${patterns} $<TARGET_FILE:${first}>)
            list(APPEND shown ${first})
        elseif(kind STREQUAL "golden")
            list(APPEND command -- $<TARGET_FILE:golden> ${CMAKE_CURRENT_SOURCE_DIR}/golden/scripts/${first}.txt)
            list(APPEND shown golden.${first})
        elseif(kind STREQUAL "raft")
            list(APPEND command -- $<TARGET_FILE:raft_suite> --test ${first})
        elseif(kind STREQUAL "sim")
            list(APPEND command -- $<TARGET_FILE:sim_suite> --test ${first})
        elseif(kind STREQUAL "process")
            list(APPEND command -- $<TARGET_FILE:${first}_suite> ${parts})
            list(APPEND labels cluster)
            set(timeout 300)
        elseif(kind STREQUAL "see")
            list(APPEND shown ${first})
        else()
            message(FATAL_ERROR "${test}: '${step}' is no step")
        endif()
    endforeach()
    set(own "")
    if(command)
        set(own ${test})
        add_test(NAME ${test} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/lib/run_each.sh ${command})
        set_tests_properties(${test} PROPERTIES LABELS "${labels}" TIMEOUT ${timeout} SKIP_RETURN_CODE 77 ENVIRONMENT
            "SHARDKV_BIN_DIR=${SHARDKV_RELEASE_DIR}/bin;SHARDKV_SOURCE_DIR=${CMAKE_SOURCE_DIR}")
    endif()
    list(REMOVE_DUPLICATES shown)
    list(JOIN shown " " shown)
    set(SCENARIO_ROWS "${SCENARIO_ROWS}${number}\t${form}\t${own}\t${shown}\t${text}\n" PARENT_SCOPE)
endfunction()

# ---- elections ----
scenario(01 S CrashBetweenTermAndVote "a crash between term and vote written: no double vote"
    unit:test_raft_election:test_s01_* golden:s01_s02_vote_and_disk see:raft.Mutant.two_votes_in_a_term)
scenario(02 S VoteBeforeItsSync "no vote is answered before its sync"
    unit:test_raft_election:test_s02_* golden:s01_s02_vote_and_disk see:raft.Mutant.vote_before_durable
    see:raft.Mutant.candidacy_before_durable)
scenario(03 S HeartbeatKeepsTheVote "a heartbeat does not clear the vote; the same candidate is granted again"
    unit:test_raft_election:test_s03_* golden:s03_s04_one_vote_a_term)
scenario(04 S LeaderVotesForNobody "a leader never votes for another in its term"
    unit:test_raft_election:test_s04_* golden:s03_s04_one_vote_a_term)
scenario(05 S InflatedTerm "a node returns with an inflated term: at most one election"
    unit:test_raft_election:test_s05_* golden:s05_inflated_term see:raft.Mutant.votes_while_the_leader_is_heard)
scenario(06 S StaleTermVoter "a voter of a stale term is needed for a quorum"
    unit:test_raft_election:test_s06_* golden:s06_stale_term_voter)
scenario(07 S LongLogLowTerm "a long log of a low term against a short one of a high term: no deadlock of pre-votes"
    unit:test_raft_election:test_s07_* golden:s07_prevote_long_log_low_term see:raft.Mutant.vote_for_a_shorter_log)
scenario(08 S OneWayLinks "one-way and partial links: the leader steps down"
    unit:test_raft_election:test_s08_* golden:s08_one_way_links)

# ---- replication ----
scenario(09 S Figure8 "an entry of an old term is not committed by counting"
    unit:test_raft_replication:test_s09_* golden:s09_figure_8 see:raft.TestFigure8 see:raft.TestFigure8Unreliable
    see:raft.Mutant.commit_an_old_term_by_count)
scenario(10 S HighCommitInAnEmptyAppend "an empty append with a high commit commits no further than what it matches"
    unit:test_raft_replication:test_s10_* golden:s10_s12_commit_bounds see:raft.Mutant.commit_beyond_the_append
    see:raft.Mutant.heartbeat_commit_not_clamped)
scenario(11 S DuplicatedAppend "a duplicated or reordered append cuts no matching suffix"
    unit:test_raft_replication:test_s11_* golden:s11_duplicate_and_reordered_append see:raft.Mutant.matching_suffix_cut)
scenario(12 S NeverCutBelowCommit "nothing committed is ever cut"
    unit:test_raft_replication:test_s12_* golden:s10_s12_commit_bounds)
scenario(13 S PreviousZeroOrCompacted "prev is index 0, or compacted"
    unit:test_raft_replication:test_s13_* golden:s13_previous_zero_or_compacted)
scenario(14 S ProgressOnlyGrows "match, next and commit never fall, next stays above match"
    unit:test_raft_replication:test_s14_* golden:s14_s15_progress_and_stale_rejections
    golden:s14_late_acceptance_during_a_snapshot see:raft.Mutant.match_passes_next)
scenario(15 S StaleRejection "a stale rejection, of an old term or further back in the pipeline, moves nothing"
    unit:test_raft_replication:test_s15_* golden:s14_s15_progress_and_stale_rejections)
scenario(16 S BatchByteLimit "the byte limit of a batch to the byte; a first entry larger than it"
    unit:test_raft_replication:test_s16_* golden:s16_batch_byte_limit golden:s16_window_of_a_follower_fed_from_the_disk
    see:raft.Mutant.window_overfilled)
scenario(17 S TruncationDuringSync "a sync under way does not count for entries that replaced what it wrote"
    unit:test_raft_replication:test_s17_* golden:s17_truncation_during_sync
    see:raft.Mutant.truncation_leaves_old_claims)
scenario(18 S OwnSync "a leader, and a single node, counts itself only after its own sync"
    unit:test_raft_replication:test_s18_* golden:s18_own_sync golden:s18_followers_commit_without_the_leaders_disk
    see:raft.Mutant.leader_counts_what_is_not_durable)
scenario(19 S FailedSend "a failed send does not stop the heartbeats of the others"
    unit:test_raft_replication:test_s19_* golden:s19_failed_send)

# ---- snapshots ----
scenario(20 S StaleSnapshot "a stale snapshot cuts no newer log"
    unit:test_raft_snapshot:test_s20_* golden:s20_s21_snapshot_against_a_log
    see:raft.Mutant.old_snapshot_replaces_the_log)
scenario(21 S ConflictAtLastIncluded "a conflict at the last included entry: the log is discarded"
    unit:test_raft_snapshot:test_s21_* golden:s20_s21_snapshot_against_a_log)
scenario(22 S InstallWhileApplying "a snapshot is installed while entries are being applied"
    unit:test_raft_snapshot:test_s22_* golden:s22_install_while_applying golden:s22_vote_behind_an_install)
scenario(23 S TwoInQuickSuccession "two snapshots in quick succession"
    unit:test_raft_snapshot:test_s23_* golden:s23_s28_snapshot_to_a_slow_follower)
scenario(25 S ValidSnapshotIsTaken "a valid snapshot is not refused for ever"
    unit:test_raft_snapshot:test_s25_* golden:s25_s26_interrupted_streams)
scenario(26 S InterruptedStream "the leader changes in mid-stream; a chunk is missing, repeated, damaged"
    unit:test_raft_snapshot:test_s26_* golden:s25_s26_interrupted_streams
    unit:test_replica_snapshot:test_snapshot_leader_dies_half_way_another_sends_it:test_snapshot_garbled_on_arrival_is_asked_for_anew)
scenario(28 S SlowFollower "a snapshot that is always newer than a slow follower's log makes no endless loop"
    unit:test_raft_snapshot:test_s28_* golden:s23_s28_snapshot_to_a_slow_follower)

# ---- reads and transfer ----
scenario(33 S NoReadBeforeTheFirstCommit "no read before the first commit of the leader's term"
    unit:test_raft_read:test_s33_* golden:s33_no_read_before_the_first_commit
    see:raft.Mutant.read_before_the_first_commit)
scenario(36 S LeaseGivenUpOnTransfer "a lease is given up on transfer; a delayed order to campaign does nothing"
    unit:test_raft_read:test_s36_* unit:test_raft_transfer:test_s36_* golden:s36_s37_transfer
    see:raft.Mutant.lease_kept_on_transfer)
scenario(37 S TransferToADeadTarget "a transfer to a dead target is abandoned"
    unit:test_raft_transfer:test_s37_* unit:test_replica:test_replica_transfer_to_a_dead_target_is_given_up
    golden:s36_s37_transfer)

# ---- membership ----
scenario(39 S OneChangeAtATime "no change before the first commit of the term; one at a time"
    unit:test_raft_membership:test_s39_* golden:s39_s42_membership_rules see:raft.Mutant.two_changes_at_once
    see:raft.Mutant.change_before_the_first_commit)
scenario(40 S ChangeRolledBack "an uncommitted change is rolled back with its entry"
    unit:test_raft_membership:test_s40_* golden:s40_change_rolled_back see:raft.Mutant.change_not_rolled_back)
scenario(41 S RemovedServers "a leader removes itself; a removed node does no harm"
    unit:test_raft_membership:test_s41_* golden:s41_removed_servers golden:s41_removal_not_committed_yet)
scenario(42 S NewestMembership "a change is checked against the newest membership"
    unit:test_raft_membership:test_s42_* golden:s39_s42_membership_rules)

file(WRITE ${CMAKE_BINARY_DIR}/tests/scenarios.tsv "${SCENARIO_ROWS}")

# A pattern that matches no test fails, or a row could come to show nothing.
add_test(NAME structure.unit_select COMMAND $<TARGET_FILE:test_session>)
set_tests_properties(structure.unit_select PROPERTIES LABELS structure TIMEOUT 30
    ENVIRONMENT "SHARDKV_TESTS=test_session_idle_* no_such_test" WILL_FAIL ON)

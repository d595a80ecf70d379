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

# Tests for the rows below, which run each of them.
foreach(file kv moves)
    skv_test(NAME test_scenarios_${file} UNLISTED SOURCES unit/test_scenarios_${file}.c unit/kv_groups_fixture.c
        USES shardkv LIBRARIES test-kv-harness)
endforeach()
skv_test(NAME test_scenarios_store UNLISTED SOURCES unit/test_scenarios_store.c USES shardkv LIBRARIES test-kv-harness)
skv_test(NAME test_scenarios_node UNLISTED SOURCES unit/test_scenarios_node.c USES raft/node proto base
    LIBRARIES test-node-harness)
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
            if(NOT first MATCHES "^test_scenarios_") # not listed by itself
                list(APPEND shown ${first})
            endif()
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

skv_cluster_suite(scenario SOURCES cluster/scenario_suite.c fault/shim_use.c USES client rpc proto base)
target_compile_definitions(scenario_suite PRIVATE FAULT_SHIM_LIBRARY="$<TARGET_FILE:fault-shim>")
add_dependencies(scenario_suite fault-shim)

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
scenario(05 P InflatedTermOfAProcess "a node returns with an inflated term: at most one election"
    process:scenario:InflatedTerm)
scenario(06 S StaleTermVoter "a voter of a stale term is needed for a quorum"
    unit:test_raft_election:test_s06_* golden:s06_stale_term_voter)
scenario(07 S LongLogLowTerm "a long log of a low term against a short one of a high term: no deadlock of pre-votes"
    unit:test_raft_election:test_s07_* golden:s07_prevote_long_log_low_term see:raft.Mutant.vote_for_a_shorter_log)
scenario(08 S OneWayLinks "one-way and partial links: the leader steps down"
    unit:test_raft_election:test_s08_* golden:s08_one_way_links)
scenario(08 P OneWayLinksOfProcesses "one-way and partial links: the leader steps down" see:fault.J3 see:fault.J4)

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
    unit:test_raft_flow:test_s16_* unit:test_raft_log:test_slice_respects_bytes_and_count_but_gives_one
    golden:s16_batch_byte_limit golden:s16_window_of_a_follower_fed_from_the_disk
    see:raft.Mutant.window_overfilled)
scenario(17 S TruncationDuringSync "a sync under way does not count for entries that replaced what it wrote"
    unit:test_raft_durability:test_s17_* golden:s17_truncation_during_sync
    see:raft.Mutant.truncation_leaves_old_claims)
scenario(18 S OwnSync "a leader, and a single node, counts itself only after its own sync"
    unit:test_raft_durability:test_s18_* golden:s18_own_sync golden:s18_followers_commit_without_the_leaders_disk
    see:raft.Mutant.leader_counts_what_is_not_durable)
scenario(18 P OwnSyncOfAProcess "a single node counts itself only after its sync" process:scenario:OwnSync)
scenario(19 S FailedSend "a failed send does not stop the heartbeats of the others"
    unit:test_raft_flow:test_s19_* golden:s19_failed_send)

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
scenario(24 P CrashAtEveryStorageCall "a crash at every save, fsync, rename, trim"
    see:fault.CrashPoints unit:test_wal_crash:test_crash_at_every_step_*
    unit:test_replica_snapshot:test_snapshot_crash_before_every_step_*)
scenario(25 S ValidSnapshotIsTaken "a valid snapshot is not refused for ever"
    unit:test_raft_snapshot:test_s25_* golden:s25_s26_interrupted_streams)
scenario(26 S InterruptedStream "the leader changes in mid-stream; a chunk is missing, repeated, damaged"
    unit:test_raft_snapshot:test_s26_* golden:s25_s26_interrupted_streams
    unit:test_replica_snapshot:test_snapshot_leader_dies_half_way_another_sends_it:test_snapshot_garbled_on_arrival_is_asked_for_anew)
scenario(27 S WhatASnapshotCarries "a snapshot carries membership, sessions and shard states"
    unit:test_raft_snapshot:test_s27_* golden:s27_snapshot_carries_the_membership
    unit:test_scenarios_kv:test_s27_* unit:test_replica_recover:test_log_time_travels_with_a_snapshot)
scenario(28 S SlowFollower "a snapshot that is always newer than a slow follower's log makes no endless loop"
    unit:test_raft_snapshot:test_s28_* golden:s23_s28_snapshot_to_a_slow_follower)

# ---- state machine ----
scenario(29 P AppliedWithTheData "the applied index is in the same batch as the data"
    unit:test_scenarios_store:test_s29_* unit:test_kv_machine:test_kv_crash_* see:fault.J1)
scenario(30 S NoReadsBeforeReplay "no reads before replay has caught up"
    unit:test_scenarios_node:test_s30_* unit:test_replica:test_replica_read_never_sees_less_*
    see:sim.NoReadsBeforeReplay)
scenario(30 P ReadsWaitForReplay "no reads before replay has caught up" process:scenario:ReadsWaitForReplay)
scenario(31 S ReplicatedStateOnly "apply depends on replicated state only"
    unit:test_scenarios_kv:test_s31_* unit:test_kv_machine:test_kv_machine_random_commands_agree_with_model)
scenario(32 P CrashDuringCompaction "a crash during compaction"
    unit:test_scenarios_store:test_s32_*)

# ---- reads and transfer ----
scenario(33 S NoReadBeforeTheFirstCommit "no read before the first commit of the leader's term"
    unit:test_raft_read:test_s33_* golden:s33_no_read_before_the_first_commit
    see:raft.Mutant.read_before_the_first_commit)
scenario(34 S RetriedRead "a read retried across a pause or a change of leader"
    unit:test_raft_read:test_s34_* golden:s34_reads_and_leader_change see:raft.Mutant.read_confirmed_by_anyone)
scenario(34 P RetriedReadOfProcesses "a read retried across a pause or a change of leader" see:fault.J2 see:fault.J1)
scenario(35 S Lease "a lease counts from the time of sending; a pause or skewed clocks"
    unit:test_raft_read:test_s35_* golden:s35_lease see:sim.SlowClockRead see:sim.LeaseSkew see:sim.LeasePause)
scenario(35 P LeaseOfProcesses "a lease counts from the time of sending; a pause or skewed clocks"
    see:fault.J12.Lease see:fault.J12 see:fault.J12.Planted)
scenario(36 S LeaseGivenUpOnTransfer "a lease is given up on transfer; a delayed order to campaign does nothing"
    unit:test_raft_read:test_s36_* unit:test_raft_transfer:test_s36_* golden:s36_s37_transfer
    see:raft.Mutant.lease_kept_on_transfer see:sim.LeaseAndADelayedOrder)
scenario(37 S TransferToADeadTarget "a transfer to a dead target is abandoned"
    unit:test_raft_transfer:test_s37_* unit:test_replica:test_replica_transfer_to_a_dead_target_is_given_up
    golden:s36_s37_transfer see:sim.TransferToTheDead)
scenario(38 S ReadAcrossAMove "a read queued across a move: ownership is checked again when it is served"
    unit:test_scenarios_moves:test_s38_* see:sim.ReadAcrossAMove)

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

scenario(43 P OtherDisks "a node that returns wiped, or with another's disk, is refused"
    process:scenario:OtherDisks unit:test_scenarios_node:test_s43_* see:test_node_members see:sim.WipedGroupRejoins)
scenario(44 P ChangeDuringAPartition "a member change during a partition"
    sim:sim.MembersDuringAPartition see:fault.J5 see:fault.J4)

# ---- storage ----
scenario(45 S TornTail "a torn tail is cut; damage in the middle is refused"
    unit:test_wal_damage:test_file_cut_at_every_offset_recovers_a_prefix:test_flip_*
    unit:test_wal_lost_writes:test_cut_group_*
    unit:test_wal_crash:test_crash_at_every_step_sectors_torn_recovers)
scenario(51 S FlippedBit "a flipped bit on one replica is found, repaired from peers, never led with"
    unit:test_wal_damage:test_flip_of_every_byte_in_a_synced_log_loses_nothing:test_read_of_a_damaged_entry_is_corrupt
    unit:test_kv_snapshot:test_kv_snapshot_damage_anywhere_is_found
    unit:test_store:test_store_rocksdb_damaged_files_are_refused_with_the_reason)
scenario(52 S LostWrite "a lost or misdirected write"
    unit:test_wal_lost_writes:test_lost_write_before_synced_ones_is_refused:test_misdirected_group_is_not_taken:test_new_header_over_old_records_is_torn)
scenario(45 P TornTailOfProcesses "a torn tail is cut; damage in the middle is refused"
    see:scenario.46p.TornTailIsCut see:fault.J10)
scenario(46 P TornTailIsCut "the tail is cut physically before anything is appended"
    process:scenario:TornTail unit:test_wal_lost_writes:test_cut_group_*:test_new_header_over_old_records_is_torn)
scenario(47 P PreallocatedZeros "zeroes written in advance are no entries"
    see:scenario.46p.TornTailIsCut unit:test_wal_log:test_prewritten_spares_are_zeroes_to_recovery
    unit:test_wal_lost_writes:test_recycled_segment_*)
scenario(48 P FailedSync "a failed fsync: stop, never retry"
    see:fault.J14.Errors unit:test_wal_log:test_failed_sync_* unit:test_replica:test_replica_failed_sync_*)
scenario(49 P DirectorySync "the directory is synced after create and rename"
    see:fault.J9 see:fault.CrashPoints unit:test_vfs:test_vfs_write_atomic_*:test_vfs_make_dirs_syncs_*
    unit:test_wal_crash:test_crash_at_every_step_*)
scenario(50 P NoSpace "no space at log, snapshot, compaction: stop taking writes, lose nothing, recover when there is room"
    see:fault.J14 unit:test_replica_snapshot:test_snapshot_receiver_disk_full_*:test_snapshot_sender_disk_full_*
    unit:test_replica:test_replica_full_disk_*)
scenario(51 P FlippedBitOfProcesses "a flipped bit on one replica is found, repaired from peers, never led with"
    see:fault.J10 see:fault.J10.Running)
scenario(53 P StalledSync "a stalled fsync: the leader hands off"
    see:fault.J14.Stall unit:test_raft_transfer:test_s53_* golden:s53_stalled_disk)

# ---- clients ----
scenario(54 S RetryExecutesOnce "a retry after an unknown outcome executes once"
    unit:test_router_outcomes:test_connection_lost_*:test_lost_write_*:test_outcome_of_an_attempt_* unit:test_router_random:test_random_*
    unit:test_kv_machine:test_kv_machine_random_commands_agree_with_model)
scenario(54 P RetryOfProcesses "a retry after an unknown outcome executes once" see:fault.J13 see:fault.J1)
scenario(55 S NoRedirectLoop "no redirect loop"
    unit:test_router:test_hints_in_a_circle_make_no_loop:test_wrong_group_in_a_circle_makes_no_loop)
scenario(56 S EvictedSession "a session evicted with an operation in flight is an error"
    unit:test_scenarios_kv:test_s56_* unit:test_router_outcomes:test_session_expired_*:test_command_too_old_*
    unit:test_kv_machine:test_kv_command_too_old_*:test_kv_sessions_full_*
    see:sim.SessionExpires see:sim.SessionExpiresInFlight)
scenario(57 S WaiterOfIndexAndTerm "a waiter is matched on (index, term)"
    unit:test_scenarios_node:test_s57_*)
scenario(58 S StaleSequence "a stale sequence after a newer one; a sequence reused with another payload"
    unit:test_session:test_session_acked_sequence_is_stale:test_session_same_sequence_other_payload_is_reused
    unit:test_kv_machine:test_kv_sequence_reused_or_stale_is_an_error
    unit:test_config_state:test_sequence_reused_or_stale_or_too_old_is_an_error)

# ---- shards ----
scenario(59 S NothingBeforeInstall "nothing is served before the install"
    unit:test_scenarios_moves:test_s59_* unit:test_kv_shards:test_shard_install_before_the_end_*)
scenario(60 S NothingAfterFreeze "nothing is acknowledged after the freeze"
    unit:test_scenarios_moves:test_s60_*)
scenario(61 S TwoGroupsSwapShards "two groups swap shards in one config"
    unit:test_kv_shards:test_shard_two_groups_swap_shards_in_one_config)
scenario(62 S SessionsMove "sessions move with the data"
    unit:test_kv_shards:test_shard_moves_with_rows_sessions_and_versions:test_shard_session_age_travels_not_time)
scenario(63 S ConfigTwiceLateSkipped "a config is delivered twice, late, or skipped"
    unit:test_kv_shards:test_shard_config_*
    unit:test_kv_mover:test_kv_mover_fetches_the_next_config_when_all_is_settled)
scenario(64 P SourceRestarts "the whole source group restarts in the middle of a move"
    sim:sim.SourceRestarts see:fault.J7)
scenario(65 S DelayedDrop "a delayed drop of config N arrives at N+2"
    unit:test_kv_shards:test_shard_delayed_drop_of_an_older_config_changes_nothing see:sim.DelayedDrop)
scenario(66 S DestinationCrashes "the destination crashes between install and drop"
    unit:test_scenarios_moves:test_s66_* see:sim.DestinationCrashes)
scenario(67 S OldDriver "an old driver finishes after a new one began"
    unit:test_scenarios_moves:test_s67_* unit:test_kv_shards:test_shard_chunk_twice_late_or_foreign_changes_nothing
    unit:test_kv_mover:test_kv_mover_takes_over_*:test_kv_mover_answers_for_a_lost_leadership_are_ignored
    see:sim.OldDriver see:sim.MoveFromAReplacedLeader)
scenario(68 S DroppedStaysDropped "a late snapshot or message revives no dropped shard"
    unit:test_scenarios_moves:test_s68_* see:sim.LateSnapshot)
scenario(68 P DroppedStaysDropped "a late snapshot or message revives no dropped shard"
    process:scenario:DroppedStaysDropped see:fault.J8)
scenario(69 S StaleConfig "a client with a stale config; dead groups in the config"
    unit:test_router:test_dead_group_does_not_hold_up_the_other:test_config_moves_what_waits_for_a_dead_group:test_shard_moved_twice_ends_at_the_newest_owner
    see:shardkv.Rejection see:shardkv.StaticShards)
scenario(70 S CrashInsideInstall "a crash inside the install: shard state and hard state agree"
    unit:test_scenarios_moves:test_s70_* unit:test_kv_shards:test_shard_states_survive_a_crash_at_every_point)

# ---- against real processes: each with a recorded history that the checker finds linearizable, and equal replicas ----
scenario(J1 P Kill "kill the leader, a quorum, all: no acknowledged append lost, none doubled" see:fault.J1)
scenario(J2 P Pause "the leader is stopped past its timeout: no stale read" see:fault.J2)
scenario(J3 P Partitions "halves, a majority ring, one isolated, one way: the majority serves" see:fault.J3)
scenario(J4 P Everything "J3 with kills, pauses and membership changes" see:fault.J4)
scenario(J5 P MinorityChange "a membership change of a minority's leader rolls back" see:fault.J5)
scenario(J6 P Moves "random moves: all present, no key ever seen as missing" see:fault.J6)
scenario(J7 P SourceDown "moves with the source group down: other shards go on" see:fault.J7)
scenario(J8 P KillDuringMoves "kills during install or drop" see:fault.J8)
scenario(J9 P PowerLoss "power loss on all nodes: all that was acknowledged survives" see:fault.J9 see:fault.J9.Planted)
scenario(J10 P Damage "one replica's log, snapshot or table is flipped or cut: found, the cluster loses nothing"
    see:fault.J10 see:fault.J10.Running)
scenario(J11 P Lag "a lag past compaction: catches up in bounded time" see:fault.J11)
scenario(J12 P Clocks "clock strobe: reads stay linearizable" see:fault.J12 see:fault.J12.Lease see:fault.J12.Planted)
scenario(J13 P Reset "a client is reset in mid-call: the retry is no second execution" see:fault.J13)
scenario(J14 P Errors "no space, EIO: stops, no false acknowledgement, restart recovers" see:fault.J14
    see:fault.J14.Errors see:fault.J14.Stall)
scenario(J15 P Administrators "admin commands while the controllers' leader is killed: configs are totally ordered"
    see:fault.J15)

file(WRITE ${CMAKE_BINARY_DIR}/tests/scenarios.tsv "${SCENARIO_ROWS}")

# A pattern that matches no test fails, or a row could come to show nothing.
add_test(NAME structure.unit_select COMMAND $<TARGET_FILE:test_session>)
set_tests_properties(structure.unit_select PROPERTIES LABELS structure TIMEOUT 30
    ENVIRONMENT "SHARDKV_TESTS=test_session_idle_* no_such_test" WILL_FAIL ON)
add_test(NAME structure.scenarios COMMAND python3 ${CMAKE_CURRENT_SOURCE_DIR}/structure/check_scenarios.py
    ${CMAKE_SOURCE_DIR} ${CMAKE_BINARY_DIR} ${CMAKE_CTEST_COMMAND})
set_tests_properties(structure.scenarios PROPERTIES LABELS structure TIMEOUT 60)

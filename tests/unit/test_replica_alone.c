/* One replica of three, by hand: the test is its peers, its clock and its workers, so that every
 * order of frames, polls and jobs can be had. What is here cannot be brought about with certainty
 * from outside. */
#include "base/log.h"
#include "node/kv_machine.h"
#include "proto/messages.h"
#include "raft/node/message_codec.h"
#include "raft/wal/wal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLUSTER = 11, GROUP = 7, SELF = 1, JOBS_MAX = 64 };

struct alone {
    struct fake_vfs *disk;
    uint64_t now_ns;
    struct clock clock;
    struct state_machine sm;
    struct replica *replica;
    struct replica_job *jobs[JOBS_MAX]; /* in order of submission */
    size_t job_count;
    uint64_t frames_sent;
    uint64_t syncs_then; /* of the disk, when the newest frame was sent */
};

static uint64_t alone_now_ns(void *context)
{
    return ((const struct alone *)context)->now_ns;
}

static void alone_submit(void *context, struct replica_job *job)
{
    struct alone *alone = context;
    assert_true(alone->job_count < JOBS_MAX);
    alone->jobs[alone->job_count++] = job;
}

static void alone_send(void *context, uint64_t peer, struct buf *frame)
{
    struct alone *alone = context;
    (void)peer;
    alone->frames_sent++;
    alone->syncs_then = fake_vfs_count(alone->disk, FAKE_SYNC);
    buf_deinit(frame); /* the test knows what a peer would say to it */
}

static void alone_fatal(void *context, const char *what)
{
    (void)context;
    fail_msg("%s", what);
}

static void alone_open(struct alone *alone)
{
    static const struct node_member members[] = {{1, "one:1"}, {2, "two:1"}, {3, "three:1"}};
    *alone = (struct alone){.disk = fake_vfs_create(1), .now_ns = NS_PER_S};
    alone->clock = (struct clock){alone_now_ns, alone_now_ns, alone};
    const struct vfs *vfs = fake_vfs_vfs(alone->disk);
    assert_int_equal(vfs_make_dirs(vfs, "replica"), ERR_OK);
    assert_int_equal(kv_machine_open(vfs, "replica", &alone->sm), ERR_OK);
    struct replica_options options = replica_options_default();
    options.cluster_id = CLUSTER;
    options.group_id = GROUP;
    options.replica_id = SELF;
    options.dir = "replica";
    options.members = members;
    options.member_count = 3;
    options.segment_bytes = 64 * 1024;
    options.prewrite_segments = false;
    options.seed = 1;
    struct replica_env env = {
        .context = alone,
        .clock = &alone->clock,
        .vfs = vfs,
        .send = alone_send,
        .submit = alone_submit,
        .fatal = alone_fatal,
    };
    char why[512] = "";
    if (replica_create(&options, &alone->sm, NULL, &env, &alone->replica, why, sizeof(why)) != 0) {
        fail_msg("%s", why);
    }
    replica_poll(alone->replica);
}

static void alone_close(struct alone *alone)
{
    for (size_t i = 0; i < alone->job_count; i++) {
        replica_job_discard(alone->jobs[i]);
    }
    replica_destroy(alone->replica);
    kv_machine_close(&alone->sm);
    fake_vfs_destroy(alone->disk);
}

/* Polls and runs jobs, one by one, until nothing is left to do. */
static void alone_settle(struct alone *alone)
{
    replica_poll(alone->replica);
    while (alone->job_count > 0) {
        struct replica_job *job = alone->jobs[0];
        alone->job_count--;
        memmove(alone->jobs, alone->jobs + 1, alone->job_count * sizeof(alone->jobs[0]));
        replica_jobs_run(&job, 1);
        replica_job_done(job);
        replica_poll(alone->replica);
        replica_check(alone->replica);
    }
}

static struct node_status alone_status(struct alone *alone)
{
    struct node_status status;
    replica_status(alone->replica, &status);
    return status;
}

static struct msg_frame frame_from(uint64_t peer)
{
    return (struct msg_frame){.version = PEER_VERSION,
                              .cluster_id = CLUSTER,
                              .group_id = GROUP,
                              .from = peer,
                              .from_incarnation = 100 * peer,
                              .to = SELF};
}

/* What replica_receive said to the frame with this one message. */
static uint64_t alone_receive(struct alone *alone, struct msg_frame frame,
                              const struct raft_message *message)
{
    struct buf packed = {0};
    struct buf bytes = {0};
    message_encode(message, &packed);
    frame.messages[0] = buf_view(&packed);
    frame.message_count = 1;
    msg_frame_encode(&frame, &bytes);
    struct blob *blob = blob_take_buf(&bytes);
    uint64_t from = replica_receive(alone->replica, blob);
    blob_unref(blob);
    buf_deinit(&packed);
    return from;
}

static void alone_hear(struct alone *alone, uint64_t peer, const struct raft_message *message)
{
    assert_int_equal(alone_receive(alone, frame_from(peer), message), peer);
}

/* Both peers have spoken once, and who they are is on the disk. */
static void alone_meet_peers(struct alone *alone)
{
    for (uint64_t peer = 2; peer <= 3; peer++) {
        alone_hear(alone, peer,
                   &(struct raft_message){.kind = RAFT_MSG_HEARTBEAT_REPLY, .term = 1});
        alone_settle(alone);
    }
}

static void alone_tick(struct alone *alone)
{
    alone->now_ns += 10 * NS_PER_MS;
    replica_tick(alone->replica);
    alone_settle(alone);
}

/* Wins an election with peer 2's votes, and commits its first entry with it. */
static void alone_lead(struct alone *alone)
{
    alone_meet_peers(alone);
    for (uint32_t i = 0; alone_status(alone).raft.state != RAFT_LEADER; i++) {
        assert_true(i < 1000);
        struct raft_status status = alone_status(alone).raft;
        if (status.state == RAFT_PRE_CANDIDATE) {
            alone_hear(
                alone, 2,
                &(struct raft_message){.kind = RAFT_MSG_PREVOTE_REPLY, .term = status.term + 1});
            alone_settle(alone);
        } else if (status.state == RAFT_CANDIDATE) {
            alone_hear(alone, 2,
                       &(struct raft_message){.kind = RAFT_MSG_VOTE_REPLY, .term = status.term});
            alone_settle(alone);
        } else {
            alone_tick(alone);
        }
    }
    struct raft_status status = alone_status(alone).raft;
    alone_hear(alone, 2,
               &(struct raft_message){
                   .kind = RAFT_MSG_APPEND_REPLY, .term = status.term, .position = status.last});
    alone_settle(alone);
    assert_int_equal(replica_role(alone->replica), NODE_LEADER);
}

/* ---- who may speak --------------------------------------------------------------------------- */

static void test_alone_frames_of_others_are_refused(void **state)
{
    (void)state;
    struct alone alone;
    alone_open(&alone);
    alone_meet_peers(&alone);
    struct raft_message message = {.kind = RAFT_MSG_HEARTBEAT, .term = 5};
    for (unsigned i = 0; i < 8; i++) {
        struct msg_frame frame = frame_from(2);
        frame.version += i == 0;
        frame.cluster_id += i == 1;
        frame.group_id += i == 2;
        frame.to += i == 3;
        frame.from = i == 4 ? 0 : frame.from;
        frame.from = i == 5 ? SELF : frame.from;
        frame.from_incarnation = i == 6 ? 0 : frame.from_incarnation;
        frame.from_incarnation += i == 7;
        assert_int_equal(alone_receive(&alone, frame, &message), 0);
        alone_settle(&alone);
        assert_int_equal(alone_status(&alone).raft.term, 1);
    }
    alone_hear(&alone, 2, &message);
    alone_settle(&alone);
    assert_int_equal(alone_status(&alone).raft.term, 5);
    alone_close(&alone);
}

/* What a peer says counts only when its incarnation is on the disk: else a crash could forget whom
 * we believed, and believe it once more with an empty disk. */
static void test_alone_peer_counts_when_its_incarnation_is_durable(void **state)
{
    (void)state;
    struct alone alone;
    alone_open(&alone);
    alone_settle(&alone);
    alone_hear(&alone, 2, &(struct raft_message){.kind = RAFT_MSG_HEARTBEAT, .term = 5});
    replica_poll(alone.replica);
    assert_int_equal(alone_status(&alone).raft.term, 0);
    assert_int_equal(alone.job_count, 1);
    assert_string_equal(alone.jobs[0]->name, "identity");
    alone_settle(&alone);
    assert_int_equal(alone_status(&alone).raft.term, 5);
    alone_close(&alone);
}

/* ---- whose entry it is ----------------------------------------------------------------------- */

struct answer {
    unsigned count;
    int error;
};

static void answered(void *context, int error, struct raft_position position, struct bytes result)
{
    struct answer *answer = context;
    (void)position;
    (void)result;
    answer->count++;
    answer->error = error;
}

static struct blob *put_command(const char *value)
{
    struct kv_command command = {
        .kind = KV_PUT, .key = bytes_of_string("key"), .value = bytes_of_string(value)};
    struct buf bytes = {0};
    kv_command_encode(&command, &bytes);
    return blob_take_buf(&bytes);
}

/* Between two polls another leader's entry takes the place of ours and is committed there. Its
 * result is not ours. */
static void test_alone_entry_in_the_place_of_ours_is_no_answer(void **state)
{
    (void)state;
    struct alone alone;
    alone_open(&alone);
    alone_lead(&alone);
    struct raft_position before = alone_status(&alone).raft.last;
    struct answer answer = {0};
    struct blob *ours = put_command("ours");
    replica_propose(alone.replica, blob_view(ours), ours, answered, &answer);
    alone_settle(&alone);
    assert_int_equal(alone_status(&alone).raft.last.index, before.index + 1);
    assert_int_equal(answer.count, 0);

    /* The bytes of an entry of one command are best had from a replica that made one: ours, as its
     * twin under the other's term. */
    struct raft_entry *entries = NULL;
    size_t count = 0;
    struct wal *wal = NULL;
    struct wal_recovery recovery;
    char why[512];
    struct wal_options options = wal_options_default();
    options.prewrite = false;
    struct fake_vfs *copy = fake_vfs_clone(alone.disk);
    assert_int_equal(wal_open(fake_vfs_vfs(copy), "replica/wal", &options, NULL, 0, &wal, &recovery,
                              why, sizeof(why)),
                     ERR_OK);
    assert_int_equal(
        wal_read(wal, before.index + 1, before.index + 1, UINT64_MAX, &entries, &count), ERR_OK);
    assert_int_equal(count, 1);
    entries[0].position.term = before.term + 1;
    alone_hear(&alone, 3,
               &(struct raft_message){.kind = RAFT_MSG_APPEND,
                                      .term = before.term + 1,
                                      .position = before,
                                      .commit = before.index + 1,
                                      .entries = entries,
                                      .entry_count = 1});
    alone_settle(&alone);
    assert_int_equal(alone_status(&alone).raft.applied, before.index + 1);
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.error, ERR_LEADER_LOST);
    wal_entries_free(entries, count);
    wal_recovery_free(&recovery);
    wal_close(wal);
    fake_vfs_destroy(copy);
    blob_unref(ours);
    alone_close(&alone);
}

/* ---- what was promised ----------------------------------------------------------------------- */

struct name {
    char text[64];
};

static void keep_name(void *context, const char *text)
{
    struct name *name = context;
    if (strstr(text, ".wal") != NULL) {
        snprintf(name->text, sizeof(name->text), "replica/wal/%s", text); /* the newest is last */
    }
}

/* Opens the log of the disk as it is, after a bit of `text` in it was flipped. */
static int open_damaged(struct alone *alone, const char *text)
{
    struct fake_vfs *copy = fake_vfs_clone(alone->disk);
    const struct vfs *vfs = fake_vfs_vfs(copy);
    struct name name = {{0}};
    struct buf bytes = {0};
    assert_int_equal(vfs->list(vfs->context, "replica/wal", keep_name, &name), ERR_OK);
    assert_true(fake_vfs_file_bytes(copy, name.text, &bytes));
    const uint8_t *at = memmem(bytes.data, bytes.size, text, strlen(text));
    assert_non_null(at);
    assert_true(fake_vfs_flip_bit(copy, name.text, (uint64_t)(at - bytes.data) * 8));
    struct wal *wal = NULL;
    struct wal_recovery recovery;
    char why[512];
    struct wal_options options = wal_options_default();
    options.prewrite = false;
    int error = wal_open(vfs, "replica/wal", &options, NULL, 0, &wal, &recovery, why, sizeof(why));
    if (error == ERR_OK) {
        wal_recovery_free(&recovery);
        wal_close(wal);
    }
    buf_deinit(&bytes);
    fake_vfs_destroy(copy);
    return error;
}

/* An acceptance leaves when its entry is durable and not a moment before. By then, or soon after,
 * the log says so itself: damage to the entry is no torn tail any more. */
static void test_alone_acceptance_follows_the_sync_and_the_mark_it(void **state)
{
    (void)state;
    static const char text[] = "what was promised";
    struct alone alone;
    alone_open(&alone);
    alone_meet_peers(&alone);
    struct raft_position last = alone_status(&alone).raft.last;
    struct raft_entry entry = {
        .position = {last.index + 1, 5}, .kind = RAFT_ENTRY_COMMAND, .data = bytes_of_string(text)};
    entry.owner = blob_copy(entry.data);
    entry.data = blob_view(entry.owner);
    alone_hear(&alone, 2,
               &(struct raft_message){.kind = RAFT_MSG_APPEND,
                                      .term = 5,
                                      .position = last,
                                      .commit = 0,
                                      .entries = &entry,
                                      .entry_count = 1});
    replica_poll(alone.replica);
    assert_int_equal(alone.job_count, 1);
    assert_string_equal(alone.jobs[0]->name, "write");
    uint64_t sent = alone.frames_sent;
    uint64_t syncs = fake_vfs_count(alone.disk, FAKE_SYNC);
    alone_settle(&alone);
    assert_int_equal(alone.frames_sent, sent + 1);
    assert_int_equal(alone.syncs_then, syncs + 1);
    assert_int_equal(open_damaged(&alone, text), ERR_CORRUPT);
    blob_unref(entry.owner);
    alone_close(&alone);
}

/* Both peers have it, so it is committed; our own disk has it not. Should we apply it now, and
 * flush what we applied, a power loss would leave a state that is ahead of the log. */
static void test_alone_committed_is_applied_when_it_is_durable_here(void **state)
{
    (void)state;
    struct alone alone;
    alone_open(&alone);
    alone_lead(&alone);
    struct answer answer = {0};
    struct blob *command = put_command("v");
    replica_propose(alone.replica, blob_view(command), command, answered, &answer);
    replica_poll(alone.replica);
    assert_int_equal(alone.job_count, 1);
    assert_string_equal(alone.jobs[0]->name, "write");
    struct raft_status status = alone_status(&alone).raft;
    for (uint64_t peer = 2; peer <= 3; peer++) {
        alone_hear(&alone, peer,
                   &(struct raft_message){.kind = RAFT_MSG_APPEND_REPLY,
                                          .term = status.term,
                                          .position = status.last});
    }
    replica_poll(alone.replica);
    assert_int_equal(alone_status(&alone).raft.commit, status.last.index);
    assert_int_equal(alone.job_count, 1); /* the write, still */
    assert_int_equal(answer.count, 0);
    alone_settle(&alone);
    assert_int_equal(alone_status(&alone).raft.applied, status.last.index);
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.error, ERR_OK);
    blob_unref(command);
    alone_close(&alone);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone_frames_of_others_are_refused),
        cmocka_unit_test(test_alone_peer_counts_when_its_incarnation_is_durable),
        cmocka_unit_test(test_alone_entry_in_the_place_of_ours_is_no_answer),
        cmocka_unit_test(test_alone_acceptance_follows_the_sync_and_the_mark_it),
        cmocka_unit_test(test_alone_committed_is_applied_when_it_is_durable_here),
    };
    log_set_level(getenv("TEST_LOG") == NULL ? (enum log_level)(LOG_ERROR + 1) : LOG_INFO);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

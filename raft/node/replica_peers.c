/* Frames from peers: who may speak to the core. Loop thread only.
 *
 * A frame must name this cluster, this group and this replica. A member's first frame teaches us
 * its incarnation, which is written to the identity file before anything it says counts: frames
 * that come meanwhile are parked. From then on a frame with another incarnation is from a replica
 * that lost its disk, and with it votes and entries it had promised: it is refused for as long as
 * it is a member. Two followers need never have a message for each other; so that each knows the
 * other's incarnation before one of them loses its disk, everybody greets everybody with an empty
 * frame (replica__greet_tick): often while somebody is or was just unknown, for who has heard all
 * cannot know who has heard him, then now and then. Else a wiped follower and one that never heard
 * it would be a majority without what was acknowledged. Who is not (yet) a member may speak - a
 * leader whose entry about itself has not reached us, a candidate - and is not written down: the
 * core counts members only. */
#include "raft/node/replica_internal.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/metrics.h"
#include "proto/messages.h"
#include "raft/node/message_codec.h"

#include <inttypes.h>

METRIC(peer_frames_received_count, COUNTER, "frames received from peers")
METRIC(peer_frames_refused_count, COUNTER,
       "frames refused: malformed, or of another cluster, group, replica or incarnation")

enum {
    REFUSAL_LOG_INTERVAL_S = 5,
    GREETING_ELECTIONS = 10,   /* election timeouts between greetings, nothing new for long */
    GREETINGS_AFTER_NEWS = 10, /* one each election timeout, after a start or a new peer */
};

enum peer_verdict { PEER_KNOWN, PEER_PARK, PEER_REFUSE };

static void refuse(struct replica *replica, const struct msg_frame *frame, const char *reason,
                   const char *advice)
{
    metric_add(&peer_frames_refused_count, 1);
    if (!log_rate_limit(&replica->refused_logged_ns, clock_now_ns(replica->env.clock),
                        REFUSAL_LOG_INTERVAL_S * NS_PER_S)) {
        return;
    }
    log_event(LOG_WARN, "peer.refused",
              "group=%" PRIu64 " replica=%" PRIu64 " reason=%s from=%" PRIu64 " from_group=%" PRIu64
              " from_cluster=%016" PRIx64 " to=%" PRIu64 " advice=%s",
              replica->options.group_id, replica->options.replica_id, reason, frame->from,
              frame->group_id, frame->cluster_id, frame->to, advice);
}

static bool frame_is_for_us(struct replica *replica, const struct msg_frame *frame)
{
    const struct outbox_sender *self = &replica->sender;
    if (frame->version != PEER_VERSION) {
        refuse(replica, frame, "version", "run_the_same_version_on_all_replicas");
    } else if (frame->cluster_id != self->cluster_id) {
        refuse(replica, frame, "wrong_cluster",
               "check_the_cluster_name_and_addresses_of_that_replica");
    } else if (frame->group_id != self->group_id) {
        refuse(replica, frame, "wrong_group", "check_the_group_id_and_addresses_of_that_replica");
    } else if (frame->to != self->replica_id) {
        refuse(replica, frame, "wrong_replica", "check_the_addresses_of_that_replica");
    } else if (frame->from == 0 || frame->from == self->replica_id ||
               frame->from_incarnation == 0) {
        refuse(replica, frame, "wrong_sender", "two_replicas_must_not_have_one_id");
    } else {
        return true;
    }
    return false;
}

static enum peer_verdict judge_sender(struct replica *replica, const struct msg_frame *frame)
{
    if (raft_membership_find(&replica->status.membership, frame->from) == NULL) {
        return PEER_KNOWN;
    }
    uint64_t incarnation = identity_peer_incarnation(&replica->identity, frame->from);
    if (incarnation == frame->from_incarnation) {
        return replica->identity_writing || replica->identity_dirty ? PEER_PARK : PEER_KNOWN;
    }
    if (incarnation != 0) {
        refuse(replica, frame, "wiped_disk",
               "that_replica_lost_its_data:remove_it_from_the_group_and_add_it_under_a_new_id");
        return PEER_REFUSE;
    }
    if (!identity_peer_learn(&replica->identity, frame->from, frame->from_incarnation)) {
        refuse(replica, frame, "too_many_peers", "remove_members_that_are_gone");
        return PEER_REFUSE;
    }
    replica->identity_dirty = true;
    replica->greetings_since_news = 0;
    return PEER_PARK;
}

static void write_identity(struct replica *replica)
{
    if (replica->identity_dirty && !replica->identity_writing && !replica->stopping) {
        replica->identity_dirty = false;
        replica->identity_writing = true;
        replica__identity_submit(replica);
    }
}

static void step_messages(struct replica *replica, const struct msg_frame *frame,
                          struct blob *owner)
{
    for (uint32_t i = 0; i < frame->message_count; i++) {
        struct message_decoded decoded;
        int error = message_decode(frame->messages[i], owner, frame->from, frame->to, &decoded);
        if (error != ERR_OK) {
            refuse(replica, frame, err_name(error),
                   "if_it_goes_on_the_network_or_a_version_is_bad");
            return; /* what follows was sent after it: dropping all of it is like losing it */
        }
        raft_core_step(replica->core, &decoded.message);
        message_decoded_deinit(&decoded);
    }
}

uint64_t replica_receive(struct replica *replica, struct blob *frame_bytes)
{
    struct msg_frame frame;
    if (replica->dead || replica->stopping) {
        return 0;
    }
    metric_add(&peer_frames_received_count, 1);
    if (msg_frame_decode(blob_view(frame_bytes), &frame) != ERR_OK) {
        metric_add(&peer_frames_refused_count, 1);
        return 0;
    }
    if (!frame_is_for_us(replica, &frame)) {
        return 0;
    }
    switch (judge_sender(replica, &frame)) {
    case PEER_REFUSE:
        return 0;
    case PEER_PARK:
        if (replica->parked_count < REPLICA_PARKED_FRAMES_MAX) {
            replica->parked[replica->parked_count++] = blob_ref(frame_bytes);
        }
        write_identity(replica);
        return frame.from;
    case PEER_KNOWN:
        break;
    }
    step_messages(replica, &frame, frame_bytes);
    return frame.from;
}

void replica__identity_stored(struct replica *replica)
{
    replica->identity_writing = false;
    write_identity(replica); /* another one was learnt meanwhile */
    if (replica->identity_writing) {
        return;
    }
    struct blob *parked[REPLICA_PARKED_FRAMES_MAX];
    uint32_t count = replica->parked_count;
    for (uint32_t i = 0; i < count; i++) {
        parked[i] = replica->parked[i];
    }
    replica->parked_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        (void)replica_receive(replica, parked[i]);
        blob_unref(parked[i]);
    }
}

void replica__parked_drop(struct replica *replica)
{
    for (uint32_t i = 0; i < replica->parked_count; i++) {
        blob_unref(replica->parked[i]);
    }
    replica->parked_count = 0;
}

static bool knows_all_members(const struct replica *replica)
{
    const struct raft_membership *membership = &replica->status.membership;
    for (uint32_t i = 0; i < membership->count; i++) {
        uint64_t id = membership->members[i].id;
        if (id != replica->options.replica_id &&
            identity_peer_incarnation(&replica->identity, id) == 0) {
            return false;
        }
    }
    return true;
}

/* Whom we have not heard, or only just, has perhaps not heard us: then soon again. */
void replica__greet_tick(struct replica *replica)
{
    const struct raft_membership *membership = &replica->status.membership;
    bool soon = replica->greetings_since_news < GREETINGS_AFTER_NEWS || !knows_all_members(replica);
    uint64_t pause = (uint64_t)replica->options.election_ticks * (soon ? 1 : GREETING_ELECTIONS);
    if (replica->greeted_tick != 0 && replica->tick_count - replica->greeted_tick < pause) {
        return;
    }
    replica->greetings_since_news++;
    replica->greeted_tick = replica->tick_count;
    for (uint32_t i = 0; i < membership->count; i++) {
        if (membership->members[i].id != replica->options.replica_id) {
            outbox_greet(&replica->outbox, membership->members[i].id);
        }
    }
}

/* A member that is gone for good may be forgotten. For good: a removal that is not committed may be
 * rolled back. */
void replica__identity_check_members(struct replica *replica)
{
    struct raft_membership committed;
    if (replica->stopping || !raft_core_membership_at(replica->core, replica->commit, &committed) ||
        !raft_position_equal(committed.position, replica->status.membership.position)) {
        return;
    }
    if (identity_peers_keep(&replica->identity, &committed)) {
        replica->identity_dirty = true;
        write_identity(replica);
    }
}

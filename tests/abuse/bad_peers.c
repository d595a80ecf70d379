/* Strangers that speak the house's own protocols perfectly, and lie: of another cluster, another
 * group, another replica, another incarnation. None of it may change a term, a leader, a config or
 * a shard; each unary call is told what was wrong. */
#include "abuse/abuse.h"
#include "abuse/scene.h"
#include "base/clock.h"
#include "lib/suite.h"
#include "proto/messages.h"
#include "proto/methods.h"
#include "proto/shard_hash.h"
#include "raft/node/message_codec.h"
#include "rpc/rpc.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FRAMES = 50, PEERS_DURING_BYTES = 64 * 1024 * 1024, ANSWER_SECONDS = 5 };

struct stranger {
    struct rpc *rpc;
    struct rpc_channel *channel;
    uint64_t cluster_id; /* the right one */
};

static void stranger_init(struct stranger *stranger, struct scene *scene, enum scene_victim victim)
{
    struct rpc_options options = rpc_options_default();
    char address[32];
    snprintf(address, sizeof address, "127.0.0.1:%u", scene_port(scene, victim));
    CHECK_EQ(rpc_create(&options, &stranger->rpc), 0);
    CHECK_EQ(rpc_channel_create(stranger->rpc, address, &stranger->channel), 0);
    stranger->cluster_id = cluster_id_of_name(scene->cluster.name);
}

static void stranger_deinit(struct stranger *stranger)
{
    rpc_channel_destroy(stranger->channel);
    rpc_destroy(stranger->rpc);
}

/* ---- unary calls ---- */

/* Takes `request`'s memory. */
static void call(struct stranger *stranger, const char *method, struct buf *request,
                 struct buf *reply)
{
    char text[RPC_ERROR_TEXT_BYTES_MAX];
    buf_clear(reply);
    int error = rpc_call_wait(stranger->channel, method, request,
                              clock_now_ns(clock_system()) + ANSWER_SECONDS * NS_PER_S, reply, text,
                              sizeof text);
    if (error != 0) {
        FAIL("%s: %s (%s)", method, err_name(error), text);
    }
    buf_deinit(request);
}

static void ask_status(struct stranger *stranger, struct msg_status_response *out)
{
    struct msg_status_request message = {.cluster_id = stranger->cluster_id};
    struct buf request = {0};
    struct buf reply = {0};
    msg_status_request_encode(&message, &request);
    call(stranger, METHOD_ADMIN_STATUS, &request, &reply);
    memset(out, 0, sizeof *out);
    CHECK_EQ(msg_status_response_decode(buf_view(&reply), out), 0);
    CHECK_EQ(out->header.error, 0);
    buf_deinit(&reply);
}

/* The verbs of a move, each with one thing that is not so. */
static void lie_about_moves(struct stranger *stranger)
{
    static const char *const verbs[] = {METHOD_SHARD_MOVE_OPEN, METHOD_SHARD_MOVE_READ,
                                        METHOD_SHARD_MOVE_FREEZE, METHOD_SHARD_MOVE_DROP};
    const uint64_t right = stranger->cluster_id;
    const struct msg_peer_move_request lies[] = {
        {right + 1, 0, 1, 1, 2},               /* another cluster */
        {0, 0, 1, 1, 2},                       /* no cluster */
        {right, 0, 1, 2, 3},                   /* another group's shard */
        {right, 0, 1, 1, 1},                   /* to itself */
        {right, 0, 1, 1, 0},                   /* to nobody */
        {right, 0, 0, 1, 2},                   /* before the first config */
        {right, 0, 1, 1, 2},                   /* never decided */
        {right, 0, 1000000, 1, 2},             /* a config that is not there yet */
        {right, 0, UINT64_MAX, 1, UINT64_MAX}, /* nor ever */
        {right, UINT32_MAX, 1, 1, 2},          /* a shard that is not there */
    };
    struct buf reply = {0};
    for (size_t verb = 0; verb < sizeof verbs / sizeof verbs[0]; verb++) {
        for (size_t lie = 0; lie < sizeof lies / sizeof lies[0]; lie++) {
            struct buf request = {0};
            int told = 0;
            if (verbs[verb] == verbs[1]) {
                struct msg_peer_read_request message = {.move = lies[lie], .bytes_max = 1000000};
                struct msg_peer_read_response answer;
                msg_peer_read_request_encode(&message, &request);
                call(stranger, verbs[verb], &request, &reply);
                CHECK_EQ(msg_peer_read_response_decode(buf_view(&reply), &answer), 0);
                told = answer.error;
                CHECK_EQ(answer.rows.size, 0);
            } else {
                struct msg_peer_move_response answer;
                msg_peer_move_request_encode(&lies[lie], &request);
                call(stranger, verbs[verb], &request, &reply);
                CHECK_EQ(msg_peer_move_response_decode(buf_view(&reply), &answer), 0);
                told = answer.error;
            }
            /* A Drop of what is not here any more has nothing left to do, and says so. */
            if (told == 0 && verbs[verb] != verbs[3]) {
                FAIL("%s number %zu was believed", verbs[verb], lie);
            }
        }
    }
    buf_deinit(&reply);
}

static void lie_to_administrators(struct stranger *stranger)
{
    struct buf request = {0};
    struct buf reply = {0};
    struct msg_admin_response answer;
    struct msg_transfer_request transfer = {.cluster_id = stranger->cluster_id + 1};
    msg_transfer_request_encode(&transfer, &request);
    call(stranger, METHOD_ADMIN_TRANSFER, &request, &reply);
    CHECK_EQ(msg_admin_response_decode(buf_view(&reply), &answer), 0);
    CHECK_EQ(answer.header.error, ERR_WRONG_CLUSTER);
    struct msg_change_member_request change = {
        .cluster_id = stranger->cluster_id + 1, .kind = MSG_MEMBER_REMOVE, .id = 1};
    msg_change_member_request_encode(&change, &request);
    call(stranger, METHOD_ADMIN_CHANGE_MEMBER, &request, &reply);
    CHECK_EQ(msg_admin_response_decode(buf_view(&reply), &answer), 0);
    CHECK_EQ(answer.header.error, ERR_WRONG_CLUSTER);
    buf_deinit(&reply);
}

static void lie_to_controllers(struct stranger *stranger)
{
    struct buf request = {0};
    struct buf reply = {0};
    struct msg_change_response answer;
    struct msg_leave_request *leave = mem_calloc(1, sizeof *leave);
    leave->header.cluster_id = stranger->cluster_id + 1;
    leave->force = true;
    leave->group_count = 1;
    leave->group_ids[0] = 1;
    msg_leave_request_encode(leave, &request);
    free(leave);
    call(stranger, METHOD_CONTROLLER_LEAVE, &request, &reply);
    CHECK_EQ(msg_change_response_decode(buf_view(&reply), &answer), 0);
    CHECK_EQ(answer.header.error, ERR_WRONG_CLUSTER);
    struct msg_move_request move = {
        .header.cluster_id = stranger->cluster_id + 1, .shard = 0, .group_id = 1};
    msg_move_request_encode(&move, &request);
    call(stranger, METHOD_CONTROLLER_MOVE, &request, &reply);
    CHECK_EQ(msg_change_response_decode(buf_view(&reply), &answer), 0);
    CHECK_EQ(answer.header.error, ERR_WRONG_CLUSTER);
    buf_deinit(&reply);
}

/* ---- Raft messages ---- */

static bool drop_message(void *context, struct rpc_stream *stream, struct bytes message,
                         struct blob *owner)
{
    (void)context;
    (void)stream;
    (void)message;
    (void)owner;
    return true;
}

struct ending {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed;
};

static void note_closed(void *context, struct rpc_stream *stream, int error, const char *text)
{
    (void)stream;
    (void)error;
    (void)text;
    struct ending *ending = context;
    pthread_mutex_lock(&ending->lock);
    ending->closed = true;
    pthread_cond_signal(&ending->changed);
    pthread_mutex_unlock(&ending->lock);
}

/* A message of a term far ahead, which would depose the leader if it were believed. */
static void put_raft_message(enum raft_message_kind kind, uint64_t from, uint64_t to, uint64_t term,
                             struct buf *out)
{
    struct raft_message message = {
        .kind = kind,
        .from = from,
        .to = to,
        .term = term,
        .leader_transfer = kind == RAFT_MSG_VOTE,
    };
    if (kind == RAFT_MSG_VOTE || kind == RAFT_MSG_PREVOTE) {
        message.position = (struct raft_position){.index = 1000000, .term = term};
    }
    message_encode(&message, out);
}

static void send_frames(struct stranger *stranger, const struct msg_frame *lie, uint64_t term)
{
    static const struct rpc_stream_events events = {.message = drop_message, .closed = note_closed};
    static const enum raft_message_kind kinds[] = {RAFT_MSG_VOTE, RAFT_MSG_PREVOTE, RAFT_MSG_APPEND,
                                                   RAFT_MSG_HEARTBEAT, RAFT_MSG_TIMEOUT_NOW};
    enum { KINDS = sizeof kinds / sizeof kinds[0] };
    struct ending ending = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
    struct rpc_stream *stream = NULL;
    CHECK_EQ(rpc_stream_open(stranger->channel, METHOD_PEER_MESSAGES, &events, &ending,
                             16 * 1024 * 1024, &stream),
             0);
    for (int i = 0; i < FRAMES; i++) {
        struct msg_frame *frame = mem_dup(lie, sizeof *lie);
        struct buf message = {0};
        struct buf bytes = {0};
        put_raft_message(kinds[i % KINDS], lie->from, lie->to, term, &message);
        frame->message_count = 1;
        frame->messages[0] = buf_view(&message);
        msg_frame_encode(frame, &bytes);
        int error = rpc_stream_send(stream, &bytes);
        buf_deinit(&bytes);
        buf_deinit(&message);
        free(frame);
        if (error != 0) {
            break; /* it was thrown out: even better */
        }
    }
    rpc_stream_finish(stream);
    pthread_mutex_lock(&ending.lock);
    while (!ending.closed) {
        pthread_cond_wait(&ending.changed, &ending.lock);
    }
    pthread_mutex_unlock(&ending.lock);
    rpc_stream_unref(stream);
}

static void lie_as_peer(struct stranger *stranger, uint64_t group, uint32_t self)
{
    const uint64_t right = stranger->cluster_id;
    const uint64_t other = self % CLUSTER_REPLICAS + 1; /* a member, not the leader */
    const struct msg_frame lies[] = {
        {PEER_VERSION, right + 1, group, other, 7, self, 0, {BYTES_EMPTY}}, /* cluster */
        {PEER_VERSION, 0, group, other, 7, self, 0, {BYTES_EMPTY}},
        {PEER_VERSION, right, group + 1, other, 7, self, 0, {BYTES_EMPTY}}, /* group */
        {PEER_VERSION, right, group, other, 7, self + 1, 0, {BYTES_EMPTY}}, /* addressee */
        {PEER_VERSION, right, group, self, 7, self, 0, {BYTES_EMPTY}},      /* the leader itself */
        {PEER_VERSION, right, group, 0, 7, self, 0, {BYTES_EMPTY}},         /* nobody */
        {PEER_VERSION, right, group, other, 0, self, 0, {BYTES_EMPTY}},     /* no incarnation */
        {PEER_VERSION, right, group, other, 7, self, 0, {BYTES_EMPTY}},     /* a wrong one */
        {PEER_VERSION + 1, right, group, other, 7, self, 0, {BYTES_EMPTY}}, /* version */
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        send_frames(stranger, &lies[i], 1000000 + i);
    }
}

void test_lying_peers(void)
{
    struct scene *scene = scene_begin("lyingpeers");
    for (int victim = 0; victim < SCENE_VICTIMS; victim++) {
        struct stranger stranger;
        struct msg_status_response before, after;
        stranger_init(&stranger, scene, (enum scene_victim)victim);
        ask_status(&stranger, &before);
        for (uint32_t round = 0; round < 3 * scene_factor(); round++) {
            lie_as_peer(&stranger, scene->victims[victim]->group, scene->victims[victim]->id);
            lie_to_administrators(&stranger);
            if (victim == SCENE_GROUP) {
                lie_about_moves(&stranger);
            } else {
                lie_to_controllers(&stranger);
            }
        }
        ask_status(&stranger, &after);
        CHECK_EQ(after.term, before.term);
        CHECK_EQ(after.leader_id, before.leader_id);
        CHECK_EQ(after.config_number, before.config_number);
        CHECK_EQ(after.member_count, before.member_count);
        msg_status_response_deinit(&before);
        msg_status_response_deinit(&after);
        stranger_deinit(&stranger);
    }
    scene_end(scene, PEERS_DURING_BYTES);
}

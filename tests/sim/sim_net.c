/* See sim_net.h. Thread: one. A pipe has at most one delivery scheduled: that of its first message.
 */
#include "sim/sim_net.h"

#include "base/assert.h"
#include "sim/sometimes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HASHED_BYTES = 256 }; /* of a frame, for the trace's hash */
#define STALL_RETRY_NS (20 * SIM_MS)

static void pipe_schedule(struct conn *conn, enum conn_side side);

/* ---- life ---- */

void conn_message_free(struct conn_message *message)
{
    blob_unref(message->payload);
    free(message);
}

struct conn *conn_ref(struct conn *conn)
{
    conn->references++;
    return conn;
}

static void pipe_clear(struct conn_pipe *pipe)
{
    while (pipe->first != NULL) {
        struct conn_message *message = pipe->first;
        pipe->first = message->next;
        conn_message_free(message);
    }
    pipe->last = NULL;
}

void conn_unref(struct conn *conn)
{
    ASSERT_CMP(conn->references, >, 0);
    if (--conn->references > 0) {
        return;
    }
    pipe_clear(&conn->pipes[CONN_CLIENT]);
    pipe_clear(&conn->pipes[CONN_SERVER]);
    *conn->link = conn->next;
    if (conn->next != NULL) {
        conn->next->link = conn->link;
    }
    free(conn);
}

struct conn *conn_open(const char *address, const char *method, bool is_stream,
                       uint64_t deadline_ns, void *user, conn_take_fn take, conn_left_fn left)
{
    struct sim_world *world = sim_world();
    ASSERT(world->current != NULL);
    struct conn *conn = mem_calloc(1, sizeof *conn);
    conn->references = 1;
    conn->is_stream = is_stream;
    conn->deadline_ns = deadline_ns;
    (void)snprintf(conn->method, sizeof conn->method, "%s", method);
    conn->ends[CONN_CLIENT] = (struct conn_end){.host = world->current,
                                                .incarnation = world->current->incarnation,
                                                .open = true,
                                                .user = user,
                                                .take = take,
                                                .left = left};
    conn->ends[CONN_SERVER].host = sim_host_find(address);
    conn->next = world->conns;
    conn->link = &world->conns;
    if (conn->next != NULL) {
        conn->next->link = &conn->next;
    }
    world->conns = conn;
    return conn;
}

void conn_detach(struct conn *conn, enum conn_side side)
{
    conn->ends[side].open = false;
    conn->ends[side].user = NULL;
}

static bool end_is_alive(const struct conn_end *end)
{
    return end->host != NULL && end->host->up && !end->host->dying &&
           end->host->incarnation == end->incarnation;
}

/* ---- delays ---- */

/* What a clogged link adds to whatever is sent over it now. */
static uint64_t clog_ns(const struct sim_host *from, const struct sim_host *to)
{
    const struct sim_world *world = sim_world();
    uint64_t until_ns = to == NULL ? 0 : world->clogged_until_ns[from->index][to->index];
    uint64_t now_ns = world->clock.now_ns;
    if (until_ns <= now_ns) {
        return 0;
    }
    sim_sometimes(S_LINK_CLOGGED);
    return until_ns - now_ns;
}

static uint64_t draw_delay_ns(bool is_answer)
{
    struct sim_world *world = sim_world();
    uint64_t delay_ns = rng_between(&world->rng, world->net.delay_min_ns, world->net.delay_max_ns);
    if (is_answer && world->net.long_reordering && rng_below(&world->rng, 900) < 600) {
        delay_ns +=
            200 * SIM_MS + rng_below(&world->rng, 1 + rng_below(&world->rng, 2000)) * SIM_MS;
    }
    return delay_ns;
}

static bool draw_loss(void)
{
    struct sim_world *world = sim_world();
    return world->net.loss_permille > 0 && rng_chance(&world->rng, world->net.loss_permille, 1000);
}

/* ---- breaking ---- */

struct news {
    struct conn *conn;
    enum conn_side side;
    bool not_sent;
    uint64_t since_ns;
};

static void news_drop(void *context, void *payload)
{
    (void)context;
    struct news *news = payload;
    conn_unref(news->conn);
    free(news);
}

static void end_tell_broken(struct conn *conn, enum conn_side side, bool not_sent)
{
    struct conn_end *end = &conn->ends[side];
    if (!end->open || end->told_broken || !end_is_alive(end)) {
        return;
    }
    end->told_broken = true;
    struct conn_message *message = mem_calloc(1, sizeof *message);
    message->kind = CONN_BROKEN;
    message->error = side == CONN_CLIENT ? ERR_UNAVAILABLE : ERR_CANCELED;
    message->not_sent = not_sent;
    (void)snprintf(message->text, sizeof message->text, "%s",
                   not_sent ? "connection refused" : "connection lost");
    struct sim_host *former = sim_callback_enter(end->host);
    end->take(end->user, message);
    sim_callback_leave(former);
}

static void news_run(void *context, void *payload)
{
    struct news *news = payload;
    struct conn_end *end = &news->conn->ends[news->side];
    struct sim_host *other = news->conn->ends[!news->side].host;
    bool waits = end->open && other != NULL && sim_is_cut(other, end->host) &&
                 sim_now_ns() - news->since_ns < SIM_KEEPALIVE_NS;
    if (waits) { /* a reset does not come through either; the keepalive notices in the end */
        sim_after(end->host, STALL_RETRY_NS, news_run, news_drop, context, news);
        return;
    }
    end_tell_broken(news->conn, news->side, news->not_sent);
    news_drop(context, news);
}

static void end_break_later(struct conn *conn, enum conn_side side, bool not_sent,
                            uint64_t delay_ns)
{
    struct conn_end *end = &conn->ends[side];
    if (!end->open || !end_is_alive(end)) {
        return;
    }
    struct news *news = mem_alloc(sizeof *news);
    *news = (struct news){
        .conn = conn_ref(conn), .side = side, .not_sent = not_sent, .since_ns = sim_now_ns()};
    sim_after(end->host, delay_ns, news_run, news_drop, NULL, news);
}

static void conn_break(struct conn *conn, bool not_sent, uint64_t delay_ns)
{
    if (conn->broken) {
        return;
    }
    conn->broken = true;
    sim_world()->counters.conns_broken++;
    pipe_clear(&conn->pipes[CONN_CLIENT]);
    pipe_clear(&conn->pipes[CONN_SERVER]);
    end_break_later(conn, CONN_CLIENT, not_sent, delay_ns);
    end_break_later(conn, CONN_SERVER, false, delay_ns);
}

void conns_abandon(struct sim_host *host)
{
    struct conn *next = NULL;
    for (struct conn *conn = sim_world()->conns; conn != NULL; conn = next) {
        next = conn->next;
        for (int side = CONN_CLIENT; side <= CONN_SERVER; side++) {
            struct conn_end *end = &conn->ends[side];
            /* A server's end that has not accepted anything yet is no end: the reset comes when
             * something arrives. */
            if (end->host == host && end->take != NULL && end->incarnation == host->incarnation &&
                !conn->broken) {
                conn_break(conn, false, draw_delay_ns(false));
            }
        }
    }
}

/* ---- delivery ---- */

static struct conn_message *pipe_pop(struct conn_pipe *pipe)
{
    struct conn_message *message = pipe->first;
    pipe->first = message->next;
    if (pipe->first == NULL) {
        pipe->last = NULL;
    }
    message->next = NULL;
    return message;
}

static size_t payload_size(const struct conn_message *message)
{
    return message->payload == NULL ? 0 : blob_view(message->payload).size;
}

/* The message was lost on its way: the connection breaks, which the other side notices soon, as the
 * course's clients notice a lost call; or, now and then, nothing comes through that pipe any more
 * and nobody says so. */
static void lose(struct conn *conn, enum conn_side side)
{
    if (sim_between(1, 20) > 1) {
        conn_break(conn, false, draw_delay_ns(false));
        return;
    }
    sim_world()->counters.conns_stalled++;
    conn->pipes[side].silent = true;
    pipe_clear(&conn->pipes[side]);
    end_break_later(conn, CONN_CLIENT, false, SIM_KEEPALIVE_NS);
    end_break_later(conn, CONN_SERVER, false, SIM_KEEPALIVE_NS);
}

static void hand_over(struct conn *conn, enum conn_side side, struct conn_message *message)
{
    struct conn_end *from = &conn->ends[side];
    struct conn_end *to = &conn->ends[!side];
    size_t bytes = payload_size(message);
    if (message->kind == CONN_OPEN && side == CONN_CLIENT) {
        to->incarnation = to->host->incarnation;
        struct sim_host *former = sim_callback_enter(to->host);
        if (!rpc_server_accept(to->host->listener, conn, message)) {
            conn_send(conn, CONN_SERVER, CONN_CLOSE, ERR_UNSUPPORTED, "no such method", NULL);
        }
        sim_callback_leave(former);
    } else if (to->open) {
        struct sim_host *former = sim_callback_enter(to->host);
        to->take(to->user, message);
        sim_callback_leave(former);
    } else {
        conn_message_free(message);
    }
    if (from->open && from->left != NULL && end_is_alive(from)) {
        struct sim_host *former = sim_callback_enter(from->host);
        from->left(from->user, bytes);
        sim_callback_leave(former);
    }
}

/* Whether somebody is there to take the message; otherwise the connection is broken by this. */
static bool somebody_is_there(struct conn *conn, enum conn_side side)
{
    struct conn_end *to = &conn->ends[!side];
    bool opening = conn->pipes[side].first->kind == CONN_OPEN;
    if (opening ? to->host != NULL && to->host->up && !to->host->dying && to->host->listener != NULL
                : end_is_alive(to)) {
        return true;
    }
    conn_break(conn, opening, draw_delay_ns(false));
    return false;
}

static void pipe_deliver(struct conn *conn, enum conn_side side)
{
    struct conn_pipe *pipe = &conn->pipes[side];
    struct conn_end *from = &conn->ends[side];
    struct conn_end *to = &conn->ends[!side];
    pipe->scheduled = false;
    if (pipe->first == NULL) {
        return;
    }
    uint64_t now_ns = sim_now_ns();
    bool held =
        to->host != NULL && (sim_is_cut(from->host, to->host) || sim_host_is_paused(to->host));
    if (held) {
        pipe->stalled_ns = pipe->stalled_ns == 0 ? now_ns : pipe->stalled_ns;
        if (now_ns - pipe->stalled_ns > SIM_KEEPALIVE_NS) {
            conn_break(conn, false, 0);
        } else {
            pipe_schedule(conn, side);
        }
        return;
    }
    pipe->stalled_ns = 0;
    if (!somebody_is_there(conn, side)) {
        return;
    }
    struct conn_message *message = pipe_pop(pipe);
    if (message->lost) {
        conn_message_free(message);
        lose(conn, side);
    } else {
        hand_over(conn, side, message);
    }
    if (pipe->first != NULL) {
        pipe_schedule(conn, side);
    }
}

static void deliver_drop(void *context, void *payload)
{
    (void)payload;
    conn_unref(context);
}

static void deliver_from_client(void *context, void *payload)
{
    pipe_deliver(context, CONN_CLIENT);
    deliver_drop(context, payload);
}

static void deliver_from_server(void *context, void *payload)
{
    pipe_deliver(context, CONN_SERVER);
    deliver_drop(context, payload);
}

static void pipe_schedule(struct conn *conn, enum conn_side side)
{
    struct conn_pipe *pipe = &conn->pipes[side];
    if (pipe->scheduled) {
        return;
    }
    pipe->scheduled = true;
    uint64_t now_ns = sim_now_ns();
    uint64_t due_ns = pipe->first->due_ns;
    uint64_t delay_ns = due_ns > now_ns         ? due_ns - now_ns
                        : pipe->stalled_ns != 0 ? STALL_RETRY_NS
                                                : 0;
    sim_after(NULL, delay_ns, side == CONN_CLIENT ? deliver_from_client : deliver_from_server,
              deliver_drop, conn_ref(conn), NULL);
}

void conn_send(struct conn *conn, enum conn_side side, enum conn_kind kind, int error,
               const char *text, struct blob *payload)
{
    struct sim_world *world = sim_world();
    struct conn_pipe *pipe = &conn->pipes[side];
    if (conn->broken || pipe->silent || !end_is_alive(&conn->ends[side])) {
        return;
    }
    struct conn_message *message = mem_calloc(1, sizeof *message);
    message->kind = kind;
    message->error = error;
    message->payload = blob_ref(payload);
    (void)snprintf(message->text, sizeof message->text, "%s", text == NULL ? "" : text);
    bool carries =
        kind == CONN_DATA || (!conn->is_stream && (kind == CONN_OPEN || kind == CONN_CLOSE));
    message->lost = carries && draw_loss();
    uint64_t due_ns = world->clock.now_ns + draw_delay_ns(side == CONN_SERVER && carries) +
                      clog_ns(conn->ends[side].host, conn->ends[!side].host);
    message->due_ns = due_ns > pipe->newest_ns ? due_ns : pipe->newest_ns;
    pipe->newest_ns = message->due_ns;
    world->counters.rpcs += carries && side == CONN_CLIENT;
    world->counters.bytes += payload_size(message);
    if (pipe->last != NULL) {
        pipe->last->next = message;
    } else {
        pipe->first = message;
    }
    pipe->last = message;
    pipe_schedule(conn, side);
}

/* ---- datagrams ---- */

struct datagram {
    struct sim_host *from;
    struct blob *frame;
};

static void datagram_drop(void *context, void *payload)
{
    (void)context;
    struct datagram *datagram = payload;
    blob_unref(datagram->frame);
    free(datagram);
}

static void datagram_arrive(void *context, void *payload)
{
    struct sim_host *to = context;
    struct datagram *datagram = payload;
    if (to->up && sim_host_is_paused(to)) { /* its kernel keeps it */
        sim_after(NULL, to->paused_until_ns - sim_now_ns(), datagram_arrive, datagram_drop, context,
                  payload);
        return;
    }
    if (to->up && !to->dying && !sim_is_cut(datagram->from, to)) {
        struct sim_host *former = sim_enter(to);
        node_frame_arrived(datagram->from, to, datagram->frame);
        sim_leave(former);
    }
    datagram_drop(context, payload);
}

static void datagram_post(struct sim_host *from, struct sim_host *to, struct blob *frame,
                          uint64_t delay_ns)
{
    struct datagram *datagram = mem_alloc(sizeof *datagram);
    *datagram = (struct datagram){.from = from, .frame = blob_ref(frame)};
    /* Of no process: a frame may outlive the one it was sent to, or the one that sent it. */
    sim_after(NULL, delay_ns, datagram_arrive, datagram_drop, to, datagram);
}

/* As a faulty network card: what checksums of connections would not find. */
static void damage(struct sim_host *to, struct buf *frame)
{
    struct sim_world *world = sim_world();
    if (world->damage_frame_to == to && frame->size >= world->damage_frame_bytes_min) {
        world->damage_frame_to = NULL;
        frame->data[frame->size / 2] ^= (uint8_t)(1u << sim_between(0, 7));
    }
}

void datagram_send(struct sim_host *from, struct sim_host *to, struct buf *frame)
{
    struct sim_world *world = sim_world();
    if (from->dying || !from->up) {
        buf_deinit(frame);
        return;
    }
    world->counters.rpcs++;
    world->counters.bytes += frame->size;
    damage(to, frame);
    sim_hash_bytes(frame->data, frame->size < HASHED_BYTES ? frame->size : HASHED_BYTES);
    struct blob *blob = blob_take_buf(frame);
    if (sim_is_cut(from, to) || draw_loss()) {
        world->counters.frames_lost++;
    } else {
        /* Which frames are answers is not visible from outside; half of them are. */
        uint64_t held_ns = clog_ns(from, to);
        datagram_post(from, to, blob, held_ns + draw_delay_ns(rng_chance(&world->rng, 1, 2)));
        if (world->net.duplicate_permille > 0 &&
            rng_chance(&world->rng, world->net.duplicate_permille, 1000)) {
            world->counters.frames_duplicated++;
            datagram_post(from, to, blob, held_ns + draw_delay_ns(true));
        }
    }
    blob_unref(blob);
}

/* Calls over gRPC, as bytes: unary and bidirectional streams, both sides. The only room that
 * includes gRPC headers; it knows no message. One `struct rpc` holds the completion queues and
 * threads of a process.
 *
 * Threads. Callbacks run on completion-queue threads, at most one at a time per call or stream;
 * they must not block (no disk, no lock that waits for disk, no waiting for another callback). No
 * callback runs under a lock of this room; calling any function of this header from a callback is
 * allowed except those that say they wait. No function of this header runs a callback before it
 * returns, on the caller's own stack.
 *
 * Outcomes. A unary call ends in exactly one callback with: 0 and a reply; ERR_UNAVAILABLE,
 * ERR_TIMEOUT, ERR_CANCELED (outcome unknown to the caller: it may have run); ERR_UNSUPPORTED (the
 * method is not there); ERR_TOO_LARGE, ERR_BUSY (RESOURCE_EXHAUSTED), ERR_SHUTDOWN (refused here:
 * surely not sent); ERR_INVALID, ERR_PROTOCOL; ERR_IO (an answer that cannot be taken: outcome
 * unknown); or whatever the handler failed it with, exactly. `not_sent` in the result says that the
 * request surely never left this process. */
#ifndef RPC_RPC_H
#define RPC_RPC_H

#include "base/bytes.h"
#include "base/error.h"

enum {
    /* One message, either direction: value limit 8 MiB x 2 and headers. */
    RPC_MESSAGE_BYTES_MAX = 20 * 1024 * 1024,
    RPC_ERROR_TEXT_BYTES_MAX = 256,
};

struct rpc;

struct rpc_tls {
    /* PEM texts (not paths); all three set: mutual TLS, the peer's certificate required and
     * verified. */
    const char *ca_pem;
    const char *certificate_pem;
    const char *key_pem;
};

struct rpc_options {
    uint32_t queue_count;      /* completion queues, one thread each; 1..16, default 1 */
    const struct rpc_tls *tls; /* NULL: plaintext. Copied. */
    /* A connection without traffic is pinged this often, and dropped when half of it passes without
     * an answer; default 10 s. */
    uint64_t keepalive_ns;
};
struct rpc_options rpc_options_default(void);

int rpc_create(const struct rpc_options *options, struct rpc **out) MUST_USE; /* gives */
/* Waits until every call and stream of its channels has had its last callback (destroying a channel
 * cancels them), then joins the threads. Its servers, channels and timers must have been destroyed,
 * its requests unref'd. Never from a callback. */
void rpc_destroy(struct rpc *rpc);

/* Turns. A queue's thread takes what has arrived, with a callback for each, then calls `turn_end`
 * under no lock, and only then sleeps. So whoever collects work in callbacks does it there, on
 * the thread that is awake already, and more at a time the more has arrived. At most one at a
 * time; NULL takes it away and waits until no thread is inside: never from a callback then. */
typedef void (*rpc_turn_fn)(void *context);
void rpc_set_turn_end(struct rpc *rpc, rpc_turn_fn turn_end, void *context);
/* The caller is in a callback of a queue's thread of `rpc`, which will call turn_end after it, if
 * it is still there. Not within turn_end itself. */
bool rpc_turn_follows(const struct rpc *rpc);

/* --- server --- */

struct rpc_server;
struct rpc_call;   /* one accepted unary call, until it is answered */
struct rpc_stream; /* one bidirectional stream, either side */

/* The request is borrowed for the callback; keep `owner` (blob_ref) to keep the bytes. Answer
 * exactly once, now or later, from any thread, with rpc_call_reply or rpc_call_fail. */
typedef void (*rpc_unary_fn)(void *context, struct rpc_call *call, struct bytes request,
                             struct blob *owner);

struct rpc_stream_events {
    /* Server side only: the peer opened it. Set the user pointer here; sending here is allowed.
     * Return 0 to accept or an error to refuse; a refused stream has no further callback. The
     * room's own reference lasts until `closed` has returned: whoever keeps the pointer longer
     * takes one with rpc_stream_ref. May be NULL. */
    int (*opened)(void *context, struct rpc_stream *stream);
    /* A message; borrowed, keep `owner` to keep the bytes. The next one is read after this returns
     * (that is the backpressure), or after rpc_stream_resume when this returned false. What arrived
     * whole before a stream ended is still delivered: a client that has paused hears of the end
     * only after it reads on (or cancels). */
    bool (*message)(void *context, struct rpc_stream *stream, struct bytes message,
                    struct blob *owner);
    /* The send queue fell below half of its bound after a send was refused with ERR_BUSY. May be
     * NULL. */
    void (*writable)(void *context, struct rpc_stream *stream);
    /* The end, exactly once, whoever ended it; nothing follows. 0: ended in order. After it the
     * handle is only good for rpc_stream_unref. On the server side a peer that cancelled and a
     * connection that broke are both ERR_CANCELED: the core does not say which. */
    void (*closed)(void *context, struct rpc_stream *stream, int error, const char *text);
    /* Server side only: the peer sends no more (rpc_stream_finish there). NULL: the stream is
     * finished from this side too, once what is queued has left. */
    void (*finished)(void *context, struct rpc_stream *stream);
};

struct rpc_server_options {
    const char *address;       /* "host:port"; port 0 picks one */
    uint32_t slots_per_method; /* requests posted ahead, default 32 */
    /* Unary calls accepted and unanswered; over it RESOURCE_EXHAUSTED; default 4096. */
    uint32_t calls_max;
    uint32_t streams_max;           /* of each method; default 1024 */
    uint64_t stream_send_bytes_max; /* queued to send per stream; default 32 MiB */
    /* Answers that wait for their clients to read them, all together; over it those who read the
     * least are cancelled (ERR_UNAVAILABLE there). Default 256 MiB. */
    uint64_t answer_bytes_max;
    /* What the core may hold for all connections: requests that have not arrived whole, and calls.
     * Near it the core narrows windows, then cancels calls. Default 512 MiB. */
    uint64_t core_bytes_max;
};
struct rpc_server_options rpc_server_options_default(const char *address);

int rpc_server_create(struct rpc *rpc, const struct rpc_server_options *options,
                      struct rpc_server **out) MUST_USE; /* gives */
/* Before start. `method` is "/package.Service/Method"; copied. Methods that are not there get
 * UNIMPLEMENTED. */
int rpc_server_add_unary(struct rpc_server *server, const char *method, rpc_unary_fn handler,
                         void *context) MUST_USE;
int rpc_server_add_stream(struct rpc_server *server, const char *method,
                          const struct rpc_stream_events *events, void *context) MUST_USE;
/* Binds and listens. ERR_EXISTS: the address is taken; ERR_INVALID: not an address. */
int rpc_server_start(struct rpc_server *server) MUST_USE;
uint16_t rpc_server_port(const struct rpc_server *server);
/* Waits: refuses new calls (ERR_SHUTDOWN), ends streams after what they have queued (their clients
 * see ERR_UNAVAILABLE: what a stream asks for is this room's secret, so whoever wants its answers
 * out sends them first), gives calls under way `grace_ns`, cancels the rest. Every accepted call
 * must still be answered by its owner (replying to a cancelled call is harmless). Never from a
 * callback. */
void rpc_server_shutdown(struct rpc_server *server, uint64_t grace_ns);
void rpc_server_destroy(struct rpc_server *server); /* takes; shuts down first if need be */

/* takes `reply`'s memory (left empty). Exactly once per call; the call is gone after it. Any
 * thread. */
void rpc_call_reply(struct rpc_call *call, struct buf *reply);
/* Ends with a gRPC status that stands for `error`; `text` for people. */
void rpc_call_fail(struct rpc_call *call, int error, const char *text);
/* Nanoseconds (monotonic) by which the caller wants the answer; UINT64_MAX if never said. */
uint64_t rpc_call_deadline_ns(const struct rpc_call *call);
/* True once the caller is known to have gone. */
bool rpc_call_is_cancelled(const struct rpc_call *call);
/* "ipv4:127.0.0.1:4242", for logs. Good until the call is answered. */
const char *rpc_call_peer(const struct rpc_call *call);

/* --- client --- */

struct rpc_channel;

/* gives *out. Connecting is lazy; a bad address is ERR_INVALID. */
int rpc_channel_create(struct rpc *rpc, const char *address, struct rpc_channel **out) MUST_USE;
/* takes; does not wait: calls and streams under way are cancelled and end by themselves with
 * ERR_CANCELED. */
void rpc_channel_destroy(struct rpc_channel *channel);

struct rpc_result {
    int error;
    bool not_sent;
    struct bytes reply; /* borrowed for the callback */
    struct blob *owner; /* borrowed; blob_ref to keep the bytes; NULL without a reply */
    const char *text;   /* for people; "" if none; borrowed */
};
typedef void (*rpc_done_fn)(void *context, const struct rpc_result *result);

struct rpc_request; /* a unary call under way, for cancelling */

/* takes `request`'s memory on OK. `done` runs exactly once when OK was returned, never otherwise;
 * it may run before this returns, but not before *handle is set. `handle` may be NULL if nobody
 * will cancel; else *handle is given and must be unref'd. */
int rpc_call_start(struct rpc_channel *channel, const char *method, struct buf *request,
                   uint64_t deadline_ns, rpc_done_fn done, void *context,
                   struct rpc_request **handle) MUST_USE;
void rpc_request_cancel(struct rpc_request *request); /* any thread, any time before unref */
void rpc_request_unref(struct rpc_request *request);

/* The blocking form, for command lines: never from a callback. The reply is appended to `reply`.
 * `text` may be NULL. */
int rpc_call_wait(struct rpc_channel *channel, const char *method, struct buf *request,
                  uint64_t deadline_ns, struct buf *reply, char *text, size_t text_size) MUST_USE;

/* Opens a stream; gives *out with one reference. `events->closed` runs exactly once when OK was
 * returned. */
int rpc_stream_open(struct rpc_channel *channel, const char *method,
                    const struct rpc_stream_events *events, void *context, uint64_t send_bytes_max,
                    struct rpc_stream **out) MUST_USE;

/* --- streams, both sides --- */

/* takes `message`'s memory on OK. Sent in order. ERR_BUSY: the send queue is full (nothing taken),
 * `writable` follows unless the stream ends. ERR_UNAVAILABLE: closed, finished or cancelled.
 * ERR_TOO_LARGE: over RPC_MESSAGE_BYTES_MAX. Messages queued while one is being written leave with
 * buffer hints, as one burst. Any thread. */
int rpc_stream_send(struct rpc_stream *stream, struct buf *message) MUST_USE;
/* No more sends; what is queued still leaves. On the server side ends the stream with OK. */
void rpc_stream_finish(struct rpc_stream *stream);
void rpc_stream_cancel(struct rpc_stream *stream);
/* Reads on after `message` returned false; may come before that return. Any thread. */
void rpc_stream_resume(struct rpc_stream *stream);
/* Bytes not yet taken by the core, with a small charge for each message. */
uint64_t rpc_stream_queued_bytes(const struct rpc_stream *stream);
struct rpc_stream *rpc_stream_ref(struct rpc_stream *stream);
void rpc_stream_unref(struct rpc_stream *stream);
void rpc_stream_set_user(struct rpc_stream *stream, void *user);
void *rpc_stream_user(const struct rpc_stream *stream);
const char *rpc_stream_peer(const struct rpc_stream *stream);

/* --- timers --- */

/* Runs `fire(context)` on a thread of this room (the same for all timers: it must not block) once
 * `deadline_ns` (monotonic) has passed: the one way to wake up without a thread of one's own.
 * gives. */
struct rpc_timer;
struct rpc_timer *rpc_timer_create(struct rpc *rpc, void (*fire)(void *context), void *context);
/* Replaces the former deadline; UINT64_MAX: not set. */
void rpc_timer_set(struct rpc_timer *timer, uint64_t deadline_ns);
/* takes; after it returns `fire` does not run. Waits for a running one, except from within it. */
void rpc_timer_destroy(struct rpc_timer *timer);

#endif

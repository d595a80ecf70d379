/* What the files of rpc/ share; nobody else includes this.
 *
 * Tags. Every operation given to the core names a `struct rpc__tag` inside the heap object that
 * owns what the operation points at. The core returns each tag exactly once, to the thread of the
 * queue it was started on, and that thread calls `run`. An object is freed only when none of its
 * tags is out.
 *
 * Threads. A call or stream belongs to one queue, and a queue to one thread: so all its tags, hence
 * all its callbacks, run one after the other. Fields marked (queue thread) need no lock for that
 * reason.
 *
 * Locks, outermost first: channel, then stream, then server. None is held while a callback runs. */
#ifndef RPC_RPC_INTERNAL_H
#define RPC_RPC_INTERNAL_H

#include "base/assert.h"
#include "base/clock.h"
#include "rpc/rpc.h"
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

enum {
    RPC_QUEUES_MAX = 16,
    RPC__TAGS_A_TURN = 64, /* so that a turn ends however much arrives */
    RPC_METHODS_MAX = 64,  /* per server */
    RPC_UNKNOWN_SLOTS = 4, /* posted per queue for methods that are not there */
    RPC_COPY_BYTES_MAX =
        8192, /* shorter messages are copied: a view would pin the whole read buffer under it */
    RPC_MESSAGE_OVERHEAD_BYTES =
        64, /* counted for every queued message, so that empty ones are bounded too */
    RPC_METADATA_BYTES_MAX = 8192,
    RPC_REPLY_BYTES_MIN = 16 * 1024, /* unary answers from here on are counted one by one */
};

#define RPC_CONTAINER_OF(pointer, type, member)                                                    \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

/* --- tags and queues --- */

struct rpc__tag {
    void (*run)(struct rpc__tag *tag, bool ok);
    /* Stored with release before the operation starts, loaded with acquire before `run`: the core
     * orders the two threads by itself, but says so to nobody who reads only this room. */
    _Atomic uint32_t armed;
};

static inline void rpc__tag_arm(struct rpc__tag *tag, void (*run)(struct rpc__tag *tag, bool ok))
{
    tag->run = run;
    atomic_store_explicit(&tag->armed, 1, memory_order_release);
}

struct rpc__queue {
    struct rpc *rpc;
    grpc_completion_queue *queue;
    pthread_t thread;
    pthread_mutex_t turn_lock; /* held within turn_end */
    rpc_turn_fn turn_end;      /* under turn_lock */
    void *turn_context;
    atomic_bool turns; /* there is a turn_end */

    /* Queue thread. Streams that are read on only behind the turn; a reference each. */
    bool reads_wait;
    struct rpc_stream *waiting[RPC__TAGS_A_TURN];
    uint32_t waiting_count;
};

/* Arms the tag and starts the batch. A refusal by the core is a bug of this room. */
void rpc__batch(grpc_call *call, const grpc_op *ops, size_t count, struct rpc__tag *tag,
                void (*run)(struct rpc__tag *tag, bool ok));

/* --- the process's part --- */

struct rpc__timers;
struct rpc__timers *rpc__timers_create(void);         /* gives; starts the thread */
void rpc__timers_destroy(struct rpc__timers *timers); /* takes; every timer must be gone */

struct rpc {
    struct rpc__queue queues[RPC_QUEUES_MAX];
    uint32_t queue_count;
    _Atomic uint32_t queue_next;
    uint64_t keepalive_ns;
    grpc_channel_credentials *channel_credentials;
    grpc_server_credentials *server_credentials;
    struct rpc__timers *timers;

    pthread_mutex_t lock;
    pthread_cond_t idle;
    uint32_t channels_open; /* not yet given to rpc_channel_destroy */
    uint32_t channels_live; /* not yet freed: open, or with a call under way */
    uint32_t servers;
};

struct rpc__queue *rpc__queue_pick(struct rpc *rpc);
/* A peer that leaves a ping unanswered for half the interval between pings is gone. */
static inline int rpc__keepalive_timeout_ms(const struct rpc *rpc)
{
    return (int)(rpc->keepalive_ns / 2 / NS_PER_MS);
}
bool rpc__on_own_thread(const struct rpc *rpc);

/* --- intrusive list --- */

struct rpc__link {
    struct rpc__link *previous;
    struct rpc__link *next;
};

static inline void rpc__list_init(struct rpc__link *list)
{
    list->previous = list;
    list->next = list;
}

static inline void rpc__list_add(struct rpc__link *list, struct rpc__link *link)
{
    link->previous = list->previous;
    link->next = list;
    list->previous->next = link;
    list->previous = link;
}

static inline void rpc__list_remove(struct rpc__link *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    link->previous = NULL;
    link->next = NULL;
}

/* --- conversions (convert.c) --- */

/* What a failed call carries besides its gRPC status: the exact error, as trailing metadata, and
 * the text. */
struct rpc__failure {
    grpc_metadata metadata;
    grpc_slice details;
};

grpc_status_code rpc__status_of_error(int error);
/* `trailing` may name the exact error; if not, the status decides. `cancelled_here`: this side
 * asked for the end. */
int rpc__error_of_status(grpc_status_code status, const grpc_metadata_array *trailing,
                         grpc_slice details, bool cancelled_here);
void rpc__failure_init(struct rpc__failure *failure, int error, const char *text);
void rpc__failure_deinit(struct rpc__failure *failure);
/* Fills one SEND_STATUS operation; `failure` (or NULL) must live until the batch's event. */
void rpc__status_op(grpc_op *op, grpc_status_code status, struct rpc__failure *failure);

/* False for a compressed message, which is not taken. */
bool rpc__buffer_is_plain(const grpc_byte_buffer *buffer);
/* takes `buffer`; gives */
struct blob *rpc__blob_of_buffer(grpc_byte_buffer *buffer);
/* takes buf's memory, leaves it empty; gives */
grpc_byte_buffer *rpc__buffer_of_buf(struct buf *buf);
gpr_timespec rpc__deadline_to_core(uint64_t deadline_ns);
uint64_t rpc__deadline_of_core(gpr_timespec deadline);
/* Copies and NUL-terminates, cutting what is too long. */
void rpc__text_of_slice(grpc_slice slice, char text[RPC_ERROR_TEXT_BYTES_MAX]);
/* "host:port" or "[v6]:port" (port 0 allowed) split in two strings; false when it is not one. */
bool rpc__address_split(const char *address, char host[256], char port[6]);

/* --- channel (channel.c) --- */

struct rpc_channel {
    struct rpc *rpc;
    struct rpc__queue *queue;
    grpc_channel *channel;
    char *target; /* what the core was given; its peers' names never look like it */
    _Atomic uint32_t refs;

    pthread_mutex_t lock;
    struct rpc__link requests; /* linked: its call is alive and may be cancelled */
    struct rpc__link streams;
};

void rpc__channel_ref(struct rpc_channel *channel);
void rpc__channel_unref(struct rpc_channel *channel);
/* True when the call, which failed with `text`, surely never reached a connection. */
bool rpc__channel_call_not_sent(const struct rpc_channel *channel, grpc_call *call,
                                const char *text);

/* Cancels; the channel's lock is held and the request is linked. */
void rpc__request_cancel_locked(struct rpc__link *link);

/* --- server (server.c, server_call.c) --- */

struct rpc__method {
    char *name;
    bool is_stream;
    rpc_unary_fn handler;
    struct rpc_stream_events events;
    void *context;
    void *handle;          /* the core's, once registered */
    uint32_t stream_count; /* the server's lock */
};

struct rpc_server {
    struct rpc *rpc;
    struct rpc_server_options options;
    char *address;
    grpc_server *server;
    struct rpc__method methods[RPC_METHODS_MAX];
    uint32_t method_count;
    bool registered;
    bool started;
    uint16_t port;
    struct rpc__tag shutdown;
    _Atomic bool stopping;
    _Atomic uint32_t calls_unanswered;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t live; /* slots posted, calls and streams not yet freed */
    bool shutdown_done;
    struct rpc__link streams;
    uint32_t stream_count;
    struct rpc__link replies; /* answers of unary calls, oldest first (answers.c) */
    uint64_t evicted_logged_ns;

    _Atomic uint64_t answer_bytes; /* given, not yet taken by the core */
};

void rpc__server_hold(struct rpc_server *server);
void rpc__server_release(struct rpc_server *server); /* the server may be gone after it */

void rpc__call_post(struct rpc_server *server, struct rpc__method *method,
                    struct rpc__queue *queue);
void rpc__unknown_post(struct rpc_server *server, struct rpc__queue *queue);
void rpc__stream_post(struct rpc_server *server, struct rpc__method *method,
                      struct rpc__queue *queue);

/* --- answers that are not read (answers.c) --- */

/* The answer of a unary call, while it is on its way. */
struct rpc__reply {
    struct rpc__link link; /* the server's lock */
    grpc_call *call;
    uint64_t bytes; /* 0: not linked */
    bool evicted;   /* the server's lock */
};

/* True: it is too much for all together, and rpc__answers_relieve has to be called. */
bool rpc__answers_add(struct rpc_server *server, uint64_t bytes);
void rpc__answers_subtract(struct rpc_server *server, uint64_t bytes);
/* Cancels one that holds too much, if all hold too much. No lock of this room is held. */
void rpc__answers_relieve(struct rpc_server *server);
/* Before the answer is started. It stays linked until the call's last tag is back. */
void rpc__reply_link(struct rpc_server *server, struct rpc__reply *reply, grpc_call *call,
                     uint64_t bytes);
void rpc__reply_unlink(struct rpc_server *server, struct rpc__reply *reply);

/* --- streams (stream.c, stream_start.c) --- */

struct rpc__message {
    struct rpc__message *next;
    grpc_byte_buffer *buffer;
    uint64_t bytes;
};

enum rpc__read {
    RPC__READ_IDLE,             /* paused, or not begun */
    RPC__READ_ACTIVE,           /* a receive is out */
    RPC__READ_CALLBACK,         /* `message` is running */
    RPC__READ_CALLBACK_RESUMED, /* and resume came before it returned */
    RPC__READ_DONE,             /* the peer sends no more */
};

struct rpc_stream {
    _Atomic uint32_t refs;       /* the room's own until `closed` has returned, and the users' */
    struct rpc_channel *channel; /* client side */
    struct rpc_server *server;   /* server side */
    struct rpc__method *method;
    struct rpc__queue *queue;
    struct rpc_stream_events events;
    void *context;
    _Atomic(void *) user;
    char *peer;
    uint64_t send_bytes_max;
    struct rpc__link link; /* the server's or channel's lock */
    bool evicted;          /* server side; the server's lock */

    /* What the core writes to or reads from. */
    struct rpc__tag begin; /* server: the new call */
    struct rpc__tag send;
    struct rpc__tag receive;
    struct rpc__tag end;
    gpr_timespec deadline;
    grpc_metadata_array initial;
    grpc_metadata_array trailing;
    grpc_byte_buffer *received;
    grpc_status_code status;
    grpc_slice details;
    int cancelled;
    struct rpc__failure failure; /* server: why it was ended with an error */
    bool failure_set;

    /* Queue thread. */
    bool refused; /* `opened` said no: no callbacks */
    bool counted; /* in the server's list */
    bool released;

    pthread_mutex_t lock;
    /* Under the lock. */
    grpc_call *call; /* NULL before it starts and after the end */
    bool started;    /* batches may start */
    bool ended;      /* its `end` has come */
    bool send_active;
    bool send_broken; /* nothing can be sent any more */
    bool finishing;   /* no new sends; what is queued leaves, then the half-close */
    bool finish_started;
    int finish_error; /* server side: the status to end with */
    bool writable_owed;
    bool cancelled_here;
    enum rpc__read read;
    struct rpc__message *sending;
    struct rpc__message *queue_head;
    struct rpc__message *queue_tail;
    _Atomic uint64_t queued_bytes; /* written under the lock, read anywhere */
};

struct rpc_stream *rpc__stream_new(struct rpc__queue *queue);
void rpc__stream_free_unstarted(struct rpc_stream *stream); /* takes */
/* The lock is held for these. */
void rpc__stream_receive_locked(struct rpc_stream *stream);
void rpc__stream_send_next_locked(struct rpc_stream *stream);
void rpc__stream_end_run(struct rpc__tag *tag, bool ok);
/* The server goes: what is queued leaves, then the stream ends with `error`. */
void rpc__stream_end_by_server(struct rpc_stream *stream, int error, const char *text);

#endif

/* What every server process of the house does around its state machine: flags, memory limits,
 * signals, the rpc server, an orderly end. Used by the main() of shardkv and of shardctrler, on
 * their main thread, in this order:
 *
 *   server_main_parse   flags -> settings; --help, --version and mistakes are answered here
 *   server_main_open    signals blocked, log set up, rpc and its server made (nothing listens yet),
 *                       node options filled
 *   (the program opens its state machine, node_create, node_add_methods and its own methods)
 *   server_main_run     listens, starts the node, logs "ready", waits for SIGTERM or SIGINT, stops
 *                       the node, shuts the server down
 *   (the program destroys its services, node_destroy, closes its state machine)
 *   server_main_close   destroys the server and rpc */
#ifndef RAFT_NODE_SERVER_MAIN_H
#define RAFT_NODE_SERVER_MAIN_H

#include "base/flags.h"
#include "raft/node/node.h"
#include "rpc/rpc.h"

/* Exit codes; the same table stands in --help (server_main_exit_help). */
enum server_exit {
    SERVER_EXIT_OK = 0,       /* told to stop, and stopped in order */
    SERVER_EXIT_FAILURE = 1,  /* anything not listed */
    SERVER_EXIT_USAGE = 2,    /* a flag is wrong or missing */
    SERVER_EXIT_ADDRESS = 3,  /* cannot listen */
    SERVER_EXIT_LOCKED = 4,   /* the data directory is in use by another process */
    SERVER_EXIT_IDENTITY = 5, /* the data directory belongs to another cluster, group or replica */
    SERVER_EXIT_DISK = 6,     /* the data directory is damaged, full or not readable */
};
extern const char server_main_exit_help[]; /* a paragraph for flag_set.details */
/* The exit code that stands for an error of opening a data directory. */
enum server_exit server_exit_of_error(int error);

/* Members of a group as text: "1=host:port,2=host:port". */
struct server_peers {
    struct node_member
        members[RAFT_MEMBERS_MAX]; /* addresses point into `addresses`: do not copy the struct */
    size_t count;
    char addresses[RAFT_MEMBERS_MAX][RAFT_ADDRESS_BYTES_MAX];
};
/* Empty text: no members. ERR_INVALID, ERR_TOO_LARGE: `why` names the part and what would be right.
 */
int server_peers_parse(const char *text, struct server_peers *out, char *why,
                       size_t why_size) MUST_USE;
/* NULL when there is none with this id. */
const char *server_peers_address(const struct server_peers *peers, uint64_t id);

struct server_settings {
    const char *cluster;
    uint64_t id;
    const char *listen; /* NULL: this replica's address in `peers` */
    const char *peers;
    const char *data;
    const char *log_level;
    const char *tls_ca; /* paths; all three or none */
    const char *tls_certificate;
    const char *tls_key;
    uint64_t tick_ns;
    uint64_t election_timeout_ns; /* the shortest; the longest is twice this */
    uint64_t heartbeat_ns;
    bool lease_reads;
    uint64_t rpc_threads;
    uint64_t mailbox_bytes;
    uint64_t log_cache_bytes;
    uint64_t flush_log_bytes;
    uint64_t segment_bytes; /* of the log */
    uint64_t stop_grace_ns; /* for calls under way when told to stop */
};

enum { SERVER_FLAG_COUNT = 19, SERVER_FLAGS_MAX = 40 };

struct server_program {
    const char *name; /* "shardkv" */
    const char *summary;
    const char *version;
    const char *details;      /* more for --help, or NULL */
    const struct flag *flags; /* the program's own */
    size_t flag_count;        /* at most SERVER_FLAGS_MAX - SERVER_FLAG_COUNT */
};

struct server {
    struct server_settings settings;
    struct server_peers peers;
    uint64_t cluster_id;
    const char *listen;
    struct rpc *rpc;
    struct rpc_server *rpc_server;
    struct node_options node; /* filled but for group_id, which is the one given to open */
};

/* True: go on. False: end with *exit_code (0 after --help or --version); everything was said
 * already. Settings that contradict each other are found here too. */
bool server_main_parse(const struct server_program *program, int argc, char **argv,
                       struct server *server, enum server_exit *exit_code) MUST_USE;
/* Before any thread exists. SERVER_EXIT_OK, or everything was said and nothing is left behind.
 * `server` must stay where it is until server_main_close. */
enum server_exit server_main_open(struct server *server, uint64_t group_id) MUST_USE;
enum server_exit server_main_run(struct server *server, struct node *node) MUST_USE;
/* Also right after a failed run, or when the program gives up between open and run. */
void server_main_close(struct server *server);

/* "error: <text>" to standard error, for what ends the program before or instead of "ready". */
void server_main_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif

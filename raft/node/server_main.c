/* The bootstrap of a server process; see server_main.h. Main thread only. SIGTERM and SIGINT are
 * blocked before the first thread exists, so that every thread inherits the mask and only
 * stop_wait below sees them: no handler, and therefore nothing that must be async-signal-safe. */
#include "raft/node/server_main.h"

#include "base/assert.h"
#include "base/log.h"
#include "base/rng.h"
#include "proto/shard_hash.h"
#include "raft/node/server_limits.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PEM_BYTES_MAX = 1024 * 1024,
    WHY_BYTES = 512,
    ELECTION_TICKS_MIN = 5,
    SEGMENT_BYTES_MIN = 64 * 1024, /* wal.h */
};
#define WHOLE_SECONDS(ns) ((double)(ns) / (double)NS_PER_S)

const char server_main_exit_help[] =
    "Exit codes: 0 told to stop and stopped in order; 1 other failure; 2 a flag is wrong or "
    "missing;\n"
    "3 cannot listen; 4 the data directory is in use by another process; 5 the data directory "
    "belongs\n"
    "to another cluster, group or replica; 6 the data directory is damaged, full or not readable.";

enum server_exit server_exit_of_error(int error)
{
    switch (error) {
    case ERR_OK:
        return SERVER_EXIT_OK;
    case ERR_BUSY:
        return SERVER_EXIT_LOCKED;
    case ERR_WRONG_CLUSTER:
    case ERR_WRONG_REPLICA:
    case ERR_WRONG_GROUP:
        return SERVER_EXIT_IDENTITY;
    case ERR_CORRUPT:
    case ERR_IO:
    case ERR_NO_SPACE:
        return SERVER_EXIT_DISK;
    default:
        return SERVER_EXIT_FAILURE;
    }
}

void server_main_complain(const char *format, ...)
{
    char text[WHY_BYTES * 2];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "error: %s\n", text);
}

/* ---- peers ---- */

static int peer_add(struct server_peers *out, const char *part, size_t size, char *why,
                    size_t why_size)
{
    const char *equals = memchr(part, '=', size);
    char id_text[24];
    uint64_t id = 0;
    size_t id_size = equals == NULL ? 0 : (size_t)(equals - part);
    if (id_size == 0 || id_size >= sizeof id_text) {
        snprintf(why, why_size, "\"%.*s\" is not ID=HOST:PORT", (int)size, part);
        return ERR_INVALID;
    }
    memcpy(id_text, part, id_size);
    id_text[id_size] = '\0';
    if (parse_uint(id_text, &id) != 0 || id == 0) {
        snprintf(why, why_size, "\"%s\" is not a replica id: a number from 1 on is needed",
                 id_text);
        return ERR_INVALID;
    }
    if (out->count == RAFT_MEMBERS_MAX) {
        snprintf(why, why_size, "more than %d members", (int)RAFT_MEMBERS_MAX);
        return ERR_TOO_LARGE;
    }
    char *address = out->addresses[out->count];
    size_t address_size = size - id_size - 1;
    if (address_size >= RAFT_ADDRESS_BYTES_MAX) {
        snprintf(why, why_size, "the address of replica %s is longer than %d bytes", id_text,
                 RAFT_ADDRESS_BYTES_MAX - 1);
        return ERR_TOO_LARGE;
    }
    memcpy(address, equals + 1, address_size);
    address[address_size] = '\0';
    if (parse_address(address) != 0) {
        snprintf(why, why_size, "\"%s\" is not HOST:PORT with a port from 1 to 65535", address);
        return ERR_INVALID;
    }
    for (size_t i = 0; i < out->count; i++) {
        if (out->members[i].id == id || strcmp(out->addresses[i], address) == 0) {
            snprintf(why, why_size, "replica %llu: its id or its address %s is there twice",
                     (unsigned long long)id, address);
            return ERR_INVALID;
        }
    }
    out->members[out->count] = (struct node_member){.id = id, .address = address};
    out->count++;
    return 0;
}

int server_peers_parse(const char *text, struct server_peers *out, char *why, size_t why_size)
{
    memset(out, 0, sizeof *out);
    const char *at = text == NULL ? "" : text;
    while (*at != '\0') {
        size_t size = strcspn(at, ",");
        int error = peer_add(out, at, size, why, why_size);
        if (error != 0) {
            return error;
        }
        at += size;
        if (*at == ',') {
            at++;
            if (*at == '\0') {
                snprintf(why, why_size, "a member is missing after the last comma");
                return ERR_INVALID;
            }
        }
    }
    return 0;
}

const char *server_peers_address(const struct server_peers *peers, uint64_t id)
{
    for (size_t i = 0; i < peers->count; i++) {
        if (peers->members[i].id == id) {
            return peers->members[i].address;
        }
    }
    return NULL;
}

/* ---- flags ---- */

static void settings_default(struct server_settings *settings)
{
    struct node_options node = node_options_default();
    *settings = (struct server_settings){
        .log_level = "info",
        .tick_ns = node.tick_ns,
        .election_timeout_ns = node.tick_ns * node.election_ticks,
        .heartbeat_ns = node.tick_ns * node.heartbeat_ticks,
        .lease_reads = node.lease_reads,
        .rpc_threads = 1,
        .mailbox_bytes = node.mailbox_bytes_max,
        .log_cache_bytes = node.cache_bytes_max,
        .flush_log_bytes = node.flush_log_bytes,
        .segment_bytes = node.segment_bytes,
        .stop_grace_ns = 2 * NS_PER_S,
    };
}

static void flags_fill(struct server_settings *s, struct flag rows[SERVER_FLAG_COUNT])
{
    const uint64_t ms = NS_PER_MS;
    const uint64_t mib = 1024 * 1024;
    const struct flag common[] = {
        {"cluster", FLAG_STRING, &s->cluster, 0, 0, true, "SHARDKV_CLUSTER", "NAME",
         "name of the cluster; a process of another cluster is refused"},
        {"id", FLAG_UINT, &s->id, 1, UINT64_MAX, true, "SHARDKV_ID", "N",
         "this replica's id within its group; never reused after it was removed"},
        {"listen", FLAG_STRING, &s->listen, 0, 0, false, "SHARDKV_LISTEN", "ADDR",
         "HOST:PORT to listen on; without it this replica's own address in --peers"},
        {"peers", FLAG_STRING, &s->peers, 0, 0, false, "SHARDKV_PEERS", "LIST",
         "members a new group starts with, this one included: 1=HOST:PORT,2=HOST:PORT,...; "
         "used only while --data is new; without it the replica waits to be added"},
        {"data", FLAG_STRING, &s->data, 0, 0, true, "SHARDKV_DATA", "DIR",
         "directory of the log and the state; made if missing"},
        {"log-level", FLAG_STRING, &s->log_level, 0, 0, false, "SHARDKV_LOG_LEVEL", "WORD",
         "debug, info, warn or error"},
        {"tls-ca", FLAG_STRING, &s->tls_ca, 0, 0, false, "SHARDKV_TLS_CA", "FILE",
         "PEM certificates a peer or client must be signed by; with --tls-cert and --tls-key"},
        {"tls-cert", FLAG_STRING, &s->tls_certificate, 0, 0, false, "SHARDKV_TLS_CERT", "FILE",
         "PEM certificate of this process"},
        {"tls-key", FLAG_STRING, &s->tls_key, 0, 0, false, "SHARDKV_TLS_KEY", "FILE",
         "PEM key of this process"},
        {"tick", FLAG_DURATION, &s->tick_ns, ms, 1000 * ms, false, NULL, "TIME",
         "unit of the protocol's time; the next two are rounded to it"},
        {"election-timeout", FLAG_DURATION, &s->election_timeout_ns, 10 * ms, 60 * NS_PER_S, false,
         NULL, "TIME",
         "shortest silence after which a replica stands for election; the longest is twice this"},
        {"heartbeat", FLAG_DURATION, &s->heartbeat_ns, ms, 10 * NS_PER_S, false, NULL, "TIME",
         "a leader says it is there this often; at most half of --election-timeout"},
        {"lease-reads", FLAG_BOOL, &s->lease_reads, 0, 0, false, NULL, NULL,
         "answer reads from the leader's lease; assumes that clocks drift apart by less than 1 in "
         "8; all replicas of a group or none"},
        {"rpc-threads", FLAG_UINT, &s->rpc_threads, 1, 16, false, NULL, "N",
         "threads that serve calls"},
        {"mailbox-size", FLAG_BYTES, &s->mailbox_bytes, mib, 16384 * mib, false, NULL, "SIZE",
         "commands and messages that wait for the node; over it a command is refused as busy"},
        {"log-cache-size", FLAG_BYTES, &s->log_cache_bytes, mib, 16384 * mib, false, NULL, "SIZE",
         "newest log entries kept in memory"},
        {"flush-log-size", FLAG_BYTES, &s->flush_log_bytes, mib, 1024 * 1024 * mib, false, NULL,
         "SIZE", "flush the state and cut the log once it is this long"},
        {"segment-size", FLAG_BYTES, &s->segment_bytes, SEGMENT_BYTES_MIN, 1024 * mib, false, NULL,
         "SIZE", "one file of the log; two more are prewritten ahead of it"},
        {"stop-grace", FLAG_DURATION, &s->stop_grace_ns, 0, 600 * NS_PER_S, false, NULL, "TIME",
         "what calls under way get when told to stop"},
    };
    static_assert(sizeof common / sizeof common[0] == SERVER_FLAG_COUNT,
                  "server_main.h counts them");
    memcpy(rows, common, sizeof common);
}

/* What one flag cannot see alone. */
static int settings_check(struct server *server, char *why, size_t why_size)
{
    struct server_settings *s = &server->settings;
    enum log_level level;
    if (!log_level_parse(s->log_level, &level)) {
        snprintf(why, why_size, "--log-level=%s: one of debug, info, warn, error is needed",
                 s->log_level);
        return ERR_INVALID;
    }
    char part[WHY_BYTES];
    int error = server_peers_parse(s->peers, &server->peers, part, sizeof part);
    if (error != 0) {
        snprintf(why, why_size, "--peers: %s", part);
        return error;
    }
    const char *own = server_peers_address(&server->peers, s->id);
    if (server->peers.count > 0 && own == NULL) {
        snprintf(why, why_size,
                 "--peers: replica %llu (--id) is not among them; the list holds every member",
                 (unsigned long long)s->id);
        return ERR_INVALID;
    }
    server->listen = s->listen != NULL ? s->listen : own;
    if (server->listen == NULL) {
        snprintf(why, why_size, "--listen=HOST:PORT is needed when there is no --peers");
        return ERR_INVALID;
    }
    if (parse_listen_address(server->listen) != 0) {
        snprintf(why, why_size, "--listen=%s: HOST:PORT is needed", server->listen);
        return ERR_INVALID;
    }
    int tls_count = (s->tls_ca != NULL) + (s->tls_certificate != NULL) + (s->tls_key != NULL);
    if (tls_count != 0 && tls_count != 3) {
        snprintf(why, why_size,
                 "--tls-ca, --tls-cert and --tls-key go together: give all three or none");
        return ERR_INVALID;
    }
    if (s->heartbeat_ns > s->election_timeout_ns / 2) {
        snprintf(why, why_size,
                 "--heartbeat (%.3fs) is more than half of --election-timeout (%.3fs)",
                 WHOLE_SECONDS(s->heartbeat_ns), WHOLE_SECONDS(s->election_timeout_ns));
        return ERR_INVALID;
    }
    if (s->election_timeout_ns / s->tick_ns < ELECTION_TICKS_MIN || s->heartbeat_ns < s->tick_ns) {
        snprintf(why, why_size,
                 "--tick (%.3fs) is too long: at most --heartbeat, and --election-timeout holds at "
                 "least %d",
                 WHOLE_SECONDS(s->tick_ns), (int)ELECTION_TICKS_MIN);
        return ERR_INVALID;
    }
    return 0;
}

bool server_main_parse(const struct server_program *program, int argc, char **argv,
                       struct server *server, enum server_exit *exit_code)
{
    struct flag rows[SERVER_FLAGS_MAX];
    memset(server, 0, sizeof *server);
    settings_default(&server->settings);
    flags_fill(&server->settings, rows);
    ASSERT(program->flag_count <= SERVER_FLAGS_MAX - SERVER_FLAG_COUNT);
    memcpy(rows + SERVER_FLAG_COUNT, program->flags, program->flag_count * sizeof rows[0]);
    char details[2048];
    snprintf(details, sizeof details, "%s%s%s", program->details == NULL ? "" : program->details,
             program->details == NULL ? "" : "\n\n", server_main_exit_help);
    struct flag_set set = {
        .program = program->name,
        .summary = program->summary,
        .usage = "",
        .details = details,
        .flags = rows,
        .count = SERVER_FLAG_COUNT + program->flag_count,
    };
    *exit_code = SERVER_EXIT_OK;
    for (int i = 1; i < argc; i++) { /* before the required flags are asked for */
        if (strcmp(argv[i], "--version") == 0) {
            printf("%s %s\n", program->name, program->version);
            return false;
        }
    }
    char message[WHY_BYTES * 2];
    int positional_count = 0;
    char **positional = mem_calloc((size_t)argc + 1, sizeof *positional);
    int error =
        flags_parse(&set, argc, argv, positional, &positional_count, message, sizeof message);
    if (error == ERR_EXISTS) {
        flags_help(&set, stdout);
        free(positional);
        return false;
    }
    if (error == 0 && positional_count > 0) {
        snprintf(message, sizeof message, "\"%s\" is not a flag; %s takes only flags (see --help)",
                 positional[0], program->name);
        error = ERR_INVALID;
    }
    if (error == 0) {
        error = settings_check(server, message, sizeof message);
    }
    free(positional);
    if (error != 0) {
        server_main_complain("%s", message);
        *exit_code = SERVER_EXIT_USAGE;
        return false;
    }
    return true;
}

/* ---- the process
 * --------------------------------------------------------------------------------------------- */

static void stop_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
}

static void signals_block(void)
{
    sigset_t set;
    stop_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int stop_wait(void)
{
    static const struct timespec interval = {.tv_sec = SERVER_TRIM_INTERVAL_S};
    sigset_t set;
    int number = 0;
    stop_signals(&set);
    while ((number = sigtimedwait(&set, NULL, &interval)) < 0) {
        server_limits_trim();
    }
    /* A second one, from a person who will not wait, ends the process at once. */
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    return number;
}

static bool pem_read(const char *flag, const char *path, char **out)
{
    struct buf text = {0};
    int error = vfs_read_all(vfs_system(), path, PEM_BYTES_MAX, &text);
    if (error != 0) {
        server_main_complain("--%s=%s: %s", flag, path, err_text(error));
        return false;
    }
    buf_append(&text, "", 1);
    *out = (char *)text.data;
    return true;
}

static enum server_exit rpc_open(struct server *server)
{
    struct server_settings *s = &server->settings;
    struct rpc_options options = rpc_options_default();
    options.queue_count = (uint32_t)s->rpc_threads;
    char *ca = NULL;
    char *certificate = NULL;
    char *key = NULL;
    struct rpc_tls tls;
    enum server_exit code = SERVER_EXIT_OK;
    if (s->tls_ca != NULL) {
        if (!pem_read("tls-ca", s->tls_ca, &ca) ||
            !pem_read("tls-cert", s->tls_certificate, &certificate) ||
            !pem_read("tls-key", s->tls_key, &key)) {
            code = SERVER_EXIT_USAGE;
            goto out;
        }
        tls = (struct rpc_tls){ca, certificate, key};
        options.tls = &tls;
    }
    int error = rpc_create(&options, &server->rpc);
    if (error == 0) {
        struct rpc_server_options server_options = rpc_server_options_default(server->listen);
        error = rpc_server_create(server->rpc, &server_options, &server->rpc_server);
    }
    if (error != 0) {
        server_main_complain("cannot make the rpc server for %s: %s", server->listen,
                             err_text(error));
        code = SERVER_EXIT_FAILURE;
    }
out:
    free(key);
    free(certificate);
    free(ca);
    return code;
}

static void node_options_fill(struct server *server, uint64_t group_id)
{
    struct server_settings *s = &server->settings;
    server->cluster_id = cluster_id_of_name(s->cluster);
    server->node = node_options_default();
    server->node.cluster_id = server->cluster_id;
    server->node.group_id = group_id;
    server->node.replica_id = s->id;
    server->node.dir = s->data;
    server->node.members = server->peers.members;
    server->node.member_count = server->peers.count;
    server->node.tick_ns = s->tick_ns;
    server->node.election_ticks = (uint32_t)(s->election_timeout_ns / s->tick_ns);
    server->node.heartbeat_ticks = (uint32_t)(s->heartbeat_ns / s->tick_ns);
    server->node.lease_reads = s->lease_reads;
    server->node.mailbox_bytes_max = s->mailbox_bytes;
    server->node.cache_bytes_max = s->log_cache_bytes;
    server->node.flush_log_bytes = s->flush_log_bytes;
    server->node.segment_bytes = s->segment_bytes;
    server->node.clock = clock_system();
    server->node.vfs = vfs_system();
    server->node.seed = rng_seed_from_system();
}

/* The most common mistake with a directory is to have made it as somebody else, and the table of
 * errors has no row for that: it is looked for by hand. */
static bool data_is_usable(const char *path)
{
    int error = vfs_make_dirs(vfs_system(), path);
    bool denied = faccessat(AT_FDCWD, path, R_OK | W_OK | X_OK, AT_EACCESS) != 0 &&
                  (errno == EACCES || errno == EROFS);
    if (denied) {
        server_main_complain("--data=%s: %s: user %u needs to read and write it", path,
                             errno == EROFS ? "read-only file system" : "permission denied",
                             (unsigned)geteuid());
    } else if (error != 0) {
        server_main_complain("--data=%s: cannot make the directory: %s", path, err_text(error));
    }
    return !denied && error == 0;
}

enum server_exit server_main_open(struct server *server, uint64_t group_id)
{
    enum log_level level = LOG_INFO;
    bool known = log_level_parse(server->settings.log_level, &level);
    ASSERT(known);
    log_set_level(level);
    char context[96];
    snprintf(context, sizeof context, "group=%llu node=%llu", (unsigned long long)group_id,
             (unsigned long long)server->settings.id);
    log_set_context(context);
    server_limits_set();
    signals_block();
    node_options_fill(server, group_id);
    if (!data_is_usable(server->settings.data)) {
        return SERVER_EXIT_DISK;
    }
    enum server_exit code = rpc_open(server);
    if (code != SERVER_EXIT_OK) {
        server_main_close(server);
    }
    return code;
}

enum server_exit server_main_run(struct server *server, struct node *node)
{
    int error = rpc_server_start(server->rpc_server);
    if (error != 0) {
        server_main_complain("cannot listen on %s: %s", server->listen,
                             error == ERR_EXISTS    ? "the address is in use"
                             : error == ERR_INVALID ? "it is not an address of this machine"
                                                    : err_text(error));
        return SERVER_EXIT_ADDRESS;
    }
    error = node_start(node);
    if (error != 0) {
        server_main_complain("cannot start: %s", err_text(error));
        rpc_server_shutdown(server->rpc_server, 0);
        return SERVER_EXIT_FAILURE;
    }
    log_event(LOG_INFO, "ready", "listen=%s port=%u cluster=%s members=%zu data=%s", server->listen,
              (unsigned)rpc_server_port(server->rpc_server), server->settings.cluster,
              server->peers.count, server->settings.data);
    int number = stop_wait();
    log_event(LOG_INFO, "stopping", "signal=%s", number == SIGINT ? "INT" : "TERM");
    node_stop(node);
    rpc_server_shutdown(server->rpc_server, server->settings.stop_grace_ns);
    log_event(LOG_INFO, "stopped", "listen=%s", server->listen);
    return SERVER_EXIT_OK;
}

void server_main_close(struct server *server)
{
    if (server->rpc_server != NULL) {
        rpc_server_destroy(server->rpc_server);
        server->rpc_server = NULL;
    }
    if (server->rpc != NULL) {
        rpc_destroy(server->rpc);
        server->rpc = NULL;
    }
}

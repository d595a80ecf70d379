/* What the commands of shardctl share: flags, connections, errors, output. One thread; callbacks of
 * rpc only fill in what a command waits for. */
#ifndef CLIENT_CTL_CTL_H
#define CLIENT_CTL_CTL_H

#include "base/bytes.h"
#include "base/clock.h"
#include "base/flags.h"
#include "client/controller_client.h"
#include "client/shardkv.h"
#include "proto/messages.h"
#include "rpc/rpc.h"
#include <jansson.h>
#include <stdio.h>

/* Documented in --help; scripts rely on them. */
enum ctl_exit {
    CTL_DONE = 0,
    CTL_NOT_DONE = 1,
    CTL_USAGE = 2,
    CTL_UNKNOWN = 3,
    CTL_NOT_FOUND = 4,
    CTL_VERSION_MISMATCH = 5,
    CTL_UNREACHABLE = 6,
    CTL_NOT_SETTLED = 7,
};

struct ctl {
    const char *controllers;
    const char *cluster;
    uint64_t timeout_ns;
    bool json;
    const char *tls_ca, *tls_certificate, *tls_key;

    const char *command; /* for messages */
    bool quiet;          /* failures are not said: they will be tried again, or do not matter */
    const struct clock *clock;
    uint64_t cluster_id;
    struct rpc *rpc;                      /* made by ctl_connect */
    struct controller_client *controller; /* likewise */
};

enum { CTL_COMMON_FLAG_COUNT = 7, CTL_FLAGS_MAX = 24 };

/* A command's own description; flags may be NULL. */
struct ctl_spec {
    const char *name;
    const char *summary;
    const char *usage;
    const char *details;
    const struct flag *flags;
    size_t flag_count;
    int positional_min, positional_max;
};

typedef int (*ctl_run_fn)(struct ctl *ctl, int argc, char **argv);

/* True: go on with positional[0 .. count). False: end with *exit_code, all was said. `positional`
 * has room for argc. */
bool ctl_parse(struct ctl *ctl, const struct ctl_spec *spec, int argc, char **argv,
               char **positional, int *count, int *exit_code);
/* The common flags into `rows`, for main() to find the command behind them. */
void ctl_common_flags(struct ctl *ctl, struct flag rows[CTL_COMMON_FLAG_COUNT]);

uint64_t ctl_deadline_ns(const struct ctl *ctl);
/* rpc and the controllers' client; CTL_DONE or what to exit with, said already. */
int ctl_connect(struct ctl *ctl);
void ctl_disconnect(struct ctl *ctl);
/* A client of the library over the same flags; the same return. */
int ctl_open(struct ctl *ctl, uint32_t outstanding_max, struct skv_client **out);

/* "error: put: ..." to standard error, and with --json an object to standard output; returns
 * `code`. */
int ctl_fail(const struct ctl *ctl, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for an error of the house: exit code and words follow from it. `read_only`: nothing can
 * be unknown. */
int ctl_fail_error(const struct ctl *ctl, int error, bool read_only, const char *text);
/* The exit code that stands for how a command of the library ended. */
int ctl_exit_of_result(enum skv_outcome outcome, int code);
int ctl_usage(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A call to the controllers: appends the response to `reply` and returns its error, as of
 * controller_client.h. */
int ctl_call(struct ctl *ctl, const char *method, struct buf *request, struct buf *reply,
             char *text, size_t text_size);
/* The config `number`, or the newest with UINT64_MAX: CTL_DONE (gives *out), or said already. */
int ctl_query(struct ctl *ctl, uint64_t number, struct config **out);

/* Prints and frees: one line. */
void ctl_print_json(json_t *json);
/* A JSON string of bytes, or NULL when they are not UTF-8. */
json_t *ctl_json_text(struct bytes bytes);
/* "12.3 MiB" in `out`, which is returned. */
const char *ctl_size_text(uint64_t bytes, char out[32]);

/* A positive number; false: said already. */
bool ctl_number(const struct ctl *ctl, const char *text, const char *what, uint64_t *out);

/* Commands: one file a family. */
int ctl_put(struct ctl *ctl, int argc, char **argv); /* kv.c */
int ctl_get(struct ctl *ctl, int argc, char **argv);
int ctl_append(struct ctl *ctl, int argc, char **argv);
int ctl_delete(struct ctl *ctl, int argc, char **argv);
int ctl_cas(struct ctl *ctl, int argc, char **argv);
int ctl_load(struct ctl *ctl, int argc, char **argv);   /* load.c */
int ctl_export(struct ctl *ctl, int argc, char **argv); /* export.c */
int ctl_join(struct ctl *ctl, int argc, char **argv);   /* shards.c */
int ctl_leave(struct ctl *ctl, int argc, char **argv);
int ctl_move(struct ctl *ctl, int argc, char **argv);
int ctl_query_command(struct ctl *ctl, int argc, char **argv);
int ctl_wait(struct ctl *ctl, int argc, char **argv);   /* settle.c */
int ctl_status(struct ctl *ctl, int argc, char **argv); /* status.c */
int ctl_health(struct ctl *ctl, int argc, char **argv);
int ctl_member(struct ctl *ctl, int argc, char **argv); /* member.c */
int ctl_transfer(struct ctl *ctl, int argc, char **argv);

#endif

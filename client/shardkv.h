/* libshardkv: the client of a shardkv cluster. Thread-safe; link with -lshardkv. This is the one
 * installed header and it includes nothing of the project.
 *
 *     struct skv_client *client;
 *     char why[SKV_ERROR_TEXT_BYTES];
 *     if (skv_open(&(struct skv_options){.controllers = "127.0.0.1:7000,127.0.0.1:7001"}, &client,
 * why, sizeof why)) ... struct skv_result result; skv_put(client, "name", 4, "value", 5, 2000,
 * &result);
 *
 * Outcomes. Every command ends in one of three, in result.outcome: SKV_DONE (executed, exactly
 * once), SKV_NOT_DONE (surely not executed, now or later; result.code says why), SKV_UNKNOWN (the
 * deadline passed, or the session expired, while it may have been executed or may yet be). Within
 * the deadline the library retries by itself under the same sequence number. */
#ifndef SHARDKV_H
#define SHARDKV_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SKV_API __attribute__((visibility("default")))
#else
#define SKV_API
#endif

#define SKV_ERROR_TEXT_BYTES 256
#define SKV_KEY_BYTES_MAX    4096
#define SKV_VALUE_BYTES_MAX  (8u * 1024 * 1024)

struct skv_client;

struct skv_options {
    const char *controllers;  /* "host:port,host:port,..."; NULL: the environment variable
                                 SHARDKV_CONTROLLERS */
    const char *cluster;      /* name of the cluster, checked by every server; NULL: not checked */
    uint32_t outstanding_max; /* commands in flight; over it calls wait (blocking) or are refused
                                 (async); 0: 4096 */
    uint64_t outstanding_bytes_max; /* 0: 64 MiB */
    uint32_t open_timeout_ms;       /* to reach a controller; 0: 5000 */
    const char *tls_ca_file, *tls_certificate_file, *tls_key_file; /* PEM; all NULL: plaintext */
};

enum skv_outcome { SKV_DONE = 0, SKV_NOT_DONE = 1, SKV_UNKNOWN = 2 };

/* result.code: 0, or one of these. Of a command that ended with SKV_NOT_DONE at its deadline:
 * SKV_TIMEOUT it never got its turn, SKV_BUSY the servers were overloaded, SKV_UNAVAILABLE no
 * leader could be found or the shard had no owner or was moving, SKV_NO_SPACE the group's disk is
 * full. */
enum skv_code {
    SKV_OK = 0,
    SKV_INVALID = 1,
    SKV_TOO_LARGE = 2,
    SKV_NOT_FOUND = 3,
    SKV_BUSY = 5,
    SKV_TIMEOUT = 6,
    SKV_CANCELED = 7,
    SKV_UNAVAILABLE = 8,
    SKV_SHUTDOWN = 9,
    SKV_IO = 10, /* a file (of TLS) could not be read */
    SKV_NO_SPACE = 11,
    SKV_UNSUPPORTED = 14,   /* the servers speak another version */
    SKV_WRONG_CLUSTER = 24, /* these are the servers of another cluster */
    SKV_SESSION_EXPIRED = 30,
    SKV_VERSION_MISMATCH = 40
};

struct skv_result {
    enum skv_outcome outcome; /* of a get: SKV_DONE when it was answered (found or SKV_NOT_FOUND) */
    int code;
    uint64_t version; /* of the key after the command; with SKV_VERSION_MISMATCH the present one; 0:
                         absent */
    const void *value; /* get: valid until skv_result_free (blocking) or until the callback returns
                          (async) */
    size_t value_size;
    void *owner; /* the library's */
};
SKV_API void
skv_result_free(struct skv_result *result); /* needed after a blocking get; harmless otherwise */
/* "done", "key not found", ... in static storage. */
SKV_API const char *skv_code_text(int code);

/* 0 and a client (gives), or a skv_code with the reason in `why`. Reaches a controller and learns
 * the config within open_timeout_ms. */
SKV_API int skv_open(const struct skv_options *options, struct skv_client **out, char *why,
                     size_t why_size);
/* Waits for what is in flight to end (each within its deadline), then frees. Never from a callback.
 */
SKV_API void skv_close(struct skv_client *client);

/* Blocking. Keys are 1..4096 bytes of anything, values up to 8 MiB. Return result->code. */
SKV_API int skv_get(struct skv_client *client, const void *key, size_t key_size,
                    uint32_t timeout_ms, struct skv_result *result);
SKV_API int skv_put(struct skv_client *client, const void *key, size_t key_size, const void *value,
                    size_t value_size, uint32_t timeout_ms, struct skv_result *result);
SKV_API int skv_append(struct skv_client *client, const void *key, size_t key_size,
                       const void *value, size_t value_size, uint32_t timeout_ms,
                       struct skv_result *result);
SKV_API int skv_delete(struct skv_client *client, const void *key, size_t key_size,
                       uint32_t timeout_ms, struct skv_result *result);
/* Sets when the key's version is `expected` (0: when absent). */
SKV_API int skv_cas(struct skv_client *client, const void *key, size_t key_size, uint64_t expected,
                    const void *value, size_t value_size, uint32_t timeout_ms,
                    struct skv_result *result);

/* Asynchronous. Key and value are copied. 0: `done` runs exactly once, on a thread of the library;
 * it must not block nor call the blocking functions; it may start further commands. Otherwise
 * (SKV_INVALID, SKV_TOO_LARGE, SKV_BUSY, SKV_SHUTDOWN) it never runs and nothing was started.
 * Commands in flight at the same time are ordered by nothing, even on one key. */
typedef void (*skv_done_fn)(void *context, const struct skv_result *result);

enum skv_op { SKV_GET = 1, SKV_PUT = 2, SKV_APPEND = 3, SKV_DELETE = 4, SKV_CAS = 5 };
struct skv_command {
    enum skv_op op;
    const void *key;
    size_t key_size;
    const void *value; /* PUT, APPEND, CAS */
    size_t value_size;
    uint64_t expected; /* CAS */
    uint32_t timeout_ms;
};
SKV_API int skv_start(struct skv_client *client, const struct skv_command *command,
                      skv_done_fn done, void *context);

/* Numbers since the client was opened, for people and tests. */
struct skv_stats {
    uint64_t commands, batches, retries, reroutes, config_number;
};
SKV_API void skv_stats(struct skv_client *client, struct skv_stats *out);

SKV_API const char *skv_version(void);

#ifdef __cplusplus
}
#endif
#endif

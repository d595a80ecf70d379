/* Command-line flags from a table. Every flag has a kind, a default, bounds and one sentence of help; a bad one is
 * answered with the flag, the value and what would be right, an unknown one with the nearest name. A flag
 * `--some-name` may also come from the environment variable its row names; the command line is stronger. Given twice,
 * the last one holds. */
#ifndef BASE_FLAGS_H
#define BASE_FLAGS_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum flag_kind {
    FLAG_BOOL,     /* bool *           --name, --no-name, --name=true|false */
    FLAG_UINT,     /* uint64_t *       decimal, within [min, max] */
    FLAG_STRING,   /* const char **    borrows argv or the environment */
    FLAG_DURATION, /* uint64_t * (ns)  250ms, 10s, 5m, 1h */
    FLAG_BYTES,    /* uint64_t *       4096, 64KiB, 8MiB, 1GiB */
};

struct flag {
    const char *name;        /* without dashes */
    enum flag_kind kind;
    void *value;             /* holds the default before parsing */
    uint64_t min, max;       /* for UINT, DURATION (ns), BYTES; 0,0: no bounds */
    bool required;           /* STRING, UINT: must be given (here or by the environment) */
    const char *environment; /* variable name, or NULL */
    const char *placeholder; /* "ADDR", "DIR", "N"; NULL for BOOL */
    const char *help;
};

struct flag_set {
    const char *program;  /* "shardkv" or "shardctl put" */
    const char *summary;  /* one line */
    const char *usage;    /* "KEY VALUE" — what follows the flags; "" for nothing */
    const char *details;  /* more paragraphs for --help, or NULL */
    const struct flag *flags;
    size_t count;
};

/* Parses argv[1..]; flags may stand before, between and after positional arguments; `--` ends them. On OK
 * *positional_count and positional[] (room for argc pointers) hold what is not a flag. `--help` gives ERR_EXISTS
 * (the caller prints flags_help() and exits 0). ERR_INVALID: `message` says what and what would be right. */
int flags_parse(const struct flag_set *set, int argc, char **argv, char **positional,
                int *positional_count, char *message, size_t message_size) MUST_USE;
void flags_help(const struct flag_set *set, FILE *out);

/* The single parsers, for config values that come otherwise. */
int parse_uint(const char *text, uint64_t *out) MUST_USE;
int parse_duration_ns(const char *text, uint64_t *out) MUST_USE;
int parse_size_bytes(const char *text, uint64_t *out) MUST_USE;
/* "host:port" or "[v6]:port", the port from 1 to 65535; ERR_INVALID otherwise. */
int parse_address(const char *text) MUST_USE;
/* The same for an address to listen on, where port 0 lets the system choose one. */
int parse_listen_address(const char *text) MUST_USE;

#endif

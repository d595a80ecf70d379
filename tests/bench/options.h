/* The command line of shardkv-bench, parsed and checked. Any thread; no state. */
#ifndef TESTS_BENCH_OPTIONS_H
#define TESTS_BENCH_OPTIONS_H

#include "bench/keys.h"
#include <stdint.h>
#include <stdio.h>

enum { BENCH_CLIENTS_MAX = 64, BENCH_OUTSTANDING_MAX = 16384, BENCH_ENDPOINTS_MAX = 15 };

enum bench_kind { BENCH_GET, BENCH_PUT, BENCH_APPEND, BENCH_CAS, BENCH_KINDS };
const char *bench_kind_name(enum bench_kind kind);

enum bench_target { BENCH_LIBRARY, BENCH_UNARY, BENCH_ETCD };
const char *bench_target_name(enum bench_target target);

struct bench_mix {
    uint32_t percent[BENCH_KINDS]; /* 100 together */
};

struct bench_options {
    enum bench_target target;
    const char *controllers; /* of shardkv */
    const char *cluster;     /* NULL: not checked */
    const char *endpoints;   /* of etcd */
    struct bench_mix mix;
    enum key_distribution distribution;
    uint64_t zipf_hundredths;
    uint64_t keys, key_bytes, value_bytes;
    uint64_t clients, outstanding;
    uint64_t rate; /* operations a second; 0: closed loop */
    uint64_t warm_up_ns, duration_ns;
    uint64_t operations; /* measured; 0: by duration_ns */
    uint64_t timeout_ns;
    uint64_t seed;
    bool preload, preload_only;
    const char *event; /* a command for the shell; NULL: none */
    uint64_t event_at_ns;
    const char *label; /* NULL: none */
    const char *svg;   /* a file; NULL: none */
    bool json;
    bool progress;
};

/* ERR_INVALID with what is wrong and what would be right; ERR_EXISTS: help was asked for, and
 * printed to `help`. */
int bench_options_parse(int argc, char **argv, struct bench_options *out, FILE *help, char *message,
                        size_t message_size) __attribute__((warn_unused_result));
/* "get=90,put=10": names once each, 100 together. */
int bench_mix_parse(const char *text, struct bench_mix *out) __attribute__((warn_unused_result));

#endif

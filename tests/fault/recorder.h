/* Clients of a real cluster that write down what they called and what they were answered, and the
 * judgement of it: is the history linearizable? Each client is a thread with a libshardkv client of
 * its own and one command in flight. Values are unique. */
#ifndef TESTS_FAULT_RECORDER_H
#define TESTS_FAULT_RECORDER_H

#include "fault/direct.h"
#include <stdint.h>

struct recorder;

struct recorder_options {
    const char *controllers;
    const char *cluster;
    uint64_t seed;
    uint32_t clients;
    uint32_t keys;
    uint32_t timeout_ms; /* of one command */
    /* Servers that are also asked one by one, past the library (direct.h). */
    const char (*direct)[DIRECT_ADDRESS_BYTES];
    uint32_t direct_count;
    uint32_t pause_us; /* between the commands of a client, so that a history stays checkable */
};

struct recorder_report {
    uint64_t done, not_done, unknown; /* commands, gets included */
    uint64_t reads;                   /* gets that were answered */
    uint64_t direct;                  /* reads that servers answered by themselves */
};

struct recorder *recorder_start(const struct recorder_options *options); /* gives */
/* Commands done so far, by anybody; any thread. Grows while the cluster serves. */
uint64_t recorder_done(const struct recorder *recorder);
/* takes. Ends the clients, reads every key once more and checks. Fails the program with the
 * evidence, having written the history to `path` for lincheck, when it is not linearizable, when
 * the checker hits a limit, or when nothing was done. */
void recorder_stop(struct recorder *recorder, const char *path, struct recorder_report *report);
/* takes. Ends the clients and writes what they recorded to `path`, unjudged. */
void recorder_keep(struct recorder *recorder, const char *path);

#endif

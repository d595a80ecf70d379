/* Makes operations on targets and records what became of them. `load_run` is called from one
 * thread, which begins operations (open loop), reports and waits; ends are recorded on the targets'
 * threads under one mutex. */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include "bench/histogram.h"
#include "bench/options.h"
#include "bench/target.h"

enum {
    LOAD_ERROR_NUMBERS = 128,   /* of base/error.h, positive; the last one takes any other */
    LOAD_INTERVALS_MAX = 90000, /* one a second: a day and an hour */
};

struct load_interval {
    uint64_t done;
    uint64_t failed;
    uint64_t max_ns;
};

struct load_result {
    struct histogram all;
    struct histogram kinds[BENCH_KINDS];
    uint64_t begun;       /* within the measured time; the outcomes below are of these */
    uint64_t done;        /* executed and answered */
    uint64_t absent;      /* of done: gets that found nothing */
    uint64_t conflicts;   /* of done: cas that met another version */
    uint64_t not_done;    /* surely not executed */
    uint64_t unknown;     /* may have been */
    uint64_t never_begun; /* open loop: no slot was free in time */
    uint64_t errors[LOAD_ERROR_NUMBERS];
    uint64_t done_in_time; /* ended within the measured time, whenever begun */
    uint64_t retries;
    uint64_t measured_ns;
    uint64_t late_max_ns; /* open loop: how late the tool itself began an operation */
    uint64_t gap_max_ns;  /* longest time within the measured time without an operation done */
    bool event_ran;
    int event_status; /* of waitpid */
    uint64_t event_took_ns;
    uint64_t event_next_done_ns; /* from its end to the first end of an operation begun after it; 0:
                                    none */
    uint64_t event_gap_ns;       /* longest time without an operation done from its beginning on */
    uint32_t interval_count;
    struct load_interval *intervals; /* of a second each */
};

/* Puts every key once. ERR_OK, or the first error that stayed. */
int load_keys(const struct bench_options *options, struct target **targets,
              struct load_result *out) MUST_USE;
void load_run(const struct bench_options *options, struct target **targets,
              struct load_result *out);
void load_result_deinit(struct load_result *result);
/* Failures of any kind among what was measured. */
uint64_t load_result_failures(const struct load_result *result);

#endif

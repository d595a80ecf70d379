/* Results as a table, as JSON and as a picture, with the machine they were measured on. */
#ifndef TESTS_BENCH_REPORT_H
#define TESTS_BENCH_REPORT_H

#include "bench/load.h"
#include <stdio.h>

struct report_machine {
    char date[32]; /* UTC */
    char kernel[128], processor[128];
    long processors;
    uint64_t memory_bytes;
    double load_average; /* of the last minute, before the run */
};

void report_machine_read(struct report_machine *out);
void report_table(const struct bench_options *options, const struct report_machine *machine,
                  const struct load_result *result, FILE *out);
void report_json(const struct bench_options *options, const struct report_machine *machine,
                 const struct load_result *result, FILE *out);
/* False when the file cannot be written. */
bool report_svg(const struct bench_options *options, const struct report_machine *machine,
                const struct load_result *result, const char *path);

#endif

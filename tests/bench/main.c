/* shardkv-bench: measures a shardkv cluster, or etcd with the same client. --help tells all. */
#include "base/log.h"
#include "bench/report.h"
#include <signal.h>
#include <stdlib.h>

enum { EXIT_CLEAN = 0, EXIT_NOTHING = 1, EXIT_USAGE = 2, EXIT_FAILURES = 4 };

static int measure(const struct bench_options *options, struct target **targets)
{
    struct report_machine machine;
    report_machine_read(&machine);
    struct load_result result;
    if (options->preload || options->preload_only) {
        int error = load_keys(options, targets, &result);
        if (error != ERR_OK) {
            fprintf(stderr, "error: the keys could not be put: %s\n", err_text(error));
            load_result_deinit(&result);
            return EXIT_NOTHING;
        }
        fprintf(stderr, "put %llu keys in %.1f s\n", (unsigned long long)options->keys,
                (double)result.measured_ns / 1e9);
        load_result_deinit(&result);
    }
    if (options->preload_only) {
        return EXIT_CLEAN;
    }
    load_run(options, targets, &result);
    if (options->json) {
        report_json(options, &machine, &result, stdout);
    } else {
        report_table(options, &machine, &result, stdout);
    }
    int code = EXIT_CLEAN;
    if (options->svg != NULL && !report_svg(options, &machine, &result, options->svg)) {
        fprintf(stderr, "error: cannot write %s\n", options->svg);
        code = EXIT_NOTHING;
    } else if (result.done == 0) {
        fprintf(stderr, "error: not one operation was done\n");
        code = EXIT_NOTHING;
    } else if (load_result_failures(&result) > 0) {
        code = EXIT_FAILURES;
    }
    load_result_deinit(&result);
    return code;
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN);
    log_set_level(LOG_ERROR);
    struct bench_options options;
    char message[512];
    int error = bench_options_parse(argc, argv, &options, stdout, message, sizeof message);
    if (error != ERR_OK) {
        if (error != ERR_EXISTS) {
            fprintf(stderr, "error: %s\n", message);
        }
        return error == ERR_EXISTS ? EXIT_CLEAN : EXIT_USAGE;
    }
    struct target *targets[BENCH_CLIENTS_MAX] = {NULL};
    uint64_t opened = 0;
    while (opened < options.clients && error == ERR_OK) {
        error = target_create(&options, &targets[opened], message, sizeof message);
        opened += error == ERR_OK;
    }
    int code = EXIT_NOTHING;
    if (error == ERR_OK) {
        code = measure(&options, targets);
    } else {
        fprintf(stderr, "error: %s\n", message);
    }
    for (uint64_t i = 0; i < opened; i++) {
        targets[i]->table->destroy(targets[i]);
    }
    if (fflush(stdout) != 0 && code == EXIT_CLEAN) {
        fprintf(stderr, "error: cannot write the output\n");
        code = EXIT_NOTHING;
    }
    return code;
}

/* See report.h. */
#include "bench/report.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    uint32_t per_100k;
} quantiles[] = {
    {"p50", 50000}, {"p90", 90000}, {"p99", 99000}, {"p99.9", 99900}, {"p99.99", 99990}};
enum { QUANTILES = sizeof quantiles / sizeof quantiles[0] };

static void read_processor(char *out, size_t size)
{
    snprintf(out, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            colon[strcspn(colon, "\n")] = '\0';
            snprintf(out, size, "%s", colon + 1 + (colon[1] == ' '));
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
}

void report_machine_read(struct report_machine *out)
{
    *out = (struct report_machine){0};
    struct tm utc;
    time_t seconds = time(NULL);
    gmtime_r(&seconds, &utc);
    strftime(out->date, sizeof out->date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    struct utsname name;
    if (uname(&name) == 0) {
        snprintf(out->kernel, sizeof out->kernel, "%s %s", name.sysname, name.release);
    }
    read_processor(out->processor, sizeof out->processor);
    out->processors = sysconf(_SC_NPROCESSORS_ONLN);
    out->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (getloadavg(&out->load_average, 1) != 1) {
        out->load_average = -1;
    }
}

static double per_second(const struct load_result *result)
{
    double seconds = (double)result->measured_ns / 1e9;
    return seconds > 0 ? (double)result->done_in_time / seconds : 0;
}

static void mix_text(const struct bench_mix *mix, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t kind = 0; kind < BENCH_KINDS && used < size; kind++) {
        if (mix->percent[kind] > 0) {
            used += (size_t)snprintf(out + used, size - used, "%s%s=%u", used > 0 ? "," : "",
                                     bench_kind_name((enum bench_kind)kind), mix->percent[kind]);
        }
    }
}

static void table_row(const char *name, const struct histogram *histogram, FILE *out)
{
    if (histogram->count == 0) {
        return;
    }
    fprintf(out, "%-8s %10llu %9.3f %9.3f", name, (unsigned long long)histogram->count,
            (double)histogram->min_ns / 1e6, histogram_mean_ns(histogram) / 1e6);
    for (size_t i = 0; i < QUANTILES; i++) {
        fprintf(out, " %9.3f",
                (double)histogram_quantile_ns(histogram, quantiles[i].per_100k) / 1e6);
    }
    fprintf(out, " %9.3f\n", (double)histogram->max_ns / 1e6);
}

static void table_failures(const struct load_result *result, FILE *out)
{
    if (load_result_failures(result) == 0) {
        fprintf(out, "no failures, no unknown outcomes\n");
        return;
    }
    fprintf(out, "THIS RUN HAD FAILURES: not done %llu, outcome unknown %llu, never begun %llu\n",
            (unsigned long long)result->not_done, (unsigned long long)result->unknown,
            (unsigned long long)result->never_begun);
    for (int i = 1; i < LOAD_ERROR_NUMBERS; i++) {
        if (result->errors[i] > 0) {
            fprintf(out, "  %10llu  %s\n", (unsigned long long)result->errors[i], err_text(-i));
        }
    }
}

void report_table(const struct bench_options *options, const struct report_machine *machine,
                  const struct load_result *result, FILE *out)
{
    char mix[64], rate[64];
    mix_text(&options->mix, mix, sizeof mix);
    snprintf(rate, sizeof rate, "closed loop");
    if (options->rate > 0) {
        snprintf(rate, sizeof rate, "open loop, %llu/s", (unsigned long long)options->rate);
    }
    fprintf(
        out,
        "%s%s%s, %s, %s, %llu outstanding, %llu clients, %llu keys of %llu B, values of %llu B\n",
        options->label != NULL ? options->label : "", options->label != NULL ? ": " : "",
        bench_target_name(options->target), mix, rate, (unsigned long long)options->outstanding,
        (unsigned long long)options->clients, (unsigned long long)options->keys,
        (unsigned long long)options->key_bytes, (unsigned long long)options->value_bytes);
    fprintf(out, "%s, %s, %ld x %s, %.1f GiB, load average before %.2f\n", machine->date,
            machine->kernel, machine->processors, machine->processor,
            (double)machine->memory_bytes / (1ull << 30), machine->load_average);
    fprintf(out, "%.0f operations a second (%llu in %.2f s), %llu further tries\n",
            per_second(result), (unsigned long long)result->done_in_time,
            (double)result->measured_ns / 1e9, (unsigned long long)result->retries);
    if (result->absent + result->conflicts > 0) {
        fprintf(out, "of them gets that found nothing %llu, cas that met another version %llu\n",
                (unsigned long long)result->absent, (unsigned long long)result->conflicts);
    }
    fprintf(out, "\n%-8s %10s %9s %9s", "ms", "count", "min", "mean");
    for (size_t i = 0; i < QUANTILES; i++) {
        fprintf(out, " %9s", quantiles[i].name);
    }
    fprintf(out, " %9s\n", "max");
    table_row("all", &result->all, out);
    for (uint32_t kind = 0; kind < BENCH_KINDS; kind++) {
        table_row(bench_kind_name((enum bench_kind)kind), &result->kinds[kind], out);
    }
    fprintf(out, "\nlongest time without an operation done: %.1f ms\n",
            (double)result->gap_max_ns / 1e6);
    if (options->rate > 0) {
        fprintf(out, "an operation began at most %.1f ms after its moment\n",
                (double)result->late_max_ns / 1e6);
    }
    if (options->event != NULL && !result->event_ran) {
        fprintf(out, "THE EVENT DID NOT RUN TO ITS END\n");
    } else if (options->event != NULL) {
        fprintf(out, "event: status %d after %.1f ms; ", result->event_status,
                (double)result->event_took_ns / 1e6);
        if (result->event_next_done_ns > 0) {
            fprintf(out, "next operation done %.1f ms after it; ",
                    (double)result->event_next_done_ns / 1e6);
        } else {
            fprintf(out, "NO OPERATION DONE AFTER IT; ");
        }
        fprintf(out, "longest gap from its beginning on %.1f ms\n",
                (double)result->event_gap_ns / 1e6);
    }
    table_failures(result, out);
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *json_of_histogram(const struct histogram *histogram)
{
    json_t *object = json_object();
    json_object_set_new(object, "count", number(histogram->count));
    json_object_set_new(object, "min_ns", number(histogram->count > 0 ? histogram->min_ns : 0));
    json_object_set_new(object, "mean_ns", json_real(histogram_mean_ns(histogram)));
    json_object_set_new(object, "max_ns", number(histogram->max_ns));
    for (size_t i = 0; i < QUANTILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s_ns", quantiles[i].name);
        json_object_set_new(object, name,
                            number(histogram_quantile_ns(histogram, quantiles[i].per_100k)));
    }
    return object;
}

static json_t *json_of_outcomes(const struct load_result *result)
{
    json_t *errors = json_object();
    for (int i = 1; i < LOAD_ERROR_NUMBERS; i++) {
        if (result->errors[i] > 0) {
            json_object_set_new(errors, err_name(-i), number(result->errors[i]));
        }
    }
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "begun", (json_int_t)result->begun,
                     "done", (json_int_t)result->done, "absent", (json_int_t)result->absent,
                     "conflicts", (json_int_t)result->conflicts, "not_done",
                     (json_int_t)result->not_done, "unknown", (json_int_t)result->unknown,
                     "never_begun", (json_int_t)result->never_begun, "retries",
                     (json_int_t)result->retries, "errors", errors);
}

void report_json(const struct bench_options *options, const struct report_machine *machine,
                 const struct load_result *result, FILE *out)
{
    char mix[64];
    mix_text(&options->mix, mix, sizeof mix);
    json_t *root = json_pack(
        "{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:o,s:o,s:b,s:I,s:I}", "label",
        options->label != NULL ? options->label : "", "target", bench_target_name(options->target),
        "mix", mix, "outstanding", (json_int_t)options->outstanding, "clients",
        (json_int_t)options->clients, "rate", (json_int_t)options->rate, "keys",
        (json_int_t)options->keys, "key_bytes", (json_int_t)options->key_bytes, "value_bytes",
        (json_int_t)options->value_bytes, "per_second", per_second(result), "latency",
        json_of_histogram(&result->all), "outcomes", json_of_outcomes(result), "clean",
        load_result_failures(result) == 0, "measured_ns", (json_int_t)result->measured_ns,
        "gap_max_ns", (json_int_t)result->gap_max_ns);
    for (uint32_t kind = 0; kind < BENCH_KINDS; kind++) {
        if (result->kinds[kind].count > 0) {
            json_object_set_new(root, bench_kind_name((enum bench_kind)kind),
                                json_of_histogram(&result->kinds[kind]));
        }
    }
    if (options->rate > 0) {
        json_object_set_new(root, "late_max_ns", number(result->late_max_ns));
    }
    if (options->event != NULL) {
        json_object_set_new(root, "event",
                            json_pack("{s:b,s:i,s:I,s:I,s:I}", "ran", result->event_ran, "status",
                                      result->event_status, "took_ns",
                                      (json_int_t)result->event_took_ns, "next_done_ns",
                                      (json_int_t)result->event_next_done_ns, "gap_ns",
                                      (json_int_t)result->event_gap_ns));
    }
    json_object_set_new(root, "machine",
                        json_pack("{s:s,s:s,s:s,s:I,s:I,s:f}", "date", machine->date, "kernel",
                                  machine->kernel, "processor", machine->processor, "processors",
                                  (json_int_t)machine->processors, "memory_bytes",
                                  (json_int_t)machine->memory_bytes, "load_average",
                                  machine->load_average));
    json_dumpf(root, out, JSON_COMPACT | JSON_PRESERVE_ORDER);
    fputc('\n', out);
    json_decref(root);
}

/* lincheck: reads a history and says whether it is linearizable. One thread. */
#include "base/clock.h"
#include "base/flags.h"
#include "lin/history_json.h"
#include "lin/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 3, MESSAGE_BYTES = 1024 };

static struct settings {
    const char *svg;
    uint64_t time_ns;
    uint64_t memory_bytes;
    bool json;
} settings = {.svg = "", .time_ns = 60 * NS_PER_S, .memory_bytes = LIN_MEMORY_BYTES_DEFAULT};

static const struct flag flag_rows[] = {
    {.name = "svg",
     .kind = FLAG_STRING,
     .value = &settings.svg,
     .placeholder = "FILE",
     .help = "Draw the failing part of a history that is not linearizable to this file."},
    {.name = "time-limit",
     .kind = FLAG_DURATION,
     .value = &settings.time_ns,
     .min = NS_PER_MS,
     .max = 24 * 3600 * NS_PER_S,
     .placeholder = "TIME",
     .help = "After this time the answer is UNKNOWN."},
    {.name = "memory-limit",
     .kind = FLAG_BYTES,
     .value = &settings.memory_bytes,
     .min = 1 << 20,
     .max = UINT64_C(1) << 40,
     .placeholder = "SIZE",
     .help = "Past this memory the answer is UNKNOWN."},
    {.name = "json", .kind = FLAG_BOOL, .value = &settings.json, .help = "Answer as JSON."},
};

static const struct flag_set flags = {
    .program = "lincheck",
    .summary = "Says whether a history of gets, puts, appends, deletes and compare-and-sets is "
               "linearizable.",
    .usage = "FILE",
    .details =
        "FILE holds JSON lines, one an event; - is the standard input. docs/TESTING.md has the "
        "format.\n\n"
        "Ends with 0: LINEARIZABLE, 1: NOT LINEARIZABLE, 2: UNKNOWN (a limit was reached), 3: the "
        "history or the command line is not as it must be.",
    .flags = flag_rows,
    .count = sizeof flag_rows / sizeof flag_rows[0],
};

static int fail(const char *message)
{
    fprintf(stderr, "lincheck: %s\n", message);
    return EXIT_USAGE;
}

static bool write_file(const char *path, const struct buf *text)
{
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        return false;
    }
    bool written = fwrite(text->data, 1, text->size, file) == text->size;
    return fclose(file) == 0 && written;
}

static bool draw(const struct lin_result *result)
{
    if (settings.svg[0] == '\0' || result->verdict != LIN_BROKEN) {
        return true;
    }
    struct buf picture;
    buf_init(&picture);
    lin_report_svg(result, &picture);
    bool written = write_file(settings.svg, &picture);
    buf_deinit(&picture);
    return written;
}

/* The history itself is larger than the memory limit. */
static int answer_too_large(const char *message)
{
    struct lin_result result = {.verdict = LIN_UNKNOWN, .spent = LIN_SPENT_MEMORY};
    struct buf text;
    buf_init(&text);
    if (settings.json) {
        lin_report_json(&result, 0, &text);
    } else {
        buf_printf(&text, "UNKNOWN: %s\n", message);
    }
    (void)fwrite(text.data, 1, text.size, stdout);
    buf_deinit(&text);
    return LIN_UNKNOWN;
}

static int check(struct lin_history *history, uint64_t started_ns)
{
    const struct clock *clock = clock_system();
    uint64_t spent_ns = clock_now_ns(clock) - started_ns;
    struct lin_limits limits = {
        .clock = clock,
        /* Reading counts; what is left of nothing is the shortest time there is. */
        .time_ns = spent_ns < settings.time_ns ? settings.time_ns - spent_ns : 1,
        .memory_bytes = settings.memory_bytes,
        .explain = true,
    };
    struct lin_result result;
    int status = (int)lin_check(history, &limits, &result);
    struct buf text;
    buf_init(&text);
    if (settings.json) {
        lin_report_json(&result, clock_now_ns(clock) - started_ns, &text);
    } else {
        lin_report_text(&result, &text);
    }
    bool told = fwrite(text.data, 1, text.size, stdout) == text.size && fflush(stdout) == 0;
    buf_deinit(&text);
    if (!told || !draw(&result)) {
        /* The verdict stands; a broken picture must not turn it into another one. */
        fprintf(stderr, "lincheck: cannot write %s: %s\n", told ? settings.svg : "the answer",
                strerror(errno));
    }
    lin_result_deinit(&result);
    return status;
}

int main(int argc, char **argv)
{
    char message[MESSAGE_BYTES];
    char **files = mem_calloc((size_t)argc, sizeof *files);
    int file_count = 0;
    int error = flags_parse(&flags, argc, argv, files, &file_count, message, sizeof message);
    const char *path = file_count == 1 ? files[0] : NULL;
    free(files);
    if (error == ERR_EXISTS) {
        flags_help(&flags, stdout);
        return 0;
    }
    if (error != ERR_OK) {
        return fail(message);
    }
    if (path == NULL) {
        return fail("give one FILE, or - for the standard input; --help says more");
    }
    uint64_t started_ns = clock_now_ns(clock_system());
    bool standard = strcmp(path, "-") == 0;
    FILE *in = standard ? stdin : fopen(path, "r");
    if (in == NULL) {
        (void)snprintf(message, sizeof message, "cannot open %s: %s", path, strerror(errno));
        return fail(message);
    }
    struct lin_history *history = lin_history_create();
    error = lin_history_read(in, standard ? "standard input" : path, settings.memory_bytes, history,
                             message, sizeof message);
    if (!standard) {
        (void)fclose(in);
    }
    int status = error == ERR_OK          ? check(history, started_ns)
                 : error == ERR_TOO_LARGE ? answer_too_large(message)
                                          : fail(message);
    lin_history_destroy(history);
    return status;
}

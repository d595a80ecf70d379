/* load: puts the rows of a file of JSON lines, many at a time.
 *
 * Threads: main reads, parses and starts commands; the library's thread counts what became of them,
 * under `mutex`. Main stops reading at the first failure (or signal), waits for what is under way,
 * and says from which line to resume: every line before it is done. Doing a line twice is harmless,
 * since a put says the whole value. */
#include "client/ctl/ctl.h"
#include "client/ctl/jsonl.h"
#include "client/ctl/progress.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { FAILURES_SHOWN_MAX = 10 };

struct loader {
    struct ctl *ctl;
    struct skv_client *client;
    FILE *file;
    uint64_t size_bytes; /* of a regular file; 0: unknown */
    bool keep_going;
    uint32_t timeout_ms;

    pthread_mutex_t mutex; /* guards the rest */
    pthread_cond_t ended;
    uint64_t started, done, not_done, unknown;
    uint64_t unreachable;       /* of not_done: because no server took it */
    uint64_t first_failed_line; /* UINT64_MAX: none */
    char first_why[256];
};

struct load_row {
    struct loader *loader;
    uint64_t line;
};

static volatile sig_atomic_t interrupted; /* a signal handler has nowhere else to write */

static void interrupt(int signal_number)
{
    (void)signal_number;
    interrupted = 1;
}

/* `exit_code`: what the row alone would have ended the program with. */
static void note_failure(struct loader *loader, uint64_t line, int exit_code, const char *why)
{
    if (exit_code == CTL_UNKNOWN) {
        loader->unknown++;
    } else {
        loader->not_done++;
        loader->unreachable += exit_code == CTL_UNREACHABLE ? 1 : 0;
    }
    if (line < loader->first_failed_line) {
        loader->first_failed_line = line;
        (void)snprintf(loader->first_why, sizeof loader->first_why, "%s", why);
    }
}

static void row_done(void *context, const struct skv_result *result)
{
    struct load_row *row = context;
    struct loader *loader = row->loader;
    pthread_mutex_lock(&loader->mutex);
    if (result->outcome == SKV_DONE) {
        loader->done++;
    } else {
        note_failure(loader, row->line, ctl_exit_of_result(result->outcome, result->code),
                     skv_code_text(result->code));
    }
    pthread_cond_signal(&loader->ended);
    pthread_mutex_unlock(&loader->mutex);
    free(row);
}

/* Mutex held. */
static uint64_t under_way(const struct loader *loader)
{
    return loader->started - loader->done - loader->not_done - loader->unknown;
}

/* Waits, at most for a moment, until something ended. */
static void wait_a_moment(struct loader *loader)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100 * 1000 * 1000;
    if (until.tv_nsec >= 1000 * 1000 * 1000) {
        until.tv_nsec -= 1000 * 1000 * 1000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&loader->mutex);
    if (under_way(loader) > 0) {
        (void)pthread_cond_timedwait(&loader->ended, &loader->mutex, &until);
    }
    pthread_mutex_unlock(&loader->mutex);
}

static void show(struct loader *loader, struct progress *progress)
{
    pthread_mutex_lock(&loader->mutex);
    uint64_t done = loader->done;
    pthread_mutex_unlock(&loader->mutex);
    off_t at = loader->size_bytes > 0 ? ftello(loader->file) : 0;
    progress_show(progress, done, at > 0 ? (uint64_t)at : 0, loader->size_bytes,
                  clock_now_ns(loader->ctl->clock));
}

/* Starts one put, waiting for room as long as it takes: what is under way ends by its deadline. */
static void start_row(struct loader *loader, const struct jsonl_row *row, uint64_t line,
                      struct progress *progress)
{
    struct skv_command command = {
        .op = SKV_PUT,
        .key = row->key.data,
        .key_size = row->key.size,
        .value = row->value.data,
        .value_size = row->value.size,
        .timeout_ms = loader->timeout_ms,
    };
    struct load_row *context = mem_alloc(sizeof *context);
    *context = (struct load_row){.loader = loader, .line = line};
    pthread_mutex_lock(&loader->mutex);
    loader->started++;
    pthread_mutex_unlock(&loader->mutex);
    int error;
    while ((error = skv_start(loader->client, &command, row_done, context)) == SKV_BUSY) {
        wait_a_moment(loader);
        show(loader, progress);
    }
    if (error != SKV_OK) {
        pthread_mutex_lock(&loader->mutex);
        note_failure(loader, line, CTL_NOT_DONE, skv_code_text(error));
        pthread_mutex_unlock(&loader->mutex);
        free(context);
    }
}

static void bad_line(struct loader *loader, struct progress *progress, uint64_t line,
                     const char *why)
{
    pthread_mutex_lock(&loader->mutex);
    loader->started++;
    note_failure(loader, line, CTL_NOT_DONE, why);
    uint64_t failures = loader->not_done + loader->unknown;
    pthread_mutex_unlock(&loader->mutex);
    if (failures <= FAILURES_SHOWN_MAX) {
        progress_end(progress);
        fprintf(stderr, "line %llu: %s\n", (unsigned long long)line, why);
    }
}

/* The lines from `from` on; the number of the line after the last one looked at. */
static uint64_t load_lines(struct loader *loader, uint64_t from, struct progress *progress)
{
    struct jsonl_row row = {0};
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    uint64_t number = 1;
    char why[256];
    while (!interrupted && (size = getline(&line, &capacity, loader->file)) >= 0) {
        if (number >= from && strspn(line, " \t\r\n") < (size_t)size) {
            if (jsonl_parse(bytes_of(line, (size_t)size), &row, why, sizeof why) != 0) {
                bad_line(loader, progress, number, why);
            } else {
                start_row(loader, &row, number, progress);
            }
        }
        number++;
        if (number % 64 == 0) {
            show(loader, progress);
        }
        pthread_mutex_lock(&loader->mutex);
        bool failed = loader->first_failed_line != UINT64_MAX;
        pthread_mutex_unlock(&loader->mutex);
        if (failed && !loader->keep_going) {
            break;
        }
    }
    free(line);
    jsonl_row_deinit(&row);
    return number;
}

static int report(struct loader *loader, uint64_t next_line, int read_errno, double seconds)
{
    struct ctl *ctl = loader->ctl;
    bool failed = loader->first_failed_line != UINT64_MAX;
    uint64_t resume = failed ? loader->first_failed_line : next_line;
    bool complete = !failed && !interrupted && read_errno == 0;
    double rate = seconds > 0 ? (double)loader->done / seconds : 0;
    char why[320] = "interrupted";
    if (failed) {
        (void)snprintf(why, sizeof why, "line %llu: %s", (unsigned long long)resume,
                       loader->first_why);
    } else if (read_errno != 0) {
        (void)snprintf(why, sizeof why, "cannot read the input: %s", strerror(read_errno));
    }
    if (ctl->json) {
        json_t *json =
            json_pack("{s:s, s:I, s:I, s:I, s:f}", "outcome",
                      complete              ? "done"
                      : loader->unknown > 0 ? "unknown"
                                            : "not_done",
                      "done", (json_int_t)loader->done, "not_done", (json_int_t)loader->not_done,
                      "unknown", (json_int_t)loader->unknown, "seconds", seconds);
        if (!complete) {
            (void)json_object_set_new(json, "message", json_string(why));
            (void)json_object_set_new(json, "resume_line", json_integer((json_int_t)resume));
        }
        ctl_print_json(json);
    } else {
        printf("%llu rows put in %.1f s (%.0f/s), %llu not done, %llu unknown\n",
               (unsigned long long)loader->done, seconds, rate,
               (unsigned long long)loader->not_done, (unsigned long long)loader->unknown);
    }
    if (complete) {
        return CTL_DONE;
    }
    (void)fflush(stdout);
    fprintf(stderr, "error: load: %s\n", why);
    fprintf(stderr, "every line before %llu is done; go on with --from-line=%llu\n",
            (unsigned long long)resume, (unsigned long long)resume);
    bool reached = !failed || loader->unreachable < loader->not_done;
    return loader->unknown > 0 ? CTL_UNKNOWN : reached ? CTL_NOT_DONE : CTL_UNREACHABLE;
}

static int load_file(struct ctl *ctl, const char *path, uint64_t from_line, bool keep_going,
                     uint32_t outstanding_max)
{
    struct loader loader = {.ctl = ctl, .keep_going = keep_going, .first_failed_line = UINT64_MAX};
    struct stat status;
    bool standard_input = strcmp(path, "-") == 0;
    loader.file = standard_input ? stdin : fopen(path, "re");
    if (loader.file == NULL) {
        return ctl_usage(ctl, "cannot open %s: %s", path, strerror(errno));
    }
    if (fstat(fileno(loader.file), &status) == 0 && S_ISREG(status.st_mode)) {
        loader.size_bytes = (uint64_t)status.st_size;
    }
    uint64_t ms = ctl->timeout_ns / NS_PER_MS;
    loader.timeout_ms = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
    int code = ctl_open(ctl, outstanding_max, &loader.client);
    if (code == CTL_DONE) {
        (void)pthread_mutex_init(&loader.mutex, NULL);
        (void)pthread_cond_init(&loader.ended, NULL);
        struct sigaction action = {.sa_handler = interrupt}; /* no restart: getline returns */
        (void)sigaction(SIGINT, &action, NULL);
        (void)sigaction(SIGTERM, &action, NULL);
        uint64_t start_ns = clock_now_ns(ctl->clock);
        struct progress progress = progress_start("rows", start_ns);
        uint64_t next_line = load_lines(&loader, from_line, &progress);
        int read_errno = ferror(loader.file) && !interrupted ? errno : 0;
        bool left = true;
        while (left) { /* ends: every command has its deadline */
            wait_a_moment(&loader);
            show(&loader, &progress);
            pthread_mutex_lock(&loader.mutex);
            left = under_way(&loader) > 0;
            pthread_mutex_unlock(&loader.mutex);
        }
        skv_close(loader.client);
        progress_end(&progress);
        double seconds = (double)(clock_now_ns(ctl->clock) - start_ns) / (double)NS_PER_S;
        code = report(&loader, next_line, read_errno, seconds);
        (void)pthread_cond_destroy(&loader.ended);
        (void)pthread_mutex_destroy(&loader.mutex);
    }
    if (!standard_input) {
        (void)fclose(loader.file); /* only read from */
    }
    return code;
}

int ctl_load(struct ctl *ctl, int argc, char **argv)
{
    uint64_t from_line = 1;
    uint64_t outstanding = 4096;
    bool keep_going = false;
    const char *format = "jsonl";
    const struct flag rows[] = {
        {"from-line", FLAG_UINT, &from_line, 1, UINT64_MAX, false, NULL, "N",
         "Skip the lines before it: to resume."},
        {"keep-going", FLAG_BOOL, &keep_going, 0, 0, false, NULL, NULL,
         "Go on after a failure instead of stopping at it."},
        {"outstanding", FLAG_UINT, &outstanding, 1, SESSION_OUTSTANDING_MAX, false, NULL, "N",
         "Rows under way at a time."},
        {"format", FLAG_STRING, &format, 0, 0, false, NULL, "jsonl",
         "Of the file; jsonl is the only one."},
    };
    const struct ctl_spec spec = {
        .name = "load",
        .summary = "put many rows from JSON lines",
        .usage = "FILE|-",
        .details = "A line is {\"key\": \"...\", \"value\": \"...\"}; \"key_base64\" and "
                   "\"value_base64\" hold "
                   "bytes that are\nnot UTF-8. Exit code 0 only when every row was put. Doing a "
                   "row twice is "
                   "harmless.",
        .flags = rows,
        .flag_count = sizeof rows / sizeof rows[0],
        .positional_min = 1,
        .positional_max = 1,
    };
    char **words = mem_calloc((size_t)argc + 1, sizeof(char *));
    int count = 0;
    int code = CTL_DONE;
    ctl->timeout_ns = 60 * NS_PER_S; /* the default for this command: a row may wait for a leader */
    if (ctl_parse(ctl, &spec, argc, argv, words, &count, &code)) {
        if (strcmp(format, "jsonl") != 0) {
            code = ctl_usage(ctl, "--format=%s: only jsonl is known", format);
        } else {
            code = load_file(ctl, words[0], from_line, keep_going, (uint32_t)outstanding);
        }
    }
    free(words);
    return code;
}

/* Structured log: `2026-11-21T10:00:00.123Z info event key=value ...`, one write(2) a line.
 *
 * Thread: any. The level is one atomic; the context and the sink are copied out under `log_lock`,
 * and the sink is called outside it. This is the process's one log, hence the room's only mutable
 * file-scope state besides the metrics. errno is left as it was, so that a caller may log first and
 * look at it after.
 *
 * A line holds no control character but its final newline: what a peer or a file name puts into a
 * value cannot forge a second line. A line over the limit is cut and ends in "...". */
#include "base/log.h"

#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* What a pipe takes in one piece (PIPE_BUF), so that lines of several processes do not mix. */
#define LOG_LINE_BYTES_MAX    4096
#define LOG_CONTEXT_BYTES_MAX 256
#define LOG_CUT_MARK          "..."

struct log_sink {
    log_sink_fn call;
    void *context;
};

static _Atomic int log_level_now = LOG_INFO;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
/* under log_lock */
static char log_context[LOG_CONTEXT_BYTES_MAX];
static struct log_sink log_sink;

static const char *const log_level_words[] = {
    [LOG_DEBUG] = "debug",
    [LOG_INFO] = "info",
    [LOG_WARN] = "warn",
    [LOG_ERROR] = "error",
};

struct log_line {
    char text[LOG_LINE_BYTES_MAX]; /* the newline and the NUL have their room kept */
    size_t size;
    bool cut;
};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&log_level_now, (int)level, memory_order_relaxed);
}

bool log_level_parse(const char *word, enum log_level *out)
{
    for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
        if (strcmp(word, log_level_words[level]) == 0) {
            *out = (enum log_level)level;
            return true;
        }
    }
    return false;
}

bool log_enabled(enum log_level level)
{
    return (int)level >= atomic_load_explicit(&log_level_now, memory_order_relaxed);
}

void log_set_context(const char *context)
{
    pthread_mutex_lock(&log_lock);
    snprintf(log_context, sizeof(log_context), "%s", context);
    pthread_mutex_unlock(&log_lock);
}

void log_set_sink(log_sink_fn sink, void *context)
{
    pthread_mutex_lock(&log_lock);
    log_sink = (struct log_sink){sink, context};
    pthread_mutex_unlock(&log_lock);
}

/* Adds all of `text` or, when there is no room, nothing more from here on. */
static void line_add(struct log_line *line, const char *text, size_t size)
{
    size_t room = sizeof(line->text) - sizeof(LOG_CUT_MARK "\n") - line->size;
    if (line->cut || size > room) {
        line->cut = true;
        return;
    }
    memcpy(line->text + line->size, text, size);
    line->size += size;
}

static void line_add_escaped(struct log_line *line, const char *text)
{
    for (const char *at = text; *at != '\0'; at++) {
        unsigned char c = (unsigned char)*at;
        char escaped[8];
        if (c >= 0x20 && c != 0x7f) {
            line_add(line, at, 1);
        } else if (c == '\n') {
            line_add(line, "\\n", 2);
        } else {
            int length = snprintf(escaped, sizeof(escaped), "\\x%02x", c);
            line_add(line, escaped, (size_t)length);
        }
    }
}

static void line_add_word(struct log_line *line, const char *word)
{
    if (word[0] != '\0') {
        line_add(line, " ", 1);
        line_add_escaped(line, word);
    }
}

static void line_add_time(struct log_line *line)
{
    uint64_t now_ns = clock_wall_ns(clock_system());
    time_t seconds = (time_t)(now_ns / NS_PER_S);
    struct tm utc;
    char text[64] = "";
    if (gmtime_r(&seconds, &utc) != NULL) {
        size_t size = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
        snprintf(text + size, sizeof(text) - size, ".%03uZ",
                 (unsigned)(now_ns % NS_PER_S / NS_PER_MS));
    }
    line_add(line, text, strlen(text));
}

static void line_write(const char *text, size_t size)
{
    while (size > 0) {
        ssize_t written = write(STDERR_FILENO, text, size);
        if (written < 0) {
            if (errno == EINTR) {
                continue;
            }
            return; /* nowhere is left to say so */
        }
        text += written;
        size -= (size_t)written;
    }
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
    if (!log_enabled(level)) {
        return;
    }
    int errno_before = errno;

    char pairs[LOG_LINE_BYTES_MAX];
    va_list arguments;
    va_start(arguments, format);
    int pairs_length = vsnprintf(pairs, sizeof(pairs), format, arguments);
    va_end(arguments);
    if (pairs_length < 0) {
        pairs[0] = '\0';
    }

    char context[LOG_CONTEXT_BYTES_MAX];
    pthread_mutex_lock(&log_lock);
    memcpy(context, log_context, sizeof(context));
    struct log_sink sink = log_sink;
    pthread_mutex_unlock(&log_lock);

    struct log_line line;
    line.size = 0;
    line.cut = false;
    line_add_time(&line);
    line_add_word(&line, log_level_words[level]);
    line_add_word(&line, context);
    line_add_word(&line, event);
    line_add_word(&line, pairs);
    if (line.cut || pairs_length >= (int)sizeof(pairs)) {
        memcpy(line.text + line.size, LOG_CUT_MARK, sizeof(LOG_CUT_MARK) - 1);
        line.size += sizeof(LOG_CUT_MARK) - 1;
    }
    if (sink.call != NULL) {
        line.text[line.size] = '\0';
        sink.call(sink.context, line.text);
    } else {
        line.text[line.size++] = '\n';
        line_write(line.text, line.size);
    }
    errno = errno_before;
}

bool log_rate_limit(uint64_t *last_ns, uint64_t now_ns, uint64_t interval_ns)
{
    bool first = *last_ns == 0;
    if (!first && (now_ns < *last_ns || now_ns - *last_ns < interval_ns)) {
        return false;
    }
    *last_ns = now_ns == 0 ? 1 : now_ns; /* 0 means 'never yet' */
    return true;
}

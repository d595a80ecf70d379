/* Structured log: one line an event, `time level event key=value ...`, to standard error (or a sink a test
 * sets). Never values, keys' contents or secrets. Transitions at info, requests at debug. Thread-safe; one
 * write() a line. A control character inside is written as \n or \xNN; a line ends at 4096 bytes. errno is kept. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level level);
/* "debug", "info", "warn", "error" to a level; false when the word is none of them. */
bool log_level_parse(const char *word, enum log_level *out);
bool log_enabled(enum log_level level);

/* Text put into every line of this process after the level, e.g. "node=1 group=100". Copied; set once in main. */
void log_set_context(const char *context);

/* `event` is a word or dotted words ("leader.elected"); the rest a printf format of key=value pairs, or "". */
void log_event(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define LOG_DBG(event, ...)                                                                        \
    do {                                                                                           \
        if (log_enabled(LOG_DEBUG)) {                                                              \
            log_event(LOG_DEBUG, event, __VA_ARGS__);                                              \
        }                                                                                          \
    } while (0)

/* True at most once per `interval_ns` for one `*last_ns` (start it at 0); for warnings that could flood.
 * `*last_ns` belongs to one thread. */
bool log_rate_limit(uint64_t *last_ns, uint64_t now_ns, uint64_t interval_ns);

/* A test's sink gets each line without its newline, outside any lock. Set it while no other thread logs. */
typedef void (*log_sink_fn)(void *context, const char *line);
void log_set_sink(log_sink_fn sink, void *context); /* NULL: standard error again */

#endif

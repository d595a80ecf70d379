/* See load.h. A slot is one operation that may be under way; its memory (key, value) lives as long
 * as that. All fields of struct load below the mutex are under it; no target is called under it. */
#include "bench/load.h"

#include "base/assert.h"
#include "base/clock.h"
#include "bench/keys.h"
#include "proto/limits.h"
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { PRELOAD_TRIES_MAX = 20, PRELOAD_OUTSTANDING_MAX = 256, VALUE_SPREAD = 4096 };
static const uint64_t PARKED_WAIT_NS = NS_PER_MS;
/* An open loop sleeps at least so long: to sleep before each of 100,000 a second would take half a
 * core from what is measured. What starts late for it counts that in its latency. */
static const uint64_t PACE_NS = NS_PER_MS / 10;

struct load;

struct slot {
    struct load *load;
    struct target *target;
    struct rng rng;
    enum bench_kind kind;
    uint64_t key;
    uint64_t from_ns; /* its latency counts from here */
    bool measured;
    uint32_t tries; /* preload */
    char key_text[];
};

struct load {
    const struct bench_options *options;
    struct load_result *result;
    struct slot **slots;
    uint32_t slot_count;
    uint8_t *value_bytes; /* value_size + VALUE_SPREAD random bytes; values are windows of it */
    struct key_choice choice;
    atomic_uint_fast64_t *versions; /* by key, when there are cas; else NULL */
    bool preload;

    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct slot **free;
    uint32_t free_count;
    uint64_t measure_ns, end_ns;
    uint64_t preload_next;
    int preload_error;
    uint64_t last_done_ns;
    uint64_t event_begin_ns, event_end_ns; /* UINT64_MAX: not yet */
    uint64_t interval_done, interval_failed;
};

static uint64_t now(void)
{
    return clock_now_ns(clock_system());
}

static uint64_t max_of(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- recording, under the mutex ---- */

static struct load_interval *interval_at(struct load *load, uint64_t at_ns)
{
    if (at_ns < load->measure_ns) {
        return NULL;
    }
    uint64_t index = (at_ns - load->measure_ns) / NS_PER_S;
    if (index >= LOAD_INTERVALS_MAX) {
        return NULL;
    }
    if (index >= load->result->interval_count) {
        load->result->interval_count = (uint32_t)index + 1;
    }
    return &load->result->intervals[index];
}

static bool is_done(int error)
{
    return error == ERR_OK || error == ERR_NOT_FOUND || error == ERR_VERSION_MISMATCH;
}

static void record_gap(struct load *load, uint64_t at_ns)
{
    struct load_result *result = load->result;
    if (at_ns <= load->measure_ns) {
        return;
    }
    uint64_t from_ns = max_of(load->last_done_ns, load->measure_ns);
    result->gap_max_ns = max_of(result->gap_max_ns, at_ns - from_ns);
    if (load->event_begin_ns != UINT64_MAX && at_ns > load->event_begin_ns) {
        result->event_gap_ns = max_of(result->event_gap_ns, at_ns - from_ns);
    }
}

static void record_done(struct load *load, const struct slot *slot, uint64_t at_ns)
{
    struct load_result *result = load->result;
    if (at_ns >= load->measure_ns && at_ns < load->end_ns) {
        result->done_in_time++;
        record_gap(load, at_ns);
    }
    if (load->event_end_ns != UINT64_MAX && slot->from_ns >= load->event_end_ns &&
        result->event_next_done_ns == 0) {
        result->event_next_done_ns = at_ns - load->event_end_ns;
    }
    load->last_done_ns = max_of(load->last_done_ns, at_ns);
}

static void record(struct load *load, const struct slot *slot, const struct target_answer *answer,
                   uint64_t at_ns)
{
    struct load_result *result = load->result;
    bool done = is_done(answer->error);
    uint64_t took_ns = at_ns - slot->from_ns;
    load->interval_done += done;
    load->interval_failed += !done;
    struct load_interval *interval = interval_at(load, at_ns);
    if (interval != NULL) {
        interval->done += done;
        interval->failed += !done;
        interval->max_ns = max_of(interval->max_ns, took_ns);
    }
    if (done) {
        record_done(load, slot, at_ns);
    }
    if (!slot->measured) {
        return;
    }
    if (done) {
        result->done++;
        result->absent += answer->error == ERR_NOT_FOUND;
        result->conflicts += answer->error == ERR_VERSION_MISMATCH;
        histogram_record(&result->all, took_ns);
        histogram_record(&result->kinds[slot->kind], took_ns);
        return;
    }
    result->not_done += !answer->unknown;
    result->unknown += answer->unknown;
    int number = -answer->error;
    result->errors[number > 0 && number < LOAD_ERROR_NUMBERS ? number : LOAD_ERROR_NUMBERS - 1]++;
}

/* Whether the slot shall begin another operation at `at_ns`, which is then counted as begun. */
static bool claim(struct load *load, struct slot *slot, uint64_t at_ns)
{
    struct load_result *result = load->result;
    if (load->preload) {
        if (load->preload_error != ERR_OK || load->preload_next == load->options->keys) {
            return false;
        }
        slot->key = load->preload_next++;
        slot->tries = 0;
    } else if (at_ns >= load->end_ns) {
        return false;
    }
    uint64_t wanted = load->options->operations;
    slot->measured = load->preload || at_ns >= load->measure_ns;
    if (!load->preload && slot->measured && wanted > 0 && result->begun == wanted) {
        return false;
    }
    result->begun += slot->measured;
    slot->from_ns = at_ns;
    return true;
}

/* ---- operations ---- */

static void slot_begin(struct slot *slot, bool again);

static void park(struct load *load, struct slot *slot)
{
    pthread_mutex_lock(&load->mutex);
    load->free[load->free_count++] = slot;
    pthread_cond_signal(&load->changed);
    pthread_mutex_unlock(&load->mutex);
}

static void on_done(void *context, const struct target_answer *answer)
{
    struct slot *slot = context;
    struct load *load = slot->load;
    uint64_t at_ns = now();
    if (load->versions != NULL && is_done(answer->error)) {
        atomic_store_explicit(&load->versions[slot->key], answer->version, memory_order_relaxed);
    }
    bool done = is_done(answer->error);
    if (load->preload && !done && ++slot->tries < PRELOAD_TRIES_MAX) {
        slot_begin(slot, true);
        return;
    }
    pthread_mutex_lock(&load->mutex);
    record(load, slot, answer, at_ns);
    if (load->preload && !done) {
        load->preload_error = answer->error;
    }
    bool more = load->options->rate == 0 || load->preload;
    more = more && claim(load, slot, at_ns);
    pthread_mutex_unlock(&load->mutex);
    if (more) {
        slot_begin(slot, false);
    } else {
        park(load, slot);
    }
}

static void choose(struct slot *slot)
{
    struct load *load = slot->load;
    uint32_t draw = (uint32_t)rng_below(&slot->rng, 100);
    for (uint32_t kind = 0; kind < BENCH_KINDS; kind++) {
        if (draw < load->options->mix.percent[kind]) {
            slot->kind = (enum bench_kind)kind;
            break;
        }
        draw -= load->options->mix.percent[kind];
    }
    slot->key = key_choice_next(&load->choice, &slot->rng, slot->kind != BENCH_GET);
}

/* Begins what `claim` allowed. */
static void slot_begin(struct slot *slot, bool again)
{
    struct load *load = slot->load;
    const struct bench_options *options = load->options;
    if (load->preload) {
        slot->kind = BENCH_PUT;
    } else if (!again) {
        choose(slot);
    }
    key_write(slot->key_text, options->key_bytes, slot->key);
    struct target_command command = {
        .kind = slot->kind,
        .key = bytes_of(slot->key_text, options->key_bytes),
        .deadline_ns = slot->from_ns + options->timeout_ns,
    };
    if (again || options->rate > 0) {
        command.deadline_ns = now() + options->timeout_ns;
    }
    if (slot->kind != BENCH_GET) {
        uint64_t offset = rng_below(&slot->rng, VALUE_SPREAD);
        command.value = bytes_of(load->value_bytes + offset, options->value_bytes);
    }
    if (slot->kind == BENCH_CAS) {
        command.expected = atomic_load_explicit(&load->versions[slot->key], memory_order_relaxed);
    }
    int error = slot->target->table->start(slot->target, &command, on_done, slot);
    if (error == ERR_OK) {
        return;
    }
    /* Refused at once: surely not executed. The main thread begins another a little later, so that
     * a target that refuses everything is not asked in a tight loop. */
    pthread_mutex_lock(&load->mutex);
    record(load, slot, &(struct target_answer){.error = error}, now());
    if (load->preload) {
        load->preload_error = error;
    }
    pthread_mutex_unlock(&load->mutex);
    park(load, slot);
}

/* ---- the event ---- */

struct event {
    pid_t pid; /* 0: not running */
    bool over;
};

static void event_poll(struct load *load, struct event *event, uint64_t at_ns)
{
    const struct bench_options *options = load->options;
    if (options->event == NULL || event->over || at_ns < load->measure_ns + options->event_at_ns) {
        return;
    }
    if (event->pid == 0) {
        char shell[] = "/bin/sh", flag[] = "-c";
        char *command = mem_strdup(options->event);
        char *argv[] = {shell, flag, command, NULL};
        pthread_mutex_lock(&load->mutex);
        load->event_begin_ns = now();
        pthread_mutex_unlock(&load->mutex);
        event->over = posix_spawn(&event->pid, shell, NULL, NULL, argv, environ) != 0;
        free(command);
        return;
    }
    int status = 0;
    if (waitpid(event->pid, &status, WNOHANG) == event->pid) {
        event->over = true;
        pthread_mutex_lock(&load->mutex);
        load->event_end_ns = now();
        load->result->event_ran = true;
        load->result->event_status = status;
        load->result->event_took_ns = load->event_end_ns - load->event_begin_ns;
        pthread_mutex_unlock(&load->mutex);
    }
}

/* What still runs when measuring has ended is not waited for beyond the time of an operation. */
static void event_end(struct load *load, struct event *event)
{
    uint64_t end_ns = now() + load->options->timeout_ns;
    while (event->pid != 0 && !event->over && now() < end_ns) {
        event_poll(load, event, now());
        nanosleep(&(struct timespec){.tv_nsec = (long)NS_PER_MS}, NULL);
    }
    if (event->pid != 0 && !event->over) {
        kill(event->pid, SIGKILL);
        waitpid(event->pid, NULL, 0);
    }
}

/* ---- the main thread ---- */

static void report_progress(struct load *load, uint64_t *next_ns, uint64_t *last_ns)
{
    uint64_t at_ns = now();
    if (!load->options->progress || at_ns < *next_ns) {
        return;
    }
    pthread_mutex_lock(&load->mutex);
    uint64_t done = load->interval_done, failed = load->interval_failed;
    load->interval_done = load->interval_failed = 0;
    uint64_t loaded = load->preload_next;
    uint64_t p99_ns = histogram_quantile_ns(&load->result->all, 99000);
    pthread_mutex_unlock(&load->mutex);
    double seconds = (double)(at_ns - *last_ns) / 1e9;
    const char *phase = load->preload              ? "load"
                        : at_ns < load->measure_ns ? "warm-up"
                        : at_ns < load->end_ns     ? "measure"
                                                   : "drain";
    if (load->preload) {
        fprintf(stderr, "%-7s %llu of %llu keys\n", phase, (unsigned long long)loaded,
                (unsigned long long)load->options->keys);
    } else {
        fprintf(stderr, "%-7s %9.0f op/s  p99 so far %.3f ms  failed %llu\n", phase,
                (double)done / seconds, (double)p99_ns / 1e6, (unsigned long long)failed);
    }
    *last_ns = at_ns;
    *next_ns = at_ns + NS_PER_S;
}

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
}

/* A free slot claimed for `from_ns`; NULL when all are busy until `until_ns`, or nothing more shall
 * begin. */
static struct slot *take_slot(struct load *load, uint64_t from_ns, uint64_t until_ns)
{
    struct slot *slot = NULL;
    pthread_mutex_lock(&load->mutex);
    struct timespec until = timespec_of(until_ns);
    while (load->free_count == 0 && now() < until_ns) {
        pthread_cond_timedwait(&load->changed, &load->mutex, &until);
    }
    if (load->free_count > 0 && claim(load, load->free[load->free_count - 1], from_ns)) {
        slot = load->free[--load->free_count];
    }
    pthread_mutex_unlock(&load->mutex);
    return slot;
}

static bool all_free(struct load *load)
{
    pthread_mutex_lock(&load->mutex);
    bool all = load->free_count == load->slot_count;
    pthread_mutex_unlock(&load->mutex);
    return all;
}

/* Sleeps, but not past what the event needs. */
static void sleep_until(const struct event *event, uint64_t at_ns)
{
    uint64_t limit_ns = now() + (event->pid != 0 && !event->over ? NS_PER_MS / 2 : 20 * NS_PER_MS);
    struct timespec until = timespec_of(at_ns < limit_ns ? at_ns : limit_ns);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void run_closed(struct load *load, struct event *event)
{
    uint64_t next_report_ns = now() + NS_PER_S, last_report_ns = now();
    for (;;) {
        /* At first all slots are free; later those whose last start was refused. */
        bool ended = false;
        for (uint32_t i = 0; i < load->slot_count && !ended; i++) {
            struct slot *slot = take_slot(load, now(), 0);
            ended = slot == NULL;
            if (slot != NULL) {
                slot_begin(slot, false);
            }
        }
        if (all_free(load)) {
            return; /* nothing is under way, and nothing more was allowed */
        }
        event_poll(load, event, now());
        report_progress(load, &next_report_ns, &last_report_ns);
        sleep_until(event, now() + 2 * PARKED_WAIT_NS);
    }
}

static void run_open(struct load *load, struct event *event)
{
    const struct bench_options *options = load->options;
    uint64_t begin_ns = now(), next_report_ns = begin_ns + NS_PER_S, last_report_ns = begin_ns;
    uint64_t count = 0;
    for (;;) {
        uint64_t intended_ns = begin_ns + count / options->rate * NS_PER_S +
                               count % options->rate * NS_PER_S / options->rate;
        event_poll(load, event, now());
        report_progress(load, &next_report_ns, &last_report_ns);
        if (intended_ns >= load->end_ns ||
            (options->operations > 0 && load->result->begun == options->operations)) {
            break;
        }
        uint64_t at_ns = now();
        if (at_ns < intended_ns) {
            sleep_until(event, max_of(intended_ns, at_ns + PACE_NS));
            continue;
        }
        struct slot *slot = take_slot(load, intended_ns, at_ns + 5 * NS_PER_MS);
        if (slot == NULL) {
            /* Nothing is skipped: what was meant to begin still waits, and its latency goes on
             * counting. */
            if (at_ns > load->end_ns && at_ns - load->end_ns > options->timeout_ns) {
                break;
            }
            continue;
        }
        if (slot->measured) {
            load->result->late_max_ns = max_of(load->result->late_max_ns, at_ns - intended_ns);
        }
        count++;
        slot_begin(slot, false);
    }
    uint64_t wanted =
        load->end_ns == UINT64_MAX
            ? count
            : (uint64_t)((double)(load->end_ns - begin_ns) / 1e9 * (double)options->rate);
    load->result->never_begun = wanted > count + 1 ? wanted - count : 0;
    while (!all_free(load)) { /* each ends by its deadline */
        event_poll(load, event, now());
        sleep_until(event, now() + PARKED_WAIT_NS);
    }
}

/* ---- set-up ---- */

static void load_init(struct load *load, const struct bench_options *options,
                      struct target **targets, struct load_result *result, bool preload)
{
    memset(load, 0, sizeof *load);
    memset(result, 0, sizeof *result);
    histogram_init(&result->all);
    for (uint32_t i = 0; i < BENCH_KINDS; i++) {
        histogram_init(&result->kinds[i]);
    }
    result->intervals = mem_calloc(LOAD_INTERVALS_MAX, sizeof *result->intervals);
    load->options = options;
    load->result = result;
    load->preload = preload;
    load->event_begin_ns = load->event_end_ns = UINT64_MAX;

    struct rng rng;
    rng_init(&rng, options->seed);
    size_t size = options->value_bytes + VALUE_SPREAD;
    load->value_bytes = mem_alloc(size);
    for (size_t i = 0; i < size; i++) {
        load->value_bytes[i] = (uint8_t)rng_next(&rng);
    }
    key_choice_init(&load->choice, options->distribution, options->keys,
                    (double)options->zipf_hundredths / 100);
    if (options->mix.percent[BENCH_CAS] > 0) {
        load->versions = mem_calloc(options->keys, sizeof *load->versions);
    }
    load->slot_count = (uint32_t)options->outstanding;
    if (preload) {
        /* Enough for a full stream whatever is measured later, and no more bytes than one message
         * may have. */
        uint64_t fitting = 4ull * VALUE_BYTES_MAX / (options->value_bytes + 64) + 1;
        load->slot_count =
            fitting < PRELOAD_OUTSTANDING_MAX ? (uint32_t)fitting : PRELOAD_OUTSTANDING_MAX;
        load->slot_count =
            options->clients > load->slot_count ? (uint32_t)options->clients : load->slot_count;
    }
    load->slots = mem_calloc(load->slot_count, sizeof(struct slot *));
    load->free = mem_calloc(load->slot_count, sizeof(struct slot *));
    for (uint32_t i = 0; i < load->slot_count; i++) {
        struct slot *slot = mem_calloc(1, sizeof *slot + options->key_bytes);
        slot->load = load;
        slot->target = targets[i % options->clients];
        rng_init(&slot->rng, rng_next(&rng));
        load->slots[i] = slot;
        load->free[load->free_count++] = slot;
    }
    pthread_mutex_init(&load->mutex, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&load->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

static void load_deinit(struct load *load)
{
    for (uint32_t i = 0; i < load->slot_count; i++) {
        free(load->slots[i]);
    }
    free(load->slots);
    free(load->free);
    free(load->value_bytes);
    free(load->versions);
    pthread_cond_destroy(&load->changed);
    pthread_mutex_destroy(&load->mutex);
}

static uint64_t retries_of(const struct bench_options *options, struct target **targets)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < options->clients; i++) {
        sum += targets[i]->table->retries(targets[i]);
    }
    return sum;
}

int load_keys(const struct bench_options *options, struct target **targets, struct load_result *out)
{
    struct load load;
    struct event event = {.over = true};
    load_init(&load, options, targets, out, true);
    load.measure_ns = now();
    load.end_ns = UINT64_MAX;
    run_closed(&load, &event);
    out->measured_ns = now() - load.measure_ns;
    int error = load.preload_error;
    load_deinit(&load);
    return error;
}

void load_run(const struct bench_options *options, struct target **targets, struct load_result *out)
{
    struct load load;
    struct event event = {0};
    load_init(&load, options, targets, out, false);
    (void)prctl(PR_SET_TIMERSLACK,
                1000ul); /* of the thread that begins operations in an open loop */
    uint64_t retries = retries_of(options, targets);
    load.measure_ns = now() + options->warm_up_ns;
    load.end_ns = options->operations > 0 ? UINT64_MAX : load.measure_ns + options->duration_ns;
    if (options->rate > 0) {
        run_open(&load, &event);
    } else {
        run_closed(&load, &event);
    }
    uint64_t end_ns =
        load.end_ns != UINT64_MAX ? load.end_ns : max_of(load.last_done_ns, load.measure_ns + 1);
    out->measured_ns = end_ns - load.measure_ns;
    if (load.end_ns != UINT64_MAX && load.last_done_ns < end_ns) {
        record_gap(&load, end_ns); /* the last one counts too */
    }
    event_end(&load, &event);
    out->retries = retries_of(options, targets) - retries;
    load_deinit(&load);
}

void load_result_deinit(struct load_result *result)
{
    free(result->intervals);
    result->intervals = NULL;
}

uint64_t load_result_failures(const struct load_result *result)
{
    return result->not_done + result->unknown + result->never_begun;
}

/* Between the files of golden.h's module: a running script, its words, and what it tells. */
#ifndef TESTS_GOLDEN_GOLDEN_INTERNAL_H
#define TESTS_GOLDEN_GOLDEN_INTERNAL_H

#include "golden/show.h"

#define LLU(x) ((unsigned long long)(x))

enum {
    WORDS_MAX = 24,
    LINE_BYTES_MAX = 1024,
    STEPS_MAX = 5000,    /* of one command; more is a script that never ends */
    CAMPAIGN_TICKS = 64, /* over twice the longest election timeout */
    ENTRIES_MAX = 16,
};

struct golden {
    struct pump *pump;
    struct buf out; /* the script as it should be */
    const char *file;
    size_t line;
    char words_text[LINE_BYTES_MAX];
    const char *words[WORDS_MAX];
    size_t word_count;
    uint64_t read_count;     /* contexts given out */
    uint64_t snapshot_count; /* ids given out */
};

/* --- words.c --- */

/* Ends the process with 2: the script is at fault. */
_Noreturn void golden__wrong(const struct golden *golden, const char *what);
const char *golden__word(const struct golden *golden, size_t at);
/* These two move *text behind what they read. */
uint64_t golden__number(const struct golden *golden, const char **text);
struct raft_position golden__position(const struct golden *golden, const char **text);
/* The text behind `key=`, or NULL. */
const char *golden__option(const struct golden *golden, const char *key);
uint64_t golden__option_number(const struct golden *golden, const char *key, uint64_t otherwise);
struct raft_position golden__option_position(const struct golden *golden, const char *key);
bool golden__flag(const struct golden *golden, const char *name);
/* 3 for "x3" anywhere in the command. */
size_t golden__times(const struct golden *golden, size_t otherwise);
uint64_t golden__replica_id(const struct golden *golden, const char *text);
uint64_t golden__live_id(const struct golden *golden, size_t at);

/* --- tell.c --- */

struct golden_before {
    size_t wire;
    size_t writes;
    uint64_t applied;
};

struct golden_before golden__watch(struct golden *golden, uint64_t id);
/* `released`: how many of the messages now on the wire waited for write `seq`. */
void golden__tell(struct golden *golden, uint64_t id, struct golden_before before, size_t released,
                  uint64_t seq);
/* After an input that was given to the core directly. */
void golden__collect_and_tell(struct golden *golden, uint64_t id, struct golden_before before);

#endif

/* The words of a command, as what they mean. A word that means nothing ends the process: a script
 * is written by hand, and read by golden_run() only. Thread: one. */
#include "golden/golden_internal.h"

#include <stdio.h>

void golden__wrong(const struct golden *golden, const char *what)
{
    fprintf(stderr, "%s:%zu: %s\n", golden->file, golden->line, what);
    exit(2);
}

const char *golden__word(const struct golden *golden, size_t at)
{
    if (at >= golden->word_count) {
        golden__wrong(golden, "a word is missing");
    }
    return golden->words[at];
}

uint64_t golden__number(const struct golden *golden, const char **text)
{
    char *end;
    uint64_t value = strtoull(*text, &end, 10);
    if (end == *text) {
        golden__wrong(golden, "a number is missing");
    }
    *text = end;
    return value;
}

const char *golden__option(const struct golden *golden, const char *key)
{
    size_t size = strlen(key);
    for (size_t i = 0; i < golden->word_count; i++) {
        if (strncmp(golden->words[i], key, size) == 0 && golden->words[i][size] == '=') {
            return golden->words[i] + size + 1;
        }
    }
    return NULL;
}

uint64_t golden__option_number(const struct golden *golden, const char *key, uint64_t otherwise)
{
    const char *text = golden__option(golden, key);
    return text == NULL ? otherwise : golden__number(golden, &text);
}

struct raft_position golden__position(const struct golden *golden, const char **text)
{
    struct raft_position result = {.index = golden__number(golden, text)};
    if (**text != '/') {
        golden__wrong(golden, "a position is index/term");
    }
    (*text)++;
    result.term = golden__number(golden, text);
    return result;
}

struct raft_position golden__option_position(const struct golden *golden, const char *key)
{
    const char *text = golden__option(golden, key);
    return text == NULL ? (struct raft_position){0, 0} : golden__position(golden, &text);
}

bool golden__flag(const struct golden *golden, const char *name)
{
    for (size_t i = 0; i < golden->word_count; i++) {
        if (strcmp(golden->words[i], name) == 0) {
            return true;
        }
    }
    return false;
}

size_t golden__times(const struct golden *golden, size_t otherwise)
{
    for (size_t i = 1; i < golden->word_count; i++) {
        const char *text = golden->words[i] + 1;
        if (golden->words[i][0] == 'x' && *text >= '0' && *text <= '9') {
            return (size_t)golden__number(golden, &text);
        }
    }
    return otherwise;
}

uint64_t golden__replica_id(const struct golden *golden, const char *text)
{
    uint64_t id = golden__number(golden, &text);
    if (golden->pump == NULL || id == 0 || id > PUMP_NODES_MAX) {
        golden__wrong(golden, "no such replica");
    }
    return id;
}

uint64_t golden__live_id(const struct golden *golden, size_t at)
{
    uint64_t id = golden__replica_id(golden, golden__word(golden, at));
    if (golden->pump->nodes[id].core == NULL) {
        golden__wrong(golden, "that replica is down");
    }
    return id;
}

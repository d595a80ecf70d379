/* lin_generate: prints a generated history as JSON lines, as it was made or with one mutation. For
 * trying lincheck. */
#include "base/clock.h"
#include "base/flags.h"
#include "lin/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct settings {
    uint64_t seed, ops, keys, clients;
    uint64_t put, append, erase, cas, info, stall, values, think_ns;
    bool versions;
    const char *mutation;
} settings = {.seed = 1,
              .ops = 50000,
              .keys = 10,
              .clients = 50,
              .put = 20,
              .append = 15,
              .erase = 3,
              .cas = 10,
              .info = 10,
              .stall = 1,
              .think_ns = NS_PER_MS,
              .mutation = ""};

#define ROW_UINT(field, text, place, low, high, words)                                             \
    {                                                                                              \
        .name = text, .kind = FLAG_UINT, .value = &settings.field, .min = low, .max = high,        \
        .placeholder = place, .help = words                                                        \
    }

static const struct flag flag_rows[] = {
    ROW_UINT(seed, "seed", "N", 0, 0, "The same seed and shape give the same history."),
    ROW_UINT(ops, "ops", "N", 1, 10000000, "Operations."),
    ROW_UINT(keys, "keys", "N", 1, 100000, "Keys."),
    ROW_UINT(clients, "clients", "N", 1, 10000, "Clients, each with one operation at a time."),
    ROW_UINT(put, "put", "PERCENT", 0, 100, "Share of puts; what is left of 100 are gets."),
    ROW_UINT(append, "append", "PERCENT", 0, 100, "Share of appends."),
    ROW_UINT(erase, "delete", "PERCENT", 0, 100, "Share of deletes."),
    ROW_UINT(cas, "cas", "PERCENT", 0, 100, "Share of compare-and-sets."),
    ROW_UINT(info, "info", "PERMILLE", 0, 1000, "Share of the writes with an unknown outcome."),
    ROW_UINT(stall, "stall", "PERMILLE", 0, 1000, "Share of operations that take very long."),
    ROW_UINT(values, "values", "N", 0, 1000000, "Draw from so many values; 0: each is new."),
    {.name = "versions", .kind = FLAG_BOOL, .value = &settings.versions, .help = "Tell versions."},
    {.name = "think",
     .kind = FLAG_DURATION,
     .value = &settings.think_ns,
     .max = 3600 * NS_PER_S,
     .placeholder = "TIME",
     .help = "Longest pause between two operations of a client."},
    {.name = "mutate",
     .kind = FLAG_STRING,
     .value = &settings.mutation,
     .placeholder = "NAME",
     .help = "Break it: 'dropped write', 'stale read', 'doubled append', 'swapped reads', 'early "
             "read' or 'lost append'. Needs --values=0."},
};
static const struct flag_set flags = {
    .program = "lin_generate",
    .summary = "Prints a linearizable history, or one broken on purpose.",
    .usage = "",
    .flags = flag_rows,
    .count = sizeof flag_rows / sizeof flag_rows[0],
};

static int fail(const char *message)
{
    fprintf(stderr, "lin_generate: %s\n", message);
    return 3;
}

static bool mutate(struct lin_made *made)
{
    struct rng rng;
    rng_init(&rng, settings.seed);
    for (int i = 0; i < LIN_MUTATIONS; i++) {
        if (strcmp(lin_mutation_name((enum lin_mutation)i), settings.mutation) == 0) {
            return lin_made_mutate(made, (enum lin_mutation)i, &rng);
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    char message[512];
    char **words = mem_calloc((size_t)argc, sizeof *words);
    int word_count = 0;
    int error = flags_parse(&flags, argc, argv, words, &word_count, message, sizeof message);
    free(words);
    if (error == ERR_EXISTS) {
        flags_help(&flags, stdout);
        return 0;
    }
    if (error != ERR_OK || word_count > 0) {
        return fail(error != ERR_OK ? message : "it takes flags only; --help names them");
    }
    struct lin_shape shape = {.seed = settings.seed,
                              .ops = settings.ops,
                              .keys = (uint32_t)settings.keys,
                              .clients = (uint32_t)settings.clients,
                              .put_percent = (uint32_t)settings.put,
                              .append_percent = (uint32_t)settings.append,
                              .delete_percent = (uint32_t)settings.erase,
                              .cas_percent = (uint32_t)settings.cas,
                              .info_per_mille = (uint32_t)settings.info,
                              .stall_per_mille = (uint32_t)settings.stall,
                              .values = (uint32_t)settings.values,
                              .versions = settings.versions,
                              .think_ns_max = settings.think_ns};
    struct lin_made made;
    lin_made_init(&made, &shape);
    if (settings.mutation[0] != '\0' && (settings.values > 0 || !mutate(&made))) {
        lin_made_deinit(&made);
        return fail("no place for this mutation, no such mutation, or --values is not 0");
    }
    struct buf text;
    buf_init(&text);
    lin_made_write(&made, &text);
    bool written = fwrite(text.data, 1, text.size, stdout) == text.size && fflush(stdout) == 0;
    buf_deinit(&text);
    lin_made_deinit(&made);
    return written ? 0 : fail("cannot write");
}

/* See ballast.h. Goes in and out through shardctl load and export. */
#include "fault/ballast.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 2048, VALUE_BYTES = 4096 };

/* Differs in every row and all over. */
static void make_value(uint32_t row, char out[VALUE_BYTES + 1])
{
    uint32_t state = row * 2654435761u + 1;
    for (uint32_t i = 0; i < VALUE_BYTES; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (char)('a' + (state >> 24) % 26);
    }
    out[VALUE_BYTES] = '\0';
}

void ballast_load(struct fault *fault)
{
    char path[sizeof fault->cluster.dir + 32], value[VALUE_BYTES + 1];
    snprintf(path, sizeof path, "%s/ballast.jsonl", fault->cluster.dir);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL);
    for (uint32_t row = 0; row < ROWS; row++) {
        make_value(row, value);
        fprintf(file, "{\"key\":\"ballast-%u\",\"value\":\"%s\"}\n", row, value);
    }
    CHECK_EQ(fclose(file), 0);
    CHECK_EQ(cluster_ctl(&fault->cluster, 120, NULL, "load", "--timeout", "60s", path, NULL), 0);
}

static void check_row(const char *line, size_t size, uint8_t *seen)
{
    json_t *json = json_loadb(line, size, 0, NULL);
    const char *key = json_string_value(json_object_get(json, "key"));
    const char *value = json_string_value(json_object_get(json, "value"));
    unsigned row = 0;
    if (key == NULL || value == NULL || sscanf(key, "ballast-%u", &row) != 1 || row >= ROWS) {
        FAIL("no row of the ballast: %.*s", size < 100 ? (int)size : 100, line);
    }
    char wanted[VALUE_BYTES + 1];
    make_value(row, wanted);
    if (strcmp(value, wanted) != 0) {
        FAIL("row %u has another value than it was given", row);
    }
    if (seen[row]++ != 0) {
        FAIL("row %u is there twice", row);
    }
    json_decref(json);
}

void ballast_check(struct fault *fault)
{
    struct buf out;
    buf_init(&out);
    CHECK_EQ(cluster_ctl(&fault->cluster, 180, &out, "export", "--timeout", "120s", "--prefix",
                         "ballast-", NULL),
             0);
    uint8_t *seen = mem_calloc(ROWS, 1);
    const char *at = (const char *)out.data, *end = at + out.size;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        CHECK(newline != NULL);
        check_row(at, (size_t)(newline - at), seen);
        at = newline + 1;
    }
    for (uint32_t row = 0; row < ROWS; row++) {
        if (seen[row] == 0) {
            FAIL("row %u of the ballast is lost", row);
        }
    }
    free(seen);
    buf_deinit(&out);
}

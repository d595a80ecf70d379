/* Lookups in the one error table. Pure; any thread. */
#include "base/error.h"

#include <stddef.h>

struct err_row {
    int error;
    enum err_outcome outcome;
    const char *name;
    const char *text;
};

static const struct err_row err_rows[] = {{ERR_OK, OUTCOME_DONE, "OK", "ok"},
#define X(name, number, outcome, text) {ERR_##name, OUTCOME_##outcome, #name, text},
                                          ERROR_TABLE(X)
#undef X
};

/* About forty rows, met on error paths only: a walk is fast enough, and two rows of one number do
 * not compile below. */
static const struct err_row *err_find(int error)
{
    for (size_t i = 0; i < sizeof(err_rows) / sizeof(err_rows[0]); i++) {
        if (err_rows[i].error == error) {
            return &err_rows[i];
        }
    }
    return NULL;
}

/* Refuses, at compile time, a table in which one number stands twice. */
__attribute__((unused)) static void err_numbers_are_unique(enum err error)
{
    switch (error) {
    case ERR_OK:
#define X(name, number, outcome, text) case ERR_##name:
        ERROR_TABLE(X)
#undef X
        break;
    }
}

const char *err_text(int error)
{
    const struct err_row *row = err_find(error);
    return row == NULL ? "unknown error" : row->text;
}

const char *err_name(int error)
{
    const struct err_row *row = err_find(error);
    return row == NULL ? "UNKNOWN_ERROR" : row->name;
}

enum err_outcome err_outcome(int error)
{
    const struct err_row *row = err_find(error);
    return row == NULL ? OUTCOME_UNKNOWN : row->outcome;
}

int err_from_wire(unsigned code)
{
    for (size_t i = 0; i < sizeof(err_rows) / sizeof(err_rows[0]); i++) {
        if ((unsigned)-err_rows[i].error == code) {
            return err_rows[i].error;
        }
    }
    return ERR_IO;
}

unsigned err_to_wire(int error)
{
    const struct err_row *row = err_find(error);
    return row == NULL ? (unsigned)-ERR_IO : (unsigned)-row->error;
}

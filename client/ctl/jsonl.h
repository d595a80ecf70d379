/* Rows as JSON lines: {"key": "...", "value": "..."}; bytes that are not UTF-8 stand in base64
 * under "key_base64" and "value_base64". */
#ifndef CLIENT_CTL_JSONL_H
#define CLIENT_CTL_JSONL_H

#include "base/bytes.h"
#include "base/error.h"
#include <stdio.h>

struct jsonl_row {
    struct buf key;
    struct buf value;
};

/* Replaces what `out` holds. ERR_INVALID: `why` says what is wrong with the line. */
int jsonl_parse(struct bytes line, struct jsonl_row *out, char *why, size_t why_size) MUST_USE;
void jsonl_row_deinit(struct jsonl_row *row);
/* One line; `value` NULL: the key alone. ERR_IO. */
int jsonl_print(FILE *out, struct bytes key, const struct bytes *value) MUST_USE;

#endif

/* What a check found, for people and for machines. All texts are printable ASCII (SVG: well-formed
 * XML): other bytes of keys and values are escaped, long ones are shortened in the middle. */
#ifndef TESTS_LIN_REPORT_H
#define TESTS_LIN_REPORT_H

#include "lin/check.h"

const char *lin_verdict_name(enum lin_verdict verdict); /* "NOT LINEARIZABLE" */
const char *lin_spent_name(enum lin_spent spent);       /* "time" */

/* What the operations of the failure's core show. */
const char *lin_failure_text(const struct lin_failure *failure);

/* `put "x"`, `get -> nothing`, `cas "a" -> "b"`. */
void lin_describe_op(const struct lin_op *op, struct buf *out);
void lin_describe_bytes(struct bytes bytes, struct buf *out); /* quoted */

/* The verdict in one line; with a failure, the operations that show it below. Appends. */
void lin_report_text(const struct lin_result *result, struct buf *out);
/* The same as one JSON object and a newline. */
void lin_report_json(const struct lin_result *result, uint64_t elapsed_ns, struct buf *out);
/* The failing part as a picture: a row a process, a bar an operation from call to return. Of a
 * result without failure, a picture that says the verdict. */
void lin_report_svg(const struct lin_result *result, struct buf *out);

#endif

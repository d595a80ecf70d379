/* Golden scripts: a story about a few replicas, told as prose, commands and what the cores did.
 *
 * A line that begins with "> " is a command, the lines behind it that begin with four spaces are
 * what it did, and everything else is prose. Nothing moves by itself: no message arrives and no
 * write becomes durable unless a command says so. docs/TESTING.md has the list of commands. */
#ifndef TESTS_GOLDEN_GOLDEN_H
#define TESTS_GOLDEN_GOLDEN_H

#include "base/bytes.h"

/* Runs the script; *out (the caller's to deinit) becomes the same script with what happened now,
 * and a NUL. A script that makes no sense ends the process with 2 and a message; `file` is for
 * that. */
void golden_run(const char *file, const char *script, struct buf *out);

#endif

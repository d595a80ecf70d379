/* Linearizability by trying every order, for histories of a few operations on one key. Shares
 * nothing with tests/lin but the operation's struct: values are bytes in arrays, there is no cache
 * and no shortcut. */
#ifndef TESTS_UNIT_LIN_BRUTE_H
#define TESTS_UNIT_LIN_BRUTE_H

#include "lin/history.h"

enum { BRUTE_OPS_MAX = 12, BRUTE_VALUE_BYTES_MAX = 256 };

bool brute_linearizable(const struct lin_op *ops, size_t count);

#endif

/* What the running process does when its store cannot be read: it stops. A replica that goes on
 * with a disk that fails or lies would lead its group and answer with errors for ever; stopped,
 * another one takes over. */
#ifndef SHARDKV_STORE_FAILURE_H
#define SHARDKV_STORE_FAILURE_H

#include "base/error.h"

/* Returns `error` unless it is the disk's (IO, CORRUPT, NO_SPACE): then the process ends at once,
 * having said where. */
int store_failure_stop(int error, const char *where) MUST_USE;

#endif

/* What the running process does when its store cannot be read or written: it stops. A replica that
 * goes on with a disk that fails or lies would lead its group and answer with errors for ever;
 * stopped, another one takes over. */
#ifndef SHARDKV_STORE_FAILURE_H
#define SHARDKV_STORE_FAILURE_H

#include "base/error.h"

/* Where the store is, for the last words; copied. Once, before the store is opened. */
void store_failure_name(const char *dir);

/* Returns `error` unless it is the disk's (IO, CORRUPT, NO_SPACE): then the process ends at once,
 * having said where. */
int store_failure_stop(int error, const char *where) MUST_USE;

/* RocksDB is packaged with its assertions on, and one of them fails when it touches a file again
 * that could not be written, as on a full disk. So this room defines __assert_fail for the whole
 * process: that assertion ends it like any other failure of the disk, all others abort it as ever,
 * in this house's words. */

#endif

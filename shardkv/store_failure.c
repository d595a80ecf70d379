/* See store_failure.h. */
#include "shardkv/store_failure.h"

#include "base/log.h"
#include "raft/node/server_main.h"

#include <stdio.h>
#include <unistd.h>

int store_failure_stop(int error, const char *where)
{
    if (error != ERR_IO && error != ERR_CORRUPT && error != ERR_NO_SPACE) {
        return error;
    }
    log_event(LOG_ERROR, "store.fatal", "where=%s error=%s", where, err_name(error));
    fprintf(stderr, "error: the store cannot be read: %s\n", err_text(error));
    _exit(SERVER_EXIT_DISK); /* at once: nothing more may be answered from it */
}

/* See server_limits.h.
 *
 * Memory. The C library keeps what was freed in small pieces: after a crowd of connections has
 * gone, hundreds of MiB. So from time to time what is free is compared with the least that was free
 * since it was last given back; when much was added, all of it is given back. That holds up
 * allocations for about 0.1 ms a MiB, so it is not done for little.
 *
 * Connections. gRPC's core has no bound on them. In the release that this house is built on, an
 * accept that fails for want of a file descriptor ends the listener for good, and until then
 * connections take the descriptors that the log and the tables need. So the core's accept4 is
 * answered here: the dynamic linker prefers a program's own symbol to the C library's, and only
 * programs with this file (the servers; not the client library) have this one. Descriptors are
 * given out lowest first, so one whose number is at the limit means that this many are open: then
 * the connection is closed, and those that are there already go on. The limit is read each time,
 * because it may be changed from outside. The test abuse.MoreConnectionsThanFiles fails without it.
 */
#include "raft/node/server_limits.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"

#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

METRIC(server_connections_refused_count, COUNTER, "connections closed: too many files are open")

enum {
    MALLOC_ARENAS_MAX = 2,
    /* Blocks above it go back to the system when freed; fixed, because glibc otherwise raises it to
     * 32 MiB after the first large free and a burst of large values would stay in memory for ever.
     */
    MALLOC_MMAP_THRESHOLD_BYTES = 4 * 1024 * 1024,
    MALLOC_TRIM_THRESHOLD_BYTES = 4 * 1024 * 1024,
    TRIM_BYTES_MIN = 64 * 1024 * 1024,
    /* Kept for files: a quarter of what the process may have open, at most this many. */
    FILES_KEPT_MAX = 1024,
    /* An idle connection costs about 20 KiB; so this is 400 MiB. */
    FILES_MAX = 20000,
    LOG_INTERVAL_S = 10,
};

void server_limits_set(void)
{
    (void)mallopt(M_ARENA_MAX, MALLOC_ARENAS_MAX);
    (void)mallopt(M_MMAP_THRESHOLD, MALLOC_MMAP_THRESHOLD_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, MALLOC_TRIM_THRESHOLD_BYTES);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* ---- memory ---- */

void server_limits_trim(void)
{
    static size_t least_free_bytes;
    size_t free_bytes = mallinfo2().fordblks;
    least_free_bytes = free_bytes < least_free_bytes ? free_bytes : least_free_bytes;
    if (free_bytes - least_free_bytes >= TRIM_BYTES_MIN) {
        (void)malloc_trim(0);
        least_free_bytes = mallinfo2().fordblks; /* still counted, though no longer resident */
    }
}

/* ---- connections ---- */

static int files_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        return FILES_MAX;
    }
    uint64_t kept = files.rlim_cur / 4;
    uint64_t limit = files.rlim_cur - (kept < FILES_KEPT_MAX ? kept : FILES_KEPT_MAX);
    return limit < FILES_MAX ? (int)limit : (int)FILES_MAX;
}

static void refuse(int connection, int limit)
{
    static _Atomic uint64_t logged_ns;
    (void)close(connection);
    metric_add(&server_connections_refused_count, 1);
    uint64_t now_ns = clock_now_ns(clock_system());
    uint64_t last_ns = atomic_load(&logged_ns);
    if ((last_ns == 0 || now_ns - last_ns > LOG_INTERVAL_S * NS_PER_S) &&
        atomic_compare_exchange_strong(&logged_ns, &last_ns, now_ns)) {
        log_event(LOG_WARN, "server.too_many_connections", "open_files_max=%d", limit);
    }
}

/* What accept(2) says of a connection, not of the listener: the next one may be good. */
static bool is_of_one_connection(int error)
{
    return error == ECONNABORTED || error == EPROTO || error == EPERM || error == EINTR;
}

/* What the core would take for the listener's end; left for when the next connection comes. */
static bool is_of_the_moment(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

__attribute__((visibility("default"))) int accept4(int listener, struct sockaddr *restrict address,
                                                   socklen_t *restrict address_size, int flags)
{
    socklen_t room = address_size != NULL ? *address_size : 0;
    for (;;) {
        if (address_size != NULL) {
            *address_size = room;
        }
        int got = (int)syscall(SYS_accept4, listener, address, address_size, flags);
        if (got < 0 && is_of_one_connection(errno)) {
            continue;
        }
        if (got < 0) {
            errno = is_of_the_moment(errno) ? EAGAIN : errno;
            return got;
        }
        int limit = files_limit();
        if (got < limit) {
            return got;
        }
        refuse(got, limit);
    }
}

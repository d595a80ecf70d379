/* What a server process may use of its machine: memory that goes back to the system, and a bound on
 * connections. Called by server_main.c alone. */
#ifndef RAFT_NODE_SERVER_LIMITS_H
#define RAFT_NODE_SERVER_LIMITS_H

enum { SERVER_TRIM_INTERVAL_S = 5 };

/* Before any thread exists. */
void server_limits_set(void);
/* Every SERVER_TRIM_INTERVAL_S, on one thread: gives freed memory back when there is much of it. */
void server_limits_trim(void);

#endif

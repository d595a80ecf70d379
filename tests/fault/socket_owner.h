/* Whether the other end of a connection belongs to this process. */
#ifndef TESTS_FAULT_SOCKET_OWNER_H
#define TESTS_FAULT_SOCKET_OWNER_H

#include <stdbool.h>

/* `accepted`: a TCP connection over loopback that this process has accepted. False, too, when the
 * other end is closed already. Any thread; its time grows with our own descriptors only. */
bool socket_peer_is_ours(int accepted);

#endif

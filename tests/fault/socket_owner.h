/* Whether a TCP socket belongs to this process. */
#ifndef TESTS_FAULT_SOCKET_OWNER_H
#define TESTS_FAULT_SOCKET_OWNER_H

#include <stdbool.h>
#include <stdint.h>

/* The connected IPv4 socket with this local port on loopback. False, too, when it is gone already.
 * Any thread. */
bool socket_is_ours(uint16_t local_port);

#endif

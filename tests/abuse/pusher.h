/* A client that obeys flow control to the byte: it sends of each unfinished message as much as the
 * server's windows allow, and never ends one. What a server can be made to hold by the rules. One
 * thread. */
#ifndef TESTS_ABUSE_PUSHER_H
#define TESTS_ABUSE_PUSHER_H

#include <stdbool.h>
#include <stdint.h>

struct pusher;
/* Connects and opens `stream_count` calls of `path`, each with a message of `claimed` bytes to
 * come. */
struct pusher *pusher_open(uint16_t port, uint32_t source, const char *path, uint32_t stream_count,
                           uint32_t claimed);
/* Reads what has come and sends what is allowed, without waiting. False: closed by the server. */
bool pusher_step(struct pusher *pusher);
uint64_t pusher_sent_bytes(const struct pusher *pusher);
uint32_t pusher_streams_open(const struct pusher *pusher);
void pusher_close(struct pusher *pusher);

#endif

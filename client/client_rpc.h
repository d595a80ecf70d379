/* The rpc of a client process, with TLS from files when there are any. */
#ifndef CLIENT_CLIENT_RPC_H
#define CLIENT_CLIENT_RPC_H

#include "base/error.h"
#include <stddef.h>

struct rpc;

struct client_tls_files {
    const char *ca, *certificate, *key; /* PEM; all NULL: plaintext */
};
/* ERR_INVALID: only some of the files are named. `why` says what is wrong. gives *out. */
int client__rpc_create(const struct client_tls_files *files, struct rpc **out, char *why,
                       size_t why_size) MUST_USE;
/* The part of the core's words about a failed connection that a person wants: "Connection refused".
 * A view of `text`. */
const char *client__plain_text(const char *text);

#endif

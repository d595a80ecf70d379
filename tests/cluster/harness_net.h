/* A network of the test's own: one network namespace for the test itself, in which its clients
 * live, and one for each server, joined by a bridge. Between any two servers the bridge can be told
 * to keep back packets of either direction, all or some: neither side is told, as with a real
 * cable, and all that changes at a time changes in one moment.
 *
 *     test program, shardctl       server 1            server 2
 *     [namespace, 10.77.0.1]   [ns, 10.77.0.2]     [ns, 10.77.0.3]
 *            bridge ---- veth ----'                      |
 *              '-------- veth ---------------------------'
 *
 * The namespaces have no names: they live as long as a process is in them or the test holds them
 * open, and the kernel removes them, the bridge and the links with the last one. So nothing can be
 * left behind, also when the test is killed, and tests that run side by side cannot meet.
 *
 * Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN), `ip` and `nft`. One thread: the one that made it.
 */
#ifndef TESTS_CLUSTER_HARNESS_NET_H
#define TESTS_CLUSTER_HARNESS_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NET_NODES_MAX = 66,
    NET_HUB = 0, /* the test itself; servers are 1, 2, ... */
    NET_ADDRESS_BYTES = 16,
};

struct net;

/* Whether this machine can do it; if not, `why` says what is missing. */
bool net_is_possible(char *why, size_t why_size);

/* Moves the calling thread, and all it starts from now on, into the new network. Call it before
 * there are other threads; there is no way back. Fails the program with a message on any trouble.
 * gives */
struct net *net_create(void);
void net_destroy(struct net *net); /* NULL is fine */

uint32_t net_add_node(struct net *net);
void net_address(uint32_t node, char out[NET_ADDRESS_BYTES]);
/* In a child between fork and exec: moves it to the node. False when it cannot. */
bool net_enter(const struct net *net, uint32_t node);

/* What server `from` sends does not arrive at server `to`. Takes effect with net_apply. */
void net_cut(struct net *net, uint32_t from, uint32_t to);
void net_cut_both(struct net *net, uint32_t a, uint32_t b);
/* So many of 1000 packets do not arrive, on all links between servers. */
void net_set_loss(struct net *net, uint32_t per_mille);
/* All is whole again; takes effect with net_apply. */
void net_heal(struct net *net);
/* Makes what was asked for true, in one step. */
void net_apply(struct net *net);

/* How many packets were kept back since the last net_apply that changed something: a cut that
 * stopped nothing tested nothing. */
uint64_t net_dropped(const struct net *net);

#endif

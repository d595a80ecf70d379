/* See socket_owner.h. If it is ours, one of our descriptors has the connection's two ports the
 * other way round. (The kernel's lists of all sockets would tell as well, but are long on a machine
 * that does other things, and a proxy has no time.) */
#include "fault/socket_owner.h"

#include <dirent.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

struct ports {
    in_port_t own, other;
};

/* gRPC's sockets are of IPv6, also on the way to 127.0.0.1. */
static in_port_t port_of(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET) {
        return ((const struct sockaddr_in *)address)->sin_port;
    }
    if (address->ss_family == AF_INET6) {
        return ((const struct sockaddr_in6 *)address)->sin6_port;
    }
    return 0;
}

/* False for what is no connected socket; another thread may close it meanwhile. */
static bool ports_of(int fd, struct ports *out)
{
    struct sockaddr_storage own, other;
    socklen_t own_size = sizeof own, other_size = sizeof other;
    if (getsockname(fd, (struct sockaddr *)&own, &own_size) != 0 ||
        getpeername(fd, (struct sockaddr *)&other, &other_size) != 0) {
        return false;
    }
    *out = (struct ports){port_of(&own), port_of(&other)};
    return out->own != 0 && out->other != 0;
}

bool socket_peer_is_ours(int accepted)
{
    struct ports wanted, ports;
    DIR *dir = ports_of(accepted, &wanted) ? opendir("/proc/self/fd") : NULL;
    if (dir == NULL) {
        return false;
    }
    bool ours = false;
    for (const struct dirent *entry; !ours && (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] != '.') {
            ours = ports_of((int)strtol(entry->d_name, NULL, 10), &ports) &&
                   ports.own == wanted.other && ports.other == wanted.own;
        }
    }
    closedir(dir);
    return ours;
}

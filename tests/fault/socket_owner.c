/* See socket_owner.h. The kernel tells the inode of each socket's port, and of each of our own
 * descriptors. */
#include "fault/socket_owner.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* 127.0.0.1 as these files write it, alone and at the end of ::ffff:127.0.0.1: gRPC's sockets are
 * of IPv6. */
static bool is_loopback(const char *address)
{
    static const char loopback[] = "0100007F";
    size_t size = strlen(address), tail = sizeof loopback - 1;
    return size >= tail && strcmp(address + size - tail, loopback) == 0;
}

/* 0: no such socket. */
static uint64_t inode_of_port(const char *path, uint16_t local_port)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    char line[512], address[64];
    uint64_t found = 0;
    while (found == 0 && fgets(line, sizeof line, file) != NULL) {
        unsigned port;
        uint64_t inode;
        /* sl local_address rem_address st queues tr tm->when retrnsmt uid timeout inode */
        if (sscanf(line, " %*d: %63[0-9A-F]:%x %*s %*x %*s %*s %*s %*u %*u %" SCNu64, address,
                   &port, &inode) == 3 &&
            port == local_port && is_loopback(address)) {
            found = inode;
        }
    }
    fclose(file);
    return found;
}

bool socket_is_ours(uint16_t local_port)
{
    uint64_t inode = inode_of_port("/proc/thread-self/net/tcp6", local_port);
    if (inode == 0) {
        inode = inode_of_port("/proc/thread-self/net/tcp", local_port);
    }
    DIR *dir = inode != 0 ? opendir("/proc/self/fd") : NULL;
    if (dir == NULL) {
        return false;
    }
    char wanted[48];
    int size = snprintf(wanted, sizeof wanted, "socket:[%" PRIu64 "]", inode);
    bool ours = false;
    for (const struct dirent *entry; !ours && (entry = readdir(dir)) != NULL;) {
        char target[64];
        ssize_t got = readlinkat(dirfd(dir), entry->d_name, target, sizeof target);
        ours = got == size && memcmp(target, wanted, (size_t)size) == 0;
    }
    closedir(dir);
    return ours;
}

/* See harness_net.h. The work is done by `ip` and `nft`, each run in the namespace it is to change.
 */
#include "cluster/harness_net.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "cluster/harness.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SCRIPT_BYTES = 4096, PROGRAM_SECONDS = 20 };

struct net {
    uint32_t node_count;
    int ns_fds[NET_NODES_MAX];
    /* As asked for. */
    bool cut[NET_NODES_MAX][NET_NODES_MAX]; /* from, to */
    uint32_t loss_per_mille;
    bool changed;
};

/* In the test's namespace, where the bridge is. The chain `rules` is written anew with every
 * change, and the counter with it. */
static const char *const nft_table = "table bridge fault {\n"
                                     "  counter dropped { }\n"
                                     "  set cut { type ipv4_addr . ipv4_addr; }\n"
                                     "  chain rules { }\n"
                                     "  chain forward {\n"
                                     "    type filter hook forward priority 0; policy accept;\n"
                                     "    jump rules\n"
                                     "  }\n"
                                     "}\n";

__attribute__((format(printf, 1, 2))) static _Noreturn void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("harness_net: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static int open_own_namespace(void)
{
    return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
}

bool net_enter(const struct net *net, uint32_t node)
{
    ASSERT(node < net->node_count);
    return setns(net->ns_fds[node], CLONE_NEWNET) == 0;
}

/* Runs argv with `script` as its standard input in the namespace `ns_fd` (-1: the caller's). Its
 * exit code; its standard output is appended to `out` (NULL: dropped). */
static int run_in(int ns_fd, char *const argv[], const char *script, struct buf *out)
{
    FILE *input = tmpfile();
    if (input == NULL || fputs(script, input) < 0 || fflush(input) != 0) {
        give_up("temporary file: %s", strerror(errno));
    }
    rewind(input);
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
        give_up("pipe: %s", strerror(errno));
    }
    pid_t pid = fork();
    if (pid < 0) {
        give_up("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        alarm(
            PROGRAM_SECONDS); /* kept by exec: a program that hangs ends the test with a message */
        dup2(fileno(input), STDIN_FILENO);
        dup2(pipe_fds[1], STDOUT_FILENO);
        if (ns_fd >= 0 && setns(ns_fd, CLONE_NEWNET) != 0) {
            _exit(126);
        }
        execvp(argv[0], argv);
        _exit(127);
    }
    fclose(input);
    close(pipe_fds[1]);
    uint8_t chunk[1024];
    for (ssize_t got; (got = read(pipe_fds[0], chunk, sizeof chunk)) > 0;) {
        if (out != NULL) {
            buf_append(out, chunk, (size_t)got);
        }
    }
    close(pipe_fds[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_ip(int ns_fd, const char *script)
{
    return run_in(ns_fd, (char *[]){"ip", "-batch", "-", NULL}, script, NULL);
}

static int run_nft(const char *script)
{
    return run_in(-1, (char *[]){"nft", "-f", "-", NULL}, script, NULL);
}

/* ---- is it possible? ---- */

enum { TRY_GOOD, TRY_NO_UNSHARE, TRY_NO_IP, TRY_NO_BRIDGE, TRY_NO_NFT, TRY_NO_RULES };

/* In a child, for there is no way back from a namespace. */
static int try_all(void)
{
    if (unshare(CLONE_NEWNET) != 0) {
        return TRY_NO_UNSHARE;
    }
    int code = run_ip(-1, "link set lo up\n");
    if (code != 0) {
        return TRY_NO_IP;
    }
    if (run_ip(-1, "link add br0 type bridge\nlink add v1 type veth peer name v2\n") != 0) {
        return TRY_NO_BRIDGE;
    }
    code = run_nft(nft_table);
    if (code == 127) {
        return TRY_NO_NFT;
    }
    return code == 0 ? TRY_GOOD : TRY_NO_RULES;
}

bool net_is_possible(char *why, size_t why_size)
{
    static const char *const reasons[] = {
        [TRY_NO_UNSHARE] = "no network namespaces without root (CAP_SYS_ADMIN)",
        [TRY_NO_IP] = "no `ip` (package iproute2), or it cannot change a new namespace",
        [TRY_NO_BRIDGE] = "the kernel has no bridges or veth pairs here",
        [TRY_NO_NFT] = "no `nft` (package nftables)",
        [TRY_NO_RULES] = "the kernel takes no nftables rules here",
    };
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        give_up("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(null_fd, STDERR_FILENO); /* what they complain about is told as the reason */
        _exit(try_all());
    }
    int status = 0;
    waitpid(pid, &status, 0);
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : TRY_NO_UNSHARE;
    if (code != TRY_GOOD) {
        snprintf(why, why_size, "%s", code <= TRY_NO_RULES ? reasons[code] : "an unknown failure");
    }
    return code == TRY_GOOD;
}

/* ---- nodes ---- */

void net_address(uint32_t node, char out[NET_ADDRESS_BYTES])
{
    ASSERT(node < NET_NODES_MAX);
    snprintf(out, NET_ADDRESS_BYTES, "10.77.0.%u", node + 1);
}

struct net *net_create(void)
{
    struct net *net = mem_calloc(1, sizeof *net);
    if (unshare(CLONE_NEWNET) != 0) {
        give_up("unshare: %s", strerror(errno));
    }
    net->ns_fds[NET_HUB] = open_own_namespace();
    net->node_count = 1;
    char address[NET_ADDRESS_BYTES], script[SCRIPT_BYTES];
    net_address(NET_HUB, address);
    snprintf(script, sizeof script,
             "link set lo up\n"
             "link add br0 type bridge\n"
             "addr add %s/24 dev br0\n"
             "link set br0 up\n",
             address);
    if (net->ns_fds[NET_HUB] < 0 || run_ip(-1, script) != 0 || run_nft(nft_table) != 0) {
        give_up("the test's own namespace cannot be set up");
    }
    return net;
}

void net_destroy(struct net *net)
{
    if (net == NULL) {
        return;
    }
    for (uint32_t i = 0; i < net->node_count; i++) {
        close(net->ns_fds[i]);
    }
    free(net);
}

/* The calling thread visits the new namespace to open it and comes back. */
static int make_namespace(const struct net *net)
{
    if (unshare(CLONE_NEWNET) != 0) {
        give_up("unshare: %s", strerror(errno));
    }
    int ns_fd = open_own_namespace();
    if (ns_fd < 0 || setns(net->ns_fds[NET_HUB], CLONE_NEWNET) != 0) {
        give_up("setns: %s", strerror(errno));
    }
    return ns_fd;
}

uint32_t net_add_node(struct net *net)
{
    ASSERT(net->node_count < NET_NODES_MAX);
    uint32_t node = net->node_count++;
    int ns_fd = make_namespace(net);
    net->ns_fds[node] = ns_fd;
    char address[NET_ADDRESS_BYTES], script[SCRIPT_BYTES];
    net_address(node, address);
    snprintf(script, sizeof script,
             "link add v%u type veth peer name eth0 netns /proc/%d/fd/%d\n"
             "link set v%u master br0\n"
             "link set v%u up\n",
             node, (int)getpid(), ns_fd, node, node);
    if (run_ip(-1, script) != 0) {
        give_up("the link of node %u cannot be made", node);
    }
    snprintf(script, sizeof script,
             "link set lo up\n"
             "addr add %s/24 dev eth0\n"
             "link set eth0 up\n",
             address);
    if (run_ip(ns_fd, script) != 0) {
        give_up("node %u cannot be set up", node);
    }
    return node;
}

/* ---- faults ---- */

void net_cut(struct net *net, uint32_t from, uint32_t to)
{
    ASSERT(from != NET_HUB && from < net->node_count);
    ASSERT(to != NET_HUB && to < net->node_count && to != from);
    net->changed = net->changed || !net->cut[from][to];
    net->cut[from][to] = true;
}

void net_cut_both(struct net *net, uint32_t a, uint32_t b)
{
    net_cut(net, a, b);
    net_cut(net, b, a);
}

void net_set_loss(struct net *net, uint32_t per_mille)
{
    ASSERT(per_mille <= 1000);
    net->changed = net->changed || net->loss_per_mille != per_mille;
    net->loss_per_mille = per_mille;
}

void net_heal(struct net *net)
{
    net_set_loss(net, 0);
    for (uint32_t from = 0; from < net->node_count; from++) {
        for (uint32_t to = 0; to < net->node_count; to++) {
            net->changed = net->changed || net->cut[from][to];
            net->cut[from][to] = false;
        }
    }
}

/* What one file of nft says happens at once or not at all. */
void net_apply(struct net *net)
{
    if (!net->changed) {
        return;
    }
    struct buf script;
    buf_init(&script);
    buf_printf(&script, "flush chain bridge fault rules\n"
                        "delete counter bridge fault dropped\n"
                        "add counter bridge fault dropped\n"
                        "flush set bridge fault cut\n"
                        "add rule bridge fault rules ip saddr . ip daddr @cut "
                        "counter name dropped drop\n");
    for (uint32_t from = 0; from < net->node_count; from++) {
        for (uint32_t to = 0; to < net->node_count; to++) {
            if (net->cut[from][to]) {
                char source[NET_ADDRESS_BYTES], target[NET_ADDRESS_BYTES];
                net_address(from, source);
                net_address(to, target);
                buf_printf(&script, "add element bridge fault cut { %s . %s }\n", source, target);
            }
        }
    }
    if (net->loss_per_mille > 0) {
        buf_printf(&script,
                   "add rule bridge fault rules ip protocol tcp numgen random mod 1000 < %u "
                   "counter name dropped drop\n",
                   net->loss_per_mille);
    }
    buf_append(&script, "", 1);
    if (run_nft((const char *)script.data) != 0) {
        give_up("the rules cannot be changed:\n%s", (const char *)script.data);
    }
    buf_deinit(&script);
    net->changed = false;
}

uint64_t net_dropped(const struct net *net)
{
    (void)net;
    struct buf out;
    buf_init(&out);
    int code = run_in(-1, (char *[]){"nft", "list", "counters", NULL}, "", &out);
    buf_append(&out, "", 1);
    const char *at = strstr((const char *)out.data, "packets ");
    if (code != 0 || at == NULL) {
        give_up("the counter cannot be read");
    }
    uint64_t packets = strtoull(at + strlen("packets "), NULL, 10);
    buf_deinit(&out);
    return packets;
}

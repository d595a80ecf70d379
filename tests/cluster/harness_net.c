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

struct net_node {
    int ns_fd;
    bool cut_from[NET_NODES_MAX]; /* as asked for */
    bool changed;
};

struct net {
    uint32_t node_count;
    uint32_t loss_per_mille;
    struct net_node nodes[NET_NODES_MAX];
};

/* One table: counters survive the changes of its sets. */
static const char *const nft_table = "table ip fault {\n"
                                     "  counter dropped { }\n"
                                     "  set cut { type ipv4_addr; }\n"
                                     "  set lossy { type ipv4_addr; }\n"
                                     "  chain loss { }\n"
                                     "  chain input {\n"
                                     "    type filter hook input priority 0; policy accept;\n"
                                     "    ip saddr @cut counter name dropped drop\n"
                                     "    ip saddr @lossy jump loss\n"
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
    return setns(net->nodes[node].ns_fd, CLONE_NEWNET) == 0;
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

static int run_nft(int ns_fd, const char *script)
{
    return run_in(ns_fd, (char *[]){"nft", "-f", "-", NULL}, script, NULL);
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
    code = run_nft(-1, nft_table);
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
    net->nodes[NET_HUB].ns_fd = open_own_namespace();
    net->node_count = 1;
    char address[NET_ADDRESS_BYTES], script[SCRIPT_BYTES];
    net_address(NET_HUB, address);
    snprintf(script, sizeof script,
             "link set lo up\n"
             "link add br0 type bridge\n"
             "addr add %s/24 dev br0\n"
             "link set br0 up\n",
             address);
    if (net->nodes[NET_HUB].ns_fd < 0 || run_ip(-1, script) != 0 || run_nft(-1, nft_table) != 0) {
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
        close(net->nodes[i].ns_fd);
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
    if (ns_fd < 0 || setns(net->nodes[NET_HUB].ns_fd, CLONE_NEWNET) != 0) {
        give_up("setns: %s", strerror(errno));
    }
    return ns_fd;
}

uint32_t net_add_node(struct net *net)
{
    ASSERT(net->node_count < NET_NODES_MAX);
    uint32_t node = net->node_count++;
    int ns_fd = make_namespace(net);
    net->nodes[node].ns_fd = ns_fd;
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
    if (run_ip(ns_fd, script) != 0 || run_nft(ns_fd, nft_table) != 0) {
        give_up("node %u cannot be set up", node);
    }
    net->nodes[node].changed = net->loss_per_mille > 0;
    return node;
}

/* ---- faults ---- */

void net_cut(struct net *net, uint32_t from, uint32_t to)
{
    ASSERT(from < net->node_count && to < net->node_count && from != to);
    struct net_node *node = &net->nodes[to];
    node->changed = node->changed || !node->cut_from[from];
    node->cut_from[from] = true;
}

void net_cut_both(struct net *net, uint32_t a, uint32_t b)
{
    net_cut(net, a, b);
    net_cut(net, b, a);
}

void net_set_loss(struct net *net, uint32_t per_mille)
{
    ASSERT(per_mille <= 1000);
    for (uint32_t i = 1; i < net->node_count; i++) {
        net->nodes[i].changed = net->nodes[i].changed || net->loss_per_mille != per_mille;
    }
    net->loss_per_mille = per_mille;
}

void net_heal(struct net *net)
{
    net_set_loss(net, 0);
    for (uint32_t i = 0; i < net->node_count; i++) {
        struct net_node *node = &net->nodes[i];
        for (uint32_t from = 0; from < net->node_count; from++) {
            node->changed = node->changed || node->cut_from[from];
            node->cut_from[from] = false;
        }
    }
}

static void add_element(struct buf *script, const char *set, uint32_t node)
{
    char address[NET_ADDRESS_BYTES], line[96];
    net_address(node, address);
    int size = snprintf(line, sizeof line, "add element ip fault %s { %s }\n", set, address);
    buf_append(script, line, (size_t)size);
}

static void append_text(struct buf *script, const char *text)
{
    buf_append(script, text, strlen(text));
}

/* A file of nft is one transaction. */
static void apply_node(const struct net *net, uint32_t to)
{
    const struct net_node *node = &net->nodes[to];
    struct buf script;
    buf_init(&script);
    append_text(&script, "flush set ip fault cut\nflush set ip fault lossy\n"
                         "flush chain ip fault loss\n");
    for (uint32_t from = 0; from < net->node_count; from++) {
        if (node->cut_from[from]) {
            add_element(&script, "cut", from);
        }
    }
    if (net->loss_per_mille > 0 && to != NET_HUB) {
        char rule[160];
        snprintf(rule, sizeof rule,
                 "add rule ip fault loss numgen random mod 1000 < %u counter name dropped drop\n",
                 net->loss_per_mille);
        append_text(&script, rule);
        for (uint32_t from = 1; from < net->node_count; from++) {
            add_element(&script, "lossy", from);
        }
    }
    buf_append(&script, "", 1);
    if (run_nft(node->ns_fd, (const char *)script.data) != 0) {
        give_up("the rules of node %u cannot be changed:\n%s", to, (const char *)script.data);
    }
    buf_deinit(&script);
}

void net_apply(struct net *net)
{
    for (uint32_t i = 0; i < net->node_count; i++) {
        if (net->nodes[i].changed) {
            apply_node(net, i);
            net->nodes[i].changed = false;
        }
    }
}

uint64_t net_dropped(const struct net *net)
{
    uint64_t packets = 0;
    for (uint32_t i = 0; i < net->node_count; i++) {
        struct buf out;
        buf_init(&out);
        int code =
            run_in(net->nodes[i].ns_fd, (char *[]){"nft", "list", "counters", NULL}, "", &out);
        buf_append(&out, "", 1);
        const char *at = strstr((const char *)out.data, "packets ");
        if (code != 0 || at == NULL) {
            give_up("the counter of node %u cannot be read", i);
        }
        packets += strtoull(at + strlen("packets "), NULL, 10);
        buf_deinit(&out);
    }
    return packets;
}

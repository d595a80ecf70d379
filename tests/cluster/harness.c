/* See harness.h. */
#include "cluster/harness.h"

#include "base/assert.h"
#include "cluster/harness_net.h"
#include "rpc/rpc.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CTL_ARGUMENTS_MAX = 32 };

__attribute__((format(printf, 1, 2))) static _Noreturn void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("harness: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

double now_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void pause_ms(long ms)
{
    struct timespec wait = {ms / 1000, (ms % 1000) * 1000000L};
    nanosleep(&wait, NULL);
}

bool wait_until(bool (*condition)(void *context), void *context, double seconds)
{
    double deadline = now_seconds() + seconds;
    while (!condition(context)) {
        if (now_seconds() > deadline) {
            return false;
        }
        pause_ms(20);
    }
    return true;
}

/* Ports below the range the kernel gives to outgoing connections, so that none takes a port while
 * its process is down. */
static uint16_t pick_port(void)
{
    static uint32_t next;
    if (next == 0) {
        next = 15000 + ((uint32_t)getpid() * 61u) % 16000u;
    }
    for (int attempt = 0; attempt < 4000; attempt++) {
        uint16_t port = (uint16_t)(15000 + (next++ - 15000) % 17000u);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons(port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int bound = bind(fd, (struct sockaddr *)&address, sizeof address);
        close(fd);
        if (bound == 0) {
            return port;
        }
    }
    give_up("no free port");
}

static struct process *add_process(struct cluster *cluster, uint64_t group, uint32_t id)
{
    ASSERT(cluster->process_count < CLUSTER_PROCESSES_MAX);
    struct process *process = &cluster->processes[cluster->process_count++];
    *process = (struct process){.group = group, .id = id, .port = pick_port()};
    process->front = process->port;
    if (cluster->network.front != NULL) {
        process->front = cluster->network.front(cluster->network.context, process->port);
    }
    process->node = cluster->net != NULL ? net_add_node(cluster->net) : 0;
    return process;
}

static void address_of(const struct process *process, uint16_t port,
                       char out[PROCESS_ADDRESS_BYTES])
{
    char host[NET_ADDRESS_BYTES] = "127.0.0.1";
    if (process->node != 0) {
        net_address(process->node, host);
    }
    snprintf(out, PROCESS_ADDRESS_BYTES, "%s:%u", host, port);
}

void process_address(const struct process *process, char out[PROCESS_ADDRESS_BYTES])
{
    address_of(process, process->front, out);
}

void process_own_address(const struct process *process, char out[PROCESS_ADDRESS_BYTES])
{
    address_of(process, process->port, out);
}

/* The group's addresses; as peers each behind "ID=", and only those the group started with. */
static void list_group(const struct cluster *cluster, uint64_t group, bool as_peers, char *out,
                       size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        const struct process *process = &cluster->processes[i];
        if (process->group != group || (as_peers && process->later)) {
            continue;
        }
        char id[16] = "", address[PROCESS_ADDRESS_BYTES];
        if (as_peers) {
            snprintf(id, sizeof id, "%u=", process->id);
        }
        process_address(process, address);
        used +=
            (size_t)snprintf(out + used, size - used, "%s%s%s", used > 0 ? "," : "", id, address);
        ASSERT(used < size);
    }
}

struct place { /* where a child runs; NULL net: where we are */
    const struct net *net;
    uint32_t node;
};

/* The child dies with the test program, so that nothing is left over when a test is killed. */
static pid_t spawn_at(struct place place, char *const argv[], char *const environment[], int out_fd,
                      int err_fd)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        give_up("fork: %s", strerror(errno));
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) {
            _exit(127);
        }
        dup2(out_fd, STDOUT_FILENO);
        dup2(err_fd, STDERR_FILENO);
        if (place.net != NULL && !net_enter(place.net, place.node)) {
            _exit(127);
        }
        execve(argv[0], argv, environment);
        _exit(127);
    }
    return pid;
}

static pid_t spawn(char *const argv[], int out_fd, int err_fd)
{
    return spawn_at((struct place){NULL, 0}, argv, environ, out_fd, err_fd);
}

void process_data_dir(const struct cluster *cluster, const struct process *process, char *out,
                      size_t size)
{
    snprintf(out, size, "%s/g%llu-%u",
             process->data_root != NULL ? process->data_root : cluster->dir,
             (unsigned long long)process->group, process->id);
}

/* Ours and the process's own, which come first: the first of a name is the one that counts. */
static char **environment_of(const struct process *process)
{
    size_t own = 0, ours = 0;
    while (process->environment[own] != NULL) {
        own++;
    }
    while (environ[ours] != NULL) {
        ours++;
    }
    char **all = mem_calloc(own + ours + 1, sizeof all[0]);
    for (size_t i = 0; i < own; i++) {
        all[i] = (char *)process->environment[i];
    }
    for (size_t i = 0; i < ours; i++) {
        all[own + i] = environ[i];
    }
    return all;
}

void process_start(struct cluster *cluster, struct process *process)
{
    ASSERT(process->pid == 0);
    char program[1100], group[24], id[16], listen[PROCESS_ADDRESS_BYTES], peers[512], data[320],
        shards[16], log[340];
    bool controller = process->group == 0;
    snprintf(program, sizeof program, "%s/%s", cluster->bin_dir,
             controller ? "shardctrler" : "shardkv");
    snprintf(group, sizeof group, "%llu", (unsigned long long)process->group);
    snprintf(id, sizeof id, "%u", process->id);
    process_own_address(process, listen);
    snprintf(shards, sizeof shards, "%u", cluster->shard_count);
    process_data_dir(cluster, process, data, sizeof data);
    snprintf(log, sizeof log, "%s/g%s-%s.log", cluster->dir, group, id);
    list_group(cluster, process->group, true, peers, sizeof peers);

    char *argv[16 + PROCESS_ARGUMENTS_MAX] = {program, "--cluster", cluster->name, "--id", id};
    size_t count = 5;
    argv[count++] = "--listen";
    argv[count++] = listen;
    argv[count++] = "--data";
    argv[count++] = data;
    if (!process->later) {
        argv[count++] = "--peers";
        argv[count++] = peers;
    }
    if (controller) {
        argv[count++] = "--shards";
        argv[count++] = shards;
    } else {
        argv[count++] = "--group";
        argv[count++] = group;
        argv[count++] = "--controllers";
        argv[count++] = cluster->controllers;
    }
    for (size_t i = 0; process->arguments[i] != NULL; i++) {
        argv[count++] = (char *)process->arguments[i];
    }
    argv[count] = NULL;

    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd < 0) {
        give_up("open %s: %s", log, strerror(errno));
    }
    char **environment = environment_of(process);
    process->pid = spawn_at((struct place){cluster->net, process->node}, argv, environment, fd, fd);
    free(environment);
    process->starts++;
    close(fd);
}

bool process_is_running(struct process *process)
{
    if (process->pid != 0 && waitpid(process->pid, &process->status, WNOHANG) == process->pid) {
        process->pid = 0;
    }
    return process->pid != 0;
}

void process_signal(struct process *process, int signal)
{
    ASSERT(process->pid != 0);
    kill(process->pid, signal);
}

void process_kill(struct process *process)
{
    if (process->pid != 0) {
        kill(process->pid, SIGKILL);
        waitpid(process->pid, &process->status, 0);
        process->pid = 0;
    }
}

bool process_stop(struct process *process, double seconds)
{
    ASSERT(process->pid != 0);
    kill(process->pid, SIGTERM);
    double deadline = now_seconds() + seconds;
    while (waitpid(process->pid, &process->status, WNOHANG) == 0) {
        if (now_seconds() > deadline) {
            process_kill(process);
            return false;
        }
        pause_ms(10);
    }
    process->pid = 0;
    return WIFEXITED(process->status) && WEXITSTATUS(process->status) == 0;
}

struct process *cluster_find(struct cluster *cluster, uint64_t group, uint32_t id)
{
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        if (cluster->processes[i].group == group && cluster->processes[i].id == id) {
            return &cluster->processes[i];
        }
    }
    return NULL;
}

void cluster_prepare_with(struct cluster *cluster, const char *name, uint32_t shard_count,
                          const struct cluster_network *network)
{
    memset(cluster, 0, sizeof *cluster);
    cluster->network = *network;
    const char *bin_dir = getenv("SHARDKV_BIN_DIR");
    if (bin_dir == NULL || bin_dir[0] == '\0') {
        give_up("SHARDKV_BIN_DIR must name the folder with shardctrler, shardkv and shardctl");
    }
    snprintf(cluster->bin_dir, sizeof cluster->bin_dir, "%s", bin_dir);
    snprintf(cluster->name, sizeof cluster->name, "%s", name);
    cluster->shard_count = shard_count;
    const char *tmp = getenv("TMPDIR");
    snprintf(cluster->dir, sizeof cluster->dir, "%s/shardkv-%s-XXXXXX", tmp != NULL ? tmp : "/tmp",
             name);
    if (mkdtemp(cluster->dir) == NULL) {
        give_up("mkdtemp %s: %s", cluster->dir, strerror(errno));
    }
    if (network->own) {
        ASSERT(network->front == NULL);
        cluster->net = net_create();
    }
    cluster_add_group(cluster, 0);
    list_group(cluster, 0, false, cluster->controllers, sizeof cluster->controllers);
}

void cluster_prepare(struct cluster *cluster, const char *name, uint32_t shard_count)
{
    cluster_prepare_with(cluster, name, shard_count, &(struct cluster_network){0});
}

void cluster_create(struct cluster *cluster, const char *name, uint32_t shard_count)
{
    cluster_prepare(cluster, name, shard_count);
    cluster_start_group(cluster, 0);
}

void cluster_add_group_of(struct cluster *cluster, uint64_t group, uint32_t replicas)
{
    for (uint32_t id = 1; id <= replicas; id++) {
        add_process(cluster, group, id);
    }
}

void cluster_add_group(struct cluster *cluster, uint64_t group)
{
    cluster_add_group_of(cluster, group, CLUSTER_REPLICAS);
}

void cluster_replace(struct cluster *cluster, struct process *process, uint32_t id)
{
    process_kill(process);
    process->id = id;
    process->later = true;
    process_start(cluster, process);
}

struct process *cluster_add_replica(struct cluster *cluster, uint64_t group, uint32_t id)
{
    struct process *process = add_process(cluster, group, id);
    process->later = true;
    process_start(cluster, process);
    return process;
}

static bool has_group(const struct cluster *cluster, uint64_t group)
{
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        if (cluster->processes[i].group == group) {
            return true;
        }
    }
    return false;
}

void cluster_start_group(struct cluster *cluster, uint64_t group)
{
    if (!has_group(cluster, group)) {
        cluster_add_group(cluster, group);
    }
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        if (cluster->processes[i].group == group && cluster->processes[i].pid == 0) {
            process_start(cluster, &cluster->processes[i]);
        }
    }
}

void cluster_destroy(struct cluster *cluster)
{
    if (cluster->rpc != NULL) {
        rpc_destroy(cluster->rpc);
        cluster->rpc = NULL;
    }
    for (uint32_t i = 0; i < cluster->process_count; i++) {
        process_kill(&cluster->processes[i]);
    }
    net_destroy(cluster->net);
    cluster->net = NULL;
    if (cluster->keep) {
        fprintf(stderr, "harness: logs and data are kept in %s\n", cluster->dir);
        return;
    }
    char *argv[] = {"/bin/rm", "-rf", cluster->dir, NULL};
    pid_t pid = spawn(argv, STDOUT_FILENO, STDERR_FILENO);
    waitpid(pid, NULL, 0);
}

void cluster_group_spec(const struct cluster *cluster, uint64_t group, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "%llu=", (unsigned long long)group);
    ASSERT(used < size);
    list_group(cluster, group, false, out + used, size - used);
}

/* ---- shardctl
 * ------------------------------------------------------------------------------------------- */

int program_run(char *const argv[], double seconds, struct buf *out)
{
    int pipe_fds[2];
    if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
        give_up("pipe: %s", strerror(errno));
    }
    pid_t pid = spawn(argv, pipe_fds[1], STDERR_FILENO);
    close(pipe_fds[1]);

    double deadline = now_seconds() + seconds;
    bool late = false;
    for (;;) {
        double left = deadline - now_seconds();
        struct pollfd poll_fd = {.fd = pipe_fds[0], .events = POLLIN};
        if (left <= 0 || poll(&poll_fd, 1, (int)(left * 1000) + 1) == 0) {
            late = true;
            kill(pid, SIGKILL);
            break;
        }
        uint8_t chunk[4096];
        ssize_t got = read(pipe_fds[0], chunk, sizeof chunk);
        if (got <= 0) {
            break;
        }
        if (out != NULL) {
            buf_append(out, chunk, (size_t)got);
        } else {
            fwrite(chunk, 1, (size_t)got, stdout);
        }
    }
    close(pipe_fds[0]);
    int status = 0;
    waitpid(pid, &status, 0);
    return !late && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_ctl(const struct cluster *cluster, double seconds, bool json, struct buf *out,
                   va_list arguments)
{
    char program[1100];
    snprintf(program, sizeof program, "%s/shardctl", cluster->bin_dir);
    char *argv[CTL_ARGUMENTS_MAX + 8] = {program, "--controllers", (char *)cluster->controllers,
                                         "--cluster", (char *)cluster->name};
    size_t count = 5;
    if (json) {
        argv[count++] = "--json";
    }
    for (const char *argument; (argument = va_arg(arguments, const char *)) != NULL;) {
        ASSERT(count < CTL_ARGUMENTS_MAX + 7);
        argv[count++] = (char *)argument;
    }
    argv[count] = NULL;
    return program_run(argv, seconds, out);
}

int cluster_ctl(const struct cluster *cluster, double seconds, struct buf *out, ...)
{
    va_list arguments;
    va_start(arguments, out);
    int code = run_ctl(cluster, seconds, false, out, arguments);
    va_end(arguments);
    return code;
}

json_t *cluster_ctl_json(const struct cluster *cluster, double seconds, int *exit_code, ...)
{
    struct buf out;
    buf_init(&out);
    va_list arguments;
    va_start(arguments, exit_code);
    int code = run_ctl(cluster, seconds, true, &out, arguments);
    va_end(arguments);
    if (exit_code != NULL) {
        *exit_code = code;
    }
    json_t *json = json_loadb((const char *)out.data, out.size, 0, NULL);
    buf_deinit(&out);
    return json;
}

bool process_usage(const struct process *process, uint64_t *resident_bytes, double *cpu_seconds)
{
    char path[64], line[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process->pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    char *got = fgets(line, sizeof line, file);
    fclose(file);
    char *after_name = got != NULL ? strrchr(line, ')') : NULL;
    if (after_name == NULL) {
        return false;
    }
    unsigned long user = 0, system = 0;
    long resident_pages = 0;
    /* Fields 14, 15 and 24 of proc(5), counted from the state after the name. */
    if (sscanf(
            after_name + 2,
            "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u "
            "%ld",
            &user, &system, &resident_pages) != 3) {
        return false;
    }
    *resident_bytes = (uint64_t)resident_pages * (uint64_t)sysconf(_SC_PAGESIZE);
    *cpu_seconds = (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
    return true;
}

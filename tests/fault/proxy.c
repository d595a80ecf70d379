/* See proxy.h. One thread, epoll, level-triggered.
 *
 *     who connected  --[ request: chunks with their due times ]-->  server
 *                    <--[ reply:  chunks with their due times ]--
 *
 * A link is a pair of sockets and two flows. A flow that holds FLOW_BYTES_MAX is not read on, so
 * memory is bounded and the sender feels it. A reset is a close with unsent data thrown away
 * (SO_LINGER 0), which the other end sees as ECONNRESET. Lock: `lock` guards fronts, faults and
 * counts; links and their flows are the thread's own. */
#include "fault/proxy.h"

#include "base/assert.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/rng.h"
#include "fault/socket_owner.h"
#include "lib/suite.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FRONTS_MAX = 64,
    LINKS_MAX = 512,
    CHUNK_BYTES_MAX = 32 * 1024,
    FLOW_BYTES_MAX = 1024 * 1024,
    EVENTS_MAX = 64,
    PER_10000 = 10000,
};

struct chunk {
    struct chunk *next;
    uint64_t due_ns;
    size_t size, sent;
    uint8_t data[];
};

struct flow {
    struct chunk *first, *last;
    size_t bytes;
    bool ended;  /* no more to be read */
    bool closed; /* the end was passed on */
};

struct link {
    int fds[2]; /* who connected; the server. -1: the slot is free */
    struct flow flows[2];
    uint32_t interest[2]; /* as epoll was told */
    enum proxy_side side;
    uint64_t silent_until_ns; /* 0: not half-open */
};

struct front {
    int fd;
    uint16_t target;
};

struct proxy {
    pthread_t thread;
    pthread_mutex_t lock;
    struct front fronts[FRONTS_MAX];
    uint32_t front_count;
    struct proxy_faults faults[PROXY_SIDES];
    struct proxy_counts counts[PROXY_SIDES];
    struct rng rng;
    atomic_bool stop;
    int epoll_fd, wake_fd;
    struct link links[LINKS_MAX];
};

/* What epoll tells an event by. */
enum { TAG_WAKE, TAG_FRONT, TAG_LINK };
static uint64_t tag(uint32_t kind, uint32_t index, uint32_t end)
{
    return (uint64_t)kind << 48 | (uint64_t)end << 32 | index;
}

static uint64_t now_ns(void)
{
    return clock_now_ns(clock_system());
}

static bool happens(struct proxy *proxy, uint32_t per_10000)
{
    return per_10000 > 0 && rng_chance(&proxy->rng, per_10000, PER_10000);
}

static struct proxy_faults faults_of(struct proxy *proxy, enum proxy_side side)
{
    pthread_mutex_lock(&proxy->lock);
    struct proxy_faults faults = proxy->faults[side];
    pthread_mutex_unlock(&proxy->lock);
    return faults;
}

static void count_one(struct proxy *proxy, uint64_t *counter)
{
    pthread_mutex_lock(&proxy->lock);
    (*counter)++;
    pthread_mutex_unlock(&proxy->lock);
}

/* ---- links ---- */

static void flow_clear(struct flow *flow)
{
    while (flow->first != NULL) {
        struct chunk *next = flow->first->next;
        free(flow->first);
        flow->first = next;
    }
    *flow = (struct flow){0};
}

static void link_close(struct link *link, bool reset)
{
    for (uint32_t end = 0; end < 2; end++) {
        if (reset) {
            struct linger linger = {.l_onoff = 1, .l_linger = 0};
            setsockopt(link->fds[end], SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        }
        close(link->fds[end]);
        link->fds[end] = -1;
        flow_clear(&link->flows[end]);
    }
}

static int connect_to(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

static uint32_t free_slot(const struct proxy *proxy)
{
    uint32_t slot = 0;
    while (slot < LINKS_MAX && proxy->links[slot].fds[0] >= 0) {
        slot++;
    }
    return slot;
}

static void accept_one(struct proxy *proxy, const struct front *front)
{
    int fd = accept4(front->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    uint32_t slot = free_slot(proxy);
    int server = slot < LINKS_MAX ? connect_to(front->target) : -1;
    struct link *link = slot < LINKS_MAX ? &proxy->links[slot] : NULL;
    if (server < 0) {
        struct linger linger = {.l_onoff = 1, .l_linger = 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
        close(fd);
        return;
    }
    *link = (struct link){.fds = {fd, server}};
    link->side = socket_peer_is_ours(fd) ? PROXY_CLIENTS : PROXY_SERVERS;
    for (uint32_t end = 0; end < 2; end++) {
        int one = 1;
        setsockopt(link->fds[end], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        link->interest[end] = EPOLLIN;
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag(TAG_LINK, slot, end)};
        CHECK_EQ(epoll_ctl(proxy->epoll_fd, EPOLL_CTL_ADD, link->fds[end], &event), 0);
    }
    count_one(proxy, &proxy->counts[link->side].connections);
}

/* False when the link was reset. `end`: where the chunk came from; 0 is who connected. */
static bool survives_chunk(struct proxy *proxy, struct link *link, uint32_t end,
                           const struct proxy_faults *faults)
{
    struct proxy_counts *counts = &proxy->counts[link->side];
    if (end == 0 && happens(proxy, faults->reset_before)) {
        count_one(proxy, &counts->reset_before);
        link_close(link, true);
        return false;
    }
    if (end == 1 && happens(proxy, faults->reset_reply)) {
        count_one(proxy, &counts->reset_reply);
        link_close(link, true);
        return false;
    }
    if (happens(proxy, faults->half_open)) {
        count_one(proxy, &counts->half_open);
        link->silent_until_ns = now_ns() + rng_between(&proxy->rng, NS_PER_S, 4 * NS_PER_S);
    }
    return true;
}

static void hold_chunk(struct proxy *proxy, struct link *link, uint32_t end, const uint8_t *data,
                       size_t size, uint32_t delay_us_max)
{
    struct flow *flow = &link->flows[end];
    struct chunk *chunk = mem_alloc(sizeof *chunk + size);
    *chunk = (struct chunk){.size = size, .due_ns = now_ns()};
    memcpy(chunk->data, data, size);
    if (delay_us_max > 0) {
        chunk->due_ns += rng_below(&proxy->rng, delay_us_max) * 1000;
        count_one(proxy, &proxy->counts[link->side].delayed);
    }
    if (flow->last != NULL && flow->last->due_ns > chunk->due_ns) {
        chunk->due_ns = flow->last->due_ns; /* a connection keeps its order */
    }
    *(flow->last != NULL ? &flow->last->next : &flow->first) = chunk;
    flow->last = chunk;
    flow->bytes += size;
}

static void read_end(struct proxy *proxy, struct link *link, uint32_t end)
{
    uint8_t data[CHUNK_BYTES_MAX];
    ssize_t got = recv(link->fds[end], data, sizeof data, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got < 0) {
        link_close(link, true); /* one side was reset: so is the other */
        return;
    }
    if (got == 0) {
        link->flows[end].ended = true;
        return;
    }
    struct proxy_faults faults = faults_of(proxy, link->side);
    if (!survives_chunk(proxy, link, end, &faults)) {
        return;
    }
    hold_chunk(proxy, link, end, data, (size_t)got, faults.delay_us_max);
}

/* Sends what is due. False when the link is gone. */
static bool pass_on(struct proxy *proxy, struct link *link, uint32_t end, uint64_t now)
{
    struct flow *flow = &link->flows[end];
    while (flow->first != NULL && flow->first->due_ns <= now) {
        struct chunk *chunk = flow->first;
        ssize_t sent = send(link->fds[1 - end], chunk->data + chunk->sent,
                            chunk->size - chunk->sent, MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            return true;
        }
        if (sent < 0) {
            link_close(link, true);
            return false;
        }
        chunk->sent += (size_t)sent;
        if (chunk->sent < chunk->size) {
            continue;
        }
        flow->first = chunk->next;
        flow->last = flow->first == NULL ? NULL : flow->last;
        flow->bytes -= chunk->size;
        free(chunk);
        if (end == 0 && happens(proxy, faults_of(proxy, link->side).reset_after)) {
            count_one(proxy, &proxy->counts[link->side].reset_after);
            link_close(link, true);
            return false;
        }
    }
    if (flow->ended && flow->first == NULL && !flow->closed) {
        flow->closed = true;
        shutdown(link->fds[1 - end], SHUT_WR);
    }
    return true;
}

static void watch_end(struct proxy *proxy, uint32_t slot, uint32_t end, uint64_t now)
{
    struct link *link = &proxy->links[slot];
    const struct flow *in = &link->flows[end], *out = &link->flows[1 - end];
    bool silent = link->silent_until_ns != 0;
    uint32_t interest = 0;
    if (!silent && !in->ended && in->bytes < FLOW_BYTES_MAX) {
        interest |= EPOLLIN;
    }
    if (!silent && out->first != NULL && out->first->due_ns <= now) {
        interest |= EPOLLOUT;
    }
    if (interest != link->interest[end]) {
        link->interest[end] = interest;
        struct epoll_event event = {.events = interest, .data.u64 = tag(TAG_LINK, slot, end)};
        CHECK_EQ(epoll_ctl(proxy->epoll_fd, EPOLL_CTL_MOD, link->fds[end], &event), 0);
    }
}

/* Moves what can be moved and says when there will be more to do by itself. */
static uint64_t tend_link(struct proxy *proxy, uint32_t slot, uint64_t now)
{
    struct link *link = &proxy->links[slot];
    if (link->silent_until_ns != 0 && now >= link->silent_until_ns) {
        link_close(link, true);
        return UINT64_MAX;
    }
    uint64_t next = link->silent_until_ns != 0 ? link->silent_until_ns : UINT64_MAX;
    for (uint32_t end = 0; end < 2 && link->silent_until_ns == 0; end++) {
        if (!pass_on(proxy, link, end, now)) {
            return UINT64_MAX;
        }
        const struct chunk *first = link->flows[end].first;
        if (first != NULL && first->due_ns > now && first->due_ns < next) {
            next = first->due_ns;
        }
    }
    if (link->flows[0].closed && link->flows[1].closed) {
        link_close(link, false);
        return UINT64_MAX;
    }
    for (uint32_t end = 0; end < 2; end++) {
        watch_end(proxy, slot, end, now);
    }
    return next;
}

static void handle_event(struct proxy *proxy, const struct epoll_event *event)
{
    uint32_t kind = (uint32_t)(event->data.u64 >> 48);
    uint32_t end = (uint32_t)(event->data.u64 >> 32) & 1u;
    uint32_t index = (uint32_t)event->data.u64;
    if (kind == TAG_WAKE) {
        return; /* only to look at `stop` */
    }
    if (kind == TAG_FRONT) {
        pthread_mutex_lock(&proxy->lock);
        struct front front = proxy->fronts[index];
        pthread_mutex_unlock(&proxy->lock);
        accept_one(proxy, &front);
        return;
    }
    struct link *link = &proxy->links[index];
    if (link->fds[0] < 0) {
        return; /* closed by an earlier event of this batch */
    }
    if ((event->events & EPOLLIN) != 0) {
        read_end(proxy, link, end); /* an error or the end is told there */
    } else if ((event->events & (EPOLLERR | EPOLLHUP)) != 0) {
        /* Told without being asked for, and again and again. */
        link_close(link, true);
    }
}

static void *run(void *context)
{
    struct proxy *proxy = context;
    while (!atomic_load(&proxy->stop)) {
        uint64_t now = now_ns(), next = UINT64_MAX;
        for (uint32_t slot = 0; slot < LINKS_MAX; slot++) {
            if (proxy->links[slot].fds[0] >= 0) {
                uint64_t due = tend_link(proxy, slot, now);
                next = due < next ? due : next;
            }
        }
        int timeout_ms = -1;
        if (next != UINT64_MAX) {
            timeout_ms = next > now ? (int)((next - now) / NS_PER_MS) + 1 : 0;
        }
        struct epoll_event events[EVENTS_MAX];
        int count = epoll_wait(proxy->epoll_fd, events, EVENTS_MAX, timeout_ms);
        for (int i = 0; i < count; i++) {
            handle_event(proxy, &events[i]);
        }
    }
    return NULL;
}

/* ---- from outside ---- */

struct proxy *proxy_create(uint64_t seed)
{
    struct proxy *proxy = mem_calloc(1, sizeof *proxy);
    for (uint32_t slot = 0; slot < LINKS_MAX; slot++) {
        proxy->links[slot].fds[0] = -1;
    }
    rng_init(&proxy->rng, seed);
    CHECK_EQ(pthread_mutex_init(&proxy->lock, NULL), 0);
    proxy->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    proxy->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag(TAG_WAKE, 0, 0)};
    CHECK_EQ(epoll_ctl(proxy->epoll_fd, EPOLL_CTL_ADD, proxy->wake_fd, &event), 0);
    CHECK_EQ(pthread_create(&proxy->thread, NULL, run, proxy), 0);
    return proxy;
}

uint16_t proxy_front(void *context, uint16_t port)
{
    struct proxy *proxy = context;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    CHECK_EQ(bind(fd, (struct sockaddr *)&address, size), 0);
    CHECK_EQ(listen(fd, 128), 0);
    CHECK_EQ(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    pthread_mutex_lock(&proxy->lock);
    CHECK_CMP(proxy->front_count, <, FRONTS_MAX);
    uint32_t index = proxy->front_count++;
    proxy->fronts[index] = (struct front){.fd = fd, .target = port};
    pthread_mutex_unlock(&proxy->lock);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag(TAG_FRONT, index, 0)};
    CHECK_EQ(epoll_ctl(proxy->epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
    return ntohs(address.sin_port);
}

void proxy_set(struct proxy *proxy, enum proxy_side side, const struct proxy_faults *faults)
{
    pthread_mutex_lock(&proxy->lock);
    proxy->faults[side] = *faults;
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_count(struct proxy *proxy, enum proxy_side side, struct proxy_counts *out)
{
    pthread_mutex_lock(&proxy->lock);
    *out = proxy->counts[side];
    pthread_mutex_unlock(&proxy->lock);
}

void proxy_destroy(struct proxy *proxy)
{
    atomic_store(&proxy->stop, true);
    uint64_t one = 1;
    CHECK_EQ(write(proxy->wake_fd, &one, sizeof one), sizeof one);
    pthread_join(proxy->thread, NULL);
    for (uint32_t slot = 0; slot < LINKS_MAX; slot++) {
        if (proxy->links[slot].fds[0] >= 0) {
            link_close(&proxy->links[slot], true);
        }
    }
    for (uint32_t i = 0; i < proxy->front_count; i++) {
        close(proxy->fronts[i].fd);
    }
    close(proxy->epoll_fd);
    close(proxy->wake_fd);
    pthread_mutex_destroy(&proxy->lock);
    free(proxy);
}

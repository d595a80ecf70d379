/* See http.h. RFC 9113 (frames) and RFC 7541 (headers); gRPC's framing is that of its
 * PROTOCOL-HTTP2 document. */
#include "abuse/http.h"

#include "cluster/harness.h"
#include "lib/suite.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAME_HEADER_BYTES = 9, FRAME_PAYLOAD_MAX = 16384, SETTING_INITIAL_WINDOW = 4 };

int http_connect(uint16_t port, uint32_t source)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_CMP(fd, >=, 0);
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(0x7f000001u + ((source / 250) << 8) + source % 250);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    /* The port is chosen when connecting: then each source address has all of them. */
    bool good = setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one) == 0 &&
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0 &&
                bind(fd, (struct sockaddr *)&from, sizeof from) == 0 &&
                connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
                fcntl(fd, F_SETFL, O_NONBLOCK) == 0;
    if (!good) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

long http_send_some(int fd, struct bytes bytes)
{
    ssize_t sent = send(fd, bytes.data, bytes.size, MSG_NOSIGNAL);
    if (sent >= 0) {
        return sent;
    }
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
}

static bool wait_for(int fd, short events, double deadline)
{
    double left = deadline - now_seconds();
    struct pollfd end = {.fd = fd, .events = events};
    return left > 0 && poll(&end, 1, (int)(left * 1000) + 1) > 0;
}

bool http_send(int fd, struct bytes bytes, double seconds)
{
    double deadline = now_seconds() + seconds;
    size_t at = 0;
    while (at < bytes.size) {
        long sent = http_send_some(fd, bytes_of(bytes.data + at, bytes.size - at));
        if (sent < 0 || (sent == 0 && !wait_for(fd, POLLOUT, deadline))) {
            return false;
        }
        at += (size_t)sent;
    }
    return true;
}

void http_reset(int fd)
{
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(fd);
}

bool http_is_closed(int fd, double seconds)
{
    double deadline = now_seconds() + seconds;
    for (;;) {
        uint8_t bytes[4096];
        ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            return true;
        }
        if (got < 0 && !wait_for(fd, POLLIN, deadline)) {
            return false;
        }
    }
}

/* ---- frames ---- */

void http_put_frame(struct buf *out, uint8_t type, uint8_t flags, uint32_t stream,
                    struct bytes payload)
{
    const uint8_t header[FRAME_HEADER_BYTES] = {(uint8_t)(payload.size >> 16),
                                                (uint8_t)(payload.size >> 8),
                                                (uint8_t)payload.size,
                                                type,
                                                flags,
                                                (uint8_t)(stream >> 24),
                                                (uint8_t)(stream >> 16),
                                                (uint8_t)(stream >> 8),
                                                (uint8_t)stream};
    buf_append(out, header, sizeof header);
    buf_append_bytes(out, payload);
}

static void put_magic(struct buf *out)
{
    static const char magic[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    buf_append(out, magic, sizeof magic - 1);
}

void http_put_preface(struct buf *out)
{
    put_magic(out);
    http_put_frame(out, HTTP_SETTINGS, 0, 0, BYTES_EMPTY);
}

void http_put_preface_window(struct buf *out, uint32_t window)
{
    const uint8_t setting[6] = {0,
                                SETTING_INITIAL_WINDOW,
                                (uint8_t)(window >> 24),
                                (uint8_t)(window >> 16),
                                (uint8_t)(window >> 8),
                                (uint8_t)window};
    put_magic(out);
    http_put_frame(out, HTTP_SETTINGS, 0, 0, bytes_of(setting, sizeof setting));
}

/* An integer with a prefix of `bits` bits (RFC 7541, 5.1); `first` has the bits above it. */
static void put_integer(struct buf *out, uint8_t first, unsigned bits, size_t value)
{
    uint8_t limit = (uint8_t)((1u << bits) - 1);
    uint8_t byte = first;
    if (value < limit) {
        byte = (uint8_t)(first | value);
        buf_append(out, &byte, 1);
        return;
    }
    byte = (uint8_t)(first | limit);
    buf_append(out, &byte, 1);
    for (value -= limit; value >= 128; value /= 128) {
        byte = (uint8_t)(value % 128 + 128);
        buf_append(out, &byte, 1);
    }
    byte = (uint8_t)value;
    buf_append(out, &byte, 1);
}

static void put_text(struct buf *out, const char *text)
{
    put_integer(out, 0, 7, strlen(text));
    buf_append(out, text, strlen(text));
}

/* Literal without indexing; `index` names the header in the static table, 0: `name` does. */
static void put_header(struct buf *out, unsigned index, const char *name, const char *value)
{
    put_integer(out, 0, 4, index);
    if (index == 0) {
        put_text(out, name);
    }
    put_text(out, value);
}

void http_put_header_block(struct buf *out, const struct http_request *request)
{
    enum { AUTHORITY = 1, METHOD = 2, PATH = 4, SCHEME = 6, CONTENT_TYPE = 31 };
    put_header(out, METHOD, NULL, request->method != NULL ? request->method : "POST");
    put_header(out, SCHEME, NULL, "http");
    if (request->path != NULL) {
        put_header(out, PATH, NULL, request->path);
    }
    put_header(out, AUTHORITY, NULL, "localhost");
    put_header(out, CONTENT_TYPE, NULL,
               request->content_type != NULL ? request->content_type : "application/grpc");
    put_header(out, 0, "te", "trailers");
    if (request->extra_name != NULL) {
        put_header(out, 0, request->extra_name, request->extra_value);
    }
}

void http_put_headers(struct buf *out, uint32_t stream, const struct http_request *request,
                      uint8_t flags)
{
    struct buf block = {0};
    http_put_header_block(&block, request);
    size_t at = 0;
    do { /* more than a frame holds goes on in CONTINUATION */
        size_t size = block.size - at < FRAME_PAYLOAD_MAX ? block.size - at : FRAME_PAYLOAD_MAX;
        uint8_t last = at + size == block.size ? HTTP_END_HEADERS : 0;
        http_put_frame(out, at == 0 ? HTTP_HEADERS : HTTP_CONTINUATION,
                       (uint8_t)(last | (at == 0 ? flags : 0)), stream,
                       bytes_of(block.data + at, size));
        at += size;
    } while (at < block.size);
    buf_deinit(&block);
}

void http_put_message(struct buf *out, uint32_t stream, uint32_t claimed, struct bytes body,
                      bool end)
{
    const uint8_t prefix[5] = {0, (uint8_t)(claimed >> 24), (uint8_t)(claimed >> 16),
                               (uint8_t)(claimed >> 8), (uint8_t)claimed};
    bool only = body.size == 0;
    http_put_frame(out, HTTP_DATA, only && end ? HTTP_END_STREAM : 0, stream,
                   bytes_of(prefix, sizeof prefix));
    for (size_t at = 0; at < body.size;) {
        size_t size = body.size - at < FRAME_PAYLOAD_MAX ? body.size - at : FRAME_PAYLOAD_MAX;
        bool last = at + size == body.size;
        http_put_frame(out, HTTP_DATA, last && end ? HTTP_END_STREAM : 0, stream,
                       bytes_of(body.data + at, size));
        at += size;
    }
}

void http_put_noise(struct buf *out, struct rng *rng, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)rng_next(rng);
        buf_append(out, &byte, 1);
    }
}

/* ---- answers ---- */

static uint32_t u32_at(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

/* The first time a connection's server names a status, it does so in letters. */
static void read_status(struct bytes block, struct http_answer *out)
{
    static const char name[] = "grpc-status";
    const uint8_t *at = memmem(block.data, block.size, name, sizeof name - 1);
    if (at != NULL) {
        const uint8_t *end = block.data + block.size;
        at += sizeof name - 1;
        size_t digits = at < end ? *at : 0;
        int status = 0;
        CHECK_CMP(digits, >=, 1);
        CHECK_CMP(digits, <=, 2);
        CHECK(at + digits < end);
        for (size_t i = 1; i <= digits; i++) {
            status = status * 10 + (at[i] - '0');
        }
        out->grpc_status = status;
    }
    /* Indexed: 8 to 14 of the static table are the short statuses. */
    static const int short_status[] = {200, 204, 206, 304, 400, 404, 500};
    if (block.size > 0 && block.data[0] >= 0x88 && block.data[0] <= 0x8e) {
        out->http_status = short_status[block.data[0] - 0x88];
    }
}

/* True: a stream or the connection has ended. */
static bool read_frame(const uint8_t *frame, size_t payload_size, struct http_answer *out)
{
    const uint8_t *payload = frame + FRAME_HEADER_BYTES;
    uint8_t flags = frame[4];
    switch (frame[3]) {
    case HTTP_DATA:
        out->data_bytes += payload_size;
        return (flags & HTTP_END_STREAM) != 0;
    case HTTP_HEADERS:
        read_status(bytes_of(payload, payload_size), out);
        return (flags & HTTP_END_STREAM) != 0;
    case HTTP_RST_STREAM:
        CHECK_EQ(payload_size, 4);
        out->reset_error = (int)u32_at(payload);
        return true;
    case HTTP_GOAWAY:
        CHECK_CMP(payload_size, >=, 8);
        out->goaway_error = (int)u32_at(payload + 4);
        return false; /* the close follows when nothing is under way */
    default:
        return false;
    }
}

void http_read_answer(int fd, double seconds, struct http_answer *out)
{
    *out = (struct http_answer){
        .grpc_status = -1, .http_status = -1, .reset_error = -1, .goaway_error = -1};
    double deadline = now_seconds() + seconds;
    struct buf got = {0};
    bool ended = false;
    while (!ended) {
        uint8_t bytes[4096];
        ssize_t size = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) {
            out->closed = true;
            break;
        }
        if (size < 0) {
            if (!wait_for(fd, POLLIN, deadline)) {
                break;
            }
            continue;
        }
        buf_append(&got, bytes, (size_t)size);
        size_t at = 0;
        while (!ended && got.size - at >= FRAME_HEADER_BYTES) {
            const uint8_t *frame = got.data + at;
            size_t payload = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
            if (got.size - at - FRAME_HEADER_BYTES < payload) {
                break;
            }
            ended = read_frame(frame, payload, out);
            at += FRAME_HEADER_BYTES + payload;
        }
        memmove(got.data, got.data + at, got.size - at);
        got.size -= at;
    }
    buf_deinit(&got);
}

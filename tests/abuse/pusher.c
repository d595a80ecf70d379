/* See pusher.h. A message's last byte is never sent, so no call is ever whole. */
#include "abuse/pusher.h"

#include "abuse/http.h"
#include "lib/suite.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    FRAME_HEADER_BYTES = 9,
    DATA_BYTES_MAX = 16384,
    WINDOW_FIRST = 65535,
    OUT_BYTES_MAX = 65536
};

struct pushed_stream {
    int64_t window;
    uint32_t left; /* bytes of the message that may still be sent */
    bool open;
};

struct pusher {
    int fd;
    int64_t window;
    int64_t stream_window_first; /* what the server's SETTINGS say */
    uint32_t stream_count;
    uint32_t next;
    uint64_t sent_bytes;
    struct buf in;
    struct buf out; /* [out_at, size) still has to be sent */
    size_t out_at;
    struct pushed_stream streams[];
};

struct pusher *pusher_open(uint16_t port, uint32_t source, const char *path, uint32_t stream_count,
                           uint32_t claimed)
{
    struct pusher *pusher =
        mem_calloc(1, sizeof *pusher + stream_count * sizeof pusher->streams[0]);
    pusher->fd = http_connect(port, source);
    CHECK_CMP(pusher->fd, >=, 0);
    pusher->window = WINDOW_FIRST;
    pusher->stream_window_first = WINDOW_FIRST;
    pusher->stream_count = stream_count;
    http_put_preface(&pusher->out);
    http_put_frame(&pusher->out, HTTP_SETTINGS, HTTP_ACK, 0, BYTES_EMPTY);
    struct http_request request = {.path = path};
    for (uint32_t i = 0; i < stream_count; i++) {
        http_put_headers(&pusher->out, 2 * i + 1, &request, 0);
        http_put_message(&pusher->out, 2 * i + 1, claimed, BYTES_EMPTY, false);
        pusher->streams[i] =
            (struct pushed_stream){.window = WINDOW_FIRST - 5, .left = claimed - 1, .open = true};
        pusher->window -= 5;
    }
    return pusher;
}

void pusher_close(struct pusher *pusher)
{
    close(pusher->fd);
    buf_deinit(&pusher->in);
    buf_deinit(&pusher->out);
    free(pusher);
}

uint64_t pusher_sent_bytes(const struct pusher *pusher)
{
    return pusher->sent_bytes;
}

uint32_t pusher_streams_open(const struct pusher *pusher)
{
    uint32_t open = 0;
    for (uint32_t i = 0; i < pusher->stream_count; i++) {
        open += pusher->streams[i].open ? 1 : 0;
    }
    return open;
}

/* ---- what the server says ---- */

static uint32_t u32_at(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void take_settings(struct pusher *pusher, struct bytes payload)
{
    enum { INITIAL_WINDOW = 4, SETTING_BYTES = 6 };
    for (size_t at = 0; at + SETTING_BYTES <= payload.size; at += SETTING_BYTES) {
        if (payload.data[at] == 0 && payload.data[at + 1] == INITIAL_WINDOW) {
            int64_t first = u32_at(payload.data + at + 2);
            for (uint32_t i = 0; i < pusher->stream_count; i++) {
                pusher->streams[i].window += first - pusher->stream_window_first;
            }
            pusher->stream_window_first = first;
        }
    }
    http_put_frame(&pusher->out, HTTP_SETTINGS, HTTP_ACK, 0, BYTES_EMPTY);
}

static void take_frame(struct pusher *pusher, const uint8_t *frame, struct bytes payload)
{
    uint32_t stream = u32_at(frame + 5);
    uint32_t place = stream / 2;
    bool ours = stream % 2 == 1 && place < pusher->stream_count;
    switch (frame[3]) {
    case HTTP_SETTINGS:
        if ((frame[4] & HTTP_ACK) == 0) {
            take_settings(pusher, payload);
        }
        break;
    case HTTP_PING:
        if ((frame[4] & HTTP_ACK) == 0) {
            http_put_frame(&pusher->out, HTTP_PING, HTTP_ACK, 0, payload);
        }
        break;
    case HTTP_WINDOW_UPDATE:
        if (stream == 0) {
            pusher->window += u32_at(payload.data);
        } else if (ours) {
            pusher->streams[place].window += u32_at(payload.data);
        }
        break;
    case HTTP_HEADERS: /* an answer: of a call that was not whole it can only be a refusal */
    case HTTP_RST_STREAM:
        if (ours) {
            pusher->streams[place].open = false;
        }
        break;
    default:
        break;
    }
}

static bool take_all(struct pusher *pusher)
{
    for (;;) {
        ssize_t got = recv(pusher->fd, buf_reserve(&pusher->in, 65536), 65536, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            return false;
        }
        if (got < 0) {
            break;
        }
        pusher->in.size += (size_t)got;
    }
    size_t at = 0;
    while (pusher->in.size - at >= FRAME_HEADER_BYTES) {
        const uint8_t *frame = pusher->in.data + at;
        size_t size = (size_t)frame[0] << 16 | (size_t)frame[1] << 8 | frame[2];
        if (pusher->in.size - at - FRAME_HEADER_BYTES < size) {
            break;
        }
        take_frame(pusher, frame, bytes_of(frame + FRAME_HEADER_BYTES, size));
        at += FRAME_HEADER_BYTES + size;
    }
    if (at > 0) {
        memmove(pusher->in.data, pusher->in.data + at, pusher->in.size - at);
        pusher->in.size -= at;
    }
    return true;
}

/* ---- what it is told ---- */

/* One DATA frame of the next stream that may send; false when none may. */
static bool put_data(struct pusher *pusher)
{
    static const uint8_t zeroes[DATA_BYTES_MAX];
    for (uint32_t tried = 0; tried < pusher->stream_count && pusher->window > 0; tried++) {
        uint32_t place = pusher->next++ % pusher->stream_count;
        struct pushed_stream *stream = &pusher->streams[place];
        int64_t size = stream->left < DATA_BYTES_MAX ? stream->left : DATA_BYTES_MAX;
        size = size < stream->window ? size : stream->window;
        size = size < pusher->window ? size : pusher->window;
        if (!stream->open || size <= 0) {
            continue;
        }
        http_put_frame(&pusher->out, HTTP_DATA, 0, 2 * place + 1, bytes_of(zeroes, (size_t)size));
        stream->window -= size;
        stream->left -= (uint32_t)size;
        pusher->window -= size;
        pusher->sent_bytes += (uint64_t)size;
        return true;
    }
    return false;
}

bool pusher_step(struct pusher *pusher)
{
    if (!take_all(pusher)) {
        return false;
    }
    for (;;) {
        while (pusher->out.size - pusher->out_at < OUT_BYTES_MAX && put_data(pusher)) {
        }
        size_t left = pusher->out.size - pusher->out_at;
        if (left == 0) {
            return true;
        }
        long sent = http_send_some(pusher->fd, bytes_of(pusher->out.data + pusher->out_at, left));
        if (sent <= 0) {
            return sent == 0;
        }
        pusher->out_at += (size_t)sent;
        if (pusher->out_at == pusher->out.size) {
            buf_clear(&pusher->out);
            pusher->out_at = 0;
        }
    }
}

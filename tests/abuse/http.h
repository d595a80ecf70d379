/* HTTP/2 by hand over a raw socket: what a well-behaved library would never send. Frames are put
 * together in a buffer and sent as they are; what comes back is read frame by frame, without
 * flow control unless asked for. Names are sent as literals, so no table has to be kept. One thread
 * per connection. */
#ifndef TESTS_ABUSE_HTTP_H
#define TESTS_ABUSE_HTTP_H

#include "base/bytes.h"
#include "base/rng.h"
#include <stdbool.h>
#include <stdint.h>

enum http_frame_type {
    HTTP_DATA = 0,
    HTTP_HEADERS = 1,
    HTTP_PRIORITY = 2,
    HTTP_RST_STREAM = 3,
    HTTP_SETTINGS = 4,
    HTTP_PING = 6,
    HTTP_GOAWAY = 7,
    HTTP_WINDOW_UPDATE = 8,
    HTTP_CONTINUATION = 9,
};
enum { HTTP_END_STREAM = 1, HTTP_ACK = 1, HTTP_END_HEADERS = 4 };

/* Connects to 127.0.0.1:port from 127.0.<source / 250>.<source % 250 + 1>, so that many connections
 * do not run out of ports. -1 and errno when refused. Non-blocking from then on. */
int http_connect(uint16_t port, uint32_t source);
/* True when all was taken within `seconds`; what cannot be sent is a connection that is closed. */
bool http_send(int fd, struct bytes bytes, double seconds);
/* As much as the kernel takes now; -1: closed. */
long http_send_some(int fd, struct bytes bytes);
/* Ends it with RST instead of FIN. */
void http_reset(int fd);
/* True once the peer has closed (or reset) it, waiting up to `seconds`; what arrives is dropped. */
bool http_is_closed(int fd, double seconds);

/* ---- frames, appended to `out` ---- */

void http_put_frame(struct buf *out, uint8_t type, uint8_t flags, uint32_t stream,
                    struct bytes payload);
/* The client's magic words and an empty SETTINGS. */
void http_put_preface(struct buf *out);
/* The same with this initial window for every stream: 0, and no answer's body can leave. */
void http_put_preface_window(struct buf *out, uint32_t window);

struct http_request {
    const char *method;       /* NULL: POST */
    const char *path;         /* NULL: left out */
    const char *content_type; /* NULL: application/grpc */
    const char *extra_name;   /* NULL: none */
    const char *extra_value;
};
/* A header block's bytes. */
void http_put_header_block(struct buf *out, const struct http_request *request);
void http_put_headers(struct buf *out, uint32_t stream, const struct http_request *request,
                      uint8_t flags);
/* DATA frames with gRPC's five bytes in front: `claimed` bytes are said, `body` is sent. */
void http_put_message(struct buf *out, uint32_t stream, uint32_t claimed, struct bytes body,
                      bool end);
/* Bytes from the generator. */
void http_put_noise(struct buf *out, struct rng *rng, size_t size);

/* ---- answers ---- */

struct http_answer {
    int grpc_status;  /* -1: none came */
    int http_status;  /* -1: not one of those that have a short form */
    int reset_error;  /* of RST_STREAM; -1 */
    int goaway_error; /* -1 */
    bool closed;      /* the connection */
    uint64_t data_bytes;
};
/* Reads until a stream has ended, the connection was closed or `seconds` passed. For the first call
 * of a connection only: later ones name their headers by table. */
void http_read_answer(int fd, double seconds, struct http_answer *out);

#endif

/* The few messages of etcd's v3 API that the benchmark needs, written and read by hand: protobuf's
 * wire format, fields by the numbers of etcd's rpc.proto and kv.proto. Decoders check bounds and
 * skip fields they do not know. */
#ifndef TESTS_BENCH_ETCD_H
#define TESTS_BENCH_ETCD_H

#include "base/bytes.h"
#include "base/error.h"

#define ETCD_METHOD_RANGE  "/etcdserverpb.KV/Range"
#define ETCD_METHOD_PUT    "/etcdserverpb.KV/Put"
#define ETCD_METHOD_STATUS "/etcdserverpb.Maintenance/Status"

struct etcd_header {
    uint64_t member_id;
    uint64_t revision;
};
struct etcd_range_response {
    struct etcd_header header;
    uint64_t count;        /* of keys found */
    struct bytes value;    /* of the first; a view into the reply */
    uint64_t mod_revision; /* of the first */
};
struct etcd_status_response {
    struct etcd_header header;
    uint64_t leader; /* 0: none */
};

/* A linearizable read of one key (`serializable` is not set). */
void etcd_range_request_encode(struct bytes key, struct buf *out);
void etcd_put_request_encode(struct bytes key, struct bytes value, struct buf *out);
int etcd_range_response_decode(struct bytes reply, struct etcd_range_response *out) MUST_USE;
int etcd_put_response_decode(struct bytes reply, struct etcd_header *out) MUST_USE;
int etcd_status_response_decode(struct bytes reply, struct etcd_status_response *out) MUST_USE;

#endif

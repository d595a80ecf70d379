/* Every message of shardkv.proto and peer.proto as a C struct with one encoder and one decoder.
 * Nothing outside this room sees nanopb.
 *
 * Encoders append to `out` and cannot fail: what a struct holds (counts within their arrays, texts
 * that end) is the caller's promise and asserted. They borrow everything.
 *
 * Decoders check everything: wire format, the limits of proto/limits.h, texts (valid UTF-8 without
 * NUL; addresses printable ASCII), enum values. Fields this version does not know are skipped; what
 * is absent is zero. They give ERR_PROTOCOL    the bytes are not this message, or a field makes no
 * sense ERR_TOO_LARGE   a field, or the number of its elements, is over its limit ERR_INVALID     a
 * key of no bytes and on an error there is nothing to free. Every `struct bytes` in a decoded
 * message is a view into the decoder's input, and lives as long as that. A message with a pointer
 * to an array or a config has a deinit, which frees what its decoder gave (and is for decoded
 * messages alone); it is safe on a zeroed or deinited struct.
 *
 * `error` fields are enum err: `code` on the wire is its positive number. Any thread; no state. */
#ifndef PROTO_MESSAGES_H
#define PROTO_MESSAGES_H

#include "base/bytes.h"
#include "base/error.h"
#include "proto/config.h"
#include "proto/limits.h"

/* ---- parts ---- */

struct msg_request_header {
    uint64_t cluster_id; /* 0: not checked */
    uint64_t client_id;  /* 0: no exactly-once protection */
    uint64_t sequence;
    uint64_t acked_below;
    uint64_t age_ms;
    uint64_t config_number; /* 0: none */
};

struct msg_route {
    uint64_t config_number;
    uint32_t shard;
    uint64_t group_id; /* 0: none */
    uint32_t address_count;
    char addresses[GROUP_REPLICAS_MAX][ADDRESS_BYTES_MAX];
    char leader_address[ADDRESS_BYTES_MAX]; /* "": unknown */
};

/* 2 KiB: `{0}` one, then fill it. */
struct msg_response_header {
    int error; /* enum err */
    char message[TEXT_BYTES_MAX];
    bool has_route;
    struct msg_route route;
};

/* Sets header->error and copies err_text or, when not NULL, `message` (cut to fit) for people;
 * has_route stays. */
void msg_response_header_set(struct msg_response_header *header, int error, const char *message);
/* Fills the route's group and addresses from the config; leader_address stays as it is. */
void msg_route_from_config(struct msg_route *route, const struct config *config, uint32_t shard);

void msg_request_header_encode(const struct msg_request_header *message, struct buf *out);
int msg_request_header_decode(struct bytes bytes, struct msg_request_header *out) MUST_USE;
void msg_route_encode(const struct msg_route *message, struct buf *out);
int msg_route_decode(struct bytes bytes, struct msg_route *out) MUST_USE;
void msg_response_header_encode(const struct msg_response_header *message, struct buf *out);
int msg_response_header_decode(struct bytes bytes, struct msg_response_header *out) MUST_USE;

/* ---- key-value (Kv) ---- */

struct msg_get_request {
    struct msg_request_header header;
    struct bytes key;
};
struct msg_get_response {
    struct msg_response_header header;
    struct bytes value;
    uint64_t version; /* 0: absent */
};
struct msg_put_request {
    struct msg_request_header header;
    struct bytes key;
    struct bytes value;
};
struct msg_append_request {
    struct msg_request_header header;
    struct bytes key;
    struct bytes value;
};
struct msg_delete_request {
    struct msg_request_header header;
    struct bytes key;
};
struct msg_compare_and_set_request {
    struct msg_request_header header;
    struct bytes key;
    uint64_t expected_version;
    struct bytes value;
};
struct msg_write_response {
    struct msg_response_header header;
    uint64_t version;
};

void msg_get_request_encode(const struct msg_get_request *message, struct buf *out);
int msg_get_request_decode(struct bytes bytes, struct msg_get_request *out) MUST_USE;
void msg_get_response_encode(const struct msg_get_response *message, struct buf *out);
int msg_get_response_decode(struct bytes bytes, struct msg_get_response *out) MUST_USE;
void msg_put_request_encode(const struct msg_put_request *message, struct buf *out);
int msg_put_request_decode(struct bytes bytes, struct msg_put_request *out) MUST_USE;
void msg_append_request_encode(const struct msg_append_request *message, struct buf *out);
int msg_append_request_decode(struct bytes bytes, struct msg_append_request *out) MUST_USE;
void msg_delete_request_encode(const struct msg_delete_request *message, struct buf *out);
int msg_delete_request_decode(struct bytes bytes, struct msg_delete_request *out) MUST_USE;
void msg_compare_and_set_request_encode(const struct msg_compare_and_set_request *message,
                                        struct buf *out);
int msg_compare_and_set_request_decode(struct bytes bytes,
                                       struct msg_compare_and_set_request *out) MUST_USE;
void msg_write_response_encode(const struct msg_write_response *message, struct buf *out);
int msg_write_response_decode(struct bytes bytes, struct msg_write_response *out) MUST_USE;

struct msg_batch_request {
    uint64_t batch_id;
    uint64_t cluster_id;
    uint64_t config_number;
    bool reads;
    struct bytes operations; /* a block: proto/command.h; its inside is not checked here */
};
struct msg_batch_response {
    uint64_t batch_id;
    struct msg_response_header header;
    struct bytes results;
    uint32_t route_count; /* up to BATCH_ROUTES_MAX */
    struct msg_route *routes;
};

void msg_batch_request_encode(const struct msg_batch_request *message, struct buf *out);
int msg_batch_request_decode(struct bytes bytes, struct msg_batch_request *out) MUST_USE;
void msg_batch_response_encode(const struct msg_batch_response *message, struct buf *out);
int msg_batch_response_decode(struct bytes bytes, struct msg_batch_response *out) MUST_USE;
void msg_batch_response_deinit(struct msg_batch_response *message);

struct msg_scan_request {
    struct msg_request_header header;
    uint32_t shard;
    struct bytes after_key; /* empty: from the first */
    uint32_t rows_max;      /* 0: SCAN_ROWS_MAX */
    uint32_t bytes_max;     /* 0: SCAN_BYTES_MAX */
    bool keys_only;
};
struct msg_scan_row {
    struct bytes key;
    uint64_t version;
    struct bytes value;
};
struct msg_scan_response {
    struct msg_response_header header;
    uint32_t row_count; /* up to SCAN_ROWS_MAX */
    struct msg_scan_row *rows;
    bool end;
};

void msg_scan_request_encode(const struct msg_scan_request *message, struct buf *out);
int msg_scan_request_decode(struct bytes bytes, struct msg_scan_request *out) MUST_USE;
void msg_scan_response_encode(const struct msg_scan_response *message, struct buf *out);
int msg_scan_response_decode(struct bytes bytes, struct msg_scan_response *out) MUST_USE;
void msg_scan_response_deinit(struct msg_scan_response *message);

/* ---- controller (Controller) ---- */

/* Replica, Group and Config of the .proto are struct config_replica, config_group and config:
 * config_encode, config_decode of proto/config.h. */

struct msg_join_request {
    struct msg_request_header header;
    uint32_t group_count; /* up to GROUPS_MAX */
    struct config_group
        *groups; /* as sent: in any order, ids perhaps 0 or twice; the controller judges */
};
struct msg_leave_request {
    struct msg_request_header header;
    bool force;
    uint32_t group_count;
    uint64_t group_ids[GROUPS_MAX];
};
struct msg_move_request {
    struct msg_request_header header;
    uint32_t shard;
    uint64_t group_id;
};
struct msg_update_members_request {
    struct msg_request_header header;
    struct config_group group; /* as sent */
};
struct msg_change_response {
    struct msg_response_header header;
    uint64_t config_number;
};
struct msg_query_request {
    struct msg_request_header header;
    uint64_t number;
    bool latest;
};
struct msg_query_response {
    struct msg_response_header header;
    const struct config
        *config; /* NULL: none. Encoder: borrowed. Decoder: given, freed by deinit */
};
struct msg_watch_request {
    uint64_t cluster_id;
    uint64_t from_number;
    bool latest_only;
};
struct msg_watch_response {
    struct msg_response_header header;
    const struct config *config; /* as in msg_query_response */
};

void msg_join_request_encode(const struct msg_join_request *message, struct buf *out);
int msg_join_request_decode(struct bytes bytes, struct msg_join_request *out) MUST_USE;
void msg_join_request_deinit(struct msg_join_request *message);
void msg_leave_request_encode(const struct msg_leave_request *message, struct buf *out);
int msg_leave_request_decode(struct bytes bytes, struct msg_leave_request *out) MUST_USE;
void msg_move_request_encode(const struct msg_move_request *message, struct buf *out);
int msg_move_request_decode(struct bytes bytes, struct msg_move_request *out) MUST_USE;
void msg_update_members_request_encode(const struct msg_update_members_request *message,
                                       struct buf *out);
int msg_update_members_request_decode(struct bytes bytes,
                                      struct msg_update_members_request *out) MUST_USE;
void msg_change_response_encode(const struct msg_change_response *message, struct buf *out);
int msg_change_response_decode(struct bytes bytes, struct msg_change_response *out) MUST_USE;
void msg_query_request_encode(const struct msg_query_request *message, struct buf *out);
int msg_query_request_decode(struct bytes bytes, struct msg_query_request *out) MUST_USE;
void msg_query_response_encode(const struct msg_query_response *message, struct buf *out);
int msg_query_response_decode(struct bytes bytes, struct msg_query_response *out) MUST_USE;
void msg_query_response_deinit(struct msg_query_response *message);
void msg_watch_request_encode(const struct msg_watch_request *message, struct buf *out);
int msg_watch_request_decode(struct bytes bytes, struct msg_watch_request *out) MUST_USE;
void msg_watch_response_encode(const struct msg_watch_response *message, struct buf *out);
int msg_watch_response_decode(struct bytes bytes, struct msg_watch_response *out) MUST_USE;
void msg_watch_response_deinit(struct msg_watch_response *message);

/* ---- administration (Admin) ---- */

struct msg_status_request {
    uint64_t cluster_id;
    bool with_hash;
};
struct msg_member {
    uint64_t id;
    char address[ADDRESS_BYTES_MAX];
    bool learner;
    uint64_t match;
    bool active;
};
struct msg_shard_status {
    uint32_t shard;
    enum shard_state state;
    uint64_t config_number;
    uint64_t keys;
    uint64_t bytes;
    uint64_t moved_bytes;
};
struct msg_status_response {
    struct msg_response_header header;
    uint64_t cluster_id;
    uint64_t group_id;
    uint64_t replica_id;
    char version[VERSION_BYTES_MAX];
    char role[ROLE_BYTES_MAX];
    uint64_t term;
    uint64_t leader_id;
    char leader_address[ADDRESS_BYTES_MAX];
    uint64_t commit;
    uint64_t applied;
    uint64_t log_first;
    uint64_t log_last;
    uint64_t log_bytes;
    uint64_t config_number;
    uint32_t member_count;
    struct msg_member members[GROUP_REPLICAS_MAX];
    uint32_t shard_count; /* up to SHARD_COUNT_MAX */
    struct msg_shard_status *shards;
    uint64_t state_hash;
    uint64_t state_hash_applied;
};
struct msg_transfer_request {
    uint64_t cluster_id;
    uint64_t target_id; /* 0: the most up-to-date voter */
};
enum msg_member_change {
    MSG_MEMBER_NONE = 0, /* the decoder refuses it */
    MSG_MEMBER_ADD_LEARNER = 1,
    MSG_MEMBER_PROMOTE = 2,
    MSG_MEMBER_ADD_VOTER = 3,
    MSG_MEMBER_REMOVE = 4,
};
struct msg_change_member_request {
    uint64_t cluster_id;
    enum msg_member_change kind;
    uint64_t id;
    char address[ADDRESS_BYTES_MAX]; /* "": not given */
};
struct msg_admin_response {
    struct msg_response_header header;
};

void msg_status_request_encode(const struct msg_status_request *message, struct buf *out);
int msg_status_request_decode(struct bytes bytes, struct msg_status_request *out) MUST_USE;
void msg_status_response_encode(const struct msg_status_response *message, struct buf *out);
int msg_status_response_decode(struct bytes bytes, struct msg_status_response *out) MUST_USE;
void msg_status_response_deinit(struct msg_status_response *message);
void msg_transfer_request_encode(const struct msg_transfer_request *message, struct buf *out);
int msg_transfer_request_decode(struct bytes bytes, struct msg_transfer_request *out) MUST_USE;
void msg_change_member_request_encode(const struct msg_change_member_request *message,
                                      struct buf *out);
int msg_change_member_request_decode(struct bytes bytes,
                                     struct msg_change_member_request *out) MUST_USE;
void msg_admin_response_encode(const struct msg_admin_response *message, struct buf *out);
int msg_admin_response_decode(struct bytes bytes, struct msg_admin_response *out) MUST_USE;

/* ---- peers (peer.proto) ---- */

enum { PEER_VERSION = 1 }; /* of Frame; a receiver refuses another */

struct msg_frame {
    uint32_t version;
    uint64_t cluster_id;
    uint64_t group_id;
    uint64_t from;
    uint64_t from_incarnation;
    uint64_t to;
    uint32_t message_count;
    struct bytes messages[FRAME_MESSAGES_MAX]; /* packed raft messages; not looked into */
};
struct msg_peer_move_request {
    uint64_t cluster_id;
    uint32_t shard;
    uint64_t config_number;
    uint64_t from_group;
    uint64_t to_group;
};
struct msg_peer_move_response {
    int error; /* enum err */
    char message[TEXT_BYTES_MAX];
    char leader_address[ADDRESS_BYTES_MAX];
    uint64_t rows;
    uint64_t bytes;
    uint64_t checksum;
};
struct msg_peer_read_request {
    struct msg_peer_move_request move;
    struct bytes after_row; /* empty: from the first */
    uint32_t bytes_max;
};
struct msg_peer_read_response {
    int error; /* enum err */
    char message[TEXT_BYTES_MAX];
    char leader_address[ADDRESS_BYTES_MAX];
    struct bytes rows; /* packed; not looked into, checksum not verified here */
    uint32_t rows_crc32c;
    struct bytes last_row;
    bool end;
};

void msg_frame_encode(const struct msg_frame *message, struct buf *out);
int msg_frame_decode(struct bytes bytes, struct msg_frame *out) MUST_USE;
void msg_peer_move_request_encode(const struct msg_peer_move_request *message, struct buf *out);
int msg_peer_move_request_decode(struct bytes bytes, struct msg_peer_move_request *out) MUST_USE;
void msg_peer_move_response_encode(const struct msg_peer_move_response *message, struct buf *out);
int msg_peer_move_response_decode(struct bytes bytes, struct msg_peer_move_response *out) MUST_USE;
void msg_peer_read_request_encode(const struct msg_peer_read_request *message, struct buf *out);
int msg_peer_read_request_decode(struct bytes bytes, struct msg_peer_read_request *out) MUST_USE;
void msg_peer_read_response_encode(const struct msg_peer_read_response *message, struct buf *out);
int msg_peer_read_response_decode(struct bytes bytes, struct msg_peer_read_response *out) MUST_USE;

#endif

/* Full method names, as gRPC sends them. The services are in proto/shardkv.proto and
 * proto/peer.proto. */
#ifndef PROTO_METHODS_H
#define PROTO_METHODS_H

#define METHOD_KV_GET             "/shardkv.v1.Kv/Get"
#define METHOD_KV_PUT             "/shardkv.v1.Kv/Put"
#define METHOD_KV_APPEND          "/shardkv.v1.Kv/Append"
#define METHOD_KV_DELETE          "/shardkv.v1.Kv/Delete"
#define METHOD_KV_COMPARE_AND_SET "/shardkv.v1.Kv/CompareAndSet"
#define METHOD_KV_BATCH           "/shardkv.v1.Kv/Batch" /* both sides stream */
#define METHOD_KV_SCAN            "/shardkv.v1.Kv/Scan"

#define METHOD_CONTROLLER_JOIN           "/shardkv.v1.Controller/Join"
#define METHOD_CONTROLLER_LEAVE          "/shardkv.v1.Controller/Leave"
#define METHOD_CONTROLLER_MOVE           "/shardkv.v1.Controller/Move"
#define METHOD_CONTROLLER_UPDATE_MEMBERS "/shardkv.v1.Controller/UpdateMembers"
#define METHOD_CONTROLLER_QUERY          "/shardkv.v1.Controller/Query"
#define METHOD_CONTROLLER_WATCH          "/shardkv.v1.Controller/Watch" /* both sides stream */

#define METHOD_ADMIN_STATUS        "/shardkv.v1.Admin/Status"
#define METHOD_ADMIN_TRANSFER      "/shardkv.v1.Admin/Transfer"
#define METHOD_ADMIN_CHANGE_MEMBER "/shardkv.v1.Admin/ChangeMember"

#define METHOD_PEER_MESSAGES "/shardkv.peer.v1.Peer/Messages" /* both sides stream */

#define METHOD_SHARD_MOVE_OPEN   "/shardkv.peer.v1.ShardMove/Open"
#define METHOD_SHARD_MOVE_READ   "/shardkv.peer.v1.ShardMove/Read"
#define METHOD_SHARD_MOVE_FREEZE "/shardkv.peer.v1.ShardMove/Freeze"
#define METHOD_SHARD_MOVE_DROP   "/shardkv.peer.v1.ShardMove/Drop"

#endif

/* What the files of the service share. Nothing else includes it. */
#ifndef SHARDKV_SERVICE_INTERNAL_H
#define SHARDKV_SERVICE_INTERNAL_H

#include "proto/command.h"
#include "proto/messages.h"
#include "shardkv/kv_command.h"
#include "shardkv/service.h"

#include <pthread.h>

struct kv_service {
    struct kv_service_options options;
    pthread_mutex_t mutex;       /* guards newest */
    struct config_share *newest; /* NULL: none known but the group's own */
};

/* service.c */
int service__check_cluster(const struct kv_service *service, uint64_t cluster_id);
/* The newest config anyone here knows; gives a reference, NULL: none. */
struct config_share *service__newest_config(struct kv_service *service,
                                            const struct kv_table *table);
/* The shard's entry in the newest config, with this group's leader when `with_leader`. */
void service__fill_route(struct kv_service *service, const struct kv_table *table, uint32_t shard,
                         bool with_leader, struct msg_route *route);
/* Header of an answer that refuses: error, text, and a route where one helps. */
void service__fill_header(struct kv_service *service, uint32_t shard, int error, const char *text,
                          struct msg_response_header *header);
/* Splits what a block was answered with into flags and results. False: it is no answer (a block the
 * state machine could not read). */
bool service__split_result(struct bytes result, uint8_t *flags, struct bytes *results);

/* service_unary.c, service_batch.c, service_admin.c */
int service__add_unary(struct kv_service *service, struct rpc_server *server);
int service__add_batch(struct kv_service *service, struct rpc_server *server);
int service__add_admin(struct kv_service *service, struct rpc_server *server);

/* scan.c */
int service__add_scan(struct kv_service *service, struct rpc_server *server);

#endif

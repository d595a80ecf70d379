/* The service's frame: routes and headers of answers. See service.h. */
#include "shardkv/service_internal.h"

#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kv_service *kv_service_create(const struct kv_service_options *options)
{
    struct kv_service *service = mem_calloc(1, sizeof *service);
    service->options = *options;
    pthread_mutex_init(&service->mutex, NULL);
    return service;
}

int kv_service_add_methods(struct kv_service *service, struct rpc_server *server)
{
    int error = service__add_unary(service, server);
    error = error != 0 ? error : service__add_batch(service, server);
    error = error != 0 ? error : service__add_scan(service, server);
    return error != 0 ? error : service__add_admin(service, server);
}

void kv_service_learn_config(struct kv_service *service, const struct config *config)
{
    struct config_share *share = config_share_create(config_clone(config));
    pthread_mutex_lock(&service->mutex);
    bool newer =
        service->newest == NULL || config_share_get(service->newest)->number < config->number;
    if (newer) {
        struct config_share *old = service->newest;
        service->newest = share;
        share = old;
    }
    pthread_mutex_unlock(&service->mutex);
    config_share_unref(share);
}

void kv_service_destroy(struct kv_service *service)
{
    if (service == NULL) {
        return;
    }
    config_share_unref(service->newest);
    pthread_mutex_destroy(&service->mutex);
    free(service);
}

int service__check_cluster(const struct kv_service *service, uint64_t cluster_id)
{
    return cluster_id == 0 || cluster_id == service->options.cluster_id ? 0 : ERR_WRONG_CLUSTER;
}

struct config_share *service__newest_config(struct kv_service *service,
                                            const struct kv_table *table)
{
    pthread_mutex_lock(&service->mutex);
    struct config_share *share = config_share_ref(service->newest);
    pthread_mutex_unlock(&service->mutex);
    if (share == NULL || config_share_get(share)->number < table->config_number) {
        config_share_unref(share);
        share = config_share_ref(table->config);
    }
    return share;
}

void service__fill_route(struct kv_service *service, const struct kv_table *table, uint32_t shard,
                         bool with_leader, struct msg_route *route)
{
    *route = (struct msg_route){.shard = shard};
    struct config_share *share = service__newest_config(service, table);
    if (share != NULL) {
        const struct config *config = config_share_get(share);
        if (shard < config->shard_count) {
            msg_route_from_config(route, config, shard);
        }
        config_share_unref(share);
    }
    if (with_leader) {
        struct node_status status;
        node_status(service->options.node, &status);
        snprintf(route->leader_address, sizeof route->leader_address, "%s", status.leader_address);
    }
}

void service__fill_header(struct kv_service *service, uint32_t shard, int error, const char *text,
                          struct msg_response_header *header)
{
    if (error == 0) {
        return;
    }
    msg_response_header_set(header, error, text);
    bool with_leader = error == ERR_NOT_LEADER || error == ERR_LEADER_LOST;
    if (with_leader || error == ERR_WRONG_GROUP || error == ERR_SHARD_MOVING) {
        struct kv_table *table = kv_machine_table(service->options.machine);
        header->has_route = true;
        service__fill_route(service, table, shard, with_leader, &header->route);
        kv_table_unref(table);
    }
}

bool service__split_result(struct bytes result, uint8_t *flags, struct bytes *results)
{
    if (result.size < 2) {
        return false;
    }
    *flags = result.data[0];
    *results = bytes_of(result.data + 1, result.size - 1);
    return true;
}

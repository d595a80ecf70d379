/* Headers, routes and groups: see messages_parts.h.
 *
 * Thread: any; no state. */
#include "proto/messages_parts.h"

#include "base/assert.h"
#include <string.h>

/* ---- request header ---- */

void msg__load_request_header(const shardkv_v1_RequestHeader *pb, struct msg_request_header *out)
{
    out->cluster_id = pb->cluster_id;
    out->client_id = pb->client_id;
    out->sequence = pb->sequence;
    out->acked_below = pb->acked_below;
    out->age_ms = pb->age_ms;
    out->config_number = pb->config_number;
}

void msg__put_request_header(bool *has, shardkv_v1_RequestHeader *pb,
                             const struct msg_request_header *message)
{
    pb->cluster_id = message->cluster_id;
    pb->client_id = message->client_id;
    pb->sequence = message->sequence;
    pb->acked_below = message->acked_below;
    pb->age_ms = message->age_ms;
    pb->config_number = message->config_number;
    *has = (message->cluster_id | message->client_id | message->sequence | message->acked_below |
            message->age_ms | message->config_number) != 0;
}

void msg_request_header_encode(const struct msg_request_header *message, struct buf *out)
{
    shardkv_v1_RequestHeader pb = shardkv_v1_RequestHeader_init_zero;
    bool has;
    msg__put_request_header(&has, &pb, message);
    wire_encode(shardkv_v1_RequestHeader_fields, &pb, out);
}

int msg_request_header_decode(struct bytes bytes, struct msg_request_header *out)
{
    shardkv_v1_RequestHeader pb = shardkv_v1_RequestHeader_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    int error = wire_decode(&decoder, shardkv_v1_RequestHeader_fields, &pb);
    if (error == ERR_OK) {
        msg__load_request_header(&pb, out);
    }
    return error;
}

/* ---- route ---- */

static int route_take_address(void *context, struct bytes element)
{
    struct msg_route *route = context;
    if (route->address_count == GROUP_REPLICAS_MAX) {
        return ERR_TOO_LARGE;
    }
    if (element.size == 0) {
        return ERR_PROTOCOL;
    }
    int error = wire_text_copy(element, WIRE_ADDRESS, route->addresses[route->address_count],
                               ADDRESS_BYTES_MAX);
    if (error == ERR_OK) {
        route->address_count++;
    }
    return error;
}

void msg__bind_route(shardkv_v1_Route *pb, struct msg__route_in *in, struct wire_decoder *decoder,
                     struct msg_route *out)
{
    wire_bind_list(&pb->addresses, &in->addresses, decoder, route_take_address, out);
    wire_bind_text(&pb->leader_address, &in->leader_address, decoder, WIRE_ADDRESS,
                   out->leader_address, sizeof(out->leader_address));
}

void msg__load_route(const shardkv_v1_Route *pb, struct msg_route *out)
{
    out->config_number = pb->config_number;
    out->shard = pb->shard;
    out->group_id = pb->group_id;
}

static bool route_put_address(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                              uint32_t index)
{
    const struct msg_route *route = context;
    return wire_put_element(stream, field,
                            wire_text_view(route->addresses[index], ADDRESS_BYTES_MAX));
}

void msg__put_route(shardkv_v1_Route *pb, struct msg__route_out *out,
                    const struct msg_route *message)
{
    ASSERT_CMP(message->address_count, <=, GROUP_REPLICAS_MAX);
    pb->config_number = message->config_number;
    pb->shard = message->shard;
    pb->group_id = message->group_id;
    wire_put_parts(&pb->addresses, &out->addresses, message->address_count, route_put_address,
                   message);
    out->leader_address = wire_text_view(message->leader_address, sizeof(message->leader_address));
    wire_put_bytes(&pb->leader_address, &out->leader_address);
}

void msg_route_encode(const struct msg_route *message, struct buf *out)
{
    shardkv_v1_Route pb = shardkv_v1_Route_init_zero;
    struct msg__route_out parts;
    msg__put_route(&pb, &parts, message);
    wire_encode(shardkv_v1_Route_fields, &pb, out);
}

int msg_route_decode(struct bytes bytes, struct msg_route *out)
{
    shardkv_v1_Route pb = shardkv_v1_Route_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__route_in parts;
    *out = (struct msg_route){0};
    msg__bind_route(&pb, &parts, &decoder, out);
    int error = wire_decode(&decoder, shardkv_v1_Route_fields, &pb);
    if (error == ERR_OK) {
        msg__load_route(&pb, out);
    }
    return error;
}

void msg_route_from_config(struct msg_route *route, const struct config *config, uint32_t shard)
{
    ASSERT_CMP(shard, <, config->shard_count);
    route->config_number = config->number;
    route->shard = shard;
    route->group_id = config->owners[shard];
    route->address_count = 0;
    const struct config_group *group = config_find_group(config, route->group_id);
    if (group == NULL) {
        return;
    }
    for (uint32_t i = 0; i < group->replica_count; i++) {
        memcpy(route->addresses[i], group->replicas[i].address, ADDRESS_BYTES_MAX);
    }
    route->address_count = group->replica_count;
}

/* ---- response header ---- */

/* As much of `text` as fits `capacity` with a NUL, cut between characters; what is not UTF-8
 * becomes '?'. */
static void text_clean(char *out, size_t capacity, struct bytes text)
{
    size_t size = text.size;
    if (size >= capacity) {
        size = capacity - 1;
        while (size > 0 && (text.data[size] & 0xc0) == 0x80) {
            size--;
        }
    }
    bool clean = wire_text_is_clean(bytes_of(text.data, size));
    for (size_t i = 0; i < size; i++) {
        bool keep = clean || (text.data[i] < 0x80 && text.data[i] != 0);
        out[i] = keep ? (char)text.data[i] : '?';
    }
    out[size] = '\0';
}

void msg_response_header_set(struct msg_response_header *header, int error, const char *message)
{
    header->error = error;
    header->message[0] = '\0';
    if (message == NULL && error != ERR_OK) {
        message = err_text(error);
    }
    if (message != NULL) {
        text_clean(header->message, sizeof(header->message), bytes_of_string(message));
    }
}

void msg__bind_response_header(shardkv_v1_ResponseHeader *pb, struct msg__response_in *in,
                               struct wire_decoder *decoder, struct msg_response_header *out)
{
    *out = (struct msg_response_header){0};
    wire_bind_text(&pb->message, &in->message, decoder, WIRE_TEXT, out->message,
                   sizeof(out->message));
    msg__bind_route(&pb->route, &in->route, decoder, &out->route);
}

void msg__load_response_header(const shardkv_v1_ResponseHeader *pb, struct msg_response_header *out)
{
    out->error = pb->code == 0 ? ERR_OK : err_from_wire(pb->code);
    out->has_route = pb->has_route;
    if (out->has_route) {
        msg__load_route(&pb->route, &out->route);
    }
}

void msg__put_text(pb_callback_t *field, struct msg__text_out *out, const char *text,
                   size_t capacity)
{
    ASSERT_CMP(capacity, <=, sizeof(out->clean));
    out->text = wire_text_view(text, capacity);
    if (!wire_text_is_clean(out->text)) {
        text_clean(out->clean, sizeof(out->clean), out->text);
        out->text = bytes_of_string(out->clean);
    }
    wire_put_bytes(field, &out->text);
}

void msg__put_response_header(bool *has, shardkv_v1_ResponseHeader *pb,
                              struct msg__response_out *out,
                              const struct msg_response_header *message)
{
    pb->code = message->error == ERR_OK ? 0 : err_to_wire(message->error);
    msg__put_text(&pb->message, &out->message, message->message, sizeof(message->message));
    pb->has_route = message->has_route;
    if (message->has_route) {
        msg__put_route(&pb->route, &out->route, &message->route);
    }
    /* Always there, though empty when all is well: clients of other languages get no null for it.
     */
    *has = true;
}

void msg_response_header_encode(const struct msg_response_header *message, struct buf *out)
{
    shardkv_v1_ResponseHeader pb = shardkv_v1_ResponseHeader_init_zero;
    struct msg__response_out parts;
    bool has;
    msg__put_response_header(&has, &pb, &parts, message);
    wire_encode(shardkv_v1_ResponseHeader_fields, &pb, out);
}

int msg_response_header_decode(struct bytes bytes, struct msg_response_header *out)
{
    shardkv_v1_ResponseHeader pb = shardkv_v1_ResponseHeader_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct msg__response_in parts;
    msg__bind_response_header(&pb, &parts, &decoder, out);
    int error = wire_decode(&decoder, shardkv_v1_ResponseHeader_fields, &pb);
    if (error == ERR_OK) {
        msg__load_response_header(&pb, out);
    }
    return error;
}

/* ---- group ---- */

static int replica_decode(struct bytes bytes, struct config_replica *out)
{
    shardkv_v1_Replica pb = shardkv_v1_Replica_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_text address;
    wire_bind_text(&pb.address, &address, &decoder, WIRE_ADDRESS, out->address,
                   sizeof(out->address));
    int error = wire_decode(&decoder, shardkv_v1_Replica_fields, &pb);
    out->id = pb.id;
    return error;
}

static int group_take_replica(void *context, struct bytes element)
{
    struct config_group *group = context;
    if (group->replica_count == GROUP_REPLICAS_MAX) {
        return ERR_TOO_LARGE;
    }
    int error = replica_decode(element, &group->replicas[group->replica_count]);
    if (error == ERR_OK) {
        group->replica_count++;
    }
    return error;
}

void msg__bind_group(shardkv_v1_Group *pb, struct wire_list *replicas, struct wire_decoder *decoder,
                     struct config_group *out)
{
    *out = (struct config_group){0};
    wire_bind_list(&pb->replicas, replicas, decoder, group_take_replica, out);
}

void msg__load_group(const shardkv_v1_Group *pb, struct config_group *out)
{
    out->id = pb->id;
    out->departed = pb->departed;
    out->members_index = pb->members_index;
}

int msg__group_decode(struct bytes bytes, struct config_group *out)
{
    shardkv_v1_Group pb = shardkv_v1_Group_init_zero;
    struct wire_decoder decoder = {.input = bytes};
    struct wire_list replicas;
    msg__bind_group(&pb, &replicas, &decoder, out);
    int error = wire_decode(&decoder, shardkv_v1_Group_fields, &pb);
    msg__load_group(&pb, out);
    return error;
}

static bool group_put_replica(pb_ostream_t *stream, const pb_field_t *field, const void *context,
                              uint32_t index)
{
    const struct config_group *group = context;
    const struct config_replica *replica = &group->replicas[index];
    shardkv_v1_Replica pb = shardkv_v1_Replica_init_zero;
    struct bytes address = wire_text_view(replica->address, sizeof(replica->address));
    pb.id = replica->id;
    wire_put_bytes(&pb.address, &address);
    return wire_put_message(stream, field, shardkv_v1_Replica_fields, &pb);
}

void msg__fill_group(shardkv_v1_Group *pb, struct wire_parts *replicas,
                     const struct config_group *group)
{
    ASSERT_CMP(group->replica_count, <=, GROUP_REPLICAS_MAX);
    pb->id = group->id;
    pb->departed = group->departed;
    pb->members_index = group->members_index;
    wire_put_parts(&pb->replicas, replicas, group->replica_count, group_put_replica, group);
}

bool msg__put_group(pb_ostream_t *stream, const pb_field_t *field, const struct config_group *group)
{
    shardkv_v1_Group pb = shardkv_v1_Group_init_zero;
    struct wire_parts replicas;
    msg__fill_group(&pb, &replicas, group);
    return wire_put_message(stream, field, shardkv_v1_Group_fields, &pb);
}

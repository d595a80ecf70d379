/* Private to this room: headers, routes and groups inside other messages, to and from nanopb's
 * structs.
 *
 * Decoding binds before and loads after: msg__bind_* sets the callbacks of a nanopb struct so that
 * they fill the message, msg__load_* then copies its plain fields. Encoding is msg__put_*. The
 * binding structs live as long as the decoding or encoding. */
#ifndef PROTO_MESSAGES_PARTS_H
#define PROTO_MESSAGES_PARTS_H

#include "proto/messages.h"
#include "proto/shardkv.pb.h"
#include "proto/wire.h"

void msg__load_request_header(const shardkv_v1_RequestHeader *pb, struct msg_request_header *out);
/* Nothing is written for a header of zeroes: both sides read it so. */
void msg__put_request_header(bool *has, shardkv_v1_RequestHeader *pb,
                             const struct msg_request_header *message);

struct msg__route_in {
    struct wire_list addresses;
    struct wire_text leader_address;
};
void msg__bind_route(shardkv_v1_Route *pb, struct msg__route_in *in, struct wire_decoder *decoder,
                     struct msg_route *out);
void msg__load_route(const shardkv_v1_Route *pb, struct msg_route *out);

struct msg__route_out {
    struct wire_parts addresses;
    struct bytes leader_address;
};
void msg__put_route(shardkv_v1_Route *pb, struct msg__route_out *out,
                    const struct msg_route *message);

struct msg__response_in {
    struct wire_text message;
    struct msg__route_in route;
};
void msg__bind_response_header(shardkv_v1_ResponseHeader *pb, struct msg__response_in *in,
                               struct wire_decoder *decoder, struct msg_response_header *out);
void msg__load_response_header(const shardkv_v1_ResponseHeader *pb,
                               struct msg_response_header *out);

struct msg__text_out {
    struct bytes text;
    char clean[TEXT_BYTES_MAX];
};
/* A text for people: what is not UTF-8 in it is replaced, so that the reader does not refuse the
 * message. */
void msg__put_text(pb_callback_t *field, struct msg__text_out *out, const char *text,
                   size_t capacity);

struct msg__response_out {
    struct msg__text_out message;
    struct msg__route_out route;
};
void msg__put_response_header(bool *has, shardkv_v1_ResponseHeader *pb,
                              struct msg__response_out *out,
                              const struct msg_response_header *message);

/* A Group, as messages hold it: ids and texts are checked, what they mean is not. */
int msg__group_decode(struct bytes bytes, struct config_group *out) MUST_USE;
bool msg__put_group(pb_ostream_t *stream, const pb_field_t *field,
                    const struct config_group *group);
/* The same, where a message holds exactly one. */
void msg__bind_group(shardkv_v1_Group *pb, struct wire_list *replicas, struct wire_decoder *decoder,
                     struct config_group *out);
void msg__load_group(const shardkv_v1_Group *pb, struct config_group *out);
void msg__fill_group(shardkv_v1_Group *pb, struct wire_parts *replicas,
                     const struct config_group *group);

#endif

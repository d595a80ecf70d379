/* Operations, packed. The bytes a client makes are the bytes that are replicated, stored in the log
 * and applied: never encoded again on the way (measured: nanopb costs 300 ns an operation each way,
 * this about 8 to pack and 17 to read).
 *
 * Block (BatchRequest.operations; also one command of a shard group's log):
 *     u8  version = 1
 *     u64 client_id            0: no exactly-once protection
 *     varint acked_below       every sequence below it will never be sent again
 *     varint age_ms            of the oldest operation, since it was first sent
 *     varint count             1 .. BLOCK_OPERATIONS_MAX
 *     count x operation
 * Operation:
 *     u8 kind, varint sequence (0 with client_id 0 and with gets), varint shard, sized key,
 *     PUT, APPEND: sized value · CAS: varint expected_version, sized value
 * Results (BatchResponse.results), in the order of the operations:
 *     varint count, count x { varint code, varint version, GET only: sized value }
 * `varint` is LEB128, `sized` a varint size and the bytes, u64 little-endian (base/codec.h).
 *
 * A block of gets carries only gets, any other block none. Gets have sequence 0. Writes with a
 * client id have strictly ascending sequences, so that no two of one block are the same command and
 * one comparison an operation proves it; who packs a retry together with newer commands sorts them.
 */
#ifndef PROTO_COMMAND_H
#define PROTO_COMMAND_H

#include "base/codec.h"
#include "base/error.h"
#include "proto/limits.h"

enum op_kind { OP_GET = 1, OP_PUT, OP_APPEND, OP_DELETE, OP_CAS };

struct op {
    enum op_kind kind;
    uint64_t sequence;
    uint32_t shard;
    uint64_t expected_version; /* CAS */
    struct bytes key;
    struct bytes value; /* PUT, APPEND, CAS */
};

struct block_header {
    uint64_t client_id;
    uint64_t acked_below;
    uint64_t age_ms;
    uint32_t count;
};

struct op_result {
    int error; /* enum err */
    uint64_t version;
    struct bytes value; /* GET */
};

void block_put_header(struct buf *out, const struct block_header *header);
void block_put_op(struct buf *out, const struct op *op);
/* Bytes block_put_op would add, for packing up to a limit. */
size_t block_op_bytes(const struct op *op);

/* Walks a block. Views point into `block`. */
struct block_reader {
    struct reader reader;
    struct block_header header;
    uint32_t read_count;
};
/* ERR_PROTOCOL, ERR_UNSUPPORTED (version) or 0. */
int block_open(struct bytes block, struct block_reader *out) MUST_USE;
/* The next operation; ERR_PROTOCOL when the bytes are not right, ERR_TOO_LARGE for a key or value
 * over its limit, ERR_INVALID for an empty key, ERR_NOT_FOUND after the last one (then all bytes
 * were used). */
int block_next(struct block_reader *block, struct op *out) MUST_USE;
/* Walks all of it once: format, limits, shard == shard_of_key(key, shard_count), kind of block,
 * sequences as said above. What a server does before it proposes anything. Errors as of block_open
 * and block_next; ERR_SHARD_RANGE for a shard not below shard_count; ERR_PROTOCOL for a key that is
 * not of its shard. `reads`: the block must be gets. */
int block_check(struct bytes block, bool reads, uint32_t shard_count,
                struct block_header *header) MUST_USE;

void results_put_count(struct buf *out, uint32_t count);
void results_put(struct buf *out, enum op_kind kind, const struct op_result *result);
/* Bytes results_put would add, for answering up to RESULTS_BYTES_MAX. */
size_t results_bytes(enum op_kind kind, const struct op_result *result);

/* ERR_PROTOCOL, ERR_TOO_LARGE (more than RESULTS_BYTES_MAX) or 0. */
int results_open(struct bytes results, struct reader *reader, uint32_t *count) MUST_USE;
/* `kind` of the operation the next result belongs to. ERR_PROTOCOL also when there is none left;
 * the caller knows how many there are, and that reader_done() holds after the last. result.value is
 * a view into `results`. */
int results_next(struct reader *reader, enum op_kind kind, struct op_result *out) MUST_USE;

#endif

/* Membership as bytes: the payload of a RAFT_ENTRY_MEMBERSHIP entry and part of a snapshot's
 * description.
 *
 *     u8 version (1) | u8 count | count x ( varint id | u8 role | sized address )
 *
 * Members come by ascending id. The position is not part of it: an entry's own position says where
 * it stands. */
#include "raft/core/core_internal.h"

#include "base/codec.h"

#include <string.h>

enum { MEMBERSHIP_VERSION = 1 };
static_assert(RAFT_MEMBERS_MAX <= UINT8_MAX, "the count is one byte");

const struct raft_member *raft_membership_find(const struct raft_membership *membership,
                                               uint64_t id)
{
    for (uint32_t i = 0; i < membership->count; i++) {
        if (membership->members[i].id == id) {
            return &membership->members[i];
        }
    }
    return NULL;
}

uint32_t raft_membership_voter_count(const struct raft_membership *membership)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < membership->count; i++) {
        count += membership->members[i].role == RAFT_VOTER ? 1 : 0;
    }
    return count;
}

bool core__membership_valid(const struct raft_membership *membership)
{
    if (membership->count > RAFT_MEMBERS_MAX) {
        return false;
    }
    uint64_t previous = 0;
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct raft_member *member = &membership->members[i];
        bool role_known = member->role == RAFT_VOTER || member->role == RAFT_LEARNER;
        if (member->id <= previous || !role_known ||
            memchr(member->address, '\0', sizeof(member->address)) == NULL) {
            return false;
        }
        previous = member->id;
    }
    return true;
}

void raft_membership_encode(const struct raft_membership *membership, struct buf *out)
{
    ASSERT(core__membership_valid(membership));
    put_u8(out, MEMBERSHIP_VERSION);
    put_u8(out, (uint8_t)membership->count);
    for (uint32_t i = 0; i < membership->count; i++) {
        const struct raft_member *member = &membership->members[i];
        put_varint(out, member->id);
        put_u8(out, (uint8_t)member->role);
        put_sized(out, bytes_of_string(member->address));
    }
}

int raft_membership_decode(struct bytes bytes, struct raft_membership *out)
{
    struct reader reader = reader_of(bytes);
    memset(out, 0, sizeof(*out));
    uint8_t version = get_u8(&reader);
    uint8_t count = get_u8(&reader);
    if (reader.failed || version != MEMBERSHIP_VERSION || count > RAFT_MEMBERS_MAX) {
        return ERR_PROTOCOL;
    }
    out->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct raft_member *member = &out->members[i];
        member->id = get_varint(&reader);
        member->role = (enum raft_role)get_u8(&reader);
        struct bytes address = get_sized(&reader, RAFT_ADDRESS_BYTES_MAX - 1);
        if (reader.failed ||
            (address.size > 0 && memchr(address.data, '\0', address.size) != NULL)) {
            return ERR_PROTOCOL;
        }
        if (address.size > 0) {
            memcpy(member->address, address.data, address.size);
        }
    }
    return reader_done(&reader) && core__membership_valid(out) ? ERR_OK : ERR_PROTOCOL;
}

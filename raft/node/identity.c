/* The identity file; see identity.h for its bytes. */
#include "raft/node/identity.h"

#include "base/assert.h"
#include "base/codec.h"
#include "base/crc32c.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    IDENTITY_VERSION = 1,
    MAGIC_BYTES = 8,
    CHECKED_FROM = MAGIC_BYTES + 4,
    FILE_BYTES_MAX = 4096,
};
static const char magic[MAGIC_BYTES] = {'S', 'K', 'V', 'I', 'D', 'E', 'N', 'T'};
static const char file_name[] = "identity";

_Static_assert(CHECKED_FROM + 4 + 5 * 8 + 4 + IDENTITY_PEERS_MAX * 16 <= FILE_BYTES_MAX,
               "the largest identity is within what load accepts");

static int decode(struct bytes bytes, struct identity *out)
{
    if (bytes.size < CHECKED_FROM || memcmp(bytes.data, magic, MAGIC_BYTES) != 0 ||
        load_u32(bytes.data + MAGIC_BYTES) !=
            crc32c_extend(0, bytes.data + CHECKED_FROM, bytes.size - CHECKED_FROM)) {
        return ERR_CORRUPT;
    }
    struct reader reader =
        reader_of(bytes_of(bytes.data + CHECKED_FROM, bytes.size - CHECKED_FROM));
    if (get_u32(&reader) != IDENTITY_VERSION) {
        return reader.failed ? ERR_CORRUPT : ERR_UNSUPPORTED;
    }
    out->cluster_id = get_u64(&reader);
    out->group_id = get_u64(&reader);
    out->replica_id = get_u64(&reader);
    out->incarnation = get_u64(&reader);
    out->log_time_ms = get_u64(&reader);
    out->peer_count = get_u32(&reader);
    if (reader.failed || out->incarnation == 0 || out->peer_count > IDENTITY_PEERS_MAX) {
        return ERR_CORRUPT;
    }
    for (uint32_t i = 0; i < out->peer_count; i++) {
        out->peers[i].id = get_u64(&reader);
        out->peers[i].incarnation = get_u64(&reader);
        if (i > 0 && out->peers[i].id <= out->peers[i - 1].id) {
            return ERR_CORRUPT;
        }
    }
    return reader_done(&reader) ? ERR_OK : ERR_CORRUPT;
}

int identity_load(const struct vfs *vfs, const char *dir, struct identity *out, char *why,
                  size_t why_size)
{
    char path[VFS_PATH_BYTES_MAX];
    struct buf file;
    buf_init(&file);
    memset(out, 0, sizeof(*out));
    int error = vfs_path(path, dir, file_name);
    if (error == ERR_OK) {
        error = vfs_read_all(vfs, path, FILE_BYTES_MAX, &file);
    }
    if (error == ERR_OK) {
        error = decode(buf_view(&file), out);
    } else if (error == ERR_TOO_LARGE) {
        error = ERR_CORRUPT;
    }
    buf_deinit(&file);
    if (error == ERR_CORRUPT) {
        snprintf(
            why, why_size,
            "%s/%s is damaged: keep the directory for inspection, remove this replica from its "
            "group and add it again under a new id with an empty directory",
            dir, file_name);
    } else if (error == ERR_UNSUPPORTED) {
        snprintf(why, why_size, "%s/%s was written by a newer version: use that version", dir,
                 file_name);
    } else if (error != ERR_OK && error != ERR_NOT_FOUND) {
        snprintf(why, why_size, "cannot read %s/%s: %s", dir, file_name, err_text(error));
    }
    return error;
}

int identity_store(const struct vfs *vfs, const char *dir, const struct identity *identity)
{
    ASSERT(identity->incarnation != 0);
    ASSERT_CMP(identity->peer_count, <=, IDENTITY_PEERS_MAX);
    struct buf file;
    buf_init(&file);
    buf_append(&file, magic, MAGIC_BYTES);
    put_u32(&file, 0);
    put_u32(&file, IDENTITY_VERSION);
    put_u64(&file, identity->cluster_id);
    put_u64(&file, identity->group_id);
    put_u64(&file, identity->replica_id);
    put_u64(&file, identity->incarnation);
    put_u64(&file, identity->log_time_ms);
    put_u32(&file, identity->peer_count);
    for (uint32_t i = 0; i < identity->peer_count; i++) {
        put_u64(&file, identity->peers[i].id);
        put_u64(&file, identity->peers[i].incarnation);
    }
    store_u32(file.data + MAGIC_BYTES,
              crc32c_extend(0, file.data + CHECKED_FROM, file.size - CHECKED_FROM));
    int error = vfs_write_atomic(vfs, dir, file_name, buf_view(&file));
    buf_deinit(&file);
    return error;
}

int identity_check(const struct identity *identity, uint64_t cluster_id, uint64_t group_id,
                   uint64_t replica_id, char *why, size_t why_size)
{
    if (identity->cluster_id != cluster_id) {
        snprintf(why, why_size,
                 "the directory belongs to cluster %016" PRIx64 ", not %016" PRIx64
                 ": give the cluster's own name, or another directory",
                 identity->cluster_id, cluster_id);
        return ERR_WRONG_CLUSTER;
    }
    if (identity->group_id != group_id || identity->replica_id != replica_id) {
        snprintf(why, why_size,
                 "the directory belongs to replica %" PRIu64 " of group %" PRIu64
                 ", not replica %" PRIu64 " of group %" PRIu64
                 ": give its own ids, or another directory",
                 identity->replica_id, identity->group_id, replica_id, group_id);
        return ERR_WRONG_REPLICA;
    }
    return ERR_OK;
}

uint64_t identity_peer_incarnation(const struct identity *identity, uint64_t id)
{
    for (uint32_t i = 0; i < identity->peer_count; i++) {
        if (identity->peers[i].id == id) {
            return identity->peers[i].incarnation;
        }
    }
    return 0;
}

bool identity_peer_learn(struct identity *identity, uint64_t id, uint64_t incarnation)
{
    ASSERT_CMP(identity_peer_incarnation(identity, id), ==, 0);
    if (identity->peer_count == IDENTITY_PEERS_MAX) {
        return false;
    }
    uint32_t place = identity->peer_count;
    while (place > 0 && identity->peers[place - 1].id > id) {
        identity->peers[place] = identity->peers[place - 1];
        place--;
    }
    identity->peers[place] = (struct identity_peer){.id = id, .incarnation = incarnation};
    identity->peer_count++;
    return true;
}

bool identity_peers_keep(struct identity *identity, const struct raft_membership *membership)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < identity->peer_count; i++) {
        if (raft_membership_find(membership, identity->peers[i].id) != NULL) {
            identity->peers[kept++] = identity->peers[i];
        }
    }
    bool changed = kept != identity->peer_count;
    identity->peer_count = kept;
    return changed;
}

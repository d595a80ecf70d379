/* The one error table.
 *
 * Every fallible function returns int: 0 (ERR_OK) or a negative `enum err`. The same numbers, positive, travel
 * on the wire (proto/shardkv.proto, field `code`), so a row's number never changes and is never reused.
 *
 * The outcome column says what a client may believe about a *command* (put, append, join, ...) that was
 * answered with this error: DONE, NOT_DONE (surely not executed, now or later), or UNKNOWN (may have been, may
 * yet be). Nothing above may blur these. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#define MUST_USE __attribute__((warn_unused_result))

enum err_outcome { OUTCOME_DONE, OUTCOME_NOT_DONE, OUTCOME_UNKNOWN };

/*  name               number outcome   text */
#define ERROR_TABLE(X)                                                                                \
    X(INVALID,            1, NOT_DONE, "invalid argument")                                            \
    X(TOO_LARGE,          2, NOT_DONE, "too large")                                                   \
    X(NOT_FOUND,          3, NOT_DONE, "not found")                                                   \
    X(EXISTS,             4, NOT_DONE, "exists already")                                              \
    X(BUSY,               5, NOT_DONE, "busy: not executed, try again")                               \
    X(TIMEOUT,            6, UNKNOWN,  "deadline passed: outcome unknown")                            \
    X(CANCELED,           7, UNKNOWN,  "cancelled: outcome unknown")                                  \
    X(UNAVAILABLE,        8, UNKNOWN,  "connection lost or refused: outcome unknown")                 \
    X(SHUTDOWN,           9, NOT_DONE, "shutting down: not executed")                                 \
    X(IO,                10, UNKNOWN,  "input/output error")                                          \
    X(NO_SPACE,          11, NOT_DONE, "no space left: not executed")                                 \
    X(CORRUPT,           12, UNKNOWN,  "stored or received bytes are corrupt")                        \
    X(PROTOCOL,          13, NOT_DONE, "malformed message")                                           \
    X(UNSUPPORTED,       14, NOT_DONE, "not supported by this version")                               \
    X(NOT_LEADER,        20, NOT_DONE, "this replica is not the leader")                              \
    X(LEADER_LOST,       21, UNKNOWN,  "leadership was lost while the command was in flight")         \
    X(WRONG_GROUP,       22, NOT_DONE, "this group does not own the shard")                           \
    X(SHARD_MOVING,      23, NOT_DONE, "the shard is being moved: not executed, try again")           \
    X(WRONG_CLUSTER,     24, NOT_DONE, "cluster id does not match")                                   \
    X(WRONG_REPLICA,     25, NOT_DONE, "replica identity does not match")                             \
    X(CONFIG_BEHIND,     26, NOT_DONE, "this group has not reached that config yet, try again")       \
    X(SESSION_EXPIRED,   30, UNKNOWN,  "client session expired: outcome unknown")                     \
    X(SEQUENCE_STALE,    31, UNKNOWN,  "sequence was acknowledged or superseded before")              \
    X(SEQUENCE_REUSED,   32, NOT_DONE, "sequence was used before with another command")               \
    X(SESSIONS_FULL,     33, NOT_DONE, "too many live client sessions: not executed, try again")      \
    X(VERSION_MISMATCH,  40, NOT_DONE, "the key's version is not the expected one")                   \
    X(GROUP_UNKNOWN,     50, NOT_DONE, "no such group in the config")                                 \
    X(GROUP_EXISTS,      51, NOT_DONE, "a group with this id is in the config already")               \
    X(ADDRESS_IN_USE,    52, NOT_DONE, "the address is used twice or by another group")               \
    X(SHARD_RANGE,       53, NOT_DONE, "shard number out of range")                                   \
    X(TABLE_FULL,        54, NOT_DONE, "the config's table is full")                                  \
    X(CONFIG_UNKNOWN,    55, NOT_DONE, "no config with this number")                                  \
    X(LAST_GROUP,        56, NOT_DONE, "this would leave no group: say force to do it")               \
    X(MEMBERSHIP_BUSY,   60, NOT_DONE, "another membership change is in progress")                    \
    X(MEMBERSHIP_BAD,    61, NOT_DONE, "the membership change is not valid")                          \
    X(TRANSFER_FAILED,   62, NOT_DONE, "leadership was not transferred")                              \
    X(NO_QUORUM,         63, NOT_DONE, "no contact with a majority: not executed")

enum err {
    ERR_OK = 0,
#define X(name, number, outcome, text) ERR_##name = -(number),
    ERROR_TABLE(X)
#undef X
};

/* The row's text ("ok" for 0; "unknown error" for a number not in the table). Static storage. */
const char *err_text(int error);

/* The row's name, for machines ("NOT_LEADER"; "OK"; "UNKNOWN_ERROR"). Static storage. */
const char *err_name(int error);

/* What a client may believe about a command answered with `error`. 0 is DONE; an unlisted number UNKNOWN. */
enum err_outcome err_outcome(int error);

/* Wire numbers are the table's, positive; 0 is ERR_OK. A number that this version does not list (a newer peer sent it)
 * becomes ERR_IO, because that row's outcome is UNKNOWN: nothing may be concluded from an error we cannot read. In the
 * other direction an error that is not in the table is sent as ERR_IO for the same reason. */
int err_from_wire(unsigned code);
unsigned err_to_wire(int error);

#endif

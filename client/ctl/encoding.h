/* Bytes as words on a command line: plain, hexadecimal or base64 (RFC 4648). */
#ifndef CLIENT_CTL_ENCODING_H
#define CLIENT_CTL_ENCODING_H

#include "base/bytes.h"
#include "base/error.h"

enum encoding { ENCODING_PLAIN, ENCODING_HEX, ENCODING_BASE64 };

/* Appends; ERR_INVALID when the text is not that. Whitespace at the end is forgiven (a line from a
 * file). */
int encoding_decode(enum encoding encoding, struct bytes text, struct buf *out) MUST_USE;
void encoding_encode(enum encoding encoding, struct bytes bytes, struct buf *out);

#endif

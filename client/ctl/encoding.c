/* Hexadecimal and base64. Pure; any thread. */
#include "client/ctl/encoding.h"

#include "base/codec.h"
#include <string.h>

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int hex_decode(struct bytes text, struct buf *out)
{
    if (text.size % 2 != 0) {
        return ERR_INVALID;
    }
    for (size_t i = 0; i < text.size; i += 2) {
        int high = hex_digit(text.data[i]);
        int low = hex_digit(text.data[i + 1]);
        if (high < 0 || low < 0) {
            return ERR_INVALID;
        }
        put_u8(out, (uint8_t)(high * 16 + low));
    }
    return 0;
}

static int base64_digit(uint8_t c)
{
    const char *at = c != '\0' ? strchr(base64_digits, c) : NULL;
    return at != NULL ? (int)(at - base64_digits) : -1;
}

static int base64_decode(struct bytes text, struct buf *out)
{
    if (text.size % 4 != 0) {
        return ERR_INVALID;
    }
    for (size_t i = 0; i < text.size; i += 4) {
        const uint8_t *at = text.data + i;
        bool last = i + 4 == text.size;
        uint32_t padding = last && at[3] == '=' ? (at[2] == '=' ? 2u : 1u) : 0u;
        uint32_t group = 0;
        for (uint32_t k = 0; k < 4; k++) {
            int digit = k < 4 - padding ? base64_digit(at[k]) : 0;
            if (digit < 0) {
                return ERR_INVALID;
            }
            group = group << 6 | (uint32_t)digit;
        }
        /* Bits that no byte needs must be zero, so that bytes have one form only. */
        if ((padding == 1 && (group & 0xff) != 0) || (padding == 2 && (group & 0xffff) != 0)) {
            return ERR_INVALID;
        }
        for (uint32_t k = 0; k < 3 - padding; k++) {
            put_u8(out, (uint8_t)(group >> (16 - 8 * k)));
        }
    }
    return 0;
}

int encoding_decode(enum encoding encoding, struct bytes text, struct buf *out)
{
    if (encoding == ENCODING_PLAIN) {
        buf_append_bytes(out, text);
        return 0;
    }
    while (text.size > 0 && strchr(" \t\r\n", text.data[text.size - 1]) != NULL &&
           text.data[text.size - 1] != '\0') {
        text.size--;
    }
    return encoding == ENCODING_HEX ? hex_decode(text, out) : base64_decode(text, out);
}

static void base64_encode(struct bytes bytes, struct buf *out)
{
    for (size_t i = 0; i < bytes.size; i += 3) {
        size_t left = bytes.size - i;
        uint32_t group = (uint32_t)bytes.data[i] << 16;
        group |= left > 1 ? (uint32_t)bytes.data[i + 1] << 8 : 0;
        group |= left > 2 ? (uint32_t)bytes.data[i + 2] : 0;
        put_u8(out, (uint8_t)base64_digits[group >> 18]);
        put_u8(out, (uint8_t)base64_digits[group >> 12 & 63]);
        put_u8(out, (uint8_t)(left > 1 ? base64_digits[group >> 6 & 63] : '='));
        put_u8(out, (uint8_t)(left > 2 ? base64_digits[group & 63] : '='));
    }
}

void encoding_encode(enum encoding encoding, struct bytes bytes, struct buf *out)
{
    switch (encoding) {
    case ENCODING_PLAIN:
        buf_append_bytes(out, bytes);
        break;
    case ENCODING_HEX:
        for (size_t i = 0; i < bytes.size; i++) {
            static const char digits[] = "0123456789abcdef";
            put_u8(out, (uint8_t)digits[bytes.data[i] >> 4]);
            put_u8(out, (uint8_t)digits[bytes.data[i] & 15]);
        }
        break;
    case ENCODING_BASE64:
        base64_encode(bytes, out);
        break;
    }
}

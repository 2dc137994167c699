/* Texts of Parquet's pages, decompressed: values one after the other, each behind its length in four bytes, the lowest
 * first; references into a dictionary and whether a value is there as runs of equal numbers and of packed bits
 * (https://github.com/apache/parquet-format/blob/master/Encodings.md). What is in any way odd is -1: Arrow is asked. */

static inline i64 length_at(const u8 *data) { return data[0] | data[1] << 8 | data[2] << 16 | (i64)data[3] << 24; }

/* The length of the longest of so many values that fill `size` bytes; -1 when they do not. */
i64 lintas_longest(const u8 *data, i64 size, i64 values) {
    i64 at = 0, longest = 0;
    for (i64 value = 0; value < values; value++) {
        if (size - at < 4) return -1;
        i64 length = length_at(data + at);
        at += 4;
        if (length > size - at) return -1;
        at += length;
        if (length > longest) longest = length;
    }
    return at == size ? longest : -1;
}

/* The head of a run: twice its length, and one more where it is of packed bits. Answers where it ends, or -1. */
static i64 run_head(const u8 *page, i64 at, i64 end, i64 *head) {
    *head = 0;
    for (int shift = 0; at < end && shift < 35; shift += 7) {
        u8 byte = page[at++];
        *head |= (i64)(byte & 127) << shift;
        if (byte < 128) return *head > 1 ? at : -1;
    }
    return -1;
}

/* How many of a page's values are there, by the levels at its beginning; `begin` becomes where they end. */
static i64 filled(const u8 *page, i64 size, i64 values, i64 *begin) {
    if (size < 4 || length_at(page) > size - 4) return -1;
    i64 at = 4, end = 4 + length_at(page), there = 0, head;
    for (i64 left = values; left;) {
        if ((at = run_head(page, at, end, &head)) < 0) return -1;
        if (head & 1) {
            if (head >> 1 > end - at) return -1;
            for (i64 k = 0; k < head >> 1 && left; k++) {
                i64 some = left < 8 ? left : 8;
                there += __builtin_popcount(page[at + k] & ((1 << some) - 1)), left -= some;
            }
            at += head >> 1;
        } else {
            i64 some = head >> 1 < left ? head >> 1 : left;
            if (at == end || page[at] > 1) return -1;
            there += page[at++] * some, left -= some;
        }
    }
    *begin = end;
    return there;
}

/* Up to eight bytes from a place on, of which so many are there, as a number: the lowest first. */
static inline uint64_t word_from(const u8 *data, i64 room) {
    uint64_t word = 0;
    if (room >= 8) memcpy(&word, data, 8);
    else memcpy(&word, data, (size_t)room);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Counts how often a page of so many values, which may be missing where they are `optional`, refers to each entry of its
 * dictionary. Answers how many are there. */
i64 lintas_referred(const u8 *page, i64 size, i64 values, int optional, i64 *counts, i64 entries) {
    i64 at = 0, there = optional ? filled(page, size, values, &at) : values, head;
    if (there <= 0) return there;
    if (at == size || page[at] > 32) return -1;
    int width = page[at++];
    uint64_t mask = ((uint64_t)1 << width) - 1;
    for (i64 left = there; left;) {
        if ((at = run_head(page, at, size, &head)) < 0) return -1;
        if (head & 1) {
            i64 bytes = (head >> 1) * width, some = (head >> 1) * 8 < left ? (head >> 1) * 8 : left;
            if (bytes > size - at) return -1;
            for (i64 k = 0; k < some; k++) {
                i64 from = at + (k * width >> 3);
                i64 entry = (i64)(word_from(page + from, size - from) >> (k * width & 7) & mask);
                if (entry >= entries) return -1;
                counts[entry]++;
            }
            at += bytes, left -= some;
        } else {
            i64 entry = 0, some = head >> 1 < left ? head >> 1 : left;
            if ((width + 7) / 8 > size - at) return -1;
            for (int k = 0; k < (width + 7) / 8; k++) entry |= (i64)page[at++] << 8 * k;
            if (entry >= entries) return -1;
            counts[entry] += some, left -= some;
        }
    }
    return there;
}

/* Copies texts together that fill what is left of a page: all, or those with a count, whose counts move along. */
static i64 together(const u8 *page, i64 at, i64 size, i64 values, i64 *counts, u8 *text, i64 *offsets) {
    i64 kept = 0, used = 0;
    offsets[0] = 0;
    for (i64 value = 0; value < values; value++) {
        if (size - at < 4) return -1;
        i64 length = length_at(page + at);
        at += 4;
        if (length > size - at) return -1;
        if (!counts || counts[value]) {
            if (length <= SPARE && size - at >= SPARE) memcpy(text + used, page + at, SPARE);
            else memcpy(text + used, page + at, (size_t)length);
            if (counts) counts[kept] = counts[value];
            offsets[++kept] = used += length;
        }
        at += length;
    }
    return at == size ? kept : -1;
}

/* The texts of a dictionary to which something refers. Answers how many; `offsets` are one more, and `text` has the room
 * of the page and SPARE bytes. */
i64 lintas_entries(const u8 *page, i64 size, i64 values, i64 *counts, u8 *text, i64 *offsets) {
    return together(page, 0, size, values, counts, text, offsets);
}

/* The texts of a page that holds them itself. */
i64 lintas_texts(const u8 *page, i64 size, i64 values, int optional, u8 *text, i64 *offsets) {
    i64 at = 0, there = optional ? filled(page, size, values, &at) : values;
    return there < 0 ? -1 : together(page, at, size, there, 0, text, offsets);
}

/* Texts of Parquet's pages as they are written again: references read, texts laid one behind the other, and pieces of
 * texts replaced wherever they stand. The file follows `parquet.c`, whose runs it reads. */

/* So many numbers of `width` bits, in runs of equal ones and of packed bits. Answers 0, or -1 where they are odd. */
i64 lintas_numbers(const u8 *page, i64 size, int width, i64 count, i64 *numbers) {
    i64 at = 0, done = 0, head, bytes = (width + 7) / 8;
    uint64_t mask = ((uint64_t)1 << width) - 1;
    while (done < count) {
        if ((at = run_head(page, at, size, &head)) < 0) return -1;
        i64 length = head & 1 ? (head >> 1) * width : bytes, some = head & 1 ? (head >> 1) * 8 : head >> 1;
        if (length > size - at) return -1;
        if (some > count - done) some = count - done;
        for (i64 k = 0; k < some; k++) {
            i64 from = head & 1 ? at + (k * width >> 3) : at, shift = head & 1 ? k * width & 7 : 0;
            i64 room = head & 1 ? size - from : bytes;
            numbers[done + k] = (i64)(word_from(page + from, room) >> shift & mask);
        }
        at += length, done += some;
    }
    return 0;
}

/* Writes texts one behind the other, each behind its length in four bytes: all, or those of the numbers in `which`.
 * Before `data_end` bytes may be read. Answers how many bytes were written; `out` has SPARE more. */
i64 lintas_laid(const i64 *offsets, const u8 *data, i64 data_end, const i64 *which, i64 count, u8 *out) {
    u8 *to = out;
    for (i64 k = 0; k < count; k++) {
        i64 text = which ? which[k] : k, from = offsets[text], length = offsets[text + 1] - from;
        for (int b = 0; b < 4; b++) *to++ = (u8)(length >> 8 * b);
        if (length <= SPARE && data_end - from >= SPARE) memcpy(to, data + from, SPARE);
        else memcpy(to, data + from, (size_t)length);
        to += length;
    }
    return to - out;
}

static inline uint64_t first_bytes(const u8 *at, const u8 *end, int width) {
    uint64_t word = word_from(at, end - at);
    return width == 8 ? word : word & (((uint64_t)1 << 8 * width) - 1);
}

static inline uint64_t spread(uint64_t word) { return (word ^ word >> 29) * 0x9E3779B97F4A7C15u; }

/* Replaces pieces wherever they stand in the texts, from left to right: at each place the first one in order that
 * fits, and nothing twice. Every piece has at least `width` bytes, 8 at most. `slots` (-1, a power of two in number,
 * more than the pieces) and `next` are room to find them by their first bytes. Answers the bytes written; -1 when they
 * would be more than `room`. `ends` are where the texts end. */
i64 lintas_replace(const i64 *offsets, const u8 *data, i64 texts, const i64 *piece_offsets, const u8 *pieces, i64 count,
                   int width, const i64 *with_offsets, const u8 *with, i32 *slots, i64 slot_count, i32 *next, u8 *out,
                   i64 room, i64 *ends) {
    static const int BITS = 16;
    u8 seen[1 << 13] = {0};
    const u8 *last = pieces + piece_offsets[count];
    for (i64 piece = count - 1; piece >= 0; piece--) {
        uint64_t key = spread(first_bytes(pieces + piece_offsets[piece], last, width));
        i64 slot = (i64)(key >> 20) & (slot_count - 1);
        next[piece] = slots[slot], slots[slot] = (i32)piece;
        seen[key >> (64 - BITS) >> 3] |= (u8)(1 << (key >> (64 - BITS) & 7));
    }
    i64 used = 0;
    for (i64 text = 0; text < texts; text++) {
        const u8 *at = data + offsets[text], *end = data + offsets[text + 1], *kept = at;
        while (end - at >= width) {
            uint64_t key = spread(first_bytes(at, end, width));
            i32 piece = -1;
            if (seen[key >> (64 - BITS) >> 3] >> (key >> (64 - BITS) & 7) & 1)
                for (piece = slots[(i64)(key >> 20) & (slot_count - 1)]; piece >= 0; piece = next[piece]) {
                    i64 length = piece_offsets[piece + 1] - piece_offsets[piece];
                    if (length <= end - at && !memcmp(at, pieces + piece_offsets[piece], (size_t)length)) break;
                }
            if (piece < 0) {
                at++;
                continue;
            }
            i64 before = at - kept, length = with_offsets[piece + 1] - with_offsets[piece];
            if (before + length > room - used) return -1;
            memcpy(out + used, kept, (size_t)before), used += before;
            memcpy(out + used, with + with_offsets[piece], (size_t)length), used += length;
            kept = at += piece_offsets[piece + 1] - piece_offsets[piece];
        }
        if (end - kept > room - used) return -1;
        memcpy(out + used, kept, (size_t)(end - kept)), used += end - kept;
        ends[text] = used;
    }
    return used;
}

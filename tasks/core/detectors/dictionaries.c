/* Dictionaries of Parquet: values one after the other, each behind its length in four bytes, the lowest first. */

/* The length of the longest of so many values that fill `size` bytes; -1 when they do not. */
i64 lintas_longest(const u8 *data, i64 size, i64 values) {
    i64 at = 0, longest = 0;
    for (i64 value = 0; value < values; value++) {
        if (size - at < 4) return -1;
        i64 length = data[at] | data[at + 1] << 8 | data[at + 2] << 16 | (i64)data[at + 3] << 24;
        at += 4;
        if (length > size - at) return -1;
        at += length;
        if (length > longest) longest = length;
    }
    return at == size ? longest : -1;
}

/* Tokens and hashes of the values of Arrow's string buffers: HMAC-SHA256 (RFC 2104, FIPS 180-4) in base32 or hex.
 *
 * What the key alone decides, the states after its two padded blocks, is worked out once. Processors with
 * instructions for SHA-256 use them.
 */

typedef uint32_t u32;

static const u32 ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline u32 turned(u32 x, int by) { return x >> by | x << (32 - by); }

static void mix_portable(u32 *state, const u8 *block) {
    u32 w[64], s[8];
    for (int t = 0; t < 16; t++)
        w[t] = (u32)block[4 * t] << 24 | (u32)block[4 * t + 1] << 16 | (u32)block[4 * t + 2] << 8 | block[4 * t + 3];
    for (int t = 16; t < 64; t++)
        w[t] = w[t - 16] + w[t - 7] + (turned(w[t - 15], 7) ^ turned(w[t - 15], 18) ^ w[t - 15] >> 3) +
               (turned(w[t - 2], 17) ^ turned(w[t - 2], 19) ^ w[t - 2] >> 10);
    memcpy(s, state, sizeof s);
    for (int t = 0; t < 64; t++) {
        u32 one = s[7] + (turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) +
                  ROUND[t] + w[t];
        u32 two = (turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22)) +
                  ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        s[7] = s[6], s[6] = s[5], s[5] = s[4], s[4] = s[3] + one;
        s[3] = s[2], s[2] = s[1], s[1] = s[0], s[0] = one + two;
    }
    for (int k = 0; k < 8; k++) state[k] += s[k];
}

typedef void Mix(u32 *, const u8 *);
typedef void MixTwo(u32 *, const u8 *, u32 *, const u8 *);

static void mix_two_portable(u32 *one, const u8 *block, u32 *two, const u8 *other) {
    mix_portable(one, block), mix_portable(two, other);
}

static Mix *best_mix = mix_portable;
static MixTwo *best_mix_two = mix_two_portable;

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#include <immintrin.h>

/* One block after another waits for its own rounds; two at a time keep the processor busy. */
__attribute__((target("sha,sse4.1"))) static inline void mix_lanes(u32 *const *states, const u8 *const *blocks, const int lanes) {
    const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    __m128i abef[2], cdgh[2], abef_before[2], cdgh_before[2], w[2][4];
    for (int k = 0; k < lanes; k++) {
        __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)states[k]), 0xb1);
        __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(states[k] + 4)), 0x1b);
        abef_before[k] = abef[k] = _mm_alignr_epi8(low, high, 8);
        cdgh_before[k] = cdgh[k] = _mm_blend_epi16(high, low, 0xf0);
        for (int t = 0; t < 4; t++)
            w[k][t] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(blocks[k] + 16 * t)), order);
    }
#pragma GCC unroll 16
    for (int t = 0; t < 16; t++) {
        for (int k = 0; k < lanes; k++) {
            if (t >= 4) {
                __m128i sum = _mm_sha256msg1_epu32(w[k][t & 3], w[k][(t + 1) & 3]);
                sum = _mm_add_epi32(sum, _mm_alignr_epi8(w[k][(t + 3) & 3], w[k][(t + 2) & 3], 4));
                w[k][t & 3] = _mm_sha256msg2_epu32(sum, w[k][(t + 3) & 3]);
            }
            __m128i with = _mm_add_epi32(w[k][t & 3], _mm_loadu_si128((const __m128i *)(ROUND + 4 * t)));
            cdgh[k] = _mm_sha256rnds2_epu32(cdgh[k], abef[k], with);
            abef[k] = _mm_sha256rnds2_epu32(abef[k], cdgh[k], _mm_shuffle_epi32(with, 0x0e));
        }
    }
    for (int k = 0; k < lanes; k++) {
        __m128i first = _mm_shuffle_epi32(_mm_add_epi32(abef[k], abef_before[k]), 0x1b);
        __m128i second = _mm_shuffle_epi32(_mm_add_epi32(cdgh[k], cdgh_before[k]), 0xb1);
        _mm_storeu_si128((__m128i *)states[k], _mm_blend_epi16(first, second, 0xf0));
        _mm_storeu_si128((__m128i *)(states[k] + 4), _mm_alignr_epi8(second, first, 8));
    }
}

__attribute__((target("sha,sse4.1"))) static void mix_sha(u32 *state, const u8 *block) {
    mix_lanes((u32 *const[]){state}, (const u8 *const[]){block}, 1);
}

__attribute__((target("sha,sse4.1"))) static void mix_two_sha(u32 *one, const u8 *block, u32 *two, const u8 *other) {
    mix_lanes((u32 *const[]){one, two}, (const u8 *const[]){block, other}, 2);
}

static void choose_mix(void) {
    unsigned a, b, c, d;
    int known = __get_cpuid(1, &a, &b, &c, &d) && c & bit_SSE4_1 && c & bit_SSSE3;
    if (known && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b >> 29 & 1)
        best_mix = mix_sha, best_mix_two = mix_two_sha;
}
#else
static void choose_mix(void) {}
#endif

static void as_bytes(const u32 *state, u8 *bytes) {
    for (int k = 0; k < 8; k++)
        for (int b = 0; b < 4; b++) bytes[4 * k + b] = (u8)(state[k] >> (24 - 8 * b));
}

#define ONE_BLOCK 55 /* The most bytes that fit into a block with what ends a text. */

/* Pads the end of a text that follows one block, and answers how many bytes that makes. */
static int padded(u8 *last, const u8 *end_of_text, i64 left, i64 size) {
    int end = left <= ONE_BLOCK ? 64 : 128;
    i64 bits = (size + 64) * 8;
    memset(last, 0, end);
    if (left) memcpy(last, end_of_text, left);
    last[left] = 0x80;
    for (int b = 0; b < 8; b++) last[end - 1 - b] = (u8)(bits >> 8 * b);
    return end;
}

/* The digest of a text that follows one block, which `state` has seen already. */
static void finish(Mix *mix, u32 *state, const u8 *text, i64 size, u8 *digest) {
    u8 last[128];
    i64 left = size;
    for (; left >= 64; left -= 64, text += 64) mix(state, text);
    int end = padded(last, text, left, size);
    mix(state, last);
    if (end == 128) mix(state, last + 64);
    as_bytes(state, digest);
}

/* The digests of two texts of one block each. */
static void finish_two(MixTwo *mix, const u32 *start, const u8 *const *texts, const i64 *sizes, u8 (*digests)[40]) {
    u32 states[2][8];
    u8 last[2][64];
    for (int k = 0; k < 2; k++) memcpy(states[k], start, sizeof states[k]), padded(last[k], texts[k], sizes[k], sizes[k]);
    mix(states[0], last[0], states[1], last[1]);
    for (int k = 0; k < 2; k++) as_bytes(states[k], digests[k]);
}

/* The state after the key's block, padded and changed by one byte. */
static void begin(Mix *mix, u32 *state, const u8 *key, i64 size, u8 with) {
    static const u32 start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    u8 block[64];
    for (int at = 0; at < 64; at++) block[at] = (at < size ? key[at] : 0) ^ with;
    memcpy(state, start, sizeof start);
    mix(state, block);
}

static u8 *written(u8 *out, u8 *digest, int tokens) {
    if (!tokens) {
        for (int b = 0; b < 32; b++, out += 2)
            out[0] = "0123456789abcdef"[digest[b] >> 4], out[1] = "0123456789abcdef"[digest[b] & 15];
        return out;
    }
    memcpy(out, "tok_", 4), out += 4;
    uint64_t high = 0, low = 0;
    for (int byte = 0; byte < 8; byte++) high = high << 8 | digest[byte], low = low << 8 | digest[8 + byte];
    for (int pair = 0; pair < 12; pair++, out += 2) {
        memcpy(out, BASE32_PAIRS[high >> 54], 2);
        high = high << 10 | low >> 54, low <<= 10;
    }
    memcpy(out, BASE32_PAIRS[high >> 54], 2), out += 2;
    return out;
}

/* Writes for each of the values its token of 30 bytes, or its hash of 64. The key has at most 64 bytes. `portable`
 * leaves special instructions aside. */
void lintas_digests(const u8 *key, i64 key_size, const i64 *offsets, const u8 *data, i64 values, int tokens,
                    int portable, u8 *out) {
    u32 inner[8], outer[8], state[8];
    u8 digests[2][40] = {{0}};
    Mix *mix = portable ? mix_portable : best_mix;
    MixTwo *mix_two = portable ? mix_two_portable : best_mix_two;
    begin(mix, inner, key, key_size, 0x36), begin(mix, outer, key, key_size, 0x5c);
    for (i64 at = 0; at < values;) {
        const u8 *texts[2] = {data + offsets[at], data + offsets[at + 1]};
        i64 sizes[2] = {offsets[at + 1] - offsets[at], at + 1 < values ? offsets[at + 2] - offsets[at + 1] : -1};
        if (sizes[0] <= ONE_BLOCK && sizes[1] >= 0 && sizes[1] <= ONE_BLOCK) {
            finish_two(mix_two, inner, texts, sizes, digests);
            finish_two(mix_two, outer, (const u8 *const[]){digests[0], digests[1]}, (const i64[]){32, 32}, digests);
            out = written(out, digests[0], tokens), out = written(out, digests[1], tokens), at += 2;
            continue;
        }
        memcpy(state, inner, sizeof state);
        finish(mix, state, texts[0], sizes[0], digests[0]);
        memcpy(state, outer, sizeof state);
        finish(mix, state, digests[0], 32, digests[0]);
        out = written(out, digests[0], tokens), at++;
    }
}

/* Candidates of ASCII cells and what they may be, over Arrow's string buffers: the same answers as `patterns`,
 * `classify` and `numbers` give, which say what each step is for. A cell that holds anything rarer (a web address, a
 * secret, a code with a check letter, a byte beyond ASCII) is handed back to them whole.
 *
 * `native.py` writes the tables TABLES, FORMS, BY_WIDTH and the enums before this text from the Python modules.
 */

enum { DIGIT = 1, LETTER = 2, HEX = 4, WORD = 8, LOCAL = 16, LABEL = 32, BETWEEN = 64, WIDE = 128 };
enum { SHAPED, BARE, CODED, CONTEXT };
enum { LEAST_CRYPTO = 26, SHORTEST = 4 /* a::b */, PHRASE_DIGITS = 6 /* behind the first */, SUMMED = 255, MOST_DIGITS = 40 };

static u8 class_of[256];

/* What a byte counts as, eight counts of eight bits: so many bytes are summed up by one addition each. */
static uint64_t counts_of[256];
/* Of two bytes, one after the other, the number (from one on) of the first hint whose rarest two they are, or zero. */
static u8 anchors[1 << 16];

/* Two bytes as a number. */
static inline unsigned pair_at(const void *text) {
    uint16_t pair;
    memcpy(&pair, text, 2);
    return pair;
}

static inline int is_capital(u8 byte) { return byte >= 'A' && byte <= 'Z'; }

static void set(const char *bytes, int flag) {
    for (; *bytes; bytes++) class_of[(u8)*bytes] |= flag;
}

/* Which RARE codes begin with so many letters, and if with none, with so many digits: a bit each. */
enum { MOST_LETTERS = 8, MOST_RARE_DIGITS = 16 };
static uint32_t rare_with[MOST_LETTERS + 1][MOST_RARE_DIGITS + 1];

/* Hints by their anchors: each the next one that has the same. */
static u8 next_hint[HINT_COUNT + 1];

/* The powers of ten modulo 97. */
enum { WIDEST_IBAN = 34, IBAN_HEAD = 6 /* places of the four that stand last, two of which are letters */ };
static u8 tens[2 * WIDEST_IBAN];
/* The same in a falling row, for a code without further letters: zeros behind its last digit. */
static int16_t descending[2 * WIDEST_IBAN];

static void choose_gather(void);
static void start_networks(void);

/* Once a process, by one thread, before anything is asked. */
void lintas_start(void) {
    static int started;
    if (started++) return;
    choose_mix(), choose_gather(), start_networks();
    tens[0] = 1;
    for (int k = 1; k < 2 * WIDEST_IBAN; k++) tens[k] = tens[k - 1] * 10 % 97;
    for (int k = 0; k < WIDEST_IBAN - 4; k++) descending[k] = tens[IBAN_HEAD + WIDEST_IBAN - 5 - k];
    for (int k = 0; k < RARE_FORMS; k++) rare_with[RARE[k].letters][RARE[k].digits] |= (uint32_t)1 << k;
    for (int b = 0; b < 256; b++) {
        int digit = b >= '0' && b <= '9', letter = (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z');
        class_of[b] = digit * (DIGIT | HEX | WORD | LOCAL | LABEL) + letter * (LETTER | WORD | LOCAL | LABEL);
        if (b >= 128) class_of[b] = WIDE;
    }
    for (int k = 0; k < HINT_COUNT; k++) {
        u8 *first = &anchors[pair_at(HINTS[k].text + HINTS[k].anchor)];
        next_hint[k + 1] = *first, *first = (u8)(k + 1);
    }
    for (int b = 0; b < 256; b++) {
        int counted[] = {(class_of[b] & LETTER) != 0, (class_of[b] & DIGIT) != 0, b == '.', b == ':', b == '-',
                         b == ' ' || b == '\t', b == '(' || b == ')', b == '@'};
        for (int k = 0; k < 8; k++) counts_of[b] |= (uint64_t)counted[k] << 8 * k;
    }
    set("abcdefABCDEF", HEX), set("_", WORD), set("._%+'-", LOCAL), set("-", LABEL), set(" ./()-", BETWEEN);
}

typedef struct {
    const u8 *s;
    i64 n;
} Cell;

static inline int is(Cell c, i64 at, int flag) { return at >= 0 && at < c.n && class_of[c.s[at]] & flag; }
static inline int at(Cell c, i64 p, u8 byte) { return p < c.n && c.s[p] == byte; }
/* Where the bytes are written out, a few comparisons. */
static inline __attribute__((always_inline)) int one_of(Cell c, i64 p, const char *bytes) {
    if (p >= c.n) return 0;
    int found = 0;
    for (size_t k = 0; k < strlen(bytes); k++) found |= c.s[p] == (u8)bytes[k];
    return found;
}
static inline int edge(Cell c, i64 p) { return !is(c, p - 1, WORD) != !is(c, p, WORD); }
static inline int run(Cell c, i64 p, int flag, int most) {
    int k = 0;
    while (k < most && is(c, p + k, flag)) k++;
    return k;
}

/* Each matcher answers where the match that begins at p ends, or -1. */

static i64 email(Cell c, i64 p, i64 *run_end) {
    i64 q = p;
    while (is(c, q, LOCAL)) q++;
    *run_end = q;
    if (q == p || !at(c, q, '@')) return -1;
    i64 end = -1;
    q++;
    while (is(c, q, LABEL)) {
        while (is(c, q, LABEL)) q++;
        if (end != -1) end = q;
        if (!at(c, q, '.')) break;
        if (end == -1) end = 0;
        q++;
    }
    return end > 0 ? end : -1;
}

static i64 uuid(Cell c, i64 p) {
    static const int sizes[] = {8, 4, 4, 4, 12};
    for (int k = 0; k < 5; k++) {
        if (k && !at(c, p++, '-')) return -1;
        if (run(c, p, HEX, sizes[k]) < sizes[k]) return -1;
        p += sizes[k];
    }
    return edge(c, p) ? p : -1;
}

static i64 mac(Cell c, i64 p) {
    for (int k = 0; k < 6; k++) {
        if (k && !one_of(c, p++, ":-")) return -1;
        if (run(c, p, HEX, 2) < 2) return -1;
        p += 2;
    }
    return edge(c, p) ? p : -1;
}

static i64 ipv6_full(Cell c, i64 p) {
    for (int k = 0; k < 8; k++) {
        if (k && !at(c, p++, ':')) return -1;
        int size = run(c, p, HEX, 4);
        if (!size) return -1;
        p += size;
    }
    return edge(c, p) ? p : -1;
}

static i64 ipv6_short(Cell c, i64 p) {
    int groups = 0;
    while (groups < 6) {
        int size = run(c, p, HEX, 4);
        if (!size || !at(c, p + size, ':')) break;
        p += size + 1, groups++;
    }
    if (!groups) return -1;
    i64 end = -1;
    for (int k = 0; k < 6 && at(c, p, ':'); k++) {
        int size = run(c, p + 1, HEX, 4);
        if (!size) break;
        p += size + 1;
        if (edge(c, p)) end = p;
    }
    return end;
}

static i64 zone(Cell c, i64 p) {
    if (at(c, p, 'Z') && edge(c, p + 1)) return p + 1;
    if (one_of(c, p, "+-") && run(c, p + 1, DIGIT, 2) == 2) {
        i64 q = p + 3 + at(c, p + 3, ':');
        if (run(c, q, DIGIT, 2) == 2 && edge(c, q + 2)) return q + 2;
    }
    return edge(c, p) ? p : -1;
}

static i64 time_of_day(Cell c, i64 p) {
    i64 end;
    if (one_of(c, p, "T ")) {
        for (int hour = run(c, p + 1, DIGIT, 2); hour > 0; hour--) {
            i64 q = p + 1 + hour;
            if (!at(c, q, ':') || run(c, q + 1, DIGIT, 2) < 2) continue;
            q += 3;
            if (at(c, q, ':') && run(c, q + 1, DIGIT, 2) == 2) {
                i64 t = q + 3;
                if (one_of(c, t, ".,"))
                    for (int part = run(c, t + 1, DIGIT, 1 << 20); part > 0; part--)
                        if ((end = zone(c, t + 1 + part)) >= 0) return end;
                if ((end = zone(c, t)) >= 0) return end;
            }
            if ((end = zone(c, q)) >= 0) return end;
        }
    }
    return zone(c, p);
}

static i64 year_first(Cell c, i64 p) {
    if (run(c, p, DIGIT, 4) < 4 || !one_of(c, p + 4, "-/.")) return -1;
    if (!(c.s[p] == '1' && (c.s[p + 1] == '8' || c.s[p + 1] == '9')) && !(c.s[p] == '2' && c.s[p + 1] == '0')) return -1;
    int month = run(c, p + 5, DIGIT, 2);
    i64 q = p + 5 + month;
    if (!month || !one_of(c, q, "-/.")) return -1;
    for (int day = run(c, q + 1, DIGIT, 2); day > 0; day--) {
        i64 end = time_of_day(c, q + 1 + day);
        if (end >= 0) return end;
    }
    return -1;
}

static i64 year_last(Cell c, i64 p) {
    for (int k = 0; k < 2; k++) {
        int size = run(c, p, DIGIT, 2);
        if (!size || !one_of(c, p + size, "-/.")) return -1;
        p += size + 1;
    }
    if (run(c, p, DIGIT, 4) < 4) return -1;
    if (!(c.s[p] == '1' && c.s[p + 1] == '9') && !(c.s[p] == '2' && c.s[p + 1] == '0')) return -1;
    return edge(c, p + 4) ? p + 4 : -1;
}

static i64 iban_like(Cell c, i64 p) {
    if (run(c, p, LETTER, 2) < 2 || run(c, p + 2, DIGIT, 2) < 2) return -1;
    i64 ends[8];
    int groups = 0;
    ends[0] = p + 4;
    while (groups < 7) {
        i64 q = ends[groups] + one_of(c, ends[groups], " -");
        if (run(c, q, DIGIT | LETTER, 4) < 4) break;
        ends[++groups] = q + 4;
    }
    for (; groups >= 2; groups--) {
        i64 q = ends[groups] + one_of(c, ends[groups], " -");
        for (int tail = run(c, q, DIGIT | LETTER, 3); tail > 0; tail--)
            if (edge(c, q + tail)) return q + tail;
        if (edge(c, ends[groups])) return ends[groups];
    }
    return -1;
}

static i64 npwp_like(Cell c, i64 p) {
    static const struct { int size; const char *mark; } parts[] = {{2, "."}, {3, "."}, {3, "."}, {1, ""}, {3, "."}, {3, ""}};
    for (int k = 0; k < 6; k++) {
        if (run(c, p, DIGIT, parts[k].size) < parts[k].size) return -1;
        p += parts[k].size;
        if (*parts[k].mark && !at(c, p++, '.')) return -1;
        if (k == 3) p += at(c, p, '-');
    }
    return edge(c, p) ? p : -1;
}

static i64 ipv4_like(Cell c, i64 p) {
    i64 end = -1;
    for (int k = 0; !k || at(c, p, '.'); k++) {
        int size = run(c, p + (k > 0), DIGIT, 3);
        if (!size) break;
        p += (k > 0) + size;
        if (k >= 3 && edge(c, p)) end = p;
    }
    return end;
}

static i64 fraction(Cell c, i64 p) {
    int whole = run(c, p, DIGIT, 1 << 20);
    if (!whole || !at(c, p + whole, '.')) return -1;
    int part = run(c, p + whole + 1, DIGIT, 1 << 20);
    i64 end = p + whole + 1 + part;
    return part >= 5 && edge(c, end) ? end : -1;
}

static i64 extension(Cell c, i64 p) {
    i64 q = p + at(c, p, ' ');
    if (at(c, q, 'x')) q++;
    else if (q + 2 < c.n && !memcmp(c.s + q, "ext", 3)) q += 3 + at(c, q + 3, '.');
    else return -1;
    q += at(c, q, ' ');
    int size = run(c, q, DIGIT, 6);
    return size && edge(c, q + size) ? q + size : -1;
}

static i64 phrase(Cell c, i64 p) {
    if (is(c, p, LETTER)) {
        int prefix = run(c, p, DIGIT | LETTER, 12);
        p += prefix + one_of(c, p + prefix, "-_#:");
    }
    p += one_of(c, p, "+(");
    if (!is(c, p, DIGIT) || !edge(c, p)) return -1;
    i64 last, q = p, extra = 0;
    for (;;) {
        while (is(c, q + 1, DIGIT)) q++, extra++;
        int gap = run(c, q + 1, BETWEEN, 3);
        if (gap > 2 || !is(c, q + 1 + gap, DIGIT)) break;
        q += 1 + gap, extra++;
    }
    last = q;
    while (extra >= PHRASE_DIGITS) {
        i64 end = extension(c, last + 1);
        if (end >= 0) return end;
        if (edge(c, last + 1)) return last + 1;
        do last--; while (!is(c, last, DIGIT));
        extra--;
    }
    return -1;
}

static i64 prefixed(Cell c, i64 p) {
    int letters = run(c, p, LETTER, 13), digits = run(c, p + letters, DIGIT, 20);
    i64 end = p + letters + digits;
    return letters >= 1 && letters <= 12 && digits >= 9 && digits <= 19 && edge(c, end) ? end : -1;
}

/* A fixed form: L a letter, 9 a digit, H a hex digit, A a letter or digit, others themselves; `?` makes the byte before
 * it optional. */
static int fits(Cell c, i64 p, const char *form) {
    for (; *form; form++) {
        int flag = *form == 'L' ? LETTER : *form == '9' ? DIGIT : *form == 'A' ? LETTER | DIGIT : 0;
        int ok = flag ? is(c, p, flag) : at(c, p, *form);
        if (form[1] == '?') form++;
        else if (!ok) return 0;
        p += ok;
    }
    return edge(c, p);
}

/* Three groups of four hex digits between dots, a digit in the first and a letter in any. */
static int grouped_mac(Cell c, i64 p) {
    int digits = 0, letters = 0;
    if (!at(c, p + 4, '.') || !at(c, p + 9, '.')) return 0;
    for (int k = 0; k < 3; k++, p += 5)
        for (int byte = 0; byte < 4; byte++) {
            if (!is(c, p + byte, HEX)) return 0;
            digits |= !k && is(c, p + byte, DIGIT), letters |= is(c, p + byte, LETTER);
        }
    return digits && letters && edge(c, p - 1);
}

static int rare_code(Cell c, i64 p) {
    if (grouped_mac(c, p)) return 1;
    int letters = run(c, p, LETTER, MOST_LETTERS), digits = letters ? 0 : run(c, p, DIGIT, MOST_RARE_DIGITS);
    for (unsigned left = rare_with[letters][digits]; left; left &= left - 1)
        if (fits(c, p, RARE[__builtin_ctz(left)].form)) return 1;
    if (c.n - p >= LEAST_CRYPTO && (c.s[p] == '1' || c.s[p] == '3' || c.s[p] == '0' || c.s[p] == 'b') &&
        run(c, p, DIGIT | LETTER, 64) >= LEAST_CRYPTO)
        return 1;
    if (letters) return 0;
    int whole = run(c, p, DIGIT, 4);
    if (whole >= 1 && whole <= 3 && at(c, p + whole, '.') && run(c, p + whole + 1, DIGIT, 4) == 4) {
        i64 q = p + whole + 1;
        while (is(c, q, DIGIT)) q++;
        while (q < c.n && (c.s[q] == ' ' || (c.s[q] >= 9 && c.s[q] <= 13))) q++;
        if (at(c, q, ',')) return 1;
    }
    return 0;
}

/* Checks, twins of those in `checks.py`, over the digits as numbers. */

static i64 number(const u8 *d, int from, int to) {
    i64 value = 0;
    for (; from < to; from++) value = value * 10 + d[from];
    return value;
}
static int weighted(const u8 *d, const int *weights, int count) {
    int total = 0;
    for (int k = 0; k < count; k++) total += d[k] * weights[k];
    return total;
}
static int all_same(const u8 *d, int from, int w) {
    for (int k = from + 1; k < w; k++)
        if (d[k] != d[from]) return 0;
    return 1;
}
static int check_luhn(const u8 *d, int w) {
    static const u8 twice[10] = {0, 2, 4, 6, 8, 1, 3, 5, 7, 9};
    int total = w & 1 ? d[0] : 0;
    for (int k = w & 1; k < w; k += 2) total += twice[d[k]] + d[k + 1];
    return total % 10 == 0;
}
enum { SOME_NETWORKS = 1 << 30 };
static unsigned network_widths[1000];
static int card_network(const u8 *d, int w) {
    unsigned widths = network_widths[number(d, 0, 3)];
    if (!(widths & SOME_NETWORKS)) return widths >> w & 1;
    i64 head = number(d, 0, 6);
    for (int k = NETWORKS_FROM[d[0]]; k < NETWORKS_FROM[d[0] + 1]; k++)
        if (head >= NETWORKS[k].low && head <= NETWORKS[k].high && NETWORKS[k].widths >> w & 1) return 1;
    return 0;
}
/* What three digits say of them, where they decide alone: the widths of numbers that begin so. */
static void start_networks(void) {
    for (i64 begin = 0; begin < 1000; begin++) {
        i64 low = begin * 1000, high = low + 999;
        for (int k = 0; k < (int)(sizeof NETWORKS / sizeof *NETWORKS); k++) {
            if (NETWORKS[k].low <= low && NETWORKS[k].high >= high) network_widths[begin] |= (unsigned)NETWORKS[k].widths;
            else if (NETWORKS[k].low <= high && NETWORKS[k].high >= low) network_widths[begin] |= SOME_NETWORKS;
        }
    }
}
static int check_any_but_zero(const u8 *d, int w) { return !(all_same(d, 0, w) && d[0] == 0); }
static int dated(i64 day, i64 month) {
    static const int longest[] = {0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return day >= 1 && month <= 12 && day <= longest[month];
}
static int check_nik(const u8 *d, int w) {
    i64 day = number(d, 6, 8), month = number(d, 8, 10);
    (void)w;
    if (day > 40) day -= 40;
    return PROVINCES[number(d, 0, 2)] && (d[2] | d[3]) && (d[4] | d[5]) && dated(day, month) &&
           (d[12] | d[13] | d[14] | d[15]);
}
static int check_npwp(const u8 *d, int w) { return (void)w, check_luhn(d, 9) && number(d, 0, 9) > 0; }
static int check_us_ssn(const u8 *d, int w) {
    i64 area = number(d, 0, 3), group = number(d, 3, 5), serial = number(d, 5, 9), all = area * 1000000 + group * 10000 + serial;
    (void)w;
    return area && area != 666 && area < 900 && group && serial && all != 78051120 &&
           all != 123456789 && all != 219099999 && all != 457555462;
}
static int check_us_itin(const u8 *d, int w) {
    i64 g = number(d, 3, 5);
    (void)w;
    return d[0] == 9 && ((g >= 50 && g <= 65) || (g >= 70 && g <= 88) || (g >= 90 && g != 93));
}
static int check_uk_nhs(const u8 *d, int w) {
    static const int by[] = {10, 9, 8, 7, 6, 5, 4, 3, 2};
    return (void)w, (11 - weighted(d, by, 9) % 11) % 11 == d[9] && number(d, 0, 10) > 0;
}
static int check_aadhaar(const u8 *d, int w) {
    int state = 0, mirrored = 1;
    if (d[0] < 2) return 0;
    for (int k = 0; k < w; k++) state = VERHOEFF_D[state][VERHOEFF_P[k % 8][d[w - 1 - k]]], mirrored &= d[k] == d[w - 1 - k];
    return !state && !mirrored;
}
static int check_au_tfn(const u8 *d, int w) {
    static const int by[] = {1, 4, 3, 7, 5, 8, 6, 9, 10};
    return (void)w, weighted(d, by, 9) % 11 == 0 && number(d, 0, 9) > 0;
}
static int check_au_abn(const u8 *d, int w) {
    static const int by[] = {10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19};
    return (void)w, (weighted(d, by, 11) - 10) % 89 == 0;
}
static int check_au_medicare(const u8 *d, int w) {
    static const int by[] = {1, 3, 7, 9, 1, 3, 7, 9};
    return (void)w, d[0] >= 2 && d[0] <= 6 && weighted(d, by, 8) % 10 == d[8];
}
static int check_pl_pesel(const u8 *d, int w) {
    static const int by[] = {1, 3, 7, 9, 1, 3, 7, 9, 1, 3};
    i64 month = number(d, 2, 4) % 20, day = number(d, 4, 6);
    return (void)w, month >= 1 && month <= 12 && day >= 1 && day <= 31 && (10 - weighted(d, by, 10) % 10) % 10 == d[10];
}
static int check_br_cpf(const u8 *d, int w) {
    static const int by[] = {11, 10, 9, 8, 7, 6, 5, 4, 3, 2};
    return !all_same(d, 0, w) && weighted(d, by + 1, 9) * 10 % 11 % 10 == d[9] && weighted(d, by, 10) * 10 % 11 % 10 == d[10];
}
static int check_br_cnpj(const u8 *d, int w) {
    static const int by[] = {6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2};
    return !all_same(d, 0, w) && weighted(d, by + 1, 12) * 10 % 11 % 10 == d[12] && weighted(d, by, 13) * 10 % 11 % 10 == d[13];
}
static int check_de_tax_id(const u8 *d, int w) {
    int times[10] = {0}, more = 0, product = 10;
    (void)w;
    if (!d[0]) return 0;
    for (int k = 0; k < 10; k++) times[d[k]]++;
    for (int k = 0; k < 10; k++) more += times[k] > 3 ? 9 : times[k] > 1;
    for (int k = 2; k < 10; k++) more += d[k] == d[k - 1] && d[k] == d[k - 2] ? 9 : 0;
    if (more != 1) return 0;
    for (int k = 0; k < 10; k++) {
        int total = (d[k] + product) % 10;
        product = (total ? total : 10) * 2 % 11;
    }
    return (11 - product) % 10 == d[10];
}
static int check_fr_nir(const u8 *d, int w) {
    i64 month = number(d, 3, 5);
    (void)w;
    int sex = d[0] == 7 || d[0] == 8 || (d[0] >= 1 && d[0] <= 4);
    return sex && ((month >= 1 && month <= 12) || month >= 20) && 97 - number(d, 0, 13) % 97 == number(d, 13, 15);
}
static int check_nl_bsn(const u8 *d, int w) {
    static const int by[] = {9, 8, 7, 6, 5, 4, 3, 2, -1};
    return (void)w, weighted(d, by, 9) % 11 == 0 && number(d, 0, 9) > 0;
}
static int check_be_nn(const u8 *d, int w) {
    i64 head = number(d, 0, 9), check = 97 - number(d, 9, 11);
    (void)w;
    return number(d, 2, 4) % 20 <= 12 && number(d, 4, 6) <= 31 && head && (head % 97 == check || (2000000000 + head) % 97 == check);
}
static int check_pt_nif(const u8 *d, int w) {
    static const int by[] = {9, 8, 7, 6, 5, 4, 3, 2};
    return (void)w, d[0] && (11 - weighted(d, by, 8) % 11) % 11 % 10 == d[8];
}
static int check_se_personnummer(const u8 *d, int w) {
    if (w == 12) return number(d, 0, 2) >= 18 && number(d, 0, 2) <= 20 && check_se_personnummer(d + 2, 10);
    i64 month = number(d, 2, 4), day = number(d, 4, 6);
    if (day > 60) day -= 60;
    return month >= 1 && month <= 12 && day >= 1 && day <= 31 && check_luhn(d, w);
}
static int check_dk_cpr(const u8 *d, int w) {
    i64 day = number(d, 0, 2), month = number(d, 2, 4);
    return (void)w, day >= 1 && day <= 31 && month >= 1 && month <= 12 && number(d, 6, 10) > 0;
}
static int check_dk_cpr_checked(const u8 *d, int w) {
    static const int by[] = {4, 3, 2, 7, 6, 5, 4, 3, 2, 1};
    return check_dk_cpr(d, w) && weighted(d, by, 10) % 11 == 0;
}
static int check_fi_hetu_digits(const u8 *d, int w) {
    return (void)w, dated(number(d, 0, 2), number(d, 2, 4)) && number(d, 0, 9) % 31 == d[9];
}
static int check_at_svnr(const u8 *d, int w) {
    static const int by[] = {3, 7, 9, 0, 5, 8, 4, 2, 1, 6};
    i64 day = number(d, 4, 6);
    return (void)w, d[0] > 0 && day >= 1 && day <= 31 && weighted(d, by, 10) % 11 == d[3];
}
static int check_ch_ahv(const u8 *d, int w) {
    static const int by[] = {1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3};
    return (void)w, number(d, 0, 3) == 756 && (10 - weighted(d, by, 12) % 10) % 10 == d[12];
}
static int check_international_phone(const u8 *d, int w) {
    if (w < 8 || w > 15 || all_same(d, 1, w)) return 0;
    return ((d[0] == 1 || d[0] == 7) && w == 11) || CALLING_2[number(d, 0, 2)] || CALLING_3[number(d, 0, 3)];
}
static int check_north_american_phone(const u8 *d, int w) {
    if (w == 11) return d[0] == 1 && check_north_american_phone(d + 1, 10);
    return w == 10 && d[0] >= 2 && d[3] >= 2 && !(d[1] == 1 && d[2] == 1) && !all_same(d, 0, 10);
}
static int check_national_phone(const u8 *d, int w) {
    return w >= 9 && w <= 13 && d[0] == 0 && d[1] != 0 && !all_same(d, 2, w);
}
static int check_dialled(const u8 *d, int w) { return !all_same(d, 0, w); }
static int check_in_brackets(const u8 *d, int w) {
    if (w == 10) return check_north_american_phone(d, w) || check_national_phone(d, w);
    return w >= 9 && w <= 13;
}
static int check_after_zero(const u8 *d, int w) {
    return check_national_phone(d, w) || (d[1] == 0 && check_international_phone(d + 2, w - 2));
}

/* What a candidate may be. */

typedef struct {
    const u8 *data, *end; /* the cells' bytes, and where they end */
    i64 *rows, *starts, *ends; /* of candidates: their cell, and where they stand in the data */
    i64 *hit_candidates;
    int16_t *hit_keys;
    u8 *hit_valid;
    i64 candidates, bytes, hits;
    struct Known *known; /* the forms that cells had so far */
} Found;

static inline void hit(Found *f, int entity, int evidence, int valid) {
    f->hit_candidates[f->hits] = f->candidates;
    f->hit_keys[f->hits] = (int16_t)(entity * 4 + evidence);
    f->hit_valid[f->hits++] = (u8)valid;
}

static void digit_strings(Found *f, const u8 *d, int w, int evidence) {
    if (w >= 12 && w <= 19 && card_network(d, w)) hit(f, CREDIT_CARD, evidence, check_luhn(d, w));
    if (w < 9 || w > WIDEST) return;
    by_width(f, d, w, evidence);
}

/* Modulo 97: each digit counts by a power of ten, and a letter is two digits. The first four stand last. */
static int iban_check(const u8 *code, int w) {
    if (w > WIDEST_IBAN || IBAN_WIDTHS[(code[0] - 'A') * 26 + code[1] - 'A'] != w) return 0;
    int total = code[3] - '0' + (code[2] - '0') * 10 + (code[1] - 'A' + 10) * tens[2] + (code[0] - 'A' + 10) * tens[4];
    int letters = 0, place = IBAN_HEAD;
    for (int k = 4; k < w; k++) letters |= code[k] > '9';
    if (!letters) {
        const int16_t *by = descending + WIDEST_IBAN - w;
        for (int k = 0; k < WIDEST_IBAN - 4; k++) total += (code[4 + k] - '0') * by[k];
        return total % 97 == 1;
    }
    for (int k = w - 1; k >= 4; k--) {
        int letter = code[k] > '9';
        total += (letter ? code[k] - 'A' + 10 : code[k] - '0') * tens[place];
        place += 1 + letter;
    }
    return total % 97 == 1;
}

/* An IBAN in any grouping, the twin of `ibans.written`: answers where it ends, or -1, and whether it is right. Wrong ones
 * are those that have digits alone behind their country's code. */
static i64 iban_written(Cell c, i64 p, int *valid) {
    if (c.n - p < LEAST_IBAN || run(c, p, LETTER, 2) < 2) return -1;
    i64 q = p + 2;
    u8 code[WIDEST_IBAN + 4] = {c.s[p] & 0xDF, c.s[p + 1] & 0xDF};
    int w = 2, width = IBAN_WIDTHS[(code[0] - 'A') * 26 + code[1] - 'A'];
    if (at(c, q, ' ') && c.s[p] <= 'Z' && c.s[p + 1] <= 'Z') q++;
    if (!width || run(c, q, DIGIT, 2) < 2) return -1;
    int digits = 0;
    for (; w < width; q++) {
        if (q == c.n) return -1;
        u8 byte = c.s[q];
        if (w >= 4 && !(class_of[byte] & (DIGIT | LETTER))) {
            if ((byte != ' ' && byte != '.' && byte != '-') || ++q == c.n) return -1;
            byte = c.s[q];
        }
        if (!(class_of[byte] & (DIGIT | LETTER))) return -1;
        digits += byte <= '9';
        code[w++] = byte >= 'a' ? byte - 32 : byte;
    }
    if (is(c, q, WORD) || digits < IBAN_DIGITS) return -1;
    *valid = iban_check(code, width);
    return *valid || digits == width - 2 ? q : -1;
}

/* Whether the parts of a phrase may be something although the whole is nothing. */
static int may_hold_more(const u8 *t, i64 n) {
    int sizes[4] = {0}, run_of = 0;
    for (i64 k = 0; k <= n; k++) {
        if (k < n && class_of[t[k]] & DIGIT) {
            run_of++;
            continue;
        }
        if (k < n && t[k] == '(') return 1;
        if (run_of >= 9 && run_of <= 19) return 1;
        if (run_of) {
            memmove(sizes, sizes + 1, 3 * sizeof(int)), sizes[3] = run_of;
            if (sizes[3] == 4 && sizes[2] == 4 && sizes[1] == 4 && sizes[0] == 4) return 1;
            if (sizes[3] == 5 && sizes[2] == 6 && sizes[1] == 4) return 1;
            if (sizes[3] == 4 && sizes[2] == 2 && sizes[1] == 3) return 1;
        }
        run_of = 0;
    }
    return 0;
}

typedef struct {
    int letters, digits, dots, colons, dashes, spaces, parens, at_signs, seen, anchored;
} Counts;

static Counts counted_singly(Cell c) {
    Counts k = {0};
    for (i64 at = 0; at < c.n; at += SUMMED) {
        i64 end = at + SUMMED < c.n ? at + SUMMED : c.n;
        uint64_t sum = 0;
        u8 seen = 0, anchored = 0;
        for (i64 p = at; p < end; p++) sum += counts_of[c.s[p]], seen |= class_of[c.s[p]];
        for (i64 p = at ? at : 1; p < end; p++) anchored |= anchors[pair_at(c.s + p - 1)];
        k.letters += sum & 255, k.digits += sum >> 8 & 255, k.dots += sum >> 16 & 255, k.colons += sum >> 24 & 255;
        k.dashes += sum >> 32 & 255, k.spaces += sum >> 40 & 255, k.parens += sum >> 48 & 255, k.at_signs += sum >> 56;
        k.seen |= seen, k.anchored |= anchored;
    }
    return k;
}

#if defined __SSE2__
/* Adds up each of sixteen counts of one byte. */
static inline int summed(__m128i counts) {
    __m128i halves = _mm_sad_epu8(counts, _mm_setzero_si128());
    return _mm_cvtsi128_si32(halves) + _mm_extract_epi16(halves, 4);
}
static inline __m128i between(__m128i text, char low, char high) {
    return _mm_and_si128(_mm_cmpgt_epi8(text, _mm_set1_epi8(low - 1)), _mm_cmplt_epi8(text, _mm_set1_epi8(high + 1)));
}
static inline uint64_t mask_of(__m128i bytes, int at) { return (uint64_t)(unsigned)_mm_movemask_epi8(bytes) << at; }
static inline __m128i equal(__m128i text, char byte) { return _mm_cmpeq_epi8(text, _mm_set1_epi8(byte)); }

/* The same of sixteen to SUMMED times sixteen bytes. Whether a hint may stand there it tells by HINT_MARKS alone. */
static Counts counted_together(Cell c) {
    static const u8 last[32] = {[16] = 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    __m128i zero = _mm_setzero_si128(), letters = zero, digits = zero, dots = zero, colons = zero, dashes = zero;
    __m128i spaces = zero, parens = zero, at_signs = zero, wide = zero, marks = zero;
    for (i64 at = 0; at < c.n; at += 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)(c.s + (at + 16 <= c.n ? at : c.n - 16)));
        if (at + 16 > c.n) text = _mm_and_si128(text, _mm_loadu_si128((const __m128i *)(last + c.n - at)));
        __m128i small = _mm_or_si128(text, _mm_set1_epi8(32));
        letters = _mm_sub_epi8(letters, between(small, 'a', 'z')), digits = _mm_sub_epi8(digits, between(text, '0', '9'));
        dots = _mm_sub_epi8(dots, equal(text, '.')), colons = _mm_sub_epi8(colons, equal(text, ':'));
        dashes = _mm_sub_epi8(dashes, equal(text, '-')), at_signs = _mm_sub_epi8(at_signs, equal(text, '@'));
        spaces = _mm_sub_epi8(spaces, _mm_or_si128(equal(text, ' '), equal(text, '\t')));
        parens = _mm_sub_epi8(parens, _mm_or_si128(equal(text, '('), equal(text, ')')));
        for (int mark = 0; mark < (int)sizeof HINT_MARKS - 1; mark++) marks = _mm_or_si128(marks, equal(text, HINT_MARKS[mark]));
        wide = _mm_or_si128(wide, text);
    }
    Counts k = {summed(letters), summed(digits), summed(dots), summed(colons), summed(dashes), summed(spaces),
                summed(parens), summed(at_signs), 0, 0};
    k.seen = _mm_movemask_epi8(wide) ? WIDE : 0;
    k.anchored = _mm_movemask_epi8(marks) != 0;
    return k;
}
#endif

static inline Counts counted(Cell c) {
#if defined __SSE2__
    if (c.n >= 16 && c.n <= 16 * SUMMED) return counted_together(c);
#endif
    return counted_singly(c);
}

/* The first digits, as numbers. */
static int digits_of(Cell t, u8 *digits) {
    int found = 0;
    for (i64 p = 0; p < t.n && found < MOST_DIGITS; p++)
        if (class_of[t.s[p]] & DIGIT) digits[found++] = t.s[p] - '0';
    return found;
}

/* The twin of `patterns.VERSION`, of a text that begins with another byte than a zero. */
static int like_version(Cell t) {
    int after = run(t, 2, DIGIT, 3);
    if (is(t, 0, DIGIT) && at(t, 1, '.') && after >= 1 && after <= 2 && t.n > 2 + after) return 1;
    for (i64 p = 1; p + 2 < t.n; p++)
        if (t.s[p] == '.' && is(t, p - 1, DIGIT) && is(t, p + 1, DIGIT) && t.s[p + 2] == '.') return 1;
    return 0;
}

/* What a text without letters shows whatever its digits are: where they stand, and what stands between them. */
typedef struct {
    u8 width, plain, settled, dated, rare, dotted, plus, grouped, bracketed, more; /* see `form_of` */
    u8 joined; /* whether its digits stand side by side */
    u8 part[4], sizes[4], may_be_ipv4; /* of a dotted one: where its numbers begin, and how long they are */
    u8 version[2]; /* whether it is like a version's number, when it begins with another byte than a zero and with one */
    u8 fitting, forms[MOST_FORMS]; /* which FORMS it has */
    u8 places[MOST_DIGITS];
} Form;

/* Whether it begins as dates are written; its digits may say otherwise. */
static int may_be_date(Cell t) {
    int first = run(t, 0, DIGIT, 5);
    if (first == 0 || first == 3 || first == 5 || !one_of(t, first, "-/.")) return 0;
    int second = run(t, first + 1, DIGIT, 3);
    i64 third = first + 1 + second;
    return (second == 1 || second == 2) && one_of(t, third, "-/.") && (first == 4 || run(t, third + 1, DIGIT, 5) == 4);
}

/* Where the numbers of a text of digits, brackets and three dots stand; they are no address when any has no or four
 * digits, nor with anything else but a bracket that opens before them. */
static void dotted_parts(Form *form, Cell t) {
    int opened = t.s[0] == '(';
    form->may_be_ipv4 = t.n - opened <= 15;
    form->part[0] = (u8)opened;
    for (i64 p = opened, part = 0; p <= t.n && form->may_be_ipv4; p++) {
        if (p < t.n && t.s[p] != '.') {
            if (!(class_of[t.s[p]] & DIGIT)) form->may_be_ipv4 = 0;
            form->sizes[part]++;
            continue;
        }
        form->may_be_ipv4 = form->sizes[part] >= 1 && form->sizes[part] <= 3;
        if (++part < 4) form->part[part] = (u8)(p + 1);
    }
}

static Form form_of(Cell t, Counts k) {
    Form form = {.plus = t.s[0] == '+'};
    i64 separators = k.dots + k.dashes + k.spaces, between = t.n - k.digits;
    i64 other = between - separators - k.parens - form.plus;
    for (i64 p = 0; p < t.n && form.width < MOST_DIGITS && p < 256; p++)
        if (class_of[t.s[p]] & DIGIT) form.places[form.width++] = (u8)p;
    form.joined = form.width && form.places[form.width - 1] - form.places[0] == form.width - 1;
    form.plain = !between, form.dated = (u8)may_be_date(t);
    form.rare = other > 0 || ((separators == 2 || separators == 5) && (k.dashes == 5 || form.dated));
    form.dotted = k.dots == 3 && separators == 3 && !other && k.digits <= 12;
    if (form.dotted) dotted_parts(&form, t);
    form.settled = k.dots == 1 && separators == 1 && !other;
    form.grouped = separators > 0, form.bracketed = k.parens == 2;
    form.more = k.digits > 9 && may_hold_more(t.s, t.n);
    form.version[0] = !form.plus && k.dots && like_version(t);
    form.version[1] = form.version[0] || (!form.plus && is(t, 0, DIGIT) && at(t, 1, '.'));
    int none = form.plus || form.width >= WIDEST_FORM;
    for (int each = none ? 0 : FORMS_FROM[form.width]; each < (none ? 0 : FORMS_FROM[form.width + 1]); each++) {
        int fits = FORMS[each].places == between;
        for (int place = 0; fits && place < FORMS[each].places; place++)
            fits = one_of(t, FORMS[each].at[place], FORMS[each].allowed);
        if (fits) form.forms[form.fitting++] = (u8)each;
    }
    return form;
}

/* What only digits of their own make a date or an address of a network: answers whether it is one. */
static int rare_number(Found *f, Cell t, Counts k) {
    int date = 0, is_mac = 0;
    if (run(t, 0, DIGIT, 4) == 4 && one_of(t, 4, "-/.")) {
        int century = (t.s[0] == '1' && (t.s[1] == '8' || t.s[1] == '9')) || (t.s[0] == '2' && t.s[1] == '0');
        int month = run(t, 5, DIGIT, 2);
        i64 day = 5 + month;
        if (century && month && one_of(t, day, "-/."))
            for (int size = run(t, day + 1, DIGIT, 2); size > 0; size--)
                date |= day + 1 + size == t.n || one_of(t, day + 1 + size, "T ");
    }
    date |= year_last(t, 0) == t.n;
    if (k.colons == 5 || k.dashes == 5) is_mac = mac(t, 0) == t.n;
    int v6 = !is_mac && !date && k.colons >= 2 && k.digits + k.colons == t.n;
    if (date) hit(f, DATE_OF_BIRTH, BARE, 1);
    if (is_mac) hit(f, MAC_ADDRESS, SHAPED, 1);
    if (v6) hit(f, IP_ADDRESS, SHAPED, 1);
    return date || is_mac || v6;
}

/* Whether a text of that form is an address of IP version 4: numbers up to 255 without leading zeros. */
static int ipv4_check(Cell t, const Form *form) {
    static const u8 by[4][3] = {{0}, {1, 0, 0}, {10, 1, 0}, {100, 10, 1}};
    int wrong = !form->may_be_ipv4;
    for (int k = 0; k < 4 && !wrong; k++) {
        const u8 *digits = t.s + form->part[k], *weights = by[form->sizes[k]];
        int last = form->sizes[k] - 1; /* no byte behind the number is read */
        int value = (digits[0] - '0') * weights[0] + (digits[last > 0] - '0') * weights[1] + (digits[last] - '0') * weights[2];
        wrong |= (value > 255) | ((last > 0) & (digits[0] == '0'));
    }
    return !wrong;
}

#if defined __x86_64__ && defined __GNUC__
static int can_gather;

/* Up to sixteen digits of a text of up to 32 bytes, by their places in its first and its last sixteen. */
static __attribute__((target("ssse3"))) void gathered(const u8 *text, const u8 *places, u8 *d) {
    __m128i at = _mm_loadu_si128((const __m128i *)places), low = _mm_loadu_si128((const __m128i *)text);
    __m128i high = _mm_loadu_si128((const __m128i *)(text + 16)), beyond = _mm_cmpgt_epi8(at, _mm_set1_epi8(15));
    low = _mm_shuffle_epi8(low, _mm_or_si128(at, beyond)), high = _mm_and_si128(_mm_shuffle_epi8(high, at), beyond);
    _mm_storeu_si128((__m128i *)d, _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8('0')));
}

static void choose_gather(void) {
    __builtin_cpu_init();
    can_gather = __builtin_cpu_supports("ssse3") != 0;
}
#else
enum { can_gather = 0 };
static void gathered(const u8 *text, const u8 *places, u8 *d) { (void)text, (void)places, (void)d; }
static void choose_gather(void) {}
#endif

/* The digits of a form as numbers. */
static inline void digits_at(const Found *f, Cell t, const Form *form, u8 *d) {
    const u8 *first = t.s + form->places[0];
    if (form->joined && form->width <= 32 && f->end - first >= 32)
        for (int k = 0; k < 32; k++) d[k] = first[k] - '0';
    else if (can_gather && form->width <= 16 && t.n <= 32 && f->end - t.s >= 32) gathered(t.s, form->places, d);
    else
        for (int k = 0; k < form->width; k++) d[k] = t.s[form->places[k]] - '0';
}

/* What the digits of a form may be. Answers 0 when the cell must be handed back. */
static int numbers(Found *f, Cell t, const Form *form) {
    u8 d[MOST_DIGITS];
    int w = form->width, taken = 0, phone = 0;
    if (form->dotted) {
        int valid = ipv4_check(t, form);
        hit(f, IP_ADDRESS, SHAPED, valid);
        if (valid) return 1;
    }
    if (form->settled) return 1;
    digits_at(f, t, form, d);
    if (form->plain) {
        digit_strings(f, d, w, BARE);
        return 1;
    }
    for (int k = 0; k < form->fitting; k++) {
        int each = form->forms[k], valid = FORMS[each].check(d, w);
        hit(f, FORMS[each].entity, FORMS[each].evidence, valid);
        taken |= valid && FORMS[each].evidence == SHAPED, phone |= valid && FORMS[each].entity == PHONE_NUMBER;
    }
    if (!taken && !form->plus && w >= 13 && w <= 19 && card_network(d, w)) hit(f, CREDIT_CARD, BARE, check_luhn(d, w));
    if (!phone && w >= 8 && w <= 16 && !form->version[t.s[0] == '0']) {
        int valid = -1;
        if (form->plus) valid = check_international_phone(d, w);
        else if (!taken && form->bracketed) valid = check_in_brackets(d, w);
        else if (!taken && form->grouped && t.s[0] == '0') valid = check_after_zero(d, w);
        if (valid >= 0) hit(f, PHONE_NUMBER, SHAPED, valid), taken |= valid;
        else if (form->grouped && w <= WIDEST_PHONE && (!taken || w == 10)) hit(f, PHONE_NUMBER, BARE, check_dialled(d, w));
    }
    return taken || !form->more;
}

static int codes(Found *f, Cell t, Counts k) {
    if (k.colons >= 2 || k.dashes == 5) {
        int is_mac = mac(t, 0) == t.n && (k.colons == 5 || k.dashes == 5), v6 = !is_mac && k.colons >= 2;
        for (i64 p = 0; p < t.n && v6; p++) v6 = is(t, p, HEX) || t.s[p] == ':';
        if (is_mac) hit(f, MAC_ADDRESS, SHAPED, 1);
        if (v6) hit(f, IP_ADDRESS, SHAPED, 1);
        if (is_mac || v6) return 1;
    }
    for (int pair = 0; pair < CODE_COUNT_PAIRS; pair++)
        if (k.letters == CODE_COUNTS[pair][0] && k.digits == CODE_COUNTS[pair][1]) return 0;
    int valid = 0;
    if (k.letters >= 2 && k.letters + k.digits >= LEAST_IBAN) {
        u8 code[WIDEST_IBAN + 4] = {0};
        int w = 0, fitting = 1;
        for (i64 p = 0; p < t.n && fitting; p++) {
            u8 byte = t.s[p];
            if (byte == ' ' || byte == '-') continue;
            if (w == WIDEST_IBAN || !is(t, p, LETTER | DIGIT)) fitting = 0;
            else code[w++] = byte >= 'a' ? byte - 32 : byte;
        }
        fitting = fitting && w >= 12 && code[0] > '9' && code[1] > '9' && code[2] <= '9' && code[3] <= '9';
        if (fitting) hit(f, IBAN_CODE, SHAPED, valid = iban_check(code, w));
    }
    if (!valid && k.digits >= 9 && k.digits <= 19 && k.letters <= 12 && t.s[0] > '9') {
        u8 d[MOST_DIGITS];
        digit_strings(f, d, digits_of(t, d), CODED);
    }
    return 1;
}

static int classify(Found *f, Cell t, Counts k) {
    if (k.at_signs) {
        if (!k.letters) return 0;
        hit(f, EMAIL_ADDRESS, SHAPED, 1);
        return 1;
    }
    if (!k.letters) {
        Form form = form_of(t, k);
        return (form.rare && rare_number(f, t, k)) || numbers(f, t, &form);
    }
    for (i64 p = 0; t.s[0] <= '9' && p < t.n; p++)
        if (t.s[p] == 'x') return 0; /* an extension, perhaps */
    return codes(f, t, k);
}

/* Whether a hint has its anchor here and stands there. */
static int hint_at(Cell c, i64 anchor) {
    for (int k = anchors[pair_at(c.s + anchor)]; k; k = next_hint[k]) {
        i64 from = anchor - HINTS[k - 1].anchor, size = HINTS[k - 1].size;
        if (from >= 0 && from + size <= c.n && !memcmp(c.s + from, HINTS[k - 1].text, size)) return 1;
    }
    return 0;
}

/* Whether any stands in a cell. */
static int hinted(Cell c) {
    int any = 0;
    for (i64 p = 1; p < c.n; p++) any |= anchors[pair_at(c.s + p - 1)];
    for (i64 p = 1; p < c.n && any; p++)
        if (hint_at(c, p - 1)) return 1;
    return 0;
}

static void add(Found *f, Cell text, i64 row) {
    f->rows[f->candidates] = row;
    f->starts[f->candidates] = text.s - f->data;
    f->ends[f->candidates++] = text.s - f->data + text.n;
    f->bytes += text.n;
}

/* Eight bytes, the first the lowest. */
static inline uint64_t word_at(const u8 *text) {
    uint64_t word = 0;
    memcpy(&word, text, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The addresses of devices and networks that most columns of them hold, as the whole of a cell: what the search comes to,
 * at once. Six pairs of hex digits between equal marks, or eight groups of up to four between colons of which the first
 * six are not such pairs. Answers 0 of all other cells. */
static int network_address(Found *f, Cell c, i64 row) {
    if (c.n == 17 && (c.s[2] == ':' || c.s[2] == '-')) {
        int marks = 0, digits = HEX;
        for (int k = 2; k < 17; k += 3) marks |= c.s[k] ^ c.s[2];
        for (int k = 0; k < 17; k += 3) digits &= class_of[c.s[k]] & class_of[c.s[k + 1]];
        if (marks || !digits) return 0;
        hit(f, MAC_ADDRESS, SHAPED, 1);
        add(f, c, row);
        return 1;
    }
    if (c.n < 15 || c.n > 39 || !is(c, 0, HEX)) return 0;
    if (c.s[1] != ':' && c.s[2] != ':' && c.s[3] != ':' && c.s[4] != ':') return 0;
    int colons = 0, size = 0, pairs = 1;
    for (i64 p = 0; p < c.n; p++) {
        if (class_of[c.s[p]] & HEX) {
            if (++size > 4) return 0;
        } else {
            if (c.s[p] != ':' || !size) return 0;
            if (colons < 6) pairs &= size == 2;
            colons++, size = 0;
        }
    }
    if (colons != 7 || !size || pairs) return 0;
    hit(f, IP_ADDRESS, SHAPED, 1);
    add(f, c, row);
    return 1;
}

/* Most columns of numbers and codes have cells of a few forms: the same but for their digits. What a search comes to is
 * decided by the form, all but the checks, so it is worked out once a form. */
enum { LEAST_KNOWN = 8, MOST_KNOWN = 32, KNOWN = 512, KNOWN_PIECES = 2, TRIED = 1024 };

/* A candidate of a form: where it stands, and what its digits may be. */
typedef struct {
    u8 from, size;
    enum { NOTHING, NUMBERS, PREFIXED, ANYTHING } holds; /* whatever its digits are */
    Counts counts;
    Form form;
} Piece;

typedef uint64_t Words __attribute__((vector_size(16)));
typedef u8 Text __attribute__((vector_size(16)));

/* A cell of 8 to 32 bytes with zeros for digits and As for capitals. Its first and its last sixteen bytes, which may
 * overlap, or, of a cell of no more, its first and its last eight. */
typedef struct {
    Words first, last;
} Outline;

typedef struct {
    Outline outline;
    u8 size, settled, hints, pieces; /* whether the form decides what is found but for hints, how many candidates these are */
    Piece piece[KNOWN_PIECES];
} KnownForm;

struct Known {
    i64 new, met; /* how often a form was not known and known */
    KnownForm forms[KNOWN];
};

/* Too much for the stack of a thread. */
static _Thread_local struct Known forms_known;

static void forget(struct Known *known) {
    known->new = known->met = 0;
    for (int k = 0; k < KNOWN; k++) known->forms[k].size = 0;
}

static inline Words outlined(Words words) {
    Text text = (Text)words;
    Text digits = (Text)((text - '0') < 10), capitals = (Text)((text - 'A') < 26);
    return (Words)((text & ~(digits & 15) & ~capitals) | (capitals & 'A'));
}

static inline int same(const Outline *one, const Outline *other) {
    Words apart = (one->first ^ other->first) | (one->last ^ other->last);
    return !(apart[0] | apart[1]);
}

/* What is known of cells like this one, or where it is to be kept; NULL of cells that are not looked at so: codes end in
 * digits, words do not, and where most cells have a form of their own it is not worth it. */
static inline KnownForm *known_form(struct Known *known, Cell c, Outline *outline) {
    if (c.n < LEAST_KNOWN || c.n > MOST_KNOWN || !is(c, c.n - 1, DIGIT) || known->new > known->met + TRIED) return 0;
    i64 second = c.n > 16 ? 8 : c.n - 8, third = c.n > 16 ? c.n - 16 : 0;
    Words first = {word_at(c.s), word_at(c.s + second)}, last = {word_at(c.s + third), word_at(c.s + c.n - 8)};
    Words wide = (first | last) & (~(uint64_t)0 / 255 << 7);
    if (wide[0] | wide[1]) return 0;
    first = outlined(first), last = outlined(last);
    *outline = (Outline){first, last};
    uint64_t mixed = (first[0] * 0xFF51AFD7ED558CCDu ^ first[1]) * 0xFF51AFD7ED558CCDu + (last[0] ^ last[1] * 0xC4CEB9FE1A85EC53u) + (uint64_t)c.n;
    KnownForm *one = &known->forms[mixed * 0xC4CEB9FE1A85EC53u >> 55], *two = known->forms + ((one - known->forms) ^ 1);
    if (!one->size || (one->size == c.n && same(&one->outline, outline))) return one;
    return two;
}

static int search_unknown(Found *f, Cell c, Counts all, i64 row);
static int search_piece(Found *f, Cell c, Counts all, i64 row);
static int classify(Found *f, Cell t, Counts k);

/* What the digits of a piece may be, whatever they are: what `codes` comes to. */
static int may_hold(Cell text, Counts k) {
    if (!k.letters) return NUMBERS;
    if (k.letters >= 2 && k.letters + k.digits >= LEAST_IBAN) return ANYTHING;
    return k.digits >= 9 && k.digits <= 19 && k.letters <= 12 && text.s[0] > '9' ? PREFIXED : NOTHING;
}

/* Whether a hint may stand in a cell that differs from this one in its digits and capitals. */
static int may_be_hinted(Cell c) {
    for (int hint = 0; hint < HINT_COUNT; hint++)
        for (i64 p = 0; p + HINTS[hint].size <= c.n; p++) {
            int k = 0;
            for (; k < HINTS[hint].size; k++) {
                u8 here = c.s[p + k], there = (u8)HINTS[hint].text[k];
                if (here != there && !(is_capital(here) && is_capital(there))) break;
            }
            if (k == HINTS[hint].size) return 1;
        }
    return 0;
}

/* Keeps what the search of a cell came to, whose first candidate has that number. Of what digits and capitals themselves
 * decide where candidates are it is kept only that it is not settled: dates, IBANs, addresses of networks, people and
 * purses. */
static void keep(KnownForm *known, const Found *f, i64 first, Cell c, Counts all) {
    int ibans = all.letters >= 2 && all.letters + all.digits >= LEAST_IBAN && all.digits >= IBAN_DIGITS;
    known->pieces = (u8)(f->candidates - first <= KNOWN_PIECES ? f->candidates - first : 0);
    known->settled = f->candidates - first <= KNOWN_PIECES && !ibans && !all.at_signs && !all.colons && all.dashes < 4;
    for (i64 p = 0; p < c.n && known->settled; p++) {
        known->settled = is(c, p - 1, DIGIT) || !may_be_date((Cell){c.s + p, c.n - p});
        known->settled &= run(c, p, DIGIT | LETTER, LEAST_CRYPTO) < LEAST_CRYPTO;
        known->settled &= !all.letters || !at(c, p + 4, '.') || !at(c, p + 9, '.'); /* capitals may be hex digits there */
    }
    known->hints = (u8)may_be_hinted(c);
    for (int k = 0; k < known->pieces && known->settled; k++) {
        Cell text = {f->data + f->starts[first + k], f->ends[first + k] - f->starts[first + k]};
        Piece piece = {.from = (u8)(text.s - c.s), .size = (u8)text.n, .counts = counted(text)};
        piece.holds = may_hold(text, piece.counts), piece.form = form_of(text, piece.counts);
        if (piece.holds == NUMBERS) known->settled = !piece.form.rare;
        known->piece[k] = piece;
    }
}

/* Answers 0 when the cell must be handed back. */
static int search_known(Found *f, Cell c, const KnownForm *known, i64 row) {
    if (known->hints && counted(c).anchored && hinted(c)) return 0;
    for (int k = 0; k < known->pieces; k++) {
        const Piece *piece = &known->piece[k];
        Cell part = {c.s + piece->from, piece->size};
        if (piece->holds == NUMBERS) {
            if (!numbers(f, part, &piece->form)) return 0;
        } else if (piece->holds == PREFIXED) {
            u8 d[MOST_DIGITS];
            digits_at(f, part, &piece->form, d);
            digit_strings(f, d, piece->form.width, CODED);
        } else if (piece->holds == ANYTHING && !classify(f, part, piece->counts)) return 0;
        add(f, part, row);
    }
    return 1;
}

/* A right IBAN as the whole of a cell: what the search comes to, at once. Answers 0 of all other cells. */
static inline int bank_account(Found *f, Cell c, i64 row) {
    int valid = 0;
    if (c.n < LEAST_IBAN || !is(c, 0, LETTER) || !is(c, 1, LETTER) || !(is(c, 3, DIGIT) & is(c, 4, DIGIT | BETWEEN))) return 0;
    if (iban_written(c, 0, &valid) != c.n || !valid || hinted(c)) return 0;
    hit(f, IBAN_CODE, SHAPED, valid);
    add(f, c, row);
    return 1;
}

#if defined __SSE2__
/* An address of a person as the whole of a cell, what most cells with an @ are: what the search comes to, at once.
 * Answers 0 of all other cells. */
static int person_address(Found *f, Cell c, i64 row) {
    uint64_t letters = 0, digits = 0, dots = 0, dashes = 0, others = 0, signs = 0;
    if (c.n < 16 || c.n > 64 || f->end - c.s < 64) return 0;
    for (int at = 0; at < c.n; at += 16) {
        __m128i text = _mm_loadu_si128((const __m128i *)(c.s + at));
        __m128i other = _mm_or_si128(_mm_or_si128(equal(text, '_'), equal(text, '%')), _mm_or_si128(equal(text, '+'), equal(text, '\'')));
        letters |= mask_of(between(_mm_or_si128(text, _mm_set1_epi8(32)), 'a', 'z'), at);
        digits |= mask_of(between(text, '0', '9'), at), others |= mask_of(other, at);
        dots |= mask_of(equal(text, '.'), at), dashes |= mask_of(equal(text, '-'), at), signs |= mask_of(equal(text, '@'), at);
    }
    uint64_t all = ~(uint64_t)0 >> (64 - c.n), last = all ^ all >> 1, sign = signs & all;
    if (!sign || sign & (sign - 1) || sign == 1) return 0;
    uint64_t local = sign - 1, domain = all & ~(sign | local), labels = letters | digits | dashes, points = dots & domain;
    if (local & ~(labels | dots | others) || domain & ~(labels | dots)) return 0;
    if (!points || points & (points << 1 | sign << 1 | last)) return 0;
    int few_digits = __builtin_popcountll(digits & all) < IBAN_DIGITS;
    if (!(letters & all) || !few_digits || hinted(c)) return 0;
    hit(f, EMAIL_ADDRESS, SHAPED, 1);
    add(f, c, row);
    return 1;
}
#else
static int person_address(Found *f, Cell c, i64 row) { return (void)f, (void)c, (void)row, 0; }
#endif

/* Answers 0 when the cell must be handed back. */
static int search(Found *f, Cell c, i64 row) {
    if (c.n > LONGEST_CELL) return 0;
    if (network_address(f, c, row) || bank_account(f, c, row)) return 1;
    Outline outline;
    KnownForm *known = known_form(f->known, c, &outline);
    if (!known) return person_address(f, c, row) || search_unknown(f, c, counted(c), row);
    if (known->size != c.n || !same(&known->outline, &outline)) {
        i64 candidates = f->candidates;
        Counts all = counted(c);
        f->known->new++;
        if (!search_unknown(f, c, all, row)) return 0;
        known->outline = outline, known->size = (u8)c.n;
        keep(known, f, candidates, c, all);
        return 1;
    }
    f->known->met++;
    return known->settled ? search_known(f, c, known, row) : search_unknown(f, c, counted(c), row);
}

/* IBANs are taken out first, and what is left between them is searched. */
static int search_unknown(Found *f, Cell c, Counts all, i64 row) {
    if (all.anchored && hinted(c)) return 0;
    if (all.letters < 2 || all.letters + all.digits < LEAST_IBAN || all.digits < IBAN_DIGITS || all.seen & WIDE)
        return search_piece(f, c, all, row);
    i64 from = 0;
    int valid;
    for (i64 q = 2; q < c.n; q++) { /* behind two letters, and a blank perhaps, digits begin */
        if (!is(c, q, DIGIT) || is(c, q - 1, DIGIT)) continue;
        i64 p = q - (c.s[q - 1] == ' ' ? 3 : 2);
        if (p < from || !is(c, p, LETTER) || is(c, p - 1, WORD)) continue;
        i64 end = iban_written(c, p, &valid);
        if (end < 0) continue;
        hit(f, IBAN_CODE, SHAPED, valid);
        add(f, (Cell){c.s + p, end - p}, row);
        if (!valid) continue;
        Cell before = {c.s + from, p - from};
        if (before.n && !search_piece(f, before, counted(before), row)) return 0;
        from = end, q = end;
    }
    Cell rest = {c.s + from, c.n - from};
    return !rest.n || search_piece(f, rest, from ? counted(rest) : all, row);
}

/* Where a word ends that begins here and is of letters alone, if neither it nor it together with what follows can be
 * anything but part of an address of a person; or where it begins, if so. */
static inline i64 mere_word(Cell c, i64 p) {
    i64 q = p + 1;
    while (is(c, q, LETTER)) q++;
    if (q - p >= LEAST_CRYPTO || (q - p == 2 && at(c, q, ' '))) return p;
    return q < c.n && (class_of[c.s[q]] & WORD || one_of(c, q, "-#:+(")) ? p : q;
}

static int search_piece(Found *f, Cell c, Counts all, i64 row) {
    int signs = all.at_signs, digits = all.digits, colons = all.colons, dashes = all.dashes;
    if (!signs && !colons && dashes < 4 && digits < LEAST_DIGITS && !(digits && (c.n >= LEAST_CRYPTO || all.dots >= 2)))
        return 1;
    if (all.seen & WIDE) return 0;
    if (digits == c.n && digits > PHRASE_DIGITS && digits <= MOST_DIGITS) { /* what the steps below come to, at once */
        u8 d[MOST_DIGITS];
        digit_strings(f, d, digits_of(c, d), BARE);
        add(f, c, row);
        return 1;
    }
    i64 resume = 0, local_end = 0;
    for (i64 p = 0; p < c.n;) {
        i64 end = -1;
        u8 flag = class_of[c.s[p]];
        if (signs && p >= local_end && flag & LOCAL && (p == resume || !is(c, p - 1, LOCAL))) end = email(c, p, &local_end);
        if (end < 0 && flag & LETTER && edge(c, p)) {
            i64 q = mere_word(c, p);
            if (q > p) {
                p = q;
                continue;
            }
        }
        if (end < 0 && flag & (DIGIT | LETTER) && edge(c, p)) {
            if (flag & HEX && (colons || dashes)) {
                if (dashes >= 4) end = uuid(c, p);
                if (end < 0) end = mac(c, p);
                if (end < 0 && colons >= 7) end = ipv6_full(c, p);
                if (end < 0 && colons >= 2) end = ipv6_short(c, p);
            }
            if (flag & DIGIT) {
                int size = run(c, p, DIGIT, LONGEST_CELL), point = at(c, p + size, '.');
                int dated = point || one_of(c, p + size, "-/");
                if (end < 0 && size == 4 && dated) end = year_first(c, p);
                if (end < 0 && size <= 2 && dated) end = year_last(c, p);
                int rare = point || is(c, p + size, WORD) || (size < 32 && RARE_DIGITS >> size & 1);
                if (end < 0 && rare && rare_code(c, p)) return 0;
                if (end < 0 && size == 2 && point) end = npwp_like(c, p);
                if (end < 0 && size <= 3 && point) end = ipv4_like(c, p);
                if (end < 0 && point) end = fraction(c, p);
            } else {
                if (end < 0) end = iban_like(c, p);
                if (end < 0 && rare_code(c, p)) return 0;
            }
            if (end < 0) end = phrase(c, p);
            if (end < 0 && flag & LETTER) end = prefixed(c, p);
        } else if (end < 0 && (c.s[p] == '+' || c.s[p] == '(') && is(c, p + 1, DIGIT)) end = phrase(c, p);
        if (end < 0) {
            /* Nothing begins inside a word. */
            for (p++; flag & WORD && is(c, p, WORD); p++) {}
            continue;
        }
        Cell text = {c.s + p, end - p};
        if (!classify(f, text, text.n == c.n ? all : counted(text))) return 0;
        add(f, text, row);
        p = resume = end;
    }
    return 1;
}

/* Copies the candidates' text together; `ends` become those in the copy. */
static void gather(Found *f, u8 *text) {
    i64 used = 0;
    for (i64 k = 0; k < f->candidates; k++) {
        i64 size = f->ends[k] - f->starts[k];
        memcpy(text + used, f->data + f->starts[k], size);
        f->ends[k] = used += size;
    }
}

/* Those that are no right IBANs are searched again. */
static i64 most_candidates(i64 size) { return size > LONGEST_CELL ? 1 : size / SHORTEST + size / LEAST_IBAN + 1; }
static int has_room(const Found *f, i64 size, i64 room, i64 text_room) {
    i64 most = most_candidates(size);
    return f->candidates + most <= room && f->bytes + 2 * size <= text_room;
}

/* Searches cells from `first` on until all are done or the room is used up. Answers how many cells are done; `counts`
 * has the numbers of candidates, hits, bytes of candidates, and cells handed back. */
i64 lintas_search(const i64 *offsets, const u8 *data, i64 first, i64 cells, i64 *rows, i64 *starts, i64 *ends, u8 *text,
                  i64 *hit_candidates, int16_t *hit_keys, u8 *hit_valid, i64 *back, i64 room, i64 text_room, i64 *counts) {
    forget(&forms_known);
    Found f = {data, data + offsets[cells], rows, starts, ends, hit_candidates, hit_keys, hit_valid, 0, 0, 0, &forms_known};
    i64 returned = 0, cell = first;
    for (; cell < cells; cell++) {
        Cell c = {data + offsets[cell], offsets[cell + 1] - offsets[cell]};
        if (!has_room(&f, c.n, room, text_room)) break;
        Found before = f;
        if (!search(&f, c, cell)) f = before, back[returned++] = cell;
    }
    gather(&f, text);
    counts[0] = f.candidates, counts[1] = f.hits, counts[2] = f.bytes, counts[3] = returned;
    return cell;
}

/* Counting: what `tallies` does with hits one array at a time, here while the cell is at hand. */

/* What a scan asks of hits: see `native.Ask`. */
typedef struct {
    const uint16_t *const *home; /* automata over digits, a row of sixteen a state: the next state by digit, whether it ends */
    i64 home_plans;
    const uint16_t *abroad;
    const char *const *words; /* in lower case, in order of the alphabet */
    const uint64_t *word_entities; /* as bits, which entities a word speaks for */
    const i64 *words_with; /* of each letter the first word that begins with it; one more */
} Ask;

/* The least hashes of a set of texts with what is marked of them: at least so many as are wanted, if there are so many,
 * and up to twice as many. A table whose slots are claimed from a hash's own on; `notes` tell of the slots that are used.
 */
enum { NOTED = 256 /* beside eight marks */, MARKED = 512 /* its marks are worked out */, RANGE_BITS = 9 };

typedef struct {
    uint64_t bound; /* above which hashes are not among the least */
    i64 wanted, held;
    uint64_t *hashes;
    uint16_t *notes;
} Sample;

/* Claims the slot of a hash; whether it was free. */
static inline int claim(Sample *s, uint64_t hash, i64 *slot) {
    i64 slots = s->wanted * SLOTS_EACH, at = (i64)(hash & (uint64_t)(slots - 1));
    for (; s->notes[at] && s->hashes[at] != hash; at = (at + 1) & (slots - 1)) {}
    *slot = at;
    if (s->notes[at]) return 0;
    s->hashes[at] = hash, s->notes[at] = NOTED, s->held++;
    return 1;
}

static int by_size(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Lowers the bound so that hardly more are held than are wanted: to the end of the range that the last wanted one is in,
 * or, where hashes are not spread as they should be, to this one itself. */
static void thin(Sample *s) {
    i64 slots = s->wanted * SLOTS_EACH, in_range[1 << RANGE_BITS] = {0}, below = 0, all = 0, kept = 0;
    int bits = 64 - __builtin_clzll(s->bound | 1), shift = bits > RANGE_BITS ? bits - RANGE_BITS : 0, last = -1;
    uint64_t hashes[s->held];
    uint16_t notes[s->held];
    for (i64 slot = 0; slot < slots; slot++) {
        if (!s->notes[slot]) continue;
        in_range[s->hashes[slot] >> shift]++;
        hashes[all] = s->hashes[slot], notes[all++] = s->notes[slot], s->notes[slot] = 0;
    }
    while (below < s->wanted) below += in_range[++last];
    uint64_t bound = ((uint64_t)last << shift) + ((uint64_t)1 << shift) - 1;
    if (bound > s->bound) bound = s->bound;
    if (below > s->wanted + s->wanted / 2) {
        uint64_t sorted[s->held];
        memcpy(sorted, hashes, sizeof sorted);
        qsort(sorted, (size_t)s->held, sizeof *sorted, by_size);
        bound = sorted[s->wanted - 1];
    }
    s->bound = bound, s->held = 0;
    for (i64 slot; kept < all; kept++)
        if (hashes[kept] <= bound) claim(s, hashes[kept], &slot), s->notes[slot] = notes[kept];
}

/* Finds or claims the slot of a hash that is not above the bound; whether it is new. -1 when it is so no longer. */
static inline int entered(Sample *s, uint64_t hash, i64 *slot) {
    if (!claim(s, hash, slot)) return 0;
    if (s->held < 2 * s->wanted) return 1;
    thin(s);
    return hash <= s->bound ? claim(s, hash, slot), 1 : -1;
}

/* Moves what is held to the beginning of other arrays; the table is left as it was found, empty. */
static i64 take(Sample *s, uint64_t *hashes, u8 *marks) {
    i64 taken = 0;
    for (i64 slot = 0; slot < s->wanted * SLOTS_EACH && s->held; slot++) {
        if (s->notes[slot]) hashes[taken] = s->hashes[slot], marks[taken++] = (u8)s->notes[slot];
        s->notes[slot] = 0;
    }
    return taken;
}

/* Of a key: in how many rows valid hits stand, in how many they fill the cell, which row was counted last, and a sample of
 * the candidates. */
typedef struct {
    i64 cells, last, whole, last_whole;
    Sample sample;
} Tally;

/* Counts a row once. */
static inline void count_row(i64 *rows, i64 *last, i64 row, i64 weight, int counts) {
    *rows += counts && *last != row ? weight : 0;
    *last = counts ? row : *last;
}

/* The twin of `candidates.hashed`. */
static uint64_t hash_of(const u8 *text, i64 size) {
    const uint64_t factor = 0xFF51AFD7ED558CCDu;
    uint64_t h = (uint64_t)size, power = factor, word = 0;
    i64 at = 0;
    for (; at + 8 <= size; at += 8, power *= factor) {
        word = word_at(text + at);
        h += (word ^ word >> 29) * power;
    }
    if (at < size) {
        word = 0;
        if (size >= 8) word = word_at(text + size - 8) >> 8 * (8 - (size - at));
        else
            for (i64 k = 0; k < size; k++) word |= (uint64_t)text[k] << 8 * k;
        h += (word ^ word >> 29) * power;
    }
    h = (h ^ h >> 33) * factor;
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53u;
    return h ^ h >> 33;
}

static int accepts(const uint16_t *plan, Cell t) {
    size_t state = 1;
    for (i64 p = 0; p < t.n; p++)
        if (class_of[t.s[p]] & DIGIT) state = plan[state << 4 | (t.s[p] & 15)];
    return plan[state << 4 | 10];
}

static int at_home(const Ask *ask, Cell t) {
    for (i64 k = 0; k < ask->home_plans; k++)
        if (accepts(ask->home[k], t)) return 1;
    return 0;
}

/* The twin of `phones.checked`. */
static int check_phone(const Ask *ask, Cell t, int evidence, int valid) {
    if (evidence == CODED) return valid;
    if (evidence == BARE) return valid && at_home(ask, t);
    if (t.s[0] == '+') return valid && accepts(ask->abroad, t);
    return valid || ((t.s[0] == '(' || (t.s[0] == '0' && counted(t).digits == SHORT_PHONE)) && at_home(ask, t));
}

/* The entities that a word speaks for which begins at p and ends with its letters. A blank in it may be another
 * separator in the text, or missing; with `alone` words of letters alone count. */
static uint64_t spoken_at(const Ask *ask, Cell c, i64 p, int alone) {
    uint64_t entities = 0;
    int letter = (c.s[p] | 32) - 'a';
    for (i64 k = ask->words_with[letter]; k < ask->words_with[letter + 1]; k++) {
        i64 q = p;
        const char *word = ask->words[k];
        for (; *word; word++) {
            if (class_of[(u8)*word] & LETTER) {
                if (!is(c, q, LETTER) || (c.s[q++] | 32) != *word) break;
            } else if (alone) break;
            else if (*word == ' ') q += one_of(c, q, " _-");
            else if (!at(c, q++, (u8)*word)) break;
        }
        if (!*word && !is(c, q, LETTER)) entities |= ask->word_entities[k];
    }
    return entities;
}

/* The entities that any word of a cell speaks for. */
static uint64_t spoken_in(const Ask *ask, Cell c) {
    uint64_t entities = 0;
    for (i64 p = 0; p < c.n; p++)
        if (is(c, p, LETTER) && !is(c, p - 1, LETTER)) entities |= spoken_at(ask, c, p, 0);
    return entities;
}

/* The hash of each cell. */
void lintas_hashes(const i64 *offsets, const u8 *data, i64 cells, uint64_t *hashes) {
    for (i64 cell = 0; cell < cells; cell++) hashes[cell] = hash_of(data + offsets[cell], offsets[cell + 1] - offsets[cell]);
}

/* The entities for which words speak beside a candidate in its cell, or, of codes, in front of its digits. */
static uint64_t spoken_beside(const Ask *ask, Cell text, Cell cell, int evidence) {
    uint64_t spoken = cell.n > text.n + 1 ? spoken_in(ask, cell) : 0;
    return evidence == CODED && is(text, 0, LETTER) ? spoken | spoken_at(ask, text, 0, 1) : spoken;
}

/* Counts the hits of a cell, which is of so many rows from the given one on: the twin of `tallies.count`. */
static void count_hits(const Found *f, const Ask *ask, Tally *tallies, Cell cell, uint64_t cell_hash, i64 row, i64 weight) {
    for (i64 k = 0; k < f->hits;) {
        i64 candidate = f->hit_candidates[k];
        Cell text = {f->data + f->starts[candidate], f->ends[candidate] - f->starts[candidate]};
        uint64_t hash = text.n == cell.n ? cell_hash : hash_of(text.s, text.n), spoken = 0;
        int fills = 5 * text.n >= 4 * cell.n, asked = SHAPED;
        for (; k < f->hits && f->hit_candidates[k] == candidate; k++) {
            unsigned key = (unsigned)f->hit_keys[k], entity = key / 4, evidence = key % 4;
            int valid = f->hit_valid[k];
            if (entity == PHONE_NUMBER) valid = check_phone(ask, text, (int)evidence, valid);
            if (evidence != SHAPED) {
                if (asked != (int)evidence) spoken = spoken_beside(ask, text, cell, asked = (int)evidence);
                key |= spoken >> entity & 1 ? CONTEXT : 0;
            }
            Tally *t = &tallies[key];
            i64 slot;
            if (hash <= t->sample.bound && entered(&t->sample, hash, &slot) >= 0) t->sample.notes[slot] |= (uint16_t)valid;
            count_row(&t->cells, &t->last, row, weight, valid);
            count_row(&t->whole, &t->last_whole, row, weight, valid & fills);
        }
    }
}

/* Searches like `lintas_search`, and counts in place of telling. Each cell has a hash (`lintas_hashes`), belongs to a row (`rows_of`; NULL: its own)
 * and stands for so many (`weights`; NULL: one). `bounds` become the numbers of each key's sample, which follow one
 * another in `hashes` and `valid`; the tables are all zeros and are left so. Answers how many cells are handed back. */
i64 lintas_tally(const i64 *offsets, const u8 *data, const uint64_t *cell_hashes, i64 cells, const i64 *rows_of, const i64 *weights, const Ask *ask,
                 i64 *rows, i64 *starts, i64 *ends, i64 *hit_candidates, int16_t *hit_keys, u8 *hit_valid, i64 *back,
                 i64 room, i64 wanted, uint64_t *table, uint16_t *notes, i64 *tallied, i64 *whole, uint64_t *bounds,
                 uint64_t *hashes, u8 *valid) {
    Tally tallies[KEYS];
    i64 returned = 0, sampled = 0;
    forget(&forms_known);
    Found f = {data, data + offsets[cells], rows, starts, ends, hit_candidates, hit_keys, hit_valid, 0, 0, 0, &forms_known};
    for (int key = 0; key < KEYS; key++) {
        i64 slots = key * wanted * SLOTS_EACH;
        tallies[key] = (Tally){0, -1, 0, -1, {bounds[key], wanted, 0, table + slots, notes + slots}};
    }
    for (i64 cell = 0; cell < cells; cell++) {
        Cell c = {data + offsets[cell], offsets[cell + 1] - offsets[cell]};
        f.candidates = f.hits = f.bytes = 0;
        if ((c.n > room && most_candidates(c.n) > room) || !search(&f, c, cell)) back[returned++] = cell;
        else if (f.hits) count_hits(&f, ask, tallies, c, cell_hashes[cell], rows_of ? rows_of[cell] : cell, weights ? weights[cell] : 1);
    }
    for (int key = 0; key < KEYS; key++) {
        tallied[key] = tallies[key].cells, whole[key] = tallies[key].whole;
        bounds[key] = (uint64_t)take(&tallies[key].sample, hashes + sampled, valid + sampled);
        sampled += (i64)bounds[key];
    }
    return returned;
}

/* Looks: the twin of `marks.text_marks`, for cells of ASCII. */

static int is_one_of(Cell c, const char *const *words, int count) {
    for (int low = 0, high = count; low < high;) {
        int middle = (low + high) / 2;
        const char *word = words[middle];
        i64 p = 0;
        while (p < c.n && word[p] && (c.s[p] | 32) == word[p]) p++;
        if (p == c.n && !word[p]) return 1;
        if (p < c.n && (!word[p] || (c.s[p] | 32) > word[p])) low = middle + 1;
        else high = middle;
    }
    return 0;
}

static int is_upper(Cell c, i64 p) { return is(c, p, LETTER) && c.s[p] <= 'Z'; }

static int like_name(Cell c) {
    static const char *const none[] = {"anonymous", "false", "nan", "none", "null", "redacted", "removed", "test", "true", "unknown"};
    int words = 0, capitals = 1, given = 0;
    i64 p = 0;
    for (;; words++) {
        i64 begin = p;
        if (!is(c, p, LETTER)) return 0;
        capitals &= is_upper(c, p);
        int comma = begin > 1 && c.s[begin - 2] == ',';
        Cell word = {c.s + begin, run(c, begin, LETTER, LONGEST_CELL)};
        if (!words || (comma && !(given & 2))) given |= is_one_of(word, GIVEN_NAMES, GIVEN_COUNT) | (comma ? 2 : 0);
        while (is(c, p, LETTER) || one_of(c, p, "'.-")) p++;
        if (!words) capitals &= p - begin >= 2;
        if (p == c.n) break;
        p += at(c, p, ',');
        if (!at(c, p++, ' ')) return 0;
    }
    if (++words > 6) return 0;
    int full = capitals && words >= 2 && words <= 5 ? MARK_FULL_NAME : 0;
    if (is_one_of(c, none, sizeof none / sizeof *none)) return full;
    if (c.n <= 4 && (c.s[0] | 32) == 'n') {
        i64 q = 1 + at(c, 1, '.');
        if (q < c.n && (c.s[q] | 32) == 'a' && q + 1 + at(c, q + 1, '.') == c.n) return full;
    }
    return full | MARK_NAME | (given & 1 ? MARK_GIVEN : 0);
}

static int like_address(Cell c) {
    int letter = 0, parted = 0, comma = 0, digit = 0, spaced = 0;
    if (!memchr(c.s, ' ', c.n) && !memchr(c.s, ',', c.n)) return 0;
    for (i64 p = 0; p < c.n; p++) {
        u8 byte = c.s[p];
        if (byte == '\n') letter = parted = comma = digit = spaced = 0;
        else if (class_of[byte] & DIGIT) {
            if (parted) return 1;
            digit = 1;
        } else if (class_of[byte] & LETTER) {
            if (spaced || comma) return 1;
            letter = 1;
        } else if (byte == ' ') parted |= letter, spaced |= digit;
        else if (byte == ',') parted |= letter, comma |= letter;
    }
    return 0;
}

static int like_date(Cell c) {
    if (year_last(c, 0) == c.n) return 1;
    if (run(c, 0, DIGIT, 4) < 4) return 0;
    if (!(c.s[0] == '1' && (c.s[1] == '8' || c.s[1] == '9')) && !(c.s[0] == '2' && c.s[1] == '0')) return 0;
    i64 p = 4;
    for (int k = 0; k < 2; k++) {
        p += one_of(c, p, "-/.");
        if (run(c, p, DIGIT, 2) < 2) return 0;
        p += 2;
    }
    return p == c.n || one_of(c, p, "T ");
}

static int like_coordinate(Cell c) {
    i64 p = at(c, 0, '-');
    int whole = run(c, p, DIGIT, 4);
    if (!whole || whole > 3 || !at(c, p + whole, '.')) return 0;
    int part = run(c, p + whole + 1, DIGIT, LONGEST_CELL);
    return part >= 3 && p + whole + 1 + part == c.n;
}

static int like_bank(Cell c) {
    if (c.n != 8 && c.n != 11) return 0;
    for (i64 p = 0; p < c.n; p++)
        if (!is_upper(c, p) && !(p >= 6 && is(c, p, DIGIT))) return 0;
    return 1;
}

static int like_document(Cell c) {
    i64 p = run(c, 0, LETTER, 6);
    if (p > 5) return 0;
    p += one_of(c, p, " -");
    if (!is(c, p, DIGIT) || c.n - p - 1 < 4 || c.n - p - 1 > 17) return 0;
    while (is(c, p, LETTER | DIGIT) || one_of(c, p, " -")) p++;
    return p == c.n;
}

/* Samples the different cells whose hash (`lintas_hashes`) is not above a bound, with what they look like. The table is
 * left empty; those that must be looked at in Python stand in `unknown`, with the hashes behind. Answers how many are
 * sampled. */
i64 lintas_sample(const i64 *offsets, const u8 *data, const uint64_t *cell_hashes, i64 cells, uint64_t bound, i64 wanted,
                  uint64_t *table, uint16_t *notes, uint64_t *hashes, u8 *marks, i64 *unknown, uint64_t *unknown_hashes,
                  i64 *unknowns) {
    /* Below that so many are, if most cells differ; if not, all are asked again. */
    uint64_t likely = cells > 2 * wanted ? ~(uint64_t)0 / (uint64_t)cells * (uint64_t)(wanted + wanted / 2) : bound;
    Sample s = {likely < bound ? likely : bound, wanted, 0, table, notes};
    i64 handed = 0, slot;
    for (int again = s.bound < bound; again >= 0; again--) {
        for (i64 cell = 0; cell < cells; cell++)
            if (cell_hashes[cell] <= s.bound) entered(&s, cell_hashes[cell], &slot);
        if (s.held >= wanted) break;
        s.bound = bound;
    }
    /* Only what is held in the end is looked at. */
    for (i64 cell = 0, left = s.held; cell < cells && left; cell++) {
        if (cell_hashes[cell] > s.bound || (claim(&s, cell_hashes[cell], &slot), notes[slot] & MARKED)) continue;
        Cell c = {data + offsets[cell], offsets[cell + 1] - offsets[cell]};
        u8 seen = 0;
        for (i64 p = 0; p < c.n; p++) seen |= c.s[p];
        notes[slot] |= MARKED, left--;
        if (seen >= 128 || c.n > LONGEST_CELL) unknown[handed] = cell, unknown_hashes[handed++] = cell_hashes[cell];
        else
            notes[slot] |= (uint16_t)(like_name(c) | (like_address(c) ? MARK_ADDRESS : 0) | (like_date(c) ? MARK_DATE : 0) |
                                      (like_coordinate(c) ? MARK_COORDINATE : 0) | (like_bank(c) ? MARK_BANK : 0) |
                                      (like_document(c) ? MARK_DOCUMENT : 0));
    }
    *unknowns = handed;
    return take(&s, hashes, marks);
}

static int two_digits(Cell c, i64 p) { return run(c, p, DIGIT, 2) == 2; }

/* The twin of `patterns.PLAIN`. */
static int like_plain(Cell c) {
    if (c.n == 30 && !memcmp(c.s, "tok_", 4)) {
        int fitting = 1;
        for (i64 p = 4; p < c.n; p++) fitting &= (c.s[p] >= 'a' && c.s[p] <= 'z') | (c.s[p] >= '2' && c.s[p] <= '7');
        return fitting;
    }
    if (c.n == 36 && uuid(c, 0) == c.n) return 1;
    i64 p = at(c, 0, '-'), whole = p;
    while (is(c, whole, DIGIT)) whole++;
    if (whole == p) return 0;
    if (whole == c.n) return whole - p <= 8;
    if (c.s[whole] == '.') {
        i64 end = whole + 1;
        while (is(c, end, DIGIT)) end++;
        return end > whole + 1 && end == c.n;
    }
    int century = c.s[0] == '1' ? c.s[1] == '8' || c.s[1] == '9' : c.s[0] == '2' && c.s[1] == '0';
    if (p || whole != 4 || !century || !at(c, 4, '-') || !two_digits(c, 5) || !at(c, 7, '-') || !two_digits(c, 8)) return 0;
    if (c.n == 10) return 1;
    if (!one_of(c, 10, "T ") || !two_digits(c, 11) || !at(c, 13, ':') || !two_digits(c, 14)) return 0;
    i64 end = 16;
    if (at(c, end, ':')) {
        if (!two_digits(c, 17)) return 0;
        end = 19;
        if (at(c, end, '.')) {
            for (end = 20; is(c, end, DIGIT); end++) {}
            if (end == 20) return 0;
        }
    }
    return end + at(c, end, 'Z') == c.n;
}

/* Whether all cells are of forms that no entity has. */
int lintas_plain(const i64 *offsets, const u8 *data, i64 cells) {
    for (i64 cell = 0; cell < cells; cell++)
        if (!like_plain((Cell){data + offsets[cell], offsets[cell + 1] - offsets[cell]})) return 0;
    return 1;
}

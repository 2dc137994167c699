/* Exchanges of HTTP/1.1 on a thread of their own: a request goes out, its answer comes into the caller's memory.

   What `wire.py` does in Python, for whoever has thousands of small ones a second (RFC 9112): a body of a known length
   goes out; one of a known length, in chunks, or up to the end of the connection comes back. The caller makes the
   connections; TLS is read and written by the functions of OpenSSL that the caller names, on connections that it has
   opened and trusts. A slot is a connection. It is the caller's while it is idle, this thread's from `lintas_ask` on until
   `lintas_answers` tells how it ended. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

typedef uint8_t u8;
typedef int32_t i32;
typedef int64_t i64;

enum { HEAD_BYTES = 65536, MOST_UNASKED_BYTES = 4 << 20, LINE_BYTES = 1024, EVENTS = 128, LOOK_MS = 1000 };
enum { BELL = -1 };
enum { WANT_READ = 2, WANT_WRITE = 3, ZERO_RETURN = 6 };                  /* of OpenSSL */
enum { CUT = 1, SILENT = 2, NOT_HTTP = 3, TOO_LONG = 4, NO_MEMORY = 5 };  /* how an exchange may fail */
enum { USABLE = 1, BEGUN = 2 };
enum { IDLE, SENDING, HEAD, COUNTED, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, REST, DONE, GONE };

typedef struct {
    int (*read)(void *, void *, int), (*write)(void *, const void *, int), (*error)(void *, int);
    void (*clear)(void);
} Secure;

typedef struct {
    int fd, state, status, error, flags, readable;
    void *tls;
    i64 since_ms;
    u8 *out;                       /* the request's head, and what of it and of the body has been sent */
    i64 out_size, out_room, sent, body_size;
    const u8 *body;
    u8 *room;                      /* where the content of a successful answer goes */
    i64 room_size;
    u8 *in;                        /* what was received and is not taken yet: between `from` and `to` */
    i64 from, to, looked;
    char *fields;                  /* names in lower case and values of the answer's head, each ended by a line feed */
    i64 fields_size;
    u8 *spill;                     /* content that was not asked for */
    i64 spill_room;
    int wanted;
    i64 size, left;                /* content that has come, and what is still to come of it or of a chunk */
} Slot;

typedef struct {
    Slot **slots;
    i32 count, room;
    i32 *asked, asked_count;       /* from the caller to the thread */
    i32 *ended, ended_count;       /* and back */
    i32 *taken;
    int poll, bell, done_bell, sleeping, stop;
    i64 silence_ms, now_ms;
    Secure secure;
    pthread_t thread;
    pthread_mutex_t lock;
} Engine;

typedef struct { i64 slot, head_size, body, body_size, room, room_size; } Ask;
typedef struct { i64 slot, status, error, flags, size, spilled, fields_size; } Ended;

static i64 clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (i64)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int wait_for_more(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

/* So many bytes sent or received; 0 at the end of the connection, -1 when it must be waited for, -2 when it is cut. */
static i64 secured(Engine *engine, Slot *slot, int done) {
    if (done > 0) return done;
    int reason = engine->secure.error(slot->tls, done);
    if (reason == WANT_READ || reason == WANT_WRITE) return -1;
    return reason == ZERO_RETURN || (done == 0 && errno == 0) ? 0 : -2;
}
static i64 received(Engine *engine, Slot *slot, u8 *into, i64 most) {
    if (slot->tls) {
        errno = 0;
        engine->secure.clear();
        return secured(engine, slot, engine->secure.read(slot->tls, into, (int)most));
    }
    for (;;) {
        ssize_t got = recv(slot->fd, into, (size_t)most, 0);
        if (got >= 0) return got;
        if (errno != EINTR) return wait_for_more() ? -1 : -2;
    }
}
static i64 sent(Engine *engine, Slot *slot) {
    i64 of_head = slot->out_size - slot->sent, of_body = slot->sent - slot->out_size;
    if (slot->tls) {
        const u8 *data = of_head > 0 ? slot->out + slot->sent : slot->body + of_body;
        i64 most = of_head > 0 ? of_head : slot->body_size - of_body;
        errno = 0;
        engine->secure.clear();
        return secured(engine, slot, engine->secure.write(slot->tls, data, (int)most));
    }
    struct iovec parts[2];
    struct msghdr message = {.msg_iov = parts};
    if (of_head > 0) parts[message.msg_iovlen++] = (struct iovec){slot->out + slot->sent, (size_t)of_head};
    if (of_body < 0) of_body = 0;
    if (of_body < slot->body_size)
        parts[message.msg_iovlen++] = (struct iovec){(void *)(slot->body + of_body), (size_t)(slot->body_size - of_body)};
    for (;;) {
        ssize_t gone = sendmsg(slot->fd, &message, MSG_NOSIGNAL);
        if (gone >= 0) return gone;
        if (errno != EINTR) return wait_for_more() ? -1 : -2;
    }
}

static void finish(Engine *engine, i32 number, int error) {
    Slot *slot = engine->slots[number];
    slot->error = error;
    /* What follows an answer that nobody asked for is no answer to the next request. */
    if (error || slot->from != slot->to) slot->flags &= ~USABLE;
    slot->state = IDLE;
    pthread_mutex_lock(&engine->lock);
    int first = engine->ended_count == 0;
    engine->ended[engine->ended_count++] = number;
    pthread_mutex_unlock(&engine->lock);
    if (first) eventfd_write(engine->done_bell, 1);
}

static int same(const char *name, i64 size, const char *wanted) {
    return size == (i64)strlen(wanted) && !memcmp(name, wanted, (size_t)size);
}
static u8 lower(u8 c) { return c >= 'A' && c <= 'Z' ? c | 32 : c; }
static int blank(u8 c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static int holds(const char *text, i64 size, const char *word) {
    i64 width = (i64)strlen(word);
    for (i64 at = 0; at + width <= size; at++) {
        i64 same_bytes = 0;
        while (same_bytes < width && lower((u8)text[at + same_bytes]) == (u8)word[same_bytes]) same_bytes++;
        if (same_bytes == width) return 1;
    }
    return 0;
}
static i64 decimal(const char *text, i64 size) {
    i64 value = 0;
    if (!size) return -1;
    for (i64 at = 0; at < size; at++) {
        if (text[at] < '0' || text[at] > '9' || value > ((i64)1 << 58)) return -1;
        value = value * 10 + text[at] - '0';
    }
    return value;
}

/* Reads the head that ends before `end`; what the slot does next, or minus how it failed. */
static int head_read(Slot *slot, i64 end) {
    const u8 *line = slot->in + slot->from, *last = slot->in + end;
    if (last - line < 12 || memcmp(line, "HTTP/1.", 7)) return -NOT_HTTP;
    i64 status = decimal((const char *)line + 9, 3), length = -1;
    if (status < 0) return -NOT_HTTP;
    int coded = 0, chunked = 0, has_length = 0;
    slot->fields_size = 0;
    line = memchr(line, '\n', (size_t)(last - line));
    while (line && ++line < last) {
        const u8 *stop = memchr(line, '\n', (size_t)(last - line)), *next = stop;
        if (!stop) stop = last;
        const u8 *text_end = stop > line && stop[-1] == '\r' ? stop - 1 : stop;
        if (memchr(line, 0, (size_t)(text_end - line)) || memchr(line, '\r', (size_t)(text_end - line))) return -NOT_HTTP;
        const u8 *colon = memchr(line, ':', (size_t)(text_end - line));
        const u8 *name_end = colon ? colon : text_end, *value = colon ? colon + 1 : text_end;
        while (value < text_end && blank(*value)) value++;
        while (text_end > value && blank(text_end[-1])) text_end--;
        char *name = slot->fields + slot->fields_size, *to = name;
        for (const u8 *c = line; c < name_end; c++) *to++ = (char)lower(*c);
        i64 name_size = to - name;
        *to++ = '\n';
        const char *field = to;
        memcpy(to, value, (size_t)(text_end - value));
        i64 size = text_end - value;
        to += size;
        *to++ = '\n';
        slot->fields_size = to - slot->fields;
        if (same(name, name_size, "content-length")) { has_length = 1; length = decimal(field, size); }
        else if (same(name, name_size, "transfer-encoding")) { coded = 1; chunked = holds(field, size, "chunked"); }
        else if (same(name, name_size, "connection") && size == 5 && holds(field, size, "close")) slot->flags &= ~USABLE;
        line = next;
    }
    slot->from = end + 4;
    slot->status = (int)status;
    if (status < 200) return HEAD;
    slot->wanted = slot->room && (status == 200 || status == 206);
    if (status == 204 || status == 304) return DONE;
    if (has_length && !coded) {
        if (length < 0) return -NOT_HTTP;
        if (length > (slot->wanted ? slot->room_size : MOST_UNASKED_BYTES)) return -TOO_LONG;
        slot->left = length;
        return length ? COUNTED : DONE;
    }
    if (chunked) return CHUNK_SIZE;
    slot->flags &= ~USABLE;
    return REST;
}

/* Where the next content goes, and for how much of it there is room; NULL when there is none. */
static u8 *place(Slot *slot, i64 size, i64 *most, int *error) {
    if (slot->wanted) {
        *most = slot->room_size - slot->size;
        *error = TOO_LONG;
        return *most > 0 ? slot->room + slot->size : NULL;
    }
    if (slot->size >= MOST_UNASKED_BYTES) { *error = TOO_LONG; return NULL; }
    i64 needed = slot->size + (size < HEAD_BYTES ? HEAD_BYTES : size);
    if (needed > MOST_UNASKED_BYTES) needed = MOST_UNASKED_BYTES;
    if (needed > slot->spill_room && slot->spill_room - slot->size < size) {
        u8 *grown = realloc(slot->spill, (size_t)needed);
        if (!grown) { *error = NO_MEMORY; return NULL; }
        slot->spill = grown;
        slot->spill_room = needed;
    }
    *most = slot->spill_room - slot->size;
    return slot->spill + slot->size;
}

/* Takes content that was received, or receives it to where it goes; as `received`, or -3 and an error. */
static i64 content(Engine *engine, Slot *slot, i64 wanted, int *error) {
    i64 most, got;
    u8 *to = place(slot, wanted, &most, error);
    if (!to) return -3;
    if (wanted < most) most = wanted;
    if (slot->from < slot->to) {
        got = slot->to - slot->from < most ? slot->to - slot->from : most;
        memcpy(to, slot->in + slot->from, (size_t)got);
        slot->from += got;
    } else {
        got = received(engine, slot, to, most);
        if (got > 0) slot->flags |= BEGUN;
    }
    if (got > 0) slot->size += got;
    return got;
}

/* Receives more of a head or a line; as `received`, or -3 and an error. */
static i64 more(Engine *engine, Slot *slot, int *error) {
    if (slot->from && slot->from == slot->to) slot->from = slot->to = slot->looked = 0;
    if (slot->to == HEAD_BYTES && slot->from) {
        memmove(slot->in, slot->in + slot->from, (size_t)(slot->to - slot->from));
        slot->to -= slot->from;
        slot->looked -= slot->from;
        slot->from = 0;
    }
    if (slot->to == HEAD_BYTES) { *error = NOT_HTTP; return -3; }
    i64 got = received(engine, slot, slot->in + slot->to, HEAD_BYTES - slot->to);
    if (got > 0) { slot->to += got; slot->flags |= BEGUN; }
    return got;
}

/* The end of the line that begins at `from`, or -1 when it has not come yet. */
static i64 line_end(Slot *slot) {
    u8 *found = memmem(slot->in + slot->from, (size_t)(slot->to - slot->from), "\r\n", 2);
    return found ? found - slot->in : -1;
}

static i64 hexadecimal(const u8 *text, i64 size) {
    i64 value = 0, digits = 0;
    while (size && blank(*text)) { text++; size--; }
    for (; digits < size && digits < 15; digits++) {
        u8 c = lower(text[digits]);
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0) break;
        value = value * 16 + digit;
    }
    if (!digits || (digits < size && text[digits] != ';' && !blank(text[digits]))) return -1;
    return value;
}

/* Goes on as far as it can without waiting; the slot has ended when its state is IDLE. */
static void advance(Engine *engine, i32 number) {
    Slot *slot = engine->slots[number];
    slot->since_ms = engine->now_ms;
    int error = 0;
    for (;;) {
        i64 got = 1;
        if (slot->state == SENDING) {
            if (slot->sent == slot->out_size + slot->body_size) {
                slot->state = HEAD;
                /* The answer is not there yet: its arrival wakes this thread. */
                if (!slot->readable) return;
                slot->readable = 0;
                continue;
            }
            got = sent(engine, slot);
            if (got == -1) return;
            if (got > 0) { slot->sent += got; continue; }
            /* A server that refuses may answer and close before it has read the body. */
            slot->flags &= ~USABLE;
            slot->state = HEAD;
            continue;
        }
        if (slot->state == HEAD) {
            u8 *begin = slot->in + (slot->looked > slot->from ? slot->looked : slot->from);
            u8 *end = memmem(begin, (size_t)(slot->in + slot->to - begin), "\r\n\r\n", 4);
            if (end) {
                int next = head_read(slot, end - slot->in);
                if (next < 0) { finish(engine, number, -next); return; }
                slot->state = next;
                slot->looked = 0;
                continue;
            }
            slot->looked = slot->to > 3 ? slot->to - 3 : 0;
            got = more(engine, slot, &error);
        } else if (slot->state == COUNTED || slot->state == CHUNK) {
            got = content(engine, slot, slot->left, &error);
            if (got > 0) slot->left -= got;
            if (got > 0 && !slot->left) slot->state = slot->state == COUNTED ? DONE : CHUNK_END;
        } else if (slot->state == REST) {
            u8 beyond;
            i64 full = slot->wanted && slot->size == slot->room_size;
            if (full && slot->from == slot->to) {
                got = received(engine, slot, &beyond, 1);
                if (got > 0) { finish(engine, number, TOO_LONG); return; }
            } else {
                got = content(engine, slot, HEAD_BYTES, &error);
            }
            if (got == 0) slot->state = DONE;
        } else if (slot->state == DONE) {
            finish(engine, number, 0);
            return;
        } else {
            i64 end = line_end(slot);
            if (end < 0) {
                if (slot->to - slot->from > LINE_BYTES) { finish(engine, number, NOT_HTTP); return; }
                got = more(engine, slot, &error);
            } else {
                i64 from = slot->from;
                slot->from = end + 2;
                if (slot->state == CHUNK_SIZE) {
                    slot->left = hexadecimal(slot->in + from, end - from);
                    if (slot->left < 0) { finish(engine, number, NOT_HTTP); return; }
                    slot->state = slot->left ? CHUNK : TRAILER;
                } else if (slot->state == CHUNK_END) {
                    slot->state = CHUNK_SIZE;
                } else if (end == from) {
                    slot->state = DONE;
                }
            }
        }
        if (got == -1) return;
        if (got == -3) { finish(engine, number, error); return; }
        if (got == -2 || (got == 0 && slot->state != DONE)) { finish(engine, number, CUT); return; }
    }
}

static void break_silence(Engine *engine) {
    pthread_mutex_lock(&engine->lock);
    i32 count = engine->count;
    pthread_mutex_unlock(&engine->lock);
    for (i32 number = 0; number < count; number++) {
        Slot *slot = engine->slots[number];
        int waits = slot->state != IDLE && slot->state != GONE;
        if (waits && engine->now_ms - slot->since_ms >= engine->silence_ms) finish(engine, number, SILENT);
    }
}

static void *serve(void *given) {
    Engine *engine = given;
    struct epoll_event events[EVENTS];
    i64 looked_ms = clock_ms();
    for (;;) {
        pthread_mutex_lock(&engine->lock);
        i32 taken = engine->asked_count;
        memcpy(engine->taken, engine->asked, (size_t)taken * sizeof(i32));
        engine->asked_count = 0;
        engine->sleeping = !taken;
        int stop = engine->stop;
        pthread_mutex_unlock(&engine->lock);
        if (stop) return NULL;
        engine->now_ms = clock_ms();
        for (i32 at = 0; at < taken; at++) {
            engine->slots[engine->taken[at]]->state = SENDING;
            advance(engine, engine->taken[at]);
        }
        int count = epoll_wait(engine->poll, events, EVENTS, taken ? 0 : LOOK_MS);
        engine->now_ms = clock_ms();
        for (int at = 0; at < count; at++) {
            i32 number = (i32)events[at].data.u32;
            if (number == BELL) {
                eventfd_t rung;
                eventfd_read(engine->bell, &rung);
                continue;
            }
            Slot *slot = engine->slots[number];
            if (slot->state == GONE) continue;
            if (slot->state == IDLE || slot->state == SENDING) {
                if (events[at].events & (EPOLLIN | EPOLLHUP | EPOLLERR | EPOLLRDHUP)) slot->readable = 1;
                if (slot->state == IDLE) continue;
            }
            advance(engine, number);
        }
        if (engine->now_ms - looked_ms >= LOOK_MS) {
            looked_ms = engine->now_ms;
            break_silence(engine);
        }
    }
}

/* Signals are for the threads of the interpreter. */
static int begun(Engine *engine) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&engine->thread, NULL, serve, engine);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return !failed;
}

/* A new thread with no connections; NULL when there is none to be had. `secure` are OpenSSL's, or zeros. */
Engine *lintas_open(i64 silence_ms, i64 most, const Secure *secure) {
    Engine *engine = calloc(1, sizeof *engine);
    if (!engine) return NULL;
    engine->silence_ms = silence_ms;
    engine->room = (i32)most;
    engine->secure = *secure;
    engine->slots = calloc((size_t)most, sizeof *engine->slots);
    engine->asked = calloc((size_t)most, sizeof(i32));
    engine->ended = calloc((size_t)most, sizeof(i32));
    engine->taken = calloc((size_t)most, sizeof(i32));
    engine->poll = epoll_create1(EPOLL_CLOEXEC);
    engine->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    engine->done_bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)BELL};
    pthread_mutex_init(&engine->lock, NULL);
    if (engine->slots && engine->asked && engine->ended && engine->taken && engine->poll >= 0 && engine->bell >= 0
        && engine->done_bell >= 0 && !epoll_ctl(engine->poll, EPOLL_CTL_ADD, engine->bell, &event)
        && begun(engine))
        return engine;
    if (engine->poll >= 0) close(engine->poll);
    if (engine->bell >= 0) close(engine->bell);
    if (engine->done_bell >= 0) close(engine->done_bell);
    free(engine->slots); free(engine->asked); free(engine->ended); free(engine->taken); free(engine);
    return NULL;
}

/* What becomes readable when exchanges have ended. */
int lintas_done_bell(Engine *engine) { return engine->done_bell; }

/* A connection more, in a slot that is new or was left; its number, or -1 when there is no room. */
i64 lintas_join(Engine *engine, int fd, void *tls) {
    i32 number = 0;
    while (number < engine->count && engine->slots[number]->state != GONE) number++;
    if (number == engine->room) return -1;
    Slot *slot = number < engine->count ? engine->slots[number] : calloc(1, sizeof *slot);
    if (!slot) return -1;
    if (!slot->in) {
        slot->in = malloc(HEAD_BYTES);
        slot->fields = malloc(2 * HEAD_BYTES);
        if (!slot->in || !slot->fields) { free(slot->in); free(slot->fields); if (number == engine->count) free(slot); return -1; }
    }
    slot->fd = fd;
    slot->tls = tls;
    slot->readable = 0;
    slot->state = IDLE;
    pthread_mutex_lock(&engine->lock);
    engine->slots[number] = slot;
    if (number == engine->count) engine->count++;
    pthread_mutex_unlock(&engine->lock);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.u32 = (uint32_t)number};
    if (epoll_ctl(engine->poll, EPOLL_CTL_ADD, fd, &event)) { slot->state = GONE; return -1; }
    return number;
}

/* A connection less, which is idle: before its descriptor is closed. */
void lintas_leave(Engine *engine, i64 number) {
    Slot *slot = engine->slots[number];
    epoll_ctl(engine->poll, EPOLL_CTL_DEL, slot->fd, NULL);
    slot->state = GONE;
}

/* Send requests on idle connections. `heads` are their heads, one after the other, which are copied; bodies and rooms are
   the caller's, who leaves them alone until the exchange has ended. 0, or how many before memory was short. */
i64 lintas_ask(Engine *engine, const Ask *asks, i64 count, const u8 *heads) {
    i64 taken = 0;
    for (; taken < count; taken++) {
        const Ask *ask = asks + taken;
        Slot *slot = engine->slots[ask->slot];
        if (ask->head_size > slot->out_room) {
            u8 *grown = realloc(slot->out, (size_t)ask->head_size);
            if (!grown) break;
            slot->out = grown;
            slot->out_room = ask->head_size;
        }
        memcpy(slot->out, heads, (size_t)ask->head_size);
        heads += ask->head_size;
        slot->out_size = ask->head_size;
        slot->body = (const u8 *)(intptr_t)ask->body;
        slot->body_size = ask->body_size;
        slot->room = (u8 *)(intptr_t)ask->room;
        slot->room_size = ask->room_size;
        slot->sent = slot->from = slot->to = slot->looked = slot->size = slot->left = slot->fields_size = 0;
        slot->status = slot->error = 0;
        slot->flags = USABLE;
    }
    pthread_mutex_lock(&engine->lock);
    for (i64 at = 0; at < taken; at++) engine->asked[engine->asked_count++] = (i32)asks[at].slot;
    int wake = engine->sleeping && taken;
    if (wake) engine->sleeping = 0;
    pthread_mutex_unlock(&engine->lock);
    if (wake) eventfd_write(engine->bell, 1);
    return taken == count ? 0 : taken;
}

/* How exchanges have ended, with their fields one after the other; how many. Both end where there is no more room. */
i64 lintas_answers(Engine *engine, Ended *ended, i64 most, char *fields, i64 fields_room) {
    eventfd_t rung;
    i64 count = 0, used = 0;
    pthread_mutex_lock(&engine->lock);
    eventfd_read(engine->done_bell, &rung);
    while (count < most && count < engine->ended_count) {
        Slot *slot = engine->slots[engine->ended[count]];
        if (used + slot->fields_size > fields_room) break;
        memcpy(fields + used, slot->fields, (size_t)slot->fields_size);
        used += slot->fields_size;
        ended[count] = (Ended){
            engine->ended[count], slot->status, slot->error, slot->flags, slot->size,
            slot->wanted || !slot->size ? 0 : (i64)(intptr_t)slot->spill, slot->fields_size,
        };
        count++;
    }
    engine->ended_count -= (i32)count;
    memmove(engine->ended, engine->ended + count, (size_t)engine->ended_count * sizeof(i32));
    if (engine->ended_count) eventfd_write(engine->done_bell, 1);
    pthread_mutex_unlock(&engine->lock);
    return count;
}

/* End the thread, whatever is under way. Connections stay open, and are the caller's. */
void lintas_close(Engine *engine) {
    pthread_mutex_lock(&engine->lock);
    engine->stop = 1;
    pthread_mutex_unlock(&engine->lock);
    eventfd_write(engine->bell, 1);
    pthread_join(engine->thread, NULL);
    for (i32 number = 0; number < engine->count; number++) {
        Slot *slot = engine->slots[number];
        free(slot->out); free(slot->in); free(slot->fields); free(slot->spill); free(slot);
    }
    close(engine->poll); close(engine->bell); close(engine->done_bell);
    free(engine->slots); free(engine->asked); free(engine->ended); free(engine->taken);
    pthread_mutex_destroy(&engine->lock);
    free(engine);
}

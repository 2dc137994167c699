/* A store that is faster than any engine that moves objects: what is measured against it is the engine.

   It speaks as much of S3, Cloud Storage (JSON and XML) and Blob Storage as this project and rclone use. Bucket `src`
   holds COUNT objects of SIZE zero bytes, `o/00000` and so on; everything else that is written is discarded on arrival
   (recv with MSG_TRUNC copies nothing), and only its size is remembered. Nothing is verified and nobody is kept out.

   Usage: stub s3|gcs|azure PORT COUNT SIZE CRC32C CRC64 DELAY_MS [CERTIFICATE_AND_KEY]
   Every request waits DELAY_MS before it is looked at, as if the store were so many milliseconds of round trip away;
   that a connection opens slowly, and is slow at first, is not imitated.
   Compiled with -DTLS -lssl -lcrypto it speaks TLS alone, with that certificate.
   CRC32C is what every object in parts is said to have, CRC64 the only right checksum of a body of one byte. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#ifdef TLS
#include <openssl/ssl.h>
#include <signal.h>
#define SCHEME "https"
#else
#define SCHEME "http"
#endif
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { HEAD_BYTES = 65536, ZERO_BYTES = 1 << 20, SLOTS = 1 << 19 };

static const char *dialect, *whole_crc32c, *probe_crc64;
static long object_count, object_bytes;
static int port;
static useconds_t delay_us;
static char zeros[ZERO_BYTES];

/* What was written: key -> size. Uploads in parts add to the size of their id or key until they are finished. */
struct slot { char *key; long size_bytes; };
static struct slot table[SLOTS];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static long sequence = 1000;

static struct slot *slot_of(const char *key) {
    unsigned long hash = 5381;
    for (const char *c = key; *c; c++) hash = hash * 33 + (unsigned char)*c;
    for (unsigned long at = hash % SLOTS;; at = (at + 1) % SLOTS) {
        if (!table[at].key) { table[at].key = strdup(key); table[at].size_bytes = -1; return &table[at]; }
        if (!strcmp(table[at].key, key)) return &table[at];
    }
}
static void remember(const char *key, long size_bytes, int add) {
    pthread_mutex_lock(&table_lock);
    struct slot *slot = slot_of(key);
    slot->size_bytes = add && slot->size_bytes > 0 ? slot->size_bytes + size_bytes : size_bytes;
    pthread_mutex_unlock(&table_lock);
}
static long size_of(const char *key) {
    if (strstr(key, "src/o/")) return object_bytes;
    pthread_mutex_lock(&table_lock);
    long size_bytes = slot_of(key)->size_bytes;
    pthread_mutex_unlock(&table_lock);
    return size_bytes;
}

struct request {
    int fd, got, used;
#ifdef TLS
    SSL *tls;
#endif
    char *buffer, method[8], target[8192], path[4096], query[4096];
    char range[128], etag[96], proof[64], content_range[128];
    long length, decoded;
    int no_308, chunked, last;
};

static void unescape(char *text) {
    char *out = text;
    for (char *in = text; *in; in++) {
        unsigned value;
        if (*in == '%' && sscanf(in + 1, "%2x", &value) == 1) { *out++ = (char)value; in += 2; }
        else *out++ = *in;
    }
    *out = 0;
}
static int parameter(const struct request *r, const char *name, char *value, size_t room) {
    size_t length = strlen(name);
    for (const char *at = r->query; at && *at; at = strchr(at, '&') ? strchr(at, '&') + 1 : NULL) {
        if (strncmp(at, name, length) || (at[length] && at[length] != '=' && at[length] != '&')) continue;
        const char *from = at[length] == '=' ? at + length + 1 : "";
        snprintf(value, room, "%.*s", (int)strcspn(from, "&"), from);
        unescape(value);
        return 1;
    }
    return 0;
}
#ifdef TLS
static SSL_CTX *context;
static ssize_t transmit(struct request *r, struct iovec *pieces, int count) {
    (void)count;
    return pieces->iov_len ? SSL_write(r->tls, pieces->iov_base, (int)pieces->iov_len) : 0;
}
static ssize_t receive(struct request *r, void *into, size_t most, int flags) {
    char sink[65536];
    if (flags & MSG_TRUNC) { into = sink; most = most < sizeof sink ? most : sizeof sink; }
    return SSL_read(r->tls, into, (int)most);
}
#else
static ssize_t transmit(struct request *r, struct iovec *pieces, int count) { return writev(r->fd, pieces, count); }
static ssize_t receive(struct request *r, void *into, size_t most, int flags) { return recv(r->fd, into, most, flags); }
#endif
static void send_all(struct request *r, struct iovec *pieces, int count) {
    while (count) {
        ssize_t sent = transmit(r, pieces, count);
        if (sent < 0 || (!sent && pieces->iov_len)) return;
        while (count && sent >= (ssize_t)pieces->iov_len) { sent -= (ssize_t)pieces->iov_len; pieces++; count--; }
        if (count) { pieces->iov_base = (char *)pieces->iov_base + sent; pieces->iov_len -= (size_t)sent; }
    }
}
static void answer(struct request *r, int status, const char *headers, const char *body) {
    char head[4096];
    size_t size = strlen(body);
    int length = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        "x-ms-request-id: 1\r\nx-ms-version: 2024-08-04\r\nContent-Length: %zu\r\n%s\r\n", status, size, headers);
    struct iovec pieces[2] = {{head, (size_t)length}, {(void *)body, size}};
    send_all(r, pieces, strcmp(r->method, "HEAD") ? 2 : 1);
}
static void discard_body(struct request *r) {
    long left = r->length;
    long here = r->got - r->used < left ? r->got - r->used : left;
    r->used += (int)here;
    char sink[1];
    for (left -= here; left > 0;) {
        ssize_t received = receive(r, sink, (size_t)left, MSG_TRUNC);
        if (received <= 0) return;
        left -= received;
    }
}
/* Some bytes of the body, from what was read ahead or from the connection; 0 at its end. */
static long take(struct request *r, char *into, long most) {
    if (r->used == r->got) {
        ssize_t received = receive(r, r->buffer, HEAD_BYTES, 0);
        r->used = 0;
        r->got = received > 0 ? (int)received : 0;
    }
    long here = r->got - r->used < most ? r->got - r->used : most;
    memcpy(into, r->buffer + r->used, (size_t)here);
    r->used += (int)here;
    return here;
}
/* A body in chunks (RFC 9112, 7.1), of which the length is not known before. */
static char *read_chunks(struct request *r) {
    char *body = malloc(1), line[64];
    for (r->length = 0;;) {
        int at = 0;
        while (at < 63 && take(r, line + at, 1) && line[at] != '\n') at++;
        line[at] = 0;
        long left = strtol(line, NULL, 16);
        if (at < 2) break;
        body = realloc(body, (size_t)(r->length + left + 1));
        long size_bytes = left;
        for (long got; left && (got = take(r, body + r->length, left)) > 0; left -= got) r->length += got;
        take(r, line, 1);
        take(r, line, 1);
        if (!size_bytes) break;
    }
    body[r->length] = 0;
    return body;
}
/* The body in the memory of the caller, who frees it: for requests that say something, not those that carry much. */
static char *read_body(struct request *r) {
    if (r->chunked) return read_chunks(r);
    char *body = calloc(1, (size_t)r->length + 1);
    long have = r->got - r->used < r->length ? r->got - r->used : r->length;
    memcpy(body, r->buffer + r->used, (size_t)have);
    r->used += (int)have;
    while (have < r->length) {
        ssize_t received = receive(r, body + have, (size_t)(r->length - have), 0);
        if (received <= 0) break;
        have += received;
    }
    return body;
}
static void send_content(struct request *r, long size_bytes, const char *headers) {
    long from = 0, to = size_bytes - 1;
    int status = 200;
    if (!strncmp(r->range, "bytes=", 6) && size_bytes) {
        status = 206;
        sscanf(r->range + 6, "%ld-%ld", &from, &to);
        if (to >= size_bytes) to = size_bytes - 1;
    }
    char head[2048];
    int length = snprintf(head, sizeof head, "HTTP/1.1 %d X\r\nContent-Length: %ld\r\nAccept-Ranges: bytes\r\n"
        "Content-Type: application/octet-stream\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        "x-ms-version: 2024-08-04\r\nx-ms-request-id: 1\r\n%s", status, to - from + 1, headers);
    if (status == 206)
        length += snprintf(head + length, sizeof head - (size_t)length, "Content-Range: bytes %ld-%ld/%ld\r\n", from, to, size_bytes);
    length += snprintf(head + length, sizeof head - (size_t)length, "\r\n");
    long left = strcmp(r->method, "HEAD") ? to - from + 1 : 0;
    struct iovec first[2] = {{head, (size_t)length}, {zeros, (size_t)(left < ZERO_BYTES ? left : ZERO_BYTES)}};
    left -= (long)first[1].iov_len;
    send_all(r, first, 2);
    while (left > 0) {
        struct iovec more = {zeros, (size_t)(left < ZERO_BYTES ? left : ZERO_BYTES)};
        left -= (long)more.iov_len;
        send_all(r, &more, 1);
    }
}
/* One page that lists the source's objects from `first` on; the caller frees it. */
static char *page(const char *before, const char *entry, const char *between, const char *after, long first, long most) {
    char *text = malloc((size_t)most * 700 + 4096);
    size_t length = (size_t)sprintf(text, "%s", before);
    for (long number = first; number < object_count && number < first + most; number++) {
        if (number > first) length += (size_t)sprintf(text + length, "%s", between);
        length += (size_t)sprintf(text + length, entry, number, object_bytes, port, number);
    }
    sprintf(text + length, "%s", after);
    return text;
}
static void list(struct request *r, const char *bucket) {
    char token[64] = "0", most_text[32] = "1000", after[256] = "";
    const char *names[3] = {"continuation-token", "marker", "pageToken"};
    for (int i = 0; i < 3; i++) parameter(r, names[i], token, sizeof token);
    if (!parameter(r, "max-keys", most_text, sizeof most_text) && !parameter(r, "maxResults", most_text, sizeof most_text))
        parameter(r, "maxresults", most_text, sizeof most_text);
    long first = strcmp(bucket, "src") ? object_count : atol(token), most = atol(most_text);
    if (most < 1 || most > 5000) most = 1000;
    int more = first + most < object_count;
    char *text;
    if (!strcmp(dialect, "gcs")) {
        if (more) snprintf(after, sizeof after, "],\"nextPageToken\":\"%ld\"}", first + most); else strcpy(after, "]}");
        text = page("{\"kind\":\"storage#objects\",\"items\":[", "{\"kind\":\"storage#object\",\"bucket\":\"src\",\"name\":\"o/%05ld\","
            "\"generation\":\"1\",\"size\":\"%ld\",\"updated\":\"2026-01-01T00:00:00.000Z\",\"mediaLink\":\"" SCHEME "://127.0.0.1:%d/"
            "storage/v1/b/src/o/o%%2F%05ld?alt=media\"}", ",", after, first, most);
    } else if (!strcmp(dialect, "azure")) {
        if (more) snprintf(after, sizeof after, "</Blobs><NextMarker>%ld</NextMarker></EnumerationResults>", first + most);
        else strcpy(after, "</Blobs><NextMarker/></EnumerationResults>");
        text = page("<?xml version=\"1.0\"?><EnumerationResults><Blobs>", "<Blob><Name>o/%05ld</Name><Properties>"
            "<Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified><Etag>0x1</Etag><Content-Length>%ld</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>", "", after, first, most);
    } else {
        if (more) snprintf(after, sizeof after, "<NextContinuationToken>%ld</NextContinuationToken><NextMarker>%ld</NextMarker>"
            "<IsTruncated>true</IsTruncated></ListBucketResult>", first + most, first + most);
        else strcpy(after, "<IsTruncated>false</IsTruncated></ListBucketResult>");
        text = page("<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
            "<Contents><Key>o/%05ld</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;1&quot;</ETag>"
            "<Size>%ld</Size><StorageClass>STANDARD</StorageClass></Contents>", "", after, first, most);
    }
    answer(r, 200, strcmp(dialect, "gcs") ? "Content-Type: application/xml\r\n" : "Content-Type: application/json\r\n", text);
    free(text);
}

/* S3, and the XML API of Cloud Storage, which is like it. */
static void xml_api(struct request *r, char *bucket, char *key) {
    char upload[128] = "", unused[64], place[4400], headers[256], body[1024];
    snprintf(place, sizeof place, "%s/%s", bucket, key);
    long number = __sync_add_and_fetch(&sequence, 1);
    snprintf(headers, sizeof headers, "ETag: \"%ld\"\r\nx-goog-generation: %ld\r\n", number, number);
    if (!*key) {
        discard_body(r);
        if (parameter(r, "list-type", unused, sizeof unused) || parameter(r, "prefix", unused, sizeof unused)) list(r, bucket);
        else answer(r, 200, "", "");
    } else if (!strcmp(r->method, "GET") || !strcmp(r->method, "HEAD")) {
        long size_bytes = size_of(place);
        if (size_bytes < 0) answer(r, 404, "", "<Error><Code>NoSuchKey</Code></Error>");
        else send_content(r, size_bytes, "ETag: \"1\"\r\nx-goog-generation: 1\r\n");
    } else if (!strcmp(r->method, "PUT")) {
        long size_bytes = r->decoded >= 0 ? r->decoded : r->length;
        discard_body(r);
        int is_part = parameter(r, "uploadId", upload, sizeof upload);
        remember(is_part ? upload : place, size_bytes, is_part);
        answer(r, 200, headers, "");
    } else if (!strcmp(r->method, "POST") && parameter(r, "uploads", unused, sizeof unused)) {
        discard_body(r);
        snprintf(body, sizeof body, "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>k</Key>"
            "<UploadId>u%ld</UploadId></InitiateMultipartUploadResult>", bucket, number);
        answer(r, 200, "Content-Type: application/xml\r\n", body);
    } else if (!strcmp(r->method, "POST") && parameter(r, "uploadId", upload, sizeof upload)) {
        discard_body(r);
        remember(place, size_of(upload), 0);
        snprintf(body, sizeof body, "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><Bucket>%s</Bucket><Key>k</Key>"
            "<ETag>&quot;%ld&quot;</ETag></CompleteMultipartUploadResult>", bucket, number);
        answer(r, 200, "Content-Type: application/xml\r\n", body);
    } else {
        discard_body(r);
        answer(r, 204, "", "");
    }
}
static void describe(struct request *r, const char *bucket, const char *name, long size_bytes) {
    char body[6000];
    snprintf(body, sizeof body, "{\"kind\":\"storage#object\",\"bucket\":\"%s\",\"name\":\"%s\",\"generation\":\"%ld\",\"metageneration\":\"1\","
        "\"size\":\"%ld\",\"crc32c\":\"%s\",\"updated\":\"2026-01-01T00:00:00.000Z\",\"timeCreated\":\"2026-01-01T00:00:00.000Z\","
        "\"contentType\":\"application/octet-stream\",\"mediaLink\":\"" SCHEME "://127.0.0.1:%d/download/storage/v1/b/%s/o/%s?alt=media\"}",
        bucket, name, strcmp(bucket, "src") ? 2L : 1L, size_bytes, whole_crc32c, port, bucket, name);
    answer(r, 200, "Content-Type: application/json\r\n", body);
}
static void json_name(const char *text, char *name, size_t room) {
    const char *at = strstr(text, "\"name\"");
    at = at ? strchr(at + 6, '"') : NULL;
    snprintf(name, room, "%.*s", at ? (int)strcspn(at + 1, "\"") : 0, at ? at + 1 : "");
}
static void json_upload(struct request *r, char *bucket) {
    char kind[32] = "", upload[5000] = "", name[4096] = "", place[5000], headers[6000];
    parameter(r, "uploadType", kind, sizeof kind);
    parameter(r, "name", name, sizeof name);
    if (parameter(r, "upload_id", upload, sizeof upload)) {
        discard_body(r);
        remember(upload, r->length, 1);
        long total = -1;
        char *slash = strrchr(r->content_range, '/');
        if (slash && slash[1] != '*') total = atol(slash + 1);
        if (total < 0 || size_of(upload) < total) {
            /* Google's Go client asks for a 200 in place of 308, which its HTTP stack takes for a redirect. */
            snprintf(headers, sizeof headers, "Range: bytes=0-%ld\r\nX-Http-Status-Code-Override: 308\r\n", size_of(upload) - 1);
            answer(r, r->no_308 ? 200 : 308, headers, "");
            return;
        }
        char *of = strchr(upload, ':') + 1;
        snprintf(place, sizeof place, "%s/%s", bucket, of);
        remember(place, size_of(upload), 0);
        remember(upload, 0, 0);
        describe(r, bucket, of, size_of(place));
        return;
    }
    char *body = read_body(r);
    if (!*name) json_name(body, name, sizeof name);
    if (!strcmp(kind, "resumable")) {
        snprintf(headers, sizeof headers, "Location: " SCHEME "://127.0.0.1:%d/upload/storage/v1/b/%s/o?uploadType=resumable&upload_id=%ld:%s\r\n",
            port, bucket, __sync_add_and_fetch(&sequence, 1), name);
        answer(r, 200, headers, "");
    } else {
        /* multipart/related: a boundary, the resource, the boundary, the content, the boundary and two hyphens. */
        long size_bytes = r->length, mark = (long)strcspn(body, "\r\n");
        char *resource = strstr(body, "\r\n\r\n");
        char *second = resource ? memmem(resource, (size_t)(r->length - (resource - body)), body, (size_t)mark) : NULL;
        char *content = second ? strstr(second, "\r\n\r\n") : NULL;
        if (content) {
            char *end = body + r->length - mark - 2;
            while (end > content && memcmp(end, body, (size_t)mark)) end--;
            size_bytes = end - 2 - (content + 4);
        }
        snprintf(place, sizeof place, "%s/%s", bucket, name);
        remember(place, size_bytes, 0);
        describe(r, bucket, name, size_bytes);
    }
    free(body);
}
static void gcs(struct request *r) {
    char bucket[256], *name, place[4400], unused[64], body[128];
    char *upload = strstr(r->path, "/upload/storage/v1/b/"), *api = strstr(r->path, "/storage/v1/b/");
    if (upload) {
        sscanf(upload + 21, "%255[^/]", bucket);
        json_upload(r, bucket);
        return;
    }
    if (!api) {
        if (strstr(r->path, "/storage/v1/b")) { discard_body(r); answer(r, 200, "Content-Type: application/json\r\n", "{\"kind\":\"storage#bucket\"}"); return; }
        char *slash = strchr(r->path + 1, '/');
        snprintf(bucket, sizeof bucket, "%.*s", slash ? (int)(slash - r->path - 1) : 255, r->path + 1);
        xml_api(r, bucket, slash ? slash + 1 : (char *)"");
        return;
    }
    sscanf(api + 14, "%255[^/]", bucket);
    name = strstr(api + 14, "/o/");
    if (!name) {
        discard_body(r);
        if (strstr(api + 14, "/o")) list(r, bucket);
        else answer(r, 200, "Content-Type: application/json\r\n", "{\"kind\":\"storage#bucket\"}");
        return;
    }
    name += 3;
    char *copy = strstr(name, "/rewriteTo/b/");
    if (copy) {
        *copy = 0;
        snprintf(place, sizeof place, "%s/%s", bucket, name);
        long size_bytes = size_of(place);
        discard_body(r);
        remember(strstr(copy + 13, "/o/") + 3, size_bytes, 0);
        snprintf(body, sizeof body, "{\"kind\":\"storage#rewriteResponse\",\"totalBytesRewritten\":\"%ld\",\"objectSize\":\"%ld\",\"done\":true,", size_bytes, size_bytes);
        char all[400];
        snprintf(all, sizeof all, "%s\"resource\":{\"name\":\"x\",\"generation\":\"3\",\"size\":\"%ld\"}}", body, size_bytes);
        answer(r, 200, "Content-Type: application/json\r\n", all);
        return;
    }
    discard_body(r);
    snprintf(place, sizeof place, "%s/%s", bucket, name);
    long size_bytes = size_of(place);
    if (!strcmp(r->method, "DELETE")) answer(r, 204, "", "");
    else if (size_bytes < 0) answer(r, 404, "Content-Type: application/json\r\n", "{\"error\":{\"code\":404,\"message\":\"No such object\"}}");
    else if (parameter(r, "alt", unused, sizeof unused) && !strcmp(unused, "media")) send_content(r, size_bytes, "x-goog-generation: 1\r\n");
    else describe(r, bucket, name, size_bytes);
}
static void azure(struct request *r) {
    char bucket[256] = "", comp[32] = "", place[4400], headers[256], blocks[4500];
    char *at = strchr(r->path + 1, '/'), *key = (char *)"";
    if (at) { sscanf(at + 1, "%255[^/]", bucket); if (strchr(at + 1, '/')) key = strchr(at + 1, '/') + 1; }
    parameter(r, "comp", comp, sizeof comp);
    snprintf(place, sizeof place, "%s/%s", bucket, key);
    snprintf(blocks, sizeof blocks, "blocks of %s", place);
    snprintf(headers, sizeof headers, "ETag: \"0x%lX\"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n", __sync_add_and_fetch(&sequence, 1));
    long size_bytes = r->length;
    if (strcmp(r->method, "GET") && strcmp(r->method, "HEAD")) discard_body(r);
    if (!strcmp(comp, "list")) list(r, bucket);
    else if (!*key) answer(r, strcmp(r->method, "PUT") ? 200 : 201, headers, "");
    else if (!strcmp(r->method, "GET") || !strcmp(r->method, "HEAD")) {
        size_bytes = size_of(place);
        if (size_bytes < 0) answer(r, 404, "x-ms-error-code: BlobNotFound\r\n", "");
        else send_content(r, size_bytes, "ETag: \"0x1\"\r\nx-ms-blob-type: BlockBlob\r\nx-ms-creation-time: Thu, 01 Jan 2026 00:00:00 GMT\r\n");
    } else if (!strcmp(comp, "block")) {
        if (size_bytes == 1 && strcmp(r->proof, probe_crc64)) { answer(r, 400, "x-ms-error-code: Crc64Mismatch\r\n", ""); return; }
        if (size_bytes > 1) remember(blocks, size_bytes, 1);
        if (*r->proof) snprintf(headers, sizeof headers, "x-ms-content-crc64: %s\r\n", r->proof);
        answer(r, 201, headers, "");
    } else if (!strcmp(comp, "blocklist")) {
        remember(place, size_of(blocks), 0);
        remember(blocks, 0, 0);
        answer(r, 201, headers, "");
    } else if (!strcmp(r->method, "PUT")) {
        if (!*comp) remember(place, size_bytes, 0);
        answer(r, *comp ? 200 : 201, headers, "");
    } else answer(r, 202, "", "");
}

static void header(struct request *r, const char *name, char *value) {
    if (!strcasecmp(name, "content-length")) r->length = atol(value);
    else if (!strcasecmp(name, "x-amz-decoded-content-length")) r->decoded = atol(value);
    else if (!strcasecmp(name, "range") || !strcasecmp(name, "x-ms-range")) snprintf(r->range, sizeof r->range, "%s", value);
    else if (!strcasecmp(name, "content-range")) snprintf(r->content_range, sizeof r->content_range, "%s", value);
    else if (!strcasecmp(name, "x-ms-content-crc64")) snprintf(r->proof, sizeof r->proof, "%s", value);
    else if (!strcasecmp(name, "transfer-encoding")) r->chunked = !strcasecmp(value, "chunked");
    else if (!strcasecmp(name, "x-guploader-no-308")) r->no_308 = !strcasecmp(value, "yes");
    else if (!strcasecmp(name, "connection")) r->last = !strcasecmp(value, "close");
    else if (!strcasecmp(name, "expect")) {
        struct iovec go = {(void *)"HTTP/1.1 100 Continue\r\n\r\n", 25};
        send_all(r, &go, 1);
    }
}
/* The head of the next request; 0 at the end of the connection. */
static int read_request(struct request *r) {
    memmove(r->buffer, r->buffer + r->used, (size_t)(r->got - r->used));
    r->got -= r->used;
    r->used = 0;
    char *end;
    for (;;) {
        r->buffer[r->got] = 0;
        if ((end = strstr(r->buffer, "\r\n\r\n"))) break;
        if (r->got >= HEAD_BYTES) return 0;
        ssize_t received = receive(r, r->buffer + r->got, (size_t)(HEAD_BYTES - r->got), 0);
        if (received <= 0) return 0;
        r->got += (int)received;
    }
    r->length = 0; r->decoded = -1; r->last = r->no_308 = r->chunked = 0;
    r->range[0] = r->proof[0] = r->content_range[0] = 0;
    r->used = (int)(end + 4 - r->buffer);
    *end = 0;
    char *rest, *line = strtok_r(r->buffer, "\r\n", &rest);
    if (!line || sscanf(line, "%7s %8191s", r->method, r->target) != 2) return 0;
    while ((line = strtok_r(NULL, "\r\n", &rest))) {
        char *colon = strchr(line, ':');
        if (!colon) continue;
        *colon = 0;
        header(r, line, colon + 1 + strspn(colon + 1, " "));
    }
    char *question = strchr(r->target, '?');
    snprintf(r->path, sizeof r->path, "%.*s", question ? (int)(question - r->target) : 4095, r->target);
    snprintf(r->query, sizeof r->query, "%s", question ? question + 1 : "");
    unescape(r->path);
    return 1;
}
static void *serve(void *argument) {
    struct request *r = calloc(1, sizeof *r);
    r->fd = (int)(long)argument;
    r->buffer = malloc(HEAD_BYTES + 1);
    int on = 1;
    setsockopt(r->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
#ifdef TLS
    r->tls = SSL_new(context);
    SSL_set_fd(r->tls, r->fd);
    int greeted = SSL_accept(r->tls) == 1;
#else
    int greeted = 1;
#endif
    while (greeted && read_request(r)) {
        if (delay_us) usleep(delay_us);
        if (!strcmp(dialect, "gcs")) gcs(r);
        else if (!strcmp(dialect, "azure")) azure(r);
        else {
            char bucket[256], *slash = strchr(r->path + 1, '/');
            snprintf(bucket, sizeof bucket, "%.*s", slash ? (int)(slash - r->path - 1) : 255, r->path + 1);
            xml_api(r, bucket, slash ? slash + 1 : (char *)"");
        }
        if (r->last) break;
    }
#ifdef TLS
    SSL_free(r->tls);
#endif
    close(r->fd);
    free(r->buffer);
    free(r);
    return NULL;
}
int main(int count, char **arguments) {
#ifdef TLS
    if (count != 9) return 2;
    context = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate_chain_file(context, arguments[8]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, arguments[8], SSL_FILETYPE_PEM) != 1) return 2;
    signal(SIGPIPE, SIG_IGN);
#else
    if (count != 8) return 2;
#endif
    dialect = arguments[1];
    port = atoi(arguments[2]);
    object_count = atol(arguments[3]);
    object_bytes = atol(arguments[4]);
    whole_crc32c = arguments[5];
    probe_crc64 = arguments[6];
    delay_us = (useconds_t)atol(arguments[7]) * 1000;
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 1024)) { perror("stub"); return 1; }
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) continue;
        pthread_t thread;
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 256 * 1024);
        if (pthread_create(&thread, &small, serve, (void *)(long)fd)) close(fd); else pthread_detach(thread);
        pthread_attr_destroy(&small);
    }
}

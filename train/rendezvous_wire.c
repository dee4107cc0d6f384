#include "train/rendezvous_wire.h"

#include "base/check.h"
#include "base/digest.h"
#include "base/fault.h"
#include "base/num.h"
#include "base/progress.h"

#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define WIRE_MAGIC UINT32_C(0x314b5253) /* "SRK1" */

struct header {
    uint32_t magic, kind, bytes, crc;
};

STATIC_ASSERT(sizeof(struct header) == WIRE_FRAME_BYTES, "no padding in a frame's header");

/* ---- sockets ---- */

static void tune(int fd)
{
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
    return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

static err_t resolve(struct addrinfo **out, const char *host, int port, int flags)
{
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_flags = flags };
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    const int code = getaddrinfo(host, service, &hints, out);
    if (code != 0) RAISE(NOTFOUND, "%s: %s", host, gai_strerror(code));
    return ERR_OK;
}

static err_t listen_at(int *out, const struct sockaddr *address, socklen_t length)
{
    const int on = 1, off = 0;
    const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) RAISE(COMM, "no socket: %s", strerror(errno));
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (address->sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    if (bind(fd, address, length) != 0 || listen(fd, SOMAXCONN) != 0) {
        const int code = errno;
        close(fd);
        RAISE(COMM, "%s", strerror(code));
    }
    *out = fd;
    return ERR_OK;
}

static int port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)(void *)&address, &length) != 0) return 0;
    return address.ss_family == AF_INET
               ? ntohs(((const struct sockaddr_in *)(const void *)&address)->sin_port)
               : ntohs(((const struct sockaddr_in6 *)(const void *)&address)->sin6_port);
}

err_t wire_listen(int *fd, int *port_found, const char *host, int port)
{
    const struct sockaddr_in6 any6 = { .sin6_family = AF_INET6,
                                       .sin6_port = htons((uint16_t)port) };
    const struct sockaddr_in any4 = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct addrinfo *found = NULL;
    const int flags = strcmp(host, "localhost") == 0 ? 0 : AI_NUMERICHOST;
    err_t rc = ERR_COMM;
    *fd = -1;
    if (resolve(&found, host, port, flags) == ERR_OK && is_loopback(found->ai_addr)) {
        rc = listen_at(fd, found->ai_addr, found->ai_addrlen);
    } else {
        rc = listen_at(fd, (const struct sockaddr *)(const void *)&any6, sizeof any6);
        if (rc != ERR_OK) /* a machine without IPv6 */
            rc = listen_at(fd, (const struct sockaddr *)(const void *)&any4, sizeof any4);
    }
    if (found != NULL) freeaddrinfo(found);
    if (rc != ERR_OK) {
        char text[ERR_TEXT_MAX];
        snprintf(text, sizeof text, "%s", err_last()->text);
        RAISE(COMM, "cannot listen at port %d: %.300s; set MASTER_PORT to a free one", port, text);
    }
    *port_found = port_of(*fd);
    return ERR_OK;
}

/* Milliseconds for poll(), at least 1 before the deadline. */
static int ms_until(double deadline_s)
{
    const double left_s = deadline_s - time_now_s();
    return left_s <= 0 ? 0 : (int)fmin(ceil(left_s * 1e3), 1e9);
}

static bool wait_for(int fd, short events, double deadline_s)
{
    struct pollfd p = { .fd = fd, .events = events };
    for (;;) {
        const int n = poll(&p, 1, ms_until(deadline_s));
        if (n > 0) return true;
        if (n == 0 && time_now_s() >= deadline_s) return false;
        if (n < 0 && errno != EINTR) return false;
    }
}

/* Where nobody listens at a port of those that the system lends, a call from that very port, on
 * this machine, reaches itself. */
static bool is_own(int fd)
{
    struct sockaddr_storage mine = { 0 }, its = { 0 };
    socklen_t mine_length = sizeof mine, its_length = sizeof its;
    return getsockname(fd, (struct sockaddr *)(void *)&mine, &mine_length) == 0 &&
           getpeername(fd, (struct sockaddr *)(void *)&its, &its_length) == 0 &&
           memcmp(&mine, &its, sizeof mine) == 0;
}

static int connect_one(const struct addrinfo *to, double deadline_s)
{
    int code = 0;
    socklen_t length = sizeof code;
    const int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (connect(fd, to->ai_addr, to->ai_addrlen) != 0) {
        code = errno;
        if (code == EINPROGRESS) {
            code = ETIMEDOUT;
            if (wait_for(fd, POLLOUT, deadline_s))
                (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length);
        }
    }
    if (code == 0 && is_own(fd)) code = ECONNREFUSED;
    if (code == 0) return fd;
    close(fd);
    errno = code;
    return -1;
}

err_t wire_connect(int *fd, const char *host, int port, double deadline_s)
{
    struct addrinfo *found;
    int left = 0;
    *fd = -1;
    TRY(resolve(&found, host, port, 0));
    for (const struct addrinfo *to = found; to != NULL; to = to->ai_next) left++;
    for (const struct addrinfo *to = found; to != NULL && *fd < 0; to = to->ai_next, left--) {
        const double now_s = time_now_s(); /* one that never answers leaves the others time */
        *fd = connect_one(to, now_s + (deadline_s - now_s) / left);
    }
    const int code = errno;
    freeaddrinfo(found);
    if (*fd < 0) RAISE(NOTFOUND, "%s", strerror(code));
    tune(*fd);
    return ERR_OK;
}

err_t wire_accept(int *fd, char name[WIRE_NAME_MAX], int listen_fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[WIRE_NAME_MAX - 8] = "?", port[8] = "?";
    *fd = accept4(listen_fd, (struct sockaddr *)(void *)&address, &length,
                  SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (*fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        RAISE(COMM, "accepting a connection: %s", strerror(errno));
    if (*fd < 0) return ERR_OK; /* nobody, or someone who has gone again */
    (void)getnameinfo((const struct sockaddr *)(const void *)&address, length, host, sizeof host,
                      port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(name, WIRE_NAME_MAX, "%s:%s", host, port);
    tune(*fd);
    return ERR_OK;
}

/* ---- bytes ---- */

static err_t send_all(int fd, const void *bytes, int64_t count, double deadline_s)
{
    for (int64_t sent = 0; sent < count;) {
        const ssize_t n =
            send(fd, (const char *)bytes + sent, (size_t)(count - sent), MSG_NOSIGNAL);
        if (n > 0) {
            sent += n;
            continue;
        }
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET)) RAISE(IO, "closed the connection");
        if (n < 0 && errno != EAGAIN) RAISE(COMM, "%s", strerror(errno));
        if (!wait_for(fd, POLLOUT, deadline_s)) RAISE(COMM, "does not take what is sent to it");
    }
    return ERR_OK;
}

/* ---- frames ---- */

err_t wire_send(int fd, enum wire_kind kind, const void *payload, int64_t bytes, double deadline_s)
{
    const struct header header = { WIRE_MAGIC, kind, (uint32_t)bytes,
                                   crc32c(0, payload, (size_t)bytes) };
    ASSERT(bytes >= 0 && bytes <= WIRE_PAYLOAD_MAX);
    if (fault_point("wire.send") != ERR_OK) RAISE(COMM, "injected fault at wire.send");
    TRY(send_all(fd, &header, (int64_t)sizeof header, deadline_s));
    return send_all(fd, payload, bytes, deadline_s);
}

static err_t check_header(const struct header *h, int64_t payload_max)
{
    if (h->magic != WIRE_MAGIC || h->kind < WIRE_HELLO || h->kind > WIRE_BYE)
        RAISE(COMM, "speaks another protocol");
    if (h->bytes > payload_max)
        RAISE(COMM, "sends %lld bytes, at most %lld expected", (long long)h->bytes,
              (long long)payload_max);
    return ERR_OK;
}

static err_t check_payload(const struct header *h, const void *payload)
{
    if (crc32c(0, payload, h->bytes) != h->crc) RAISE(CHECKSUM, "its message arrived damaged");
    return ERR_OK;
}

struct wire_inbox wire_inbox_of(void *payload, int64_t room)
{
    return (struct wire_inbox){ .payload = payload, .room = room };
}

/* The frame's size as far as it is known. */
static err_t inbox_size(const struct wire_inbox *inbox, struct header *h, int64_t *size)
{
    *size = WIRE_FRAME_BYTES;
    if (inbox->got < WIRE_FRAME_BYTES) return ERR_OK;
    memcpy(h, inbox->header, sizeof *h);
    TRY(check_header(h, inbox->room));
    *size += h->bytes;
    return ERR_OK;
}

err_t wire_poll(int fd, struct wire_inbox *inbox, struct wire_frame *frame, bool *complete)
{
    struct header h = { 0 };
    int64_t size;
    *complete = false;
    TRY(inbox_size(inbox, &h, &size));
    while (inbox->got < size) {
        uint8_t *to = inbox->got < WIRE_FRAME_BYTES
                          ? inbox->header + inbox->got
                          : inbox->payload + (inbox->got - WIRE_FRAME_BYTES);
        const ssize_t n = recv(fd, to, (size_t)(size - inbox->got), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno == ECONNRESET)) RAISE(IO, "closed the connection");
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return ERR_OK;
        if (n < 0) RAISE(COMM, "%s", strerror(errno));
        inbox->got += n;
        TRY(inbox_size(inbox, &h, &size));
    }
    TRY(check_payload(&h, inbox->payload));
    inbox->got = 0;
    *frame = (struct wire_frame){ (enum wire_kind)h.kind, h.bytes };
    *complete = true;
    return ERR_OK;
}

err_t wire_wait(int fd, struct wire_inbox *inbox, struct wire_frame *frame, double deadline_s)
{
    bool complete;
    if (fault_point("wire.receive") != ERR_OK) RAISE(COMM, "injected fault at wire.receive");
    for (;;) {
        TRY(wire_poll(fd, inbox, frame, &complete));
        if (complete) return ERR_OK;
        if (!wait_for(fd, POLLIN, deadline_s)) RAISE(COMM, "did not answer in time");
    }
}

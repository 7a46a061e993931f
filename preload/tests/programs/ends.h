/* Two ends of a TCP connection, each a process of its own: "server" and "client PORT".
 *
 * A program defines server() and client(), which get a connected socket, and says with SAY what it
 * observes. What it says must be the same over the kernel and over the SAN; what may differ (times,
 * ports, how a stream is cut into pieces) is not said.
 *
 * Before anything else the ends play a few rounds, for WARM milliseconds of the environment: time
 * for an upgrade, which the observations are to meet; and until it has come, for WARM_MOST at most.
 */
#ifndef ENDS_H
#define ENDS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "here.h"
#include "settled.h"

static void server(int fd);
static void client(int fd);

#define SAY(...) (printf(__VA_ARGS__), putchar('\n'))
/* The result of a call and its error, as text. */
#define SAY_CALL(what, call)                                                              \
    do {                                                                                  \
        errno = 0;                                                                        \
        long result_ = (long)(call);                                                      \
        SAY("%s: %ld %s", what, result_, result_ < 0 ? strerrorname_np(errno) : "");     \
    } while (0)
#define NEED(condition)                                                                   \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            printf("%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, strerror(errno));  \
            fflush(stdout);                                                               \
            _exit(9);                                                                     \
        }                                                                                 \
    } while (0)

static inline long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void pause_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0 && errno == EINTR)
        ;
}

/* All of it, whatever the pieces. */
static inline void get(int fd, void *to, size_t n)
{
    char *p = to;
    while (n > 0) {
        ssize_t k = read(fd, p, n);
        NEED(k > 0 || (k < 0 && errno == EINTR));
        if (k > 0)
            p += k, n -= (size_t)k;
    }
}

static inline void put(int fd, const void *from, size_t n)
{
    const char *p = from;
    while (n > 0) {
        ssize_t k = write(fd, p, n);
        NEED(k > 0 || (k < 0 && errno == EINTR));
        if (k > 0)
            p += k, n -= (size_t)k;
    }
}

/* Which end this is: of two that meet, one speaks first. */
static int leads;

/* The other end has come to the same point. Nothing is under way to the client until it is there. */
static inline void meet(int fd)
{
    char c = 'm';
    if (leads)
        put(fd, &c, 1);
    get(fd, &c, 1);
    NEED(c == 'm');
    if (!leads)
        put(fd, &c, 1);
}

static inline void on_signal(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    NEED(sigaction(number, &action, NULL) == 0);
}

/* A signal for this thread's process every `ms` milliseconds, or none. */
static inline void alarm_every_ms(long ms)
{
    struct itimerval t = {{ms / 1000, ms % 1000 * 1000}, {ms / 1000, ms % 1000 * 1000}};
    NEED(setitimer(ITIMER_REAL, &t, NULL) == 0);
}

/* Bytes that show where they belong. */
static inline unsigned char byte_at(uint64_t at)
{
    return (unsigned char)(at * 2654435761u >> 13 ^ at);
}

static inline void fill(unsigned char *p, size_t n, uint64_t at)
{
    for (size_t i = 0; i < n; i++)
        p[i] = byte_at(at + i);
}

static inline int check(const unsigned char *p, size_t n, uint64_t at)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != byte_at(at + i))
            return 0;
    return 1;
}

static inline uint32_t chance(uint32_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 17;
    *seed ^= *seed << 5;
    return *seed;
}

#ifndef OWN_MAIN
static inline void warm_up(int fd)
{
    const char *text = getenv("WARM");
    long begun = now_ms(), until = begun + (text ? atol(text) : 0), most = begun + most_ms();
    struct settling settling = {0};
    for (;;) {
        char c = now_ms() < until || (now_ms() < most && !is_settled(fd, &settling)) ? 'w' : 'e';
        if (leads) {
            put(fd, &c, 1);
            char echo;
            get(fd, &echo, 1);
            NEED(echo == c);
            pause_ms(2);
        } else {
            get(fd, &c, 1);
            put(fd, &c, 1);
        }
        if (c == 'e')
            return;
    }
}

/* Where the server listens, and where its client looks for it; a program may choose. */
#ifndef SERVER_AT
#define SERVER_AT here4()
#define CLIENT_AT here4()
#endif

/* Both families have the port at one place. */
static inline struct sockaddr_in6 address(const char *text, int port)
{
    union {
        struct sockaddr_in6 six;
        struct sockaddr_in four;
    } at = {.six = {.sin6_family = AF_INET6}};
    if (inet_pton(AF_INET6, text, &at.six.sin6_addr) != 1) {
        at.four.sin_family = AF_INET;
        NEED(inet_pton(AF_INET, text, &at.four.sin_addr) == 1);
    }
    at.six.sin6_port = htons((uint16_t)port);
    return at.six;
}

static inline socklen_t length_of(const struct sockaddr_in6 *at)
{
    return at->sin6_family == AF_INET6 ? sizeof *at : sizeof(struct sockaddr_in);
}

/* A host without IPv6 has the other one at least. */
static inline struct sockaddr_in6 usable(const char *text, int port)
{
    struct sockaddr_in6 six = address("::1", 0);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    int has = fd >= 0 && bind(fd, (struct sockaddr *)&six, sizeof six) == 0;
    if (fd >= 0)
        close(fd);
    return address(has ? text : here4(), port);
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    NEED(count > 1);
    int serves = strcmp(arguments[1], "server") == 0;
    NEED(serves || count > 2);
    struct sockaddr_in6 at = serves ? usable(SERVER_AT, 0) : usable(CLIENT_AT, atoi(arguments[2]));
    socklen_t len = length_of(&at);
    int fd = socket(at.sin6_family, SOCK_STREAM, 0);
    NEED(fd >= 0);
    if (serves) {
        NEED(bind(fd, (struct sockaddr *)&at, len) == 0);
        NEED(listen(fd, 16) == 0);
        NEED(getsockname(fd, (struct sockaddr *)&at, &len) == 0);
        printf("port %d\n", ntohs(at.sin6_port));
        int connection = accept(fd, NULL, NULL);
        NEED(connection >= 0);
        NEED(close(fd) == 0);
        warm_up(connection);
        server(connection);
    } else {
        NEED(connect(fd, (struct sockaddr *)&at, len) == 0);
        leads = 1;
        warm_up(fd);
        client(fd);
    }
    fflush(stdout);
    return 0;
}
#endif
#endif

/* Two ends of a TCP connection of this host in one process, and what the programs here say of them. */
#ifndef PAIR_H
#define PAIR_H
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
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "here.h"
#include "settled.h"

#define CHECK(call)                                                                                \
    do {                                                                                           \
        if (!(call)) {                                                                             \
            printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, strerror(errno));                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

struct pair {
    int client, server;
};

static inline void sleep_ms(int ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

static inline int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline struct pair make_pair(void) {
    struct sockaddr_in at = here();
    socklen_t len = sizeof at;
    struct pair p;
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(listener >= 0);
    CHECK(bind(listener, (struct sockaddr *)&at, len) == 0);
    CHECK(listen(listener, 16) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    p.client = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(p.client >= 0);
    CHECK(connect(p.client, (struct sockaddr *)&at, len) == 0);
    p.server = accept(listener, NULL, NULL);
    CHECK(p.server >= 0);
    CHECK(close(listener) == 0);
    setsockopt(p.client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(p.server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return p;
}

static inline void nonblocking(int fd) {
    CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

static inline void put(int fd, const char *text) {
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

/* Reads exactly so many bytes, waiting for them. */
static inline void take(int fd, size_t count) {
    char buffer[65536];
    while (count > 0) {
        struct pollfd p = {fd, POLLIN, 0};
        size_t most = count < sizeof buffer ? count : sizeof buffer;
        CHECK(poll(&p, 1, 30000) == 1);
        ssize_t got = read(fd, buffer, most);
        CHECK(got > 0 || (got < 0 && errno == EAGAIN));
        if (got > 0) {
            count -= (size_t)got;
        }
    }
}

/* Exchanges enough, for long enough, that the connection is carried as it is going to be; where that
 * may take long, until it is, for WARM_MOST milliseconds at most. */
static inline void warm(struct pair p) {
    static char block[2048];
    struct settling settling = {0};
    int64_t most = now_ms() + most_ms();
    for (int turn = 0; turn < 40 || (now_ms() < most && !is_settled(p.client, &settling)); turn++) {
        CHECK(write(p.client, block, sizeof block) == sizeof block);
        take(p.server, sizeof block);
        CHECK(write(p.server, block, sizeof block) == sizeof block);
        take(p.client, sizeof block);
        sleep_ms(10);
    }
}

static inline struct pair warm_pair(void) {
    struct pair p = make_pair();
    warm(p);
    return p;
}

static inline void end_pair(struct pair p) {
    close(p.client);
    close(p.server);
}

/* The events by name, in a fixed order. */
static inline const char *names(uint32_t events) {
    static __thread char text[4][160];
    static __thread int turn;
    static const struct {
        uint32_t bit;
        const char *name;
    } all[] = {{EPOLLIN, "IN"},   {EPOLLPRI, "PRI"}, {EPOLLOUT, "OUT"},
               {EPOLLRDHUP, "RDHUP"}, {EPOLLERR, "ERR"}, {EPOLLHUP, "HUP"}, {POLLNVAL, "NVAL"}};
    char *out = text[turn++ & 3];
    out[0] = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (events & all[i].bit) {
            if (out[0]) {
                strcat(out, "|");
            }
            strcat(out, all[i].name);
        }
    }
    return out[0] ? out : "none";
}

static inline void add(int set, int fd, uint32_t events, uint64_t data) {
    struct epoll_event e = {events, {.u64 = data}};
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0);
}

static inline void change(int set, int fd, uint32_t events, uint64_t data) {
    struct epoll_event e = {events, {.u64 = data}};
    CHECK(epoll_ctl(set, EPOLL_CTL_MOD, fd, &e) == 0);
}

/* Waits and says what came, sorted by data. */
static inline int told(const char *what, int set, int timeout) {
    struct epoll_event e[16];
    int n = epoll_wait(set, e, 16, timeout);
    printf("%s: %d", what, n);
    for (int want = 0; want < 100; want++) {
        for (int i = 0; i < n; i++) {
            if (e[i].data.u64 == (uint64_t)want) {
                printf(" %d=%s", want, names(e[i].events));
            }
        }
    }
    printf("\n");
    return n;
}

static inline long cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_utime.tv_sec * 1000000L + u.ru_utime.tv_usec + u.ru_stime.tv_sec * 1000000L +
           u.ru_stime.tv_usec;
}
#endif

/* What the cases of the switch share: checks with errno, and connected sockets. */
#ifndef WSD_CASE_H
#define WSD_CASE_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wsd_switch.h>

#include "check.h"
#include "provider.h"

/* A call that fails, and how. */
#define CHECK_ERRNO(call, number)                                                                  \
    do {                                                                                           \
        errno = 0;                                                                                 \
        CHECK_EQ(call, -1);                                                                        \
        CHECK_EQ(errno, number);                                                                   \
    } while (0)

/* WSD_PATH_SAN or WSD_PATH_TCP: what the run is about. */
static int expected_path;

/* 127.0.0.1, or what WSD_TEST_ADDRESS names for fabrics that do not serve the loopback. */
static inline struct sockaddr_in here(int port)
{
    const char *named = getenv("WSD_TEST_ADDRESS");
    struct sockaddr_in at;

    memset(&at, 0, sizeof at);
    at.sin_family = AF_INET;
    CHECK_EQ(inet_pton(AF_INET, named != NULL ? named : "127.0.0.1", &at.sin_addr), 1);
    at.sin_port = htons((unsigned short)port);
    return at;
}

static inline int port_of(int s)
{
    struct sockaddr_in at;
    socklen_t len = sizeof at;

    CHECK_EQ(wsd_getsockname(s, (struct sockaddr *)&at, &len), 0);
    CHECK_EQ(len, sizeof at);
    CHECK_EQ(at.sin_family, AF_INET);
    return ntohs(at.sin_port);
}

static inline int listening(void)
{
    struct sockaddr_in at = here(0);
    int s = wsd_socket(AF_INET, SOCK_STREAM, 0);

    CHECK(s >= 0);
    CHECK_EQ(wsd_bind(s, (struct sockaddr *)&at, sizeof at), 0);
    CHECK(port_of(s) != 0);
    CHECK_EQ(wsd_listen(s, 16), 0);
    return s;
}

static inline int path_of(int s)
{
    struct wsd_transport_info how;

    CHECK_EQ(wsd_transport(s, &how, sizeof how), 0);
    return how.path;
}

static inline void begin(const char *name, int argc, char **argv)
{
    struct wsd_transport_info how;
    int s;

    case_begin(name);
    CHECK_EQ(argc, 2);
    expected_path = strcmp(argv[1], "san") == 0 ? WSD_PATH_SAN : WSD_PATH_TCP;
    s = listening();
    CHECK_EQ(wsd_transport(s, &how, sizeof how), 0);
    if (expected_path == WSD_PATH_SAN && strcmp(how.reason, "no-provider") == 0)
        absent("the switch has found no SAN provider");
    CHECK_EQ(wsd_close(s), 0);
}

/* As wsd_poll for one socket; the events that were found. */
static inline int events(int s, short wanted, int time)
{
    struct pollfd fd = {s, wanted, 0};
    int count = wsd_poll(&fd, 1, time);

    CHECK(count >= 0);
    CHECK_EQ(count, fd.revents != 0);
    return fd.revents;
}

struct pair {
    int a, b; /* connected, accepted */
};

struct connecting {
    int port;
    int s;
};

static inline void *connect_to(void *argument)
{
    struct connecting *one = argument;
    struct sockaddr_in at = here(one->port);

    one->s = wsd_socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(wsd_connect(one->s, (struct sockaddr *)&at, sizeof at), 0);
    return NULL;
}

static inline struct pair connected(void)
{
    struct pair two;
    int listener = listening();
    struct connecting one = {port_of(listener), -1};
    pthread_t thread;
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;

    CHECK_EQ(pthread_create(&thread, NULL, connect_to, &one), 0);
    two.b = wsd_accept(listener, (struct sockaddr *)&peer, &len);
    CHECK(two.b >= 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    two.a = one.s;
    CHECK_EQ(len, sizeof peer);
    CHECK_EQ(ntohs(peer.sin_port), port_of(two.a));
    CHECK_EQ(wsd_close(listener), 0);
    CHECK_EQ(path_of(two.a), expected_path);
    CHECK_EQ(path_of(two.b), expected_path);
    return two;
}

static inline void part(struct pair two)
{
    CHECK_EQ(wsd_close(two.a), 0);
    CHECK_EQ(wsd_close(two.b), 0);
}

#endif

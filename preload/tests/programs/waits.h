/* Every call that waits, for programs that have one ended from outside: on the one connection, in the
 * one set, at a listener, and to one that takes nobody more. */
#include "pair.h"

static struct pair p;
static int set, listener, full;
static struct sockaddr_in where, full_where;

enum way { POLL, PPOLL, SELECT, PSELECT, EPOLL, EPOLL_PWAIT, EPOLL_PWAIT2, RECV, READ, ALL, ACCEPT,
           CONNECT, WAYS };
static const char *const NAMES[] = {"poll", "ppoll", "select", "pselect", "epoll_wait",
                                    "epoll_pwait", "epoll_pwait2", "recv", "read",
                                    "recv MSG_WAITALL", "accept", "connect"};

/* Waits for a connection that is not made; leaves its socket to the program. */
static void connects(void);

static void wait_by(enum way way) {
    char b[8];
    struct pollfd f = {p.server, POLLIN, 0};
    struct epoll_event e;
    fd_set in;
    sigset_t none;
    sigemptyset(&none);
    FD_ZERO(&in);
    FD_SET(p.server, &in);
    switch (way) {
    case POLL:
        poll(&f, 1, -1);
        break;
    case PPOLL:
        ppoll(&f, 1, NULL, &none);
        break;
    case SELECT:
        select(p.server + 1, &in, NULL, NULL, NULL);
        break;
    case PSELECT:
        pselect(p.server + 1, &in, NULL, NULL, NULL, &none);
        break;
    case EPOLL:
        epoll_wait(set, &e, 1, -1);
        break;
    case EPOLL_PWAIT:
        epoll_pwait(set, &e, 1, -1, &none);
        break;
    case EPOLL_PWAIT2:
        epoll_pwait2(set, &e, 1, NULL, NULL);
        break;
    case RECV:
        recv(p.server, b, sizeof b, 0);
        break;
    case READ:
        (void)!read(p.server, b, sizeof b);
        break;
    case ALL:
        recv(p.server, b, sizeof b, MSG_WAITALL);
        break;
    case ACCEPT:
        accept(listener, NULL, NULL);
        break;
    default:
        connects();
    }
}

static int bound(struct sockaddr_in *at, int backlog) {
    socklen_t len = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)at, len) == 0 && listen(fd, backlog) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)at, &len) == 0);
    return fd;
}

/* All of it works: in both directions, and for those who wait by the set or by number. */
static void works(const char *when) {
    put(p.client, "abc");
    struct epoll_event e;
    CHECK(epoll_wait(set, &e, 1, 10000) == 1 && e.data.u64 == 9);
    take(p.server, 3);
    put(p.server, "defg");
    take(p.client, 4);
    struct sockaddr_in at = where;
    int one = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(one, (struct sockaddr *)&at, sizeof at) == 0);
    int two = accept(listener, NULL, NULL);
    CHECK(two >= 0);
    put(one, "x");
    take(two, 1);
    close(one);
    close(two);
    printf("%s: all works\n", when);
}

/* Every way to register a connection with epoll, on one that has been carried for a while. */
#include "pair.h"

/* Long enough for news to arrive, and to see that none comes. */
#define SETTLE 30

static void level(void) {
    struct pair p = warm_pair();
    int set = epoll_create1(0);
    add(set, p.server, EPOLLIN, 1);
    told("LT idle", set, 0);
    put(p.client, "abc");
    told("LT first", set, 5000);
    told("LT again", set, 0);
    take(p.server, 1);
    told("LT rest", set, 0);
    take(p.server, 2);
    told("LT drained", set, 0);
    told("LT still", set, SETTLE);
    change(set, p.server, EPOLLIN | EPOLLOUT, 2);
    told("LT writable", set, 1000);
    change(set, p.server, 0, 3);
    put(p.client, "x");
    told("LT nothing asked", set, SETTLE);
    change(set, p.server, EPOLLIN, 4);
    told("LT asked", set, 1000);
    CHECK(epoll_ctl(set, EPOLL_CTL_DEL, p.server, NULL) == 0);
    told("LT deleted", set, SETTLE);
    end_pair(p);
    close(set);
}

static void edge(void) {
    struct pair p = warm_pair();
    nonblocking(p.server);
    int set = epoll_create1(0);
    add(set, p.server, EPOLLIN | EPOLLRDHUP | EPOLLET, 1);
    told("ET idle", set, 0);
    put(p.client, "abc");
    told("ET first", set, 5000);
    told("ET not again", set, SETTLE);
    put(p.client, "d");
    told("ET next arrival", set, 5000);
    take(p.server, 2);
    /* epoll(7) allows more edges than arrivals, of what is true; there is still something to read. */
    struct epoll_event event;
    int n = epoll_wait(set, &event, 1, SETTLE);
    CHECK(n == 0 || (n == 1 && event.data.u32 == 1 && event.events == EPOLLIN));
    take(p.server, 2);
    told("ET drained", set, SETTLE);
    put(p.client, "e");
    told("ET after draining", set, 5000);
    change(set, p.server, EPOLLIN | EPOLLET, 2);
    told("ET changed, tells again", set, 1000);
    told("ET once", set, SETTLE);
    change(set, p.server, EPOLLIN | EPOLLOUT | EPOLLET, 3);
    told("ET both", set, 1000);
    told("ET both once", set, SETTLE);
    CHECK(shutdown(p.client, SHUT_WR) == 0);
    change(set, p.server, EPOLLIN | EPOLLRDHUP | EPOLLET, 4);
    sleep_ms(SETTLE);
    told("ET end", set, 5000);
    end_pair(p);
    close(set);
}

static void oneshot(void) {
    struct pair p = warm_pair();
    int set = epoll_create1(0);
    add(set, p.server, EPOLLIN | EPOLLONESHOT, 1);
    put(p.client, "a");
    told("ONESHOT", set, 5000);
    told("ONESHOT spent", set, SETTLE);
    put(p.client, "b");
    told("ONESHOT still spent", set, SETTLE);
    change(set, p.server, EPOLLIN | EPOLLONESHOT, 2);
    told("ONESHOT asked again", set, 5000);
    take(p.server, 2);
    change(set, p.server, EPOLLIN | EPOLLONESHOT, 3);
    told("ONESHOT nothing", set, SETTLE);
    put(p.client, "c");
    told("ONESHOT later", set, 5000);
    change(set, p.server, EPOLLIN, 4);
    told("ONESHOT to LT", set, 5000);
    told("ONESHOT to LT again", set, 0);
    end_pair(p);
    close(set);
}

static const char *code(int answer) {
    return answer == 0 ? "ok" : strerrorname_np(errno);
}

static void errors(void) {
    struct pair p = warm_pair();
    int set = epoll_create1(0);
    struct epoll_event e = {EPOLLIN, {.u64 = 1}};
    printf("MOD before ADD %s\n", code(epoll_ctl(set, EPOLL_CTL_MOD, p.server, &e)));
    printf("DEL before ADD %s\n", code(epoll_ctl(set, EPOLL_CTL_DEL, p.server, &e)));
    printf("ADD %s\n", code(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &e)));
    printf("ADD twice %s\n", code(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &e)));
    told("wait", set, 0);
    printf("ADD thrice %s\n", code(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &e)));
    printf("MOD without event %s\n", code(epoll_ctl(set, EPOLL_CTL_MOD, p.server, NULL)));
    e.events = EPOLLIN | EPOLLEXCLUSIVE;
    printf("MOD to EXCLUSIVE %s\n", code(epoll_ctl(set, EPOLL_CTL_MOD, p.server, &e)));
    printf("no such operation %s\n", code(epoll_ctl(set, 77, p.server, &e)));
    printf("no such set %s\n", code(epoll_ctl(-1, EPOLL_CTL_ADD, p.server, &e)));
    printf("not a set %s\n", code(epoll_ctl(p.client, EPOLL_CTL_ADD, p.server, &e)));
    printf("itself %s\n", code(epoll_ctl(set, EPOLL_CTL_ADD, set, &e)));
    printf("a file %s\n", code(epoll_ctl(set, EPOLL_CTL_ADD, open("/etc/passwd", O_RDONLY), &e)));
    printf("DEL %s\n", code(epoll_ctl(set, EPOLL_CTL_DEL, p.server, NULL)));
    printf("DEL twice %s\n", code(epoll_ctl(set, EPOLL_CTL_DEL, p.server, NULL)));
    e.events = EPOLLIN | EPOLLEXCLUSIVE;
    printf("ADD EXCLUSIVE %s\n", code(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &e)));
    printf("MOD of EXCLUSIVE %s\n", code(epoll_ctl(set, EPOLL_CTL_MOD, p.server, &e)));
    put(p.client, "x");
    told("EXCLUSIVE", set, 5000);
    take(p.server, 1);
    told("EXCLUSIVE drained", set, SETTLE);
    struct epoll_event none[1];
    printf("no room %s\n", code(epoll_wait(set, none, 0, 0)));
    printf("wait for no set %s\n", code(epoll_wait(p.client, none, 1, 0)));
    close(p.server);
    e.events = EPOLLIN;
    printf("MOD closed %s\n", code(epoll_ctl(set, EPOLL_CTL_MOD, p.server, &e)));
    close(p.client);
    close(set);
}

static void nested(void) {
    struct pair p = warm_pair();
    int inner = epoll_create1(0), outer = epoll_create1(0), other = epoll_create1(0);
    add(inner, p.server, EPOLLIN, 1);
    add(outer, inner, EPOLLIN, 2);
    add(other, p.server, EPOLLIN | EPOLLET, 3);
    told("nested idle", outer, SETTLE);
    put(p.client, "a");
    told("nested", outer, 5000);
    told("inner", inner, 1000);
    told("second set", other, 5000);
    struct pollfd fd = {inner, POLLIN, 0};
    int polled = poll(&fd, 1, 1000);
    printf("poll of a set %d %s\n", polled, names((uint32_t)fd.revents));
    take(p.server, 1);
    told("inner drained", inner, 0);
    told("nested drained", outer, SETTLE);
    printf("poll of a set %d\n", poll(&fd, 1, 0));
    sleep_ms(50);
    put(p.client, "b");
    told("nested later", outer, 5000);
    take(p.server, 1);
    told("nested drained", outer, SETTLE);
    put(p.client, "c");
    fd.revents = 0;
    polled = poll(&fd, 1, 5000);
    printf("poll of a set later %d %s\n", polled, names((uint32_t)fd.revents));
    told("second set later", other, 5000);
    end_pair(p);
    told("closed", inner, SETTLE);
    told("closed, nested", outer, SETTLE);
    close(inner);
    close(outer);
    close(other);
}

static void numbers(void) {
    struct pair p = warm_pair();
    int set = epoll_create1(0);
    int copy = dup(p.server);
    add(set, p.server, EPOLLIN, 1);
    add(set, copy, EPOLLIN, 2);
    put(p.client, "a");
    sleep_ms(SETTLE);
    told("two numbers", set, 5000);
    close(p.server);
    told("one closed, still registered", set, 1000);
    take(copy, 1);
    told("drained", set, SETTLE);
    close(copy);
    told("both closed", set, SETTLE);
    close(p.client);

    /* The set under two numbers, and without its first one. */
    p = warm_pair();
    int again = dup(set);
    add(set, p.server, EPOLLIN, 3);
    put(p.client, "a");
    told("the set's other number", again, 5000);
    close(set);
    told("the set's only number", again, 5000);
    change(again, p.server, EPOLLIN | EPOLLOUT, 4);
    told("changed", again, 5000);
    /* Closed without DEL, and the number used again at once. */
    int number = p.server;
    end_pair(p);
    told("closed without DEL", again, SETTLE);
    struct pair q = warm_pair();
    if (q.server != number && q.client != number) {
        /* Another thread held a number for a moment, so this one was not among the lowest. */
        CHECK(dup2(q.server, number) == number);
        CHECK(close(q.server) == 0);
        q.server = number;
    }
    told("not registered", again, 0);
    add(again, number, EPOLLIN, 5);
    put(q.client == number ? q.server : q.client, "a");
    told("reused", again, 5000);
    end_pair(q);
    close(again);
}

static void filled(void) {
    struct pair p = warm_pair();
    static char block[65536];
    nonblocking(p.client);
    nonblocking(p.server);
    int set = epoll_create1(0);
    add(set, p.client, EPOLLOUT | EPOLLET, 1);
    told("OUT at first", set, 1000);
    told("OUT once", set, SETTLE);
    size_t sent = 0;
    for (int quiet = 0; quiet < 5;) {
        ssize_t n = write(p.client, block, sizeof block);
        if (n > 0) {
            sent += (size_t)n;
            quiet = 0;
        } else {
            CHECK(errno == EAGAIN);
            quiet++;
            sleep_ms(10);
        }
    }
    while (epoll_wait(set, &(struct epoll_event){0}, 1, 0) > 0) {
    }
    for (ssize_t n; (n = write(p.client, block, sizeof block)) > 0;) {
        sent += (size_t)n;
    }
    told("full", set, SETTLE);
    take(p.server, sent);
    told("room again", set, 5000);
    told("room once", set, SETTLE);
    change(set, p.client, EPOLLIN | EPOLLOUT, 2);
    told("level of both", set, 1000);
    put(p.server, "x");
    sleep_ms(SETTLE);
    told("level of both", set, 1000);
    end_pair(p);
    close(set);
}

static void ends(void) {
    struct pair p = warm_pair();
    int set = epoll_create1(0);
    uint32_t all = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI;
    add(set, p.server, all, 1);
    CHECK(shutdown(p.client, SHUT_WR) == 0);
    sleep_ms(SETTLE);
    told("half closed by the peer", set, 5000);
    CHECK(shutdown(p.server, SHUT_WR) == 0);
    sleep_ms(SETTLE);
    told("closed both ways", set, 5000);
    end_pair(p);

    p = warm_pair();
    add(set, p.server, all, 2);
    put(p.client, "rest");
    close(p.client);
    sleep_ms(SETTLE);
    told("data and end", set, 5000);
    char text[16] = {0};
    ssize_t got = read(p.server, text, sizeof text);
    printf("read %zd %s\n", got, text);
    told("end", set, 5000);
    close(p.server);

    p = warm_pair();
    add(set, p.server, all, 3);
    struct linger now = {1, 0};
    setsockopt(p.client, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(p.client);
    sleep_ms(SETTLE);
    told("reset", set, 5000);
    int error = 0;
    socklen_t len = sizeof error;
    getsockopt(p.server, SOL_SOCKET, SO_ERROR, &error, &len);
    printf("error %s\n", strerrorname_np(error));
    told("after the error", set, 5000);
    close(p.server);

    p = warm_pair();
    add(set, p.server, all, 4);
    CHECK(send(p.client, "u", 1, MSG_OOB) == 1);
    sleep_ms(SETTLE);
    told("urgent", set, 5000);
    char byte = 0;
    got = recv(p.server, &byte, 1, MSG_OOB);
    printf("urgent byte %zd %c\n", got, byte);
    told("urgent taken", set, 5000);
    end_pair(p);
    close(set);
}

int main(void) {
    alarm(120);
    setvbuf(stdout, NULL, _IOLBF, 0);
    level();
    edge();
    oneshot();
    errors();
    nested();
    numbers();
    filled();
    ends();
    puts("done");
    return 0;
}

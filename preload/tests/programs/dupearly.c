/* A socket that has several numbers before it is connected: they stand for one connection, in poll
 * sets, too. */
#include "pair.h"

int main(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof at;
    alarm(60);
    setvbuf(stdout, NULL, _IOLBF, 0);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&at, len) == 0 && listen(listener, 4) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    int second_listener = dup(listener);
    CHECK(close(listener) == 0);

    int one = socket(AF_INET, SOCK_STREAM, 0);
    int two = dup(one), three = fcntl(one, F_DUPFD, 100);
    int set = epoll_create1(0);
    add(set, two, EPOLLIN | EPOLLET, 2);
    CHECK(two >= 0 && three >= 100);
    CHECK(connect(one, (struct sockaddr *)&at, sizeof at) == 0);
    struct pair p = {two, accept(second_listener, NULL, NULL)};
    CHECK(p.server >= 0);
    warm(p);
    struct epoll_event e;
    while (epoll_wait(set, &e, 1, 0) > 0) {
    }
    put(p.server, "told");
    told("by the second number", set, 10000);
    take(three, 4);
    put(one, "a");
    put(two, "b");
    put(three, "c");
    take(p.server, 3);
    CHECK(close(one) == 0);
    warm(p);
    CHECK(dup2(second_listener, two) == two);
    p.client = three;
    warm(p);
    put(p.client, "last");
    CHECK(close(three) == 0);
    take(p.server, 4);
    char c;
    printf("the end: %zd\n", read(p.server, &c, 1));
    return 0;
}

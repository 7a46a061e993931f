/* connect() that does not wait: how its end is told by poll, select and epoll, what a refusal looks
 * like; and what is sent over such connections, before the other end has accepted, too. */
#include "pair.h"

#define PIECE 700
#define PIECES 120

static struct sockaddr_in where;

static int listening(int backlog) {
    socklen_t len = sizeof where;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    where = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)&where, len) == 0);
    if (backlog >= 0) {
        CHECK(listen(fd, backlog) == 0);
    }
    CHECK(getsockname(fd, (struct sockaddr *)&where, &len) == 0);
    return fd;
}

static int error_of(int fd) {
    int error = -1;
    socklen_t len = sizeof error;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0);
    return error;
}

static const char *name_of(int error) {
    return error == 0 ? "0" : strerrorname_np(error);
}

static int begin(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0);
    int answer = connect(fd, (struct sockaddr *)&where, sizeof where);
    /* On one host the kernel may be done at once. */
    CHECK(answer == 0 || errno == EINPROGRESS);
    return fd;
}

static uint32_t by_poll(int fd) {
    struct pollfd p = {fd, POLLOUT, 0};
    CHECK(poll(&p, 1, 10000) == 1);
    return (uint32_t)p.revents;
}

static uint32_t by_select(int fd) {
    fd_set out, in;
    FD_ZERO(&out);
    FD_ZERO(&in);
    FD_SET(fd, &out);
    FD_SET(fd, &in);
    struct timeval t = {10, 0};
    int n = select(fd + 1, &in, &out, NULL, &t);
    printf("select %d, in %d, out %d\n", n, !!FD_ISSET(fd, &in), !!FD_ISSET(fd, &out));
    return 0;
}

static uint32_t by_epoll(int fd, uint32_t events, int before) {
    int set = epoll_create1(0);
    struct epoll_event e;
    (void)before;
    add(set, fd, events, 5);
    CHECK(epoll_wait(set, &e, 1, 10000) == 1);
    CHECK(e.data.u64 == 5);
    close(set);
    return e.events;
}

/* Each answers the other often enough that the connection changes its path on the way. */
static void talk(int client, int server) {
    static char block[PIECE];
    nonblocking(server);
    for (int i = 0; i < PIECES; i++) {
        block[0] = (char)i;
        CHECK(write(client, block, PIECE) == PIECE);
        take(server, PIECE);
        CHECK(write(server, block, PIECE) == PIECE);
        take(client, PIECE);
        if (i < 60) {
            sleep_ms(5);
        }
    }
    puts("talked");
}

/* The edge of its being connected is the one that comes; later ones are of data. */
static void edges(void) {
    int listener = listening(8);
    int set = epoll_create1(0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event e;
    CHECK(fd >= 0);
    add(set, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, 7);
    /* What a socket that was never connected says. */
    printf("before %d ", epoll_wait(set, &e, 1, 0));
    printf("%s\n", names(e.events));
    int answer = connect(fd, (struct sockaddr *)&where, sizeof where);
    CHECK(answer == 0 || errno == EINPROGRESS);
    CHECK(epoll_wait(set, &e, 1, 10000) == 1);
    printf("connected: %s, error %s\n", names(e.events), name_of(error_of(fd)));
    printf("nothing more: %d\n", epoll_wait(set, &e, 1, 50));
    int server = accept(listener, NULL, NULL);
    CHECK(server >= 0);
    for (int i = 0; i < PIECES; i++) {
        char c;
        CHECK(write(server, "x", 1) == 1);
        CHECK(epoll_wait(set, &e, 1, 10000) == 1);
        CHECK(e.events & EPOLLIN && e.data.u64 == 7);
        ssize_t n = 0;
        /* A word of its coming may be early, never late. */
        while ((n = read(fd, &c, 1)) < 0) {
            CHECK(errno == EAGAIN);
            CHECK(epoll_wait(set, &e, 1, 10000) == 1);
        }
        CHECK(n == 1 && c == 'x');
        CHECK(read(fd, &c, 1) == -1 && errno == EAGAIN);
        CHECK(write(fd, "y", 1) == 1);
        take(server, 1);
        if (i < 60) {
            sleep_ms(5);
        }
    }
    puts("edges came");
    close(server);
    CHECK(epoll_wait(set, &e, 1, 10000) == 1);
    printf("the end: %d\n", !!(e.events & EPOLLRDHUP));
    close(fd);
    close(set);
    close(listener);
}

static void refused(void) {
    /* Bound, and nobody listens. */
    int bound = listening(-1);
    for (int way = 0; way < 4; way++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int set = epoll_create1(0);
        struct epoll_event e = {0};
        if (way == 3) {
            add(set, fd, EPOLLOUT | EPOLLIN | EPOLLET, 1);
            epoll_wait(set, &e, 1, 0);
        }
        int answer = connect(fd, (struct sockaddr *)&where, sizeof where);
        CHECK(answer != 0);
        if (errno == EINPROGRESS) {
            switch (way) {
            case 0:
                printf("refused: %s\n", names(by_poll(fd)));
                break;
            case 1:
                by_select(fd);
                break;
            case 2:
                printf("refused: %s\n", names(by_epoll(fd, EPOLLOUT, 0)));
                break;
            default:
                CHECK(epoll_wait(set, &e, 1, 10000) == 1);
                printf("refused: %s\n", names(e.events));
            }
            printf("error %s\n", name_of(error_of(fd)));
            printf("then %s\n", name_of(error_of(fd)));
        } else {
            printf("at once: %s\n", strerrorname_np(errno));
        }
        char c;
        ssize_t n = read(fd, &c, 1);
        printf("read %zd %s\n", n, n < 0 ? strerrorname_np(errno) : "");
        n = send(fd, "x", 1, MSG_NOSIGNAL);
        printf("send %zd %s\n", n, n < 0 ? strerrorname_np(errno) : "");
        /* The same socket goes elsewhere. */
        if (way == 0 || way == 3) {
            close(bound);
            int listener = listening(4);
            answer = connect(fd, (struct sockaddr *)&where, sizeof where);
            if (answer != 0 && errno == ECONNABORTED) {
                puts("aborted first");
                answer = connect(fd, (struct sockaddr *)&where, sizeof where);
            }
            CHECK(answer == 0 || errno == EINPROGRESS);
            printf("again: %s\n", names(by_poll(fd)));
            printf("error %s\n", name_of(error_of(fd)));
            int server = accept(listener, NULL, NULL);
            CHECK(server >= 0);
            talk(fd, server);
            if (way == 3) {
                while (epoll_wait(set, &e, 1, 0) > 0) {
                }
                put(server, "new");
                CHECK(epoll_wait(set, &e, 1, 10000) == 1);
                printf("the set tells: %d %d\n", !!(e.events & EPOLLIN), (int)e.data.u64);
                take(fd, 3);
            }
            close(server);
            close(listener);
            bound = listening(-1);
        }
        close(set);
        close(fd);
    }
    close(bound);
}

/* One that stays under way: the listener's queue is full, and who asks is told nothing yet. */
static void pending(void) {
    int listener = listening(0);
    int fds[8], under_way = -1;
    int count = 0;
    /* Two fit in, and a third whose answer the kernel holds back. */
    for (; count < 8; count++) {
        fds[count] = begin();
        struct pollfd p = {fds[count], POLLOUT, 0};
        if (poll(&p, 1, 200) == 0) {
            under_way = fds[count++];
            break;
        }
    }
    CHECK(under_way >= 0);
    char c;
    ssize_t n = read(under_way, &c, 1);
    printf("read %zd %s\n", n, strerrorname_np(errno));
    n = send(under_way, "x", 1, MSG_NOSIGNAL);
    printf("send %zd %s\n", n, strerrorname_np(errno));
    int answer = connect(under_way, (struct sockaddr *)&where, sizeof where);
    printf("connect %d %s\n", answer, strerrorname_np(errno));
    printf("error %s\n", name_of(error_of(under_way)));
    /* It is there once the others were accepted. */
    int servers[8];
    for (int i = 0; i < count; i++) {
        CHECK((servers[i] = accept(listener, NULL, NULL)) >= 0);
    }
    printf("in the end: %s, %s\n", names(by_poll(under_way)), name_of(error_of(under_way)));
    answer = connect(under_way, (struct sockaddr *)&where, sizeof where);
    printf("connect %d %s\n", answer, answer ? strerrorname_np(errno) : "");
    answer = connect(under_way, (struct sockaddr *)&where, sizeof where);
    printf("connect %d %s\n", answer, answer ? strerrorname_np(errno) : "");
    talk(under_way, servers[count - 1]);
    for (int i = 0; i < count; i++) {
        close(fds[i]);
        close(servers[i]);
    }
    close(listener);
}

static void connected(void) {
    int listener = listening(8);
    for (int way = 0; way < 4; way++) {
        int fd = begin();
        switch (way) {
        case 0:
            printf("connected: %s\n", names(by_poll(fd)));
            break;
        case 1:
            by_select(fd);
            break;
        case 2:
            printf("connected: %s\n", names(by_epoll(fd, EPOLLOUT, 0)));
            break;
        default:
            printf("connected: %s\n", names(by_epoll(fd, EPOLLIN | EPOLLOUT | EPOLLET, 1)));
        }
        printf("error %s\n", name_of(error_of(fd)));
        /* Before anybody has accepted. */
        CHECK(write(fd, "early", 5) == 5);
        int server = accept(listener, NULL, NULL);
        CHECK(server >= 0);
        take(server, 5);
        talk(fd, server);
        close(fd);
        char c;
        CHECK(fcntl(server, F_SETFL, 0) == 0);
        printf("the end: %zd\n", read(server, &c, 1));
        close(server);
    }
    close(listener);
}

int main(void) {
    alarm(80);
    setvbuf(stdout, NULL, _IOLBF, 0);
    connected();
    edges();
    refused();
    pending();
    puts("done");
    return 0;
}

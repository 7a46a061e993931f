/* siglongjmp() out of a handler, out of every call that waits, before a connection has changed its
 * path and after it. The same sockets and sets work afterwards, also when another process is to
 * share them, and by stdio. */
#include "pair.h"
#include <setjmp.h>
#include <sys/ioctl.h>

static sigjmp_buf place;
static struct pair p;
static int set, listener, full;
static struct sockaddr_in where, full_where;

static void handler(int number) {
    (void)number;
    siglongjmp(place, 1);
}

static void alarm_ms(long ms) {
    struct itimerval t = {{0, 0}, {ms / 1000, ms % 1000 * 1000}};
    CHECK(setitimer(ITIMER_REAL, &t, NULL) == 0);
}

enum way { POLL, PPOLL, SELECT, PSELECT, EPOLL, EPOLL_PWAIT, RECV, READ, ALL, ACCEPT, CONNECT,
           WAYS };

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
    default: {
        static int fd;
        fd = socket(AF_INET, SOCK_STREAM, 0);
        connect(fd, (struct sockaddr *)&full_where, sizeof full_where);
    }
    }
    puts("it came back");
}

/* Deeper or higher on the stack than the one before. */
static void __attribute__((noinline)) deep(enum way way, int depth) {
    volatile char room[512];
    room[0] = 1;
    if (depth > 0) {
        deep(way, depth - 1);
    } else {
        wait_by(way);
    }
    room[511] = room[0];
}

static void jump_out(enum way way, int depth) {
    if (sigsetjmp(place, 1) == 0) {
        alarm_ms(40);
        deep(way, depth);
    }
    alarm_ms(0);
}

static int bound(struct sockaddr_in *at, int backlog) {
    socklen_t len = sizeof *at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)at, len) == 0 && listen(fd, backlog) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)at, &len) == 0);
    return fd;
}

static void works(const char *when) {
    struct epoll_event e;
    put(p.client, "abc");
    CHECK(epoll_wait(set, &e, 1, 10000) == 1 && e.data.u64 == 9);
    take(p.server, 3);
    put(p.server, "defg");
    take(p.client, 4);
    int one = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(one, (struct sockaddr *)&where, sizeof where) == 0);
    int two = accept(listener, NULL, NULL);
    CHECK(two >= 0);
    put(one, "x");
    take(two, 1);
    close(one);
    close(two);
    printf("%s: all works\n", when);
}

static void *sends(void *fd) {
    sleep_ms(30);
    put(*(int *)fd, "z");
    return NULL;
}

/* A call that waits without a limit gets what comes. */
static void wakes(void) {
    for (int way = 0; way < ALL; way++) {
        pthread_t thread;
        struct pollfd f = {p.server, POLLIN, 0};
        struct epoll_event e;
        char c = 0;
        CHECK(pthread_create(&thread, NULL, sends, &p.client) == 0);
        if (way == RECV || way == READ) {
            CHECK(read(p.server, &c, 1) == 1 && c == 'z');
        } else if (way == EPOLL || way == EPOLL_PWAIT) {
            CHECK(epoll_wait(set, &e, 1, -1) == 1);
            take(p.server, 1);
        } else {
            CHECK(poll(&f, 1, -1) == 1);
            take(p.server, 1);
        }
        CHECK(pthread_join(thread, NULL) == 0);
    }
    puts("who waits is woken");
}

static void forked(void) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        char c;
        CHECK(read(p.server, &c, 1) == 1 && c == 'f');
        CHECK(write(p.server, "F", 1) == 1);
        _exit(6);
    }
    int status;
    put(p.client, "f");
    take(p.client, 1);
    CHECK(waitpid(pid, &status, 0) == pid);
    printf("a child has answered: %d\n", WEXITSTATUS(status));
}

/* Many jumps out of one, and of many. */
static void often(void) {
    static volatile int i;
    for (i = 0; i < 60; i++) {
        if (sigsetjmp(place, 1) == 0) {
            alarm_ms(3);
            wait_by((enum way)(i % CONNECT));
        }
        alarm_ms(0);
    }
}

int main(void) {
    static volatile int way;
    const char *eager = getenv("WSD_EAGER");
    if (eager && strcmp(eager, "1") == 0) {
        /* So that the first jumps are out of calls on what has not changed its path. */
        CHECK(setenv("WSD_EAGER", "0", 1) == 0);
        execl("/proc/self/exe", "jumpwaits", NULL);
        CHECK(0);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct sigaction act = {.sa_handler = handler};
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    listener = bound(&where, 16);
    full = bound(&full_where, 0);
    int fill[4];
    for (int i = 0; i < 4; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fill[i], (struct sockaddr *)&full_where, sizeof full_where);
    }

    /* Nothing has ever crossed it. */
    p = make_pair();
    set = epoll_create1(0);
    add(set, p.server, EPOLLIN, 9);
    for (way = 0; way < WAYS; way++) {
        jump_out((enum way)way, way % 3 * 2);
    }
    works("never used");
    warm(p);
    works("used");
    wakes();
    for (way = 0; way < WAYS; way++) {
        jump_out((enum way)way, 4 - way % 3 * 2);
        if (way == READ) {
            works("meanwhile");
        }
    }
    works("after all");
    wakes();
    often();
    works("after many");
    forked();
    works("after a fork");
    warm(p);
    for (way = 0; way < WAYS; way++) {
        jump_out((enum way)way, 1);
    }
    FILE *stream = fdopen(p.server, "r+");
    CHECK(stream);
    put(p.client, "line\n");
    char line[16];
    printf("by stdio: %s", fgets(line, sizeof line, stream));
    put(p.client, "last");
    CHECK(shutdown(p.client, SHUT_WR) == 0);
    take(p.server, 4);
    char c;
    printf("the end %zd\n", read(p.server, &c, 1));
    fclose(stream);
    close(p.client);
    puts("done");
    return 0;
}

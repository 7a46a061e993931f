/* siglongjmp() out of a handler, out of every call that waits, before a connection has changed its
 * path and after it. The same sockets and sets work afterwards, also when another process is to
 * share them, and by stdio. */
#include "waits.h"
#include "jumps.h"
#include <sys/ioctl.h>

static void connects(void) {
    static int fd;
    fd = socket(AF_INET, SOCK_STREAM, 0);
    connect(fd, (struct sockaddr *)&full_where, sizeof full_where);
}

/* Deeper or higher on the stack than the one before. */
static void __attribute__((noinline)) deep(enum way way, int depth) {
    volatile char room[512];
    room[0] = 1;
    if (depth > 0) {
        deep(way, depth - 1);
    } else {
        wait_by(way);
        puts("it came back");
    }
    room[511] = room[0];
}

static void jump_out(enum way way, int depth) {
    if (sigsetjmp(place, 1) == 0) {
        alarm_ms(40);
        deep(way, depth);
    }
    alarm_ms(0);
    int state;
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0);
    CHECK(state == PTHREAD_CANCEL_ENABLE);
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
        } else if (way == EPOLL || way == EPOLL_PWAIT || way == EPOLL_PWAIT2) {
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
            puts("it came back");
        }
        alarm_ms(0);
    }
}

/* Out of a handler that has a stack of its own. */
static void on_own_stack(void) {
    static char room[64 << 10];
    stack_t own = {.ss_sp = room, .ss_size = sizeof room};
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_ONSTACK};
    CHECK(sigaltstack(&own, NULL) == 0 && sigaction(SIGALRM, &act, NULL) == 0);
    often();
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
    on_own_stack();
    warm(p);
    works("after many on a stack of their own");
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

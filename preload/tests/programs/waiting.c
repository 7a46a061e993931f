/* poll() and select() and their kin: readiness, time, signals, masks, on connections that have been
 * carried for a while, alone and among other descriptors. */
#include "pair.h"

#define SETTLE 30

static volatile sig_atomic_t caught;

static void on_signal(int number) {
    (void)number;
    caught++;
}

static void handle(int flags) {
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = flags};
    CHECK(sigaction(SIGUSR1, &act, NULL) == 0);
}

static const char *code(int answer) {
    static char text[32];
    if (answer >= 0) {
        snprintf(text, sizeof text, "%d", answer);
        return text;
    }
    return strerrorname_np(errno);
}

struct later {
    pthread_t whom;
    int ms, fd, signal;
};

static void *later(void *arg) {
    struct later *l = arg;
    sleep_ms(l->ms);
    if (l->signal) {
        pthread_kill(l->whom, l->signal);
    }
    if (l->fd >= 0) {
        put(l->fd, "x");
    }
    return NULL;
}

static pthread_t do_later(struct later *l) {
    pthread_t thread;
    l->whom = pthread_self();
    CHECK(pthread_create(&thread, NULL, later, l) == 0);
    return thread;
}

static void polled(void) {
    struct pair p = warm_pair();
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    struct pollfd f[5] = {{p.server, POLLIN | POLLOUT | POLLRDHUP, 0},
                          {pipes[0], POLLIN, 0},
                          {-1, POLLIN, 77},
                          {p.client, POLLIN, 0},
                          {p.server, POLLIN, 0}};
    int n = poll(f, 5, 1000);
    printf("writable %s: %s %s %s %s\n", code(n), names((uint32_t)f[0].revents),
           names((uint32_t)f[1].revents), names((uint32_t)f[2].revents),
           names((uint32_t)f[3].revents));
    put(p.client, "a");
    put(pipes[1], "b");
    sleep_ms(SETTLE);
    n = poll(f, 5, 1000);
    printf("all %s: %s %s %s %s\n", code(n), names((uint32_t)f[0].revents),
           names((uint32_t)f[1].revents), names((uint32_t)f[3].revents),
           names((uint32_t)f[4].revents));
    take(p.server, 1);
    char byte;
    CHECK(read(pipes[0], &byte, 1) == 1);
    f[0].events = POLLIN;
    int64_t begin = now_ms();
    n = poll(f, 5, 100);
    int64_t took = now_ms() - begin;
    printf("nothing %s %d\n", code(n), took >= 99 && took < 5000);
    /* While the thread sleeps. */
    struct later l = {.ms = 50, .fd = p.client};
    pthread_t t = do_later(&l);
    n = poll(f, 5, 20000);
    printf("later %s %s\n", code(n), names((uint32_t)f[0].revents));
    pthread_join(t, NULL);
    take(p.server, 1);
    l = (struct later){.ms = 50, .fd = pipes[1]};
    t = do_later(&l);
    n = poll(f, 5, -1);
    printf("the pipe later %s %s %s\n", code(n), names((uint32_t)f[0].revents),
           names((uint32_t)f[1].revents));
    pthread_join(t, NULL);
    CHECK(read(pipes[0], &byte, 1) == 1);
    /* Signals. */
    handle(SA_RESTART);
    l = (struct later){.ms = 50, .fd = -1, .signal = SIGUSR1};
    t = do_later(&l);
    n = poll(f, 5, 20000);
    printf("signal %s %d\n", code(n), caught);
    pthread_join(t, NULL);
    sigset_t block, none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &block, NULL);
    raise(SIGUSR1);
    n = poll(f, 5, SETTLE);
    printf("blocked %s %d\n", code(n), caught);
    struct timespec long_time = {20, 0};
    n = ppoll(f, 5, &long_time, &none);
    printf("let in by ppoll %s %d\n", code(n), caught);
    struct timespec short_time = {0, 20000000};
    n = ppoll(f, 5, &short_time, &none);
    printf("ppoll's time %s %d %ld\n", code(n), caught, short_time.tv_nsec);
    pthread_sigmask(SIG_UNBLOCK, &block, NULL);
    struct timespec bad = {0, -1};
    printf("bad time %s\n", code(ppoll(f, 5, &bad, NULL)));
    /* The peer leaves. */
    CHECK(shutdown(p.client, SHUT_WR) == 0);
    sleep_ms(SETTLE);
    f[0].events = POLLIN | POLLRDHUP;
    n = poll(f, 1, 5000);
    printf("half closed %s %s\n", code(n), names((uint32_t)f[0].revents));
    close(p.client);
    f[1].fd = p.client;
    n = poll(f, 2, 5000);
    printf("closed %s %s %s\n", code(n), names((uint32_t)f[0].revents),
           names((uint32_t)f[1].revents));
    close(p.server);
}

static const char *members(fd_set *r, fd_set *w, struct pair p) {
    static char text[64];
    snprintf(text, sizeof text, "%s%s%s%s", FD_ISSET(p.server, r) ? "server-in " : "",
             FD_ISSET(p.client, r) ? "client-in " : "", FD_ISSET(p.server, w) ? "server-out " : "",
             FD_ISSET(p.client, w) ? "client-out " : "");
    return text;
}

static void selected(void) {
    struct pair p = warm_pair();
    int most = (p.client > p.server ? p.client : p.server) + 1;
    fd_set r, w, x;
#define ASK()                                                                                      \
    do {                                                                                           \
        FD_ZERO(&r);                                                                               \
        FD_ZERO(&w);                                                                               \
        FD_ZERO(&x);                                                                               \
        FD_SET(p.server, &r);                                                                      \
        FD_SET(p.client, &r);                                                                      \
        FD_SET(p.server, &x);                                                                      \
    } while (0)
    ASK();
    FD_SET(p.client, &w);
    struct timeval time = {5, 0};
    int n = select(most, &r, &w, &x, &time);
    printf("select %s %s%d\n", code(n), members(&r, &w, p), time.tv_sec == 4 || time.tv_sec == 5);
    ASK();
    time = (struct timeval){0, 50000};
    n = select(most, &r, &w, &x, &time);
    printf("time over %s %s%ld %ld\n", code(n), members(&r, &w, p), (long)time.tv_sec,
           (long)time.tv_usec);
    ASK();
    struct later l = {.ms = 100, .fd = p.client};
    pthread_t t = do_later(&l);
    time = (struct timeval){20, 0};
    n = select(most, &r, NULL, &x, &time);
    printf("later %s %s%d\n", code(n), members(&r, &w, p),
           time.tv_sec < 20 && time.tv_sec > 5);
    pthread_join(t, NULL);
    take(p.server, 1);
    ASK();
    handle(0);
    caught = 0;
    l = (struct later){.ms = 50, .fd = -1, .signal = SIGUSR1};
    t = do_later(&l);
    n = select(most, &r, NULL, NULL, NULL);
    printf("signal %s %d %s\n", code(n), caught, members(&r, &w, p));
    pthread_join(t, NULL);
    sigset_t block, none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &block, NULL);
    raise(SIGUSR1);
    struct timespec span = {20, 0};
    ASK();
    n = pselect(most, &r, NULL, NULL, &span, &none);
    printf("pselect %s %d %ld\n", code(n), caught, (long)span.tv_sec);
    pthread_sigmask(SIG_UNBLOCK, &block, NULL);
    /* Urgent data. */
    CHECK(send(p.client, "u", 1, MSG_OOB) == 1);
    sleep_ms(SETTLE);
    FD_ZERO(&x);
    FD_SET(p.server, &x);
    time = (struct timeval){5, 0};
    n = select(most, NULL, NULL, &x, &time);
    printf("urgent %s %d\n", code(n), FD_ISSET(p.server, &x) != 0);
    char byte;
    CHECK(recv(p.server, &byte, 1, MSG_OOB) == 1);
    close(p.client);
    sleep_ms(SETTLE);
    ASK();
    FD_CLR(p.client, &r);
    time = (struct timeval){5, 0};
    n = select(most, &r, NULL, NULL, &time);
    printf("end %s %s\n", code(n), members(&r, &w, p));
    ASK();
    n = select(most, &r, NULL, NULL, &time);
    printf("a closed number %s\n", code(n));
    printf("negative %s\n", code(select(-1, &r, NULL, NULL, &time)));
    time = (struct timeval){-1, 0};
    printf("negative time %s\n", code(select(most, NULL, NULL, NULL, &time)));
    close(p.server);
}

static void epolled(void) {
    struct pair p = warm_pair();
    int set = epoll_create1(0);
    struct epoll_event e;
    add(set, p.server, EPOLLIN, 1);
    told("warm", set, 0);
    int64_t begin = now_ms();
    int n = epoll_wait(set, &e, 1, 100);
    int64_t took = now_ms() - begin;
    printf("epoll time over %s %d\n", code(n), took >= 99 && took < 5000);
    struct timespec span = {0, 30500000};
    begin = now_ms();
    n = epoll_pwait2(set, &e, 1, &span, NULL);
    took = now_ms() - begin;
    printf("epoll_pwait2 time over %s %d\n", code(n), took >= 30 && took < 5000);
    struct later l = {.ms = 50, .fd = p.client};
    pthread_t t = do_later(&l);
    told("epoll later", set, -1);
    pthread_join(t, NULL);
    take(p.server, 1);
    handle(SA_RESTART);
    caught = 0;
    l = (struct later){.ms = 50, .fd = -1, .signal = SIGUSR1};
    t = do_later(&l);
    n = epoll_wait(set, &e, 1, 20000);
    printf("epoll signal %s %d\n", code(n), caught);
    pthread_join(t, NULL);
    sigset_t block, none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &block, NULL);
    raise(SIGUSR1);
    n = epoll_wait(set, &e, 1, SETTLE);
    printf("epoll blocked %s %d\n", code(n), caught);
    n = epoll_pwait(set, &e, 1, 20000, &none);
    printf("epoll_pwait lets in %s %d\n", code(n), caught);
    raise(SIGUSR1);
    put(p.client, "y");
    sleep_ms(SETTLE);
    n = epoll_pwait(set, &e, 1, 20000, &none);
    printf("epoll_pwait with news %s %d\n", code(n), caught);
    pthread_sigmask(SIG_UNBLOCK, &block, NULL);
    printf("then %d\n", caught);
    end_pair(p);
    close(set);
}

/* Nothing happens: nothing runs. */
static void idle(void) {
    struct pair p[8];
    int set = epoll_create1(0);
    for (int i = 0; i < 8; i++) {
        p[i] = make_pair();
    }
    for (int i = 0; i < 8; i++) {
        warm(p[i]);
        add(set, p[i].server, i % 2 ? EPOLLIN : EPOLLIN | EPOLLET, (uint64_t)i);
    }
    told("before idling", set, 100);
    long before = cpu_us();
    told("idle", set, 2000);
    struct pollfd f[8];
    for (int i = 0; i < 8; i++) {
        f[i] = (struct pollfd){p[i].client, POLLIN, 0};
    }
    printf("idle %d\n", poll(f, 8, 1000));
    long used = cpu_us() - before;
    /* More for a processor that is slow. */
    const char *other = getenv("WSD_TEST_IDLE_MS");
    long limit = other ? atol(other) * 1000 : 60000;
    printf("idle costs nothing %d\n", used < limit);
    if (used >= limit) {
        printf("it cost %ld us\n", used);
    }
    for (int i = 0; i < 8; i++) {
        end_pair(p[i]);
    }
    close(set);
}

int main(void) {
    alarm(120);
    setvbuf(stdout, NULL, _IOLBF, 0);
    polled();
    selected();
    epolled();
    idle();
    puts("done");
    return 0;
}

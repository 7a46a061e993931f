/* pthread_cancel() of threads that wait: by poll, select and epoll, for a connection, to connect, to
 * receive. Others that wait for the same go on, the same socket and set work afterwards, and nothing
 * is left behind. What is no point of cancellation is none with a request pending. */
#include "waits.h"
#include <dirent.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

static int file, cleaned;

static void clean(void *unused) {
    (void)unused;
    __atomic_fetch_add(&cleaned, 1, __ATOMIC_SEQ_CST);
}

static void connects(void) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    pthread_cleanup_push((void (*)(void *))(void *)close, (void *)(intptr_t)fd);
    connect(fd, (struct sockaddr *)&full_where, sizeof full_where);
    pthread_cleanup_pop(1);
}

static void *waits(void *arg) {
    pthread_cleanup_push(clean, NULL);
    wait_by((enum way)(intptr_t)arg);
    pthread_cleanup_pop(0);
    return NULL;
}

static int cancel_one(enum way way, int ms) {
    pthread_t thread;
    void *result;
    CHECK(pthread_create(&thread, NULL, waits, (void *)(intptr_t)way) == 0);
    sleep_ms(ms);
    CHECK(pthread_cancel(thread) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    return result == PTHREAD_CANCELED;
}

static int descriptors(void) {
    DIR *d = opendir("/proc/self/fd");
    int count = 0;
    CHECK(d);
    while (readdir(d)) {
        count++;
    }
    closedir(d);
    return count;
}

static int others_woke;

/* One that waits as the cancelled one does, and is woken by a byte afterwards. */
static void *other(void *arg) {
    wait_by((enum way)(intptr_t)arg);
    __atomic_fetch_add(&others_woke, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void beside(enum way way) {
    pthread_t thread;
    int before = others_woke;
    CHECK(pthread_create(&thread, NULL, other, (void *)(intptr_t)way) == 0);
    sleep_ms(40);
    int gone = 0;
    for (int i = 0; i < 3; i++) {
        gone += cancel_one(way, 20);
    }
    CHECK(others_woke == before);
    put(p.client, "q");
    CHECK(pthread_join(thread, NULL) == 0);
    take(p.server, way < RECV ? 1 : 0);
    printf("%s: %d cancelled, the other one woke\n", NAMES[way], gone);
}

static volatile int go;

/* With the request pending: what is no point of cancellation is not one. */
static void *passes(void *arg) {
    int old, count, one = 1;
    struct epoll_event e = {EPOLLIN | EPOLLOUT, {.u64 = 9}};
    (void)arg;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    while (!go) {
        sleep_ms(1);
    }
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
    CHECK(epoll_ctl(set, EPOLL_CTL_MOD, p.server, &e) == 0);
    CHECK(epoll_ctl(set, EPOLL_CTL_DEL, p.server, NULL) == 0);
    e.events = EPOLLIN;
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, p.server, &e) == 0);
    CHECK(setsockopt(p.server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    CHECK(ioctl(p.server, FIONREAD, &count) == 0);
    CHECK(sendfile(p.client, file, NULL, 1) == 1);
    int two = dup(p.client);
    CHECK(two >= 0);
    int made = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(made >= 0);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(5);
    }
    int status = 0;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    CHECK(waitpid(pid, &status, 0) == pid && WEXITSTATUS(status) == 5);
    close(two);
    close(made);
    go = 2;
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
    pthread_testcancel();
    return NULL;
}

/* With the request pending, each point of cancellation is one, also where it need not wait; and
 * what could have been received is still there. */
static void *stops(void *arg) {
    int old, way = (int)(intptr_t)arg;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    while (!go) {
        sleep_ms(1);
    }
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
    if (way < WAYS) {
        wait_by((enum way)way);
    } else if (way == WAYS) {
        (void)!write(p.server, "w", 1);
    } else {
        send(p.server, "s", 1, MSG_DONTWAIT);
    }
    return NULL;
}

static void pending(void) {
    pthread_t thread;
    void *result;
    go = 0;
    file = memfd_create("file", 0);
    CHECK(file >= 0 && pwrite(file, "f", 1, 0) == 1);
    CHECK(pthread_create(&thread, NULL, passes, NULL) == 0);
    CHECK(pthread_cancel(thread) == 0);
    go = 1;
    CHECK(pthread_join(thread, &result) == 0);
    printf("pending: passed all %d, ended by it %d\n", go == 2, result == PTHREAD_CANCELED);
    take(p.server, 1);
    close(file);
    works("after that");
    warm(p);
    put(p.client, "z");
    struct pollfd f = {p.server, POLLIN, 0};
    CHECK(poll(&f, 1, 10000) == 1);
    for (int way = 0; way < WAYS + 2; way++) {
        if (way == ACCEPT || way == CONNECT) {
            continue;
        }
        go = 0;
        CHECK(pthread_create(&thread, NULL, stops, (void *)(intptr_t)way) == 0);
        CHECK(pthread_cancel(thread) == 0);
        go = 1;
        CHECK(pthread_join(thread, &result) == 0);
        printf("%s with news and a request: ended by it %d\n",
               way < WAYS ? NAMES[way] : way == WAYS ? "write" : "send",
               result == PTHREAD_CANCELED);
    }
    take(p.server, 1);
}

int main(void) {
    alarm(80);
    setvbuf(stdout, NULL, _IOLBF, 0);
    listener = bound(&where, 16);
    full = bound(&full_where, 0);
    int fill[4];
    for (int i = 0; i < 4; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        connect(fill[i], (struct sockaddr *)&full_where, sizeof full_where);
    }
    p = warm_pair();
    set = epoll_create1(0);
    add(set, p.server, EPOLLIN, 9);
    works("before");
    for (int way = 0; way < WAYS; way++) {
        int before = cleaned;
        int gone = cancel_one((enum way)way, 60);
        printf("%s: cancelled %d, cleaned %d\n", NAMES[way], gone, cleaned - before);
    }
    works("after each");
    for (int way = 0; way < ACCEPT; way++) {
        if (way != ALL) {
            beside((enum way)way);
        }
    }
    works("beside others");
    int before = descriptors();
    for (int i = 0; i < 120; i++) {
        CHECK(cancel_one((enum way)(i % WAYS), 1 + i % 7) == 1);
    }
    works("after many");
    /* The library may be about to close some of its own. */
    printf("descriptors stay: %d\n", descriptors() - before < 30);
    pending();
    works("in the end");
    put(p.client, "last");
    CHECK(shutdown(p.client, SHUT_WR) == 0);
    take(p.server, 4);
    char c;
    printf("the end %zd\n", read(p.server, &c, 1));
    end_pair(p);
    puts("done");
    return 0;
}

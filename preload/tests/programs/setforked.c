/* An epoll set that a fork leaves to both processes, with connections in it that have been carried
 * for a while: the child waits by it, both do, the child alone after its parent has closed it; what
 * one registers the other waits for. */
#include "pair.h"

#define PAIRS 4

static struct pair pairs[PAIRS];

/* Answers what the set tells of, so many times. */
static int serve(int set, int count) {
    for (int done = 0; done < count;) {
        struct epoll_event e;
        char c;
        int n = epoll_wait(set, &e, 1, 10000);
        if (n != 1) {
            printf("epoll_wait %d after %d\n", n, done);
            return 1;
        }
        ssize_t got = read(pairs[e.data.u64].server, &c, 1);
        if (got == 1) {
            CHECK(write(pairs[e.data.u64].server, &c, 1) == 1);
            done++;
        } else if (!(got < 0 && errno == EAGAIN)) {
            printf("read %zd %s\n", got, strerror(errno));
            return 1;
        }
    }
    return 0;
}

static void ask(int which, int count) {
    for (int i = 0; i < count; i++) {
        char c = (char)('a' + i % 26), back = 0;
        struct pollfd f = {pairs[which].client, POLLIN, 0};
        CHECK(write(pairs[which].client, &c, 1) == 1);
        CHECK(poll(&f, 1, 10000) == 1);
        CHECK(read(pairs[which].client, &back, 1) == 1 && back == c);
    }
}

static int code_of(pid_t pid) {
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
}

static int fresh(uint32_t events) {
    int set = epoll_create1(0);
    CHECK(set >= 0);
    for (int i = 0; i < PAIRS; i++) {
        pairs[i] = make_pair();
        nonblocking(pairs[i].server);
        add(set, pairs[i].server, EPOLLIN | events, (uint64_t)i);
    }
    for (int i = 0; i < PAIRS; i++) {
        warm(pairs[i]);
    }
    struct epoll_event e[8];
    while (epoll_wait(set, e, 8, 0) > 0 && events) {
    }
    return set;
}

static void end(int set) {
    for (int i = 0; i < PAIRS; i++) {
        end_pair(pairs[i]);
    }
    if (set >= 0) {
        close(set);
    }
}

/* The child answers by its parent's set; afterwards the parent does. */
static void in_turn(const char *name, uint32_t events) {
    int set = fresh(events);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        _exit(serve(set, PAIRS * 10));
    }
    for (int i = 0; i < PAIRS; i++) {
        ask(i, 10);
    }
    printf("%s: the child's code %d\n", name, code_of(pid));
    pthread_t thread;
    extern void *serving(void *);
    CHECK(pthread_create(&thread, NULL, serving, &set) == 0);
    for (int i = 0; i < PAIRS; i++) {
        ask(i, 10);
    }
    CHECK(pthread_join(thread, NULL) == 0);
    /* Nobody shares them any more: they may change their path again, in the set. */
    CHECK(pthread_create(&thread, NULL, serving, &set) == 0);
    for (int i = 0; i < PAIRS; i++) {
        for (int k = 0; k < 10; k++) {
            ask(i, 1);
            sleep_ms(4);
        }
    }
    CHECK(pthread_join(thread, NULL) == 0);
    printf("%s: the parent has answered, too\n", name);
    end(set);
}

void *serving(void *set) {
    CHECK(serve(*(int *)set, PAIRS * 10) == 0);
    return NULL;
}

/* Both wait at once; each answer is given by one of them. */
static void both(void) {
    int set = fresh(0);
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        CHECK((pids[i] = fork()) >= 0);
        if (pids[i] == 0) {
            for (;;) {
                struct epoll_event e;
                char c;
                CHECK(epoll_wait(set, &e, 1, 20000) == 1);
                ssize_t got = read(pairs[e.data.u64].server, &c, 1);
                if (got == 0) {
                    _exit(3);
                }
                if (got == 1) {
                    if (c == 'Q') {
                        _exit(4);
                    }
                    CHECK(write(pairs[e.data.u64].server, &c, 1) == 1);
                }
            }
        }
    }
    for (int i = 0; i < 50; i++) {
        ask(i % PAIRS, 3);
    }
    put(pairs[0].client, "Q");
    put(pairs[1].client, "Q");
    int one = code_of(pids[0]), two = code_of(pids[1]);
    printf("both: codes %d %d\n", one, two);
    end(set);
}

/* The parent closes the set and all the ends in it; the child goes on alone. */
static void parent_closes(void) {
    int set = fresh(EPOLLET);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        for (int i = 0; i < PAIRS; i++) {
            close(pairs[i].client);
        }
        int failed = serve(set, PAIRS * 60);
        struct epoll_event e;
        /* Then the ends come. */
        for (int i = 0; i < PAIRS && !failed; i++) {
            char c;
            failed |= epoll_wait(set, &e, 1, 10000) != 1;
            failed |= read(pairs[e.data.u64].server, &c, 1) != 0;
            close(pairs[e.data.u64].server);
        }
        _exit(failed);
    }
    close(set);
    for (int i = 0; i < PAIRS; i++) {
        close(pairs[i].server);
    }
    for (int i = 0; i < PAIRS; i++) {
        for (int k = 0; k < 60; k++) {
            ask(i, 1);
            sleep_ms(3);
        }
    }
    for (int i = 0; i < PAIRS; i++) {
        close(pairs[i].client);
    }
    printf("alone: the child's code %d\n", code_of(pid));
}

/* What the child registers, changes and takes out is so in the parent's set. */
static void registered(void) {
    int set = fresh(0);
    struct pair late = warm_pair();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(epoll_ctl(set, EPOLL_CTL_DEL, pairs[0].server, NULL) == 0);
        change(set, pairs[1].server, EPOLLIN | EPOLLOUT, 41);
        add(set, late.server, EPOLLIN, 42);
        CHECK(epoll_ctl(set, EPOLL_CTL_DEL, pairs[0].server, NULL) == -1 && errno == ENOENT);
        _exit(0);
    }
    printf("registered: code %d\n", code_of(pid));
    put(pairs[0].client, "x");
    told("one was taken out, one is writable", set, 200);
    put(late.client, "x");
    sleep_ms(50);
    told("one was added", set, 200);
    change(set, pairs[1].server, 0, 41);
    take(late.server, 1);
    told("nothing", set, 100);
    put(pairs[2].client, "x");
    told("another", set, 1000);
    end_pair(late);
    end(set);
}

int main(void) {
    alarm(80);
    setvbuf(stdout, NULL, _IOLBF, 0);
    in_turn("LT", 0);
    in_turn("ET", EPOLLET);
    both();
    parent_closes();
    registered();
    puts("done");
    return 0;
}

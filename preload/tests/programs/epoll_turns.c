/* Many connections in one set, in every mode, from their first byte on: each answers what it gets,
 * and the other end waits for the answer, so that one lost event stops a connection for good. */
#include "pair.h"

#define MANY 24
#define TURNS 400
#define THREADS 3

struct side {
    int fd;
    int turns;
    size_t left;
    uint32_t events;
};

static struct side servers[MANY], clients[MANY];
static int set, threads_end;
static uint32_t modes;
static int done_count;

static size_t size_of_turn(int which, int turn) {
    return (size_t)(1 + (which * 7919 + turn * 104729) % (turn % 10 == 9 ? 100000 : 700));
}

static void send_all(int fd, size_t count) {
    static const char block[100000];
    while (count > 0) {
        ssize_t n = write(fd, block, count);
        if (n < 0) {
            CHECK(errno == EAGAIN);
            struct pollfd p = {fd, POLLOUT, 0};
            CHECK(poll(&p, 1, 30000) == 1);
        } else {
            count -= (size_t)n;
        }
    }
}

/* What is there; 0 at the end of the stream. */
static int drain(int fd, uint32_t events, size_t *got) {
    static __thread char room[4096];
    *got = 0;
    for (;;) {
        ssize_t n = read(fd, room, sizeof room);
        if (n == 0) {
            return 0;
        }
        if (n < 0) {
            CHECK(errno == EAGAIN);
            return 1;
        }
        *got += (size_t)n;
        if (!(events & EPOLLET)) {
            return 1;
        }
    }
}

static void again(struct side *s, uint64_t data) {
    if (s->events & EPOLLONESHOT) {
        change(set, s->fd, s->events, data);
    }
}

/* Servers send back what they get. */
static void *serve(void *unused) {
    (void)unused;
    while (!__atomic_load_n(&threads_end, __ATOMIC_RELAXED)) {
        struct epoll_event e[8];
        int n = epoll_wait(set, e, 8, 200);
        for (int i = 0; i < n; i++) {
            uint64_t which = e[i].data.u64;
            struct side *s = &servers[which];
            size_t got;
            int open = drain(s->fd, s->events, &got);
            send_all(s->fd, got);
            if (open) {
                again(s, which);
            }
        }
    }
    return NULL;
}

static void next_turn(int which) {
    struct side *c = &clients[which];
    if (c->turns == TURNS) {
        done_count++;
        CHECK(shutdown(c->fd, SHUT_WR) == 0);
        return;
    }
    c->left = size_of_turn(which, c->turns++);
    send_all(c->fd, c->left);
}

static void run(const char *name, uint32_t events, int threads) {
    pthread_t thread[THREADS];
    int mine = epoll_create1(0);
    set = epoll_create1(0);
    threads_end = 0;
    done_count = 0;
    modes = events;
    for (int i = 0; i < MANY; i++) {
        struct pair p = make_pair();
        nonblocking(p.client);
        nonblocking(p.server);
        servers[i] = (struct side){p.server, 0, 0, EPOLLIN | events};
        clients[i] = (struct side){p.client, 0, 0, EPOLLIN | (events & EPOLLET)};
        add(set, p.server, servers[i].events, (uint64_t)i);
        add(mine, p.client, clients[i].events, (uint64_t)i);
    }
    for (int i = 0; i < threads; i++) {
        CHECK(pthread_create(&thread[i], NULL, serve, NULL) == 0);
    }
    for (int i = 0; i < MANY; i++) {
        next_turn(i);
    }
    int64_t begin = now_ms();
    while (done_count < MANY) {
        struct epoll_event e[8];
        int n = epoll_wait(mine, e, 8, 15000);
        if (n <= 0) {
            printf("%s: %d of %d stopped\n", name, MANY - done_count, MANY);
            for (int i = 0; i < MANY; i++) {
                if (clients[i].turns < TURNS || clients[i].left) {
                    printf("  connection %d turn %d of %zu bytes %zu missing\n", i,
                           clients[i].turns, size_of_turn(i, clients[i].turns - 1),
                           clients[i].left);
                }
            }
            exit(1);
        }
        for (int i = 0; i < n; i++) {
            struct side *c = &clients[e[i].data.u64];
            size_t got;
            CHECK(drain(c->fd, c->events, &got) == 1);
            CHECK(got <= c->left);
            c->left -= got;
            if (got > 0 && c->left == 0) {
                next_turn((int)e[i].data.u64);
            }
        }
    }
    if (getenv("TIMES")) {
        fprintf(stderr, "%s: %ld ms\n", name, (long)(now_ms() - begin));
    }
    for (int i = 0; i < MANY; i++) {
        struct pollfd p = {servers[i].fd, POLLIN | POLLRDHUP, 0};
        CHECK(poll(&p, 1, 10000) == 1 && (p.revents & POLLRDHUP));
    }
    threads_end = 1;
    for (int i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
    }
    for (int i = 0; i < MANY; i++) {
        close(clients[i].fd);
        close(servers[i].fd);
    }
    close(set);
    close(mine);
    printf("%s: all answered\n", name);
}

int main(void) {
    alarm(150);
    setvbuf(stdout, NULL, _IOLBF, 0);
    run("LT", 0, 1);
    run("ET", EPOLLET, 1);
    run("ONESHOT", EPOLLONESHOT, 1);
    run("ET ONESHOT", EPOLLET | EPOLLONESHOT, 1);
    run("EXCLUSIVE", EPOLLEXCLUSIVE, 1);
    run("ONESHOT, several threads", EPOLLONESHOT, THREADS);
    run("ET ONESHOT, several threads", EPOLLET | EPOLLONESHOT, THREADS);
    puts("done");
    return 0;
}

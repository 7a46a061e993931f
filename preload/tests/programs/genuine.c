/* What waits say is true: in level-triggered ways of waiting, whoever is the only one to read finds
 * something where it was told that there is something, also while a connection changes its path. */
#include "pair.h"

#define MANY 16
#define TURNS 150
#define ROUNDS 12

enum how { EPOLL, POLL, SELECT, WAYS };
static const char *const ways[] = {"epoll", "poll", "select"};

struct end {
    enum how how;
    int fds[MANY];
    int open;
    int starts;
    long turns;
    int false_news;
    int wrong_ends;
};

/* The places of those that are readable. */
static int wait_for(struct end *e, int set, int *which) {
    int found = 0;
    if (e->how == EPOLL) {
        struct epoll_event events[MANY];
        int n = epoll_wait(set, events, MANY, 30000);
        CHECK(n > 0);
        for (int i = 0; i < n; i++) {
            which[found++] = (int)events[i].data.u64;
        }
    } else if (e->how == POLL) {
        struct pollfd p[MANY];
        for (int i = 0; i < MANY; i++) {
            p[i] = (struct pollfd){e->fds[i], POLLIN, 0};
        }
        CHECK(poll(p, MANY, 30000) > 0);
        for (int i = 0; i < MANY; i++) {
            if (p[i].revents) {
                which[found++] = i;
            }
        }
    } else {
        fd_set in;
        struct timeval time = {30, 0};
        FD_ZERO(&in);
        for (int i = 0; i < MANY; i++) {
            if (e->fds[i] >= 0) {
                FD_SET(e->fds[i], &in);
            }
        }
        CHECK(select(FD_SETSIZE, &in, NULL, NULL, &time) > 0);
        for (int i = 0; i < MANY; i++) {
            if (e->fds[i] >= 0 && FD_ISSET(e->fds[i], &in)) {
                which[found++] = i;
            }
        }
    }
    return found;
}

static void *run(void *arg) {
    struct end *e = arg;
    static const char block[40];
    char room[4096];
    int turns[MANY] = {0};
    size_t left[MANY];
    int set = epoll_create1(0);
    e->open = MANY;
    for (int i = 0; i < MANY; i++) {
        left[i] = sizeof block;
        if (e->how == EPOLL) {
            add(set, e->fds[i], EPOLLIN, (uint64_t)i);
        }
        if (e->starts) {
            CHECK(write(e->fds[i], block, sizeof block) == sizeof block);
        }
    }
    while (e->open > 0) {
        int which[MANY];
        int n = wait_for(e, set, which);
        for (int k = 0; k < n; k++) {
            int i = which[k], fd = e->fds[i];
            ssize_t got = read(fd, room, sizeof room);
            if (got < 0 && errno == EAGAIN) {
                e->false_news++;
                continue;
            }
            if (got <= 0) {
                e->wrong_ends += e->starts;
                goto over;
            }
            CHECK((size_t)got <= left[i]);
            left[i] -= (size_t)got;
            if (left[i] > 0) {
                continue;
            }
            left[i] = sizeof block;
            e->turns++;
            if (e->starts && ++turns[i] == TURNS) {
                goto over;
            }
            CHECK(write(fd, block, sizeof block) == sizeof block);
            continue;
        over:
            if (e->how == EPOLL) {
                CHECK(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL) == 0);
            }
            close(fd);
            e->fds[i] = -1;
            e->open--;
        }
    }
    close(set);
    return NULL;
}

int main(void) {
    alarm(80);
    for (int way = 0; way < WAYS; way++) {
        int false_news = 0, wrong_ends = 0;
        long turns = 0;
        for (int round = 0; round < ROUNDS; round++) {
            struct end client = {.how = way, .starts = 1}, server = {.how = way};
            for (int i = 0; i < MANY; i++) {
                struct pair p = make_pair();
                nonblocking(p.client);
                nonblocking(p.server);
                client.fds[i] = p.client;
                server.fds[i] = p.server;
            }
            pthread_t thread;
            CHECK(pthread_create(&thread, NULL, run, &server) == 0);
            run(&client);
            pthread_join(thread, NULL);
            false_news += client.false_news + server.false_news;
            wrong_ends += client.wrong_ends + server.wrong_ends;
            turns += client.turns;
        }
        printf("%s: %ld turns, %d times nothing was there, %d ended wrongly\n", ways[way], turns,
               false_news, wrong_ends);
    }
    return 0;
}

/* A program that was compiled with checks of its buffers calls other functions of libc. */
#undef _FORTIFY_SOURCE
#define _FORTIFY_SOURCE 2
#include "pair.h"
#include <setjmp.h>

#if __USE_FORTIFY_LEVEL < 2
#error "there are no checks without optimisation"
#endif

static struct pair p;
static sigjmp_buf place;

static void handler(int number) {
    (void)number;
    siglongjmp(place, 1);
}

static void jumps(int plain) {
    struct itimerval t = {{0, 0}, {0, 50000}};
    static jmp_buf other;
    char c;
    if (sigsetjmp(place, 1) == 0) {
        CHECK(setitimer(ITIMER_REAL, &t, NULL) == 0);
        CHECK(read(p.server, &c, 1) == 1);
        puts("it came back");
    }
    if (plain && setjmp(other) == 0) {
        longjmp(other, 1);
    }
    int state = -1;
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0);
    printf("cancellation is enabled: %d\n", state == PTHREAD_CANCEL_ENABLE);
}

int main(void) {
    /* Lengths that the compiler does not know, for buffers whose room it knows. */
    volatile size_t three = 3;
    volatile nfds_t one = 1;
    char b[8] = {0};
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    struct sigaction act = {.sa_handler = handler};
    struct timespec second = {1, 0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    p = warm_pair();
    struct pollfd f[2] = {{p.server, POLLIN, 0}, {-1, 0, 0}};
    printf("poll: %d\n", poll(f, one, 0));
    printf("ppoll: %d\n", ppoll(f, one, &(struct timespec){0, 1000000}, NULL));
    put(p.client, "onetwosix");
    printf("poll: %d", poll(f, one, 1000));
    printf(" %s\n", names((uint32_t)f[0].revents));
    printf("ppoll: %d", ppoll(f, one, &second, NULL));
    printf(" %s\n", names((uint32_t)f[0].revents));
    printf("read: %zd", read(p.server, b, three));
    printf(" %s\n", b);
    printf("recv: %zd", recv(p.server, b, three, MSG_WAITALL));
    printf(" %s\n", b);
    printf("recvfrom: %zd", recvfrom(p.server, b, three, 0, (struct sockaddr *)&from, &length));
    printf(" %s\n", b);
    jumps(0);
    jumps(1);
    put(p.client, "abc");
    take(p.server, three);
    printf("dprintf: %d\n", dprintf(p.client, "%s%zu", "by", three));
    take(p.server, three);
    put(p.server, "end");
    take(p.client, three);
    end_pair(p);
    return 0;
}

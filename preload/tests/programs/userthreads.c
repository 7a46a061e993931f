/* Threads of the program's own, on stacks of their own, that a handler interrupts in a call and that
 * come back to it, by siglongjmp: the call goes on where it was, however often. */
#include "pair.h"
#include <setjmp.h>
#include <ucontext.h>

enum { TURNS = 6, ROOM = 128 << 10 };

static struct pair p;
static sigjmp_buf home, inside;
static ucontext_t first, other;
static volatile int over;

static void handler(int number) {
    (void)number;
    if (sigsetjmp(inside, 1) == 0) {
        siglongjmp(home, 1);
    }
}

static void thread(void) {
    char b[8] = {0};
    CHECK(recv(p.server, b, 3, 0) == 3);
    printf("it goes on with %s\n", b);
    over = 1;
    siglongjmp(home, 1);
}

/* Another one that waits for the same. */
static void *waits(void *arg) {
    char c;
    (void)arg;
    CHECK(recv(p.server, &c, 1, 0) == 1 && c == 'z');
    return NULL;
}

static void once(char *room, int turn, int comes) {
    struct itimerval t = {{0, 0}, {0, 30000}};
    static volatile int interrupted, most;
    over = interrupted = 0;
    most = turn;
    if (sigsetjmp(home, 1) == 0) {
        CHECK(getcontext(&other) == 0);
        other.uc_stack.ss_sp = room;
        other.uc_stack.ss_size = ROOM;
        makecontext(&other, thread, 0);
        CHECK(setitimer(ITIMER_REAL, &t, NULL) == 0);
        swapcontext(&first, &other);
    }
    if (!over) {
        if (++interrupted > most) {
            put(p.client, "one");
            if (comes) {
                sleep_ms(20);
            }
        } else {
            CHECK(setitimer(ITIMER_REAL, &t, NULL) == 0);
        }
        siglongjmp(inside, 1);
    }
    printf("interrupted: %d\n", interrupted);
    put(p.client, "two");
    take(p.server, 3);
}

int main(void) {
    pthread_t one;
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART};
    static char near[ROOM] __attribute__((aligned(64)));
    sigset_t alarms;
    setvbuf(stdout, NULL, _IOLBF, 0);
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    p = warm_pair();
    char *far = malloc(ROOM);
    for (int turn = 0; turn < TURNS; turn++) {
        once(turn % 2 ? far : near, turn / 2, turn % 3);
    }
    warm(p);
    sigemptyset(&alarms);
    sigaddset(&alarms, SIGALRM);
    CHECK(pthread_sigmask(SIG_BLOCK, &alarms, NULL) == 0);
    CHECK(pthread_create(&one, NULL, waits, NULL) == 0);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &alarms, NULL) == 0);
    sleep_ms(50);
    put(p.client, "z");
    CHECK(pthread_join(one, NULL) == 0);
    close(p.server);
    char c;
    printf("the end: %zd\n", read(p.client, &c, 1));
    close(p.client);
    return 0;
}

/* A handler that ends a call by siglongjmp() to `place`, and the alarm that calls it. */
#include <setjmp.h>

static sigjmp_buf place;

static void handler(int number) {
    (void)number;
    siglongjmp(place, 1);
}

static void alarm_ms(long ms) {
    struct itimerval t = {{0, 0}, {ms / 1000, ms % 1000 * 1000}};
    CHECK(setitimer(ITIMER_REAL, &t, NULL) == 0);
}

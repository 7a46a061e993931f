/* longjmp() out of a handler, out of calls that wait: the connection works on. */
#include "ends.h"

static sigjmp_buf place;

static void handler(int number)
{
    (void)number;
    siglongjmp(place, 1);
}

static void client(int fd)
{
    char b[8];
    on_signal(SIGALRM, handler, 0);
    for (volatile int i = 0; i < 5; i++) {
        if (sigsetjmp(place, 1) == 0) {
            alarm_every_ms(40);
            if (i % 2)
                (void)!read(fd, b, 1);
            else
                recv(fd, b, 1, MSG_WAITALL);
            SAY("the call came back");
        }
        alarm_every_ms(0);
    }
    SAY("five jumps out of receiving");
    meet(fd);
    get(fd, b, 3);
    SAY("%.3s", b);
    meet(fd);
    static unsigned char much[64 << 20];
    for (volatile int i = 0; i < 2; i++) {
        if (sigsetjmp(place, 1) == 0) {
            alarm_every_ms(700);
            (void)!write(fd, much, sizeof much);
            SAY("the call came back");
        }
        alarm_every_ms(0);
    }
    SAY("two jumps out of sending");
    SAY_CALL("shutdown", shutdown(fd, SHUT_WR));
    get(fd, b, 3);
    SAY("%.3s", b);
}

static void server(int fd)
{
    meet(fd);
    put(fd, "abc", 3);
    meet(fd);
    pause_ms(2500);
    static char much[1 << 16];
    uint64_t got = 0;
    ssize_t n;
    while ((n = read(fd, much, sizeof much)) > 0)
        got += (uint64_t)n;
    SAY("the end: %zd, something came: %d", n, got > 0);
    put(fd, "def", 3);
}

/* Signals during calls that wait: EINTR without SA_RESTART, patience with it, partial counts kept. */
#include "ends.h"

static volatile sig_atomic_t signals;

static void handler(int number)
{
    (void)number;
    signals++;
}

static void client(int fd)
{
    char c;
    on_signal(SIGALRM, handler, 0);
    alarm_every_ms(50);
    SAY_CALL("read without SA_RESTART", read(fd, &c, 1));
    SAY_CALL("recv without SA_RESTART", recv(fd, &c, 1, 0));
    alarm_every_ms(0);
    SAY("there were signals: %d", signals > 0);

    on_signal(SIGALRM, handler, SA_RESTART);
    meet(fd);
    signals = 0;
    alarm_every_ms(30);
    SAY_CALL("read with SA_RESTART", read(fd, &c, 1));
    alarm_every_ms(0);
    SAY("there were several signals: %d", signals > 2);
    SAY("read: %c", c);

    /* With a time-out a call is never restarted. */
    struct timeval t = {5, 0};
    SAY_CALL("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    alarm_every_ms(50);
    SAY_CALL("read with a time-out", read(fd, &c, 1));
    alarm_every_ms(0);
    t.tv_sec = 0;
    SAY_CALL("no time-out", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));

    /* Some of what was asked for is there: that much, and no error. */
    meet(fd);
    char some[10];
    pause_ms(200);
    alarm_every_ms(150);
    SAY_CALL("MSG_WAITALL of 10 with 4 there", recv(fd, some, 10, MSG_WAITALL));
    alarm_every_ms(0);
    SAY("%.4s", some);

    /* A send that fills everything is cut short. */
    static char much[64 << 20];
    meet(fd);
    alarm_every_ms(1500);
    ssize_t n = write(fd, much, sizeof much);
    alarm_every_ms(0);
    SAY("a part was sent: %d", n > 0 && n < (ssize_t)sizeof much);
    SAY_CALL("shutdown", shutdown(fd, SHUT_WR));
    int64_t got;
    get(fd, &got, sizeof got);
    SAY("it is what arrived: %d", got == n);
}

static void server(int fd)
{
    meet(fd);
    pause_ms(300);
    put(fd, "a", 1);
    meet(fd);
    put(fd, "four", 4);
    meet(fd);
    pause_ms(3000);
    static char much[1 << 16];
    int64_t got = 0;
    ssize_t n;
    while ((n = read(fd, much, sizeof much)) > 0)
        got += n;
    NEED(n == 0);
    put(fd, &got, sizeof got);
}

/* Close with what was not sent yet: it is sent all the same, with and without SO_LINGER. */
#include "ends.h"

static void client(int fd)
{
    static unsigned char p[1 << 20];
    uint64_t at = 0;
    struct linger l = {1, 20};
    SAY_CALL("SO_LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
    while (at < 4 << 20) {
        fill(p, sizeof p, at);
        ssize_t n = send(fd, p, sizeof p, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN)
            break;
        NEED(n > 0);
        at += (uint64_t)n;
    }
    SAY_CALL("close", close(fd));
    pause_ms(100);
    SAY("something was sent: %d", at > 0);
}

static void server(int fd)
{
    static unsigned char p[1 << 16];
    pause_ms(500);
    uint64_t at = 0;
    for (;;) {
        ssize_t n = read(fd, p, sizeof p);
        NEED(n >= 0);
        if (n == 0)
            break;
        NEED(check(p, (size_t)n, at));
        at += (uint64_t)n;
    }
    SAY("a whole number of pieces or a part: %d", at > 0);
}

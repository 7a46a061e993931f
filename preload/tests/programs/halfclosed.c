/* proof: mixed. Each direction is closed on its own. */
#include "ends.h"

static void client(int fd)
{
    static unsigned char p[300000];
    fill(p, sizeof p, 0);
    put(fd, p, sizeof p);
    SAY_CALL("shutdown SHUT_WR", shutdown(fd, SHUT_WR));
    SAY_CALL("shutdown SHUT_WR again", shutdown(fd, SHUT_WR));
    unsigned char b[1000];
    uint64_t at = 0;
    ssize_t n;
    while ((n = read(fd, b, sizeof b)) > 0) {
        NEED(check(b, (size_t)n, at));
        at += (uint64_t)n;
    }
    SAY("the end: %zd after %llu", n, (unsigned long long)at);
    SAY_CALL("read after the end", read(fd, b, 1));
    SAY_CALL("shutdown SHUT_RDWR", shutdown(fd, SHUT_RDWR));
    SAY_CALL("shutdown of nonsense", shutdown(fd, 77));
    SAY_CALL("close", close(fd));
    SAY_CALL("shutdown of nothing", shutdown(fd, SHUT_RD));
}

static void server(int fd)
{
    static unsigned char b[100000];
    uint64_t at = 0;
    ssize_t n;
    while ((n = read(fd, b, sizeof b)) > 0) {
        NEED(check(b, (size_t)n, at));
        at += (uint64_t)n;
    }
    SAY("the end: %zd after %llu", n, (unsigned long long)at);
    SAY_CALL("read after the end", read(fd, b, 1));
    fill(b, sizeof b, 0);
    put(fd, b, sizeof b);
    pause_ms(50);
    fill(b, 50000, 100000);
    put(fd, b, 50000);
    SAY_CALL("shutdown SHUT_RD", shutdown(fd, SHUT_RD));
    SAY_CALL("read after SHUT_RD", read(fd, b, 1));
    SAY_CALL("close", close(fd));
}

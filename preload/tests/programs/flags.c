/* MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC. */
#include "ends.h"

static void client(int fd)
{
    char b[64];
    meet(fd);
    pause_ms(200);
    memset(b, 0, sizeof b);
    SAY_CALL("peek", recv(fd, b, 5, MSG_PEEK));
    SAY("%.5s", b);
    int count = 0;
    SAY_CALL("FIONREAD", ioctl(fd, FIONREAD, &count));
    SAY("FIONREAD says %d", count);
    SAY_CALL("peek more", recv(fd, b, sizeof b, MSG_PEEK));
    SAY("%.10s", b);
    SAY_CALL("peek and wait for what is there", recv(fd, b, 10, MSG_PEEK | MSG_WAITALL));
    SAY_CALL("read", read(fd, b, 3));
    SAY("%.3s", b);
    SAY_CALL("peek", recv(fd, b, 4, MSG_PEEK | MSG_DONTWAIT));
    SAY("%.4s", b);
    SAY_CALL("drop two", recv(fd, NULL, 2, MSG_TRUNC));
    SAY_CALL("read", recv(fd, b, 64, MSG_DONTWAIT));
    SAY("%.5s", b);
    SAY_CALL("read nothing", recv(fd, b, 0, MSG_DONTWAIT));
    SAY_CALL("peek nothing there", recv(fd, b, 1, MSG_PEEK | MSG_DONTWAIT));
    meet(fd);
    /* In pieces, with pauses. */
    memset(b, 0, sizeof b);
    SAY_CALL("wait for all", recv(fd, b, 12, MSG_WAITALL));
    SAY("%.12s", b);
    SAY_CALL("wait for all or nothing", recv(fd, b, 12, MSG_WAITALL | MSG_DONTWAIT));
    struct iovec v[3] = {{b, 2}, {b + 10, 3}, {b + 20, 4}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 3};
    meet(fd);
    SAY_CALL("recvmsg for all", recvmsg(fd, &m, MSG_WAITALL));
    SAY("%.2s %.3s %.4s", b, b + 10, b + 20);
    meet(fd);
    SAY_CALL("all until the end", recv(fd, b, 12, MSG_WAITALL));
    SAY("%.3s", b);
    SAY_CALL("after the end", recv(fd, b, 12, MSG_WAITALL));
    SAY_CALL("peek after the end", recv(fd, b, 12, MSG_PEEK));
}

static void server(int fd)
{
    put(fd, "m0123456789", 11);
    char c;
    get(fd, &c, 1);
    meet(fd);
    for (int i = 0; i < 4; i++) {
        put(fd, "abc", 3);
        pause_ms(60);
    }
    meet(fd);
    put(fd, "xx", 2);
    pause_ms(100);
    put(fd, "yyyzzzz", 7);
    meet(fd);
    put(fd, "end", 3);
    pause_ms(100);
    SAY_CALL("shutdown", shutdown(fd, SHUT_WR));
    SAY_CALL("read", read(fd, &c, 1));
}

/* Sending on what is closed: SIGPIPE and EPIPE, or EPIPE alone. */
#include "ends.h"

static volatile sig_atomic_t signals;

static void handler(int number)
{
    (void)number;
    signals++;
}

static void client(int fd)
{
    on_signal(SIGPIPE, handler, 0);
    SAY_CALL("shutdown", shutdown(fd, SHUT_WR));
    SAY_CALL("write", write(fd, "x", 1));
    SAY("signals: %d", signals);
    SAY_CALL("send", send(fd, "x", 1, 0));
    SAY("signals: %d", signals);
    SAY_CALL("send MSG_NOSIGNAL", send(fd, "x", 1, MSG_NOSIGNAL));
    struct iovec v = {"y", 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    SAY_CALL("sendmsg MSG_NOSIGNAL", sendmsg(fd, &m, MSG_NOSIGNAL));
    SAY("signals: %d", signals);
    SAY_CALL("writev", writev(fd, &v, 1));
    SAY("signals: %d", signals);
    on_signal(SIGPIPE, SIG_IGN, 0);
    SAY_CALL("write with SIGPIPE ignored", write(fd, "x", 1));
    char c;
    SAY_CALL("read", read(fd, &c, 1));
    SAY("read: %c", c);
}

static void server(int fd)
{
    char c;
    SAY_CALL("read", read(fd, &c, 1));
    put(fd, "s", 1);
    pause_ms(300);
    /* The other end is gone: the first bytes may still be taken, then it breaks. */
    on_signal(SIGPIPE, handler, 0);
    ssize_t n = 0;
    long until = now_ms() + 20000;
    while (n >= 0 && now_ms() < until) {
        n = write(fd, "x", 1);
        pause_ms(20);
    }
    SAY("write: %s", n < 0 ? strerrorname_np(errno) : "never failed");
    SAY("signals: %d", signals);
    SAY_CALL("send MSG_NOSIGNAL", send(fd, "x", 1, MSG_NOSIGNAL));
    SAY("signals: %d", signals);
    SAY_CALL("read", read(fd, &c, 1));
}

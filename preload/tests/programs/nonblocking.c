/* FIONBIO, O_NONBLOCK and MSG_DONTWAIT: each makes calls not wait, and going back works. */
#include "ends.h"

static void client(int fd)
{
    char c;
    int on = 1, off = 0, count = -1;
    SAY_CALL("FIONBIO on", ioctl(fd, FIONBIO, &on));
    SAY("O_NONBLOCK is seen: %d", !!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    SAY_CALL("read", read(fd, &c, 1));
    SAY_CALL("recv", recv(fd, &c, 1, 0));
    SAY_CALL("FIONBIO off", ioctl(fd, FIONBIO, &off));
    SAY_CALL("recv MSG_DONTWAIT", recv(fd, &c, 1, MSG_DONTWAIT));
    struct iovec v = {&c, 1};
    SAY_CALL("preadv2 RWF_NOWAIT", preadv2(fd, &v, 1, -1, RWF_NOWAIT));
    meet(fd);
    get(fd, &c, 1);
    SAY("blocking again: %c", c);
    SAY_CALL("O_NONBLOCK", fcntl(fd, F_SETFL, O_NONBLOCK));
    SAY_CALL("read", read(fd, &c, 1));
    /* Until nothing more fits in. */
    static char much[1 << 16];
    long sent = 0;
    for (int quiet = 0; quiet < 20;) {
        ssize_t n = write(fd, much, sizeof much);
        if (n > 0) {
            sent += n;
            quiet = 0;
            continue;
        }
        NEED(n < 0 && errno == EAGAIN);
        quiet++;
        pause_ms(20);
    }
    SAY("it became full: %d", sent > 0);
    SAY_CALL("write when full", write(fd, much, sizeof much));
    SAY_CALL("send MSG_DONTWAIT when full", send(fd, much, 1, MSG_DONTWAIT));
    SAY_CALL("blocking", fcntl(fd, F_SETFL, 0));
    /* The count comes first on another way: the stream is full. The other end reads until the end. */
    SAY_CALL("shutdown", shutdown(fd, SHUT_WR));
    uint64_t got;
    get(fd, &got, sizeof got);
    SAY("all arrived: %d", (long)got == sent);
    SAY_CALL("read at the end", read(fd, &c, 1));
    SAY_CALL("FIONREAD", ioctl(fd, FIONREAD, &count));
    SAY("FIONREAD says %d", count);
}

static void server(int fd)
{
    char c;
    meet(fd);
    pause_ms(100);
    put(fd, "x", 1);
    pause_ms(1000);
    static char much[1 << 16];
    uint64_t got = 0;
    ssize_t n;
    while ((n = read(fd, much, sizeof much)) > 0)
        got += (uint64_t)n;
    NEED(n == 0);
    put(fd, &got, sizeof got);
    SAY_CALL("close", close(fd));
    SAY_CALL("close again", close(fd));
    SAY_CALL("read", read(fd, &c, 1));
}

/* SO_RCVTIMEO and SO_SNDTIMEO. */
#include "ends.h"

static void client(int fd)
{
    char b[8];
    struct timeval t = {0, 200000}, none = {0, 0}, seen;
    socklen_t len = sizeof seen;
    SAY_CALL("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    SAY_CALL("getsockopt", getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &seen, &len));
    SAY("%ld %ld", (long)seen.tv_sec, (long)seen.tv_usec / 10000);
    long before = now_ms();
    SAY_CALL("read", read(fd, b, 1));
    SAY("it waited: %d", now_ms() - before >= 190);
    before = now_ms();
    SAY_CALL("recv MSG_WAITALL", recv(fd, b, 4, MSG_WAITALL));
    SAY("it waited: %d", now_ms() - before >= 190);
    SAY_CALL("MSG_DONTWAIT", recv(fd, b, 4, MSG_DONTWAIT));
    meet(fd);
    pause_ms(200);
    SAY_CALL("MSG_WAITALL with some there", recv(fd, b, 8, MSG_WAITALL));
    SAY("%.2s", b);
    SAY_CALL("no SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof none));

    static char much[1 << 20];
    SAY_CALL("SO_SNDTIMEO", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t));
    int64_t sent = 0;
    ssize_t n;
    while ((n = write(fd, much, sizeof much)) > 0)
        sent += n;
    SAY("in the end: %s", strerrorname_np(errno));
    before = now_ms();
    SAY_CALL("write", write(fd, much, 1 << 20));
    SAY("it waited: %d", now_ms() - before >= 190);
    SAY_CALL("shutdown", shutdown(fd, SHUT_WR));
    int64_t got;
    get(fd, &got, sizeof got);
    SAY("all arrived: %d", got == sent);
}

static void server(int fd)
{
    meet(fd);
    put(fd, "ab", 2);
    static char much[1 << 16];
    int64_t got = 0;
    ssize_t n;
    pause_ms(2500);
    while ((n = read(fd, much, sizeof much)) > 0)
        got += n;
    NEED(n == 0);
    put(fd, &got, sizeof got);
}

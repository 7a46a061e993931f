/* One urgent byte: out of the stream, in it, at the mark. */
#include "ends.h"

static volatile sig_atomic_t signals;

static void handler(int number)
{
    (void)number;
    signals++;
}

static void client(int fd)
{
    char b[16] = {0};
    int at = -1;
    meet(fd);
    pause_ms(300);
    SAY_CALL("sockatmark", sockatmark(fd));
    SAY_CALL("read up to the mark", read(fd, b, sizeof b));
    SAY("%.3s", b);
    SAY_CALL("sockatmark", sockatmark(fd));
    SAY_CALL("SIOCATMARK", ioctl(fd, SIOCATMARK, &at));
    SAY("it says %d", at);
    SAY_CALL("recv MSG_OOB", recv(fd, b, 1, MSG_OOB));
    SAY("%c", b[0]);
    SAY_CALL("recv MSG_OOB again", recv(fd, b, 1, MSG_OOB));
    SAY_CALL("read beyond", read(fd, b, sizeof b));
    SAY("%.3s", b);
    SAY_CALL("sockatmark", sockatmark(fd));
    int on = 1;
    SAY_CALL("SO_OOBINLINE", setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on));
    meet(fd);
    pause_ms(300);
    SAY_CALL("read up to the mark", read(fd, b, sizeof b));
    SAY_CALL("recv MSG_OOB when inline", recv(fd, b, 1, MSG_OOB));
    SAY_CALL("sockatmark", sockatmark(fd));
    SAY_CALL("read beyond, inline", read(fd, b, sizeof b));
    SAY("%.3s", b);
    meet(fd);
    pause_ms(300);
    /* Neither goes beyond the mark: it is where the first buffer ends, or comes before all of it. */
    struct iovec two[2] = {{b, 3}, {b + 3, 3}};
    SAY_CALL("readv up to the mark", readv(fd, two, 2));
    SAY_CALL("sockatmark", sockatmark(fd));
    SAY_CALL("readv beyond", readv(fd, two, 2));
    SAY("%.3s", b);
    meet(fd);
    pause_ms(300);
    SAY_CALL("recv MSG_WAITALL up to the mark", recv(fd, b, sizeof b, MSG_WAITALL));
    SAY_CALL("sockatmark", sockatmark(fd));
    SAY_CALL("recv MSG_WAITALL beyond", recv(fd, b, 3, MSG_WAITALL));
    SAY("%.3s", b);
    SAY_CALL("sockatmark", sockatmark(fd));
    meet(fd);
}

static void server(int fd)
{
    (void)handler;
    char c;
    get(fd, &c, 1);
    put(fd, "m", 1);
    for (int i = 0; i < 4; i++) {
        put(fd, "abc", 3);
        SAY_CALL("send MSG_OOB", send(fd, "!", 1, MSG_OOB));
        put(fd, i ? "gh" : "def", i ? 2 : 3);
        meet(fd);
    }
}

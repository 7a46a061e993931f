/* Close with bytes that were not read: the other end gets a reset. */
#include "ends.h"

static void client(int fd)
{
    meet(fd);
    pause_ms(300);
    SAY_CALL("close", close(fd));
}

static void server(int fd)
{
    char b[8];
    on_signal(SIGPIPE, SIG_IGN, 0);
    meet(fd);
    put(fd, "unread", 6);
    SAY_CALL("read", read(fd, b, 1));
}

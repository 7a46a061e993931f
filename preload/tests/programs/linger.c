/* SO_LINGER with 0: the other end gets a reset. */
#include "ends.h"

static void client(int fd)
{
    struct linger l = {1, 0};
    SAY_CALL("SO_LINGER", setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l));
    put(fd, "data", 4);
    meet(fd);
    SAY_CALL("close", close(fd));
}

static void server(int fd)
{
    char b[8];
    get(fd, b, 4);
    meet(fd);
    SAY_CALL("read", read(fd, b, 1));
    on_signal(SIGPIPE, SIG_IGN, 0);
    SAY_CALL("read again", read(fd, b, 1));
    SAY_CALL("write", write(fd, b, 1));
}

/* daemon() with a connection that is in use: the process that goes on goes on with it. */
#include "ends.h"

static void client(int fd)
{
    char b[16];
    put(fd, "before", 6);
    get(fd, b, 6);
    SAY("%.6s", b);
    put(fd, "more", 4);
    get(fd, b, 5);
    SAY("%.5s", b);
    SAY_CALL("read", read(fd, b, 1));
}

static void server(int fd)
{
    char b[16], folder[64];
    pid_t before = getpid();
    get(fd, b, 6);
    put(fd, "BEFORE", 6);
    SAY_CALL("chdir", chdir("/usr"));
    SAY_CALL("daemon", daemon(1, 1));
    SAY("another process: %d", getpid() != before);
    SAY("the same folder: %s", getcwd(folder, sizeof folder));
    get(fd, b, 4);
    put(fd, "AFTER", 5);
    SAY("leading its session: %d", getsid(0) == getpid());
    /* Again, now in full: standard output goes away with it. */
    SAY_CALL("daemon", 0);
    fflush(stdout);
    int out = dup(1);
    NEED(daemon(0, 0) == 0);
    dprintf(out, "descriptors: %d %d %d\n", isatty(0), isatty(1), isatty(2));
    dprintf(out, "folder: %s\n", getcwd(folder, sizeof folder));
    close(fd);
    _exit(0);
}

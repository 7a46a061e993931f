/* A number that is given out again: by close(), by a close that nobody saw, after close_range(). */
#include "ends.h"

static void client(int fd)
{
    char b[8] = {0};
    /* A file takes the number. */
    int two = dup(fd);
    SAY_CALL("close by number", syscall(SYS_close, two));
    int file = open("/proc/self/comm", O_RDONLY);
    SAY("the same number: %d", file == two);
    SAY_CALL("read of the file", read(file, b, 3) == 3 ? 0 : -1);
    SAY("not of the connection: %d", memcmp(b, "abc", 3) != 0);
    SAY_CALL("close", close(file));
    get(fd, b, 3);
    SAY("%.3s", b);
    /* Everything but 0, 1, 2. */
    meet(fd);
    int other = fcntl(fd, F_DUPFD, 300);
    NEED(other >= 0);
    SAY_CALL("close_range", close_range(3, ~0u, 0));
    SAY_CALL("write", write(fd, "x", 1));
    SAY_CALL("write to the other", write(other, "x", 1));
    int next = open("/dev/null", O_WRONLY);
    SAY("the lowest number is free: %d", next == 3);
    SAY_CALL("a file now", write(next, "x", 1));
    closefrom(3);
    SAY_CALL("closed", write(next, "x", 1));
    /* The library is well: a connection to oneself. */
    struct sockaddr_in at = here();
    socklen_t len = sizeof at;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    NEED(bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 5) == 0);
    NEED(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    for (int i = 0; i < 200; i++) {
        int a = socket(AF_INET, SOCK_STREAM, 0);
        NEED(connect(a, (struct sockaddr *)&at, sizeof at) == 0);
        int c = accept4(listener, NULL, NULL, i % 2 ? SOCK_CLOEXEC : 0);
        NEED(c >= 0);
        /* Low numbers again and again; for a moment one of them may be taken by a library's thread. */
        NEED(a >= 4 && a < 9 && c >= 4 && c < 9);
        put(a, &i, sizeof i);
        int j;
        get(c, &j, sizeof j);
        NEED(i == j);
        NEED(close(i % 3 ? a : c) == 0);
        NEED(read(i % 3 ? c : a, &j, 1) == 0);
        NEED(close(i % 3 ? c : a) == 0);
    }
    SAY("two hundred connections with the same numbers");
}

static void server(int fd)
{
    char c;
    put(fd, "abc", 3);
    get(fd, &c, 1);
    put(fd, &c, 1);
    SAY_CALL("closed by close_range: read", read(fd, &c, 1));
}

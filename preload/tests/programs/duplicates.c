/* dup, dup2, dup3, fcntl(F_DUPFD): one connection under several numbers. */
#include "ends.h"

static void client(int fd)
{
    char b[8];
    int two = dup(fd);
    SAY("dup is the lowest: %d", two == fd + 1);
    put(fd, "1", 1);
    put(two, "2", 1);
    SAY_CALL("close the first", close(fd));
    SAY_CALL("write to the first", write(fd, "x", 1));
    put(two, "3", 1);
    int back = fcntl(two, F_DUPFD, fd);
    SAY("F_DUPFD takes the free number: %d", back == fd);
    put(back, "4", 1);
    int high = fcntl(two, F_DUPFD_CLOEXEC, 200);
    SAY("F_DUPFD_CLOEXEC: %d", high);
    SAY("FD_CLOEXEC: %d", fcntl(high, F_GETFD));
    put(high, "5", 1);
    /* Over a file, and a file over it. */
    int file = open("/dev/null", O_RDWR);
    SAY_CALL("dup2 over a file", dup2(two, file) == file ? 0 : -1);
    put(file, "6", 1);
    int null = open("/dev/null", O_RDWR);
    SAY_CALL("dup2 of a file over it", dup2(null, back) == back ? 0 : -1);
    SAY_CALL("write to the file", write(back, "x", 1));
    SAY_CALL("read of the file", read(back, b, 1));
    SAY_CALL("dup3", dup3(file, back, O_CLOEXEC) == back ? 0 : -1);
    SAY("FD_CLOEXEC: %d", fcntl(back, F_GETFD));
    put(back, "7", 1);
    SAY_CALL("dup2 onto itself", dup2(back, back) == back ? 0 : -1);
    SAY_CALL("dup3 onto itself", dup3(back, back, 0));
    SAY_CALL("dup2 of nothing", dup2(999, back));
    int on = 1;
    NEED(ioctl(back, FIONBIO, &on) == 0);
    SAY_CALL("the others do not wait either", read(file, b, 1));
    on = 0;
    NEED(ioctl(file, FIONBIO, &on) == 0);
    /* Now the other end answers. */
    put(back, "8", 1);
    get(two, b, 3);
    SAY("%.3s", b);
    close(two), close(high), close(file);
    put(back, "9", 1);
    SAY_CALL("dup2 over the last", dup2(null, back) == back ? 0 : -1);
    pause_ms(100);
}

static void server(int fd)
{
    char b[16] = {0};
    get(fd, b, 8);
    put(fd, "abc", 3);
    get(fd, b + 8, 1);
    SAY("%s", b);
    SAY_CALL("the last number is gone: read", read(fd, b, 1));
}

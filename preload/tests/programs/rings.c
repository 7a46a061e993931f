/* A program that would use io_uring if it could, and otherwise what there is. */
#include "ends.h"

static void both(int fd)
{
    char parameters[120] = {0};
    long ring = syscall(SYS_io_uring_setup, 8, parameters);
    /* Some kernels have none, and with the library there is none: both are fine. */
    SAY("a ring or none: %d", ring >= 0 || errno == ENOSYS || errno == EPERM);
    meet(fd);
    SAY("met");
}

static void server(int fd)
{
    both(fd);
}

static void client(int fd)
{
    both(fd);
}

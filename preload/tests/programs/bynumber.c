/* System calls by number on connections, and on what is none. */
#include "ends.h"

static void client(int fd)
{
    char b[64] = {0};
    SAY_CALL("SYS_write", syscall(SYS_write, fd, "write ", 6));
    SAY_CALL("SYS_sendto", syscall(SYS_sendto, fd, "sendto ", 7, 0, NULL, 0));
    struct iovec v[2] = {{"writev ", 7}, {"two ", 4}};
    SAY_CALL("SYS_writev", syscall(SYS_writev, fd, v, 2));
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 1};
    SAY_CALL("SYS_sendmsg", syscall(SYS_sendmsg, fd, &m, 0));
    struct pollfd q = {fd, POLLOUT, 0};
    struct timespec second = {1, 0};
    SAY_CALL("SYS_ppoll", syscall(SYS_ppoll, &q, 1, &second, NULL, 8));
    SAY("writable: %d", q.revents == POLLOUT);
    SAY_CALL("SYS_getpid", syscall(SYS_getpid) == getpid() ? 0 : -1);
    SAY_CALL("SYS_write to nothing", syscall(SYS_write, 999, "x", 1));
    SAY_CALL("SYS_shutdown", syscall(SYS_shutdown, fd, SHUT_WR));
    get(fd, b, 3);
    SAY("%.3s", b);
    SAY_CALL("SYS_read", syscall(SYS_read, fd, b, 1));
    SAY_CALL("SYS_close", syscall(SYS_close, fd));
    SAY_CALL("read", read(fd, b, 1));
    int next = open("/dev/null", O_RDONLY);
    SAY("the number is free: %d", next == fd);
    SAY_CALL("read of the file", read(next, b, 1));
}

static void server(int fd)
{
    char b[64] = {0};
    pause_ms(200);
    struct pollfd q = {fd, POLLIN, 0};
    SAY_CALL("SYS_ppoll", syscall(SYS_ppoll, &q, 1, NULL, NULL, 8));
    SAY("readable: %d", q.revents == POLLIN);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    struct { const void *mask; size_t size; } last = {NULL, 8};
    SAY_CALL("SYS_pselect6", syscall(SYS_pselect6, fd + 1, &set, NULL, NULL, NULL, &last));
    SAY("readable: %d", FD_ISSET(fd, &set) != 0);
    SAY_CALL("SYS_recvfrom MSG_PEEK", syscall(SYS_recvfrom, fd, b, 6, MSG_PEEK, NULL, NULL));
    SAY_CALL("SYS_read", syscall(SYS_read, fd, b, 6));
    SAY("%s", b);
    memset(b, 0, sizeof b);
    struct iovec v[2] = {{b, 4}, {b + 4, 3}};
    SAY_CALL("SYS_readv", syscall(SYS_readv, fd, v, 2));
    SAY("%s", b);
    memset(b, 0, sizeof b);
    v[0].iov_len = 11;
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 1};
    SAY_CALL("SYS_recvmsg", syscall(SYS_recvmsg, fd, &m, MSG_WAITALL));
    SAY("%s", b);
    memset(b, 0, sizeof b);
    get(fd, b, 7);
    SAY("%s", b);
    SAY_CALL("SYS_read at the end", syscall(SYS_read, fd, b, 1));
    int two = (int)syscall(SYS_dup, fd);
    SAY_CALL("SYS_dup", two >= 0 ? 0 : -1);
    SAY_CALL("SYS_close", syscall(SYS_close, fd));
    SAY_CALL("SYS_write", syscall(SYS_write, two, "end", 3));
    pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    NEED(pid >= 0);
    if (pid == 0)
        syscall(SYS_exit_group, 6);
    int status;
    NEED(waitpid(pid, &status, 0) == pid);
    SAY("SYS_clone and SYS_exit_group: %d", WEXITSTATUS(status));
    SAY_CALL("SYS_close", syscall(SYS_close, two));
}

/* proof: mixed. The pattern of inetd: the connection on 0 and 1 of another program, which finds
 * everything that the other end sent before, during and after. */
#include "ends.h"

static void client(int fd)
{
    char b[256] = {0};
    put(fd, "for me|", 7);
    put(fd, "one\ntwo\n", 8);
    pause_ms(300);
    put(fd, "three\n", 6);
    NEED(shutdown(fd, SHUT_WR) == 0);
    size_t got = 0;
    ssize_t n;
    while ((n = read(fd, b + got, sizeof b - 1 - got)) > 0)
        got += (size_t)n;
    SAY("the end: %zd", n);
    SAY("%s", b);
}

static void server(int fd)
{
    char b[16] = {0};
    get(fd, b, 7);
    SAY("%s", b);
    pause_ms(100);
    fflush(stdout);
    pid_t pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        NEED(dup2(fd, 0) == 0 && dup2(fd, 1) == 1);
        close(fd);
        execlp("sh", "sh", "-c", "echo started; tr a-z A-Z", (char *)NULL);
        _exit(99);
    }
    close(fd);
    int status;
    NEED(waitpid(pid, &status, 0) == pid);
    SAY("code %d", WEXITSTATUS(status));
}

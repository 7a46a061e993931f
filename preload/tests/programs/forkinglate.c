/* proof: mixed. A connection that has been used for a while when its process forks: the child goes
 * on, and then the parent again; the other end notices nothing. */
#include "ends.h"

static void client(int fd)
{
    unsigned char *p = malloc(1 << 20);
    for (int i = 0; i < 6; i++) {
        fill(p, 1 << 20, (uint64_t)i);
        put(fd, p, 1 << 20);
        memset(p, 0, 1 << 20);
        get(fd, p, 1 << 20);
        NEED(check(p, 1 << 20, (uint64_t)i + 100));
    }
    SAY("six answers");
}

static void one_answer(int fd, int i)
{
    unsigned char *p = malloc(1 << 20);
    get(fd, p, 1 << 20);
    NEED(check(p, 1 << 20, (uint64_t)i));
    fill(p, 1 << 20, (uint64_t)i + 100);
    put(fd, p, 1 << 20);
    free(p);
}

static void server(int fd)
{
    one_answer(fd, 0);
    for (int i = 1; i < 5; i += 2) {
        pid_t pid = fork();
        NEED(pid >= 0);
        if (pid == 0) {
            one_answer(fd, i);
            SAY("the child has answered");
            exit(5);
        }
        int status;
        NEED(waitpid(pid, &status, 0) == pid);
        SAY("the child's code: %d", WEXITSTATUS(status));
        one_answer(fd, i + 1);
    }
    one_answer(fd, 5);
    SAY("so has the parent");
}

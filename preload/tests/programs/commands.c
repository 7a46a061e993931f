/* Other programs are started while connections are in use, and have nothing to do with them: vfork
 * and exec, system, popen, posix_spawn. For vfork, which is a fork, connections go back to the kernel. */
#include "ends.h"
#include <spawn.h>

extern char **environ;

static void start_one(int how)
{
    int status = -1;
    pid_t pid;
    char text[64] = {0};
    char *arguments[] = {"sh", "-c", "exit 3", NULL};
    FILE *from;
    switch (how) {
    case 0:
        pid = vfork();
        NEED(pid >= 0);
        if (pid == 0) {
            execv("/bin/sh", arguments);
            _exit(99);
        }
        NEED(waitpid(pid, &status, 0) == pid);
        SAY("vfork: %d", WEXITSTATUS(status));
        break;
    case 1:
        status = system("exit 4");
        SAY("system: %d", WEXITSTATUS(status));
        break;
    case 2:
        from = popen("echo from a pipe; exit 5", "r");
        NEED(from && fgets(text, sizeof text, from));
        text[strcspn(text, "\n")] = 0;
        status = pclose(from);
        SAY("popen: %s, %d", text, WEXITSTATUS(status));
        break;
    case 3:
        NEED(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ) == 0);
        NEED(waitpid(pid, &status, 0) == pid);
        SAY("posix_spawn: %d", WEXITSTATUS(status));
        break;
    }
}

static void both(int fd)
{
    unsigned char *p = malloc(2 << 20);
    SAY("system without a command: %d", system(NULL) != 0);
    for (int i = 0; i < 8; i++) {
        fill(p, 2 << 20, (uint64_t)i);
        put(fd, p, 1 << 16);
        start_one(i % 4);
        get(fd, p, 1 << 16);
        NEED(check(p, 1 << 16, (uint64_t)i));
    }
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

/* proof: mixed. exec in the process that has the connection, on 0, 1 and as another number: each
 * member of the family of functions; the arguments and the environment arrive. */
#include "ends.h"

static void client(int fd)
{
    char b[512] = {0};
    for (int i = 0; i < 9; i++) {
        size_t got = 0;
        char c;
        put(fd, &"012345678"[i], 1);
        do {
            get(fd, &c, 1);
            b[got++] = c;
        } while (c != '\n');
        SAY("%.*s", (int)got - 1, b);
    }
    SAY_CALL("read", read(fd, b, 1));
}

static void become(int fd, int how)
{
    char number[16];
    char *line = "c=$(dd bs=1 count=1 2>/dev/null); echo \"$0 $1 $2 $V got $c\"";
    char *arguments[] = {"sh", "-c", line, "zero", "first arg", "second", NULL};
    char *environment[] = {"V=set", "PATH=/usr/bin:/bin", NULL};
    NEED(dup2(fd, 0) == 0);
    NEED(dup2(fd, 1) == 1);
    setenv("V", "inherited", 1);
    snprintf(number, sizeof number, "%d", how);
    switch (how) {
    case 0: execve("/bin/sh", arguments, environment); break;
    case 1: execv("/bin/sh", arguments); break;
    case 2: execvp("sh", arguments); break;
    case 3: execvpe("sh", arguments, environment); break;
    case 4: execl("/bin/sh", "sh", "-c", line, "zero", "a", "b", (char *)NULL); break;
    case 5: execlp("sh", "sh", "-c", line, "zero", "c", "d", (char *)NULL); break;
    case 6:
        execle("/bin/sh", "sh", "-c", line, "zero", "e", "f", (char *)NULL, environment);
        break;
    case 7: fexecve(open("/bin/sh", O_RDONLY | O_CLOEXEC), arguments, environment); break;
    case 8: execveat(AT_FDCWD, "/bin/sh", arguments, environment, 0); break;
    }
    _exit(99);
}

static void server(int fd)
{
    int copy = fcntl(fd, F_DUPFD, 20);
    for (int how = 0; how < 9; how++) {
        int status;
        fflush(stdout);
        pid_t pid = fork();
        NEED(pid >= 0);
        if (pid == 0)
            become(fd, how);
        NEED(waitpid(pid, &status, 0) == pid);
        SAY("code %d", WEXITSTATUS(status));
    }
    /* What fails leaves everything as it was. */
    char *none[] = {"none", NULL};
    SAY_CALL("execv", execv("/no/such/program", none));
    SAY_CALL("execvp", execvp("no-such-program", none));
    close(copy);
}

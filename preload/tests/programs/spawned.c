/* proof: mixed. posix_spawn: a program gets the connection by its file actions; afterwards this one
 * goes on. */
#include "ends.h"
#include <spawn.h>

extern char **environ;

static void client(int fd)
{
    char b[64] = {0};
    put(fd, "0123456789", 10);
    get(fd, b, 10);
    SAY("%s", b);
    put(fd, "again", 5);
    get(fd, b, 5);
    SAY("%.5s", b);
    put(fd, "abcde", 5);
    get(fd, b, 5);
    SAY("%.5s", b);
    put(fd, "last", 4);
    get(fd, b, 4);
    SAY("%.4s", b);
}

static void echo_by_program(int fd, int by_name, char *count)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;
    int status;
    char *arguments[] = {"dd", "bs=1", count, "status=none", NULL};
    NEED(posix_spawn_file_actions_init(&actions) == 0);
    NEED(posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) == 0);
    NEED(posix_spawn_file_actions_adddup2(&actions, fd, 0) == 0);
    NEED(posix_spawn_file_actions_adddup2(&actions, fd, 1) == 0);
    NEED(posix_spawn_file_actions_addclose(&actions, fd) == 0);
    int code = by_name ? posix_spawnp(&pid, "dd", &actions, NULL, arguments, environ)
                       : posix_spawn(&pid, "/bin/dd", &actions, NULL, arguments, environ);
    SAY("spawned: %d", code);
    NEED(waitpid(pid, &status, 0) == pid);
    SAY("code %d", WEXITSTATUS(status));
    NEED(posix_spawn_file_actions_destroy(&actions) == 0);
}

static void server(int fd)
{
    char b[16];
    pid_t pid;
    char *arguments[] = {"true", NULL};
    int status;
    /* A program that has nothing to do with it. */
    NEED(posix_spawnp(&pid, "true", NULL, NULL, arguments, environ) == 0);
    NEED(waitpid(pid, &status, 0) == pid);
    echo_by_program(fd, 0, "count=10");
    get(fd, b, 5);
    put(fd, "AGAIN", 5);
    echo_by_program(fd, 1, "count=5");
    get(fd, b, 4);
    put(fd, "LAST", 4);
    SAY("posix_spawn of nothing: %d",
        posix_spawn(&pid, "/no/such/program", NULL, NULL, arguments, environ) == ENOENT);
}

/* Two processes with a listener each on one port (SO_REUSEPORT): each serves those that come to it. */
#include "servers.h"

static int one_of_two(struct sockaddr_in *at)
{
    socklen_t len = sizeof *at;
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(fd >= 0);
    NEED(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
    NEED(bind(fd, (struct sockaddr *)at, sizeof *at) == 0);
    NEED(listen(fd, 64) == 0);
    NEED(getsockname(fd, (struct sockaddr *)at, &len) == 0);
    return fd;
}

static volatile sig_atomic_t over;

static void end(int number)
{
    (void)number;
    over = 1;
}

int main(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int ready[2];
    pid_t servers[2];
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    NEED(pipe(ready) == 0);
    int holds = one_of_two(&at);
    for (int i = 0; i < 2; i++) {
        NEED((servers[i] = fork()) >= 0);
        if (servers[i] > 0)
            continue;
        /* Its own, not the one that keeps the port. */
        int listener = one_of_two(&at), served = 0;
        close(holds);
        on_signal(SIGTERM, end, 0);
        NEED(write(ready[1], "r", 1) == 1);
        while (!over) {
            struct pollfd p = {listener, POLLIN, 0};
            if (poll(&p, 1, 100) != 1)
                continue;
            int fd = accept(listener, NULL, NULL);
            NEED(fd >= 0);
            answer(fd);
            NEED(close(fd) == 0);
            served++;
        }
        exit(served > 0 ? 42 : 43);
    }
    char c;
    get(ready[0], &c, 1);
    get(ready[0], &c, 1);
    NEED(close(holds) == 0);
    /* So many that each of the two gets some, as good as certainly; each lives for a moment. */
    const char *warm = getenv("WARM");
    if (warm && atoi(warm) > 0)
        NEED(setenv("WARM", "120", 1) == 0);
    clients(&at, 3, 8);
    for (int i = 0; i < 3; i++) {
        int status;
        NEED(wait(&status) > 0);
        SAY("a client's code: %d", WEXITSTATUS(status));
    }
    for (int i = 0; i < 2; i++)
        NEED(kill(servers[i], SIGTERM) == 0);
    reap(2);
    return 0;
}

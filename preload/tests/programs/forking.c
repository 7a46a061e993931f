/* A server that forks for each connection: the child talks, the parent closes and goes on. */
#include "servers.h"

int main(void)
{
    struct sockaddr_in at;
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    int listener = listening(&at);
    clients(&at, 3, 2);
    for (int i = 0; i < 6; i++) {
        int fd = accept(listener, NULL, NULL);
        NEED(fd >= 0);
        pid_t pid = fork();
        NEED(pid >= 0);
        if (pid == 0) {
            close(listener);
            answer(fd);
            NEED(close(fd) == 0);
            _exit(41);
        }
        NEED(close(fd) == 0);
    }
    reap(9);
    return 0;
}

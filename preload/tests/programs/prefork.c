/* A server of several processes that accept from one listener. */
#include "servers.h"

int main(void)
{
    struct sockaddr_in at;
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    int listener = listening(&at);
    for (int i = 0; i < 3; i++) {
        pid_t pid = fork();
        NEED(pid >= 0);
        if (pid > 0)
            continue;
        for (int k = 0; k < 2; k++) {
            int fd = accept(listener, NULL, NULL);
            NEED(fd >= 0);
            answer(fd);
            NEED(close(fd) == 0);
        }
        exit(42);
    }
    close(listener);
    clients(&at, 3, 2);
    reap(6);
    return 0;
}

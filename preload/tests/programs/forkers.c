/* Threads that fork beside threads that make connections: nobody waits for ever, neither
 * here nor in a child, which ends all its connections. */
#include "ends.h"

enum { FORKS = 12 };

static struct sockaddr_in place;
static int listener;
static volatile int over;

static void *connects(void *unused)
{
    int kept[8][2];
    (void)unused;
    memset(kept, -1, sizeof kept);
    for (unsigned i = 0; !over; i++) {
        int *pair = kept[i % 8];
        if (pair[0] >= 0) {
            close(pair[0]);
            close(pair[1]);
        }
        NEED((pair[0] = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
        NEED(connect(pair[0], (struct sockaddr *)&place, sizeof place) == 0);
        NEED((pair[1] = accept(listener, NULL, NULL)) >= 0);
        NEED(write(pair[0], "x", 1) == 1);
    }
    return NULL;
}

static void *forks(void *unused)
{
    (void)unused;
    for (int i = 0; i < FORKS; i++) {
        int status;
        pid_t pid = fork();
        NEED(pid >= 0);
        if (pid == 0) {
            for (int fd = 3; fd < 100; fd++)
                close(fd);
            _exit(7);
        }
        NEED(waitpid(pid, &status, 0) == pid);
        NEED(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    }
    return NULL;
}

static void client(int fd)
{
    pthread_t connecting[2], forking[2];
    socklen_t length = sizeof place;
    place = here();
    NEED((listener = socket(AF_INET, SOCK_STREAM, 0)) >= 0);
    NEED(bind(listener, (struct sockaddr *)&place, length) == 0);
    NEED(listen(listener, 100) == 0);
    NEED(getsockname(listener, (struct sockaddr *)&place, &length) == 0);
    for (int i = 0; i < 2; i++) {
        NEED(pthread_create(&connecting[i], NULL, connects, NULL) == 0);
        NEED(pthread_create(&forking[i], NULL, forks, NULL) == 0);
    }
    for (int i = 0; i < 2; i++)
        NEED(pthread_join(forking[i], NULL) == 0);
    over = 1;
    for (int i = 0; i < 2; i++)
        NEED(pthread_join(connecting[i], NULL) == 0);
    SAY("all have ended");
    put(fd, "x", 1);
}

static void server(int fd)
{
    char c;
    get(fd, &c, 1);
    SAY("so has the client");
}

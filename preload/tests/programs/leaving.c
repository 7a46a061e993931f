/* exit() while other threads are in calls: the code arrives, nothing breaks, the other end sees the end. */
#include "ends.h"

static int connection;

static void *receiving(void *unused)
{
    char b;
    (void)unused;
    for (;;)
        if (read(connection, &b, 1) <= 0)
            pause_ms(1);
    return NULL;
}

static void *sending(void *unused)
{
    static char much[1 << 16];
    (void)unused;
    on_signal(SIGPIPE, SIG_IGN, 0);
    for (;;)
        if (write(connection, much, sizeof much) <= 0)
            pause_ms(1);
    return NULL;
}

static void client(int fd)
{
    pthread_t thread;
    connection = fd;
    for (int i = 0; i < 3; i++) {
        NEED(pthread_create(&thread, NULL, receiving, NULL) == 0);
        NEED(pthread_create(&thread, NULL, sending, NULL) == 0);
    }
    pause_ms(300);
    SAY("leaving");
    exit(0);
}

static void server(int fd)
{
    static char much[1 << 16];
    ssize_t n;
    uint64_t got = 0;
    while ((n = read(fd, much, sizeof much)) > 0)
        got += (uint64_t)n;
    SAY("the end: %zd, something came: %d", n, got > 0);
}

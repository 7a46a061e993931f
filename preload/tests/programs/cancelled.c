/* pthread_cancel() in calls that wait: handlers run, the connection works on. */
#include "ends.h"

static int connection;
static volatile int cleaned;

static void clean(void *unused)
{
    (void)unused;
    cleaned++;
}

static void *receiving(void *how)
{
    char b[8];
    pthread_cleanup_push(clean, NULL);
    if (how)
        recv(connection, b, 4, MSG_WAITALL);
    else
        (void)!read(connection, b, 1);
    pthread_cleanup_pop(0);
    return NULL;
}

static void *sending(void *unused)
{
    (void)unused;
    static char much[64 << 20];
    pthread_cleanup_push(clean, NULL);
    (void)!write(connection, much, sizeof much);
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancel_one(void *(*work)(void *), void *how)
{
    pthread_t thread;
    void *result;
    NEED(pthread_create(&thread, NULL, work, how) == 0);
    pause_ms(500);
    NEED(pthread_cancel(thread) == 0);
    NEED(pthread_join(thread, &result) == 0);
    SAY("cancelled: %d", result == PTHREAD_CANCELED);
}

static void client(int fd)
{
    char b[8];
    connection = fd;
    cancel_one(receiving, NULL);
    cancel_one(receiving, b);
    cancel_one(receiving, NULL);
    SAY("cleaned: %d", cleaned);
    meet(fd);
    get(fd, b, 3);
    SAY("%.3s", b);
    meet(fd);
    cancel_one(sending, NULL);
    SAY("cleaned: %d", cleaned);
    SAY_CALL("shutdown", shutdown(fd, SHUT_WR));
    get(fd, b, 3);
    SAY("%.3s", b);
}

static void server(int fd)
{
    meet(fd);
    put(fd, "abc", 3);
    meet(fd);
    pause_ms(1500);
    static char much[1 << 16];
    uint64_t got = 0;
    ssize_t n;
    while ((n = read(fd, much, sizeof much)) > 0)
        got += (uint64_t)n;
    SAY("the end: %zd, something came: %d", n, got > 0);
    put(fd, "def", 3);
}

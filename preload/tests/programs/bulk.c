/* proof: bulk mixed. Many bytes both ways at once in pieces of any size; then byte by byte. */
#include "ends.h"

#ifndef TOTAL
#define TOTAL (48ull << 20)
#endif
#define MOST (300 << 10)

static int connection;

static void *sending(void *unused)
{
    (void)unused;
    unsigned char *p = malloc(MOST);
    uint32_t seed = (uint32_t)getpid() | 1;
    for (uint64_t at = 0; at < TOTAL;) {
        size_t n = chance(&seed) % 4 ? chance(&seed) % 5000 + 1 : chance(&seed) % MOST + 1;
        if (n > TOTAL - at)
            n = TOTAL - at;
        fill(p, n, at);
        put(connection, p, n);
        at += n;
    }
    return NULL;
}

static void both(int fd)
{
    pthread_t sender;
    connection = fd;
    NEED(pthread_create(&sender, NULL, sending, NULL) == 0);
    unsigned char *p = malloc(MOST);
    uint32_t seed = (uint32_t)getpid() * 3 | 1;
    for (uint64_t at = 0; at < TOTAL;) {
        size_t n = chance(&seed) % MOST + 1;
        if (n > TOTAL - at)
            n = TOTAL - at;
        ssize_t got = read(fd, p, n);
        NEED(got > 0);
        NEED(check(p, (size_t)got, at));
        at += (uint64_t)got;
    }
    NEED(pthread_join(sender, NULL) == 0);
    SAY("all came and was right");
    for (int i = 0; i < 2000; i++) {
        unsigned char c = byte_at((uint64_t)i);
        put(fd, &c, 1);
        get(fd, &c, 1);
        NEED(c == byte_at((uint64_t)i));
    }
    SAY("byte by byte, too");
}

static void client(int fd)
{
    both(fd);
}

static void server(int fd)
{
    both(fd);
}

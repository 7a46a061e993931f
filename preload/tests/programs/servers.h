/* Clients for a server of several processes: each talks for a while, sends and gets much, and says
 * by its exit code whether all was right. For programs with a main() of their own.
 */
#ifndef SERVERS_H
#define SERVERS_H

#define OWN_MAIN
#include "ends.h"

#define MUCH (3u << 20)

static inline int listening(struct sockaddr_in *at)
{
    socklen_t len = sizeof *at;
    *at = here();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(fd >= 0);
    NEED(bind(fd, (struct sockaddr *)at, sizeof *at) == 0);
    NEED(listen(fd, 64) == 0);
    NEED(getsockname(fd, (struct sockaddr *)at, &len) == 0);
    return fd;
}

static inline int connected(const struct sockaddr_in *at)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(fd >= 0);
    NEED(connect(fd, (const struct sockaddr *)at, sizeof *at) == 0);
    return fd;
}

/* The client's part. Rounds as in ends.h, then much in both directions, one
 * after the other, then the end. */
static inline void talk(int fd)
{
    const char *text = getenv("WARM");
    long begun = now_ms(), until = begun + (text ? atol(text) : 0), most = begun + most_ms();
    struct settling settling = {0};
    unsigned char *p = malloc(MUCH);
    char c = 'w', echo;
    do {
        put(fd, &c, 1);
        get(fd, &echo, 1);
        NEED(echo == c);
        pause_ms(5);
    } while (now_ms() < until || (now_ms() < most && !is_settled(fd, &settling)));
    c = 'm';
    put(fd, &c, 1);
    fill(p, MUCH, 0);
    put(fd, p, MUCH);
    memset(p, 0, MUCH);
    get(fd, p, MUCH);
    NEED(check(p, MUCH, 7));
    NEED(shutdown(fd, SHUT_WR) == 0);
    NEED(read(fd, &c, 1) == 0);
    free(p);
}

/* The server's part. */
static inline void answer(int fd)
{
    unsigned char *p = malloc(MUCH);
    char c;
    for (;;) {
        get(fd, &c, 1);
        if (c == 'm')
            break;
        put(fd, &c, 1);
    }
    get(fd, p, MUCH);
    NEED(check(p, MUCH, 0));
    fill(p, MUCH, 7);
    put(fd, p, MUCH);
    NEED(read(fd, &c, 1) == 0);
    free(p);
}

/* Starts clients, each a process with connections one after the other. */
static inline void clients(const struct sockaddr_in *at, int processes, int connections)
{
    for (int i = 0; i < processes; i++) {
        pid_t pid = fork();
        NEED(pid >= 0);
        if (pid > 0)
            continue;
        for (int k = 0; k < connections; k++) {
            int fd = connected(at);
            talk(fd);
            NEED(close(fd) == 0);
        }
        exit(40);
    }
}

/* Waits for so many children, and says how many ended with each code. */
static inline void reap(int children)
{
    int codes[256] = {0}, other = 0;
    for (int i = 0; i < children; i++) {
        int status;
        NEED(wait(&status) > 0);
        if (WIFEXITED(status))
            codes[WEXITSTATUS(status)]++;
        else
            other++;
    }
    for (int i = 0; i < 256; i++)
        if (codes[i])
            SAY("code %d: %d", i, codes[i]);
    SAY("otherwise: %d", other);
}
#endif

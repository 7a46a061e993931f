/* Whether a connection is carried by something else than the kernel by now.
 *
 * A program cannot ask; but where it plays to and fro, the kernel's own counters stand still then.
 */
#ifndef SETTLED_H
#define SETTLED_H

#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

/* The part of the kernel's struct tcp_info that libc does not know. */
struct kernel_info {
    char before[128];
    uint64_t received;
    char between[64];
    uint64_t sent;
};

struct settling {
    uint64_t received, sent;
    int still;
};

/* To be asked after each round trip: whether the kernel saw nothing of the last ones, in neither
 * direction. */
static inline int is_settled(int fd, struct settling *seen)
{
    struct kernel_info now = {.sent = 0};
    socklen_t length = sizeof now;
    if (getsockopt(fd, IPPROTO_TCP, 11 /* TCP_INFO */, &now, &length) != 0 || length < sizeof now)
        abort();
    int same = now.received == seen->received && now.sent == seen->sent;
    *seen = (struct settling){now.received, now.sent, same ? seen->still + 1 : 0};
    return seen->still >= 20;
}

/* For how long to wait for that, in milliseconds, where it may take long. */
static inline long most_ms(void)
{
    const char *text = getenv("WARM_MOST");
    return text ? atol(text) : 0;
}
#endif

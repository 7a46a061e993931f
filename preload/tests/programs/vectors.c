/* readv, writev, recvmsg, sendmsg, recvmmsg, sendmmsg: several buffers, fields of the message. */
#include "ends.h"

#define TOTAL 30000

static size_t cut(struct iovec *v, int count, unsigned char *p, size_t n, uint32_t *seed)
{
    size_t done = 0;
    for (int i = 0; i < count; i++) {
        size_t k = chance(seed) % (2 * n / (size_t)count + 1);
        if (k > n - done)
            k = n - done;
        if (i % 7 == 3)
            k = 0;
        v[i] = (struct iovec){p + done, k};
        done += k;
    }
    return done;
}

static void client(int fd)
{
    unsigned char *p = malloc(TOTAL);
    uint64_t at = 0;
    uint32_t seed = 7;
    for (int round = 0; round < 60; round++) {
        struct iovec v[40];
        int count = 1 + (int)(chance(&seed) % 40);
        size_t n = cut(v, count, p, 1 + chance(&seed) % TOTAL, &seed);
        if (n == 0)
            continue;
        fill(p, n, at);
        ssize_t sent;
        if (round % 3 == 0) {
            sent = writev(fd, v, count);
        } else if (round % 3 == 1) {
            struct msghdr m = {.msg_iov = v, .msg_iovlen = (size_t)count};
            sent = sendmsg(fd, &m, 0);
        } else {
            struct mmsghdr m[2] = {0};
            int half = count / 2;
            m[0].msg_hdr = (struct msghdr){.msg_iov = v, .msg_iovlen = (size_t)half};
            m[1].msg_hdr = (struct msghdr){.msg_iov = v + half, .msg_iovlen = (size_t)(count - half)};
            NEED(sendmmsg(fd, m, 2, 0) == 2);
            sent = (ssize_t)m[0].msg_len + (ssize_t)m[1].msg_len;
        }
        NEED(sent == (ssize_t)n);
        at += n;
    }
    SAY("sent %llu", (unsigned long long)at);
    SAY_CALL("shutdown", shutdown(fd, SHUT_WR));
    char c;
    SAY_CALL("read", read(fd, &c, 1));
    static struct iovec many[1025];
    many[0] = (struct iovec){&c, 1};
    /* The compiler is not to know. */
    volatile int none = 0, much = 1025, less = -1;
    SAY_CALL("writev of nothing", writev(fd, many, none));
    SAY_CALL("readv of too many", readv(fd, many, much));
    SAY_CALL("readv of less than none", readv(fd, many, less));
    SAY_CALL("preadv2 at a place", preadv2(fd, many, 1, 5, 0));
}

static void server(int fd)
{
    unsigned char *p = malloc(TOTAL);
    uint64_t at = 0;
    uint32_t seed = 99;
    for (int round = 0;; round++) {
        struct iovec v[40];
        int count = 1 + (int)(chance(&seed) % 40);
        size_t room = cut(v, count, p, 1 + chance(&seed) % TOTAL, &seed);
        if (room == 0)
            continue;
        ssize_t got;
        if (round % 4 == 0) {
            got = readv(fd, v, count);
        } else if (round % 4 == 1) {
            got = preadv2(fd, v, count, -1, 0);
        } else if (round % 4 == 2) {
            char name[64], control[64];
            struct msghdr m = {.msg_iov = v,
                               .msg_iovlen = (size_t)count,
                               .msg_name = name,
                               .msg_namelen = sizeof name,
                               .msg_control = control,
                               .msg_controllen = sizeof control,
                               .msg_flags = -1};
            got = recvmsg(fd, &m, 0);
            NEED(m.msg_namelen == 0 && m.msg_controllen == 0);
            NEED((m.msg_flags & ~MSG_CMSG_CLOEXEC) == 0);
        } else {
            struct mmsghdr m[2] = {0};
            m[0].msg_hdr = (struct msghdr){.msg_iov = v, .msg_iovlen = (size_t)count};
            unsigned char tail[100];
            struct iovec w = {tail, sizeof tail};
            m[1].msg_hdr = (struct msghdr){.msg_iov = &w, .msg_iovlen = 1};
            int k = recvmmsg(fd, m, 2, MSG_WAITFORONE, NULL);
            NEED(k == 1 || k == 2);
            got = m[0].msg_len;
            if (k == 2) {
                NEED(check(tail, m[1].msg_len, at + m[0].msg_len));
                NEED(check(p, m[0].msg_len, at));
                at += m[0].msg_len + m[1].msg_len;
                continue;
            }
        }
        NEED(got >= 0);
        if (got == 0)
            break;
        NEED(check(p, (size_t)got, at));
        at += (uint64_t)got;
    }
    SAY("got %llu", (unsigned long long)at);
    put(fd, "k", 1);
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    char c;
    SAY_CALL("recvfrom at the end", recvfrom(fd, &c, 1, 0, (struct sockaddr *)&name, &len));
    SAY("length of the address: %u", len);
}

/* Buffers that a null pointer leads to: they are refused, what has come stays there, and the
 * connection goes on. */
#include "pair.h"
#include <sys/uio.h>

static void said(const char *what, ssize_t answer) {
    int code = errno;
    printf("%s: %zd %s\n", what, answer, answer < 0 ? strerror(code) : "");
}

int main(void) {
    char *volatile none = NULL;
    char *volatile member = (char *)16;
    char b[8] = {0};
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    struct pair p = warm_pair();
    said("write", write(p.client, none, 3));
    said("send of a member", send(p.client, member, 3, 0));
    said("send of nothing", send(p.client, none, 0, 0));
    struct iovec v[2] = {{b, 3}, {member, 3}};
    said("writev", writev(p.client, v, 2));
    said("recv of nothing that came", recv(p.server, none, 3, MSG_DONTWAIT));
    put(p.client, "abc");
    sleep_ms(50);
    said("read", read(p.server, none, 3));
    said("recv of a member", recv(p.server, member, 3, MSG_PEEK));
    struct msghdr m = {.msg_iov = &v[1], .msg_iovlen = 1};
    said("recvmsg", recvmsg(p.server, &m, 0));
    said("recv", recv(p.server, b, sizeof b, 0));
    puts(b);
    put(p.client, "xy");
    sleep_ms(50);
    said("readv of less than the first", readv(p.server, v, 2));
    put(p.client, "def");
    sleep_ms(50);
    said("recv MSG_TRUNC", recv(p.server, none, 2, MSG_TRUNC));
    said("recv of the rest", recv(p.server, b, sizeof b, 0));
    CHECK(shutdown(p.client, SHUT_WR) == 0);
    said("write after the end", write(p.client, none, 3));
    sleep_ms(50);
    said("read at the end", read(p.server, none, 3));
    end_pair(p);
    return 0;
}

/* proof: none. What is no TCP connection is not touched: files, pipes, UDP, AF_UNIX, listeners. */
#define OWN_MAIN
#include "ends.h"

int main(void)
{
    char b[64] = {0};
    int pair[2], pipes[2];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    NEED(pipe(pipes) == 0);
    SAY("numbers: %d %d %d %d", pair[0], pair[1], pipes[0], pipes[1]);
    SAY_CALL("send", send(pair[0], "abc", 3, 0));
    SAY_CALL("recv", recv(pair[1], b, 64, MSG_PEEK));
    SAY_CALL("recv MSG_WAITALL", recv(pair[1], b, 3, MSG_WAITALL));
    SAY("%s", b);
    SAY_CALL("write", write(pipes[1], "pipe", 4));
    SAY_CALL("read", read(pipes[0], b, 64));
    SAY_CALL("recv on a pipe", recv(pipes[0], b, 64, 0));
    SAY_CALL("close", close(pair[1]));
    SAY_CALL("send MSG_NOSIGNAL", send(pair[0], "abc", 3, MSG_NOSIGNAL));

    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof at;
    int one = socket(AF_INET, SOCK_DGRAM, 0), two = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    NEED(bind(one, (struct sockaddr *)&at, sizeof at) == 0);
    NEED(getsockname(one, (struct sockaddr *)&at, &len) == 0);
    SAY_CALL("sendto", sendto(two, "datagram", 8, 0, (struct sockaddr *)&at, sizeof at));
    struct sockaddr_storage from;
    len = sizeof from;
    SAY_CALL("recvfrom", recvfrom(one, b, 4, MSG_TRUNC, (struct sockaddr *)&from, &len));
    SAY("from family %d, length %u", from.ss_family, len);
    SAY_CALL("connect", connect(two, (struct sockaddr *)&at, sizeof at));
    SAY_CALL("send", send(two, "again", 5, 0));
    SAY_CALL("recv", recv(one, b, 64, 0));
    SAY_CALL("shutdown", shutdown(one, SHUT_RD));

    int listener = socket(AF_INET6, SOCK_STREAM, IPPROTO_TCP);
    SAY_CALL("listen", listen(listener, 1));
    SAY_CALL("O_NONBLOCK", fcntl(listener, F_SETFL, O_NONBLOCK));
    SAY_CALL("accept", accept(listener, NULL, NULL));
    SAY_CALL("accept4 with nonsense", accept4(listener, NULL, NULL, 0x7777));
    SAY_CALL("read", read(listener, b, 1));
    /* Nobody listens there any more. */
    struct sockaddr_in6 at6;
    len = sizeof at6;
    NEED(getsockname(listener, (struct sockaddr *)&at6, &len) == 0);
    NEED(close(listener) == 0);
    at6.sin6_addr = in6addr_loopback;
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    SAY_CALL("connect to nobody", connect(fd, (struct sockaddr *)&at6, sizeof at6));
    SAY_CALL("send unconnected", send(fd, "x", 1, MSG_NOSIGNAL));
    SAY_CALL("read unconnected", read(fd, b, 1));
    SAY_CALL("shutdown unconnected", shutdown(fd, SHUT_RDWR));
    fd = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    SAY_CALL("connect", connect(fd, (struct sockaddr *)&at6, sizeof at6) < 0 ? 0 : 1);
    SAY_CALL("no family", socket(999, SOCK_STREAM, 0));
    SAY_CALL("no descriptor", read(-1, b, 1));
    SAY_CALL("no descriptor", close(-1));
    SAY_CALL("no descriptor", send(12345, b, 1, 0));
    SAY_CALL("no descriptor", dup(12345));
    SAY_CALL("no descriptor", fcntl(12345, F_DUPFD, 0));
    struct iovec v = {b, 4};
    int file = open("/dev/zero", O_RDONLY);
    SAY_CALL("preadv2", preadv2(file, &v, 1, -1, 0));
    SAY_CALL("readv", readv(file, &v, 1));
    SAY("the next number: %d", dup(file));
    return 0;
}

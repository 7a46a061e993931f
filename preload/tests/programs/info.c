/* What the socket says of itself, and calls with several forms: fortified ones, addresses. */
#define _FORTIFY_SOURCE 2
#include "ends.h"

static void both(int fd)
{
    struct sockaddr_in me, peer;
    socklen_t len = sizeof me;
    SAY_CALL("getsockname", getsockname(fd, (struct sockaddr *)&me, &len));
    SAY_CALL("getpeername", getpeername(fd, (struct sockaddr *)&peer, &len));
    SAY("families: %d %d %u", me.sin_family, peer.sin_family, len);
    SAY("not the same port: %d", me.sin_port != peer.sin_port);
    int names[] = {SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ERROR, SO_ACCEPTCONN, SO_KEEPALIVE};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int value = -1;
        len = sizeof value;
        SAY_CALL("getsockopt", getsockopt(fd, SOL_SOCKET, names[i], &value, &len));
        SAY("%d", value);
    }
    int on = 1;
    SAY_CALL("TCP_NODELAY", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
    struct tcp_info tcp;
    len = sizeof tcp;
    SAY_CALL("TCP_INFO", getsockopt(fd, IPPROTO_TCP, TCP_INFO, &tcp, &len));
    SAY("established: %d", tcp.tcpi_state == TCP_ESTABLISHED);
    struct stat s;
    SAY_CALL("fstat", fstat(fd, &s));
    SAY("a socket: %d", S_ISSOCK(s.st_mode));
    SAY_CALL("lseek", lseek(fd, 0, SEEK_CUR));
    SAY_CALL("listen", listen(fd, 5));
    SAY_CALL("accept", accept(fd, NULL, NULL));
    SAY_CALL("connect again", connect(fd, (struct sockaddr *)&peer, sizeof peer));
}

static void client(int fd)
{
    both(fd);
    char b[40];
    volatile size_t n = 3;
    meet(fd);
    pause_ms(100);
    SAY_CALL("read, fortified", read(fd, b, n));
    SAY_CALL("recv, fortified", recv(fd, b + 3, n, 0));
    struct sockaddr_storage from;
    socklen_t len = sizeof from;
    SAY_CALL("recvfrom, fortified", recvfrom(fd, b + 6, n, 0, (struct sockaddr *)&from, &len));
    SAY("%.9s %u", b, len);
    SAY_CALL("sendto", sendto(fd, "xyz", 3, 0, NULL, 0));
    meet(fd);
}

static void server(int fd)
{
    char b[8];
    both(fd);
    meet(fd);
    put(fd, "abcdefghi", 9);
    get(fd, b, 3);
    SAY("%.3s", b);
    meet(fd);
}

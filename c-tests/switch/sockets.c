/*
 * The calls of one socket do what the kernel's do, over either path: making, naming, connecting in
 * the call and in the background, every form of sending and receiving with its flags, options, the
 * two ends of a stream, and waiting for it together with descriptors of the kernel's.
 */
#include "wsd.h"

static void numbers(void)
{
    struct pollfd fd = {0, POLLIN, 0};
    char byte;
    int s, again;

    phase("numbers that are no sockets");
    CHECK_ERRNO(wsd_close(0), EBADF);
    CHECK_ERRNO(wsd_recv(-1, &byte, 1, 0), EBADF);
    CHECK_ERRNO(wsd_send(0x7fffffff, &byte, 1, 0), EBADF);
    CHECK_ERRNO(wsd_socket(AF_UNIX, SOCK_STREAM, 0), EAFNOSUPPORT);
    CHECK_ERRNO(wsd_socket(AF_INET, SOCK_DGRAM, 0), ESOCKTNOSUPPORT);
    CHECK_ERRNO(wsd_socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);

    phase("a number that was given back");
    s = wsd_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(s > 0x3fffffff);
    CHECK_EQ(wsd_close(s), 0);
    again = wsd_socket(AF_INET, SOCK_STREAM, 0);
    CHECK(again >= 0 && again != s);
    CHECK_ERRNO(wsd_close(s), EBADF);
    CHECK_ERRNO(wsd_listen(s, 1), EBADF);
    CHECK_ERRNO(wsd_getsockname(s, NULL, NULL), EBADF);
    fd.fd = s;
    CHECK_EQ(wsd_poll(&fd, 1, -1), 1);
    CHECK_EQ(fd.revents, POLLNVAL);
    CHECK_EQ(wsd_close(again), 0);
}

static void without_connection(void)
{
    struct wsd_transport_info how;
    struct sockaddr_in6 other = {0};
    char byte;
    int s = wsd_socket(AF_INET, SOCK_STREAM, 0);

    phase("a socket without a connection");
    CHECK_ERRNO(wsd_send(s, "x", 1, 0), ENOTCONN);
    CHECK_ERRNO(wsd_recv(s, &byte, 1, 0), ENOTCONN);
    CHECK_ERRNO(wsd_shutdown(s, SHUT_WR), ENOTCONN);
    CHECK_ERRNO(wsd_accept(s, NULL, NULL), EINVAL);
    CHECK_ERRNO(wsd_fd(s, POLLIN), ENOTCONN);
    CHECK_EQ(events(s, POLLIN | POLLOUT, -1), POLLOUT | POLLHUP);
    CHECK_EQ(wsd_transport(s, &how, sizeof how), 0);
    CHECK_EQ(how.path, WSD_PATH_NONE);
    other.sin6_family = AF_INET6;
    CHECK_ERRNO(wsd_connect(s, (struct sockaddr *)&other, sizeof other), EAFNOSUPPORT);
    CHECK_ERRNO(wsd_connect(s, (struct sockaddr *)&other, 1), EINVAL);
    CHECK_ERRNO(wsd_connect(s, NULL, 16), EFAULT);
    CHECK_ERRNO(wsd_bind(s, NULL, 16), EFAULT);
    CHECK_EQ(wsd_close(s), 0);
}

static void refused(void)
{
    struct sockaddr_in at;
    int listener = listening(), port = port_of(listener), error = -1, s;
    socklen_t len = sizeof error;

    phase("a port where nobody listens");
    CHECK_EQ(wsd_close(listener), 0);
    at = here(port);
    s = wsd_socket(AF_INET, SOCK_STREAM, 0);
    CHECK_ERRNO(wsd_connect(s, (struct sockaddr *)&at, sizeof at), ECONNREFUSED);
    CHECK_EQ(wsd_set_nonblocking(s, 1), 0);
    CHECK_EQ(wsd_get_nonblocking(s), 1);
    CHECK_ERRNO(wsd_connect(s, (struct sockaddr *)&at, sizeof at), EINPROGRESS);
    CHECK((events(s, POLLOUT, -1) & (POLLOUT | POLLERR)) == (POLLOUT | POLLERR));
    CHECK_EQ(wsd_getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    CHECK_EQ(error, ECONNREFUSED);
    CHECK_EQ(wsd_getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    CHECK_EQ(error, 0);
    CHECK_EQ(wsd_close(s), 0);
}

static void in_the_background(void)
{
    int listener = listening(), accepted, error = -1, descriptor;
    struct sockaddr_in at = here(port_of(listener)), own;
    socklen_t len = sizeof error;
    char byte;
    int s = wsd_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct pollfd fds[2] = {{s, POLLOUT, 0}, {listener, POLLIN, 0}};
    struct pollfd kernels;

    phase("connecting in the background");
    CHECK_ERRNO(wsd_connect(s, (struct sockaddr *)&at, sizeof at), EINPROGRESS);
    descriptor = wsd_fd(s, POLLOUT);
    CHECK(descriptor >= 0);
    while (!(fds[1].revents & POLLIN))
        CHECK(wsd_poll(fds, 2, -1) > 0);
    accepted = wsd_accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    CHECK(accepted >= 0);
    kernels.fd = descriptor;
    kernels.events = POLLIN;
    CHECK_EQ(poll(&kernels, 1, -1), 1);
    CHECK_EQ(events(s, POLLOUT, -1), POLLOUT);
    CHECK_EQ(wsd_getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len), 0);
    CHECK_EQ(error, 0);
    CHECK_ERRNO(wsd_connect(s, (struct sockaddr *)&at, sizeof at), EISCONN);
    CHECK_EQ(path_of(s), expected_path);
    len = sizeof own;
    CHECK_EQ(wsd_getpeername(s, (struct sockaddr *)&own, &len), 0);
    CHECK(own.sin_port == at.sin_port && own.sin_addr.s_addr == at.sin_addr.s_addr);

    phase("a nonblocking listener and stream");
    CHECK_EQ(wsd_set_nonblocking(listener, 1), 0);
    CHECK_ERRNO(wsd_accept(listener, NULL, NULL), EAGAIN);
    CHECK_ERRNO(wsd_recv(s, &byte, 1, 0), EAGAIN);
    CHECK_ERRNO(wsd_recv(accepted, &byte, 1, 0), EAGAIN);
    kernels.fd = wsd_fd(accepted, POLLIN);
    CHECK_EQ(poll(&kernels, 1, 0), 0);
    CHECK_EQ(wsd_send(s, "x", 1, 0), 1);
    CHECK_EQ(poll(&kernels, 1, -1), 1);
    CHECK_EQ(wsd_recv(accepted, &byte, 1, 0), 1);
    kernels.fd = wsd_fd(accepted, POLLOUT);
    CHECK_EQ(poll(&kernels, 1, -1), 1);
    CHECK_EQ(wsd_close(s), 0);
    CHECK_EQ(wsd_close(accepted), 0);
    CHECK_EQ(wsd_close(listener), 0);
}

static void data(void)
{
    struct pair two = connected();
    struct iovec out[3] = {{"ab", 2}, {NULL, 0}, {"cde", 3}}, in[2];
    struct msghdr message;
    char room[16], more[4];
    int mark;

    phase("flags and vectors");
    CHECK_ERRNO(wsd_recv(two.b, room, 1, MSG_DONTWAIT), EAGAIN);
    CHECK_ERRNO(wsd_recv(two.b, room, 1, MSG_TRUNC), EOPNOTSUPP);
    CHECK_ERRNO(wsd_send(two.a, NULL, 1, 0), EFAULT);
    CHECK_EQ(wsd_send(two.a, NULL, 0, 0), 0);
    CHECK_EQ(wsd_writev(two.a, out, 3), 5);
    CHECK_ERRNO(wsd_writev(two.a, out, -1), EINVAL);
    CHECK_EQ(events(two.b, POLLIN, -1), POLLIN);
    CHECK_EQ(wsd_recv(two.b, room, 5, MSG_PEEK), 5);
    in[0].iov_base = room;
    in[0].iov_len = 2;
    in[1].iov_base = more;
    in[1].iov_len = sizeof more;
    memset(room, 0, sizeof room);
    CHECK_EQ(wsd_readv(two.b, in, 2), 5);
    CHECK(memcmp(room, "ab", 2) == 0 && memcmp(more, "cde", 3) == 0);

    phase("messages");
    memset(&message, 0, sizeof message);
    message.msg_iov = out;
    message.msg_iovlen = 3;
    CHECK_EQ(wsd_sendmsg(two.b, &message, MSG_DONTWAIT | MSG_NOSIGNAL), 5);
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    CHECK_ERRNO(wsd_sendmsg(two.b, &message, 0), EOPNOTSUPP);
    message.msg_iov = in;
    message.msg_iovlen = 2;
    CHECK_EQ(wsd_recvmsg(two.a, &message, MSG_WAITALL | MSG_DONTWAIT) > 0, 1);
    CHECK_EQ(message.msg_controllen, 0);
    while (wsd_recv(two.a, room, sizeof room, MSG_DONTWAIT) > 0)
        ;

    phase("waiting for all of it");
    CHECK_EQ(wsd_write(two.a, "12", 2), 2);
    CHECK_EQ(wsd_send(two.a, "34", 2, MSG_MORE), 2);
    CHECK_EQ(wsd_write(two.a, "56", 2), 2);
    CHECK_EQ(wsd_recv(two.b, room, 6, MSG_WAITALL), 6);
    CHECK(memcmp(room, "123456", 6) == 0);

    phase("urgent data");
    CHECK_ERRNO(wsd_recv(two.b, room, 1, MSG_OOB), EINVAL);
    CHECK_EQ(wsd_send(two.a, "xyz", 3, MSG_OOB), 3);
    CHECK_EQ(events(two.b, POLLPRI, -1), POLLPRI);
    CHECK_EQ(wsd_recv(two.b, room, 2, MSG_WAITALL), 2);
    mark = wsd_sockatmark(two.b);
    CHECK_EQ(mark, 1);
    CHECK_EQ(wsd_recv(two.b, room, 1, MSG_OOB), 1);
    CHECK_EQ(room[0], 'z');

    phase("the two ends");
    CHECK_ERRNO(wsd_shutdown(two.a, 7), EINVAL);
    CHECK_EQ(wsd_write(two.a, "end", 3), 3);
    CHECK_EQ(wsd_shutdown(two.a, SHUT_WR), 0);
    CHECK_ERRNO(wsd_write(two.a, "x", 1), EPIPE);
    CHECK_ERRNO(wsd_writev(two.a, out, 3), EPIPE);
    CHECK_EQ(wsd_recv(two.b, room, sizeof room, MSG_WAITALL), 3);
    CHECK_EQ(events(two.b, POLLIN | POLLRDHUP, -1), POLLIN | POLLRDHUP);
    CHECK_EQ(wsd_recv(two.b, room, sizeof room, 0), 0);
    CHECK_EQ(wsd_write(two.b, "back", 4), 4);
    CHECK_EQ(wsd_shutdown(two.b, SHUT_WR), 0);
    CHECK_EQ(wsd_recv(two.a, room, sizeof room, MSG_WAITALL), 4);
    CHECK(events(two.a, POLLIN, -1) & POLLHUP);
    part(two);
}

static void options(void)
{
    struct pair two;
    struct timeval time = {0, 20000};
    struct linger linger = {1, 0};
    struct wsd_transport_info how;
    struct wsd_stats_info stats, shorter;
    socklen_t len;
    int value, s;
    char room[8];

    phase("options before a connection");
    s = wsd_socket(AF_INET, SOCK_STREAM, 0);
    value = WSD_MODE_TCP;
    CHECK_EQ(wsd_setsockopt(s, SOL_WSD, WSD_SO_MODE, &value, sizeof value), 0);
    value = 99;
    CHECK_ERRNO(wsd_setsockopt(s, SOL_WSD, WSD_SO_MODE, &value, sizeof value), EINVAL);
    CHECK_ERRNO(wsd_setsockopt(s, SOL_WSD, 77, &value, sizeof value), ENOPROTOOPT);
    CHECK_ERRNO(wsd_setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof value), EINVAL);
    len = sizeof value;
    CHECK_EQ(wsd_getsockopt(s, SOL_WSD, WSD_SO_MODE, &value, &len), 0);
    CHECK_EQ(value, WSD_MODE_TCP);
    two.b = listening();
    {
        struct sockaddr_in at = here(port_of(two.b));
        CHECK_EQ(wsd_connect(s, (struct sockaddr *)&at, sizeof at), 0);
    }
    CHECK_EQ(wsd_transport(s, &how, sizeof how), 0);
    CHECK_EQ(how.path, WSD_PATH_TCP);
    CHECK(strcmp(how.reason, "asked") == 0);
    CHECK_ERRNO(wsd_setsockopt(s, SOL_WSD, WSD_SO_MODE, &value, sizeof value), EISCONN);
    len = sizeof value;
    CHECK_EQ(wsd_getsockopt(two.b, SOL_SOCKET, SO_ACCEPTCONN, &value, &len), 0);
    CHECK_EQ(value, 1);
    CHECK_EQ(path_of(two.b), expected_path);
    CHECK_EQ(wsd_close(s), 0);
    CHECK_EQ(wsd_close(two.b), 0);

    phase("options of a connection");
    two = connected();
    CHECK_EQ(wsd_setsockopt(two.a, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), 0);
    CHECK_ERRNO(wsd_recv(two.a, room, 1, 0), EAGAIN);
    len = sizeof time;
    CHECK_EQ(wsd_getsockopt(two.a, SOL_SOCKET, SO_RCVTIMEO, &time, &len), 0);
    CHECK(len == sizeof time && time.tv_sec == 0 && time.tv_usec == 20000);
    value = 1;
    CHECK_EQ(wsd_setsockopt(two.a, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value), 0);
    len = sizeof value;
    CHECK_EQ(wsd_getsockopt(two.a, SOL_SOCKET, SO_TYPE, &value, &len), 0);
    CHECK_EQ(value, SOCK_STREAM);
    len = sizeof value;
    CHECK_EQ(wsd_getsockopt(two.a, SOL_SOCKET, SO_SNDBUF, &value, &len), 0);
    CHECK(value > 0);
    len = 1;
    CHECK_EQ(wsd_getsockopt(two.a, SOL_SOCKET, SO_TYPE, room, &len), 0);
    CHECK_EQ(len, 1);
    if (expected_path == WSD_PATH_SAN)
        CHECK_ERRNO(wsd_setsockopt(two.a, IPPROTO_IP, IP_TOS, &value, sizeof value), ENOPROTOOPT);

    phase("what is told of a connection");
    CHECK_EQ(wsd_transport(two.a, &how, sizeof how), 0);
    CHECK((how.provider[0] != 0) == (expected_path == WSD_PATH_SAN));
    CHECK((how.reason[0] != 0) == (expected_path == WSD_PATH_TCP));
    CHECK(how.text[0] != 0);
    CHECK_EQ(wsd_write(two.a, "1234", 4), 4);
    CHECK_EQ(wsd_stats(two.a, &stats, sizeof stats), 0);
    CHECK_EQ(stats.bytes_sent, expected_path == WSD_PATH_SAN ? 4 : 0);
    memset(&shorter, 0xff, sizeof shorter);
    CHECK_EQ(wsd_stats(two.a, &shorter, sizeof shorter.bytes_sent), 0);
    CHECK_EQ(shorter.bytes_sent, stats.bytes_sent);
    CHECK_EQ(shorter.bytes_received, UINT64_MAX);
    CHECK_ERRNO(wsd_stats(two.a, NULL, sizeof stats), EFAULT);
    CHECK(wsd_version()[0] != 0);

    phase("a reset");
    CHECK_EQ(wsd_setsockopt(two.a, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    CHECK_EQ(wsd_close(two.a), 0);
    while (wsd_recv(two.b, room, sizeof room, 0) > 0)
        ;
    CHECK_EQ(errno, ECONNRESET);
    CHECK_EQ(wsd_close(two.b), 0);
}

static void on_signal(int number)
{
    (void)number;
}

static void waiting(void)
{
    struct pair two = connected();
    int ends[2];
    struct pollfd fds[3];
    struct sigaction action;
    char byte;

    phase("waiting for both kinds");
    CHECK_EQ(pipe(ends), 0);
    fds[0].fd = two.a;
    fds[1].fd = ends[0];
    fds[2].fd = -1;
    fds[0].events = fds[1].events = fds[2].events = POLLIN;
    CHECK_EQ(wsd_poll(fds, 3, 0), 0);
    CHECK_EQ(wsd_poll(fds, 3, 10), 0);
    CHECK_EQ(write(ends[1], "x", 1), 1);
    CHECK_EQ(wsd_poll(fds, 3, -1), 1);
    CHECK(fds[0].revents == 0 && fds[1].revents == POLLIN);
    CHECK_EQ(wsd_write(two.b, "x", 1), 1);
    CHECK_EQ(events(two.a, POLLIN, -1), POLLIN);
    CHECK_EQ(wsd_poll(fds, 3, -1), 2);
    CHECK_EQ(wsd_recv(two.a, &byte, 1, 0), 1);
    CHECK_EQ(read(ends[0], &byte, 1), 1);
    CHECK_EQ(wsd_poll(NULL, 0, 1), 0);
    CHECK_ERRNO(wsd_poll(NULL, 1, 1), EFAULT);

    phase("a signal while waiting");
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    /* Whenever it comes, there is another one. */
    {
        struct itimerval often = {{0, 20000}, {0, 20000}}, off = {{0, 0}, {0, 0}};
        CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
        CHECK_ERRNO(wsd_poll(fds, 3, -1), EINTR);
        CHECK_EQ(setitimer(ITIMER_REAL, &off, NULL), 0);
    }
    close(ends[0]);
    close(ends[1]);
    part(two);
}

static void forked(void)
{
    struct pair two = connected();
    char byte;
    int status;
    pid_t child;

    phase("a child of fork");
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int right = wsd_write(two.a, "x", 1) == -1 && errno == EBADF && wsd_close(two.a) == -1 &&
                    wsd_socket(AF_INET, SOCK_STREAM, 0) == -1 && errno == ENOTSUP;
        _exit(right ? 0 : 1);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ(wsd_write(two.a, "y", 1), 1);
    CHECK_EQ(wsd_recv(two.b, &byte, 1, 0), 1);
    CHECK_EQ(byte, 'y');
    part(two);
}

static void sixth_version(void)
{
    struct sockaddr_in6 at, peer;
    struct sockaddr_in v4;
    socklen_t len = sizeof at;
    int listener = wsd_socket(AF_INET6, SOCK_STREAM, 0), s, accepted;

    phase("IPv4 at a listener of IPv6");
    memset(&at, 0, sizeof at);
    at.sin6_family = AF_INET6;
    if (listener < 0 || wsd_bind(listener, (struct sockaddr *)&at, sizeof at) != 0)
        return; /* a host without IPv6 */
    CHECK_EQ(wsd_listen(listener, 1), 0);
    CHECK_EQ(wsd_getsockname(listener, (struct sockaddr *)&at, &len), 0);
    CHECK_EQ(len, sizeof at);
    v4 = here(ntohs(at.sin6_port));
    s = wsd_socket(AF_INET, SOCK_STREAM, 0);
    CHECK_EQ(wsd_connect(s, (struct sockaddr *)&v4, sizeof v4), 0);
    len = sizeof peer;
    accepted = wsd_accept(listener, (struct sockaddr *)&peer, &len);
    CHECK(accepted >= 0);
    CHECK_EQ(peer.sin6_family, AF_INET6);
    CHECK(IN6_IS_ADDR_V4MAPPED(&peer.sin6_addr));
    CHECK_EQ(path_of(accepted), expected_path);
    CHECK_EQ(wsd_close(s), 0);
    CHECK_EQ(wsd_close(accepted), 0);
    CHECK_EQ(wsd_close(listener), 0);
}

int main(int argc, char **argv)
{
    begin("sockets", argc, argv);
    numbers();
    without_connection();
    refused();
    in_the_background();
    data();
    options();
    waiting();
    sixth_version();
    forked();
    return 0;
}

/*
 * libwsd_switch: stream sockets over a system area network, with TCP beside it.
 *
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Generated from capi/src; do not edit.
 *
 * Link with -lwsd_switch (pkg-config wsd_switch, or the CMake target wsd::switch). The functions are
 * those of <sys/socket.h> with the prefix wsd_ and do the same; where both ends of a connection have
 * a SAN the bytes go over it, elsewhere over TCP, and wsd_transport says which and why. Flags,
 * options, addresses and structures are the host's.
 *
 * Sockets. A wsd socket is an int, but not a descriptor of the kernel: it is above 0x3fffffff, where
 * no descriptor is, and carries a generation, so that the number of a closed socket is not soon
 * that of another one. wsd_poll takes both kinds; for other event loops there is wsd_fd.
 *
 * Results. As the kernel's: -1 and errno, otherwise a length, a socket or 0. A number that is no open
 * wsd socket gives EBADF. What is not served gives EOPNOTSUPP or ENOPROTOOPT, never a wrong result.
 *
 * Signals. No function raises SIGPIPE. Only wsd_poll ends with EINTR; the others go on.
 *
 * Threads. Every function may be called from every thread at any time, several also on one socket.
 * wsd_close ends what other threads do with the socket: they get EBADF.
 *
 * fork. Sockets stay with the parent: in the child they give EBADF, and wsd_socket gives ENOTSUP
 * until the child has executed another program.
 */


#ifndef WSD_SWITCH_H
#define WSD_SWITCH_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/**
 * No connection yet.
 */
#define WSD_PATH_NONE 0

/**
 * A SAN carries the connection; of a listener: connections may come over one.
 */
#define WSD_PATH_SAN 1

/**
 * TCP carries the connection.
 */
#define WSD_PATH_TCP 2

/**
 * The level of the options that only this library has. All are ints and are set before connecting
 * or listening; afterwards they give EISCONN.
 */
#define SOL_WSD 1465074688

/**
 * Of SOL_WSD: how large data travels, one of WSD_MODE_*.
 */
#define WSD_SO_MODE 1

/**
 * Of SOL_WSD: how a blocking send of large data is done, one of WSD_SEND_*.
 */
#define WSD_SO_SEND_POLICY 2

/**
 * The receiver pulls where its provider can, otherwise the sender pushes. The default.
 */
#define WSD_MODE_AUTO 0

/**
 * As WSD_MODE_AUTO; says that pulling is wanted.
 */
#define WSD_MODE_READ 1

/**
 * The sender pushes.
 */
#define WSD_MODE_WRITE 2

/**
 * No SAN at all.
 */
#define WSD_MODE_TCP 3

/**
 * What fits in the send buffer is copied, of more than that the rest is sent from the caller's
 * memory. The default.
 */
#define WSD_SEND_AUTO 0

/**
 * Always from the caller's memory: a send returns when the peer has the data.
 */
#define WSD_SEND_ZERO_COPY 1

/**
 * Always copied.
 */
#define WSD_SEND_BACKGROUND 2

/**
 * Which path a socket uses, and why. All strings are terminated.
 */
struct wsd_transport_info {
    /**
     * WSD_PATH_*.
     */
    int path;
    /**
     * The code of the SAN's provider that led to TCP, as in wsdirect.h, or 0.
     */
    int provider_error;
    /**
     * The provider that carries the connection, or nothing.
     */
    char provider[64];
    /**
     * Why TCP: a short word that never changes, such as switch-off; or nothing.
     */
    char reason[32];
    /**
     * Path and reason for people.
     */
    char text[160];
};

/**
 * What has happened on a connection. All zero over TCP, where the kernel counts.
 */
struct wsd_stats_info {
    /**
     * Bytes of the stream sent.
     */
    uint64_t bytes_sent;
    /**
     * Bytes of the stream received or announced.
     */
    uint64_t bytes_received;
    /**
     * Control messages sent.
     */
    uint64_t messages_sent;
    /**
     * Control messages received.
     */
    uint64_t messages_received;
    /**
     * Bytes this side has fetched by RDMA reads.
     */
    uint64_t rdma_read_bytes;
    /**
     * Bytes this side has delivered by RDMA writes.
     */
    uint64_t rdma_write_bytes;
    /**
     * RDMA reads this side has made.
     */
    uint64_t rdma_reads;
    /**
     * RDMA writes this side has made.
     */
    uint64_t rdma_writes;
    /**
     * Large transfers begun by this side.
     */
    uint64_t large_sent;
    /**
     * Large transfers begun by the peer.
     */
    uint64_t large_received;
    /**
     * Messages sent for nothing but credit.
     */
    uint64_t credit_messages_sent;
    /**
     * Messages received for nothing but credit.
     */
    uint64_t credit_messages_received;
    /**
     * Times that data began to wait for credit.
     */
    uint64_t stalls;
    /**
     * Times that a call had to wait and spun first.
     */
    uint64_t spins;
    /**
     * Times that a call slept.
     */
    uint64_t sleeps;
    /**
     * Bytes that wait here for a receive.
     */
    uint64_t unread;
    /**
     * Bytes that were accepted and wait here to be sent.
     */
    uint64_t unsent;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes a TCP socket that connects and listens over the SAN, too.
 *
 * domain is AF_INET or AF_INET6. kind is SOCK_STREAM, also with SOCK_NONBLOCK and SOCK_CLOEXEC (which
 * is always on). protocol is 0 or IPPROTO_TCP.
 *
 * Errors: those of socket; EMFILE above 262144 sockets; ENOTSUP in a child of fork.
 */
int wsd_socket(int domain,
               int kind,
               int protocol);

/**
 * As bind. Port 0 takes a free one.
 */
int wsd_bind(int s,
             const struct sockaddr *addr,
             socklen_t len);

/**
 * As listen, on both paths. The backlog is TCP's; over the SAN up to 4096 connections wait to be
 * accepted. A second call changes nothing.
 */
int wsd_listen(int s,
               int backlog);

/**
 * As accept, over whichever path the connection came. SO_RCVTIMEO limits the wait.
 */
int wsd_accept(int s,
               struct sockaddr *addr,
               socklen_t *len);

/**
 * As accept4: flags are SOCK_NONBLOCK and SOCK_CLOEXEC (which is always on).
 */
int wsd_accept4(int s,
                struct sockaddr *addr,
                socklen_t *len,
                int flags);

/**
 * As connect: over the SAN where it serves, otherwise over TCP. A nonblocking socket gives
 * EINPROGRESS; its end is told by wsd_poll (POLLOUT) and SO_ERROR. SO_SNDTIMEO limits the wait;
 * then the error is ETIMEDOUT.
 */
int wsd_connect(int s,
                const struct sockaddr *addr,
                socklen_t len);

/**
 * As shutdown. Of a listener: SHUT_RD ends accepting, and waiting accepts give EINVAL.
 */
int wsd_shutdown(int s,
                 int how);

/**
 * As close: what was sent is still delivered, in the background, for up to two minutes, unless
 * SO_LINGER says otherwise.
 * Other threads' calls on the socket end.
 */
int wsd_close(int s);

/**
 * Whether calls return EAGAIN where they would wait.
 */
int wsd_set_nonblocking(int s,
                        int on);

/**
 * 1 if calls return EAGAIN where they would wait, otherwise 0.
 */
int wsd_get_nonblocking(int s);

/**
 * As send. Flags: MSG_DONTWAIT, MSG_OOB, and without effect MSG_NOSIGNAL (always so), MSG_MORE,
 * MSG_EOR; others give EOPNOTSUPP.
 */
ssize_t wsd_send(int s,
                 const void *buf,
                 size_t len,
                 int flags);

/**
 * As recv. Flags: MSG_DONTWAIT, MSG_OOB, MSG_PEEK, MSG_WAITALL; others give EOPNOTSUPP. A large
 * buffer of a blocking socket is filled without a copy where the SAN can.
 */
ssize_t wsd_recv(int s,
                 void *buf,
                 size_t len,
                 int flags);

/**
 * As write.
 */
ssize_t wsd_write(int s,
                  const void *buf,
                  size_t len);

/**
 * As read.
 */
ssize_t wsd_read(int s,
                 void *buf,
                 size_t len);

/**
 * As writev.
 */
ssize_t wsd_writev(int s,
                   const struct iovec *iov,
                   int iovcnt);

/**
 * As readv.
 */
ssize_t wsd_readv(int s,
                  const struct iovec *iov,
                  int iovcnt);

/**
 * As sendmsg, with the flags of wsd_send. The name is ignored; ancillary data gives EOPNOTSUPP.
 */
ssize_t wsd_sendmsg(int s,
                    const struct msghdr *msg,
                    int flags);

/**
 * As recvmsg, with the flags of wsd_recv. There is never a name nor ancillary data.
 */
ssize_t wsd_recvmsg(int s,
                    struct msghdr *msg,
                    int flags);

/**
 * 1 if everything before the urgent byte has been received, otherwise 0; as sockatmark.
 */
int wsd_sockatmark(int s);

/**
 * As poll, over wsd sockets and descriptors of the kernel's in any mixture. What is no open socket
 * or descriptor gets POLLNVAL. EINTR by a signal.
 */
int wsd_poll(struct pollfd *fds,
             nfds_t nfds,
             int timeout);

/**
 * A descriptor for other event loops: it is readable (POLLIN, also for writing) while a call is worth
 * a try that gave EAGAIN; now and then without a cause.
 *
 * events is POLLIN for receiving or POLLOUT for sending on a connection; of a listener the descriptor
 * tells of connections, of a connect that is in progress of its end. It belongs to the socket until
 * that is closed, and is to be polled and nothing else. It is another one after connecting.
 */
int wsd_fd(int s,
           short events);

/**
 * As setsockopt. Both paths: SO_RCVTIMEO, SO_SNDTIMEO, SO_LINGER, SO_OOBINLINE, TCP_NODELAY, SO_SNDBUF,
 * SO_RCVBUF, SO_KEEPALIVE, TCP_KEEPIDLE (the last four before connecting), and SOL_WSD. All others are
 * the kernel's; of a connection over the SAN they give ENOPROTOOPT.
 */
int wsd_setsockopt(int s,
                   int level,
                   int name,
                   const void *value,
                   socklen_t len);

/**
 * As getsockopt.
 */
int wsd_getsockopt(int s,
                   int level,
                   int name,
                   void *value,
                   socklen_t *len);

/**
 * As getsockname.
 */
int wsd_getsockname(int s,
                    struct sockaddr *addr,
                    socklen_t *len);

/**
 * As getpeername.
 */
int wsd_getpeername(int s,
                    struct sockaddr *addr,
                    socklen_t *len);

/**
 * Which path a socket uses, and why. size is sizeof(struct wsd_transport_info).
 */
int wsd_transport(int s,
                  struct wsd_transport_info *info,
                  size_t size);

/**
 * What has happened on a connection. size is sizeof(struct wsd_stats_info).
 */
int wsd_stats(int s,
              struct wsd_stats_info *info,
              size_t size);

/**
 * The version of the library, such as "0.1.0".
 */
const char *wsd_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* WSD_SWITCH_H */

/*
 * Sends back what it receives, to any number of clients at a time, in one thread.
 *
 * usage: echo_server [PORT [CONNECTIONS]]
 *
 * Port 0 takes a free one, which is printed. Ends after that many connections, if a number is given.
 * The sockets do not block; wsd_poll says which call is worth making.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wsd_switch.h>

#define MOST_CLIENTS 64

struct client {
    char   bytes[65536];
    size_t from, to; /* what is to be sent back */
    int    ended;    /* the client sends no more */
};

static struct pollfd fds[1 + MOST_CLIENTS]; /* the first one listens */
static struct client *clients[1 + MOST_CLIENTS];
static nfds_t count = 1;

static void fail(const char *what)
{
    fprintf(stderr, "echo_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int listen_at(unsigned short port)
{
    struct sockaddr_in at = {0};
    socklen_t len = sizeof at;
    int on = 1;
    int s = wsd_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_ANY);
    at.sin_port = htons(port);
    if (s < 0 || wsd_setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        wsd_bind(s, (struct sockaddr *)&at, sizeof at) != 0 || wsd_listen(s, 128) != 0 ||
        wsd_getsockname(s, (struct sockaddr *)&at, &len) != 0)
        fail("listening");
    printf("port %d\n", ntohs(at.sin_port));
    fflush(stdout);
    return s;
}

static void take(int s)
{
    struct wsd_transport_info how;

    if (wsd_transport(s, &how, sizeof how) == 0)
        printf("a client over %s\n", how.text);
    fflush(stdout);
    clients[count] = calloc(1, sizeof *clients[count]);
    if (clients[count] == NULL)
        fail("memory");
    fds[count].fd = s;
    fds[count].events = POLLIN;
    fds[count].revents = 0;
    count++;
}

static void drop(nfds_t at)
{
    wsd_close(fds[at].fd);
    free(clients[at]);
    count--;
    fds[at] = fds[count];
    clients[at] = clients[count];
}

/* Moves what can be moved; 0 if the connection is over. */
static int serve(struct pollfd *fd, struct client *client)
{
    ssize_t moved;

    if (client->from == client->to && !client->ended) {
        moved = wsd_recv(fd->fd, client->bytes, sizeof client->bytes, 0);
        if (moved > 0) {
            client->from = 0;
            client->to = (size_t)moved;
        } else if (moved == 0) {
            client->ended = 1;
        } else if (errno != EAGAIN) {
            return 0;
        }
    }
    while (client->from < client->to) {
        moved = wsd_send(fd->fd, client->bytes + client->from, client->to - client->from, 0);
        if (moved < 0 && errno == EAGAIN)
            break;
        if (moved < 0)
            return 0;
        client->from += (size_t)moved;
    }
    fd->events = client->from < client->to ? POLLOUT : POLLIN;
    return client->from < client->to || !client->ended;
}

int main(int argc, char **argv)
{
    long left = argc > 2 ? atol(argv[2]) : -1;
    nfds_t at;

    fds[0].fd = listen_at((unsigned short)(argc > 1 ? atoi(argv[1]) : 7471));
    while (left != 0 || count > 1) {
        fds[0].events = left != 0 && count <= MOST_CLIENTS ? POLLIN : 0;
        if (wsd_poll(fds, count, -1) < 0 && errno != EINTR)
            fail("waiting");
        /* From the end, because the last one takes the place of one that is dropped. */
        for (at = count - 1; at > 0; at--)
            if (fds[at].revents != 0 && !serve(&fds[at], clients[at]))
                drop(at);
        if (fds[0].revents & POLLIN) {
            int s = wsd_accept4(fds[0].fd, NULL, NULL, SOCK_NONBLOCK);
            if (s >= 0) {
                take(s);
                if (left > 0)
                    left--;
            } else if (errno != EAGAIN) {
                fail("accepting");
            }
        }
    }
    wsd_close(fds[0].fd);
    return 0;
}

/*
 * Sends lines of its input to an echo server and prints what comes back.
 *
 * usage: echo_client ADDRESS PORT < TEXT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wsd_switch.h>

static void fail(const char *what)
{
    fprintf(stderr, "echo_client: %s: %s\n", what, strerror(errno));
    exit(1);
}

int main(int argc, char **argv)
{
    struct sockaddr_in to = {0};
    struct wsd_transport_info how;
    char line[4096];
    int s;

    if (argc != 3 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
        fprintf(stderr, "usage: echo_client ADDRESS PORT < TEXT\n");
        return 2;
    }
    to.sin_family = AF_INET;
    to.sin_port = htons((unsigned short)atoi(argv[2]));
    s = wsd_socket(AF_INET, SOCK_STREAM, 0);
    if (s < 0 || wsd_connect(s, (struct sockaddr *)&to, sizeof to) != 0)
        fail("connecting");
    if (wsd_transport(s, &how, sizeof how) == 0)
        fprintf(stderr, "connected over %s\n", how.text);
    while (fgets(line, sizeof line, stdin) != NULL) {
        size_t len = strlen(line);

        if (wsd_send(s, line, len, 0) != (ssize_t)len)
            fail("sending");
        if (wsd_recv(s, line, len, MSG_WAITALL) != (ssize_t)len)
            fail("receiving");
        fwrite(line, 1, len, stdout);
    }
    /* The server closes when it has seen our end. */
    if (wsd_shutdown(s, SHUT_WR) != 0 || wsd_recv(s, line, sizeof line, 0) != 0)
        fail("ending");
    return wsd_close(s) == 0 ? 0 : 1;
}

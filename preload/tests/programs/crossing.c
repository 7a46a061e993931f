/* proof: none.
 *
 * A connection that both ends have opened: calls of connect() that cross, with nobody who listens. It
 * stays with the kernel, for neither end knows which of them is to offer, and carries every byte.
 *
 * For the calls to cross, the first one's socket is deaf until the second call: it does not hear
 * that nobody is there.
 */
#define _GNU_SOURCE
#include "pair.h"
#include <linux/filter.h>

static int bound(struct sockaddr_in *at)
{
    socklen_t len = sizeof *at;
    *at = here();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    CHECK(bind(fd, (struct sockaddr *)at, len) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)at, &len) == 0);
    return fd;
}

int main(void)
{
    struct sockaddr_in first, second;
    struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog deaf = {1, nothing};
    int one = bound(&first), two = bound(&second), error;
    socklen_t len = sizeof error;
    CHECK(setsockopt(one, SOL_SOCKET, SO_ATTACH_FILTER, &deaf, sizeof deaf) == 0);
    nonblocking(one);
    CHECK(connect(one, (struct sockaddr *)&second, sizeof second) != 0 && errno == EINPROGRESS);
    CHECK(setsockopt(one, SOL_SOCKET, SO_DETACH_FILTER, &error, sizeof error) == 0);
    CHECK(connect(two, (struct sockaddr *)&first, sizeof first) == 0);
    struct pollfd p = {one, POLLOUT, 0};
    CHECK(poll(&p, 1, 30000) == 1);
    CHECK(getsockopt(one, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0);
    struct pair both = {one, two};
    warm(both);
    put(one, "from one");
    take(two, 8);
    put(two, "from the other");
    take(one, 14);
    CHECK(shutdown(one, SHUT_WR) == 0);
    char byte;
    printf("end: %zd\n", read(two, &byte, 1));
    end_pair(both);
    return 0;
}

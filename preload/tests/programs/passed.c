/* proof: mixed. SCM_RIGHTS: a connection goes to another process, which talks and gives it back;
 * and a listener. */
#include "ends.h"

static void give(int way, int fd)
{
    char c = 'f', room[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room,
                       .msg_controllen = sizeof room};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
    NEED(sendmsg(way, &m, 0) == 1);
}

static int take(int way)
{
    char c, room[CMSG_SPACE(sizeof(int))];
    struct iovec v = {&c, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room,
                       .msg_controllen = sizeof room};
    int fd;
    NEED(recvmsg(way, &m, 0) == 1);
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    NEED(h && h->cmsg_type == SCM_RIGHTS && h->cmsg_len == CMSG_LEN(sizeof(int)));
    memcpy(&fd, CMSG_DATA(h), sizeof fd);
    return fd;
}

static void client(int fd)
{
    char b[64] = {0};
    /* More than the first reader takes: the rest waits for the second. */
    put(fd, "first second", 12);
    get(fd, b, 12);
    SAY("%s", b);
    put(fd, "third", 5);
    get(fd, b, 5);
    SAY("%.5s", b);
    SAY_CALL("read", read(fd, b, 1));
}

/* Another process accepts from this one's listener. */
static void listener_goes(int way)
{
    struct sockaddr_in at = here();
    socklen_t len = sizeof at;
    char b[8] = {0};
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(listen(listener, 4) == 0);
    NEED(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    give(way, listener);
    close(listener);
    at.sin_addr = here().sin_addr;
    NEED(connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    for (int i = 0; i < 100; i++) {
        put(fd, "to you", 6);
        get(fd, b, 6);
    }
    SAY("accepted there: %s", b);
    close(fd);
}

static void accept_there(int way)
{
    char b[8];
    int listener = take(way), fd = accept(listener, NULL, NULL);
    NEED(fd >= 0);
    for (int i = 0; i < 100; i++) {
        get(fd, b, 6);
        put(fd, "TO YOU", 6);
    }
    close(fd);
    close(listener);
}

static void server(int fd)
{
    char b[16] = {0};
    int way[2];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, way) == 0);
    fflush(stdout);
    pid_t pid = fork();
    NEED(pid >= 0);
    if (pid == 0) {
        close(way[0]);
        close(fd);
        int theirs = take(way[1]);
        get(theirs, b, 6);
        SAY("the other process: %s", b);
        put(theirs, "SECOND", 6);
        give(way[1], theirs);
        close(theirs);
        accept_there(way[1]);
        exit(0);
    }
    close(way[1]);
    get(fd, b, 6);
    SAY("this process: %s", b);
    put(fd, "FIRST ", 6);
    pause_ms(200);
    give(way[0], fd);
    close(fd);
    int status;
    int back = take(way[0]);
    listener_goes(way[0]);
    NEED(waitpid(pid, &status, 0) == pid);
    get(back, b, 5);
    SAY("again: %.5s", b);
    put(back, "THIRD", 5);
    close(back);
}

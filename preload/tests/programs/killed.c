/* proof: upgraded.
 *
 * The receiver is killed while it has not read for a while and the connection takes no more: who sleeps in
 * send(), or in poll() for room, is woken and gets an error.
 */
#define OWN_MAIN
#include "ends.h"

static int listening(struct sockaddr_in *at)
{
    socklen_t len = sizeof *at;
    *at = here();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(fd >= 0);
    NEED(bind(fd, (struct sockaddr *)at, len) == 0);
    NEED(listen(fd, 4) == 0);
    NEED(getsockname(fd, (struct sockaddr *)at, &len) == 0);
    return fd;
}

/* Turns for a while, then nothing is read any more. */
static void receiver(int listener)
{
    int fd = accept(listener, NULL, NULL);
    NEED(fd >= 0);
    for (char c = 0; c != 'e';) {
        get(fd, &c, 1);
        put(fd, &c, 1);
    }
    for (;;)
        pause();
}

/* Says by the pipe that the connection is full. */
static void sender(const struct sockaddr_in *at, int full, int polls)
{
    static char block[65536];
    const char *text = getenv("WARM");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    NEED(fd >= 0);
    NEED(connect(fd, (const struct sockaddr *)at, sizeof *at) == 0);
    long begun = now_ms(), until = begun + (text ? atol(text) : 0), most = begun + most_ms();
    struct settling settling = {0};
    for (;;) {
        char c = now_ms() < until || (now_ms() < most && !is_settled(fd, &settling)) ? 'w' : 'e', echo;
        put(fd, &c, 1);
        get(fd, &echo, 1);
        if (c == 'e')
            break;
        pause_ms(2);
    }
    signal(SIGPIPE, SIG_IGN);
    /* The kernel takes more after a moment when its buffers have grown. */
    for (int still = 0; still < 20;) {
        ssize_t sent = send(fd, block, sizeof block, MSG_DONTWAIT);
        NEED(sent > 0 || errno == EAGAIN);
        still = sent > 0 ? 0 : still + 1;
        if (sent < 0)
            pause_ms(10);
    }
    NEED(write(full, "f", 1) == 1);
    ssize_t sent;
    do {
        struct pollfd p = {fd, POLLOUT, 0};
        if (polls)
            NEED(poll(&p, 1, -1) == 1);
        sent = send(fd, block, sizeof block, polls ? MSG_DONTWAIT : 0);
    } while (sent > 0 || (sent < 0 && errno == EAGAIN));
    NEED(errno == ECONNRESET || errno == EPIPE);
    NEED(close(fd) == 0);
    exit(7);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    for (int polls = 0; polls < 2; polls++) {
        struct sockaddr_in at;
        int full[2], status, listener = listening(&at);
        char c;
        NEED(pipe(full) == 0);
        pid_t victim = fork();
        NEED(victim >= 0);
        if (victim == 0)
            receiver(listener);
        pid_t other = fork();
        NEED(other >= 0);
        if (other == 0)
            sender(&at, full[1], polls);
        NEED(read(full[0], &c, 1) == 1);
        /* It is to sleep by now; if it does not, it is told of the end by its next call. */
        pause_ms(50);
        NEED(kill(victim, SIGKILL) == 0);
        NEED(waitpid(other, &status, 0) == other);
        SAY("in %s: %s, code %d", polls ? "poll" : "send", WIFEXITED(status) ? "an error" : "a signal",
            WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
        NEED(waitpid(victim, &status, 0) == victim && WIFSIGNALED(status));
        close(listener);
        close(full[0]);
        close(full[1]);
    }
    return 0;
}

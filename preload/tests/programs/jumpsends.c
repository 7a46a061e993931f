/* siglongjmp() out of a handler, out of every call that sends, of which the peer reads nothing. The
 * thread may be cancelled afterwards as before, and the peer gets the end. */
#include "pair.h"
#include "jumps.h"
#include <sys/sendfile.h>

static struct pair p;
static int file, ends[2];

enum way { SEND, SENDMSG, SENDFILE, SPLICE, WAYS };
static const char *const NAMES[] = {"send", "sendmsg", "sendfile", "splice"};

/* Until nobody takes more. */
static void send_by(enum way way) {
    static char block[256 << 10];
    struct iovec v = {block, sizeof block};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    for (;;) {
        off_t start = 0;
        switch (way) {
        case SEND:
            CHECK(send(p.client, block, sizeof block, 0) > 0);
            break;
        case SENDMSG:
            CHECK(sendmsg(p.client, &m, 0) > 0);
            break;
        case SENDFILE:
            CHECK(sendfile(p.client, file, &start, sizeof block) > 0);
            break;
        default:
            CHECK(write(ends[1], block, 4096) == 4096);
            CHECK(splice(ends[0], NULL, p.client, NULL, 4096, 0) > 0);
        }
    }
}

static void jump_out(enum way way) {
    int state = -1;
    if (sigsetjmp(place, 1) == 0) {
        alarm_ms(200);
        send_by(way);
    }
    alarm_ms(0);
    CHECK(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state) == 0);
    printf("%s: cancellation is enabled: %d\n", NAMES[way], state == PTHREAD_CANCEL_ENABLE);
}

int main(void) {
    static volatile int way;
    static char name[] = "/tmp/jumpsends.XXXXXX";
    struct sigaction act = {.sa_handler = handler};
    setvbuf(stdout, NULL, _IOLBF, 0);
    CHECK(sigaction(SIGALRM, &act, NULL) == 0);
    file = mkstemp(name);
    CHECK(file >= 0 && unlink(name) == 0 && ftruncate(file, 1 << 20) == 0);
    CHECK(pipe(ends) == 0);
    p = warm_pair();
    for (way = 0; way < WAYS; way++) {
        jump_out((enum way)way);
        jump_out((enum way)way);
    }
    CHECK(shutdown(p.client, SHUT_WR) == 0);
    static char b[256 << 10];
    ssize_t got;
    while ((got = read(p.server, b, sizeof b)) > 0) {
    }
    printf("the end: %zd\n", got);
    end_pair(p);
    return 0;
}

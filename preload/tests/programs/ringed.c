/* io_uring, where a rule grants it, on a connection that has been carried for a while with bytes
 * under way, and on new ones: what goes through the ring and what goes past it is one stream. A
 * kernel that has no rings for us has nothing to show. */
#include "pair.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

static struct {
    int fd;
    unsigned *tail, *mask, *array, *done_head, *done_tail, *done_mask;
    struct io_uring_sqe *asked;
    struct io_uring_cqe *done;
} ring;

static void *mapped(size_t length, off_t at) {
    void *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring.fd, at);
    CHECK(p != MAP_FAILED);
    return p;
}

static int make_ring(void) {
    struct io_uring_params about = {0};
    ring.fd = (int)syscall(SYS_io_uring_setup, 8, &about);
    if (ring.fd < 0) {
        return 0;
    }
    char *in = mapped(about.sq_off.array + about.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
    char *out = mapped(about.cq_off.cqes + about.cq_entries * sizeof *ring.done, IORING_OFF_CQ_RING);
    ring.asked = mapped(about.sq_entries * sizeof *ring.asked, IORING_OFF_SQES);
    ring.tail = (unsigned *)(in + about.sq_off.tail);
    ring.mask = (unsigned *)(in + about.sq_off.ring_mask);
    ring.array = (unsigned *)(in + about.sq_off.array);
    ring.done_head = (unsigned *)(out + about.cq_off.head);
    ring.done_tail = (unsigned *)(out + about.cq_off.tail);
    ring.done_mask = (unsigned *)(out + about.cq_off.ring_mask);
    ring.done = (struct io_uring_cqe *)(out + about.cq_off.cqes);
    return 1;
}

/* One at a time; waits for it. */
static int by_ring(int operation, int fd, void *buffer, unsigned length) {
    unsigned tail = *ring.tail, at = tail & *ring.mask;
    ring.asked[at] = (struct io_uring_sqe){.opcode = (unsigned char)operation, .fd = fd,
                                           .addr = (uintptr_t)buffer, .len = length};
    ring.array[at] = at;
    __atomic_store_n(ring.tail, tail + 1, __ATOMIC_RELEASE);
    CHECK(syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1);
    unsigned head = *ring.done_head;
    CHECK(head != __atomic_load_n(ring.done_tail, __ATOMIC_ACQUIRE));
    int result = ring.done[head & *ring.done_mask].res;
    __atomic_store_n(ring.done_head, head + 1, __ATOMIC_RELEASE);
    return result;
}

static void all_by_ring(int operation, int fd, char *p, size_t n) {
    while (n > 0) {
        int k = by_ring(operation, fd, p, (unsigned)n);
        CHECK(k > 0);
        p += k;
        n -= (size_t)k;
    }
}

/* Each round goes through the ring at one end, and past it at the other; then the other way. */
static void rounds(struct pair p, const char *what) {
    static char out[2048], in[2048];
    for (int i = 0; i < 50; i++) {
        memset(out, 'a' + i % 26, sizeof out);
        CHECK(write(p.client, out, sizeof out) == sizeof out);
        all_by_ring(IORING_OP_RECV, p.server, in, sizeof in);
        CHECK(memcmp(in, out, sizeof in) == 0);
        all_by_ring(IORING_OP_SEND, p.server, in, sizeof in);
        take(p.client, sizeof in);
        all_by_ring(IORING_OP_SEND, p.client, out, sizeof out);
        take(p.server, sizeof out);
        CHECK(write(p.server, out, 10) == 10);
        all_by_ring(IORING_OP_READ, p.client, in, 10);
        CHECK(memcmp(in, out, 10) == 0);
        sleep_ms(8);
    }
    printf("%s: all came\n", what);
}

int main(int count, char **arguments) {
    static char text[64];
    if (count == 1) {
        /* Rules are read once, at the start. */
        char *again[] = {arguments[0], "again", NULL};
        CHECK(setenv("WSD_RULE", "io_uring allow", 1) == 0);
        execv("/proc/self/exe", again);
        CHECK(0);
    }
    alarm(60);
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct pair p = warm_pair();
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof at;
    put(p.client, "sent before the ring");
    put(p.server, "so was this");
    if (!make_ring()) {
        puts("no rings");
        return 0;
    }
    all_by_ring(IORING_OP_RECV, p.server, text, 20);
    printf("%s, ", text);
    memset(text, 0, sizeof text);
    all_by_ring(IORING_OP_RECV, p.client, text, 11);
    puts(text);
    rounds(p, "the one from before");
    struct pair late = make_pair();
    rounds(late, "a new one");
    warm(late);
    rounds(late, "used otherwise, too");

    /* Accepted and closed by the ring. */
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(listener, (struct sockaddr *)&at, len) == 0 && listen(listener, 4) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
    struct pair third = {.client = socket(AF_INET, SOCK_STREAM, 0)};
    CHECK(connect(third.client, (struct sockaddr *)&at, sizeof at) == 0);
    third.server = by_ring(IORING_OP_ACCEPT, listener, NULL, 0);
    CHECK(third.server >= 0);
    rounds(third, "accepted by the ring");
    CHECK(by_ring(IORING_OP_CLOSE, late.server, NULL, 0) == 0);
    printf("the end: %zd\n", read(late.client, text, 1));
    CHECK(by_ring(IORING_OP_CLOSE, late.client, NULL, 0) == 0);
    struct pair reused = make_pair();
    rounds(reused, "in the place of a closed one");
    put(p.client, "last");
    CHECK(shutdown(p.client, SHUT_WR) == 0);
    take(p.server, 4);
    printf("the end: %d\n", by_ring(IORING_OP_RECV, p.server, text, 1));
    return 0;
}

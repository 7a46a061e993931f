/* proof: mixed, ends. Many short connections, used in many ways while they may change their path: no byte is lost or comes
 * twice, no end comes early or is an error, nobody waits for ever. */
#define OWN_MAIN
#include "ends.h"
#include <sys/epoll.h>

#define MOST 3000000
/* Nothing stands still for so long, on a busy machine. */
#define STILL 20000

static int rounds = 60;
static volatile long moved_ms;
/* All bytes are such that a library could take them for something of its own. */
static int odd;

static void fill_with(unsigned char *p, size_t n, uint64_t at)
{
    if (odd)
        memset(p, 0xF7, n);
    else
        fill(p, n, at);
}

static int check_for(const unsigned char *p, size_t n, uint64_t at)
{
    static __thread unsigned char want[200000];
    if (!odd)
        return check(p, n, at);
    memset(want, 0xF7, n);
    return memcmp(p, want, n) == 0;
}

static void moved(void)
{
    moved_ms = now_ms();
}

static void *watch(void *who)
{
    for (;;) {
        pause_ms(200);
        if (now_ms() - moved_ms > STILL) {
            printf("%s stands still\n", (const char *)who);
            fflush(stdout);
            if (getenv("HOLD"))
                pause_ms(1000000);
            _exit(8);
        }
    }
    return NULL;
}

/* What one connection is used for; both ends know it. */
struct use {
    uint32_t seed;
    uint32_t kind;
    uint64_t length;
};

enum { ECHO_THREADS, ECHO_EPOLL, ECHO_EDGES, TO_SERVER, TO_CLIENT, TURNS, KINDS };

static size_t piece(uint32_t *seed)
{
    static const size_t sizes[] = {1, 7, 100, 1000, 4096, 30000, 65536, 200000};
    return sizes[chance(seed) % (sizeof sizes / sizeof *sizes)];
}

static void ready(int fd, short events)
{
    struct pollfd p = {fd, events, 0};
    NEED(poll(&p, 1, -1) == 1);
}

static void send_stream(int fd, uint64_t length, uint32_t seed)
{
    static __thread unsigned char room[200000];
    for (uint64_t at = 0; at < length;) {
        size_t n = piece(&seed);
        n = n < length - at ? n : length - at;
        fill_with(room, n, at + length);
        for (size_t done = 0; done < n;) {
            ssize_t k = send(fd, room + done, n - done, MSG_NOSIGNAL);
            if (k < 0 && errno == EAGAIN) {
                ready(fd, POLLOUT);
                continue;
            }
            NEED(k > 0);
            done += (size_t)k;
            moved();
        }
        at += n;
    }
}

static void receive_stream(int fd, uint64_t length, uint32_t seed)
{
    static __thread unsigned char room[200000];
    for (uint64_t at = 0; at < length;) {
        size_t n = piece(&seed);
        ssize_t k = recv(fd, room, n < length - at ? n : length - at, 0);
        if (k < 0 && errno == EAGAIN) {
            ready(fd, POLLIN);
            continue;
        }
        if (k <= 0)
            printf("at %lu of %lu: ", at, length);
        NEED(k > 0);
        NEED(check_for(room, (size_t)k, at + length));
        at += (size_t)k;
        moved();
    }
}

static void receive_end(int fd)
{
    char c;
    ssize_t k;
    while ((k = recv(fd, &c, 1, 0)) < 0 && errno == EAGAIN)
        ready(fd, POLLIN);
    NEED(k == 0);
    moved();
}

struct writer {
    int fd;
    struct use use;
};

static void *write_all(void *of)
{
    struct writer *w = of;
    send_stream(w->fd, w->use.length, w->use.seed);
    return NULL;
}

static void nonblocking(int fd)
{
    NEED(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
}

/* Sends and receives at the same time by one thread, as its set tells. */
static void both(int fd, struct use use, uint32_t mode)
{
    static unsigned char out[200000], in[65536];
    nonblocking(fd);
    int set = epoll_create1(0);
    struct epoll_event e = {EPOLLIN | EPOLLOUT | mode, {.fd = fd}};
    NEED(epoll_ctl(set, EPOLL_CTL_ADD, fd, &e) == 0);
    uint64_t sent = 0, got = 0;
    size_t have = 0, done = 0;
    while (got < use.length) {
        NEED(epoll_wait(set, &e, 1, -1) == 1);
        if (e.events & EPOLLOUT) {
            while (sent < use.length) {
                if (done == have) {
                    have = piece(&use.seed);
                    have = have < use.length - sent ? have : use.length - sent;
                    fill_with(out, have, sent + use.length);
                    done = 0;
                }
                ssize_t k = send(fd, out + done, have - done, MSG_NOSIGNAL);
                if (k < 0) {
                    NEED(errno == EAGAIN);
                    break;
                }
                done += (size_t)k, sent += (size_t)k;
                moved();
                if (!mode)
                    break;
            }
        }
        if (sent == use.length && !mode) {
            e.events = EPOLLIN;
            NEED(epoll_ctl(set, EPOLL_CTL_MOD, fd, &e) == 0);
        }
        if (e.events & (EPOLLIN | EPOLLRDHUP)) {
            for (;;) {
                ssize_t k = recv(fd, in, sizeof in, MSG_DONTWAIT);
                if (k < 0) {
                    NEED(errno == EAGAIN);
                    break;
                }
                NEED(k > 0);
                NEED(check_for(in, (size_t)k, got + use.length));
                got += (size_t)k;
                moved();
                if (!mode)
                    break;
            }
        }
    }
    close(set);
}

static void serve(int fd)
{
    struct use use;
    get(fd, &use, sizeof use);
    odd = use.seed % 4 == 0;
    static unsigned char room[100000];
    switch (use.kind) {
    case ECHO_THREADS:
    case ECHO_EPOLL:
    case ECHO_EDGES:
        for (;;) {
            ssize_t k = recv(fd, room, sizeof room, 0);
            NEED(k >= 0);
            if (k == 0)
                break;
            put(fd, room, (size_t)k);
            moved();
        }
        break;
    case TURNS:
        for (uint64_t at = 0; at < 40; at++) {
            uint32_t n = (uint32_t)(at * use.seed % 3000 + 1);
            get(fd, room, n);
            NEED(check_for(room, n, at));
            put(fd, room, n);
            moved();
        }
        receive_end(fd);
        break;
    case TO_SERVER:
        receive_stream(fd, use.length, use.seed);
        receive_end(fd);
        break;
    case TO_CLIENT:
        send_stream(fd, use.length, use.seed);
        break;
    }
    NEED(close(fd) == 0);
}

static void ask(int fd, struct use use)
{
    static unsigned char room[3001], back[3001];
    put(fd, &use, sizeof use);
    odd = use.seed % 4 == 0;
    switch (use.kind) {
    case ECHO_THREADS: {
        struct writer w = {fd, use};
        pthread_t thread;
        NEED(pthread_create(&thread, NULL, write_all, &w) == 0);
        receive_stream(fd, use.length, use.seed + 1);
        pthread_join(thread, NULL);
        NEED(shutdown(fd, SHUT_WR) == 0);
        receive_end(fd);
        break;
    }
    case ECHO_EPOLL:
    case ECHO_EDGES:
        both(fd, use, use.kind == ECHO_EDGES ? EPOLLET : 0);
        NEED(shutdown(fd, SHUT_WR) == 0);
        receive_end(fd);
        break;
    case TURNS:
        for (uint64_t at = 0; at < 40; at++) {
            uint32_t n = (uint32_t)(at * use.seed % 3000 + 1);
            fill_with(room, n, at);
            put(fd, room, n);
            get(fd, back, n);
            NEED(memcmp(room, back, n) == 0);
            moved();
        }
        break;
    case TO_SERVER:
        send_stream(fd, use.length, use.seed);
        break;
    case TO_CLIENT:
        receive_stream(fd, use.length, use.seed);
        receive_end(fd);
        break;
    }
    NEED(close(fd) == 0);
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    NEED(count > 1);
    if (getenv("ROUNDS"))
        rounds = atoi(getenv("ROUNDS"));
    struct sockaddr_in at = here();
    socklen_t len = sizeof at;
    int serves = strcmp(arguments[1], "server") == 0, listener = -1;
    if (serves) {
        listener = socket(AF_INET, SOCK_STREAM, 0);
        NEED(bind(listener, (struct sockaddr *)&at, len) == 0 && listen(listener, 16) == 0);
        NEED(getsockname(listener, (struct sockaddr *)&at, &len) == 0);
        printf("port %d\n", ntohs(at.sin_port));
    } else {
        at.sin_port = htons((uint16_t)atoi(arguments[2]));
    }
    moved();
    pthread_t thread;
    NEED(pthread_create(&thread, NULL, watch, arguments[1]) == 0);
    uint32_t seed = 4711;
    if (getenv("SEED"))
        seed = (uint32_t)atoi(getenv("SEED"));
    for (int round = 0; round < rounds; round++) {
        struct use use = {.seed = chance(&seed), .kind = (uint32_t)round % KINDS};
        use.length = chance(&seed) % (chance(&seed) % MOST + 1) + 1;
        if (serves) {
            int fd = accept(listener, NULL, NULL);
            NEED(fd >= 0);
            serve(fd);
        } else {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            NEED(connect(fd, (struct sockaddr *)&at, len) == 0);
            ask(fd, use);
        }
        moved();
    }
    SAY("%d connections", rounds);
    return 0;
}

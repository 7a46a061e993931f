/*
 * Several threads on one socket: the two directions at once with all bytes right, threads that wait
 * in a receive, an accept or a poll while another one closes, and sockets that come and go in many
 * threads while others use their old numbers.
 */
#include "wsd.h"

static size_t total;

static void *sender(void *argument)
{
    int s = *(int *)argument;
    static const size_t sizes[] = {1, 100, 4096, 70000, 1000000};
    unsigned char *block = malloc(1000000);
    size_t done = 0, turn = 0;

    while (done < total) {
        size_t len = sizes[turn++ % 5], i;

        if (len > total - done)
            len = total - done;
        for (i = 0; i < len; i++)
            block[i] = (unsigned char)((done + i) * 31 >> 3);
        CHECK_EQ(wsd_send(s, block, len, 0), (ssize_t)len);
        done += len;
    }
    free(block);
    return NULL;
}

static void *receiver(void *argument)
{
    int s = *(int *)argument;
    unsigned char *block = malloc(300000);
    size_t done = 0;

    while (done < total) {
        ssize_t got, i;

        /* Sometimes poll first, sometimes a small buffer. */
        if (done % 3 == 0)
            CHECK(events(s, POLLIN, -1) & POLLIN);
        got = wsd_recv(s, block, done % 2 ? 300000 : 1000, 0);
        CHECK(got > 0);
        for (i = 0; i < got; i++)
            if (block[i] != (unsigned char)((done + (size_t)i) * 31 >> 3))
                fail("byte %zu is wrong", done + (size_t)i);
        done += (size_t)got;
    }
    free(block);
    return NULL;
}

static void both_directions(void)
{
    struct pair two = connected();
    pthread_t threads[4];
    void *(*what[4])(void *) = {sender, receiver, sender, receiver};
    int *on[4] = {&two.a, &two.b, &two.b, &two.a};

    phase("both directions at once");
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, what[i], on[i]), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    part(two);
}

static void *wait_in_receive(void *argument)
{
    char byte;

    CHECK_ERRNO(wsd_recv(*(int *)argument, &byte, 1, 0), EBADF);
    return NULL;
}

static void *wait_in_accept(void *argument)
{
    CHECK_ERRNO(wsd_accept(*(int *)argument, NULL, NULL), EBADF);
    return NULL;
}

static void *wait_in_poll(void *argument)
{
    /* It may have been closed before the call. */
    CHECK(events(*(int *)argument, POLLIN, -1) & (POLLHUP | POLLNVAL | POLLIN));
    return NULL;
}

static void close_meanwhile(void)
{
    for (int round = 0; round < 20; round++) {
        struct pair two = connected();
        int listener = listening();
        pthread_t threads[3];

        phase("closing while others wait, round %d", round);
        CHECK_EQ(pthread_create(&threads[0], NULL, wait_in_receive, &two.a), 0);
        CHECK_EQ(pthread_create(&threads[1], NULL, wait_in_poll, &two.a), 0);
        CHECK_EQ(pthread_create(&threads[2], NULL, wait_in_accept, &listener), 0);
        sleep_ms((unsigned)round % 4 * 3);
        CHECK_EQ(wsd_close(two.a), 0);
        CHECK_EQ(wsd_close(listener), 0);
        for (int i = 0; i < 3; i++)
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
        CHECK_EQ(wsd_close(two.b), 0);
    }
}

static int shared[8];

static void *come_and_go(void *argument)
{
    unsigned seed = (unsigned)(size_t)argument;
    char byte;

    for (int i = 0; i < 3000; i++) {
        int at = rand_r(&seed) % 8;
        int s = __atomic_load_n(&shared[at], __ATOMIC_SEQ_CST);

        switch (rand_r(&seed) % 5) {
        case 0:
            __atomic_store_n(&shared[at], wsd_socket(AF_INET, SOCK_STREAM, 0), __ATOMIC_SEQ_CST);
            /* Left open by the others, if at all. */
            break;
        case 1:
            CHECK(wsd_recv(s, &byte, 1, MSG_DONTWAIT) == -1);
            CHECK(errno == EBADF || errno == ENOTCONN);
            break;
        case 2:
            (void)wsd_listen(s, 1);
            break;
        case 3:
            CHECK(events(s, POLLIN, 0) >= 0);
            break;
        default:
            (void)wsd_close(s);
        }
    }
    return NULL;
}

static void numbers_in_many_threads(void)
{
    pthread_t threads[4];

    phase("sockets that come and go");
    for (int i = 0; i < 8; i++)
        shared[i] = wsd_socket(AF_INET, SOCK_STREAM, 0);
    for (size_t i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, come_and_go, (void *)(i + 1)), 0);
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

int main(int argc, char **argv)
{
    begin("threads", argc, argv);
    case_limit(110);
    total = divided(32u << 20);
    both_directions();
    close_meanwhile();
    numbers_in_many_threads();
    return 0;
}

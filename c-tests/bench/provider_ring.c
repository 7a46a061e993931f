/*
 * What the provider adds to a ring: messages back and forth between two processes, from WSPSend to
 * WSPRecv through the table, both sides polling, beside a bare ring in shared memory of the same
 * two processes, taking turns. Prints the time of one way (half of a round trip) and the ratio; the
 * quartiles are over the rounds.
 *
 * usage: provider_ring [rounds [milliseconds of a slice]]
 *
 * The bare ring is as simple as a correct one can be: one producer, one consumer, slots with a
 * sequence number, room given back by a counter. It knows no interface, no connection and no
 * sleep: what is left when everything else costs nothing.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "pair.h"

enum { SLOTS = 64, LARGEST = 4096, RECEIVES = 8, MOST_ROUNDS = 101 };

static const DWORD sizes[] = {8, 64, 4096};

/* Between two looks at memory that another CPU writes. */
static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* ---- the bare ring ---- */

struct slot {
    _Alignas(64) _Atomic uint64_t sequence; /* which message lies here, counted from 1 */
    unsigned char bytes[LARGEST];
};

struct ring {
    _Alignas(128) _Atomic uint64_t consumed;
    struct slot slots[SLOTS];
};

struct ring_end {
    struct ring *out, *in;
    uint64_t sent, room_until, received;
};

static void ring_send(struct ring_end *end, const void *bytes, size_t length)
{
    struct slot *slot = &end->out->slots[end->sent % SLOTS];

    while (end->sent == end->room_until)
        end->room_until =
            atomic_load_explicit(&end->out->consumed, memory_order_acquire) + SLOTS;
    memcpy(slot->bytes, bytes, length);
    atomic_store_explicit(&slot->sequence, ++end->sent, memory_order_release);
}

static void ring_receive(struct ring_end *end, void *bytes, size_t length)
{
    struct slot *slot = &end->in->slots[end->received % SLOTS];

    end->received++;
    while (atomic_load_explicit(&slot->sequence, memory_order_acquire) != end->received)
        relax();
    memcpy(bytes, slot->bytes, length);
    atomic_store_explicit(&end->in->consumed, end->received, memory_order_release);
}

/* Two rings in memory that the other process opens by name; `first` makes it. */
static struct ring_end ring_open(char *name, size_t room, bool first)
{
    struct ring_end end = {0};
    struct ring *rings;
    int fd;

    if (first) {
        fd = memfd_create("bare ring", MFD_CLOEXEC);
        CHECK(fd >= 0 && ftruncate(fd, 2 * sizeof *rings) == 0);
        snprintf(name, room, "/proc/%d/fd/%d", (int)getpid(), fd);
    } else {
        fd = open(name, O_RDWR | O_CLOEXEC);
        CHECK(fd >= 0);
    }
    rings = mmap(NULL, 2 * sizeof *rings, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(rings != MAP_FAILED);
    end.out = &rings[first ? 0 : 1];
    end.in = &rings[first ? 1 : 0];
    end.room_until = SLOTS;
    return end;
}

/* ---- the provider ---- */

struct provider_end {
    SOCKET s;
    struct area send, receive;
    struct op sending[2], receiving[RECEIVES];
    WSABUF into[RECEIVES];
    unsigned next_send, next_receive;
};

/* Directly through the table: the harness's wrappers check each call, which takes time. */
static bool finished(SOCKET s, struct op *op, DWORD *bytes)
{
    DWORD flags = 0;
    int error = 0;

    if (san.table.lpWSPGetOverlappedResult(s, &op->ov, bytes, 0, &flags, &error))
        return true;
    CHECK_WSA(error, WSA_IO_INCOMPLETE);
    return false;
}

static void post_receive(struct provider_end *end, unsigned which)
{
    struct op *op = &end->receiving[which];
    DWORD bytes = 0, flags = 0;
    int error = 0;

    op->ov.Internal = 0;
    if (san.table.lpWSPRecv(end->s, &end->into[which], 1, &bytes, &flags, &op->ov, NULL, NULL,
                            &error) != 0)
        CHECK_WSA(error, WSA_IO_PENDING);
}

static void provider_send(struct provider_end *end, const void *bytes, size_t length)
{
    struct op *op = &end->sending[end->next_send];
    unsigned char *at = end->send.base + end->next_send * LARGEST;
    WSABUF piece = {(uint32_t)length, (char *)at};
    DWORD sent = 0;
    int error = 0;

    /* Its last use may still be under way. */
    while (op->posted == WSA_IO_PENDING && !finished(end->s, op, &sent))
        relax();
    memcpy(at, bytes, length);
    op->posted = 0;
    if (san.table.lpWSPSend(end->s, &piece, 1, &sent, 0, &op->ov, NULL, NULL, &error) != 0) {
        CHECK_WSA(error, WSA_IO_PENDING);
        op->posted = WSA_IO_PENDING;
    }
    end->next_send ^= 1;
}

static void provider_receive(struct provider_end *end, void *bytes, size_t length)
{
    unsigned which = end->next_receive;
    DWORD arrived = 0;

    while (!finished(end->s, &end->receiving[which], &arrived))
        relax();
    CHECK_EQ(arrived, length);
    memcpy(bytes, end->into[which].buf, length);
    post_receive(end, which);
    end->next_receive = (which + 1) % RECEIVES;
}

static void provider_open(struct provider_end *end, SOCKET s)
{
    memset(end, 0, sizeof *end);
    end->s = s;
    end->send = area_open(s, 2 * LARGEST, MEM_READ);
    end->receive = area_open(s, RECEIVES * LARGEST, MEM_WRITE);
    for (unsigned i = 0; i < 2; i++)
        op_init(&end->sending[i], POLL);
    for (unsigned i = 0; i < RECEIVES; i++) {
        op_init(&end->receiving[i], POLL);
        end->into[i] = (WSABUF){LARGEST, (char *)end->receive.base + i * LARGEST};
        post_receive(end, i);
    }
}

/* ---- both ---- */

struct wires {
    struct ring_end ring;
    struct provider_end provider;
};

enum wire { RING, PROVIDER, WIRES };

static void pass(struct wires *wires, enum wire wire, const void *bytes, size_t length)
{
    if (wire == RING)
        ring_send(&wires->ring, bytes, length);
    else
        provider_send(&wires->provider, bytes, length);
}

static void take(struct wires *wires, enum wire wire, void *bytes, size_t length)
{
    if (wire == RING)
        ring_receive(&wires->ring, bytes, length);
    else
        provider_receive(&wires->provider, bytes, length);
}

/* What the other process shall do: send everything back until a message begins with 1. */
struct order {
    int wire; /* or WIRES: end */
    DWORD size;
};

static int echo(void)
{
    union address to;
    char name[64];
    struct endpoint endpoint;
    struct wires wires;
    struct order order;
    static unsigned char message[LARGEST];

    case_begin("provider_ring, the other process");
    provider_start();
    parent_hear(&to, sizeof to);
    parent_hear(name, sizeof name);
    endpoint_open(&endpoint, to.any.sa_family);
    CHECK_OK(endpoint_connected(&endpoint, endpoint_connect(&endpoint, &to)));
    wires.ring = ring_open(name, sizeof name, false);
    provider_open(&wires.provider, endpoint.s);
    parent_tell("r", 1);
    for (;;) {
        parent_hear(&order, sizeof order);
        if (order.wire == WIRES)
            break;
        do {
            take(&wires, (enum wire)order.wire, message, order.size);
            pass(&wires, (enum wire)order.wire, message, order.size);
        } while (message[0] == 0);
    }
    endpoint_close(&endpoint);
    area_forget(&wires.provider.send);
    area_forget(&wires.provider.receive);
    provider_stop();
    return 0;
}

static double now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

/* One way, in ns, averaged over a slice. */
static double measure(struct wires *wires, struct child *child, enum wire wire, DWORD size,
                      double slice_ns)
{
    static unsigned char message[LARGEST];
    struct order order = {(int)wire, size};
    double start, elapsed;
    unsigned long trips = 0;

    child_tell(child, &order, sizeof order);
    message[0] = 0;
    for (int i = 0; i < 100; i++) {
        pass(wires, wire, message, size);
        take(wires, wire, message, size);
    }
    start = now_ns();
    do {
        for (int i = 0; i < 50; i++) {
            pass(wires, wire, message, size);
            take(wires, wire, message, size);
        }
        trips += 50;
        elapsed = now_ns() - start;
    } while (elapsed < slice_ns);
    message[0] = 1;
    pass(wires, wire, message, size);
    take(wires, wire, message, size);
    return elapsed / (double)trips / 2;
}

static int ascending(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;

    return (a > b) - (a < b);
}

/* Sorts; the value a quarter, half or three quarters up. */
static double quartile(double *values, int count, int quarter)
{
    qsort(values, (size_t)count, sizeof *values, ascending);
    return values[(count - 1) * quarter / 4];
}

int main(int argc, char **argv)
{
    bool other = argc == 2 && strcmp(argv[1], "echo") == 0;
    int rounds = !other && argc > 1 ? atoi(argv[1]) : 15;
    int slice_ms = !other && argc > 2 ? atoi(argv[2]) : 20;
    struct endpoint listener, accepted;
    struct child child;
    struct wires wires;
    struct order end = {WIRES, 0};
    char name[64] = "", ready;

    if (other && child_role(argc, argv) != NULL)
        return echo();
    case_begin("provider_ring");
    CHECK(rounds >= 1 && rounds <= MOST_ROUNDS && slice_ms >= 1 && slice_ms <= 1000);
    provider_start();
    endpoint_listen(&listener, AF_INET, 1);
    wires.ring = ring_open(name, sizeof name, true);
    child_start(&child, "echo");
    child_tell(&child, &listener.local, sizeof listener.local);
    child_tell(&child, name, sizeof name);
    endpoint_await_request(&listener);
    endpoint_accept(&listener, &accepted);
    provider_open(&wires.provider, accepted.s);
    child_hear(&child, &ready, 1);

    printf("one way, ns; %d rounds of %d ms\n%8s %12s %14s %30s\n", rounds, slice_ms, "bytes",
           "bare ring", "WSPSend/Recv", "ratio (quartiles)");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        double ring[MOST_ROUNDS], provider[MOST_ROUNDS], ratio[MOST_ROUNDS];

        phase("%u bytes", (unsigned)sizes[i]);
        for (int round = 0; round < rounds; round++) {
            ring[round] = measure(&wires, &child, RING, sizes[i], slice_ms * 1e6);
            provider[round] = measure(&wires, &child, PROVIDER, sizes[i], slice_ms * 1e6);
            ratio[round] = provider[round] / ring[round];
        }
        printf("%8u %12.1f %14.1f %14.2fx (%.2f to %.2f)\n", (unsigned)sizes[i],
               quartile(ring, rounds, 2), quartile(provider, rounds, 2),
               quartile(ratio, rounds, 2), quartile(ratio, rounds, 1),
               quartile(ratio, rounds, 3));
    }

    child_tell(&child, &end, sizeof end);
    child_finish(&child);
    endpoint_close(&accepted);
    area_forget(&wires.provider.send);
    area_forget(&wires.provider.receive);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}

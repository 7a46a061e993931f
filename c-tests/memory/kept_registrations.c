/*
 * A provider may keep memory registered that was deregistered. Nothing of that shows: memory that
 * was given back in part or whole, moved, emptied or shared with a child is moved as it is now;
 * rights are those asked for; and WSPMemoryRegistrationCacheCallback, where there is one, says what
 * became of what it names, also while others post.
 * req: WSD-12 LATER-04
 */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "violate.h"

enum { PAGE = 4096, PAGES = 16, LENGTH = PAGES * PAGE, ROUNDS = 12, LANES = 8, RACES = 40 };

/* A connection, and where what is sent over it arrives. Each is used by one thread. */
struct lane {
    struct pair pair;
    struct area target;
    unsigned char *base;
    unsigned number;
    pthread_t thread;
};

static struct lane lanes[LANES];

static void lane_open(struct lane *lane)
{
    pair_open(&lane->pair, AF_INET);
    lane->target = area_open(lane->pair.b.s, LENGTH, MEM_READWRITE);
}

static unsigned char *map_at(unsigned char *where, size_t length)
{
    unsigned char *base = mmap(where, length, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | (where != NULL ? MAP_FIXED : 0), -1,
                               0);

    CHECK(base != MAP_FAILED);
    return base;
}

/* Fills the memory, registers it, sends all of it in pieces, deregisters it. */
static void carry_over(struct lane *lane, unsigned char *base, uint32_t seed, const char *what)
{
    DWORD most = san.max_message < LENGTH ? san.max_message : LENGTH;
    HANDLE handle;

    pattern_fill(base, LENGTH, seed);
    CHECK_OK(san_register(lane->pair.a.s, base, LENGTH, MEM_READ, &handle));
    for (DWORD at = 0; at < LENGTH; at += most) {
        DWORD bytes = LENGTH - at < most ? LENGTH - at : most;
        struct op send, recv;

        op_init(&recv, POLL);
        CHECK_POSTED(san_recv_bytes(lane->pair.b.s, lane->target.base, LENGTH, &recv));
        op_init(&send, POLL);
        CHECK_POSTED(san_send_bytes(lane->pair.a.s, base + at, bytes, &send));
        CHECK_OK(op_wait(lane->pair.a.s, &send));
        CHECK_OK(op_wait(lane->pair.b.s, &recv));
        pattern_check_from(lane->target.base, bytes, seed, at, what);
    }
    CHECK_OK(san_deregister(lane->pair.a.s, handle));
}

static void carry(unsigned char *base, uint32_t seed, const char *what)
{
    carry_over(&lanes[0], base, seed, what);
}

/* The code of the callback, 0 for success. */
static int released(void *base, size_t length)
{
    int code = 0;
    int rc = san.cache_callback(base, length, &code);

    CHECK(rc == 0 || rc == SOCKET_ERROR);
    return rc == 0 ? 0 : code;
}

static void callback_tells(unsigned char *base)
{
    HANDLE handle;

    CHECK_EQ(released(base, LENGTH), WSAEINVAL);
    carry(base, 100, "before the callback");
    CHECK_EQ(released(base + 5 * PAGE + 3, 1), 0); /* a part is enough */
    CHECK_EQ(released(base, LENGTH), WSAEINVAL);
    CHECK_OK(san_register(lanes[0].pair.a.s, base, LENGTH, MEM_READ, &handle));
    CHECK_EQ(released(base, LENGTH), WSAEFAULT);
    CHECK_OK(san_deregister(lanes[0].pair.a.s, handle));
    CHECK_EQ(released(base, LENGTH), WSAEINVAL); /* it ended with its last use */
    CHECK_EQ(released(base, 0), WSAEINVAL);
    carry(base, 101, "after the callback");
}

static unsigned over;

static void *tells_on(void *unused)
{
    (void)unused;
    for (unsigned turn = 0; !__atomic_load_n(&over, __ATOMIC_ACQUIRE); turn++) {
        int code = released(lanes[turn % LANES].base, LENGTH);

        CHECK(code == 0 || code == WSAEINVAL || code == WSAEFAULT);
    }
    return NULL;
}

static void *carries_on(void *context)
{
    struct lane *lane = (struct lane *)context;

    for (uint32_t round = 0; round < RACES; round++)
        carry_over(lane, lane->base, 6000 + 1000 * lane->number + round,
                   "memory named by the callback meanwhile");
    return NULL;
}

int main(void)
{
    unsigned char *base, *moved;
    struct window window;
    pthread_t thread;

    case_begin("kept_registrations");
    provider_start();
    lane_open(&lanes[0]);
    base = map_at(NULL, LENGTH);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        size_t at = (round % PAGES) * PAGE;

        phase("round %u", round);
        carry(base, 10 * round, "the memory as it was");
        /* Moved away, and other memory in its place. */
        moved = map_at(NULL, LENGTH);
        CHECK(mremap(base, LENGTH, LENGTH, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
        map_at(base, LENGTH);
        carry(base, 10 * round + 1, "memory in the place of what was moved");
        carry(moved, 10 * round + 2, "memory that was moved");
        CHECK_EQ(munmap(moved, LENGTH), 0);
        /* A hole in the middle, filled with another page. */
        CHECK_EQ(munmap(base + at, PAGE), 0);
        map_at(base + at, PAGE);
        carry(base, 10 * round + 3, "memory with a page mapped anew");
        CHECK_EQ(madvise(base, LENGTH, MADV_DONTNEED), 0);
        carry(base, 10 * round + 4, "memory that was emptied");
        CHECK_EQ(munmap(base, LENGTH), 0);
        map_at(base, LENGTH);
    }
    phase("a child");
    carry(base, 5000, "memory before a fork");
    {
        int stop[2], status;
        pid_t child;
        char byte;

        CHECK_EQ(pipe(stop), 0);
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            close(stop[1]);
            _exit(read(stop[0], &byte, 1) == 0 ? 0 : 1);
        }
        close(stop[0]);
        /* Each first write goes to a page of its own while the child has the old one. */
        carry(base, 5001, "memory that a child shares");
        close(stop[1]);
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK_EQ(status, 0);
        carry(base, 5002, "memory that a child shared");
    }
    if (san.cache_callback != NULL) {
        phase("the callback");
        callback_tells(map_at(NULL, LENGTH));
        lanes[0].base = base;
        for (unsigned i = 1; i < LANES; i++) {
            lane_open(&lanes[i]);
            lanes[i].base = map_at(NULL, LENGTH);
            lanes[i].number = i;
        }
        CHECK_EQ(pthread_create(&thread, NULL, tells_on, NULL), 0);
        for (unsigned i = 0; i < LANES; i++)
            CHECK_EQ(pthread_create(&lanes[i].thread, NULL, carries_on, &lanes[i]), 0);
        for (unsigned i = 0; i < LANES; i++)
            CHECK_EQ(pthread_join(lanes[i].thread, NULL), 0);
        for (unsigned i = 1; i < LANES; i++) {
            area_close(&lanes[i].target);
            pair_close(&lanes[i].pair);
        }
        __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
        CHECK_EQ(pthread_join(thread, NULL), 0);
    }
    CHECK_OK(san_deregister(lanes[0].pair.b.s, lanes[0].target.handle));

    /* Registered for everything until now, exposed for reading: it is not written to. */
    memset(&window, 0, sizeof window);
    window.s = lanes[0].pair.b.s;
    window.base = lanes[0].target.base;
    window.length = LENGTH;
    window.descriptor_length = sizeof window.descriptor;
    CHECK_OK(san_register_rdma(lanes[0].pair.b.s, lanes[0].target.base, LENGTH, MEM_READ, window.descriptor,
                               &window.descriptor_length));
    memset(lanes[0].target.base, 0x11, LENGTH);
    violate_write(&lanes[0].pair, &window, 0, 100, POLL, "a write to what is exposed for reading");
    bytes_check(lanes[0].target.base, LENGTH, 0x11, "what is exposed for reading");
    area_forget(&lanes[0].target);
    pair_close(&lanes[0].pair);
    provider_stop();
    return 0;
}

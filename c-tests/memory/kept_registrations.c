/*
 * A provider may keep memory registered that was deregistered. Nothing of that shows: memory that
 * was given back in part or whole, moved, emptied or shared with a child is moved as it is now;
 * rights are those asked for.
 * req: WSD-12 LATER-04
 */
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lane.h"
#include "violate.h"

enum { ROUNDS = 12 };

static struct lane lane;

static void carry(unsigned char *base, uint32_t seed, const char *what)
{
    lane_carry(&lane, base, seed, what);
}

int main(void)
{
    unsigned char *base, *moved;
    struct window window;

    case_begin("kept_registrations");
    provider_start();
    lane_open(&lane);
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
    CHECK_OK(san_deregister(lane.pair.b.s, lane.target.handle));

    /* Registered for everything until now, exposed for reading: it is not written to. */
    memset(&window, 0, sizeof window);
    window.s = lane.pair.b.s;
    window.base = lane.target.base;
    window.length = LENGTH;
    window.descriptor_length = sizeof window.descriptor;
    CHECK_OK(san_register_rdma(lane.pair.b.s, lane.target.base, LENGTH, MEM_READ, window.descriptor,
                               &window.descriptor_length));
    memset(lane.target.base, 0x11, LENGTH);
    violate_write(&lane.pair, &window, 0, 100, POLL, "a write to what is exposed for reading");
    bytes_check(lane.target.base, LENGTH, 0x11, "what is exposed for reading");
    area_forget(&lane.target);
    pair_close(&lane.pair);
    provider_stop();
    return 0;
}

/* Connections over which memory is carried that is registered anew each time. */
#ifndef WSD_CASE_LANE_H
#define WSD_CASE_LANE_H

#include <sys/mman.h>

#include "pair.h"

enum { PAGE = 4096, PAGES = 16, LENGTH = PAGES * PAGE };

/* A connection, and where what is sent over it arrives. Used by one thread. */
struct lane {
    struct pair pair;
    struct area target;
};

static inline void lane_open(struct lane *lane)
{
    pair_open(&lane->pair, AF_INET);
    lane->target = area_open(lane->pair.b.s, LENGTH, MEM_READWRITE);
}

static inline unsigned char *map_at(unsigned char *where, size_t length)
{
    unsigned char *base = mmap(where, length, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | (where != NULL ? MAP_FIXED : 0), -1,
                               0);

    CHECK(base != MAP_FAILED);
    return base;
}

/* Fills the memory, registers it, sends all of it in pieces, deregisters it. */
static inline void lane_carry(struct lane *lane, unsigned char *base, uint32_t seed, const char *what)
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

static inline void lane_close(struct lane *lane)
{
    area_close(&lane->target);
    pair_close(&lane->pair);
}

#endif

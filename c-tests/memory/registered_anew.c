/*
 * Memory that was given back to the system and mapped anew at the same address, with other
 * contents, is what a new registration moves: nothing of the old pages lives on.
 * req: WSD-12
 */
#include <string.h>
#include <sys/mman.h>

#include "pair.h"

enum { LENGTH = 64 * 1024, ROUNDS = 20 };

static unsigned char *map_at(unsigned char *where)
{
    unsigned char *base = mmap(where, LENGTH, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | (where != NULL ? MAP_FIXED : 0), -1,
                               0);

    CHECK(base != MAP_FAILED);
    return base;
}

int main(void)
{
    unsigned char *base = NULL;
    unsigned char descriptor[DESCRIPTOR_ROOM];
    struct area target;
    struct pair pair;
    struct op op;

    case_begin("registered_anew");
    provider_start();
    pair_open(&pair, AF_INET);
    target = area_open(pair.b.s, LENGTH, MEM_READWRITE);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        WSABUFEX piece = {LENGTH, (char *)target.base, target.handle};
        DWORD length = sizeof descriptor;
        HANDLE handle;

        phase("round %u", round);
        base = map_at(base);
        pattern_fill(base, LENGTH, round);
        CHECK_OK(san_register(pair.a.s, base, LENGTH, MEM_READ, &handle));
        {
            DWORD bytes = san.max_message < 1000 ? san.max_message : 1000;
            struct op recv;

            op_init(&recv, POLL);
            CHECK_POSTED(san_recv_bytes(pair.b.s, target.base, LENGTH, &recv));
            op_init(&op, POLL);
            CHECK_POSTED(san_send_bytes(pair.a.s, base, bytes, &op));
            CHECK_OK(op_wait(pair.a.s, &op));
            CHECK_OK(op_wait(pair.b.s, &recv));
            pattern_check(target.base, bytes, round, "the message from memory mapped anew");
        }
        CHECK_OK(san_deregister(pair.a.s, handle));
        CHECK_OK(san_register_rdma(pair.a.s, base, LENGTH, MEM_READWRITE, descriptor, &length));
        if (san.rdma_read != NULL) {
            op_init(&op, POLL);
            CHECK_POSTED(san_rdma_read(pair.b.s, &piece, 1, descriptor, length, 0, &op));
            CHECK_OK(op_wait(pair.b.s, &op));
            pattern_check(target.base, LENGTH, round, "the read of memory mapped anew");
        }
        memset(target.base, 0x40 + (int)round, LENGTH);
        op_init(&op, POLL);
        CHECK_POSTED(san_rdma_write(pair.b.s, &piece, 1, descriptor, length, 0, &op));
        CHECK_OK(op_wait(pair.b.s, &op));
        pair_exchange(&pair);
        bytes_check(base, LENGTH, (unsigned char)(0x40 + round), "memory mapped anew");
        CHECK_OK(san_deregister_rdma(pair.a.s, descriptor, length));
        CHECK_EQ(munmap(base, LENGTH), 0);
    }
    area_close(&target);
    pair_close(&pair);
    provider_stop();
    return 0;
}

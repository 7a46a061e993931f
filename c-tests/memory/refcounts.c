/*
 * A region that was registered n times is released by n deregistrations, not before; one more is
 * WSAEINVAL. The same for memory that the peer may reach: it can until the last one.
 * req: WSD-12
 */
#include <string.h>

#include "pair.h"

enum { TIMES = 4, LENGTH = 300 };

static void local_memory(struct pair *pair)
{
    struct memory memory = memory_new(LENGTH);
    struct area in = area_open(pair->b.s, LENGTH, MEM_WRITE);
    HANDLE handles[TIMES];
    struct op send, recv;

    for (int i = 0; i < TIMES; i++)
        CHECK_OK(san_register(pair->a.s, memory.base, LENGTH, MEM_READ, &handles[i]));
    for (int i = 0; i < TIMES; i++) {
        phase("local memory, registered %d times more", TIMES - i);
        pattern_fill(memory.base, LENGTH, (uint32_t)i);
        op_init(&recv, POLL);
        op_init(&send, POLL);
        CHECK_POSTED(san_recv_bytes(pair->b.s, in.base, LENGTH, &recv));
        CHECK_POSTED(san_send_bytes(pair->a.s, memory.base, LENGTH, &send));
        CHECK_OK(op_wait(pair->a.s, &send));
        CHECK_OK(op_wait(pair->b.s, &recv));
        pattern_check(in.base, LENGTH, (uint32_t)i, "a message");
        CHECK_OK(san_deregister(pair->a.s, handles[i]));
    }
    phase("local memory, registered no more");
    op_init(&send, NOTIFY);
    CHECK_WSA(san_send_bytes(pair->a.s, memory.base, LENGTH, &send), WSAEFAULT);
    for (int i = 0; i < TIMES; i++)
        CHECK_WSA(san_deregister(pair->a.s, handles[i]), WSAEINVAL);
    area_close(&in);
    memory_free(&memory);
}

static void exposed_memory(struct pair *pair)
{
    unsigned char descriptors[TIMES][DESCRIPTOR_ROOM];
    struct memory memory = memory_new(LENGTH);
    struct area out = area_open(pair->a.s, LENGTH, MEM_READ);
    struct window window;
    DWORD length = 0;
    struct op op;

    for (int i = 0; i < TIMES; i++) {
        length = DESCRIPTOR_ROOM;
        CHECK_OK(san_register_rdma(pair->b.s, memory.base, LENGTH, MEM_WRITE, descriptors[i],
                                   &length));
    }
    memset(&window, 0, sizeof window);
    window.base = memory.base;
    window.descriptor_length = length;
    for (int i = 0; i < TIMES; i++) {
        phase("exposed memory, registered %d times more", TIMES - i);
        memcpy(window.descriptor, descriptors[TIMES - 1], length);
        pattern_fill(out.base, LENGTH, 100 + (uint32_t)i);
        op_init(&op, POLL);
        CHECK_POSTED(area_write(&out, 0, LENGTH, &window, 0, &op));
        CHECK_OK(op_wait(pair->a.s, &op));
        pair_exchange(pair);
        pattern_check(memory.base, LENGTH, 100 + (uint32_t)i, "the written memory");
        CHECK_OK(san_deregister_rdma(pair->b.s, descriptors[i], length));
    }
    phase("exposed memory, registered no more");
    for (int i = 0; i < TIMES; i++)
        CHECK_WSA(san_deregister_rdma(pair->b.s, descriptors[i], length), WSAEINVAL);
    area_close(&out);
    memory_free(&memory);
}

int main(void)
{
    struct pair pair;

    case_begin("refcounts");
    provider_start();
    pair_open(&pair, AF_INET);
    local_memory(&pair);
    exposed_memory(&pair);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}

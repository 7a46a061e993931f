/*
 * What the provider says of itself holds: a message of SO_MAX_MSG_SIZE, a write and a read of
 * SO_MAX_RDMA_SIZE (as far as memory goes), a descriptor length that is the same for every region.
 * req: WSD-01 WSD-04
 */
#include "pair.h"

/* More than this is not tried. */
#define MOST (64u << 20)

int main(void)
{
    struct pair pair;
    struct area area;
    struct window window;
    struct op op;
    DWORD length, room;
    unsigned char descriptor[DESCRIPTOR_ROOM];
    struct memory memory;

    case_begin("caps_are_true");
    provider_start();
    CHECK(san.max_message >= 256);
    CHECK(san.max_rdma > 0);
    CHECK(san.threshold > 0);
    pair_open(&pair, AF_INET);

    length = san.max_message < MOST ? san.max_message : MOST;
    phase("a message of %u bytes", length);
    message_pass(&pair.a, &pair.b, length, 21);
    message_pass(&pair.b, &pair.a, length, 22);

    length = san.max_rdma < MOST ? san.max_rdma : MOST;
    phase("a write of %u bytes", length);
    window = window_open(pair.b.s, length, MEM_READWRITE);
    area = area_open(pair.a.s, length, MEM_READWRITE);
    pattern_fill(area.base, length, 23);
    op_init(&op, POLL);
    CHECK_POSTED(area_write(&area, 0, length, &window, 0, &op));
    CHECK_OK(op_wait(pair.a.s, &op));
    CHECK_EQ(op.bytes, length);
    pair_exchange(&pair);
    pattern_check(window.base, length, 23, "the written memory");
    if (san.rdma_read != NULL) {
        phase("a read of %u bytes", length);
        pattern_fill(window.base, length, 24);
        op_init(&op, POLL);
        CHECK_POSTED(area_read(&area, 0, length, &window, 0, &op));
        CHECK_OK(op_wait(pair.a.s, &op));
        CHECK_EQ(op.bytes, length);
        pattern_check(area.base, length, 24, "the memory read");
    }
    area_close(&area);
    window_close(&window);

    phase("descriptor lengths");
    memory = memory_new(1 << 20);
    for (DWORD size = 1; size <= 1 << 20; size *= 4)
        for (DWORD rights = MEM_READ; rights <= MEM_READWRITE; rights++) {
            DWORD first = 0;

            CHECK_WSA(san_register_rdma(pair.b.s, memory.base, size, rights, descriptor, &first),
                      WSAEFAULT);
            CHECK(first > 0 && first <= sizeof descriptor);
            room = first;
            CHECK_OK(san_register_rdma(pair.b.s, memory.base, size, rights, descriptor, &room));
            CHECK_EQ(room, first);
            CHECK_OK(san_deregister_rdma(pair.b.s, descriptor, room));
        }
    memory_free(&memory);
    pair_close(&pair);
    provider_stop();
    return 0;
}

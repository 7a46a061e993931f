/*
 * A descriptor room that is too small, 0 as the probe, is WSAEFAULT with the needed length, and
 * nothing is registered; exactly that length works, and more room reports the length used.
 * req: WSD-15
 */
#include <string.h>

#include "pair.h"

enum { LENGTH = 256 };

int main(void)
{
    unsigned char room[2 * DESCRIPTOR_ROOM];
    struct memory memory;
    struct pair pair;
    DWORD needed = 0, length;
    int code;

    case_begin("descriptor_probe");
    provider_start();
    pair_open(&pair, AF_INET);
    memory = memory_new(LENGTH);

    phase("no room");
    CHECK_WSA(san_register_rdma(pair.a.s, memory.base, LENGTH, MEM_READ, room, &needed),
              WSAEFAULT);
    CHECK(needed > 0 && needed <= DESCRIPTOR_ROOM);
    phase("no room and no pointer");
    length = 0;
    CHECK_WSA(san_register_rdma(pair.a.s, memory.base, LENGTH, MEM_READ, NULL, &length),
              WSAEFAULT);
    CHECK_EQ(length, needed);

    for (DWORD small = 0; small < needed; small++) {
        phase("room %u of %u", small, needed);
        memset(room, 0xAA, sizeof room);
        length = small;
        CHECK_WSA(san_register_rdma(pair.a.s, memory.base, LENGTH, MEM_READ, room, &length),
                  WSAEFAULT);
        CHECK_EQ(length, needed);
        bytes_check(room, sizeof room, 0xAA, "the room of a failed probe");
    }

    phase("exactly the room");
    memset(room, 0xAA, sizeof room);
    length = needed;
    CHECK_OK(san_register_rdma(pair.a.s, memory.base, LENGTH, MEM_READ, room, &length));
    CHECK_EQ(length, needed);
    bytes_check(room + needed, sizeof room - needed, 0xAA, "the memory behind the descriptor");
    CHECK_OK(san_deregister_rdma(pair.a.s, room, needed));
    /* Once registered, once deregistered: the probes had registered nothing. */
    CHECK_WSA(san_deregister_rdma(pair.a.s, room, needed), WSAEINVAL);

    phase("more room");
    memset(room, 0xAA, sizeof room);
    length = sizeof room;
    CHECK_OK(san_register_rdma(pair.a.s, memory.base, LENGTH, MEM_WRITE, room, &length));
    CHECK_EQ(length, needed);
    bytes_check(room + needed, sizeof room - needed, 0xAA, "the memory behind the descriptor");
    code = san_deregister_rdma(pair.a.s, room, sizeof room);
    CHECK_WSA_IN(code, WSAEINVAL, WSAEFAULT);
    CHECK_OK(san_deregister_rdma(pair.a.s, room, needed));
    memory_free(&memory);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}

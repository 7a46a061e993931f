/*
 * Deregistering what was never registered, or is no more, is WSAEINVAL: handles and descriptors
 * made up, changed, used twice.
 * req: WSD-12
 */
#include <string.h>

#include "pair.h"

int main(void)
{
    struct area area;
    struct window window;
    struct pair pair;
    unsigned char changed[DESCRIPTOR_ROOM];
    uintptr_t value;

    case_begin("unknown_handle");
    provider_start();
    pair_open(&pair, AF_INET);
    area = area_open(pair.a.s, 64, MEM_READWRITE);
    window = window_open(pair.a.s, 64, MEM_READWRITE);
    value = (uintptr_t)area.handle;

    phase("made up handles");
    CHECK_WSA(san_deregister(pair.a.s, (HANDLE)(uintptr_t)1), WSAEINVAL);
    CHECK_WSA(san_deregister(pair.a.s, (HANDLE) ~(uintptr_t)0), WSAEINVAL);
    CHECK_WSA(san_deregister(pair.a.s, (HANDLE)&area), WSAEINVAL);
    CHECK_WSA(san_deregister(pair.a.s, (HANDLE)(uintptr_t)pair.a.s), WSAEINVAL);
    for (int bit = 0; bit < 64; bit++)
        CHECK_WSA(san_deregister(pair.a.s, (HANDLE)(value ^ ((uintptr_t)1 << bit))), WSAEINVAL);

    phase("changed descriptors");
    for (DWORD byte = 0; byte < window.descriptor_length; byte++) {
        memcpy(changed, window.descriptor, sizeof changed);
        changed[byte] ^= 0x5A;
        CHECK_WSA(san_deregister_rdma(pair.a.s, changed, window.descriptor_length), WSAEINVAL);
    }
    memset(changed, 0, sizeof changed);
    CHECK_WSA(san_deregister_rdma(pair.a.s, changed, window.descriptor_length), WSAEINVAL);
    memset(changed, 0xFF, sizeof changed);
    CHECK_WSA(san_deregister_rdma(pair.a.s, changed, window.descriptor_length), WSAEINVAL);

    phase("twice");
    CHECK_OK(san_deregister(pair.a.s, area.handle));
    CHECK_WSA(san_deregister(pair.a.s, area.handle), WSAEINVAL);
    CHECK_OK(san_deregister_rdma(pair.a.s, window.descriptor, window.descriptor_length));
    CHECK_WSA(san_deregister_rdma(pair.a.s, window.descriptor, window.descriptor_length),
              WSAEINVAL);

    phase("the old ones beside new ones");
    {
        struct area newer = area_open(pair.a.s, 64, MEM_READWRITE);
        struct window wider = window_open(pair.a.s, 64, MEM_READWRITE);

        CHECK_WSA(san_deregister(pair.a.s, area.handle), WSAEINVAL);
        CHECK_WSA(san_deregister_rdma(pair.a.s, window.descriptor, window.descriptor_length),
                  WSAEINVAL);
        area_close(&newer);
        window_close(&wider);
    }
    area_forget(&area);
    window_forget(&window);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}

/*
 * Rights other than the three are WSAEINVAL and register nothing.
 * req: WSD-12
 */
#include "pair.h"

int main(void)
{
    static const DWORD bad[] = {0, 4, 5, 7, 8, 0x80000000u, 0xFFFFFFFFu};
    unsigned char descriptor[DESCRIPTOR_ROOM];
    struct memory memory;
    struct pair pair;
    HANDLE handle;
    DWORD length;

    case_begin("bad_flags");
    provider_start();
    pair_open(&pair, AF_INET);
    memory = memory_new(100);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        phase("rights 0x%x", bad[i]);
        CHECK_WSA(san_register(pair.a.s, memory.base, 100, bad[i], &handle), WSAEINVAL);
        CHECK(handle == NULL);
        length = sizeof descriptor;
        CHECK_WSA(san_register_rdma(pair.a.s, memory.base, 100, bad[i], descriptor, &length),
                  WSAEINVAL);
    }
    for (DWORD rights = MEM_READ; rights <= MEM_READWRITE; rights++) {
        phase("rights %u", rights);
        CHECK_OK(san_register(pair.a.s, memory.base, 100, rights, &handle));
        CHECK_OK(san_deregister(pair.a.s, handle));
        length = sizeof descriptor;
        CHECK_OK(san_register_rdma(pair.a.s, memory.base, 100, rights, descriptor, &length));
        CHECK_OK(san_deregister_rdma(pair.a.s, descriptor, length));
    }
    memory_free(&memory);
    pair_exchange(&pair);
    pair_close(&pair);
    provider_stop();
    return 0;
}

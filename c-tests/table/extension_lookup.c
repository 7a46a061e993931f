/*
 * Extension functions are fetched by GUID with any socket value; the five required ones are there,
 * the two optional ones are there or WSAEOPNOTSUPP, an unknown GUID is WSAEINVAL, and too little
 * room is WSAEFAULT.
 * req: WSD-04
 */
#include <string.h>

#include "provider.h"

static DWORD returned;

static int lookup(SOCKET s, const void *guid, DWORD guid_length, void *out, DWORD out_length)
{
    returned = 0;
    return san_ioctl(s, SIO_GET_EXTENSION_FUNCTION_POINTER, (void *)(uintptr_t)guid, guid_length,
                     out, out_length, &returned);
}

int main(void)
{
    static const GUID *const required[] = {&guid_register_memory, &guid_deregister_memory,
                                           &guid_register_rdma_memory,
                                           &guid_deregister_rdma_memory, &guid_rdma_write};
    static const GUID *const optional[] = {&guid_rdma_read, &guid_cache_callback};
    SOCKET sockets[] = {INVALID_SOCKET, 0, 1, (SOCKET)0xDEADBEEF, (SOCKET)0x5A000001, 0, 0};
    const size_t count = sizeof sockets / sizeof sockets[0];
    GUID unknown = {0x01020304, 0x0506, 0x0708, {9, 10, 11, 12, 13, 14, 15, 16}};
    GUID zero = {0, 0, 0, {0}};
    unsigned char room[24];
    void *first, *again;
    int code;

    case_begin("extension_lookup");
    provider_start();
    CHECK_OK(san_socket(AF_INET, &sockets[count - 2], NULL));
    CHECK_OK(san_socket(AF_INET, &sockets[count - 1], NULL));
    CHECK_OK(san_close(sockets[count - 1])); /* a closed one */

    for (size_t i = 0; i < count; i++) {
        phase("socket value %#llx", (unsigned long long)sockets[i]);
        for (size_t k = 0; k < sizeof required / sizeof required[0]; k++) {
            CHECK_OK(san_extension(sockets[i], required[k], &first));
            CHECK_OK(san_extension(INVALID_SOCKET, required[k], &again));
            CHECK(first == again);
        }
        for (size_t k = 0; k < sizeof optional / sizeof optional[0]; k++)
            CHECK_WSA_IN(san_extension(sockets[i], optional[k], &first), 0, WSAEOPNOTSUPP);
        CHECK_WSA(san_extension(sockets[i], &unknown, &first), WSAEINVAL);
        CHECK(first == NULL);
        CHECK_WSA(san_extension(sockets[i], &zero, &first), WSAEINVAL);
    }

    phase("one GUID per function");
    for (size_t i = 0; i < 5; i++)
        for (size_t k = 0; k < i; k++) {
            CHECK_OK(san_extension(INVALID_SOCKET, required[i], &first));
            CHECK_OK(san_extension(INVALID_SOCKET, required[k], &again));
            CHECK(first != again);
        }

    phase("lengths");
    memset(room, 0xAA, sizeof room);
    CHECK_OK(lookup(INVALID_SOCKET, &guid_rdma_write, sizeof(GUID), room, sizeof room));
    CHECK_EQ(returned, sizeof(void *));
    for (size_t i = sizeof(void *); i < sizeof room; i++)
        CHECK_EQ(room[i], 0xAA);
    memset(room, 0xAA, sizeof room);
    for (DWORD small = 0; small < sizeof(void *); small++) {
        CHECK_WSA(lookup(INVALID_SOCKET, &guid_rdma_write, sizeof(GUID), room, small), WSAEFAULT);
        CHECK_EQ(room[0], 0xAA);
    }
    for (DWORD small = 0; small < sizeof(GUID); small++)
        CHECK_WSA_IN(lookup(INVALID_SOCKET, &guid_rdma_write, small, room, sizeof room), WSAEFAULT,
                     WSAEINVAL);

    phase("null pointers");
    CHECK_WSA_IN(lookup(INVALID_SOCKET, NULL, sizeof(GUID), room, sizeof room), WSAEFAULT,
                 WSAEINVAL);
    CHECK_WSA(lookup(INVALID_SOCKET, &guid_rdma_write, sizeof(GUID), NULL, sizeof room), WSAEFAULT);
    code = san_ioctl(INVALID_SOCKET, SIO_GET_EXTENSION_FUNCTION_POINTER,
                     (void *)(uintptr_t)&guid_rdma_write, sizeof(GUID), &first, sizeof first, NULL);
    CHECK_WSA_IN(code, 0, WSAEFAULT);

    CHECK_OK(san_close(sockets[count - 2]));
    provider_stop();
    return 0;
}

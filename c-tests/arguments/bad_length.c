/*
 * Lengths and counts that do not fit are answered with an error code of the interface: too short
 * and negative addresses, short option buffers, pieces beyond a registration, counts without end,
 * regions that are not wholly in the address space.
 * req: WSD-05 WSD-06 WSD-13
 */
#include <string.h>
#include <sys/mman.h>

#include "calls.h"

static struct pair pair;
static struct material material;
static struct op op;

static void addresses(void)
{
    static const int short_lengths[] = {0, 1, 8, 15, -1, -2147483647 - 1};
    struct endpoint target, client;
    union address storage;
    SOCKET s, accepted;
    int begun, code, length;

    endpoint_listen(&target, AF_INET, 4);
    endpoint_open(&client, AF_INET);
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    for (size_t i = 0; i < sizeof short_lengths / sizeof short_lengths[0]; i++) {
        phase("an address of length %d", short_lengths[i]);
        CHECK_WSA(san_bind(s, &client.local, short_lengths[i]), WSAEFAULT);
        CHECK_WSA(san_connect(client.s, &target.local, short_lengths[i]), WSAEFAULT);
    }
    /* The socket was not bound by any of that. */
    CHECK_WSA(san_listen(s, 4), WSAEINVAL);
    CHECK_OK(san_close(s));

    begun = endpoint_connect(&client, &target.local);
    CHECK_WSA_IN(begun, 0, WSAEWOULDBLOCK);
    endpoint_await_request(&target);
    for (size_t i = 0; i < sizeof short_lengths / sizeof short_lengths[0]; i++) {
        phase("WSPAccept with room %d", short_lengths[i]);
        length = short_lengths[i];
        code = 0;
        accepted = san.table.lpWSPAccept(target.s, &storage.any, &length, accept_always, 0, &code);
        CHECK(accepted == INVALID_SOCKET);
        CHECK_WSA(code, WSAEFAULT);
    }
    phase("the request is still there");
    {
        struct endpoint other;

        endpoint_accept(&target, &other);
        CHECK_OK(endpoint_connected(&client, begun));
        endpoint_close(&other);
    }
    endpoint_close(&client);
    endpoint_close(&target);
}

static void option_values(void)
{
    static const int names[] = {SO_MAX_MSG_SIZE, SO_MAX_RDMA_SIZE, SO_RDMA_THRESHOLD_SIZE};
    unsigned char room[16];
    int length, code;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (int small = -1; small < 4; small++) {
            phase("option 0x%x with room %d", (unsigned)names[i], small);
            memset(room, 0xAA, sizeof room);
            length = small;
            code = san_getsockopt(pair.a.s, WSD_SOL_SOCKET, names[i], room, &length);
            if (code == WSAENOPROTOOPT)
                break;
            CHECK_WSA(code, WSAEFAULT);
            bytes_check(room, sizeof room, 0xAA, "the room of a failed WSPGetSockOpt");
            CHECK_EQ(length, 4);
        }
    for (int small = -1; small < 4; small++) {
        phase("SO_DEBUG with length %d", small);
        memset(room, 0, sizeof room);
        CHECK_WSA_IN(san_setsockopt(pair.a.s, WSD_SOL_SOCKET, WSD_SO_DEBUG, room, small), WSAEFAULT,
                     WSAEINVAL, WSAENOPROTOOPT);
    }
}

/* Refused at once, or started and then failed; either way an error and no byte moved. */
static void pieces(void)
{
    unsigned char *base = material.memory.base;
    const DWORD length = (DWORD)material.memory.length;
    WSABUF beyond[] = {{length + 1, (char *)base},
                       {length, (char *)base + 1},
                       {1, (char *)base + length},
                       {1, (char *)base - 1},
                       {0xFFFFFFFFu, (char *)base},
                       {0xFFFFFFFFu, (char *)~(uintptr_t)0 - 8}};
    WSABUF many[64];

    for (size_t i = 0; i < sizeof beyond / sizeof beyond[0]; i++) {
        phase("a piece beyond its registration, %zu", i);
        op_init(&op, NOTIFY);
        CHECK_WSA_IN(san_send(pair.a.s, &beyond[i], 1, &op), WSAEFAULT, WSAEMSGSIZE);
        op_init(&op, NOTIFY);
        CHECK_WSA_IN(san_recv(pair.a.s, &beyond[i], 1, &op), WSAEFAULT, WSAEMSGSIZE);
    }
    phase("lengths whose sum overflows");
    for (size_t i = 0; i < 64; i++) {
        many[i].len = 0xFFFFFFFFu;
        many[i].buf = (char *)base;
    }
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(san_send(pair.a.s, many, 2, &op), WSAEFAULT, WSAEMSGSIZE, WSAEINVAL);
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(san_send(pair.a.s, many, 64, &op), WSAEFAULT, WSAEMSGSIZE, WSAEINVAL);
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(san_recv(pair.a.s, many, 64, &op), WSAEFAULT, WSAEMSGSIZE, WSAEINVAL);

    phase("counts without end");
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(san_send(pair.a.s, many, 0xFFFFFFFFu, &op), WSAEFAULT, WSAEMSGSIZE, WSAEINVAL);
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(san_recv(pair.a.s, many, 0xFFFFFFFFu, &op), WSAEFAULT, WSAEMSGSIZE, WSAEINVAL);
    CHECK_EQ(op_upcalls(&op), 0);
}

static void descriptors(void)
{
    struct area local = area_open(pair.b.s, 8, MEM_READWRITE);
    WSABUFEX piece = {8, (char *)local.base, local.handle};
    unsigned char padded[2 * DESCRIPTOR_ROOM];
    DWORD right = material.descriptor_length;
    DWORD wrong[] = {0, 1, right - 1, right + 1, 2 * right};

    memset(padded, 0, sizeof padded);
    memcpy(padded, material.descriptor, right);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        phase("a descriptor of %u bytes instead of %u", wrong[i], right);
        op_init(&op, NOTIFY);
        CHECK_WSA_IN(san_rdma_write(pair.b.s, &piece, 1, padded, wrong[i], 0, &op), WSAEINVAL,
                     WSAEFAULT);
        if (san.rdma_read != NULL) {
            op_init(&op, NOTIFY);
            CHECK_WSA_IN(san_rdma_read(pair.b.s, &piece, 1, padded, wrong[i], 0, &op), WSAEINVAL,
                         WSAEFAULT);
        }
        CHECK_WSA_IN(san_deregister_rdma(pair.a.s, padded, wrong[i]), WSAEINVAL, WSAEFAULT);
    }
    phase("a count of pieces without end");
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(san_rdma_write(pair.b.s, &piece, 0xFFFFFFFFu, material.descriptor, right, 0, &op),
                 WSAEINVAL, WSAEFAULT, WSAEMSGSIZE);
    CHECK_EQ(op_upcalls(&op), 0);
    area_close(&local);
}

static void regions(void)
{
    const size_t page = 4096;
    unsigned char descriptor[DESCRIPTOR_ROOM];
    unsigned char *two = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                              -1, 0);
    DWORD length;
    HANDLE handle;
    int code;

    CHECK(two != MAP_FAILED);
    CHECK_EQ(munmap(two + page, page), 0);
    struct {
        unsigned char *base;
        DWORD length;
    } outside[] = {{two, (DWORD)(2 * page)},
                   {two + page, 1},
                   {two + page - 1, 2},
                   {(unsigned char *)8, 8},
                   {(unsigned char *)~(uintptr_t)0 - 100, 4096},
                   {(unsigned char *)(~(uintptr_t)0 >> 1), 64}};

    for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++) {
        phase("a region outside the address space, %zu", i);
        CHECK_WSA(san_register(pair.a.s, outside[i].base, outside[i].length, MEM_READ, &handle),
                  WSAEFAULT);
        CHECK(handle == NULL);
        length = sizeof descriptor;
        CHECK_WSA(san_register_rdma(pair.a.s, outside[i].base, outside[i].length, MEM_READ,
                                    descriptor, &length),
                  WSAEFAULT);
    }
    phase("a region of length 0");
    code = san_register(pair.a.s, two, 0, MEM_READ, &handle);
    CHECK_WSA_IN(code, 0, WSAEFAULT, WSAEINVAL);
    if (code == 0)
        CHECK_OK(san_deregister(pair.a.s, handle));
    munmap(two, page);
}

int main(void)
{
    case_begin("bad_length");
    provider_start();
    pair_open(&pair, AF_INET);
    material_open(&material, pair.a.s);
    addresses();
    option_values();
    pieces();
    descriptors();
    regions();
    pair_exchange(&pair);
    material_close(&material, pair.a.s);
    pair_close(&pair);
    CHECK_EQ(switch_count(UPCALL_COMPLETE, NO_HANDLE), 0);
    provider_stop();
    return 0;
}

/*
 * SIO_ADDRESS_LIST_QUERY: a short room is WSAEFAULT and says the size, that size succeeds, the
 * socket addresses lie inside the room behind the array, their port is 0, and a socket can be bound
 * to each of them.
 * req: WSD-05
 */
#include <stdlib.h>
#include <string.h>

#include "pair.h"

enum { SPARE = 64 };

static void check_list(const unsigned char *room, DWORD size)
{
    const SOCKET_ADDRESS_LIST *list = (const SOCKET_ADDRESS_LIST *)(const void *)room;
    const unsigned char *end = room + size;
    const unsigned char *behind = (const unsigned char *)&list->Address[list->iAddressCount];

    CHECK(list->iAddressCount >= 1);
    CHECK(list->iAddressCount < 10000);
    CHECK(behind <= end);
    for (int i = 0; i < list->iAddressCount; i++) {
        const unsigned char *at = (const unsigned char *)list->Address[i].lpSockaddr;
        int length = list->Address[i].iSockaddrLength;
        union address address;

        phase("address %d of %d", i, list->iAddressCount);
        CHECK(at >= behind && at < end);
        CHECK(length >= (int)sizeof address.v4 && length <= end - at);
        memset(&address, 0, sizeof address);
        memcpy(&address, at, (size_t)length);
        CHECK(address.any.sa_family == AF_INET || address.any.sa_family == AF_INET6);
        CHECK_EQ(length, address_length(&address));
        CHECK_EQ(address_port(&address), 0);
        for (int k = 0; k < i; k++)
            CHECK(list->Address[k].lpSockaddr != list->Address[i].lpSockaddr);
    }
}

static void bind_to_each(const unsigned char *room)
{
    const SOCKET_ADDRESS_LIST *list = (const SOCKET_ADDRESS_LIST *)(const void *)room;

    for (int i = 0; i < list->iAddressCount; i++) {
        union address address;
        SOCKET s;

        phase("binding to address %d", i);
        memset(&address, 0, sizeof address);
        memcpy(&address, list->Address[i].lpSockaddr, (size_t)list->Address[i].iSockaddrLength);
        address_set_port(&address, 40000);
        CHECK_OK(san_socket(address.any.sa_family, &s, NULL));
        CHECK_OK(san_bind(s, &address, address_length(&address)));
        CHECK_OK(san_close(s));
    }
}

int main(void)
{
    DWORD needed = 0, returned;
    unsigned char *room;
    struct pair pair;
    SOCKET s;

    case_begin("address_list");
    provider_start();
    CHECK_OK(san_socket(AF_INET, &s, NULL));

    phase("no room");
    CHECK_WSA(san_ioctl(s, SIO_ADDRESS_LIST_QUERY, NULL, 0, NULL, 0, &needed), WSAEFAULT);
    CHECK(needed >= sizeof(SOCKET_ADDRESS_LIST) + sizeof(struct sockaddr_in));
    CHECK(needed < 1 << 20);
    room = aligned_alloc(16, (needed + SPARE + 15) / 16 * 16);
    CHECK(room != NULL);
    for (DWORD small = 0; small < needed; small += small < 64 ? 1 : 7) {
        phase("room %u of %u", small, needed);
        memset(room, 0xAA, needed + SPARE);
        returned = 0;
        CHECK_WSA(san_ioctl(s, SIO_ADDRESS_LIST_QUERY, NULL, 0, room, small, &returned),
                  WSAEFAULT);
        CHECK_EQ(returned, needed);
        bytes_check(room + small, needed + SPARE - small, 0xAA, "behind the room");
    }
    returned = 0;
    CHECK_WSA(san_ioctl(s, SIO_ADDRESS_LIST_QUERY, NULL, 0, room, needed - 1, &returned),
              WSAEFAULT);

    phase("exactly the room");
    memset(room, 0xAA, needed + SPARE);
    CHECK_OK(san_ioctl(s, SIO_ADDRESS_LIST_QUERY, NULL, 0, room, needed, &returned));
    CHECK_EQ(returned, needed);
    bytes_check(room + needed, SPARE, 0xAA, "behind the room");
    check_list(room, needed);
    bind_to_each(room);

    phase("more room");
    memset(room, 0xAA, needed + SPARE);
    CHECK_OK(san_ioctl(s, SIO_ADDRESS_LIST_QUERY, NULL, 0, room, needed + SPARE, &returned));
    CHECK_EQ(returned, needed);
    bytes_check(room + needed, SPARE, 0xAA, "behind the list");
    check_list(room, needed);
    CHECK_OK(san_close(s));

    phase("asked of a connected socket");
    pair_open(&pair, AF_INET);
    CHECK_OK(san_ioctl(pair.a.s, SIO_ADDRESS_LIST_QUERY, NULL, 0, room, needed, &returned));
    check_list(room, needed);
    pair_close(&pair);
    free(room);
    provider_stop();
    return 0;
}

/*
 * The three sizes are unsigned 32-bit options at the level SOL_SOCKET of the interface, the same on
 * every socket in every state; SO_DEBUG is a BOOL that can be set; other options and levels have
 * their error codes; a short room learns the needed length.
 * req: WSD-20
 */
#include <string.h>

#include "pair.h"

static void sizes(SOCKET s, const char *state)
{
    static const int names[] = {SO_MAX_MSG_SIZE, SO_MAX_RDMA_SIZE, SO_RDMA_THRESHOLD_SIZE};
    const DWORD expected[] = {san.max_message, san.max_rdma, san.threshold};
    unsigned char room[16];
    DWORD value;
    int length, code;

    for (size_t i = 0; i < 3; i++) {
        phase("option 0x%x of a socket that is %s", (unsigned)names[i], state);
        value = 0;
        length = (int)sizeof value;
        code = san_getsockopt(s, WSD_SOL_SOCKET, names[i], &value, &length);
        if (code == WSAENOPROTOOPT)
            continue; /* no limit, or no preference */
        CHECK_OK(code);
        CHECK_EQ(length, sizeof value);
        CHECK_EQ(value, expected[i]);
        CHECK(value > 0);

        memset(room, 0xAA, sizeof room);
        length = (int)sizeof room;
        CHECK_OK(san_getsockopt(s, WSD_SOL_SOCKET, names[i], room, &length));
        CHECK_EQ(length, sizeof value);
        CHECK_EQ(memcmp(room, &value, sizeof value), 0);
        bytes_check(room + sizeof value, sizeof room - sizeof value, 0xAA, "behind the value");

        length = 0;
        CHECK_WSA(san_getsockopt(s, WSD_SOL_SOCKET, names[i], room, &length), WSAEFAULT);
        CHECK_EQ(length, sizeof value);

        /* They are for reading. */
        CHECK_WSA_IN(san_setsockopt(s, WSD_SOL_SOCKET, names[i], &value, (int)sizeof value),
                     WSAENOPROTOOPT, WSAEINVAL);
    }
}

static void debug(SOCKET s)
{
    BOOL value = 77, wanted;
    int length = (int)sizeof value;
    int code = san_getsockopt(s, WSD_SOL_SOCKET, WSD_SO_DEBUG, &value, &length);

    phase("SO_DEBUG");
    CHECK_WSA_IN(code, 0, WSAENOPROTOOPT);
    if (code == WSAENOPROTOOPT)
        return;
    CHECK_EQ(length, sizeof value);
    CHECK_EQ(value, FALSE);
    for (int i = 0; i < 3; i++) {
        wanted = i % 2 == 0;
        CHECK_OK(san_setsockopt(s, WSD_SOL_SOCKET, WSD_SO_DEBUG, &wanted, (int)sizeof wanted));
        length = (int)sizeof value;
        CHECK_OK(san_getsockopt(s, WSD_SOL_SOCKET, WSD_SO_DEBUG, &value, &length));
        CHECK_EQ(value != FALSE, wanted != FALSE);
    }
}

static void unknown(SOCKET s)
{
    static const int options[] = {WSD_SO_SNDBUF, WSD_SO_LINGER, WSD_SO_ERROR, 0x7777, 0, -1};
    DWORD value = 0;
    int length;

    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        phase("option 0x%x", (unsigned)options[i]);
        length = (int)sizeof value;
        CHECK_WSA(san_getsockopt(s, WSD_SOL_SOCKET, options[i], &value, &length), WSAENOPROTOOPT);
        CHECK_WSA(san_setsockopt(s, WSD_SOL_SOCKET, options[i], &value, (int)sizeof value),
                  WSAENOPROTOOPT);
    }
    phase("level 12345");
    length = (int)sizeof value;
    CHECK_WSA_IN(san_getsockopt(s, 12345, SO_MAX_MSG_SIZE, &value, &length), WSAEINVAL,
                 WSAENOPROTOOPT);
    CHECK_WSA_IN(san_setsockopt(s, 12345, WSD_SO_DEBUG, &value, (int)sizeof value), WSAEINVAL,
                 WSAENOPROTOOPT);
    phase("the host's SOL_SOCKET, which is not the interface's");
    length = (int)sizeof value;
    CHECK_WSA_IN(san_getsockopt(s, SOL_SOCKET, SO_MAX_MSG_SIZE, &value, &length), WSAEINVAL,
                 WSAENOPROTOOPT);
}

int main(void)
{
    struct endpoint listener, bound;
    struct pair pair;
    SOCKET fresh;

    case_begin("getsockopt");
    provider_start();
    CHECK_OK(san_socket(AF_INET, &fresh, NULL));
    sizes(fresh, "fresh");
    debug(fresh);
    unknown(fresh);
    CHECK_OK(san_close(fresh));
    endpoint_open(&bound, AF_INET);
    sizes(bound.s, "bound");
    endpoint_close(&bound);
    endpoint_listen(&listener, AF_INET, 4);
    sizes(listener.s, "listening");
    pair_open_through(&pair, &listener);
    sizes(pair.a.s, "connected");
    sizes(pair.b.s, "accepted");
    debug(pair.a.s);
    debug(pair.b.s);
    unknown(pair.a.s);
    pair_exchange(&pair);
    pair_close(&pair);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}

/*
 * WSPSocket takes an IP family, a stream and TCP, always overlapped: anything else has its error
 * code. Every success makes exactly one WPUCreateSocketHandle upcall, on the caller's thread; a
 * failure makes none; and when the switch gives no handle, there is no socket.
 * req: WSD-03
 */
#include <pthread.h>
#include <string.h>

#include "pair.h"

static int code;

static SOCKET make(int family, int type, int protocol, DWORD flags)
{
    code = 0;
    return san.table.lpWSPSocket(family, type, protocol, NULL, 0, flags, &code);
}

#define REFUSED(call, ...)                                                                         \
    do {                                                                                           \
        unsigned before = switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE);                           \
        phase("%s", #call);                                                                        \
        CHECK((call) == INVALID_SOCKET);                                                           \
        CHECK_WSA_IN(code, __VA_ARGS__);                                                           \
        CHECK_EQ(switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE), before);                           \
    } while (0)

int main(void)
{
    enum { MANY = 50 };
    SOCKET sockets[MANY], handles[MANY], s;
    WSAPROTOCOL_INFOW info;
    struct upcall last;
    unsigned before;

    case_begin("socket_arguments");
    provider_start();

    REFUSED(make(AF_UNIX, SOCK_STREAM, IPPROTO_TCP, WSA_FLAG_OVERLAPPED), WSAEAFNOSUPPORT);
    REFUSED(make(99, SOCK_STREAM, IPPROTO_TCP, WSA_FLAG_OVERLAPPED), WSAEAFNOSUPPORT);
    REFUSED(make(-5, SOCK_STREAM, IPPROTO_TCP, WSA_FLAG_OVERLAPPED), WSAEAFNOSUPPORT);
    REFUSED(make(AF_INET, SOCK_DGRAM, IPPROTO_TCP, WSA_FLAG_OVERLAPPED), WSAEPROTOTYPE);
    REFUSED(make(AF_INET, SOCK_RAW, IPPROTO_TCP, WSA_FLAG_OVERLAPPED), WSAEPROTOTYPE);
    REFUSED(make(AF_INET, 77, IPPROTO_TCP, WSA_FLAG_OVERLAPPED), WSAEPROTOTYPE,
            WSAESOCKTNOSUPPORT);
    REFUSED(make(AF_INET, SOCK_STREAM, IPPROTO_UDP, WSA_FLAG_OVERLAPPED), WSAEPROTONOSUPPORT);
    REFUSED(make(AF_INET, SOCK_STREAM, 255, WSA_FLAG_OVERLAPPED), WSAEPROTONOSUPPORT);
    REFUSED(make(AF_INET, SOCK_STREAM, IPPROTO_TCP, 0), WSAEINVAL);
    REFUSED(make(AF_INET, SOCK_STREAM, IPPROTO_TCP, WSA_FLAG_OVERLAPPED | 0x80), WSAEINVAL);

    phase("%d sockets", MANY);
    before = switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE);
    for (int i = 0; i < MANY; i++) {
        CHECK_OK(san_socket(AF_INET, &sockets[i], &handles[i]));
        CHECK_EQ(switch_count(UPCALL_CREATE_HANDLE, NO_HANDLE), before + 1 + (unsigned)i);
        CHECK_EQ(switch_log(&last, 1), 1);
        CHECK_EQ(last.kind, UPCALL_CREATE_HANDLE);
        CHECK_EQ(last.thread, (uintptr_t)pthread_self());
        for (int k = 0; k < i; k++)
            CHECK(sockets[k] != sockets[i]);
    }
    for (int i = 0; i < MANY; i++) {
        CHECK_OK(san_close(sockets[i]));
        CHECK(switch_await(UPCALL_CLOSE_HANDLE, handles[i], 1));
    }

    phase("a protocol info without a token");
    tcp_protocol_info(&info);
    code = 0;
    s = san.table.lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, &info, 0, WSA_FLAG_OVERLAPPED,
                              &code);
    CHECK(s != INVALID_SOCKET);
    CHECK_OK(san_close(s));

    phase("a protocol info with a token that nobody made");
    info.dwProviderReserved = 0x12345;
    code = 0;
    s = san.table.lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, &info, 0, WSA_FLAG_OVERLAPPED,
                              &code);
    CHECK(s == INVALID_SOCKET);
    CHECK_WSA_IN(code, WSAEINVAL, WSAEOPNOTSUPP);

    phase("no handle from the switch");
    switch_refuse_handles(1, WSAENOBUFS);
    CHECK_WSA(san_socket(AF_INET, &s, NULL), WSAENOBUFS);
    CHECK_OK(san_socket(AF_INET, &s, NULL));
    CHECK_OK(san_close(s));
    provider_stop();
    return 0;
}

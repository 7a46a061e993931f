/*
 * The thirteen slots that a SAN provider does not serve answer WSAEOPNOTSUPP, without harm to the
 * socket they are given. Quality of service by name is FALSE with WSAEOPNOTSUPP, and a socket
 * either can be handed over or says WSAEOPNOTSUPP.
 * req: WSD-01
 */
#include <string.h>
#include <sys/time.h>

#include "pair.h"

static struct sockaddr_storage address;
static int length;
static int code;

#define CHECK_UNSUPPORTED(call)                                                                    \
    do {                                                                                           \
        phase("%s", #call);                                                                        \
        code = 0;                                                                                  \
        CHECK_EQ(call, SOCKET_ERROR);                                                              \
        CHECK_WSA(code, WSAEOPNOTSUPP);                                                            \
    } while (0)

static void ask(SOCKET s)
{
    const WSPPROC_TABLE *table = &san.table;
    struct sockaddr *name = (struct sockaddr *)&address;
    WCHAR text[64] = {0};
    DWORD text_length = 64, bytes = 0, flags = 0;
    struct timeval at_once = {0, 0};
    char byte = 0;
    WSABUF buffer = {1, &byte};
    struct op op;
    SOCKET leaf;

    memset(&address, 0, sizeof address);
    ((struct sockaddr_in *)&address)->sin_family = AF_INET;
    op_init(&op, POLL);
    length = (int)sizeof address;
    CHECK_UNSUPPORTED(table->lpWSPAddressToString(name, 16, NULL, text, &text_length, &code));
    CHECK_UNSUPPORTED(table->lpWSPAsyncSelect(s, NULL, 0, FD_READ, &code));
    CHECK_UNSUPPORTED(table->lpWSPCancelBlockingCall(&code));
    CHECK_UNSUPPORTED(table->lpWSPGetPeerName(s, name, &length, &code));
    CHECK_UNSUPPORTED(table->lpWSPGetSockName(s, name, &length, &code));
    CHECK_UNSUPPORTED(table->lpWSPRecvDisconnect(s, NULL, &code));
    CHECK_UNSUPPORTED(table->lpWSPRecvFrom(s, &buffer, 1, &bytes, &flags, name, &length, &op.ov,
                                           NULL, NULL, &code));
    CHECK_UNSUPPORTED(table->lpWSPSelect(0, NULL, NULL, NULL, &at_once, &code));
    CHECK_UNSUPPORTED(table->lpWSPSendDisconnect(s, NULL, &code));
    CHECK_UNSUPPORTED(
        table->lpWSPSendTo(s, &buffer, 1, &bytes, 0, name, 16, &op.ov, NULL, NULL, &code));
    CHECK_UNSUPPORTED(table->lpWSPShutdown(s, SD_BOTH, &code));
    CHECK_UNSUPPORTED(table->lpWSPStringToAddress(text, AF_INET, NULL, name, &length, &code));

    phase("lpWSPJoinLeaf");
    code = 0;
    leaf = table->lpWSPJoinLeaf(s, name, 16, NULL, NULL, NULL, NULL, 0, &code);
    CHECK(leaf == INVALID_SOCKET);
    CHECK_WSA(code, WSAEOPNOTSUPP);

    phase("lpWSPGetQOSByName");
    code = 0;
    CHECK_EQ(table->lpWSPGetQOSByName(s, &buffer, NULL, &code), FALSE);
    CHECK_WSA(code, WSAEOPNOTSUPP);
    CHECK_EQ(op_upcalls(&op), 0);
}

int main(void)
{
    WSAPROTOCOL_INFOW info;
    struct pair pair;
    struct endpoint idle;
    int result;

    case_begin("unsupported_slots");
    provider_start();
    endpoint_open(&idle, AF_INET);
    ask(idle.s);
    endpoint_close(&idle);

    pair_open(&pair, AF_INET);
    ask(pair.a.s);
    pair_exchange(&pair);

    phase("lpWSPDuplicateSocket");
    tcp_protocol_info(&info);
    code = 0;
    result = san.table.lpWSPDuplicateSocket(idle.s, 1, &info, &code);
    CHECK_EQ(result, SOCKET_ERROR);
    CHECK_WSA(code, WSAENOTSOCK);
    code = 0;
    result = san.table.lpWSPDuplicateSocket(pair.a.s, 1, &info, &code);
    if (result == SOCKET_ERROR && code == WSAEOPNOTSUPP) {
        CHECK_EQ(info.dwProviderReserved, 0);
        pair_exchange(&pair);
    } else if (result == 0) {
        /* What it does is for other cases; here the token must not be 0. */
        CHECK(info.dwProviderReserved != 0);
    }
    pair_close(&pair);
    provider_stop();
    return 0;
}

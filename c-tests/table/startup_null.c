/*
 * WSPStartupEx answers null outputs and a null upcall table with WSAEFAULT, does not count the
 * call, and does not fall over a table without functions.
 * req: WSD-02
 */
#include <string.h>

#include "provider.h"

int main(void)
{
    WSPUPCALLTABLEEX upcalls, empty;
    WSAPROTOCOL_INFOW info;
    WSPPROC_TABLE table;
    WSPDATA data;
    int code;

    case_begin("startup_null");
    provider_start();
    provider_stop();
    tcp_protocol_info(&info);
    switch_table(&upcalls);
    memset(&empty, 0, sizeof empty);

    phase("lpWSPData is null");
    CHECK_WSA(san.startup(0x0202, NULL, &info, &upcalls, &table), WSAEFAULT);
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    phase("lpProcTable is null");
    CHECK_WSA(san.startup(0x0202, &data, &info, &upcalls, NULL), WSAEFAULT);
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    phase("lpUpcallTable is null");
    CHECK_WSA(san.startup(0x0202, &data, &info, NULL, &table), WSAEFAULT);
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    phase("everything is null");
    CHECK_WSA(san.startup(0x0202, NULL, NULL, NULL, NULL), WSAEFAULT);
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    phase("everything is null and the version too low");
    CHECK_WSA_IN(san.startup(0x0101, NULL, NULL, NULL, NULL), WSAEFAULT, WSAVERNOTSUPPORTED);
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);

    /* An input that a provider may look at or not. */
    phase("lpProtocolInfo is null");
    memset(&table, 0, sizeof table);
    code = san.startup(0x0202, &data, NULL, &upcalls, &table);
    CHECK_WSA_IN(code, 0, WSAEFAULT, WSAEINVAL);
    if (code == 0)
        CHECK_OK(san_cleanup());
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);

    phase("an upcall table without functions");
    memset(&table, 0, sizeof table);
    code = san.startup(0x0202, &data, &info, &empty, &table);
    if (code == 0) {
        SOCKET s = table.lpWSPSocket(AF_INET, SOCK_STREAM, IPPROTO_TCP, NULL, 0,
                                     WSA_FLAG_OVERLAPPED, &code);

        CHECK(s == INVALID_SOCKET);
        CHECK(code != 0);
        CHECK_OK(san_cleanup());
    } else {
        CHECK_WSA_IN(code, WSAEFAULT, WSAEINVAL, WSAEINVALIDPROCTABLE, WSAEPROVIDERFAILEDINIT);
    }
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    return 0;
}

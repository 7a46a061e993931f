/*
 * WSPStartupEx refuses versions below 2.2 with WSAVERNOTSUPPORTED and does not count them; it
 * serves 2.2 and whatever is higher as 2.2, and describes itself.
 * req: WSD-02
 */
#include <string.h>

#include "provider.h"

static WSPDATA data;
static WSPPROC_TABLE table;

static int start(WORD version)
{
    WSPUPCALLTABLEEX upcalls;
    WSAPROTOCOL_INFOW info;

    phase("version 0x%04x", version);
    memset(&data, 0, sizeof data);
    memset(&table, 0, sizeof table);
    tcp_protocol_info(&info);
    switch_table(&upcalls);
    return san.startup(version, &data, &info, &upcalls, &table);
}

int main(void)
{
    /* Low byte major, high byte minor. */
    static const WORD too_low[] = {0x0000, 0x0001, 0x0101, 0x0901, 0x0002, 0x0102, 0xFF01};
    static const WORD high[] = {0x0302, 0x0003, 0x0103, 0xFFFF};
    size_t length;

    case_begin("startup_version");
    provider_start();
    provider_stop();

    for (size_t i = 0; i < sizeof too_low / sizeof too_low[0]; i++) {
        CHECK_WSA(start(too_low[i]), WSAVERNOTSUPPORTED);
        CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    }

    CHECK_OK(start(0x0202));
    CHECK_EQ(data.wVersion, 0x0202);
    CHECK_EQ(data.wHighVersion, 0x0202);
    for (length = 0; length < 256 && data.szDescription[length] != 0; length++)
        ;
    CHECK(length > 0);
    CHECK(length < 256);
    CHECK_OK(san_cleanup());

    for (size_t i = 0; i < sizeof high / sizeof high[0]; i++) {
        CHECK_OK(start(high[i]));
        CHECK_EQ(data.wVersion, 0x0202);
        CHECK(table.lpWSPSocket != NULL);
        CHECK_OK(san_cleanup());
    }
    CHECK_WSA(san_cleanup(), WSANOTINITIALISED);
    return 0;
}

/*
 * Every slot of the dispatch table is filled, at its published byte offset, and WSPStartupEx
 * writes the 240 bytes of the table and nothing behind them.
 * req: WSD-01
 */
#include <stdint.h>
#include <string.h>

#include "memory.h"
#include "provider.h"

#define SLOTS 30
#define GUARD 64
#define FILL 0xAA

/* The slots that a SAN provider must serve, by byte offset. */
static const struct {
    size_t offset;
    const char *name;
} required[] = {
    {0, "lpWSPAccept"},
    {24, "lpWSPBind"},
    {40, "lpWSPCleanup"},
    {48, "lpWSPCloseSocket"},
    {56, "lpWSPConnect"},
    {64, "lpWSPDuplicateSocket"},
    {72, "lpWSPEnumNetworkEvents"},
    {80, "lpWSPEventSelect"},
    {88, "lpWSPGetOverlappedResult"},
    {112, "lpWSPGetSockOpt"},
    {120, "lpWSPGetQOSByName"},
    {128, "lpWSPIoctl"},
    {144, "lpWSPListen"},
    {152, "lpWSPRecv"},
    {184, "lpWSPSend"},
    {208, "lpWSPSetSockOpt"},
    {224, "lpWSPSocket"},
};

static uintptr_t slot_at(const unsigned char *table, size_t offset)
{
    uintptr_t slot;

    memcpy(&slot, table + offset, sizeof slot);
    return slot;
}

int main(void)
{
    _Alignas(8) unsigned char room[SLOTS * 8 + GUARD];
    WSPUPCALLTABLEEX upcalls;
    WSAPROTOCOL_INFOW info;
    WSPDATA data;
    uintptr_t unwritten;

    case_begin("slots_filled");
    provider_start();
    CHECK_EQ(sizeof(WSPPROC_TABLE), SLOTS * 8);
    CHECK_EQ(sizeof(WSPUPCALLTABLEEX), 16 * 8);

    memset(&unwritten, FILL, sizeof unwritten);
    memset(room, FILL, sizeof room);
    tcp_protocol_info(&info);
    switch_table(&upcalls);
    CHECK_OK(san.startup(0x0202, &data, &info, &upcalls, (LPWSPPROC_TABLE)(void *)room));

    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        uintptr_t slot = slot_at(room, required[i].offset);

        phase("%s at byte %zu", required[i].name, required[i].offset);
        CHECK(slot != 0);
        CHECK(slot != unwritten);
    }
    for (size_t i = 0; i < SLOTS; i++) {
        phase("slot %zu", i);
        CHECK(slot_at(room, i * 8) != 0);
        CHECK(slot_at(room, i * 8) != unwritten);
    }
    bytes_check(room + SLOTS * 8, GUARD, FILL, "the memory behind the table");

    /* The members of the structure and the offsets name the same functions. */
    CHECK_EQ(slot_at(room, 184), (uintptr_t)san.table.lpWSPSend);
    CHECK_EQ(slot_at(room, 112), (uintptr_t)san.table.lpWSPGetSockOpt);
    CHECK_EQ(slot_at(room, 120), (uintptr_t)san.table.lpWSPGetQOSByName);
    CHECK_EQ(slot_at(room, 232), (uintptr_t)san.table.lpWSPStringToAddress);

    CHECK_OK(san_cleanup());
    provider_stop();
    return 0;
}

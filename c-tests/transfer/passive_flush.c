/*
 * The side that never closes hears of the peer's close by itself: its receives end promptly with
 * WSAECONNRESET, silent and notified; what it posts afterwards says so too; results stay readable
 * and memory can be deregistered until it closes.
 * req: WSD-11
 */
#include "kinds.h"

enum { PENDING = 12 };

int main(void)
{
    struct op recvs[PENDING], late;
    struct stage stage;
    DWORD bytes, flags;

    case_begin("passive_flush");
    provider_start();
    stage_open(&stage);
    for (int i = 0; i < PENDING; i++) {
        op_init(&recvs[i], i % 2 ? POLL : NOTIFY);
        CHECK_WSA(kind_post(&stage, RECV, &recvs[i]), WSA_IO_PENDING);
    }
    endpoint_close(&stage.pair.b);
    for (int i = 0; i < PENDING; i++) {
        phase("receive %d", i);
        CHECK_WSA(op_wait(stage.pair.a.s, &recvs[i]), WSAECONNRESET);
        CHECK_EQ(recvs[i].bytes, 0);
    }
    for (enum kind kind = SEND; kind < KINDS; kind++) {
        if (!kind_present(kind))
            continue;
        phase("%s after the end", kind_names[kind]);
        op_init(&late, NOTIFY);
        CHECK_WSA(kind_post(&stage, kind, &late), WSAECONNRESET);
        CHECK_EQ(op_upcalls(&late), 0);
    }
    phase("asking again");
    CHECK_WSA(san_result(stage.pair.a.s, &recvs[3], false, &bytes, &flags), WSAECONNRESET);
    CHECK_WSA(san_result(stage.pair.a.s, &recvs[4], true, &bytes, &flags), WSAECONNRESET);
    area_close(&stage.near);
    CHECK_EQ(switch_count(UPCALL_CLOSE_HANDLE, stage.pair.a.handle), 0);
    endpoint_close(&stage.pair.a);
    area_forget(&stage.far);
    window_forget(&stage.window);
    provider_stop();
    return 0;
}

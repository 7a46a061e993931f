/*
 * A handle means something only on the socket it was made on: on another it can neither be used
 * nor deregistered, and a descriptor is deregistered by its own socket alone.
 * req: WSD-12
 */
#include "pair.h"

enum { LENGTH = 100 };

int main(void)
{
    struct area one_area, two_area;
    struct window one_window, far;
    struct pair one, two;
    WSABUFEX piece;
    struct op op;

    case_begin("wrong_socket");
    provider_start();
    pair_open(&one, AF_INET);
    pair_open(&two, AF_INET);
    one_area = area_open(one.a.s, LENGTH, MEM_READWRITE);
    two_area = area_open(two.a.s, LENGTH, MEM_READWRITE);
    one_window = window_open(one.a.s, LENGTH, MEM_READWRITE);
    far = window_open(two.b.s, LENGTH, MEM_READWRITE);

    phase("deregistering on another socket");
    CHECK_WSA(san_deregister(two.a.s, one_area.handle), WSAEINVAL);
    CHECK_WSA(san_deregister(one.b.s, one_area.handle), WSAEINVAL);
    CHECK_WSA(san_deregister_rdma(two.a.s, one_window.descriptor, one_window.descriptor_length),
              WSAEINVAL);
    CHECK_WSA(san_deregister_rdma(one.b.s, one_window.descriptor, one_window.descriptor_length),
              WSAEINVAL);

    phase("transfers with a handle of another socket");
    pattern_fill(one_area.base, LENGTH, 1);
    piece.len = LENGTH;
    piece.buf = (char *)one_area.base;
    piece.handle = one_area.handle;
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(
        san_rdma_write(two.a.s, &piece, 1, far.descriptor, far.descriptor_length, 0, &op),
        WSAEFAULT, WSAEINVAL);
    if (san.rdma_read != NULL) {
        op_init(&op, NOTIFY);
        CHECK_WSA_IN(
            san_rdma_read(two.a.s, &piece, 1, far.descriptor, far.descriptor_length, 0, &op),
            WSAEFAULT, WSAEINVAL);
    }
    phase("a handle that does not hold the piece");
    piece.handle = two_area.handle;
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(
        san_rdma_write(two.a.s, &piece, 1, far.descriptor, far.descriptor_length, 0, &op),
        WSAEFAULT, WSAEINVAL);
    piece.buf = (char *)two_area.base + 1;
    op_init(&op, NOTIFY);
    CHECK_WSA_IN(
        san_rdma_write(two.a.s, &piece, 1, far.descriptor, far.descriptor_length, 0, &op),
        WSAEFAULT, WSAEINVAL);
    op_init(&op, NOTIFY);
    CHECK_WSA(san_send_bytes(two.a.s, one_area.base, LENGTH, &op), WSAEFAULT);
    bytes_check(far.base, LENGTH, 0, "the far memory");
    CHECK_EQ(switch_count(UPCALL_COMPLETE, NO_HANDLE), 0);

    pair_exchange(&one);
    pair_exchange(&two);
    area_close(&one_area);
    area_close(&two_area);
    window_close(&one_window);
    window_close(&far);
    pair_close(&one);
    pair_close(&two);
    provider_stop();
    return 0;
}

/*
 * Two processes connect, exchange messages both ways, write and read each other's memory, and end
 * in order: what holds inside one process holds between two.
 * req: WSD-10 WSD-13 WSD-14
 */
#include <string.h>

#include "pair.h"

enum { MESSAGES = 500, LENGTH = 600, REGION = 3000000 };

struct offer {
    unsigned char descriptor[DESCRIPTOR_ROOM];
    DWORD descriptor_length;
};

static void talk(struct endpoint *self, bool first)
{
    struct area in = area_open(self->s, LENGTH, MEM_WRITE);
    struct area out = area_open(self->s, LENGTH, MEM_READ);
    static struct op recv; /* stays pending until the socket is closed */
    struct op send;

    op_init(&recv, POLL);
    CHECK_POSTED(san_recv_bytes(self->s, in.base, LENGTH, &recv));
    if (first)
        sleep_ms(1);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        DWORD length = 1 + i * 31 % LENGTH;

        phase("message %u of the %s", i, first ? "first" : "second");
        if (!first) {
            CHECK_OK(op_wait(self->s, &recv));
            CHECK_EQ(recv.bytes, length);
            pattern_check(in.base, length, i, "a message");
            op_init(&recv, i % 2 ? POLL : NOTIFY);
            CHECK_POSTED(san_recv_bytes(self->s, in.base, LENGTH, &recv));
        }
        pattern_fill(out.base, length, first ? i : i + 1000);
        op_init(&send, i % 3 ? POLL : NOTIFY);
        CHECK_POSTED(san_send_bytes(self->s, out.base, length, &send));
        CHECK_OK(op_wait(self->s, &send));
        if (first) {
            CHECK_OK(op_wait(self->s, &recv));
            CHECK_EQ(recv.bytes, length);
            pattern_check(in.base, length, i + 1000, "an answer");
            op_init(&recv, i % 2 ? POLL : NOTIFY);
            CHECK_POSTED(san_recv_bytes(self->s, in.base, LENGTH, &recv));
        }
    }
    CHECK_WSA(san_deregister(self->s, in.handle), WSAEINVAL); /* one receive is left */
    CHECK_OK(san_deregister(self->s, out.handle));
    memory_free(&out.memory);
}

/* The child connects and owns the memory. */
static void child(void)
{
    struct endpoint self;
    struct window window;
    union address address;
    struct offer offer;
    char go;
    int begun;

    parent_hear(&address, sizeof address);
    endpoint_open(&self, address.any.sa_family);
    begun = endpoint_connect(&self, &address);
    CHECK_OK(endpoint_connected(&self, begun));
    talk(&self, true);

    window = window_open(self.s, REGION, MEM_READWRITE);
    pattern_fill(window.base, REGION, 7);
    memcpy(offer.descriptor, window.descriptor, sizeof offer.descriptor);
    offer.descriptor_length = window.descriptor_length;
    parent_tell(&offer, sizeof offer);
    parent_hear(&go, 1); /* read, and written */
    pattern_check(window.base, REGION, 8, "memory written by the other process");
    CHECK_OK(san_deregister_rdma(self.s, window.descriptor, window.descriptor_length));
    bytes_check(&go, 1, 1, "the go");
    parent_tell(&go, 1);
    parent_hear(&go, 1); /* the access after deregistration is over */
    pattern_check(window.base, REGION, 8, "memory after deregistration");
    endpoint_close(&self);
    window_forget(&window);
    provider_stop();
}

int main(int argc, char **argv)
{
    struct endpoint listener, self;
    struct child other;
    struct area area;
    struct offer offer;
    struct op op;
    char go = 1;
    int code;

    case_begin("two_processes");
    if (child_role(argc, argv) != NULL) {
        provider_start();
        child();
        return 0;
    }
    provider_start();
    endpoint_listen(&listener, AF_INET, 4);
    child_start(&other, "connector");
    child_tell(&other, &listener.local, sizeof listener.local);
    endpoint_await_request(&listener);
    endpoint_accept(&listener, &self);
    talk(&self, false);

    child_hear(&other, &offer, sizeof offer);
    area = area_open(self.s, REGION, MEM_READWRITE);
    WSABUFEX piece = {REGION, (char *)area.base, area.handle};
    if (san.rdma_read != NULL) {
        phase("reading the other process's memory");
        op_init(&op, NOTIFY);
        CHECK_POSTED(san_rdma_read(self.s, &piece, 1, offer.descriptor, offer.descriptor_length, 0,
                                   &op));
        CHECK_OK(op_wait(self.s, &op));
        CHECK_EQ(op.bytes, REGION);
        pattern_check(area.base, REGION, 7, "memory read from the other process");
    }
    phase("writing the other process's memory");
    pattern_fill(area.base, REGION, 8);
    op_init(&op, POLL);
    CHECK_POSTED(
        san_rdma_write(self.s, &piece, 1, offer.descriptor, offer.descriptor_length, 0, &op));
    CHECK_OK(op_wait(self.s, &op));
    child_tell(&other, &go, 1);
    child_hear(&other, &go, 1);
    phase("writing after deregistration");
    memset(area.base, 0x77, REGION);
    op_init(&op, POLL);
    code = san_rdma_write(self.s, &piece, 1, offer.descriptor, offer.descriptor_length, 0, &op);
    if (code == 0 || code == WSA_IO_PENDING)
        code = op_wait(self.s, &op);
    CHECK_WSA_IN(code, WSAECONNABORTED, WSAECONNRESET, WSAEINVAL, WSAEFAULT, WSAEACCES);
    child_tell(&other, &go, 1);
    child_finish(&other);
    endpoint_close(&self);
    area_forget(&area);
    endpoint_close(&listener);
    provider_stop();
    return 0;
}

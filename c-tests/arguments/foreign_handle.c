/*
 * Numbers that mean something else are no sockets: the switch's own handles, descriptors of the
 * kernel, and values near those of real sockets.
 * req: WSD-11
 */
#include "calls.h"

static SOCKET real[5];

static void check_foreign(SOCKET s, struct material *material)
{
    for (size_t i = 0; i < sizeof real / sizeof real[0]; i++)
        if (s == real[i])
            return;
    check_no_socket(s, material);
}

int main(void)
{
    struct material material;
    struct endpoint listener, idle;
    struct pair pair;

    case_begin("foreign_handle");
    provider_start();
    pair_open(&pair, AF_INET);
    endpoint_listen(&listener, AF_INET, 4);
    endpoint_open(&idle, AF_INET);
    material_open(&material, pair.a.s);
    real[0] = pair.a.s;
    real[1] = pair.b.s;
    real[2] = listener.s;
    real[3] = idle.s;
    real[4] = idle.s;

    check_foreign(pair.a.handle, &material);
    check_foreign(pair.b.handle, &material);
    check_foreign(listener.handle, &material);
    for (int fd = 0; fd < 16; fd++)
        check_foreign((SOCKET)fd, &material);
    check_foreign((SOCKET)listener.tcp, &material);
    check_foreign((SOCKET)(uintptr_t)material.handle, &material);
    check_foreign((SOCKET)(uintptr_t)&material, &material);
    for (int bit = 0; bit < 64; bit++)
        for (int i = 0; i < 4; i++)
            check_foreign(real[i] ^ ((SOCKET)1 << bit), &material);
    for (SOCKET step = 1; step <= 64; step++) {
        check_foreign(pair.a.s + step, &material);
        check_foreign(pair.a.s - step, &material);
    }

    pair_exchange(&pair);
    material_close(&material, pair.a.s);
    endpoint_close(&idle);
    endpoint_close(&listener);
    pair_close(&pair);
    provider_stop();
    return 0;
}

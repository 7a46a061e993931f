/*
 * Connections that were opened, used and closed leave nothing: no descriptor, no mapping, no
 * thread; after the last cleanup the provider holds none at all.
 * req: WSD-02 WSD-11
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pair.h"

enum { WARM_UP = 5, ROUNDS = 60 };

static unsigned entries(const char *path)
{
    DIR *folder = opendir(path);
    unsigned count = 0;

    CHECK(folder != NULL);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static unsigned mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "r");
    unsigned count = 0;
    int byte;

    CHECK(file != NULL);
    while ((byte = getc(file)) != EOF)
        count += byte == '\n';
    fclose(file);
    return count;
}

static void use(uint32_t round)
{
    struct pair pair;
    struct area area;
    struct window window;
    struct op op;

    pair_open(&pair, AF_INET);
    pair_exchange(&pair);
    window = window_open(pair.b.s, 20000, MEM_READWRITE);
    area = area_open(pair.a.s, 20000, MEM_READWRITE);
    op_init(&op, POLL);
    CHECK_POSTED(area_write(&area, 0, 20000, &window, 0, &op));
    CHECK_OK(op_wait(pair.a.s, &op));
    if (round % 2 == 0) {
        area_close(&area);
        window_close(&window);
        pair_close(&pair);
    } else { /* the provider releases what is left */
        op_init(&op, NOTIFY);
        CHECK_WSA(san_recv_bytes(pair.a.s, area.base, 100, &op), WSA_IO_PENDING);
        pair_close(&pair);
        CHECK_WSA(op_wait_flushed(&op), WSA_OPERATION_ABORTED);
        area_forget(&area);
        window_forget(&window);
    }
}

/* What is released in the background needs a moment. */
static bool settles_at(unsigned (*count)(void), unsigned most)
{
    double begun = now_seconds();

    while (count() > most) {
        if (now_seconds() - begun > 5)
            return false;
        sleep_ms(20);
    }
    return true;
}

static unsigned descriptors(void)
{
    return entries("/proc/self/fd");
}

static unsigned tasks(void)
{
    return entries("/proc/self/task");
}

int main(void)
{
    const char *fabric = getenv("WSD_FABRIC");
    unsigned before_descriptors, before_tasks, warm_descriptors, warm_mappings, warm_tasks;

    case_begin("leaves_nothing");
    if (fabric != NULL && strcmp(fabric, "verbs") == 0) {
        /* librdmacm opens the devices at its first use and keeps them for the life of the process;
         * so does the cache of registrations with its userfaultfd and its two threads. */
        provider_start();
        provider_stop();
    }
    before_descriptors = descriptors();
    before_tasks = tasks();
    provider_start();
    for (uint32_t i = 0; i < WARM_UP; i++)
        use(i);
    warm_descriptors = descriptors();
    warm_mappings = mappings();
    warm_tasks = tasks();
    for (uint32_t i = 0; i < ROUNDS; i++) {
        phase("round %u", i);
        use(i);
    }
    phase("counting");
    if (!settles_at(descriptors, warm_descriptors))
        fail("%u descriptors after %d connections more, %u before", descriptors(), ROUNDS,
             warm_descriptors);
    /* Allocators may map some memory of their own; a leak would be one mapping a connection. */
    if (!settles_at(mappings, warm_mappings + ROUNDS / 3))
        fail("%u mappings after %d connections more, %u before", mappings(), ROUNDS,
             warm_mappings);
    if (!settles_at(tasks, warm_tasks))
        fail("%u threads after %d connections more, %u before", tasks(), ROUNDS, warm_tasks);
    provider_stop();
    phase("counting after the cleanup");
    if (!settles_at(tasks, before_tasks))
        fail("%u threads after the cleanup, %u before the start", tasks(), before_tasks);
    if (!settles_at(descriptors, before_descriptors))
        fail("%u descriptors after the cleanup, %u before the start", descriptors(),
             before_descriptors);
    return 0;
}

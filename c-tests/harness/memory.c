/* Guarded and patterned memory; see memory.h. */
#include "memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"

#define CANARY 0xC5

struct memory memory_new(size_t length)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t body = (length + page - 1) / page * page;
    struct memory memory;

    if (body == 0)
        body = page;
    memory.mapped = body + 2 * page;
    memory.mapping = mmap(NULL, memory.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory.mapping == MAP_FAILED ||
        mprotect(memory.mapping + page, body, PROT_READ | PROT_WRITE) != 0)
        fail("cannot map %zu bytes: %s", length, strerror(errno));
    memory.base = memory.mapping + page + body - length;
    memory.length = length;
    memset(memory.mapping + page, CANARY, body - length);
    return memory;
}

void memory_free(struct memory *memory)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const unsigned char *front = memory->mapping + page;

    bytes_check(front, (size_t)(memory->base - front), CANARY, "the memory before a buffer");
    munmap(memory->mapping, memory->mapped);
    memset(memory, 0, sizeof *memory);
}

unsigned char pattern_byte(uint32_t seed, size_t at)
{
    /* Differs between neighbours, pages and seeds. */
    uint64_t mixed = ((uint64_t)at + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;

    return (unsigned char)(mixed >> 56);
}

void pattern_fill_from(void *to, size_t length, uint32_t seed, size_t skip)
{
    unsigned char *bytes = to;

    for (size_t i = 0; i < length; i++)
        bytes[i] = pattern_byte(seed, skip + i);
}

void pattern_fill(void *to, size_t length, uint32_t seed)
{
    pattern_fill_from(to, length, seed, 0);
}

void pattern_check_from(const void *at, size_t length, uint32_t seed, size_t skip,
                        const char *what)
{
    const unsigned char *bytes = at;

    for (size_t i = 0; i < length; i++)
        if (bytes[i] != pattern_byte(seed, skip + i))
            fail("%s: byte %zu of %zu is 0x%02x, expected 0x%02x (pattern %u)", what, i, length,
                 bytes[i], pattern_byte(seed, skip + i), seed);
}

void pattern_check(const void *at, size_t length, uint32_t seed, const char *what)
{
    pattern_check_from(at, length, seed, 0, what);
}

void bytes_check(const void *at, size_t length, unsigned char value, const char *what)
{
    const unsigned char *bytes = at;

    for (size_t i = 0; i < length; i++)
        if (bytes[i] != value)
            fail("%s: byte %zu of %zu is 0x%02x, expected 0x%02x", what, i, length, bytes[i],
                 value);
}

uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

/*
 * Memory for transfers: mapped, filled with a known pattern, an unmapped-for-use page on each side.
 *
 * The bytes end flush with the guard page, so that a provider that reads or writes one byte too
 * many is caught at once when it works by plain copies; what lies before them is a canary that
 * memory_free checks, which catches the rest.
 */
#ifndef WSD_HARNESS_MEMORY_H
#define WSD_HARNESS_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct memory {
    unsigned char *base;
    size_t length;
    unsigned char *mapping;
    size_t mapped;
};

/* `length` bytes, all zero. */
struct memory memory_new(size_t length);
/* Checks the canary, then unmaps. */
void memory_free(struct memory *memory);

/* The byte of pattern `seed` at position `at`. */
unsigned char pattern_byte(uint32_t seed, size_t at);
void pattern_fill(void *to, size_t length, uint32_t seed);
/* As if the pattern had begun `skip` bytes before `to`. */
void pattern_fill_from(void *to, size_t length, uint32_t seed, size_t skip);
/* Fails the case, saying where the first difference is. */
void pattern_check(const void *at, size_t length, uint32_t seed, const char *what);
void pattern_check_from(const void *at, size_t length, uint32_t seed, size_t skip,
                        const char *what);
/* Fails the case unless every byte is `value`. */
void bytes_check(const void *at, size_t length, unsigned char value, const char *what);

/* A small deterministic generator; the state is the seed and must not be 0. */
uint32_t next_random(uint32_t *state);

#ifdef __cplusplus
}
#endif
#endif

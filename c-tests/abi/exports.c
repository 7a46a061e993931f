/*
 * The library loads, has WSPStartupEx, and its GUIDs have the published bytes.
 *
 * A provider of somebody else has no GUID statics; then only the entry is checked.
 *
 * req: WSD-01
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wsdirect.h>

static const struct {
    const char *name;
    unsigned char bytes[16];
} guids[] = {
#define FAMILY(first) {first, 0x22, 0xb4, 0xc0, 0x8c, 0xf5, 0xd1, 0x11, 0xad, 0x6c, 0x00, 0xc0, 0x4f, 0xa3, 0x4a, 0x2d}
    {"WSAID_REGISTERMEMORY", FAMILY(0xf5)},
    {"WSAID_DEREGISTERMEMORY", FAMILY(0xf6)},
    {"WSAID_REGISTERRDMAMEMORY", FAMILY(0xf7)},
    {"WSAID_DEREGISTERRDMAMEMORY", FAMILY(0xf8)},
    {"WSAID_RDMAWRITE", FAMILY(0xf9)},
    {"WSAID_RDMAREAD", FAMILY(0xfa)},
    {"WSAID_MEMORYREGISTRATIONCACHECALLBACK",
     {0xf8, 0x4a, 0xda, 0xe5, 0x24, 0xd8, 0xcd, 0x48, 0xa7, 0x99, 0x63, 0x37, 0xa9, 0x8e, 0xd2, 0xaf}},
    {"WSAID_ARMCOMPLETION",
     {0x52, 0x9c, 0x1f, 0x6b, 0x0e, 0x3d, 0x7a, 0x4c, 0x9e, 0x57, 0x2a, 0x64, 0xd1, 0xb0, 0x8f, 0x33}},
    {"WSAID_TAKEPROGRESS",
     {0xb9, 0x40, 0x7c, 0x1d, 0x52, 0x8e, 0x36, 0x4f, 0xa1, 0xc8, 0x5b, 0x90, 0xe2, 0x7f, 0x63, 0xd4}},
    {"WSAID_MAKEPROGRESS",
     {0x17, 0x5f, 0xae, 0x93, 0xd4, 0x06, 0x8b, 0x4b, 0xb7, 0x2e, 0xc4, 0x1f, 0x8a, 0x3d, 0x59, 0x06}},
};

int main(void)
{
    const char *path = getenv("WSD_PROVIDER_LIB");
    void *library;
    size_t found = 0;

    if (path == NULL || path[0] == '\0')
        path = WSD_DEFAULT_PROVIDER;
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    if (dlsym(library, "WSPStartupEx") == NULL) {
        fprintf(stderr, "%s has no WSPStartupEx\n", path);
        return 1;
    }
    for (size_t i = 0; i < sizeof guids / sizeof guids[0]; i++) {
        const void *guid = dlsym(library, guids[i].name);

        if (guid == NULL)
            continue;
        found++;
        if (memcmp(guid, guids[i].bytes, sizeof guids[i].bytes) != 0) {
            fprintf(stderr, "%s has other bytes\n", guids[i].name);
            return 1;
        }
    }
    if (found != 0 && found != sizeof guids / sizeof guids[0]) {
        fprintf(stderr, "only %zu of the GUIDs are there\n", found);
        return 1;
    }
    printf("%s: the entry and %zu GUIDs\n", path, found);
    return 0;
}

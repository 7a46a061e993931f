/* The header alone, and again; see CMakeLists.txt. */
#include <wsd_switch.h>
#include <errno.h>
#include <netinet/in.h>
#include <wsd_switch.h>

/* What the header promises of its structures. */
#ifdef __cplusplus
#define AT_COMPILE_TIME static_assert
#else
#define AT_COMPILE_TIME _Static_assert
#endif
AT_COMPILE_TIME(sizeof(struct wsd_transport_info) == 2 * sizeof(int) + 64 + 32 + 160, "gaps");
AT_COMPILE_TIME(sizeof(struct wsd_stats_info) == 17 * sizeof(uint64_t), "gaps");
AT_COMPILE_TIME(SOL_WSD > 0, "a level is a positive int");

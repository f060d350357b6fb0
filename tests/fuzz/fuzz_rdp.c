/* The RDP wire layer: see rdp_walk.h. */
#include "rdp_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct rdp_walk w;

    rdp_walk(data, len, &w);
    return 0;
}

/*
 * What differs between FreeRDP 2 (Debian 12) and FreeRDP 3 (Debian 13), and nothing else. Included
 * by decoder.c only.
 */
#ifndef EXPORT_FREERDP_H
#define EXPORT_FREERDP_H

#include <freerdp/addin.h>
#include <freerdp/channels/channels.h>
#include <freerdp/client/channels.h>
#include <freerdp/client/cmdline.h>
#include <freerdp/client/rdpgfx.h>
#include <freerdp/codec/color.h>
#include <freerdp/codecs.h>
#include <freerdp/event.h>
#include <freerdp/freerdp.h>
#include <freerdp/gdi/gdi.h>
#include <freerdp/gdi/gfx.h>
#include <freerdp/graphics.h>
#include <freerdp/version.h>
#include <winpr/synch.h>

#if FREERDP_VERSION_MAJOR >= 3

#include <freerdp/client.h>

typedef const ChannelConnectedEventArgs *fr_connected_args;
typedef FreeRDP_Settings_Keys_Bool fr_flag_key;
typedef FreeRDP_Settings_Keys_UInt32 fr_number_key;
typedef rdpPointer *fr_set_pointer; /* of pPointer_Set */

static inline void fr_load_channels(freerdp *instance)
{
    instance->LoadChannels = freerdp_client_load_channels;
}

/* Called in PreConnect: version 3 does it by itself, later. */
static inline BOOL fr_preload_channels(freerdp *instance)
{
    (void)instance;
    return TRUE;
}

static inline BOOL fr_set_bitmap_cells(rdpSettings *settings, UINT32 cells, UINT32 entries)
{
    BITMAP_CACHE_V2_CELL_INFO info = {.numEntries = entries, .persistent = FALSE};

    for (UINT32 i = 0; i < cells; i++)
        if (!freerdp_settings_set_pointer_array(settings, FreeRDP_BitmapCacheV2CellInfo, i, &info))
            return FALSE;
    return freerdp_settings_set_uint32(settings, FreeRDP_BitmapCacheV2NumCells, cells);
}

static inline BOOL fr_should_disconnect(freerdp *instance)
{
    return freerdp_shall_disconnect_context(instance->context);
}

#else

typedef ChannelConnectedEventArgs *fr_connected_args;
typedef size_t fr_flag_key;
typedef size_t fr_number_key;
typedef const rdpPointer *fr_set_pointer;

static inline void fr_load_channels(freerdp *instance)
{
    (void)instance;
}

static inline BOOL fr_preload_channels(freerdp *instance)
{
    return freerdp_client_load_addins(instance->context->channels, instance->context->settings);
}

static inline BOOL fr_set_bitmap_cells(rdpSettings *settings, UINT32 cells, UINT32 entries)
{
    for (UINT32 i = 0; i < cells; i++) {
        settings->BitmapCacheV2CellInfo[i].numEntries = entries;
        settings->BitmapCacheV2CellInfo[i].persistent = FALSE;
    }
    return freerdp_settings_set_uint32(settings, FreeRDP_BitmapCacheV2NumCells, cells);
}

static inline BOOL fr_should_disconnect(freerdp *instance)
{
    return freerdp_shall_disconnect(instance);
}

#endif

#endif

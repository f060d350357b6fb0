/*
 * See decoder.h. The library runs in its own threads, whatever they are in this version; what they
 * share with the caller is the picture, and the caller reads it only when they are at rest.
 */
#include "tracker/export/decoder.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "tracker/export/freerdp.h"

#define POINTER_MAX     384 /* of a side: large pointers, [MS-RDPBCGR] 2.2.9.1.1.4.4 */
#define WAIT_MS         1000
#define MULTIFRAG_MAX   (64u * 1024 * 1024)
#define POINTER_CACHE   2048u
#define BITMAP_CELLS    5
#define BITMAP_ENTRIES  0x7fffu /* as many as an order can name */
#define BITMAP_CODECS   (FREERDP_CODEC_INTERLEAVED | FREERDP_CODEC_PLANAR)
#define HANDLES_MAX     64
#define REACTIVATION_MS 60000u

struct decoder {
    freerdp *instance;
    pthread_t thread;
    atomic_bool is_ready, has_failed, has_changed, has_position;
    atomic_uint position;        /* x and y */
    const struct shape *pointer; /* owned by the library's cache */
    bool is_pointer_hidden;
};

struct context {
    rdpContext base; /* must be first */
    struct decoder *d;
};

/* A pointer as the library keeps it, and its picture. */
struct shape {
    rdpPointer base; /* must be first */
    uint8_t *pixels;
};

static struct decoder *decoder_of(rdpContext *context)
{
    return ((struct context *)context)->d;
}

/* ---- the pointer ---- */

/* The arrow of every desktop, for "the system's default": its tip is the hot spot. */
#define ARROW_WIDTH  12
#define ARROW_HEIGHT 19
static const char arrow[ARROW_HEIGHT][ARROW_WIDTH + 1] = {
    "X           ", "XX          ", "X.X         ", "X..X        ", "X...X       ",
    "X....X      ", "X.....X     ", "X......X    ", "X.......X   ", "X........X  ",
    "X.........X ", "X......XXXXX", "X...X..X    ", "X..XX..X    ", "X.X  X..X   ",
    "XX   X..X   ", "X     X..X  ", "      X..X  ", "       XX   ",
};

static const uint8_t *arrow_pixels(void)
{
    static uint8_t pixels[ARROW_HEIGHT * ARROW_WIDTH * 4];
    static bool is_drawn;

    for (size_t i = 0; !is_drawn && i < ARROW_HEIGHT * (size_t)ARROW_WIDTH; i++) {
        char c = arrow[i / ARROW_WIDTH][i % ARROW_WIDTH];

        memset(pixels + 4 * i, c == '.' ? 0xff : 0, 3);
        pixels[4 * i + 3] = c == ' ' ? 0 : 0xff;
    }
    is_drawn = true;
    return pixels;
}

static BOOL pointer_new(rdpContext *context, rdpPointer *pointer)
{
    struct shape *shape = (struct shape *)pointer;
    size_t len = (size_t)4 * pointer->width * pointer->height;

    shape->pixels = NULL;
    if (pointer->width == 0 || pointer->height == 0 || pointer->width > POINTER_MAX ||
        pointer->height > POINTER_MAX)
        return TRUE; /* one that cannot be drawn ends no export */
    shape->pixels = calloc(1, len);
    if (shape->pixels &&
        !freerdp_image_copy_from_pointer_data(
            shape->pixels, PIXEL_FORMAT_BGRA32, 0, 0, 0, pointer->width, pointer->height,
            pointer->xorMaskData, pointer->lengthXorMask, pointer->andMaskData,
            pointer->lengthAndMask, pointer->xorBpp, &context->gdi->palette)) {
        free(shape->pixels);
        shape->pixels = NULL;
    }
    return TRUE;
}

static void show_pointer(rdpContext *context, const struct shape *shape, bool is_hidden)
{
    struct decoder *d = decoder_of(context);

    d->pointer = shape;
    d->is_pointer_hidden = is_hidden;
    atomic_store(&d->has_changed, true);
}

static void pointer_free(rdpContext *context, rdpPointer *pointer)
{
    struct shape *shape = (struct shape *)pointer;

    if (decoder_of(context)->pointer == shape)
        show_pointer(context, NULL, false);
    free(shape->pixels);
    shape->pixels = NULL;
}

static BOOL pointer_set(rdpContext *context, fr_set_pointer pointer)
{
    show_pointer(context, (const struct shape *)pointer, false);
    return TRUE;
}

static BOOL pointer_set_null(rdpContext *context)
{
    show_pointer(context, NULL, true);
    return TRUE;
}

static BOOL pointer_set_default(rdpContext *context)
{
    show_pointer(context, NULL, false);
    return TRUE;
}

static BOOL pointer_set_position(rdpContext *context, UINT32 x, UINT32 y)
{
    struct decoder *d = decoder_of(context);

    atomic_store(&d->position, (x & 0xffff) << 16 | (y & 0xffff));
    atomic_store(&d->has_position, true);
    return TRUE;
}

static void register_pointer(rdpContext *context)
{
    rdpPointer pointer = {
        .size = sizeof(struct shape),
        .New = pointer_new,
        .Free = pointer_free,
        .Set = pointer_set,
        .SetNull = pointer_set_null,
        .SetDefault = pointer_set_default,
        .SetPosition = pointer_set_position,
    };

    graphics_register_pointer(context->graphics, &pointer);
}

void decoder_pointer(const struct decoder *d, struct decoder_pointer *out)
{
    const struct shape *shape = d->pointer;

    memset(out, 0, sizeof(*out));
    if (d->is_pointer_hidden)
        return;
    if (!shape || !shape->pixels) {
        out->pixels = arrow_pixels();
        out->width = ARROW_WIDTH;
        out->height = ARROW_HEIGHT;
        return;
    }
    out->pixels = shape->pixels;
    out->width = shape->base.width;
    out->height = shape->base.height;
    out->hot_x = shape->base.xPos;
    out->hot_y = shape->base.yPos;
}

bool decoder_take_position(struct decoder *d, uint16_t *x, uint16_t *y)
{
    unsigned position;

    if (!atomic_exchange(&d->has_position, false))
        return false;
    position = atomic_load(&d->position);
    *x = (uint16_t)(position >> 16);
    *y = (uint16_t)position;
    return true;
}

/* ---- the library's callbacks ---- */

static BOOL begin_paint(rdpContext *context)
{
    context->gdi->primary->hdc->hwnd->invalid->null = TRUE;
    context->gdi->primary->hdc->hwnd->ninvalid = 0;
    return TRUE;
}

static BOOL end_paint(rdpContext *context)
{
    if (!context->gdi->primary->hdc->hwnd->invalid->null)
        atomic_store(&decoder_of(context)->has_changed, true);
    return TRUE;
}

static BOOL desktop_resize(rdpContext *context)
{
    UINT32 width = freerdp_settings_get_uint32(context->settings, FreeRDP_DesktopWidth);
    UINT32 height = freerdp_settings_get_uint32(context->settings, FreeRDP_DesktopHeight);

    if (!context->gdi) /* it is made later, of the right size */
        return TRUE;
    atomic_store(&decoder_of(context)->has_changed, true);
    /* the bitmap codecs have room for the first desktop only */
    return width <= DECODER_SIZE_MAX && height <= DECODER_SIZE_MAX &&
           freerdp_client_codecs_reset(context->codecs, BITMAP_CODECS, width, height) &&
           gdi_resize(context->gdi, width, height);
}

static void on_channel(void *context, fr_connected_args e)
{
    if (strcmp(e->name, RDPGFX_DVC_CHANNEL_NAME) == 0)
        gdi_graphics_pipeline_init(((rdpContext *)context)->gdi,
                                   (RdpgfxClientContext *)e->pInterface);
}

static BOOL pre_connect(freerdp *instance)
{
    return PubSub_SubscribeChannelConnected(instance->context->pubSub, on_channel) >= 0 &&
           fr_preload_channels(instance);
}

static BOOL post_connect(freerdp *instance)
{
    rdpContext *context = instance->context;

    if (!gdi_init(instance, PIXEL_FORMAT_BGRX32))
        return FALSE;
    register_pointer(context);
    context->update->BeginPaint = begin_paint;
    context->update->EndPaint = end_paint;
    context->update->DesktopResize = desktop_resize;
    return TRUE;
}

/* The pictures stay: whoever asked for them may still look. */
static void post_disconnect(freerdp *instance)
{
    (void)instance;
}

/* ---- settings ---- */

/* No TLS, no encryption, nothing but what draws; caches as large as the protocol can address, so
 * that it does not matter which ones the recorded client had. */
static BOOL set_flags(rdpSettings *s)
{
    static const struct {
        fr_flag_key key;
        BOOL value;
    } flags[] = {
        {FreeRDP_NegotiateSecurityLayer, TRUE},
        {FreeRDP_TlsSecurity, FALSE},
        {FreeRDP_NlaSecurity, FALSE},
        {FreeRDP_ExtSecurity, FALSE},
        {FreeRDP_RdpSecurity, TRUE},
        {FreeRDP_UseRdpSecurityLayer, TRUE},
        {FreeRDP_SoftwareGdi, TRUE},
        {FreeRDP_SupportGraphicsPipeline, TRUE},
        {FreeRDP_SupportDynamicChannels, TRUE},
        {FreeRDP_NetworkAutoDetect, FALSE},
        {FreeRDP_SupportHeartbeatPdu, FALSE},
        {FreeRDP_SupportMultitransport, FALSE},
        {FreeRDP_DeviceRedirection, FALSE},
        {FreeRDP_RedirectClipboard, FALSE},
        {FreeRDP_AudioPlayback, FALSE},
        {FreeRDP_AudioCapture, FALSE},
        {FreeRDP_SupportDisplayControl, FALSE},
        {FreeRDP_AutoReconnectionEnabled, FALSE},
        {FreeRDP_FastPathOutput, TRUE},
        {FreeRDP_SurfaceCommandsEnabled, TRUE},
        {FreeRDP_SurfaceFrameMarkerEnabled, TRUE},
        {FreeRDP_RemoteFxCodec, TRUE},
        {FreeRDP_NSCodec, TRUE},
        {FreeRDP_GfxThinClient, FALSE},
        {FreeRDP_GfxProgressive, TRUE},
        {FreeRDP_GfxProgressiveV2, TRUE},
        {FreeRDP_GfxH264, TRUE},
        {FreeRDP_GfxAVC444, TRUE},
        {FreeRDP_GfxAVC444v2, TRUE},
        {FreeRDP_AllowUnanouncedOrdersFromServer, TRUE},
        {FreeRDP_BitmapCacheEnabled, TRUE},
        {FreeRDP_BitmapCacheV3Enabled, TRUE},
        {FreeRDP_BitmapCachePersistEnabled, FALSE},
        {FreeRDP_DesktopResize, TRUE},
        {FreeRDP_GrabMouse, TRUE}, /* otherwise the target's pointer positions are not told */
        {FreeRDP_CompressionEnabled, TRUE},
    };

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
        if (!freerdp_settings_set_bool(s, flags[i].key, flags[i].value))
            return FALSE;
    return TRUE;
}

static BOOL set_numbers(rdpSettings *s, int fd)
{
    static const struct {
        fr_number_key key;
        UINT32 value;
    } numbers[] = {
        {FreeRDP_ColorDepth, 32},
        {FreeRDP_PointerCacheSize, POINTER_CACHE},
        {FreeRDP_LargePointerFlag, 3},
        {FreeRDP_MultifragMaxRequestSize, MULTIFRAG_MAX},
        {FreeRDP_OffscreenSupportLevel, 1},
        {FreeRDP_OffscreenCacheSize, 7680},
        {FreeRDP_OffscreenCacheEntries, 500},
        {FreeRDP_TcpAckTimeout, REACTIVATION_MS},
    };

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (!freerdp_settings_set_uint32(s, numbers[i].key, numbers[i].value))
            return FALSE;
    /* a host called "|" is a socket that is there already, and its port is the number */
    return fr_set_bitmap_cells(s, BITMAP_CELLS, BITMAP_ENTRIES) &&
           freerdp_settings_set_string(s, FreeRDP_ServerHostname, "|") &&
           freerdp_settings_set_uint32(s, FreeRDP_ServerPort, (UINT32)fd) &&
           freerdp_settings_set_string(s, FreeRDP_Username, "recording") &&
           freerdp_settings_set_string(s, FreeRDP_Password, "");
}

/* ---- the thread ---- */

static bool run_once(freerdp *instance)
{
    HANDLE handles[HANDLES_MAX];
    DWORD count = freerdp_get_event_handles(instance->context, handles, HANDLES_MAX);

    return count > 0 && WaitForMultipleObjects(count, handles, FALSE, WAIT_MS) != WAIT_FAILED &&
           freerdp_check_event_handles(instance->context);
}

static void *run(void *arg)
{
    struct decoder *d = arg;

    if (freerdp_connect(d->instance)) {
        atomic_store(&d->is_ready, true);
        while (!fr_should_disconnect(d->instance) && run_once(d->instance))
            ;
    }
    atomic_store(&d->has_failed, true);
    return NULL;
}

struct decoder *decoder_create(int fd)
{
    struct decoder *d = calloc(1, sizeof(*d));
    rdpSettings *settings;

    setenv("WLOG_LEVEL", "OFF", 0); /* what it would say is about bytes of strangers */
    if (!d || freerdp_register_addin_provider(freerdp_channels_load_static_addin_entry, 0) != 0 ||
        !(d->instance = freerdp_new()))
        return NULL;
    d->instance->ContextSize = sizeof(struct context);
    d->instance->PreConnect = pre_connect;
    d->instance->PostConnect = post_connect;
    d->instance->PostDisconnect = post_disconnect;
    fr_load_channels(d->instance);
    if (!freerdp_context_new(d->instance))
        return NULL;
    ((struct context *)d->instance->context)->d = d;
    settings = d->instance->context->settings;
    return set_flags(settings) && set_numbers(settings, fd) ? d : NULL;
}

int decoder_start(struct decoder *d, uint16_t width, uint16_t height)
{
    rdpSettings *settings = d->instance->context->settings;

    if (width == 0 || height == 0 || width > DECODER_SIZE_MAX || height > DECODER_SIZE_MAX)
        return ERR_INVALID;
    if (!freerdp_settings_set_uint32(settings, FreeRDP_DesktopWidth, width) ||
        !freerdp_settings_set_uint32(settings, FreeRDP_DesktopHeight, height))
        return ERR_INVALID;
    return pthread_create(&d->thread, NULL, run, d) == 0 ? 0 : ERR_MEMORY;
}

bool decoder_is_ready(const struct decoder *d)
{
    return atomic_load(&d->is_ready);
}

bool decoder_has_failed(const struct decoder *d)
{
    return atomic_load(&d->has_failed);
}

bool decoder_screen(const struct decoder *d, struct decoder_screen *out)
{
    const rdpGdi *gdi = d->instance->context->gdi;

    if (!decoder_is_ready(d) || !gdi || !gdi->primary_buffer || gdi->width <= 0 || gdi->height <= 0)
        return false;
    out->pixels = gdi->primary_buffer;
    out->stride = gdi->stride;
    out->width = (uint32_t)gdi->width;
    out->height = (uint32_t)gdi->height;
    return true;
}

bool decoder_take_change(struct decoder *d)
{
    return atomic_exchange(&d->has_changed, false);
}
